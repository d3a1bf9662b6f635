/**
 * Cuts data into chunks by content: equal stretches of data give equal chunks wherever they lie, and
 * an edit changes only the chunks around it. The rule (docs/decisions.md, chunker-reference.ts) has
 * a name that the repository's header keeps, and never changes under it. A cut depends on nothing
 * but the bytes since the last one: not on the buffer, the reads, or which implementation ran.
 *
 * A chunker owns one fixed buffer, and no memory beside it.
 */
import assert from "node:assert/strict";
import { AppError } from "../../base/error.ts";
import { AVERAGE_SIZES_BYTES, boundsOfAverage, findCut } from "./chunker-reference.ts";
import type { CutBounds } from "./chunker-reference.ts";
import { CHUNKER_WASM_BASE64 } from "./chunker-wasm/binary.ts";

/** What a repository's header says about cutting: who reads it must cut in the same way. */
export type ChunkerSettings = {
  readonly rule: "astacus-cdc-1";
  readonly averageSizeBytes: number;
};

/** For new repositories. */
export const CHUNKER_SETTINGS_DEFAULT: ChunkerSettings = {
  rule: "astacus-cdc-1",
  averageSizeBytes: 256 * 1024,
};

/** SIMD in WebAssembly, or the same rule in plain TypeScript. */
export type ChunkerImplementation = "wasm" | "reference";

type FindCut = (start: number, available: number) => number;

type WasmFindCut = (
  start: number,
  available: number,
  minimum: number,
  normal: number,
  maximum: number,
  strictLimit: number,
  easyLimit: number,
) => number;

const BUFFER_SIZE_BYTES_DEFAULT = 4 * 1024 * 1024;
const BUFFER_SIZE_BYTES_MAX = 1024 * 1024 * 1024;
const WASM_PAGE_SIZE_BYTES = 64 * 1024;
/** The SIMD code looks at whole steps: it may read so far past the buffer's end. */
const WASM_SLACK_BYTES = 64;

/**
 * Finds the lengths of chunks in its own buffer, into which files are read.
 *
 * @example
 * const chunker = new Chunker({ rule: "astacus-cdc-1", averageSizeBytes: 256 * 1024 });
 * let offset = 0;
 * let filled = 0;
 * for (let atEnd = false; !atEnd || offset < filled; ) {
 *   const length = chunker.next(offset, filled - offset, atEnd);
 *   if (length > 0) {
 *     handle(chunker.buffer.subarray(offset, offset + length));
 *     offset += length;
 *     continue;
 *   }
 *   chunker.buffer.copyWithin(0, offset, filled);
 *   filled -= offset;
 *   offset = 0;
 *   const count = readInto(chunker.buffer.subarray(filled));
 *   filled += count;
 *   atEnd = count === 0;
 * }
 */
export class Chunker {
  /** Memory that the cutting code sees itself: what is read into it is not copied again. */
  readonly buffer: Uint8Array;
  readonly chunkSizeBytesMin: number;
  readonly chunkSizeBytesMax: number;
  /** Which code runs; the cuts are the same. */
  readonly implementation: ChunkerImplementation;
  readonly #findCut: FindCut;

  constructor(
    settings: ChunkerSettings,
    options: {
      /** At least the largest chunk; by default 4 MiB, or twice the largest chunk if that is more. */
      readonly bufferSizeBytes?: number;
      /** By default wasm, and the reference where SIMD does not compile. */
      readonly implementation?: ChunkerImplementation;
    } = {},
  ) {
    const bounds = mustGetBounds(settings);
    const sizeBytes =
      options.bufferSizeBytes ?? Math.max(BUFFER_SIZE_BYTES_DEFAULT, 2 * bounds.maximum);
    assert(Number.isInteger(sizeBytes), "the chunker's buffer is a whole number of bytes");
    assert(sizeBytes >= bounds.maximum, "the chunker's buffer holds the largest chunk");
    assert(sizeBytes <= BUFFER_SIZE_BYTES_MAX, "the chunker's buffer is at most 1 GiB");
    const wasm = options.implementation === "reference" ? undefined : compileWasm();
    if (wasm === undefined && options.implementation === "wasm") {
      throw new AppError("refused", "This machine cannot run the SIMD chunker.", {
        guidance: "Leave the choice of the chunker's implementation open.",
      });
    }
    const opened =
      wasm === undefined ? openReference(bounds, sizeBytes) : openWasm(wasm, bounds, sizeBytes);
    this.buffer = opened.buffer;
    this.#findCut = opened.findCut;
    this.implementation = wasm === undefined ? "reference" : "wasm";
    this.chunkSizeBytesMin = bounds.minimum;
    this.chunkSizeBytesMax = bounds.maximum;
  }

  /**
   * Length of the chunk that starts at `buffer[offset]`, of which `available` bytes are there. 0 if
   * it takes more of them to tell: fewer than `chunkSizeBytesMax`, and the data goes on.
   */
  next(offset: number, available: number, atEnd: boolean): number {
    assert(offset >= 0 && available >= 0, "a chunk lies in the buffer");
    assert(offset + available <= this.buffer.length, "a chunk ends in the buffer");
    if (available === 0) return 0;
    if (!atEnd && available < this.chunkSizeBytesMax) return 0;
    return this.#findCut(offset, available);
  }
}

/** The lengths of all chunks of a small thing that is in memory. */
export function listChunkSizes(bytes: Uint8Array, settings: ChunkerSettings): number[] {
  const bounds = mustGetBounds(settings);
  const sizes: number[] = [];
  for (let start = 0; start < bytes.length;) {
    const size = findCut(bytes, { start, available: bytes.length - start }, bounds);
    sizes.push(size);
    start += size;
  }
  return sizes;
}

function mustGetBounds(settings: ChunkerSettings): CutBounds {
  const { rule, averageSizeBytes } = settings;
  if (rule !== "astacus-cdc-1") {
    throw new AppError("refused", `The chunker's rule "${String(rule)}" is not known here.`, {
      guidance: "The repository was made by a newer version: update this one.",
    });
  }
  if (!AVERAGE_SIZES_BYTES.includes(averageSizeBytes)) {
    throw new AppError(
      "config",
      `Chunks of ${averageSizeBytes} bytes on average are not offered.`,
      {
        guidance: `Choose one of ${AVERAGE_SIZES_BYTES.join(", ")}; 262144 suits most.`,
      },
    );
  }
  return boundsOfAverage(averageSizeBytes);
}

type Opened = { readonly buffer: Uint8Array; readonly findCut: FindCut };

function openReference(bounds: CutBounds, sizeBytes: number): Opened {
  const buffer = new Uint8Array(sizeBytes);
  return { buffer, findCut: (start, available) => findCut(buffer, { start, available }, bounds) };
}

function openWasm(wasm: WebAssembly.Module, bounds: CutBounds, sizeBytes: number): Opened {
  const pageCount = Math.ceil((sizeBytes + WASM_SLACK_BYTES) / WASM_PAGE_SIZE_BYTES);
  // Never grown: growing would detach the buffer's view.
  const memory = new WebAssembly.Memory({ initial: pageCount, maximum: pageCount });
  const instance = new WebAssembly.Instance(wasm, { env: { memory } });
  const run = instance.exports["findCut"] as WasmFindCut;
  const { minimum, normal, maximum, strictLimit, easyLimit } = bounds;
  return {
    buffer: new Uint8Array(memory.buffer, 0, sizeBytes),
    // The module has no data of its own, so addresses are offsets in the buffer.
    findCut: (start, available) =>
      run(start, available, minimum, normal, maximum, strictLimit, easyLimit),
  };
}

let compiledWasm: WebAssembly.Module | undefined;

/** The compiled module; undefined where this CPU or this runtime has no SIMD. */
function compileWasm(): WebAssembly.Module | undefined {
  if (compiledWasm !== undefined) return compiledWasm;
  try {
    compiledWasm = new WebAssembly.Module(Buffer.from(CHUNKER_WASM_BASE64, "base64"));
  } catch (error) {
    if (!(error instanceof WebAssembly.CompileError)) throw error;
  }
  return compiledWasm;
}
