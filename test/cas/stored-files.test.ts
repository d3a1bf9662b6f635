/** What is said to be stored before a backup is then taken from its stat, though its file is gone. */
import { expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import type { FileStat } from "../../src/base/doors.ts";
import { realFileSystem } from "../../src/base/file-system.ts";
import { realRandom } from "../../src/base/random.ts";
import { forgetBackups } from "../../src/cas/clean/backup-marks.ts";
import { drawId } from "../../src/cas/format/ids.ts";
import { StoredFiles } from "../../src/cas/write/stored-files.ts";
import type { WalkEntry } from "../../src/cas/write/volume-source.ts";
import { Rig, RIG_SETTINGS, RiggedFiles } from "./backup-rig.ts";
import type { RigOptions } from "./backup-rig.ts";
import { noise } from "./noise.ts";

type Asked = { readonly isStored: (path: string) => boolean; readonly operation: string };

async function ask(rig: Rig, settings: RigOptions["settings"] = {}): Promise<Asked> {
  const repository = await rig.openRepository();
  const operation = drawId(realRandom);
  const stored = new StoredFiles({
    catalog: rig.catalog,
    state: () => repository.state,
    node: rig.node,
    operation,
    settings: { ...RIG_SETTINGS, ...settings },
  });
  return { operation, isStored: (path) => stored.isStored("data", path, statOf(rig, path)) };
}

function statOf(rig: Rig, path: string): FileStat {
  const stat = realFileSystem.lstat(join(rig.root, path));
  if (stat === undefined) throw new Error(`nothing at ${path}`);
  return stat;
}

function entriesOf(rig: Rig): WalkEntry[] {
  const names = fs.readdirSync(rig.root).toSorted();
  return names.map((path) => ({
    path,
    stat: statOf(rig, path),
    readPath: join(rig.root, path),
  }));
}

test("files that are unchanged are stored, whatever happened to their links; others are not", async () => {
  await using rig = await Rig.open();
  for (const name of ["changed", "linked", "same", "touched"]) rig.write(name, name);
  fs.mkdirSync(join(rig.root, "folder"));
  await rig.backup();
  rig.write("changed", "CHANGED", 50);
  rig.write("new", "new");
  rig.age("touched", 40);
  fs.linkSync(join(rig.root, "linked"), join(rig.folder.path, "elsewhere"));
  const { isStored } = await ask(rig);
  const names = ["changed", "folder", "linked", "new", "same", "touched"];
  expect(names.filter(isStored)).toEqual(["linked", "same"]);
  // Going back is allowed.
  expect(names.toReversed().filter(isStored)).toEqual(["same", "linked"]);
});

test("what is stored is in the backup though its file is gone, and nothing is opened", async () => {
  await using rig = await Rig.open();
  const contents = new Map<string, Uint8Array>([
    ["empty", new Uint8Array(0)],
    ["large", noise(1_000_000, 1)],
    ["small", noise(100, 2)],
  ]);
  for (const [name, bytes] of contents) rig.write(name, bytes);
  await rig.backup();
  const { isStored, operation } = await ask(rig);
  const entries = entriesOf(rig);
  expect(entries.map(({ path }) => path).filter(isStored)).toEqual([...contents.keys()]);
  for (const { readPath } of entries) fs.unlinkSync(readPath);
  const files = new RiggedFiles();
  const { stored } = await rig.backup({ operation, files: files.door, volume: { entries } });
  expect(stored.problems).toEqual([]);
  expect(files.readBytes).toBe(0);
  const read = await rig.read(stored.volumes[0]!.listing);
  for (const [name, bytes] of contents) expect(read.get(name)?.bytes).toEqual(Buffer.from(bytes));
});

test("a file whose links came and went since is in the backup though it is gone", async () => {
  await using rig = await Rig.open();
  rig.write("f", "content");
  await rig.backup();
  const link = join(rig.folder.path, "link");
  fs.linkSync(join(rig.root, "f"), link);
  fs.unlinkSync(link);
  const { isStored, operation } = await ask(rig);
  const entries = entriesOf(rig);
  expect(isStored("f")).toBe(true);
  fs.unlinkSync(join(rig.root, "f"));
  const { stored } = await rig.backup({ operation, volume: { entries } });
  expect(stored.problems).toEqual([]);
  const read = await rig.read(stored.volumes[0]!.listing);
  expect(read.get("f")?.bytes?.toString()).toBe("content");
});

test("a file that must be read and is gone is a vanished one", async () => {
  await using rig = await Rig.open();
  rig.write("f", "before");
  await rig.backup();
  rig.write("f", "after!", 50);
  const entries = entriesOf(rig);
  fs.unlinkSync(join(rig.root, "f"));
  const { stored } = await rig.backup({ volume: { entries } });
  expect(stored.problems).toMatchObject([{ path: "f", kind: "vanished" }]);
});

test("a file with attributes is not stored", async () => {
  await using rig = await Rig.open();
  rig.write("f", "content");
  await rig.backup({
    files: new RiggedFiles({ readXattrs: () => new Map([["user.a", new Uint8Array(1)]]) }).door,
  });
  expect((await ask(rig)).isStored("f")).toBe(false);
});

test("a file that changed just before it was stored is not stored", async () => {
  await using rig = await Rig.open();
  rig.write("f", "content", 1);
  await rig.backup({ settings: { racyMs: 60_000 } });
  expect((await ask(rig, { racyMs: 60_000 })).isStored("f")).toBe(false);
});

test("nothing is stored that only a forgotten backup vouches for", async () => {
  await using rig = await Rig.open();
  rig.write("f", "content");
  const { id } = await rig.backup();
  expect((await ask(rig)).isStored("f")).toBe(true);
  const repository = await rig.openRepository();
  const forget = { backups: [id], reason: "test", scope: "site" as const };
  await forgetBackups(repository, { ...forget, operation: drawId(realRandom) });
  expect((await ask(rig)).isStored("f")).toBe(false);
});

test("nothing is stored before the backups that look everything up", async () => {
  await using rig = await Rig.open();
  rig.write("f", "content");
  const settings = { lookUpEvery: 3 };
  const answers: boolean[] = [];
  for (let backup = 1; backup <= 6; backup++) {
    answers.push((await ask(rig, settings)).isStored("f"));
    await rig.backup({ settings });
  }
  expect(answers).toEqual([false, true, false, true, true, false]);
});

test("what is drawn to be read again is not stored, and all else is", async () => {
  await using rig = await Rig.open();
  const names = Array.from({ length: 60 }, (_, index) => `f${100 + index}`);
  for (const name of names) rig.write(name, noise(1000, 1));
  await rig.backup();
  const settings = { rereadShare: 0.5 };
  const { isStored, operation } = await ask(rig, settings);
  const kept = names.filter(isStored);
  expect(kept.length).toBeGreaterThan(10);
  expect(kept.length).toBeLessThan(50);
  const entries = entriesOf(rig);
  for (const name of kept) fs.unlinkSync(join(rig.root, name));
  const files = new RiggedFiles();
  const again = { operation, settings, files: files.door, volume: { entries } };
  const { stored } = await rig.backup(again);
  expect(stored.problems).toEqual([]);
  expect(files.readBytes).toBe((names.length - kept.length) * 1000);
});
