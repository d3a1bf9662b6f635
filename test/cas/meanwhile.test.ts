/**
 * What others do meanwhile (users in the files, cleanups in the repository) must not end up as wrong
 * bytes in a backup, nor as a pack that a listed backup needs and nobody protects.
 */
import { expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import { realDatabases } from "../../src/base/databases.ts";
import type { FileStat } from "../../src/base/doors.ts";
import { realFileSystem } from "../../src/base/file-system.ts";
import { ProblemList } from "../../src/cas/write/backup-context.ts";
import { PROBLEM_COUNT_MAX } from "../../src/cas/write/backup-settings.ts";
import { Catalog } from "../../src/cas/catalog/catalog.ts";
import { drawId } from "../../src/cas/format/ids.ts";
import { LinkSets } from "../../src/cas/write/link-sets.ts";
import { addNodeLists } from "../../src/cas/write/node-list.ts";
import { planRepacks, runRepack } from "../../src/cas/clean/repack.ts";
import { runVolumeRestore } from "../../src/cas/read/restore.ts";
import { RestoredRows } from "../../src/cas/catalog/restored-rows.ts";
import { StatCache } from "../../src/cas/catalog/stat-cache.ts";
import { UsedPacks } from "../../src/cas/clean/used-packs.ts";
import { UseTable } from "../../src/cas/write/use-table.ts";
import type { WalkEntry } from "../../src/cas/write/volume-source.ts";
import { walkVolume } from "../../src/cas/write/walk.ts";
import { seededRandom, StillClock } from "../sites/still-clock.ts";
import { Rig } from "./backup-rig.ts";
import { noise } from "./noise.ts";
import { memoryDisk, optionsOf, prepare } from "./restore-setup.ts";
import { caught, SmallWorld } from "./small-world.ts";
import { readFile, writeFile } from "./tree-shape.ts";

test("a file whose first name was replaced before it was read is stored under its other name", async () => {
  await using rig = await Rig.open();
  rig.write("a", "the old file");
  for (const other of ["b", "c"]) fs.linkSync(join(rig.root, "a"), join(rig.root, other));
  function* entries(): Generator<WalkEntry> {
    for (const entry of walkVolume({ files: realFileSystem, root: rig.root })) {
      yield entry;
      if (entry.path !== "a") continue;
      rig.write("new", "what came instead");
      fs.renameSync(join(rig.root, "new"), join(rig.root, "a"));
    }
  }
  const { stored } = await rig.backup({ volume: { entries: entries() } });
  const found = await rig.read(stored.volumes[0]!.listing);
  expect(found.get("a")?.bytes?.toString()).toBe("what came instead");
  expect(found.get("b")?.bytes?.toString()).toBe("the old file");
  expect(found.get("c")).toMatchObject({ type: "hardlink", target: "b" });
});

test("an inode that was given to another file is no hard link to the first one", () => {
  using catalog = Catalog.open(realDatabases, ":memory:");
  using links = new LinkSets(catalog);
  const stat = { device: 1n, inode: 5n, birthtimeNs: 100n } as FileStat;
  links.set(stat, "a");
  expect(links.get(stat)).toBe("a");
  expect(links.get({ ...stat, birthtimeNs: 200n })).toBeUndefined();
});

test("sockets never make a backup incomplete, however many there are", () => {
  const problems = new ProblemList();
  for (let index = 0; index <= PROBLEM_COUNT_MAX; index++) {
    problems.add({ path: `${index}`, kind: "unsupported", message: "a socket" });
  }
  expect(problems.count).toBe(problems.named.length);
  problems.add({ path: "x", kind: "unreadable", message: "not a socket" });
  expect(problems.count).toBe(problems.named.length + 1);
});

test("a node whose index does not know a pack that was moved to writes no list without its frames", async () => {
  using world = await SmallWorld.create();
  const node = await world.open();
  const first = await world.backup(node, [1, 2, 3, 4, 5, 6]);
  const second = await world.backup(node, [1]);
  await world.forget(node, first);
  await world.cleanup(node);
  const { state } = node.repository;
  expect(state.moves.has(second)).toBe(true);
  const listed = async (frameCountOf: (pack: string) => number) => {
    using uses = new UseTable(node.catalog);
    const { source } = node;
    await addNodeLists([state.backups.get(second)!], uses, {
      state,
      node: "a",
      source,
      frameCountOf,
    });
    return [...uses.list()];
  };
  const { index } = node.repository;
  const uses = await listed((pack) => index.findPack(pack)?.frames.length ?? 0);
  expect(uses.every(({ frames }) => frames.some((byte) => byte !== 0))).toBe(true);
  expect(await caught(listed(() => 0))).toMatchObject({
    kind: "conflict",
    retryable: true,
    context: { reason: "packs-gone" },
  });
});

test("a pack that another node's repack made during a cleanup is used by whoever came in between", async () => {
  using world = await SmallWorld.create();
  const [cleaner, other] = [await world.open(), await world.open()];
  const big = await world.backup(other, [1, 2, 3, 4, 5, 6]);
  const first = await world.backup(other, [1]);
  await world.forget(other, big);
  const { repository, source } = cleaner;
  using used = new UsedPacks(repository, source);
  await used.refresh(await repository.catchUp());
  await world.backup(other, [1]);
  const operation = drawId(world.random);
  using seen = new UsedPacks(other.repository, other.source);
  await seen.refresh(other.repository.state);
  const groups = planRepacks(other.repository, seen, { movedBytesMax: 1e6 });
  for (const group of groups) await runRepack(other.repository, group, { used: seen, operation });
  await world.forget(other, first);
  const state = await repository.catchUp();
  await used.refresh(state);
  const targets = [...state.moves.values()].flat().flatMap(({ to }) => to);
  expect(targets.length).toBeGreaterThan(0);
  for (const pack of targets) expect(used.has(pack)).toBe(true);
});

test("a pack that was deleted and dropped while a node slept is not found there, whatever is damaged", async () => {
  using world = await SmallWorld.create();
  const [node, sleeper] = [await world.open(), await world.open()];
  const first = await world.backup(node, [500, 501, 502]);
  await world.backup(node, [1]);
  await sleeper.repository.catchUp();
  const before = [...sleeper.repository.index.packs()].map(({ id }) => id);
  await world.forget(node, first);
  for (const _ of [1, 2]) await world.cleanup(node);
  await world.cleanup(node, { sweep: true });
  expect(node.repository.state.deleted.size).toBe(0);
  const deleted = before.filter((id) => node.repository.index.findPack(id) === undefined);
  expect(deleted.length).toBeGreaterThan(0);
  await world.backup(node, [77]);
  const [last] = [...node.repository.state.segments.values()].slice(-1);
  world.site.objects.delete(`index/${last!.id}-${last!.birth}`);
  await sleeper.repository.catchUp();
  expect(sleeper.repository.indexProblems.size).toBe(1);
  const { index } = sleeper.repository;
  for (const id of deleted) expect(index.findPack(id)).toBeUndefined();
});

test("a file that somebody changed right after it was restored gets no row", () => {
  using catalog = Catalog.open(realDatabases, ":memory:");
  const doors = { clock: new StillClock(), random: seededRandom(1) };
  const content = { form: "inline", chunks: [] } as const;
  const head = { mode: 0o644, uid: 0, gid: 0, mtimeNs: 7n, xattrs: new Map(), sparse: false };
  const stat = { inode: 1n, birthtimeNs: 1n, sizeBytes: 0, mtimeNs: 7n, ctimeNs: 9n } as FileStat;
  {
    using rows = new RestoredRows(catalog, doors, "data");
    const add = (path: string, seen: FileStat) =>
      rows.add({ ...head, path, type: "file", sizeBytes: 0, content }, seen);
    add("as it was", stat);
    add("changed", { ...stat, mtimeNs: 8n });
    add("grown", { ...stat, sizeBytes: 1 });
  }
  using cursor = new StatCache(catalog).openCursor("data");
  expect(cursor.take("as it was")).toBeDefined();
  expect(cursor.take("changed")).toBeUndefined();
  expect(cursor.take("grown")).toBeUndefined();
});

test("a file that is changed while a restore compares it is put right", async () => {
  const content = noise(600_000, 1);
  using prepared = await prepare([{ path: "x", content }]);
  const disk = memoryDisk();
  disk.makeDirectory("/t/x");
  writeFile(disk, "/t/x/x", content);
  disk.setTimes("/t/x/x", 5n);
  let reads = 0;
  disk.fault = (call) => {
    if (call !== "read") return;
    reads += 1;
    if (reads !== 2) return;
    const handle = disk.open("/t/x/x", "write");
    disk.write(handle, new Uint8Array([1, 2, 3]), 0);
    disk.close(handle);
    disk.setTimes("/t/x/x", 6n);
  };
  await runVolumeRestore(optionsOf(prepared, { files: disk, target: "/t/x" }));
  disk.fault = undefined;
  expect(Buffer.compare(readFile(disk, "/t/x/x"), content)).toBe(0);
});
