/** The tables of the write path: what spills to the catalog is as good as what did not. */
import { expect, test } from "bun:test";
import { realDatabases } from "../../src/base/databases.ts";
import type { FileStat } from "../../src/base/doors.ts";
import { sha256 } from "../../src/base/hex.ts";
import { Catalog } from "../../src/cas/catalog/catalog.ts";
import { LinkSets } from "../../src/cas/write/link-sets.ts";
import { PackJournal } from "../../src/cas/catalog/pack-journal.ts";
import type { SentPackRow } from "../../src/cas/catalog/pack-journal.ts";
import { encodeDirectory, packIdOf } from "../../src/cas/format/pack.ts";
import { PackBuilder } from "../../src/cas/format/pack-builder.ts";
import type { SealedPack } from "../../src/cas/format/pack.ts";
import { StatCache } from "../../src/cas/catalog/stat-cache.ts";
import type { StatRow } from "../../src/cas/catalog/stat-cache.ts";
import { UseTable } from "../../src/cas/write/use-table.ts";
import { noise } from "./noise.ts";

function openCatalog(): Catalog {
  return Catalog.open(realDatabases, ":memory:");
}

test("uses are the same whether they spill or not, ascending by pack", () => {
  using catalog = openCatalog();
  const lists = [3, 1000].map((memoryPackCountMax) => {
    using uses = new UseTable(catalog, { memoryPackCountMax });
    for (let index = 0; index < 200; index++) {
      const pack = ((index * 37) % 20).toString(16).padStart(64, "0");
      uses.addFrame(pack, index % 13, () => 13);
    }
    uses.addPack("f".repeat(64), 9);
    return [...uses.list()].map(({ pack, frameCount, frames }) => [pack, frameCount, [...frames]]);
  });
  expect(lists[0]).toEqual(lists[1]);
  expect(lists[0]!.length).toBe(21);
  expect(lists[0]!.at(-1)).toEqual(["f".repeat(64), 9, [0xff, 1]]);
  const packs = lists[0]!.map(([pack]) => String(pack));
  expect(packs).toEqual(packs.toSorted());
});

test("of two counts of a pack's frames the larger one is right", () => {
  using catalog = openCatalog();
  using uses = new UseTable(catalog);
  const pack = "a".repeat(64);
  uses.addFrame(pack, 1, () => 2);
  uses.add({ pack, frameCount: 20, frames: Uint8Array.of(0, 0, 8) });
  expect([...uses.list()]).toEqual([{ pack, frameCount: 20, frames: Uint8Array.of(2, 0, 8) }]);
});

test("first paths of link sets are found whether they spilled or not", () => {
  using catalog = openCatalog();
  using links = new LinkSets(catalog, { memoryCountMax: 3 });
  const stat = (inode: number) => ({ device: 1n, inode: BigInt(inode) }) as FileStat;
  for (let inode = 0; inode < 10; inode++) links.set(stat(inode), `path ${inode}`);
  links.delete(stat(2));
  links.delete(stat(9));
  const found = Array.from({ length: 11 }, (_, inode) => links.get(stat(inode)));
  expect(found).toEqual([
    "path 0",
    "path 1",
    undefined,
    ...[3, 4, 5, 6, 7, 8].map((inode) => `path ${inode}`),
    undefined,
    undefined,
  ]);
});

function makePack(seed: number): SealedPack {
  const builder = new PackBuilder({
    kind: "data",
    packSizeBytes: 100_000,
    compression: { level: 1 },
    salt: () => new Uint8Array(16).fill(seed),
  });
  const bytes = noise(30_000, seed);
  builder.add(sha256(bytes), bytes);
  return builder.finish()!;
}

/** What the journal keeps of a pack of one frame; the frame itself is made up. */
function makeDirectoryOnly(ids: readonly Uint8Array[]): SentPackRow {
  const chunks = ids.map((id, index) => ({ id, offset: index, length: 1 }));
  const frame = {
    offset: 0,
    codec: 0,
    storedLength: ids.length,
    rawLength: ids.length,
    checksum: new Uint8Array(16),
    chunks,
  } as const;
  const directory = { kind: "data", salt: new Uint8Array(16), frames: [frame] } as const;
  const directoryBytes = encodeDirectory(directory);
  return { id: packIdOf(directoryBytes), directory, directoryBytes, sizeBytes: 1000 };
}

test("a journaled pack is found, adopted once, named once, and dropped with its segment", () => {
  using catalog = openCatalog();
  const journal = new PackJournal(catalog);
  const pack = makePack(1);
  const id = pack.directory.frames[0]!.chunks[0]!.id;
  journal.add({ ...pack, sizeBytes: pack.bytes.length }, 5, "one");
  expect(journal.find(id)).toMatchObject({ pack: pack.id, birth: 5, frame: 0, operation: "one" });
  expect(journal.find(sha256(id))).toBeUndefined();
  journal.adopt(pack.id, "two");
  expect(journal.listUnnamed("one", 10)).toEqual([]);
  const [row] = journal.listUnnamed("two", 10);
  expect(row?.pack).toMatchObject({ id: pack.id, birth: 5, sizeBytes: pack.bytes.length });
  journal.setSegment([pack.id], "segment");
  journal.adopt(pack.id, "two");
  expect(journal.listUnnamed("two", 10)).toEqual([]);
  journal.dropSegments(["segment"]);
  expect(journal.find(id)).toBeUndefined();
});

test("the journal forgets packs whose birth the floor has passed", () => {
  using catalog = openCatalog();
  const journal = new PackJournal(catalog);
  const packs = [makePack(1), makePack(2)];
  for (const [index, pack] of packs.entries()) {
    journal.add({ ...pack, sizeBytes: pack.bytes.length }, 5 + index, "one");
  }
  expect(journal.countBelow("one", 5)).toBe(1);
  journal.dropBelow(5);
  const found = packs.map((pack) => journal.find(pack.directory.frames[0]!.chunks[0]!.id)?.birth);
  expect(found).toEqual([undefined, 6]);
});

test("the journal finds each chunk of full packs, also after it was opened again", () => {
  using catalog = openCatalog();
  const ids = Array.from({ length: 36_000 }, (_, number) => sha256(Buffer.from(String(number))));
  const journal = new PackJournal(catalog);
  for (let start = 0; start < ids.length; start += 1000) {
    // Asked between, as a backup does: the filter must follow.
    expect(journal.find(ids[start]!)).toBeUndefined();
    journal.add(makeDirectoryOnly(ids.slice(start, start + 1000)), 5, "one");
  }
  for (const opened of [journal, new PackJournal(catalog)]) {
    expect(ids.every((id) => opened.find(id)?.birth === 5)).toBe(true);
    const strangers = ids.filter((id) => opened.mayHave(sha256(id)));
    expect(strangers.length).toBeLessThan(ids.length / 100);
  }
  journal.dropOperation("one");
  expect(ids.some((id) => journal.mayHave(id))).toBe(false);
  expect(new PackJournal(catalog).find(ids[0]!)).toBeUndefined();
});

test("the journal sweeps dead rows when they are most of all, and finds what lives as before", () => {
  using catalog = openCatalog();
  const ids = Array.from({ length: 40_000 }, (_, number) => sha256(Buffer.from(String(number))));
  const journal = new PackJournal(catalog);
  const operationOf = (start: number): string => (start < 25_000 ? "most" : "rest");
  for (let start = 0; start < ids.length; start += 1000) {
    journal.add(makeDirectoryOnly(ids.slice(start, start + 1000)), 5, operationOf(start));
    journal.setSegment([makeDirectoryOnly(ids.slice(start, start + 1000)).id], `segment ${start}`);
  }
  const countRows = (): unknown =>
    catalog.database.query("SELECT count(*) AS count FROM journal_chunk").get();
  const expectFrom = (first: number): void => {
    for (const opened of [journal, new PackJournal(catalog)]) {
      expect(ids.findIndex((id) => opened.find(id) !== undefined)).toBe(first);
      expect(ids.slice(first).every((id) => opened.find(id)?.birth === 5)).toBe(true);
    }
  };
  journal.dropSegments(["segment 0", "segment 1000"]);
  expect(countRows()).toEqual({ count: 40_000 });
  expectFrom(2000);
  journal.dropOperation("most");
  expect(countRows()).toEqual({ count: 15_000 });
  expectFrom(25_000);
  journal.add(makeDirectoryOnly(ids.slice(0, 1000)), 6, "most");
  expect(journal.find(ids[0]!)?.birth).toBe(6);
});

test("a journal row that points elsewhere than it was written is none", () => {
  using catalog = openCatalog();
  const journal = new PackJournal(catalog);
  const packs = [makePack(1), makePack(2)];
  for (const pack of packs) journal.add({ ...pack, sizeBytes: pack.bytes.length }, 5, "one");
  catalog.database.run("UPDATE journal_chunk SET pack = 3 - pack");
  for (const pack of packs) {
    expect(journal.find(pack.directory.frames[0]!.chunks[0]!.id)).toBeUndefined();
  }
});

const row: StatRow = {
  inode: 2n ** 63n + 5n,
  birthtimeNs: 1n,
  sizeBytes: 2 ** 50,
  mtimeNs: -5n,
  ctimeNs: 7n,
  takenNs: 9n,
  isSparse: true,
  hasXattrs: false,
  content: {
    form: "tree",
    root: { id: "ab".repeat(32), length: 5, count: 6 },
    first: { id: sha256(Uint8Array.of(1)), length: 1 },
    last: [
      { id: sha256(Uint8Array.of(2)), length: 2 },
      { id: sha256(Uint8Array.of(3)), length: 3 },
    ],
  },
};

test("rows come back as they were, and rows of paths that are gone are removed", () => {
  using catalog = openCatalog();
  const cache = new StatCache(catalog);
  const paths = Array.from({ length: 2500 }, (_, index) => `file ${index}`).toSorted();
  {
    using cursor = cache.openCursor("data");
    for (const path of paths) cursor.put(path, { ...row, operation: 3 });
  }
  {
    using cursor = cache.openCursor("data");
    const kept = paths.filter((_, index) => index % 2 === 0);
    for (const path of kept) expect(cursor.take(path)).toEqual({ ...row, operation: 3 });
    expect(cursor.take("file a")).toBeUndefined();
    cursor.end();
  }
  using cursor = cache.openCursor("data");
  expect(paths.filter((path) => cursor.take(path) !== undefined).length).toBe(1250);
  using other = cache.openCursor("other");
  expect(other.take(paths[0]!)).toBeUndefined();
});

test("a row is no row under another path, volume or operation", () => {
  using catalog = openCatalog();
  const cache = new StatCache(catalog);
  for (const change of ["path = 'b'", "volume = 2", "operation = 4"]) {
    {
      using cursor = cache.openCursor("one");
      cursor.put("a", { ...row, operation: 3 });
      using second = cache.openCursor("two");
      second.remove("a");
    }
    catalog.database.run(`UPDATE stat_row SET ${change}`);
    const found = ["one", "two"].flatMap((volume) => {
      using cursor = cache.openCursor(volume);
      return ["a", "b"].map((path) => cursor.take(path));
    });
    expect(found.filter((hit) => hit !== undefined)).toEqual([]);
    catalog.database.run("DELETE FROM stat_row");
  }
  expect(cache.damagedRowCount).toBe(3);
});

test("what covers an operation is believed only if its row is whole", () => {
  using catalog = openCatalog();
  const cache = new StatCache(catalog);
  const [first, second] = [cache.begin("x"), cache.begin("y")];
  expect(second).toBeGreaterThan(first);
  cache.cover([first, second], "backup one");
  cache.cover([first], "backup two");
  expect(cache.backupsOf(first)).toEqual(["backup one", "backup two"]);
  catalog.database.run("UPDATE stat_backup SET backup = 'backup three' WHERE number = ?", [second]);
  expect(cache.backupsOf(second)).toEqual([]);
  cache.prune((backup) => backup === "backup two");
  expect(cache.backupsOf(first)).toEqual(["backup two"]);
});
