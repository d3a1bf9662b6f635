/**
 * What lies in the files of the generated trees, by how it compresses: values that hardly do, record
 * streams, sorted identifiers, text. Each maker fills the given length exactly; the ratios in the
 * comments are of zstd at level 1.
 */
import type { Seeded } from "./seeded.ts";

/** Groups of symbols: how many, and how many of 256 random values each of them takes. */
type Skew = readonly (readonly [symbolCount: number, weight: number])[];

/** Bit-packed values (×1.08): 7.36 bits of entropy a byte. */
const VALUES_SKEW: Skew = [
  [13, 4],
  [31, 2],
  [142, 1],
];
/** What LZ4 leaves of rows (×1.3). */
const BLOCKS_SKEW: Skew = [
  [1, 32],
  [4, 16],
  [12, 4],
  [16, 2],
  [80, 1],
];

/** Compressed time series: hardly compressible, and a header every few hundred bytes. */
export function makeValues(seeded: Seeded, sizeBytes: number): Uint8Array {
  return skewed(seeded, sizeBytes, VALUES_SKEW);
}

/** Blocks that a database has compressed with a fast codec. */
export function makeBlocks(seeded: Seeded, sizeBytes: number): Uint8Array {
  return skewed(seeded, sizeBytes, BLOCKS_SKEW);
}

/** A log of writes in the manner of protobuf (×1.86): tags, small varints, times, doubles. */
export function makeRecords(seeded: Seeded, sizeBytes: number): Uint8Array {
  const bytes = seeded.bytes(sizeBytes);
  const view = new DataView(bytes.buffer);
  let timeMs = 1_700_000_000_000 + seeded.below(1_000_000);
  for (let offset = 0; offset + 28 <= sizeBytes; offset += 28) {
    timeMs += bytes[offset]! & 3;
    bytes[offset] = 0x1a;
    bytes[offset + 1] = 0x1a;
    bytes[offset + 2] = 0x08;
    // Two random bytes: which series.
    bytes[offset + 4] = 0x80 | (bytes[offset + 4]! & 0x0f);
    bytes[offset + 5] = 0x10;
    view.setBigUint64(offset + 6, BigInt(timeMs) * 1_000_000n, true);
    bytes[offset + 14] = 0x19;
    bytes[offset + 15] = 0;
    // Seven random bytes of a double's mantissa, under few exponents.
    bytes[offset + 23] = 0x40 | (bytes[offset + 23]! & 1);
    bytes[offset + 24] = 0x20;
    bytes[offset + 25] = 0x01;
    bytes[offset + 26] = bytes[offset + 26]! & 0x07;
    bytes[offset + 27] = 0x0a;
  }
  return bytes;
}

const NAMES = ["http_requests_total", "node_cpu_seconds", "go_gc_duration", "disk_io_time_ms"];
const ZONES = ["eu-west-1a", "eu-west-1b", "us-east-1c", "ap-south-1a"];

/** Sorted identifiers with tags, offsets and checksums (×3 to ×4). */
export function makeIdentifiers(seeded: Seeded, sizeBytes: number): Uint8Array {
  return text(sizeBytes, (line) => {
    const name = NAMES[(line >> 8) % NAMES.length]!;
    const host = `host-${String(line % 997).padStart(4, "0")}`;
    const zone = ZONES[seeded.below(ZONES.length)]!;
    const sum = String.fromCharCode(...seeded.bytes(14));
    return `__name__=${name},host=${host},zone=${zone},port=${9000 + seeded.below(40)}\0${sum}`;
  });
}

/** Terms and postings of an inverted index (×2). */
export function makePostings(seeded: Seeded, sizeBytes: number): Uint8Array {
  const bytes = seeded.bytes(sizeBytes);
  for (let index = 0; index < sizeBytes; index += 1) {
    if ((index & 7) >= 3) bytes[index] = (index >> 12) & 0xff;
  }
  return bytes;
}

const WORDS = [
  "compaction finished",
  "flushing memtable",
  "read timeout on replica",
  "snapshot requested by operator",
  "peer joined",
  "hinted handoff replayed",
  "slow query",
];

/** Log lines (×5 to ×6). */
export function makeLogText(seeded: Seeded, sizeBytes: number, start: number): Uint8Array {
  let timeMs = 1_700_000_000_000 + start * 3_600_000;
  return text(sizeBytes, () => {
    timeMs += seeded.below(40);
    const time = new Date(timeMs).toISOString();
    const words = WORDS[seeded.below(WORDS.length)]!;
    const request = seeded.uint32().toString(16);
    const tookMs = seeded.below(5000);
    return `${time} INFO [worker-${seeded.below(16)}] storage.engine: ${words} request=${request} took=${tookMs}ms\n`;
  });
}

/** Half random, half a repetition of it, in runs of 4 KiB (×2). */
export function makeMixed(seeded: Seeded, sizeBytes: number): Uint8Array {
  const bytes = seeded.bytes(sizeBytes);
  for (let offset = 0; offset + 8192 <= sizeBytes; offset += 8192) {
    bytes.copyWithin(offset + 4096, offset, offset + 4096);
  }
  return bytes;
}

function skewed(seeded: Seeded, sizeBytes: number, skew: Skew): Uint8Array {
  const table = tableOf(skew);
  const bytes = seeded.bytes(sizeBytes);
  for (let index = 0; index < sizeBytes; index += 1) bytes[index] = table[bytes[index]!]!;
  return bytes;
}

/** Symbols lie 37 apart, so that groups do not show as ranges. */
function tableOf(skew: Skew): Uint8Array {
  const table: number[] = [];
  let symbol = 0;
  for (const [symbolCount, weight] of skew) {
    for (let index = 0; index < symbolCount; index += 1) {
      symbol = (symbol + 37) & 0xff;
      for (let count = 0; count < weight; count += 1) table.push(symbol);
    }
  }
  while (table.length < 256) table.push(0);
  return Uint8Array.from(table.slice(0, 256));
}

function text(sizeBytes: number, makeLine: (line: number) => string): Uint8Array {
  const bytes = Buffer.allocUnsafe(sizeBytes);
  let filled = 0;
  for (let line = 0; filled < sizeBytes; line += 1) {
    filled += bytes.write(makeLine(line), filled, "latin1");
  }
  return bytes;
}
