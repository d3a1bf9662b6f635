/**
 * What does the catalog's index of chunks cost at scale? Builds a catalog of N chunks from real
 * segments and measures the rate of inserts, of lookups (hit and miss), and the peak of memory.
 * Segments are made by another process, so that the memory measured is that of the index alone.
 *
 *     bun bench/catalog-scale.ts --chunks 10000000
 */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { realDatabases } from "../src/base/databases.ts";
import { sha256, sha256Hex, toHex } from "../src/base/hex.ts";
import { Catalog } from "../src/cas/catalog/catalog.ts";
import { ChunkIndex } from "../src/cas/catalog/catalog-index.ts";
import { decodeSegment, encodeSortedSegment } from "../src/cas/format/index-segment.ts";
import type { EncodedSegment, SegmentChunk, SegmentPack } from "../src/cas/format/index-segment.ts";

const CHUNK_SIZE_BYTES = 262_144;
const CHUNKS_OF_FRAME = 2;
const FRAMES_OF_PACK = 64;
const CHUNKS_OF_PACK = CHUNKS_OF_FRAME * FRAMES_OF_PACK;
const LOOKUP_COUNT = 100_000;

const { values } = parseArgs({
  options: {
    chunks: { type: "string", default: "1000000" },
    segment: { type: "string", default: "250000" },
    make: { type: "string" },
    first: { type: "string", default: "0" },
  },
});
const chunkCount = Number(values.chunks);
const segmentChunkCount = Number(values.segment);
if (values.make === undefined) {
  const folder = mkdtempSync(join(tmpdir(), "astacus-catalog-scale-"));
  try {
    run(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
} else {
  writeFileSync(values.make, makeSegment(Number(values.first), chunkCount).bytes);
}

function run(folder: string): void {
  const path = join(folder, "catalog.sqlite");
  const file = join(folder, "segment");
  using catalog = Catalog.open(realDatabases, path);
  const index = new ChunkIndex(catalog);
  let insertMs = 0;
  let rssMax = 0;
  for (let first = 0; first < chunkCount; first += segmentChunkCount) {
    const count = Math.min(segmentChunkCount, chunkCount - first);
    const made = ["--make", file, "--first", String(first), "--chunks", String(count)];
    Bun.spawnSync(["bun", import.meta.path, ...made]);
    const bytes = readFileSync(file);
    const id = sha256Hex(bytes);
    const start = performance.now();
    index.applySegments([{ ref: { id }, segment: decodeSegment(bytes, id) }]);
    const ms = performance.now() - start;
    insertMs += ms;
    rssMax = Math.max(rssMax, process.memoryUsage.rss());
    const rate = Math.round(count / (ms / 1000));
    console.error(`${first + count} chunks, ${rate}/s, RSS ${mebibytes(rssMax)} MiB`);
  }
  const hit = lookupRate(index, (sample) => chunkId(Math.floor(sample * chunkCount)));
  const miss = lookupRate(index, (sample) => chunkId(chunkCount + Math.floor(sample * 1e9)));
  rssMax = Math.max(rssMax, process.memoryUsage.rss());
  console.log(
    JSON.stringify({
      chunks: index.countChunks(),
      insertsPerSecond: Math.round(chunkCount / (insertMs / 1000)),
      hitsPerSecond: hit,
      missesPerSecond: miss,
      bytesPerChunk: Math.round(statSync(path).size / chunkCount),
      rssPeakMiB: mebibytes(rssMax),
    }),
  );
}

function lookupRate(index: ChunkIndex, idOf: (sample: number) => Uint8Array): number {
  const start = performance.now();
  let found = 0;
  for (let turn = 0; turn < LOOKUP_COUNT; turn += 1) {
    // The golden ratio spreads samples without chance.
    found += index.find(idOf((turn * 0.618_033_988_749_894_9) % 1)).length;
  }
  if (found !== 0 && found !== LOOKUP_COUNT) throw new Error(`found ${found} of ${LOOKUP_COUNT}`);
  return Math.round(LOOKUP_COUNT / ((performance.now() - start) / 1000));
}

function makeSegment(first: number, count: number): EncodedSegment {
  const packs: SegmentPack[] = [];
  for (let pack = 0; pack * CHUNKS_OF_PACK < count; pack += 1) {
    packs.push(packOf(first / CHUNKS_OF_PACK + pack));
  }
  // Ids of packs ascend with their numbers, so chunks can name their ordinals.
  const chunks = Array.from({ length: count }, (_, at): SegmentChunk => {
    const inPack = at % CHUNKS_OF_PACK;
    return {
      id: chunkId(first + at),
      pack: Math.floor(at / CHUNKS_OF_PACK),
      frame: Math.floor(inPack / CHUNKS_OF_FRAME),
      offset: (inPack % CHUNKS_OF_FRAME) * CHUNK_SIZE_BYTES,
      length: CHUNK_SIZE_BYTES,
    };
  });
  chunks.sort((a, b) => Buffer.compare(a.id, b.id));
  return encodeSortedSegment(packs, chunks);
}

function packOf(number: number): SegmentPack {
  const id = Buffer.alloc(32);
  id.writeDoubleBE(number + 1);
  const rawLength = CHUNKS_OF_FRAME * CHUNK_SIZE_BYTES;
  const frames = Array.from({ length: FRAMES_OF_PACK }, (_, frame) => ({
    offset: frame * rawLength,
    codec: 0 as const,
    storedLength: rawLength,
    rawLength,
  }));
  const directoryLength = 40 + 60 * CHUNKS_OF_PACK;
  const sizeBytes = FRAMES_OF_PACK * rawLength + directoryLength + 16;
  return { id: toHex(id), birth: 1, sizeBytes, directoryLength, kind: "data", frames };
}

function chunkId(number: number): Uint8Array {
  return sha256(Buffer.from(String(number)));
}

function mebibytes(bytes: number): number {
  return Math.round(bytes / 1024 / 1024);
}
