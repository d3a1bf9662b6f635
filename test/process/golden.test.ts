/**
 * Golden repositories: what a released format version looks like on disk, kept for good. Whatever
 * this code has become, it lists, verifies and restores them byte for byte, from either site alone,
 * and so does the independent reader. A repository that is read is not changed.
 */
import { afterAll, describe, expect, test } from "bun:test";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { GoldenExpected } from "../../scripts/golden-types.ts";
import { recordTree } from "../../scripts/tree-comparison.ts";

const PROJECT = join(import.meta.dir, "../..");
const GOLDEN = join(PROJECT, "test/golden");
const FOLDER = fs.mkdtempSync(join(fs.realpathSync(tmpdir()), "astacus-golden-"));
const TIMEOUT_MS = 240_000;

afterAll(() => fs.rmSync(FOLDER, { recursive: true, force: true }));

const archives = fs.readdirSync(GOLDEN).filter((name) => name.endsWith(".tar.gz"));

test("there is a plain and an encrypted one of version 1", () => {
  expect(archives.toSorted()).toContain("version-1-plain.tar.gz");
  expect(archives.toSorted()).toContain("version-1-encrypted.tar.gz");
});

describe.each(archives)("%s", (archive) => {
  const folder = join(FOLDER, archive);
  fs.mkdirSync(folder);
  const tar = Bun.spawnSync(["tar", "-xzf", join(GOLDEN, archive), "-C", folder]);
  if (!tar.success) throw new Error(tar.stderr.toString());
  const expected = JSON.parse(
    fs.readFileSync(join(folder, "expected.json"), "utf8"),
  ) as GoldenExpected;
  const isEncrypted = fs.existsSync(join(folder, "node.key"));

  describe.each(["main", "mirror"])("from its site %s alone", (site) => {
    const config = writeConfig(folder, site, isEncrypted);

    test(
      "is verified and restored",
      () => {
        const before = listTree(join(folder, site));
        astacus(["verify", "--deep", "-c", config, ...withIdentity(folder, isEncrypted)]);
        for (const [name, nodes] of Object.entries(expected)) {
          const target = join(folder, `${site}-${name}`);
          const identity = withIdentity(folder, isEncrypted);
          astacus(["restore", "--to", target, "--backup", name, "-c", config, ...identity]);
          for (const [node, wanted] of Object.entries(nodes)) {
            expect(restored(join(target, node))).toEqual(withoutOwners(wanted));
          }
        }
        expect(listTree(join(folder, site))).toEqual(before);
      },
      TIMEOUT_MS,
    );

    test(
      "is restored by the independent reader",
      () => {
        for (const [name, nodes] of Object.entries(expected)) {
          const target = join(folder, `${site}-${name}-by-the-reader`);
          const keys = isEncrypted ? ["--node-key", join(folder, "node.key")] : [];
          const identity = withIdentity(folder, isEncrypted);
          const command = ["restore", join(folder, site), name, target, ...keys, ...identity];
          run([process.execPath, join(PROJECT, "contrib/read-backup.mjs"), ...command]);
          for (const [node, wanted] of Object.entries(nodes)) {
            expect(inMilliseconds(restored(join(target, node)))).toEqual(
              inMilliseconds(withoutOwners(wanted)),
            );
          }
        }
      },
      TIMEOUT_MS,
    );
  });
});

function writeConfig(folder: string, site: string, isEncrypted: boolean): string {
  const path = join(folder, `${site}.conf`);
  const lines = [
    "cluster: golden",
    'nodes: [{name: a, address: "http://127.0.0.1:5515"}, {name: b, address: "http://127.0.0.1:5516"}]',
    `data: "${folder}/data/{node}"`,
    `product: {type: files, root: "${folder}/root"}`,
    `sites: [{name: ${site}, type: directory, path: "${folder}/${site}"}]`,
    ...(isEncrypted
      ? [`encryption: {nodeKey: {file: "${folder}/node.key"}, recipients: [${recipient(folder)}]}`]
      : []),
  ];
  fs.writeFileSync(path, lines.join("\n"));
  return path;
}

/** The first identity was rotated away; the second one reads what was there before, too. */
function withIdentity(folder: string, isEncrypted: boolean): string[] {
  return isEncrypted ? ["--identity", join(folder, "second.identity")] : [];
}

function recipient(folder: string): string {
  const text = fs.readFileSync(join(folder, "second.identity"), "utf8");
  return /age1\w+/.exec(text)?.[0] ?? "";
}

/** The one volume of a node, as it lies there now. */
function restored(nodeFolder: string): Record<string, string> {
  const volumes = fs.readdirSync(nodeFolder);
  expect(volumes).toHaveLength(1);
  return withoutOwners(Object.fromEntries(recordTree(join(nodeFolder, volumes[0] ?? "")).record));
}

/** Whoever runs this need not be who made it. */
function withoutOwners(record: Readonly<Record<string, string>>): Record<string, string> {
  const entries = Object.entries(record);
  return Object.fromEntries(entries.map(([path, is]) => [path, is.replace(/ \d+:\d+/, "")]));
}

/** The reader sets times through a call that takes seconds as a fraction. */
function inMilliseconds(record: Readonly<Record<string, string>>): Record<string, string> {
  const entries = Object.entries(record);
  return Object.fromEntries(
    entries.map(([path, is]) => [path, is.replace(/\b(\d{13})\d{6}\b/, "$1")]),
  );
}

function listTree(folder: string): string[] {
  return (fs.readdirSync(folder, { recursive: true }) as string[]).toSorted();
}

function astacus(args: readonly string[]): void {
  run([process.execPath, join(PROJECT, "src/astacus.ts"), ...args]);
}

function run(argv: readonly string[]): void {
  const { exitCode, stderr, stdout } = Bun.spawnSync([...argv]);
  const said = exitCode === 0 ? "" : `${stdout.toString()}${stderr.toString()}`;
  expect({ argv, exitCode, said }).toEqual({
    argv,
    exitCode: 0,
    said: "",
  });
}
