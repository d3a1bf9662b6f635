/**
 * The independent reader of contrib/ and our own restore, on the same sites: both give back what was
 * backed up, so the format page, the writer and the two readers agree.
 */
import { FORMAT_VERSION } from "../../src/cas/format/header.ts";
import { describe, expect, test } from "bun:test";
import * as fs from "node:fs";
import { dirname, join } from "node:path";
import { realFileSystem } from "../../src/base/file-system.ts";
import { realRandom } from "../../src/base/random.ts";
import { commitBackup } from "../../src/cas/write/backup-commit.ts";
import { findBackup } from "../../src/cas/log/find-backup.ts";
import { drawId, manifestKey } from "../../src/cas/format/ids.ts";
import { encodeManifest, readManifest } from "../../src/cas/format/manifest.ts";
import { runVolumeRestore } from "../../src/cas/read/restore.ts";
import { verifyRepository } from "../../src/cas/read/verify.ts";
import { makeDirectorySite, openDirectorySite } from "../../src/sites/directory-site.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import { seededRandom } from "../sites/still-clock.ts";
import { openSource, Rig } from "./backup-rig.ts";
import { formatNodeKeys } from "../../src/cas/format/node-keys.ts";
import { ENCRYPTION, READER as OWNER, STRANGER } from "./encryption-keys.ts";
import { noise } from "./noise.ts";
import type { TestFile } from "./repository-builder.ts";
import { openReader, RepositoryBuilder } from "./repository-builder.ts";
import { shapeExpected, shapeOf } from "./tree-shape.ts";
import { temporaryFolder } from "./temporary-folder.ts";

const READER = join(import.meta.dir, "../../contrib/read-backup.mjs");
const UID = process.getuid?.() ?? 0;
const GID = process.getgid?.() ?? 0;

function read(...args: string[]): { exitCode: number; stdout: string; stderr: string } {
  const { exitCode, stdout, stderr } = Bun.spawnSync([process.execPath, READER, ...args]);
  return { exitCode, stdout: stdout.toString(), stderr: stderr.toString() };
}

/** A site's objects as files, as a directory site has them. */
function writeObjects(objects: ReadonlyMap<string, Uint8Array>, root: string): void {
  for (const [key, bytes] of objects) {
    fs.mkdirSync(dirname(join(root, key)), { recursive: true });
    fs.writeFileSync(join(root, key), bytes);
  }
}

/** The reader sets times as numbers with a fraction: whole seconds survive that. */
function everything(): TestFile[] {
  const holes = new Uint8Array(30_000);
  holes.set(noise(100, 9), 10_000);
  const files: TestFile[] = [
    { path: "d", mode: 0o711 },
    { path: "d-e", content: noise(100, 1) },
    { path: "d/a", content: noise(9000, 2), mode: 0o600 },
    { path: "d/empty" },
    { path: "d/text", content: new TextEncoder().encode("again and again ".repeat(500)) },
    { path: "holes", content: holes, sparse: true },
    { path: "link", hardlink: "d/a" },
    { path: "na\xefve", content: noise(10, 3) },
    { path: "none", content: new Uint8Array(0) },
    { path: "to", symlink: "d/text" },
    { path: "tree", content: noise(12_000, 4), isTree: true },
  ];
  const seconds = (index: number): bigint => BigInt(1_600_000_000 + index) * 1_000_000_000n;
  return files.map((file, index) => ({ ...file, uid: UID, gid: GID, mtimeNs: seconds(index) }));
}

/** A backup through the whole write path, with a true manifest. */
async function backUp(rig: Rig, name: string): Promise<void> {
  const operation = drawId(realRandom);
  const repository = await rig.openRepository();
  const { backup, stored } = await rig.store(repository, { operation });
  using _backup = backup;
  const id = drawId(realRandom);
  const { files, bytes, newBytes, storedBytes } = stored.totals;
  const totals = { files, bytes, newBytes, storedBytes };
  const { volumes, list, listPacks, segments, plannedAt } = stored;
  const node = { name: rig.node, zone: "", version: "0.1.0", volumes: [...volumes], list, totals };
  const common = {
    backup: id,
    name,
    cluster: "c",
    product: "files",
    started: "2026-11-22T18:00:00Z",
    ended: "2026-11-22T18:01:00Z",
    complete: true,
    totals,
  };
  const more = { state: {}, nodes: [node], problems: [], problemCount: 0 };
  const manifest = encodeManifest({ v: FORMAT_VERSION, ...common, ...more });
  const birth = repository.state.sequence;
  await repository.putObject(manifestKey(manifest.id, birth), manifest.bytes);
  await commitBackup(
    repository,
    openSource(repository),
    {
      ...common,
      problems: 0,
      plannedAt,
      manifest: { id: manifest.id, birth, sizeBytes: manifest.bytes.length },
      segments: [...segments],
      lists: [{ node: rig.node, root: list }],
      listPacks: [...listPacks],
    },
    { operation },
  );
  backup.committed(id);
}

describe("the independent reader", () => {
  test("lists, verifies and restores a repository of every kind of file", async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "site");
    await makeDirectorySite({ name: "site", path });
    await using site = await openDirectorySite({ name: "site", path });
    using builder = await RepositoryBuilder.create({ site });
    await builder.backup("older", { a: { data: everything().slice(0, 4) } });
    await builder.backup("newer", { a: { data: everything() }, b: { more: everything() } });
    expect(read("list", path).stdout).toMatch(/older[\s\S]*newer/);
    expect(read("verify", path)).toMatchObject({ exitCode: 0 });
    const target = join(folder.path, "target");
    expect(read("restore", path, "newer", target)).toMatchObject({ exitCode: 0 });
    const expected = shapeExpected(everything(), { withOwners: true });
    for (const volume of ["a/data", "b/more"]) {
      const found = shapeOf(realFileSystem, join(target, volume), { withOwners: true });
      expect(found).toEqual(expected);
    }
  });

  test("agrees with our restore about what the whole write path has stored", async () => {
    await using rig = await Rig.open();
    rig.write("logs/grows.log", noise(300_000, 1));
    rig.write("data/a.bin", noise(200_000, 2));
    rig.write("data/b.txt", "the same line\n".repeat(20_000));
    rig.write("data/c.bin", noise(200_000, 2));
    fs.linkSync(join(rig.root, "data/a.bin"), join(rig.root, "logs/linked"));
    fs.symlinkSync("../data", join(rig.root, "logs/to"));
    fs.mkdirSync(join(rig.root, "hollow"));
    await backUp(rig, "one");
    rig.append("logs/grows.log", noise(50_000, 3));
    fs.rmSync(join(rig.root, "data/c.bin"));
    await backUp(rig, "two");
    using folder = temporaryFolder();
    writeObjects(rig.site.objects, join(folder.path, "site"));
    const target = join(folder.path, "read");
    const result = read("restore", join(folder.path, "site"), "latest", target);
    expect(result).toMatchObject({ exitCode: 0 });
    using reader = await openReader(rig.site);
    const { repository, source } = reader;
    const backup = findBackup(repository.state, undefined, undefined);
    const { listing, name } = (await readManifest(rig.site, backup)).nodes[0]!.volumes[0]!;
    await runVolumeRestore({
      listing,
      source,
      files: realFileSystem,
      random: seededRandom(1),
      target: join(folder.path, "ours"),
      ownerPolicy: "recorded",
      extra: "keep",
    });
    const ours = shapeOf(realFileSystem, join(folder.path, "ours"), { withOwners: true });
    expect(ours).toEqual(shapeOf(realFileSystem, rig.root, { withOwners: true }));
    // Directories were changed at a nanosecond that the reader cannot set.
    const noTimesOf = ["data", "hollow", "logs", "logs/to"];
    const theirs = shapeOf(realFileSystem, join(target, "a", name), { noTimesOf });
    expect(theirs).toEqual(shapeOf(realFileSystem, rig.root, { noTimesOf }));
    expect(await verifyRepository({ repository, source, deep: true })).toMatchObject({ ok: true });
    expect(read("verify", join(folder.path, "site"))).toMatchObject({ exitCode: 0 });
  });

  test("opens an encrypted repository with its keys, and with no others", async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "site");
    await makeDirectorySite({ name: "site", path });
    await using site = await openDirectorySite({ name: "site", path });
    using builder = await RepositoryBuilder.create({ site, encryption: ENCRYPTION });
    await builder.backup("older", { a: { data: everything().slice(0, 4) } });
    await builder.backup("newer", { a: { data: everything() } });
    const file = (name: string, text: string): string => {
      fs.writeFileSync(join(folder.path, name), text);
      return join(folder.path, name);
    };
    const nodeKey = ["--node-key", file("node.key", formatNodeKeys(ENCRYPTION.keys))];
    const identity = ["--identity", file("identity", OWNER.identity)];
    const wrong = ["--identity", file("stranger", STRANGER.identity)];
    const target = join(folder.path, "target");
    expect(read("list", path).exitCode).toBe(1);
    expect(read("list", path, ...nodeKey).stdout).toMatch(/older[\s\S]*newer/);
    expect(read("verify", path, ...nodeKey)).toMatchObject({ exitCode: 0 });
    expect(read("verify", path, ...nodeKey, ...identity)).toMatchObject({
      exitCode: 0,
      stderr: "",
    });
    const command = ["restore", path, "newer", target, ...nodeKey];
    expect(read(...command, ...wrong).stderr).toContain("another identity");
    expect(read(...command).stderr).toContain("--identity");
    expect(read(...command, ...identity)).toMatchObject({ exitCode: 0 });
    const found = shapeOf(realFileSystem, join(target, "a/data"), { withOwners: true });
    expect(found).toEqual(shapeExpected(everything(), { withOwners: true }));
  });

  test("names the pack that is damaged, and writes no wrong file", async () => {
    using folder = temporaryFolder();
    const site = new MemorySite();
    using builder = await RepositoryBuilder.create({ site });
    await builder.backup("one", { a: { data: [{ path: "x", content: noise(5000, 1) }] } });
    const key = [...site.objects.keys()].find((name) => name.startsWith("pack/"))!;
    const bytes = site.objects.get(key)!;
    bytes[10] = bytes[10]! ^ 1;
    const path = join(folder.path, "site");
    writeObjects(site.objects, path);
    const verified = read("verify", path);
    expect(verified.exitCode).toBe(1);
    expect(verified.stdout + verified.stderr).toContain(key.split("/")[2]!.slice(0, 64));
    const target = join(folder.path, "target");
    expect(read("restore", path, "one", target).exitCode).toBe(1);
    const size = fs.statSync(join(target, "a/data/x"), { throwIfNoEntry: false })?.size ?? 0;
    expect(size).toBeLessThan(5000);
  });
});
