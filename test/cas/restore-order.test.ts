/** How a restore goes about its work: what comes first, what is read, what is held. */
import { describe, expect, test } from "bun:test";
import { planVolumeRestore, runVolumeRestore } from "../../src/cas/read/restore.ts";
import { noise } from "./noise.ts";
import type { TestFile } from "./repository-builder.ts";
import {
  disk,
  everyKind,
  memoryDisk,
  optionsOf,
  prepare,
  text,
  withCalls,
} from "./restore-setup.ts";
import { readFile, shapeExpected, shapeOf } from "./tree-shape.ts";

describe("the order of work", () => {
  test("puts later groups in place after all of earlier groups", async () => {
    const names = ["checkpoint-1", "data-1", "sub/checkpoint-2", "sub/data-2", "sub/z"];
    const volume: TestFile[] = names.map((path) => ({ path, content: text(path) }));
    using prepared = await prepare([
      ...volume,
      { path: "sub" },
      { path: "sub/data-link", hardlink: "checkpoint-1" },
    ]);
    const disk = memoryDisk();
    const placed: string[] = [];
    disk.fault = (call, path) => {
      if (call === "rename") placed.push(path.slice("/t/x/".length));
    };
    const restoreOrder = (path: string): number => (path.includes("checkpoint") ? 2 : -1);
    await runVolumeRestore(optionsOf(prepared, { files: disk, target: "/t/x", restoreOrder }));
    expect(placed).toEqual([
      "data-1",
      "sub/data-2",
      "sub/z",
      "checkpoint-1",
      "sub/checkpoint-2",
      "sub/data-link",
    ]);
  });

  test("keeps few files open, however many share a chunk", async () => {
    const shared = noise(2000, 1);
    const volume = Array.from({ length: 400 }, (_, index): TestFile => {
      const content = Buffer.concat([shared, noise(1000, index + 2)]);
      return { path: `f${index}`, content };
    });
    using prepared = await prepare(volume);
    const disk = memoryDisk();
    const open = new Set<number>();
    let most = 0;
    const files = withCalls(disk, {
      open: (path, how) => {
        const handle = disk.open(path, how);
        open.add(handle);
        most = Math.max(most, open.size);
        return handle;
      },
      close: (handle) => {
        open.delete(handle);
        disk.close(handle);
      },
    });
    await runVolumeRestore(optionsOf(prepared, { files, target: "/t/x" }));
    expect(shapeOf(disk, "/t/x")).toEqual(shapeExpected(volume));
    expect(most).toBeLessThanOrEqual(257);
    expect(open.size).toBe(0);
  });

  test("passes a file that is larger than a window through in parts", async () => {
    const content = new Uint8Array(70 << 20);
    for (let part = 0; part < 70; part++) content.fill(part, part << 20, (part + 1) << 20);
    const sizes = { chunkSizeBytes: 1 << 20, packSizeBytes: 8 << 20, frameSizeBytes: 1 << 20 };
    using prepared = await prepare([{ path: "large", content }], sizes);
    const disk = memoryDisk();
    const options = optionsOf(prepared, { files: disk, target: "/t/x" });
    const result = await runVolumeRestore(options);
    expect(result).toMatchObject({
      filesWritten: 1,
      bytesWritten: 70 << 20,
      fetchedBytes: 70 << 20,
    });
    expect(Buffer.compare(readFile(disk, "/t/x/large"), content)).toBe(0);
  }, 30_000);

  test("leaves holes where sparse files had them", async () => {
    using at = disk("real");
    const content = new Uint8Array(8 << 20);
    content.set(noise(1000, 1), 4 << 20);
    const sizes = { chunkSizeBytes: 1 << 20, packSizeBytes: 8 << 20, frameSizeBytes: 1 << 20 };
    using prepared = await prepare([{ path: "s", content, sparse: true }], sizes);
    const target = `${at.root}/t`;
    await runVolumeRestore(optionsOf(prepared, { files: at.files, target }));
    const handle = at.files.open(`${target}/s`, "r");
    const dataBytes = at.files
      .dataRanges(handle, content.length)
      .reduce((sum, { length }) => sum + length, 0);
    at.files.close(handle);
    expect(Buffer.compare(readFile(at.files, `${target}/s`), content)).toBe(0);
    expect(dataBytes).toBeLessThanOrEqual(64 * 1024);
  });

  test("tells of each file in place, with the stat that it has there", async () => {
    using prepared = await prepare(everyKind());
    const disk = memoryDisk();
    const seen: string[] = [];
    const options = optionsOf(prepared, {
      files: disk,
      target: "/t/x",
      onFile: (record, stat) => {
        expect(stat).toEqual(disk.lstat(`/t/x/${record.path}`)!);
        seen.push(record.path);
      },
    });
    await runVolumeRestore(options);
    expect(seen.length).toBe(9);
    seen.length = 0;
    await runVolumeRestore(options);
    expect(seen.length).toBe(9);
  });

  test("reads no file whose contents are known", async () => {
    using prepared = await prepare([{ path: "x", content: noise(5000, 1) }]);
    const disk = memoryDisk();
    const known = new Map<string, unknown>();
    const options = optionsOf(prepared, {
      files: disk,
      target: "/t/x",
      onFile: (record) => known.set(record.path, record.type === "file" && record.content),
      known: { get: (path) => known.get(path) as never },
    });
    await runVolumeRestore(options);
    let reads = 0;
    disk.fault = (call) => {
      if (call === "read") reads += 1;
    };
    expect(await runVolumeRestore(options)).toMatchObject({ filesKept: 1, filesWritten: 0 });
    expect(reads).toBe(0);
  });

  test("plans which frames of which packs will be read", async () => {
    using prepared = await prepare(everyKind());
    const { index } = prepared.builder.repository;
    const locate = (ids: readonly Uint8Array[]) => index.findMany(ids).map(([place]) => place);
    const rest = { files: memoryDisk(), target: "/t/x" };
    const plan = await planVolumeRestore({ ...optionsOf(prepared, rest), locate });
    expect(plan.packs).toBeGreaterThan(0);
    const dataPacks = [...index.packs()].filter(({ kind }) => kind === "data");
    expect(plan.packs).toBe(dataPacks.length);
    const stored = dataPacks.flatMap(({ frames }) => frames.map((frame) => frame.storedLength));
    expect(plan.bytesToFetch).toBe(stored.reduce((sum, length) => sum + length, 0));
  });
});
