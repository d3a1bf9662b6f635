/** The write path as a whole: what is read, what is sent, and that it all comes back. */
import { expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import { realDatabases } from "../../src/base/databases.ts";
import { realFileSystem } from "../../src/base/file-system.ts";
import { realRandom } from "../../src/base/random.ts";
import { Catalog } from "../../src/cas/catalog/catalog.ts";
import { drawId } from "../../src/cas/format/ids.ts";
import type { VolumeSource } from "../../src/cas/write/volume-source.ts";
import { walkVolume } from "../../src/cas/write/walk.ts";
import { commit, openSource, Rig, RiggedFiles } from "./backup-rig.ts";
import { noise } from "./noise.ts";

const appendOnly: Partial<VolumeSource> = { nature: () => "append-only" };

/** A folder with something of everything. */
function fill(rig: Rig): void {
  rig.write("big", noise(3_000_000, 1));
  rig.write("empty", "");
  for (let index = 0; index < 40; index++) rig.write(`small/${index}`, noise(500 + index, index));
  rig.write("text", "the same line again\n".repeat(20_000));
  rig.write("a/b/c", "deep");
  rig.write("a-b", "sorts between a and a/b");
  fs.mkdirSync(join(rig.root, "hollow"));
  fs.symlinkSync("big", join(rig.root, "link"));
  fs.linkSync(join(rig.root, "text"), join(rig.root, "text-too"));
}

async function expectSame(rig: Rig, root: Parameters<Rig["read"]>[0]): Promise<void> {
  const found = await rig.read(root);
  for (const [path, bytes] of rig.contents()) {
    const record = found.get(path);
    const from = record?.type === "hardlink" ? found.get(record.target) : record;
    expect(from?.bytes?.equals(bytes), path).toBe(true);
  }
}

test("what was stored comes back byte for byte", async () => {
  await using rig = await Rig.open();
  fill(rig);
  const { stored } = await rig.backup();
  const { listing } = stored.volumes[0]!;
  await expectSame(rig, listing);
  const records = await rig.read(listing);
  expect([...records.keys()]).toEqual([...records.keys()].toSorted());
  expect(records.get("hollow")?.type).toBe("directory");
  expect(records.get("link")).toMatchObject({ type: "symlink", target: "big" });
  expect(records.get("text-too")).toMatchObject({ type: "hardlink", target: "text" });
  expect(stored.problems).toEqual([]);
});

test("an unchanged volume is not read, and sends nothing of its files", async () => {
  await using rig = await Rig.open();
  fill(rig);
  const first = await rig.backup();
  const files = new RiggedFiles();
  const requests = { ...rig.site.requests };
  const second = await rig.backup({ files: files.door });
  expect(files.readBytes).toBe(0);
  expect(second.stored.totals).toMatchObject({ newChunks: 0, newBytes: 0, storedBytes: 0 });
  expect(second.stored.volumes).toEqual(first.stored.volumes);
  expect(second.stored.totals.unchangedFiles).toBe(45);
  expect(second.stored.list).toEqual(first.stored.list);
  expect(second.stored.segments).toEqual([]);
  // The manifest and the entry.
  expect(rig.site.requests.put - requests.put).toBe(2);
  await expectSame(rig, second.stored.volumes[0]!.listing);
});

test("nodes with equal folders find their own lists again", async () => {
  await using one = await Rig.open();
  await using other = await Rig.open({ site: one.site, node: "b" });
  for (const rig of [one, other]) {
    rig.write("kept/a", "the same on both\n".repeat(100));
    fs.utimesSync(join(rig.root, "kept/a"), 1_700_000_000, 1_700_000_000);
    fs.utimesSync(join(rig.root, "kept"), 1_700_000_000, 1_700_000_000);
  }
  const operation = drawId(realRandom);
  const shares = [];
  for (const rig of [one, other]) {
    shares.push({ rig, ...(await rig.store(await rig.openRepository(), { operation })) });
  }
  const repository = await one.openRepository();
  const id = drawId(realRandom);
  await commit(repository, openSource(repository), {
    id,
    operation,
    complete: true,
    nodes: shares.map(({ rig, stored }) => ({ node: rig.node, stored })),
  });
  for (const { rig, backup } of shares) {
    await rig.openRepository();
    backup.committed(id);
    backup[Symbol.dispose]();
  }
  expect(shares[0]?.stored.volumes[0]?.listing).toEqual(shares[1]!.stored.volumes[0]!.listing);
  for (const { rig, stored } of shares) {
    const second = await rig.backup();
    expect(second.stored.totals.storedBytes).toBe(0);
    expect(second.stored.list).toEqual(stored.list);
  }
});

test("links that come and go between backups change nothing where ctime does not count", async () => {
  await using rig = await Rig.open();
  fill(rig);
  await rig.backup();
  for (const name of ["big", "empty", "small/3"]) {
    const captured = join(rig.folder.path, "captured");
    fs.linkSync(join(rig.root, name), captured);
    fs.unlinkSync(captured);
  }
  const files = new RiggedFiles();
  await rig.backup({ files: files.door });
  expect(files.readBytes).toBe(0);
  const strict = await rig.backup({ files: files.door, volume: { ctimeCounts: true } });
  expect(files.readBytes).toBe(3_000_000 + 503);
  expect(strict.stored.totals.newChunks).toBe(0);
});

test("every way to store the same files gives the same listing", async () => {
  await using rig = await Rig.open();
  fill(rig);
  const ways = [
    {},
    {},
    { lookUpAll: true },
    { settings: { rereadShare: 1 } },
    { settings: { workers: 2 }, lookUpAll: true },
    { settings: { workers: 2, rereadShare: 1 } },
    { settings: { lookUpEvery: 1 } },
  ];
  const roots: string[] = [];
  for (const way of ways) {
    const { stored } = await rig.backup(way);
    roots.push(stored.volumes[0]!.listing.id);
  }
  rig.catalog[Symbol.dispose]();
  rig.catalog = Catalog.open(realDatabases, ":memory:");
  roots.push((await rig.backup()).stored.volumes[0]!.listing.id);
  await using other = await Rig.open();
  const volumes = [rig.volume(realFileSystem)];
  const fresh = await other.backup({ volumes, settings: { workers: 2 } });
  roots.push(fresh.stored.volumes[0]!.listing.id);
  expect(new Set(roots).size).toBe(1);
});

test("a file that changed is read, and only what is new in it is sent", async () => {
  await using rig = await Rig.open();
  fill(rig);
  await rig.backup();
  const bytes = fs.readFileSync(join(rig.root, "big"));
  bytes[1_500_000]! ^= 1;
  rig.write("big", bytes, 20);
  const files = new RiggedFiles();
  const { stored } = await rig.backup({ files: files.door });
  expect(files.readBytes).toBe(3_000_000);
  expect(stored.totals.newChunks).toBe(1);
  await expectSame(rig, stored.volumes[0]!.listing);
});

test("a file that was changed just before its stat was taken is read again", async () => {
  await using rig = await Rig.open();
  rig.write("a", "x".repeat(1000), 0);
  await rig.backup({ settings: { racyMs: 2000 } });
  const files = new RiggedFiles();
  await rig.backup({ settings: { racyMs: 2000 }, files: files.door });
  expect(files.readBytes).toBe(1000);
});

test("of a grown log only the tail is read", async () => {
  await using rig = await Rig.open();
  const volume = appendOnly;
  rig.write("log", noise(6_000_000, 9));
  await rig.backup({ volume });
  rig.append("log", noise(100_000, 10));
  const files = new RiggedFiles();
  const { stored } = await rig.backup({ volume, files: files.door });
  expect(files.readBytes).toBeLessThan(1_300_000);
  await expectSame(rig, stored.volumes[0]!.listing);
  const whole = await rig.backup({ volume, settings: { rereadShare: 1 } });
  expect(whole.stored.volumes[0]!.listing).toEqual(stored.volumes[0]!.listing);
});

test("a grown log whose start was rewritten is read whole", async () => {
  await using rig = await Rig.open();
  const volume = appendOnly;
  const bytes = noise(2_000_000, 9);
  rig.write("log", bytes);
  await rig.backup({ volume });
  bytes[3]! ^= 1;
  fs.writeFileSync(join(rig.root, "log"), bytes);
  rig.append("log", noise(1000, 10));
  const { stored } = await rig.backup({ volume });
  await expectSame(rig, stored.volumes[0]!.listing);
});

test("the captured size of a log is stored, whatever was appended since", async () => {
  await using rig = await Rig.open();
  const bytes = noise(900_000, 9);
  rig.write("log", bytes);
  const files = new RiggedFiles();
  const volume = rig.volume(files.door, { nature: () => "append-only" });
  const entries = [...volume.entries].map((entry) => ({ ...entry, sizeBytesCaptured: 500_000 }));
  const { stored } = await rig.backup({ files: files.door, volumes: [{ ...volume, entries }] });
  const record = (await rig.read(stored.volumes[0]!.listing)).get("log");
  expect(record?.bytes?.equals(bytes.subarray(0, 500_000))).toBe(true);
  expect(files.readBytes).toBe(500_000);
});

test("a long list of chunks is a tree, is resumed when the file grows, and is trusted", async () => {
  await using rig = await Rig.open();
  const volume = appendOnly;
  rig.write("log", noise(90_000_000, 3));
  const first = await rig.backup({ volume });
  const record = (await rig.read(first.stored.volumes[0]!.listing)).get("log");
  expect(record).toMatchObject({ type: "file", content: { form: "tree" } });
  rig.append("log", noise(100_000, 10));
  const files = new RiggedFiles();
  const second = await rig.backup({ volume, files: files.door });
  expect(files.readBytes).toBeLessThan(1_300_000);
  await expectSame(rig, second.stored.volumes[0]!.listing);
  await rig.backup({ volume, files: files.door });
  const looked = await rig.backup({ volume, files: files.door, lookUpAll: true });
  expect(files.readBytes).toBeLessThan(1_300_000);
  expect(looked.stored.volumes).toEqual(second.stored.volumes);
});

test("the same content in two volumes is stored once", async () => {
  await using rig = await Rig.open();
  const bytes = noise(2_000_000, 1);
  rig.write("one/file", bytes);
  rig.write("two/file", bytes);
  const files = new RiggedFiles().door;
  const volumes = ["one", "two"].map((name) => {
    const root = join(rig.root, name);
    return { ...rig.volume(files), name, root, entries: walkVolume({ files, root }) };
  });
  const { stored } = await rig.backup({ volumes, files });
  expect(stored.totals.newBytes).toBe(2_000_000);
  expect(stored.totals.bytes).toBe(4_000_000);
  for (const volume of stored.volumes) {
    expect((await rig.read(volume.listing)).get("file")?.bytes?.equals(bytes)).toBe(true);
  }
});

test("rows of a forgotten backup are looked up, not read, and vouch again", async () => {
  await using rig = await Rig.open();
  fill(rig);
  const first = await rig.backup();
  const repository = await rig.openRepository();
  await repository.commit(
    () => ({ kind: "forget", body: { backups: [first.id], reason: "test", scope: "site" } }),
    { operation: "ab".repeat(16) },
  );
  const files = new RiggedFiles();
  const second = await rig.backup({ files: files.door });
  expect(files.readBytes).toBe(0);
  expect(second.stored.volumes).toEqual(first.stored.volumes);
  const third = await rig.backup({ files: files.door });
  expect(third.stored.list).toEqual(second.stored.list);
  await expectSame(rig, third.stored.volumes[0]!.listing);
});

test("a second attempt of an operation names what the first one sent, also what stood in a segment", async () => {
  await using rig = await Rig.open();
  fill(rig);
  const operation = "5".repeat(32);
  {
    const { backup } = await rig.store(await rig.openRepository(), { operation });
    backup.abandon();
  }
  const puts = rig.site.requests.put;
  const { stored } = await rig.backup({ operation });
  expect(stored.totals.newBytes).toBe(0);
  expect(stored.segments.length).toBeGreaterThan(0);
  // Segments, manifest and entry: no pack is sent again.
  expect(rig.site.requests.put - puts).toBe(stored.segments.length + 2);
  await expectSame(rig, stored.volumes[0]!.listing);
});
