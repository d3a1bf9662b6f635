/**
 * Makes the golden repositories of the current format version: small ones, plain and encrypted, with
 * as many kinds of log entries as commands lead to. They are kept for good (test/golden), and every
 * later version must read them: `bun scripts/make-golden.ts` is run once for each format version, and
 * refuses to replace what is there.
 *
 * An archive holds the sites as they lie on disk (`main`, `mirror`), `expected.json` (what each
 * backup held, from the trees themselves) and, if it is encrypted, the keys.
 */
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FORMAT_VERSION } from "../src/cas/format/header.ts";
import type { GoldenBackup, GoldenExpected } from "./golden-types.ts";
import { ProcessCluster } from "./scenario-cluster.ts";
import type { CliEnd } from "./scenario-cluster.ts";
import { recordTree } from "./tree-comparison.ts";

const TARGET = join(import.meta.dir, "../test/golden");
const NODES = ["a", "b"];

for (const kind of ["plain", "encrypted"] as const) await makeGolden(kind);

async function makeGolden(kind: "plain" | "encrypted"): Promise<void> {
  const archive = join(TARGET, `version-${FORMAT_VERSION}-${kind}.tar.gz`);
  if (fs.existsSync(archive)) throw new Error(`${archive} is there already; it is kept for good`);
  const folder = fs.mkdtempSync(join(tmpdir(), "astacus-golden-"));
  try {
    const expected = await fillSites(folder, kind === "encrypted");
    fs.writeFileSync(join(folder, "expected.json"), JSON.stringify(expected));
    fs.mkdirSync(TARGET, { recursive: true });
    const keys = kind === "encrypted" ? ["node.key", "first.identity", "second.identity"] : [];
    const files = ["main", "mirror", "expected.json", ...keys];
    const tar = Bun.spawnSync(["tar", "-czf", archive, "-C", folder, ...files]);
    if (!tar.success) throw new Error(tar.stderr.toString());
    console.log(`${archive}: ${fs.statSync(archive).size} bytes`);
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

async function fillSites(folder: string, isEncrypted: boolean): Promise<GoldenExpected> {
  const config = (recipients: readonly string[]): string =>
    [
      `  - {name: mirror, type: directory, path: "${folder}/mirror"}`,
      "retention: {minimum: 1, keepLast: 3, undoWindow: 0s}",
      ...(isEncrypted
        ? [
            `encryption: {nodeKey: {file: "${folder}/node.key"}, recipients: [${recipients.join(", ")}]}`,
          ]
        : []),
    ].join("\n");
  await using cluster = await ProcessCluster.make({
    folder: join(folder, "cluster"),
    site: `{name: main, type: directory, path: "${folder}/main"}`,
    nodes: NODES,
    cluster: "golden",
  });
  const run = async (...args: string[]): Promise<CliEnd> => must(await cluster.run(args), args);
  const identities = [join(folder, "first.identity"), join(folder, "second.identity")];
  const recipients: string[] = [];
  if (isEncrypted) {
    await run("key", "node-init", join(folder, "node.key"));
    for (const identity of identities) {
      recipients.push(/age1\w+/.exec((await run("key", "generate", identity)).stdout)?.[0] ?? "");
    }
  }
  const file = ["-c", cluster.config];
  const withIdentity = isEncrypted ? ["--identity", identities[0] ?? ""] : [];
  fs.writeFileSync(cluster.config, cluster.configText({ more: config(recipients.slice(0, 1)) }));
  const encrypt = isEncrypted ? ["--encrypt"] : [];
  await run("site", "init", "main", ...encrypt, ...file);
  await run("site", "init", "mirror", ...encrypt, ...file);
  await cluster.startAll();
  const cli = async (...args: string[]): Promise<CliEnd> => must(await cluster.cli(args), args);
  const expected: Record<string, GoldenBackup> = {};
  for (const [round, name] of ["one", "two", "three", "four", "five"].entries()) {
    for (const node of NODES) fillRoot(cluster.root(node), node, round);
    await cli("backup", "--name", name);
    expected[name] = recordRoots(cluster);
  }
  await cli("pin", "three");
  await cli("delete", "four");
  await cli("undelete", "four");
  await cli("delete", "two");
  await cli("cleanup");
  await cli("cleanup");
  await cli("unpin", "three");
  delete expected["one"];
  delete expected["two"];
  damageOnePack(join(folder, "main"));
  await cli("verify", "--deep", "--repair");
  await cluster.stopAll();
  if (isEncrypted) {
    fs.writeFileSync(cluster.config, cluster.configText({ more: config(recipients) }));
    await run("key", "rotate", ...file, ...withIdentity);
  }
  const left = JSON.parse((await run("list", ...file, "--json")).stdout) as unknown;
  console.log(JSON.stringify(left).slice(0, 600));
  return expected;
}

/** Some of everything, with fixed times; a little changes in each round. */
function fillRoot(root: string, node: string, round: number): void {
  const write = (path: string, bytes: string | Uint8Array, mode = 0o644): void => {
    const whole = join(root, path);
    fs.mkdirSync(join(whole, ".."), { recursive: true });
    fs.rmSync(whole, { force: true });
    fs.writeFileSync(whole, bytes, { mode });
    fs.utimesSync(whole, 1_700_000_000 + round, 1_700_000_000.25 + round);
  };
  write("same-on-all", "the same on all nodes\n".repeat(400));
  write(`of-${node}/kept`, `kept by ${node}\n`.repeat(50), 0o600);
  write("changing", `round ${round} of ${node}\n`.repeat(100));
  write(`round-${round}`, noise(12_000, round));
  write("grown", noise(9_000, 99).subarray(0, 3_000 + 1_200 * round));
  write("empty", "");
  if (round > 0) fs.rmSync(join(root, `round-${round - 1}`), { force: true });
  fs.mkdirSync(join(root, "empty-folder"), { recursive: true });
  if (round > 0) return;
  fs.symlinkSync("changing", join(root, "link"));
  fs.linkSync(join(root, "empty"), join(root, "second-name"));
  fs.writeFileSync(Buffer.concat([Buffer.from(`${root}/not-utf8-`), Buffer.of(0xff)]), "x");
  const sparse = fs.openSync(join(root, "sparse"), "w");
  fs.ftruncateSync(sparse, 300_000);
  fs.writeSync(sparse, "in the middle", 150_000);
  fs.closeSync(sparse);
}

/** Bytes that do not compress, the same each time. */
function noise(size: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(size);
  let word = seed * 2_654_435_761 + 1;
  for (let index = 0; index < size; index += 1) {
    word = Math.imul(word ^ (word >>> 15), 2_246_822_519) + 1;
    bytes[index] = word >>> 24;
  }
  return bytes;
}

function recordRoots(cluster: ProcessCluster): GoldenBackup {
  return Object.fromEntries(
    cluster.names.map((node) => [node, Object.fromEntries(recordTree(cluster.root(node)).record)]),
  );
}

/** A byte in the middle of the largest pack. */
function damageOnePack(site: string): void {
  const packs = (fs.readdirSync(join(site, "pack"), { recursive: true }) as string[])
    .map((name) => join(site, "pack", name))
    .filter((path) => fs.statSync(path).isFile())
    .toSorted((one, other) => fs.statSync(other).size - fs.statSync(one).size);
  const path = packs[0] ?? "";
  const bytes = fs.readFileSync(path);
  const middle = Math.floor(bytes.length / 3);
  bytes[middle] = (bytes[middle] ?? 0) ^ 0xff;
  fs.chmodSync(path, 0o600);
  fs.writeFileSync(path, bytes);
}

function must(end: CliEnd, args: readonly string[]): CliEnd {
  if (end.code === 0) return end;
  throw new Error(`astacus ${args.join(" ")} ended with ${end.code}: ${end.stderr}`);
}
