/**
 * Data of known shapes for the chunker's tests and benchmark, the same from the same seed for ever:
 * the vectors of the cut rule depend on it. Run it to print chunker-vectors.json anew:
 *
 *     bun test/cas/chunker-data.ts > test/cas/chunker-vectors.json
 */
import { listChunkSizes } from "../../src/cas/format/chunker.ts";

/** The shapes: what incompressible files, logs, tables, holes and patterns look like to a cut rule. */
export const DATA_KINDS = ["random", "log", "records", "zeros", "period", "mixed"] as const;

/** One of the shapes. */
export type DataKind = (typeof DATA_KINDS)[number];

/** One line of chunker-vectors.json. */
export type ChunkerVector = {
  readonly kind: DataKind;
  readonly seed: number;
  readonly averageSizeBytes: number;
  readonly dataSha256: string;
  readonly sizes: readonly number[];
  readonly sizesSha256: string;
};

/** A stream of 32-bit numbers that depends on the seed alone (xorshift32 after a scramble). */
export function numbersFromSeed(seed: number): () => number {
  let state = Math.imul(seed + 1, 0x9e3779b1) | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return Math.imul(state, 0x2c1b3c6d) >>> 0;
  };
}

/** `sizeBytes` bytes of a shape. */
export function makeData(kind: DataKind, seed: number, sizeBytes: number): Uint8Array<ArrayBuffer> {
  const next = numbersFromSeed(seed);
  switch (kind) {
    case "random":
      return makeWords(sizeBytes, () => next());
    case "log":
      return makeLog(next, sizeBytes);
    case "records":
      return makeWords(sizeBytes, (i) => [i >>> 2, next() % 1000, 0x1234, next() % 7][i & 3] ?? 0);
    case "zeros":
      return new Uint8Array(sizeBytes);
    case "period":
      return makePeriod(next, sizeBytes);
    case "mixed":
      return makeMixed(next, sizeBytes);
  }
}

/** How much data a vector is of; odd, so that the end is no multiple of a step. */
export function vectorSizeBytes(averageSizeBytes: number): number {
  return Math.min(12 * averageSizeBytes, 5 * 1024 * 1024) + 12345;
}

/** The vectors of the rule, computed by the reference. */
export function computeVectors(): ChunkerVector[] {
  return DATA_KINDS.flatMap((kind, index) =>
    [64, 128, 256, 1024].map((averageKiB) => {
      const seed = 100 + index;
      const averageSizeBytes = averageKiB * 1024;
      const data = makeData(kind, seed, vectorSizeBytes(averageSizeBytes));
      const sizes = listChunkSizes(data, { rule: "astacus-cdc-1", averageSizeBytes });
      const dataSha256 = Bun.SHA256.hash(data, "hex");
      const sizesSha256 = Bun.SHA256.hash(sizes.join(","), "hex");
      return { kind, seed, averageSizeBytes, dataSha256, sizes, sizesSha256 };
    }),
  );
}

function makeWords(sizeBytes: number, word: (index: number) => number): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(sizeBytes + 3));
  for (let i = 0; i * 4 < sizeBytes; i += 1) view.setUint32(i * 4, word(i), true);
  return new Uint8Array(view.buffer, 0, sizeBytes);
}

/** A pattern that passes the sieve, over and over, with a foreign byte here and there. */
function makePeriod(next: () => number, sizeBytes: number): Uint8Array<ArrayBuffer> {
  const pattern = findPassingPattern(next);
  const data = new Uint8Array(sizeBytes);
  for (let i = 0; i < sizeBytes; i += 1) data[i] = pattern[i % pattern.length] ?? 0;
  for (let i = next() % 8192; i < sizeBytes; i += 1 + (next() % 8192)) data[i] = next();
  return data;
}

/** A pattern of 1 to 16 bytes of which the sieve keeps at least one position in each period. */
export function findPassingPattern(next: () => number): Uint8Array {
  const byteAt = (pattern: Uint8Array, at: number): number => pattern[at % pattern.length] ?? 0;
  for (;;) {
    const pattern = Uint8Array.from({ length: 1 + (next() % 16) }, next);
    for (let end = 64; end < 64 + pattern.length; end += 1) {
      let sieve = 0;
      for (const distance of [52, 36, 20, 4]) {
        let word = 0;
        for (let i = 3; i >= 0; i -= 1) word = (word << 8) | byteAt(pattern, end - distance + i);
        sieve = ((sieve << 8) + Math.imul(word, 0x9e3779b1 | 0)) | 0;
      }
      if (sieve < -(2 ** 31) + 2 ** 22) return pattern;
    }
  }
}

function makeLog(next: () => number, sizeBytes: number): Uint8Array<ArrayBuffer> {
  const data = new Uint8Array(sizeBytes);
  const encoder = new TextEncoder();
  for (let offset = 0, line = 0; offset < sizeBytes; line += 1) {
    const level = ["INFO ", "INFO ", "DEBUG", "WARN "][next() % 4];
    const text =
      `2026-11-22 18:${10 + (line >> 12)}:${10 + ((line >> 6) % 50)},${next() % 1000} ${level} ` +
      `[CompactionExecutor:${next() % 200}] CompactionTask.java:${next() % 400} - Compacted ` +
      `${next() % 32} sstables to [/var/lib/cassandra/data/ks/t-${next() % 1000}/nb-` +
      `${next() % 100_000}-big,] to level=0. ${next()} bytes to ${next() % 1_000_000}\n`;
    offset += encoder.encodeInto(text, data.subarray(offset)).written;
  }
  return data;
}

/** Stretches of all shapes after one another, some shorter than a block and some than a window. */
function makeMixed(next: () => number, sizeBytes: number): Uint8Array<ArrayBuffer> {
  const data = new Uint8Array(sizeBytes);
  for (let offset = 0; offset < sizeBytes;) {
    const kind = (["random", "log", "records", "zeros", "period"] as const)[next() % 5] ?? "zeros";
    const length = Math.min(1 + (next() % (1 << (4 + (next() % 14)))), sizeBytes - offset);
    data.set(makeData(kind, next() % 1000, length), offset);
    offset += length;
  }
  return data;
}

if (import.meta.main) {
  const lines = computeVectors().map((vector) => JSON.stringify(vector));
  console.log(`[\n${lines.join(",\n")}\n]`);
}
