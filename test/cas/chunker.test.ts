/**
 * The cut rule: that its two implementations are one rule, that cuts depend on content alone, that
 * sizes are what was asked for, and that the rule is still the one that repositories were made with.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { AppError } from "../../src/base/error.ts";
import { AVERAGE_SIZES_BYTES } from "../../src/cas/format/chunker-reference.ts";
import { CHUNKER_SOURCE_SHA256 } from "../../src/cas/format/chunker-wasm/binary.ts";
import { Chunker, listChunkSizes } from "../../src/cas/format/chunker.ts";
import type { ChunkerImplementation, ChunkerSettings } from "../../src/cas/format/chunker.ts";
import {
  computeVectors,
  DATA_KINDS,
  findPassingPattern,
  makeData,
  numbersFromSeed,
  vectorSizeBytes,
} from "./chunker-data.ts";
import type { ChunkerVector } from "./chunker-data.ts";

const KIB = 1024;
const AVERAGES = [64 * KIB, 128 * KIB, 256 * KIB, 1024 * KIB];
/** Small enough that properties see many cuts in little data. */
const SMALL = settingsOf(8 * KIB);

function settingsOf(averageSizeBytes: number): ChunkerSettings {
  return { rule: "astacus-cdc-1", averageSizeBytes };
}

/** Cuts as the data plane does: fills the buffer by reads of the given sizes, and moves the rest. */
function cutByReads(chunker: Chunker, bytes: Uint8Array, readSize: () => number): number[] {
  const sizes: number[] = [];
  let [offset, filled, position] = [0, 0, 0];
  for (let atEnd = false; !atEnd || offset < filled;) {
    const size = chunker.next(offset, filled - offset, atEnd);
    if (size > 0) {
      sizes.push(size);
      offset += size;
      continue;
    }
    chunker.buffer.copyWithin(0, offset, filled);
    filled -= offset;
    offset = 0;
    const count = Math.min(readSize(), chunker.buffer.length - filled, bytes.length - position);
    chunker.buffer.set(bytes.subarray(position, position + count), filled);
    filled += count;
    position += count;
    atEnd = position === bytes.length;
  }
  return sizes;
}

function cutWhole(
  bytes: Uint8Array,
  settings: ChunkerSettings,
  implementation: ChunkerImplementation,
): number[] {
  return cutByReads(new Chunker(settings, { implementation }), bytes, () => bytes.length);
}

const dataArbitrary = fc
  .tuple(
    fc.constantFrom(...DATA_KINDS),
    fc.integer({ min: 0, max: 1_000_000 }),
    fc.integer({ min: 0, max: 200_000 }),
  )
  .map(([kind, seed, sizeBytes]) => makeData(kind, seed, sizeBytes));

describe("the SIMD chunker and the reference", () => {
  for (const averageSizeBytes of AVERAGES) {
    for (const kind of DATA_KINDS) {
      test(`cut ${kind} data alike at an average of ${averageSizeBytes / KIB} KiB`, () => {
        const data = makeData(kind, 7, 5 * averageSizeBytes + 4321);
        const settings = settingsOf(averageSizeBytes);
        expect(cutWhole(data, settings, "wasm")).toEqual(listChunkSizes(data, settings));
      });
    }
  }

  test("cut any data of any length alike", () => {
    const chunker = new Chunker(SMALL, { implementation: "wasm" });
    fc.assert(
      fc.property(dataArbitrary, (data) => {
        expect(cutByReads(chunker, data, () => data.length)).toEqual(listChunkSizes(data, SMALL));
      }),
      { numRuns: 200 },
    );
  });

  test("cut patterns that pass the sieve everywhere alike: they skip the same positions", () => {
    const chunker = new Chunker(SMALL, { implementation: "wasm" });
    let cutCount = 0;
    for (let seed = 0; seed < 100; seed += 1) {
      const data = makeData("period", seed, 96 * KIB);
      const sizes = listChunkSizes(data, SMALL);
      cutCount += sizes.slice(0, -1).filter((size) => size < chunker.chunkSizeBytesMax).length;
      expect(cutByReads(chunker, data, () => data.length)).toEqual(sizes);
    }
    expect(cutCount).toBeGreaterThan(100); // or the foreign bytes were never looked at
  });

  test("skip the rest of a block after 32 misses in it, and begin the next one afresh", () => {
    const pattern = findPassingPattern(numbersFromSeed(1));
    const { chunkSizeBytesMax } = new Chunker(SMALL);
    const data = new Uint8Array(chunkSizeBytesMax).map((_, i) => pattern[i % pattern.length]!);
    expect(listChunkSizes(data, SMALL)).toEqual([chunkSizeBytesMax]); // the judge passes it nowhere
    const random = makeData("random", 2, 3500);
    const blockOffset = 12 * KIB;
    data.set(random.subarray(600), blockOffset + 600); // behind 32 periods: skipped
    expect(listChunkSizes(data, SMALL)).toEqual([chunkSizeBytesMax]);
    expect(cutWhole(data, SMALL, "wasm")).toEqual([chunkSizeBytesMax]);
    data.set(random, blockOffset); // before them: seen
    const [seen] = listChunkSizes(data, SMALL);
    expect(seen).toBeGreaterThan(blockOffset);
    expect(seen).toBeLessThan(blockOffset + 4 * KIB);
    expect(cutWhole(data, SMALL, "wasm")[0]).toBe(seen);
  });

  test("begin with the easy limit at 13/16 of the average, and not a byte before", () => {
    const data = makeData("random", 17, 512 * KIB);
    const normal = (SMALL.averageSizeBytes / 16) * 13;
    let [end, atNormal, justBefore] = [0, 0, 0];
    for (const size of listChunkSizes(data, SMALL)) {
      end += size;
      if (size <= normal || end === data.length) continue;
      // Where the easy limit made a cut, start so that it would lie on the border.
      for (const distance of [normal, normal - 1]) {
        const shifted = data.subarray(end - distance, end - distance + 64 * KIB);
        const [first] = listChunkSizes(shifted, SMALL);
        expect(cutWhole(shifted, SMALL, "wasm")[0]).toBe(first);
        if (first === distance && distance === normal) atNormal += 1;
        else if (first === distance) justBefore += 1;
      }
    }
    expect(atNormal).toBeGreaterThan(8 * Math.max(1, justBefore));
  });

  test("cut equally at every end of the data, the last bytes before it included", () => {
    const chunker = new Chunker(SMALL, { implementation: "wasm" });
    const data = makeData("random", 3, 40 * KIB);
    const [first] = listChunkSizes(data, SMALL);
    // What lies in the buffer behind the available bytes must not matter.
    chunker.buffer.set(data);
    for (let length = first! - 40; length <= first! + 40; length += 1) {
      const expected = Math.min(length, first!);
      expect(chunker.next(0, length, true)).toBe(expected);
      expect(listChunkSizes(data.subarray(0, length), SMALL)[0]).toBe(expected);
    }
  });
});

describe("cuts", () => {
  test("do not depend on how the bytes arrive in the buffer", () => {
    const chunkers = (["wasm", "reference"] as const).map(
      (implementation) => new Chunker(SMALL, { implementation, bufferSizeBytes: 40_000 }),
    );
    fc.assert(
      fc.property(dataArbitrary, fc.integer({ min: 1, max: 50_000 }), (data, readMax) => {
        const expected = listChunkSizes(data, SMALL);
        const next = numbersFromSeed(readMax);
        for (const chunker of chunkers) {
          expect(cutByReads(chunker, data, () => 1 + (next() % readMax))).toEqual(expected);
        }
      }),
      { numRuns: 60 },
    );
  });

  test("add up to the data and lie between minimum and maximum, the last one excepted", () => {
    const { chunkSizeBytesMin, chunkSizeBytesMax } = new Chunker(SMALL);
    fc.assert(
      fc.property(dataArbitrary, (data) => {
        const sizes = listChunkSizes(data, SMALL);
        expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(data.length);
        for (const size of sizes.slice(0, -1)) {
          expect(size).toBeGreaterThanOrEqual(chunkSizeBytesMin);
          expect(size).toBeLessThanOrEqual(chunkSizeBytesMax);
        }
        expect(sizes.at(-1) ?? 1).toBeGreaterThan(0);
        expect(sizes.at(-1) ?? 1).toBeLessThanOrEqual(chunkSizeBytesMax);
      }),
    );
  });

  test("of a longer file begin with those of a shorter one, but for its last chunk", () => {
    fc.assert(
      fc.property(dataArbitrary, fc.integer({ min: 0, max: 200_000 }), (data, length) => {
        const before = listChunkSizes(data.subarray(0, Math.min(length, data.length)), SMALL);
        const after = listChunkSizes(data, SMALL);
        expect(after.slice(0, Math.max(0, before.length - 1))).toEqual(before.slice(0, -1));
      }),
    );
  });

  test("before an edit stay, and behind the first common one after it are the old ones", () => {
    fc.assert(
      fc.property(
        dataArbitrary,
        fc.integer({ min: 0, max: 200_000 }),
        fc.uint8Array({ maxLength: 300 }),
        fc.integer({ min: 0, max: 300 }),
        (data, offset, inserted, removedCount) => {
          const at = Math.min(offset, data.length);
          const tail = data.subarray(at + removedCount);
          const edited = Buffer.concat([data.subarray(0, at), inserted, tail]);
          const before = endsFromBack(data);
          const after = endsFromBack(edited);
          const resync = firstCommon(before, after, tail.length);
          const isBehind = (end: number): boolean => end < resync;
          expect(after.filter(isBehind)).toEqual(before.filter(isBehind));
          const head = listChunkSizes(data.subarray(0, at), SMALL).slice(0, -1);
          expect(listChunkSizes(edited, SMALL).slice(0, head.length)).toEqual(head);
        },
      ),
    );
  });

  for (const kind of ["random", "log", "records", "mixed"] as const) {
    test(`resynchronise within a few chunks of an insertion into ${kind} data`, () => {
      const data = makeData(kind, 21, 600 * KIB);
      const before = endsFromBack(data);
      let [sum, count] = [0, 0];
      for (let at = 10_000; at < 300_000; at += 6_007) {
        const edited = Buffer.concat([data.subarray(0, at), Buffer.of(42), data.subarray(at)]);
        sum += data.length - at - firstCommon(before, endsFromBack(edited), data.length - at);
        count += 1;
      }
      expect(sum / count / SMALL.averageSizeBytes).toBeLessThan(4);
    });
  }

  /** The cut nearest behind an edit that both have, counted from the end of the data. */
  function firstCommon(before: number[], after: number[], tailSizeBytes: number): number {
    const known = new Set(before);
    return after.find((end) => end <= tailSizeBytes && known.has(end)) ?? 0;
  }

  /** Where chunks end, counted from the end of the data, so that edits before do not move them. */
  function endsFromBack(bytes: Uint8Array): number[] {
    let rest = bytes.length;
    return listChunkSizes(bytes, SMALL).map((size) => (rest -= size));
  }

  test("of a constant or empty input are the largest chunks, or none", () => {
    expect(listChunkSizes(new Uint8Array(0), SMALL)).toEqual([]);
    const zeros = listChunkSizes(new Uint8Array(100 * KIB), SMALL);
    expect(zeros).toEqual([32 * KIB, 32 * KIB, 32 * KIB, 4 * KIB]);
  });
});

describe("the mean size", () => {
  for (const averageSizeBytes of AVERAGES) {
    test(`is within 30 % of ${averageSizeBytes / KIB} KiB on random data`, () => {
      const data = makeData("random", 11, 40 * averageSizeBytes);
      const mean = data.length / cutWhole(data, settingsOf(averageSizeBytes), "wasm").length;
      expect(mean / averageSizeBytes).toBeGreaterThan(0.7);
      expect(mean / averageSizeBytes).toBeLessThan(1.3);
    });
  }

  test("is near the target on logs and records too", () => {
    for (const kind of ["log", "records", "mixed"] as const) {
      const data = makeData(kind, 5, 4 * 1024 * KIB);
      const mean = data.length / cutWhole(data, settingsOf(16 * KIB), "wasm").length;
      expect(mean / (16 * KIB)).toBeGreaterThan(0.6);
      expect(mean / (16 * KIB)).toBeLessThan(1.6);
    }
  });
});

describe("the rule astacus-cdc-1", () => {
  test("cuts the test vectors as it always did", async () => {
    const vectors = (await Bun.file(
      `${import.meta.dir}/chunker-vectors.json`,
    ).json()) as ChunkerVector[];
    expect(vectors.length).toBe(24);
    expect(computeVectors()).toEqual(vectors);
    for (const { kind, seed, averageSizeBytes, dataSha256, sizes, sizesSha256 } of vectors) {
      const data = makeData(kind, seed, vectorSizeBytes(averageSizeBytes));
      expect(Bun.SHA256.hash(data, "hex")).toBe(dataSha256);
      expect(cutWhole(data, settingsOf(averageSizeBytes), "wasm")).toEqual([...sizes]);
      expect(Bun.SHA256.hash(sizes.join(","), "hex")).toBe(sizesSha256);
    }
  });

  test("is compiled from the source that is committed", async () => {
    const source = Bun.file(`${import.meta.dir}/../../src/cas/format/chunker-wasm/chunker.as.ts`);
    expect(Bun.SHA256.hash(await source.bytes(), "hex")).toBe(CHUNKER_SOURCE_SHA256);
  });

  test("compiles to the binary that is committed", () => {
    const script = `${import.meta.dir}/../../scripts/build-chunker.ts`;
    const { exitCode, stderr } = Bun.spawnSync([process.execPath, script, "--check"]);
    expect(stderr.toString()).toBe("");
    expect(exitCode).toBe(0);
  }, 60_000);
});

describe("a chunker", () => {
  test("asks for more bytes until it has those of the largest chunk", () => {
    for (const implementation of ["wasm", "reference"] as const) {
      const chunker = new Chunker(SMALL, { implementation });
      chunker.buffer.set(makeData("random", 1, 64 * KIB));
      expect(chunker.implementation).toBe(implementation);
      expect(chunker.next(0, 0, false)).toBe(0);
      expect(chunker.next(0, 0, true)).toBe(0);
      expect(chunker.next(0, chunker.chunkSizeBytesMax - 1, false)).toBe(0);
      expect(chunker.next(0, chunker.chunkSizeBytesMax, false)).toBeGreaterThan(0);
    }
  });

  test("has a buffer of the size that was asked for, and never smaller than a chunk", () => {
    const { chunkSizeBytesMax } = new Chunker(SMALL);
    for (const implementation of ["wasm", "reference"] as const) {
      const options = { implementation, bufferSizeBytes: chunkSizeBytesMax + 1 };
      expect(new Chunker(SMALL, options).buffer.length).toBe(chunkSizeBytesMax + 1);
      const tooSmall = { implementation, bufferSizeBytes: chunkSizeBytesMax - 1 };
      expect(() => new Chunker(SMALL, tooSmall)).toThrow("holds the largest chunk");
      expect(() => new Chunker(SMALL, options).next(2, chunkSizeBytesMax, true)).toThrow("ends in");
    }
  });

  test("reads nothing beyond its memory at the very end of the buffer", () => {
    const bufferSizeBytes = 64 * KIB; // whole pages: a byte too far would trap
    const chunker = new Chunker(SMALL, { implementation: "wasm", bufferSizeBytes });
    chunker.buffer.fill(0);
    for (let length = 2 * KIB; length < 2 * KIB + 64; length += 1) {
      expect(chunker.next(bufferSizeBytes - length, length, true)).toBe(length);
    }
  });

  test("refuses averages and rules that it does not know, and says which it does", () => {
    for (const averageSizeBytes of [0, -1, Number.NaN, 100_000, 4096, 2 ** 21]) {
      expect(() => new Chunker(settingsOf(averageSizeBytes))).toThrow(AppError);
      expect(() => listChunkSizes(new Uint8Array(1), settingsOf(averageSizeBytes))).toThrow(
        AppError,
      );
    }
    for (const averageSizeBytes of AVERAGE_SIZES_BYTES) {
      expect(new Chunker(settingsOf(averageSizeBytes)).chunkSizeBytesMax).toBe(
        4 * averageSizeBytes,
      );
    }
    const unknown = { ...SMALL, rule: "astacus-cdc-2" } as unknown as ChunkerSettings;
    expect(() => new Chunker(unknown)).toThrow('"astacus-cdc-2" is not known');
  });
});
