/**
 * Question: how much of a core do cutting and hashing take of each byte that is backed up? Data lies
 * in the cache, as it does just after a read; each figure is what one undisturbed core does: of many
 * rounds over the same 4 MiB the fastest, since another process can only make a round slower.
 *
 *     bun bench/hash-and-chunk.ts [--json]
 */
import { cpus } from "node:os";
import { Chunker } from "../src/cas/format/chunker.ts";
import type { ChunkerImplementation } from "../src/cas/format/chunker.ts";
import { DATA_KINDS, makeData } from "../test/cas/chunker-data.ts";
import type { DataKind } from "../test/cas/chunker-data.ts";

type Row = {
  readonly what: string;
  readonly data: DataKind;
  /** The average chunk for the chunker, the length of a message for the hash. */
  readonly sizeBytes: number;
  readonly gigabytesPerSecond: number;
  /** Of the chunks that were cut. */
  readonly meanSizeBytes?: number;
};

const DATA_SIZE_BYTES = 4 * 1024 * 1024;
/** So many cuts that a mean says something. */
const MEAN_DATA_SIZE_BYTES = 32 * 1024 * 1024;
const AVERAGE_SIZES_BYTES = [64 * 1024, 256 * 1024];
/** Long enough for code to reach its last tier, and for a round without a disturbance. */
const ROUNDS_MS = 700;

const rows = [...measureChunkers(), ...measureHash()];
if (process.argv.includes("--json")) {
  const machine = { cpu: cpus()[0]?.model ?? "unknown", bun: Bun.version, arch: process.arch };
  console.log(JSON.stringify({ benchmark: "hash-and-chunk", machine, rows }, undefined, 2));
} else {
  printTable();
}

function* measureChunkers(): Generator<Row> {
  for (const implementation of ["wasm", "reference"] as const) {
    for (const averageSizeBytes of AVERAGE_SIZES_BYTES) {
      for (const data of DATA_KINDS) yield measureChunker(implementation, averageSizeBytes, data);
    }
  }
}

function measureChunker(
  implementation: ChunkerImplementation,
  averageSizeBytes: number,
  data: DataKind,
): Row {
  const settings = { rule: "astacus-cdc-1", averageSizeBytes } as const;
  const chunker = new Chunker(settings, { implementation, bufferSizeBytes: MEAN_DATA_SIZE_BYTES });
  chunker.buffer.set(makeData(data, 1, MEAN_DATA_SIZE_BYTES));
  const fastestMs = measureFastestMs(() => cutAll(chunker, DATA_SIZE_BYTES));
  return {
    what: `chunker, ${implementation}`,
    data,
    sizeBytes: averageSizeBytes,
    gigabytesPerSecond: DATA_SIZE_BYTES / fastestMs / 1e6,
    meanSizeBytes: Math.round(MEAN_DATA_SIZE_BYTES / cutAll(chunker, MEAN_DATA_SIZE_BYTES)),
  };
}

function cutAll(chunker: Chunker, sizeBytes: number): number {
  let count = 0;
  for (let offset = 0; offset < sizeBytes; count += 1) {
    offset += chunker.next(offset, sizeBytes - offset, true);
  }
  return count;
}

function* measureHash(): Generator<Row> {
  const bytes = makeData("random", 1, DATA_SIZE_BYTES);
  const digest = new Uint8Array(32);
  for (const sizeBytes of [...AVERAGE_SIZES_BYTES, 1024 * 1024]) {
    const fastestMs = measureFastestMs(() => {
      for (let offset = 0; offset < bytes.length; offset += sizeBytes) {
        Bun.SHA256.hash(bytes.subarray(offset, offset + sizeBytes), digest);
      }
    });
    const gigabytesPerSecond = DATA_SIZE_BYTES / fastestMs / 1e6;
    yield { what: "SHA-256", data: "random", sizeBytes, gigabytesPerSecond };
  }
}

function measureFastestMs(round: () => unknown): number {
  let fastestMs = Number.POSITIVE_INFINITY;
  for (const end = performance.now() + ROUNDS_MS; performance.now() < end;) {
    const start = performance.now();
    round();
    fastestMs = Math.min(fastestMs, performance.now() - start);
  }
  return fastestMs;
}

function printTable(): void {
  console.log("what                  data      size KiB     GB/s   mean KiB");
  for (const { what, data, sizeBytes, gigabytesPerSecond, meanSizeBytes } of rows) {
    const mean = meanSizeBytes === undefined ? "" : (meanSizeBytes / 1024).toFixed(0);
    const speed = gigabytesPerSecond.toFixed(2).padStart(9);
    const size = String(sizeBytes / 1024).padStart(8);
    console.log(`${what.padEnd(22)}${data.padEnd(10)}${size}${speed}${mean.padStart(11)}`);
  }
}
