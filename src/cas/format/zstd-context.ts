/**
 * zstd with a context that is kept: a new one for each call costs a third of compressing a chunk and
 * three quarters of compressing a sample, most of it memory that the system clears page by page.
 * Bun's one-shot call makes a context each time, and no public interface keeps one, so this drives
 * the handle below a `node:zlib` stream, as that stream does itself. It is used only while it gives
 * whole frames: whatever looks otherwise goes to the one-shot call, whose frames are as good.
 *
 * Memory: for each level in use in a thread, one context, which is what the one-shot call takes too.
 */
import assert from "node:assert/strict";
import { constants, createZstdCompress } from "node:zlib";
import { parseZstdFrame } from "./zstd.ts";

/** What `node:zlib` calls itself: whole input, one frame, all of it written at once. */
type Handle = {
  readonly writeSync: (
    flush: number,
    input: Uint8Array,
    inputOffset: number,
    inputLength: number,
    output: Uint8Array,
    outputOffset: number,
    outputLength: number,
  ) => void;
};

type Context = { readonly handle: Handle; readonly rest: Uint32Array };

/**
 * At levels 1 and -1 a table of 4096 entries for matches from 5 bytes on, instead of 8192 to 16,384
 * for 6 or 7: it stays in the processor's first cache beside what is compressed, and for what
 * databases write it finds more (docs/decisions.md, "Parameters of level 1").
 */
const LEVEL_1: Readonly<Record<number, number>> = {
  [constants.ZSTD_c_hashLog]: 12,
  [constants.ZSTD_c_minMatch]: 5,
};

/** What makes level -1 of level 1: the interface takes -1 for no level at all. */
const LITERALS_AS_THEY_ARE = { [constants.ZSTD_c_targetLength]: 1 };

/** By level; undefined where this runtime has no such handle, or it gave something else. */
const contexts = new Map<number, Context | undefined>();

/** Room that compressing so many bytes may need, though they hardly ever grow. */
export function compressedSizeMax(sizeBytes: number): number {
  const small = Math.max(0, 128 * 1024 - sizeBytes) / 2048;
  return sizeBytes + Math.ceil(sizeBytes / 256 + small);
}

/**
 * Compresses into the front of `target`, which has room for `compressedSizeMax`, as one frame that
 * states its content size; returns how long it is. Levels are zstd's own, 1 to 19, and -1.
 */
export function compressZstdInto(target: Uint8Array, bytes: Uint8Array, level: number): number {
  assert(target.length >= compressedSizeMax(bytes.length));
  const context = contextOf(level);
  if (context !== undefined) {
    const length = compressWith(context, target, bytes);
    if (length !== undefined) return length;
    contexts.set(level, undefined);
  }
  const stored = Bun.zstdCompressSync(bytes, { level: Math.max(1, level) });
  target.set(stored, 0);
  return stored.length;
}

function contextOf(level: number): Context | undefined {
  if (!contexts.has(level)) contexts.set(level, openContext(level));
  return contexts.get(level);
}

/** What a level means here, by the numbers that zstd has for its parameters. */
export function zstdParametersOf(level: number): Record<number, number> {
  const parameters = { [constants.ZSTD_c_compressionLevel]: Math.max(1, level) };
  if (level > 1) return parameters;
  return { ...parameters, ...LEVEL_1, ...(level < 0 ? LITERALS_AS_THEY_ARE : {}) };
}

function openContext(level: number): Context | undefined {
  const params = zstdParametersOf(level);
  const stream: object = createZstdCompress({ params }).on("error", () => undefined);
  const handle: unknown = Reflect.get(stream, "_handle");
  const rest: unknown = Reflect.get(stream, "_writeState");
  return isHandle(handle) && rest instanceof Uint32Array ? { handle, rest } : undefined;
}

function isHandle(value: unknown): value is Handle {
  return (
    typeof value === "object" &&
    value !== null &&
    "writeSync" in value &&
    typeof value.writeSync === "function"
  );
}

/** Undefined if what came is not one whole frame of these bytes: then the context is not used again. */
function compressWith(
  { handle, rest }: Context,
  target: Uint8Array,
  bytes: Uint8Array,
): number | undefined {
  const { ZSTD_e_end } = constants;
  handle.writeSync(ZSTD_e_end, bytes, 0, bytes.length, target, 0, target.length);
  const [outputRest = 0, inputRest = 0] = rest;
  if (inputRest !== 0 || outputRest >= target.length) return undefined;
  const length = target.length - outputRest;
  const frame = parseZstdFrame(target.subarray(0, length));
  if (frame?.contentSizeBytes !== bytes.length || frame.frameSizeBytes !== length) return undefined;
  return length;
}
