/** New recipients for several sites, some of which take nothing more. */
import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
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

function configure(file: string, recipient: string): void {
  const sites = ["s1", "s2"].map((name) => `  - {name: ${name}, type: directory, path: ${name}}`);
  const encryption = `encryption: {nodeKey: {file: node.key}, recipients: [${recipient}]}`;
  const head = "cluster: c\nproduct: {type: files, root: /srv}\nsites:";
  writeFileSync(file, [head, ...sites, encryption, ""].join("\n"));
}

/** What a command said, if it did what it was told. */
async function must(folder: string, ...words: string[]): Promise<string> {
  const said: string[] = [];
  const terminal = {
    print: (text: string) => void said.push(text),
    say: (text: string) => void said.push(text),
    isLive: false,
    canAsk: false,
    ask: () => Promise.resolve(false),
  };
  const code = await runCli([...words, "-c", join(folder, "astacus.yaml")], terminal);
  if (code !== 0) throw new Error(said.join("\n"));
  return said.join("\n");
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
