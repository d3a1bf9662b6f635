/** The data plane: whatever the batches, the chunks of a file are those of its bytes. */
import { expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import { realFileSystem } from "../../src/base/file-system.ts";
import { sha256, toHex } from "../../src/base/hex.ts";
import { listChunkSizes } from "../../src/cas/format/chunker.ts";
import type { ChunkerSettings } from "../../src/cas/format/chunker.ts";
import { DataPlaneCore, idAt } from "../../src/cas/write/data-plane.ts";
import type { ChunkCheck, FileScan, FileTask, ScanResult } from "../../src/cas/write/data-plane.ts";
import { decodeFrame } from "../../src/cas/format/pack.ts";
import type { SealedPack } from "../../src/cas/format/pack.ts";
import { noise } from "./noise.ts";
import { temporaryFolder } from "./temporary-folder.ts";

const chunker: ChunkerSettings = { rule: "astacus-cdc-1", averageSizeBytes: 65_536 };
const settings = {
  chunker,
  batchSizeBytes: 600_000,
  packSizeBytes: 1_000_000,
  frameSizeBytes: 100_000,
  compressionLevel: 1,
};

function openCore(): DataPlaneCore {
  return new DataPlaneCore(realFileSystem, () => new Uint8Array(16), settings);
}

function chunksOf(bytes: Uint8Array): string[] {
  let offset = 0;
  return listChunkSizes(bytes, chunker).map((length) => {
    offset += length;
    return `${toHex(sha256(bytes.subarray(offset - length, offset)))} ${length}`;
  });
}

type Read = { chunks: string[]; last: FileScan; content: Uint8Array; batches: number };

/** Reads all tasks through both slots and keeps every chunk. */
function readAll(
  core: DataPlaneCore,
  tasks: readonly FileTask[],
): { reads: Read[]; bytes: number } {
  const reads: Read[] = [];
  const packs: SealedPack[] = [];
  let bytes = 0;
  let waiting = [...tasks];
  let isOpen = false;
  for (let slot = 0; waiting.length > 0 || isOpen; slot = 1 - slot) {
    const batch = core.scan(slot, waiting);
    waiting = waiting.slice(batch.taskCount);
    collect(batch, isOpen, reads);
    isOpen = batch.isOpen;
    bytes += batch.readBytes;
    packs.push(...core.store(slot, new Uint8Array(batch.lengths.length).fill(1)));
  }
  packs.push(...core.flush());
  const stored = new Map(packs.flatMap((pack) => [...unpack(pack)]));
  for (const read of reads) {
    const parts = read.chunks.map((chunk) => stored.get(chunk.slice(0, 64))!);
    read.content = Buffer.concat(parts);
  }
  return { reads, bytes };
}

function collect(batch: ScanResult, isOpen: boolean, reads: Read[]): void {
  let chunk = 0;
  for (const [index, file] of batch.files.entries()) {
    const isNew = index > 0 || !isOpen;
    expect(file.isFirst).toBe(isNew);
    if (isNew) reads.push({ chunks: [], last: file, content: new Uint8Array(0), batches: 0 });
    const read = reads.at(-1)!;
    for (const end = chunk + file.chunkCount; chunk < end; chunk++) {
      read.chunks.push(`${toHex(idAt(batch.ids, chunk))} ${batch.lengths[chunk]}`);
    }
    read.last = file;
    read.batches += 1;
  }
}

function* unpack(pack: SealedPack): Generator<[string, Uint8Array]> {
  for (const frame of pack.directory.frames) {
    const stored = pack.bytes.subarray(frame.offset, frame.offset + frame.storedLength);
    const raw = decodeFrame(stored, frame, "a frame");
    for (const chunk of frame.chunks) {
      yield [toHex(chunk.id), raw.subarray(chunk.offset, chunk.offset + chunk.length)];
    }
  }
}

test("files of any size have the chunks of their bytes, read once, in any mix of batches", () => {
  using folder = temporaryFolder();
  const sizes = [0, 1, 5_000_000, 64, 70_000, 600_000, 599_999, 600_001, 3, 2_000_000, 90_000];
  const contents = sizes.map((size, index) => noise(size, index));
  const tasks = contents.map((content, index) => {
    const path = join(folder.path, String(index));
    fs.writeFileSync(path, content);
    return { path, sizeBytes: content.length };
  });
  const { reads, bytes } = readAll(openCore(), tasks);
  expect(reads.map(({ chunks }) => chunks)).toEqual(contents.map(chunksOf));
  for (const [index, read] of reads.entries()) {
    expect(Buffer.compare(read.content, contents[index]!)).toBe(0);
    expect(read.last.isLast).toBe(true);
  }
  expect(bytes).toBe(sizes.reduce((sum, size) => sum + size, 0));
  expect(reads[2]!.batches).toBeGreaterThan(5);
});

test("a file that is larger than its task said is read to its end", () => {
  using folder = temporaryFolder();
  const content = noise(3_000_000, 1);
  const path = join(folder.path, "a");
  fs.writeFileSync(path, content);
  const tasks = [
    { path, sizeBytes: 10 },
    { path, sizeBytes: 10 },
  ];
  const { reads } = readAll(openCore(), tasks);
  expect(reads.map(({ chunks }) => chunks)).toEqual([chunksOf(content), chunksOf(content)]);
});

test("nothing beyond the captured size is read", () => {
  using folder = temporaryFolder();
  const content = noise(500_000, 2);
  const path = join(folder.path, "a");
  fs.writeFileSync(path, content);
  const { reads, bytes } = readAll(openCore(), [{ path, sizeBytes: 1, sizeBytesMax: 200_000 }]);
  expect(reads[0]!.chunks).toEqual(chunksOf(content.subarray(0, 200_000)));
  expect(bytes).toBe(200_000);
});

test("a file that is gone is an error of its own, and the rest of the batch is read", () => {
  using folder = temporaryFolder();
  fs.writeFileSync(join(folder.path, "b"), "b");
  const paths = ["a", "b"].map((name) => join(folder.path, name));
  const tasks = paths.map((path) => ({ path, sizeBytes: 1 }));
  const { reads } = readAll(openCore(), tasks);
  expect(reads.map(({ last }) => last.error?.kind)).toEqual(["not-found", undefined]);
  expect(reads[1]!.chunks).toEqual(chunksOf(new TextEncoder().encode("b")));
});

function checksOf(content: Uint8Array): { offset: number; checks: ChunkCheck[] } {
  let offset = 0;
  const all = listChunkSizes(content, chunker).map((length) => {
    offset += length;
    const start = offset - length;
    return { offset: start, length, id: sha256(content.subarray(start, offset)) };
  });
  return { offset: all.at(-1)!.offset, checks: [all[0]!, all.at(-1)!] };
}

test("a resumed read cuts the tail as a whole read does", () => {
  using folder = temporaryFolder();
  const content = noise(2_000_000, 3);
  const path = join(folder.path, "a");
  fs.writeFileSync(path, content);
  const resume = checksOf(content.subarray(0, 1_500_000));
  const task = { path, sizeBytes: content.length, sizeBytesMax: content.length, resume };
  const { reads, bytes } = readAll(openCore(), [task]);
  expect(reads[0]!.last.isResumed).toBe(true);
  const kept = chunksOf(content.subarray(0, resume.offset));
  expect([...kept, ...reads[0]!.chunks]).toEqual(chunksOf(content));
  expect(bytes).toBeLessThan(1_200_000);
});

test("a resumed read starts over if a checked chunk has changed", () => {
  using folder = temporaryFolder();
  const content = noise(2_000_000, 4);
  const resume = checksOf(content.subarray(0, 1_500_000));
  content[5]! ^= 1;
  const path = join(folder.path, "a");
  fs.writeFileSync(path, content);
  const { reads } = readAll(openCore(), [{ path, sizeBytes: content.length, resume }]);
  expect(reads[0]!.last.isResumed).toBe(false);
  expect(reads[0]!.chunks).toEqual(chunksOf(content));
});

test("a chunk of equal bytes proves nothing: the file is read from its start", () => {
  using folder = temporaryFolder();
  const content = new Uint8Array(2_000_000);
  const resume = checksOf(content.subarray(0, 1_500_000));
  content.fill(7, 500_000, 600_000);
  const path = join(folder.path, "a");
  fs.writeFileSync(path, content);
  const { reads } = readAll(openCore(), [{ path, sizeBytes: content.length, resume }]);
  expect(reads[0]!.last.isResumed).toBe(false);
  expect(reads[0]!.chunks).toEqual(chunksOf(content));
});

test("only chunks that were decided on are packed", () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "a");
  fs.writeFileSync(path, noise(500_000, 5));
  const core = openCore();
  const batch = core.scan(0, [{ path, sizeBytes: 500_000 }]);
  const keep = new Uint8Array(batch.lengths.length);
  keep[1] = 1;
  const packs = [...core.store(0, keep), ...core.flush()];
  const ids = packs.flatMap((pack) => [...unpack(pack)].map(([id]) => id));
  expect(ids).toEqual([toHex(idAt(batch.ids, 1))]);
});

/** How each packed chunk is stored: 0 as it is, 1 by zstd. */
function codecsOf(packs: readonly SealedPack[]): Map<string, number> {
  const frames = packs.flatMap(({ directory }) => directory.frames);
  return new Map(
    frames.flatMap(({ codec, chunks }) => chunks.map(({ id }) => [toHex(id), codec] as const)),
  );
}

function writeTasks(folder: string, ...contents: (Uint8Array | string)[]): FileTask[] {
  return contents.map((content, index) => {
    const path = join(folder, String(index));
    fs.writeFileSync(path, content);
    return { path, sizeBytes: content.length };
  });
}

test("how a chunk is stored says nothing about those of the next file", () => {
  using folder = temporaryFolder();
  const core = openCore();
  // It repeats after more than a page: only the samples of a file's first chunk show that.
  const other = Buffer.concat(Array.from({ length: 60 }, (_, index) => noise(5000, index >> 3)));
  const batch = core.scan(0, writeTasks(folder.path, noise(200_000, 7), other));
  const keep = new Uint8Array(batch.lengths.length).fill(1);
  // The file's first chunk is known: its second one is still none that follows the noise.
  const first = batch.files[0]!.chunkCount;
  keep[first] = 0;
  const codecs = codecsOf([...core.store(0, keep), ...core.flush()]);
  expect(codecs.get(toHex(idAt(batch.ids, 0)))).toBe(0);
  expect(codecs.get(toHex(idAt(batch.ids, first + 1)))).toBe(1);
});

test("nor about those of a file that began in the same batch and goes on in the next", () => {
  using folder = temporaryFolder();
  const core = openCore();
  // It repeats after more than a page: only the samples of a file's first chunk show that.
  const other = Buffer.concat(Array.from({ length: 200 }, () => noise(5000, 8)));
  const tasks = writeTasks(folder.path, noise(200_000, 7), other);
  const batch = core.scan(0, tasks);
  expect(batch.isOpen).toBe(true);
  const keep = new Uint8Array(batch.lengths.length).fill(1, 0, batch.files[0]!.chunkCount);
  const packs = core.store(0, keep);
  const next = core.scan(1, []);
  packs.push(...core.store(1, new Uint8Array(next.lengths.length).fill(1)), ...core.flush());
  const codecs = codecsOf(packs);
  const ids = Array.from({ length: next.lengths.length }, (_, index) => idAt(next.ids, index));
  expect(ids.map((id) => codecs.get(toHex(id)))).toEqual(ids.map(() => 1));
  expect(ids.length).toBeGreaterThan(0);
});
