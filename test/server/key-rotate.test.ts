/** New recipients for several sites, some of which take nothing more. */
import { expect, test } from "bun:test";
import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { realClock } from "../../src/base/clock.ts";
import { realRandom } from "../../src/base/random.ts";
import { closeLog } from "../../src/cas/copy/close-log.ts";
import { drawId } from "../../src/cas/format/ids.ts";
import { formatNodeKeys } from "../../src/cas/format/node-keys.ts";
import { formatIdentity } from "../../src/cas/keys/age.ts";
import { commitBackup } from "../../src/cas/write/backup-commit.ts";
import { runCli } from "../../src/cli/main.ts";
import { openDirectorySite } from "../../src/sites/directory-site.ts";
import { ENCRYPTION, READER, STRANGER } from "../cas/encryption-keys.ts";
import { openNode, storeSmall } from "../cas/small-backups.ts";
import type { SmallNode } from "../cas/small-backups.ts";
import { temporaryFolder } from "../cas/temporary-folder.ts";

const DOORS = { clock: realClock, random: realRandom };

test("a rotation passes over a retired site, says so, and goes on with the others", async () => {
  using folder = temporaryFolder();
  const path = (name: string): string => join(folder.path, name);
  writeFileSync(path("node.key"), formatNodeKeys(ENCRYPTION.keys));
  writeFileSync(path("identity"), await formatIdentity(READER));
  configure(path("astacus.yaml"), READER.recipient);
  await must(folder.path, "site", "init", "s1");
  await must(folder.path, "site", "init", "s2");
  for (const name of ["s1", "s2"]) await at(path(name), backUp);
  const successor = await at(path("s2"), async ({ repository }) => repository.header.site);
  await at(path("s1"), async ({ repository }) => {
    const operation = drawId(realRandom);
    await closeLog(repository, { successor, reason: "retired", operation });
  });
  configure(path("astacus.yaml"), STRANGER.recipient);
  const said = await must(folder.path, "key", "rotate", "--identity", path("identity"));
  expect(said).toContain("s1: retired");
  expect(said).toContain("s2: 1 wrapped");
  const recipients = async (name: string) =>
    await at(path(name), async ({ repository: { state } }) =>
      [...state.keys.values()].flatMap((key) => [...key.recipients]),
    );
  expect(await recipients("s1")).toEqual([READER.recipient]);
  expect(await recipients("s2")).toEqual([STRANGER.recipient]);
});

test("a site that is away fails alone; the keys are shown from the one that answers", async () => {
  using folder = temporaryFolder();
  const path = (name: string): string => join(folder.path, name);
  writeFileSync(path("node.key"), formatNodeKeys(ENCRYPTION.keys));
  writeFileSync(path("identity"), await formatIdentity(READER));
  writeFileSync(path("stranger"), await formatIdentity(STRANGER));
  configure(path("astacus.yaml"), READER.recipient);
  await must(folder.path, "site", "init", "s1");
  await must(folder.path, "site", "init", "s2");
  for (const name of ["s1", "s2"]) await at(path(name), backUp);
  renameSync(path("s1"), path("away"));
  const checked = await say(folder.path, "key", "check", "--identity", path("identity"));
  expect(checked).toMatchObject({ code: 0 });
  expect(checked.text).toContain("NOTICE The primary s1 does not answer: ");
  expect(checked.text).toContain("1 of 1 session keys open");
  const strange = await say(folder.path, "key", "check", "--identity", path("stranger"));
  expect(strange).toMatchObject({ code: 1 });
  expect(strange.text).toContain("0 of 1 session keys open");
  expect(await must(folder.path, "key", "list")).toContain(READER.recipient);
  configure(path("astacus.yaml"), STRANGER.recipient);
  const rotated = await say(folder.path, "key", "rotate", "--identity", path("identity"));
  expect(rotated).toMatchObject({ code: 1 });
  expect(rotated.text).toContain("s1: NOT rotated");
  expect(rotated.text).toContain("s2: 1 wrapped");
});

test("who gives no identity is told that nothing was opened", async () => {
  using folder = temporaryFolder();
  const path = (name: string): string => join(folder.path, name);
  writeFileSync(path("node.key"), formatNodeKeys(ENCRYPTION.keys));
  writeFileSync(path("identity"), await formatIdentity(READER));
  configure(path("astacus.yaml"), READER.recipient);
  await must(folder.path, "site", "init", "s1");
  await must(folder.path, "site", "init", "s2");
  await at(path("s1"), backUp);
  const [id = ""] = await at(path("s1"), async ({ repository }) => [
    ...repository.state.backups.keys(),
  ]);
  expect(await must(folder.path, "show", id)).toContain("--identity");
  const closed = await must(folder.path, "verify", "--deep");
  expect(closed).toContain("checked without opening it");
  // The manifest of this backup is none, which shows only to who opens it.
  const opened = await say(folder.path, "verify", "--deep", "--identity", path("identity"));
  expect(opened.text).toContain("1 problem:");
  expect(opened.text).not.toContain("without opening it");
});

function configure(file: string, recipient: string): void {
  const sites = ["s1", "s2"].map((name) => `  - {name: ${name}, type: directory, path: ${name}}`);
  const encryption = `encryption: {nodeKey: {file: node.key}, recipients: [${recipient}]}`;
  const head = "cluster: c\nproduct: {type: files, root: /srv}\nsites:";
  writeFileSync(file, [head, ...sites, encryption, ""].join("\n"));
}

/** What a command said, if it did what it was told. */
async function must(folder: string, ...words: string[]): Promise<string> {
  const { code, text } = await say(folder, ...words);
  if (code !== 0) throw new Error(text);
  return text;
}

/** How a command ended, and all that it said. */
async function say(folder: string, ...words: string[]) {
  const said: string[] = [];
  const terminal = {
    print: (text: string) => void said.push(text),
    say: (text: string) => void said.push(text),
    isLive: false,
    canAsk: false,
    ask: () => Promise.resolve(false),
  };
  const code = await runCli([...words, "-c", join(folder, "astacus.yaml")], terminal);
  return { code, text: said.join("\n") };
}

/** Works at a site as a node with the keys. */
async function at<Result>(path: string, work: (node: SmallNode) => Promise<Result>) {
  await using site = await openDirectorySite({ name: "site", path });
  using node = await openNode(site, DOORS, { encryption: ENCRYPTION });
  return await work(node);
}

async function backUp({ repository, source }: SmallNode): Promise<void> {
  const ended = new Date(0).toISOString();
  const { draft } = await storeSmall(repository, [1, 2], { random: realRandom, ended });
  await commitBackup(repository, source, draft, { operation: drawId(realRandom) });
}
