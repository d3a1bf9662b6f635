/**
 * Question: which chunks should share a compressed frame, how large should it be, at which level, and
 * how is data that is not worth compressing told from the rest? Each variant packs the same chunks.
 * Time is what one undisturbed core takes for packing alone (probe, copy, zstd, checksum) and for
 * unpacking: for each chunk the fastest of some rounds, summed.
 *
 *     bun bench/frames.ts [--json] [--size=64] [--folder=node_modules]
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { sha256 } from "../src/base/hex.ts";
import { Chunker, CHUNKER_SETTINGS_DEFAULT } from "../src/cas/format/chunker.ts";
import { isCompressedEnough } from "../src/cas/format/compression.ts";
import { compressZstd, decompressExactly } from "../src/cas/format/zstd.ts";
import { makeBlocks, makeIdentifiers, makeLogText, makePostings } from "./data-kinds.ts";
import { makeRecords, makeValues } from "./data-kinds.ts";
import { Seeded } from "./seeded.ts";

type Probe = "none" | "middle" | "any of 3";
type Variant = {
  readonly name: string;
  readonly level: number;
  /** Smaller chunks share frames. */
  readonly ownFrameBytesMin: number;
  readonly frameSizeBytes: number;
  /** Of frames that are shared. */
  readonly sharedLevel: number;
  readonly probe: Probe;
  /** A sample that shrinks to less says that compressing pays. */
  readonly shareMax: number;
};
type Row = {
  readonly data: string;
  readonly variant: string;
  readonly storedShare: number;
  readonly packMs: number;
  readonly unpackMs: number;
  readonly frameCount: number;
};
type Frame = {
  readonly rawLength: number;
  readonly stored: Uint8Array;
  readonly isPacked: boolean;
};

const KIB = 1024;
const MIB = 1024 * KIB;
const ROUND_COUNT = 5;
const SAMPLE_SIZE_BYTES = 4 * KIB;
/** A chunk below this is not probed: it shares a frame anyway. */
const PROBED_SIZE_BYTES_MIN = 16 * KIB;

const EACH_ITS_OWN = { ownFrameBytesMin: 0, frameSizeBytes: 1, sharedLevel: 1 };
const PROBED = { probe: "any of 3", shareMax: 0.98 } as const;

const VARIANTS: readonly Variant[] = [
  { name: "a frame a chunk, zstd 1", level: 1, ...EACH_ITS_OWN, probe: "none", shareMax: 1 },
  { name: "same, middle < 0.93", level: 1, ...EACH_ITS_OWN, probe: "middle", shareMax: 0.93 },
  { name: "same, any of 3 < 0.98", level: 1, ...EACH_ITS_OWN, ...PROBED },
  { name: "a frame a chunk, zstd 3", level: 3, ...EACH_ITS_OWN, probe: "none", shareMax: 1 },
  sharing(Infinity, 256, 1),
  sharing(Infinity, 512, 1),
  sharing(Infinity, 1024, 1),
  sharing(Infinity, 512, 3),
  sharing(Infinity, 1024, 3),
  sharing(64, 512, 1),
  sharing(64, 256, 3),
  sharing(64, 512, 3),
  sharing(64, 1024, 3),
  sharing(128, 512, 3),
];

function sharing(ownKib: number, frameKib: number, sharedLevel: number): Variant {
  return {
    name:
      ownKib === Infinity
        ? `all share ${frameKib} KiB, zstd ${sharedLevel}`
        : `below ${ownKib} KiB share ${frameKib} KiB at zstd ${sharedLevel}`,
    level: 1,
    ownFrameBytesMin: ownKib * KIB,
    frameSizeBytes: frameKib * KIB,
    sharedLevel,
    ...PROBED,
  };
}

const { values: options } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    size: { type: "string", default: "64" },
    folder: { type: "string", default: "node_modules" },
  },
});
const sizeBytes = Number(options.size) * MIB;
const rows = [...measureAll()];
if (options.json) {
  const machine = { cpu: cpus()[0]?.model ?? "unknown", bun: Bun.version, arch: process.arch };
  console.log(JSON.stringify({ benchmark: "frames", machine, sizeBytes, rows }, undefined, 2));
} else {
  for (const row of rows) {
    const times = [row.packMs.toFixed(0), row.unpackMs.toFixed(0)];
    const columns = [row.data, row.variant, row.storedShare.toFixed(4), ...times, row.frameCount];
    console.log(`| ${columns.join(" | ")} |`);
  }
}

function* measureAll(): Generator<Row> {
  const data: Record<string, () => Uint8Array[]> = {
    m3: makeM3Files,
    cassandra: () => [makeBlocks(new Seeded("blocks"), sizeBytes)],
    random: () => [new Seeded("random").bytes(sizeBytes)],
    logs: () => [makeLogText(new Seeded("logs"), sizeBytes, 0)],
    modules: () => readTexts(options.folder),
  };
  for (const [name, make] of Object.entries(data)) {
    const chunks = cutFiles(make());
    for (const variant of VARIANTS) yield measure(name, chunks, variant);
  }
}

function measure(data: string, chunks: readonly Uint8Array[], variant: Variant): Row {
  const rawBytes = chunks.reduce((sum, { length }) => sum + length, 0);
  const packMs: number[] = [];
  const unpackMs: number[] = [];
  let frames: readonly Frame[] = [];
  for (let round = 0; round < ROUND_COUNT; round += 1) {
    frames = pack(chunks, variant, packMs);
    for (const [index, { rawLength, stored, isPacked }] of frames.entries()) {
      const start = performance.now();
      if (isPacked) decompressExactly(stored, rawLength, "frame");
      keepLeast(unpackMs, index, performance.now() - start);
    }
  }
  const storedBytes = frames.reduce((sum, { stored }) => sum + stored.length, 0);
  return {
    data,
    variant: variant.name,
    storedShare: storedBytes / rawBytes,
    packMs: sum(packMs),
    unpackMs: sum(unpackMs),
    frameCount: frames.length,
  };
}

/** What PackBuilder does, with other rules; notes the time of each chunk where it is the least. */
function pack(chunks: readonly Uint8Array[], variant: Variant, leastMs: number[]): Frame[] {
  const frames: Frame[] = [];
  const gather = new Uint8Array(2 * Math.max(variant.frameSizeBytes, MIB));
  let filled = 0;
  const store = (raw: Uint8Array, level: number): void => {
    if (raw.length === 0) return;
    const packed = compressZstd(raw, level);
    const isPacked = isCompressedEnough(raw.length, packed.length);
    const stored = isPacked ? packed : raw.slice();
    sha256(stored);
    frames.push({ rawLength: raw.length, stored, isPacked });
  };
  const flush = (): void => {
    store(gather.subarray(0, filled), variant.sharedLevel);
    filled = 0;
  };
  for (const [index, chunk] of chunks.entries()) {
    const start = performance.now();
    if (!isWorthIt(chunk, variant)) {
      frames.push({ rawLength: chunk.length, stored: chunk.slice(), isPacked: false });
    } else if (chunk.length >= variant.ownFrameBytesMin) {
      store(chunk, variant.level);
    } else {
      if (filled + chunk.length > gather.length) flush();
      gather.set(chunk, filled);
      filled += chunk.length;
      if (filled >= variant.frameSizeBytes) flush();
    }
    keepLeast(leastMs, index, performance.now() - start);
  }
  flush();
  return frames;
}

function isWorthIt(chunk: Uint8Array, { probe, shareMax }: Variant): boolean {
  if (probe === "none" || chunk.length < PROBED_SIZE_BYTES_MIN) return true;
  const last = chunk.length - SAMPLE_SIZE_BYTES;
  const places = probe === "middle" ? [0.5] : [0.5, 0, 1];
  return places.some((place) => {
    const start = Math.floor(last * place);
    const sample = chunk.subarray(start, start + SAMPLE_SIZE_BYTES);
    return compressZstd(sample, 1).length < shareMax * SAMPLE_SIZE_BYTES;
  });
}

function keepLeast(values: number[], index: number, value: number): void {
  values[index] = Math.min(values[index] ?? Infinity, value);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** The parts of a time series database's tree, in their shares, as files of about their size. */
function makeM3Files(): Uint8Array[] {
  const seeded = new Seeded("m3");
  const files: Uint8Array[] = [];
  for (let left = sizeBytes; left > 0; left -= 4 * MIB) {
    const share = (part: number): number => Math.round(part * 4 * MIB);
    files.push(makeValues(seeded, share(0.52)), makeIdentifiers(seeded, share(0.145)));
    files.push(seeded.bytes(share(0.015)), makePostings(seeded, share(0.072)));
    files.push(makeIdentifiers(seeded, share(0.048)), makeRecords(seeded, share(0.2)));
  }
  return files;
}

/** Texts below a folder, in the order of a walk, until there are enough. */
function readTexts(folder: string): Uint8Array[] {
  const files: Uint8Array[] = [];
  let left = sizeBytes;
  for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" }).toSorted()) {
    if (left <= 0) break;
    if (!/\.(?:[cm]?[jt]s|json|md|map)$/.test(name)) continue;
    const path = join(folder, name);
    if (!statSync(path).isFile()) continue;
    const bytes = readFileSync(path);
    left -= bytes.length;
    if (bytes.length > 0) files.push(bytes);
  }
  return files;
}

function cutFiles(files: readonly Uint8Array[]): Uint8Array[] {
  const chunker = new Chunker(CHUNKER_SETTINGS_DEFAULT, { bufferSizeBytes: 4 * MIB });
  const chunks: Uint8Array[] = [];
  for (const file of files) {
    for (let done = 0; done < file.length;) {
      const available = Math.min(file.length - done, chunker.buffer.length);
      chunker.buffer.set(file.subarray(done, done + available));
      const length = chunker.next(0, available, true);
      chunks.push(file.slice(done, done + length));
      done += length;
    }
  }
  return chunks;
}
