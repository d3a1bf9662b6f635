/** Reading the files of a stored volume: their bytes, in ranges, with few requests. */
import { expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import type { StoredVolumeFile } from "../../src/cas/read/stored-volume.ts";
import { readStoredVolume } from "../../src/cas/read/stored-volume.ts";
import { countRequests } from "../../src/sites/counting-site.ts";
import { openSource, Rig } from "./backup-rig.ts";
import { noise } from "./noise.ts";

async function bytesOf(
  file: StoredVolumeFile,
  range: { offset?: number; length?: number } = {},
): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(file.read(range)));
}

/** A volume of many small files and two large ones, one of them with a tree of chunks. */
async function openVolume(rig: Rig) {
  for (let index = 0; index < 400; index++) {
    rig.write(`small/${1000 + index}`, noise(20_000 + index, index));
  }
  rig.write("empty", "");
  rig.write("large/one", noise(3_000_000, 1));
  const part = noise(4_000_000, 2);
  rig.write("large/tree", Buffer.concat(Array.from({ length: 20 }, () => part)));
  fs.linkSync(join(rig.root, "empty"), join(rig.root, "other-name"));
  fs.symlinkSync("empty", join(rig.root, "symlink"));
  const { stored } = await rig.backup({ settings: { packSizeBytes: 2_000_000 } });
  const tree = (await rig.read(stored.volumes[0]!.listing)).get("large/tree");
  expect(tree).toMatchObject({ type: "file", content: { form: "tree" } });
  const site = countRequests(rig.site);
  rig.door = site;
  const source = openSource(await rig.openRepository());
  return { listing: stored.volumes[0]!.listing, source, site };
}

test("every regular file comes once, in order, with its bytes, in few requests", async () => {
  await using rig = await Rig.open();
  const { site, ...volume } = await openVolume(rig);
  const before = site.requests.get;
  const read = new Map<string, Buffer>();
  for await (const file of readStoredVolume(volume)) read.set(file.path, await bytesOf(file));
  const wanted = [...rig.contents()].toSorted(([a], [b]) => (a < b ? -1 : 1));
  const files = wanted.filter(([path]) => path !== "other-name");
  expect([...read.keys()]).toEqual(files.map(([path]) => path));
  for (const [path, bytes] of files) expect(read.get(path)!.equals(bytes), path).toBe(true);
  expect(site.requests.get - before).toBeLessThan(100);
});

test("a prefix gives what begins with it, and reads little else", async () => {
  await using rig = await Rig.open();
  const volume = await openVolume(rig);
  const paths: string[] = [];
  for await (const file of readStoredVolume(volume, "small/110")) paths.push(file.path);
  expect(paths).toEqual(Array.from({ length: 10 }, (_, index) => `small/110${index}`));
  expect(await Array.fromAsync(readStoredVolume(volume, "small0"))).toEqual([]);
  expect(await Array.fromAsync(readStoredVolume(volume, "zzz"))).toEqual([]);
});

test("ranges are those of the file, wherever its chunks end", async () => {
  await using rig = await Rig.open();
  const volume = await openVolume(rig);
  const contents = rig.contents();
  for (const name of ["empty", "small/1007", "large/one", "large/tree"]) {
    const bytes = contents.get(name)!;
    const [file] = await Array.fromAsync(readStoredVolume(volume, name));
    const sizes = [0, 1, 65_536, 9_000_000];
    for (const offset of [0, 1, 19_000, 2_999_999, 8_388_608, 79_999_999, 80_000_000]) {
      for (const length of sizes) {
        const wanted = bytes.subarray(offset, offset + length);
        expect((await bytesOf(file!, { offset, length })).equals(wanted)).toBe(true);
      }
    }
    expect((await bytesOf(file!, { offset: 5 })).equals(bytes.subarray(5))).toBe(true);
  }
});

test("files that were kept can be read after others, and one that is skipped costs nothing", async () => {
  await using rig = await Rig.open();
  const { site, ...volume } = await openVolume(rig);
  const kept = await Array.fromAsync(readStoredVolume(volume, "small/"));
  const before = site.requests.get;
  const last = kept.at(-1)!;
  expect((await bytesOf(last)).equals(rig.contents().get(last.path)!)).toBe(true);
  expect(site.requests.get - before).toBeLessThanOrEqual(2);
});
