/**
 * Compressing with a context that is kept: the same bytes as with a fresh one, frame after frame,
 * whatever came before, and the one-shot call where the runtime has no such context.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { join } from "node:path";
import { zstdCompressSync } from "node:zlib";
import {
  compressedSizeMax,
  compressZstdInto,
  zstdParametersOf,
} from "../../src/cas/format/zstd-context.ts";
import { noise } from "./noise.ts";

/** By a context of its own, with room for the whole frame, as what is less makes other blocks. */
function compressedOnce(bytes: Uint8Array, level: number): Uint8Array {
  const chunkSize = Math.max(1024, compressedSizeMax(bytes.length));
  return zstdCompressSync(bytes, { params: zstdParametersOf(level), chunkSize });
}

/** Compressed into a larger target, of which the rest must stay as it is. */
function compressed(bytes: Uint8Array, level: number): Uint8Array {
  const target = new Uint8Array(compressedSizeMax(bytes.length) + 8).fill(0x5a);
  const length = compressZstdInto(target.subarray(0, -8), bytes, level);
  expect(target.subarray(-8)).toEqual(new Uint8Array(8).fill(0x5a));
  return target.slice(0, length);
}

describe("a kept zstd context", () => {
  test("gives the bytes of a fresh context, whatever it compressed before", () => {
    const piece = fc.record({
      sizeBytes: fc.oneof(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: 3 << 20 })),
      symbolCount: fc.constantFrom(1, 2, 16, 200, 256),
      level: fc.constantFrom(-1, 1, 3, 7),
    });
    fc.assert(
      fc.property(fc.array(piece, { minLength: 1, maxLength: 6 }), (pieces) => {
        for (const [index, { sizeBytes, symbolCount, level }] of pieces.entries()) {
          const bytes = noise(sizeBytes, index).map((byte) => byte % symbolCount);
          const [actual, expected] = [compressed(bytes, level), compressedOnce(bytes, level)];
          expect(Buffer.compare(actual, expected)).toBe(0);
        }
      }),
      { numRuns: 8 },
    );
  });

  test("reads from the memory of WebAssembly", () => {
    const memory = new WebAssembly.Memory({ initial: 4, maximum: 4 });
    const bytes = new Uint8Array(memory.buffer, 100, 200_000);
    bytes.set(noise(bytes.length, 1).map((byte) => byte & 7));
    expect(Buffer.compare(compressed(bytes, 1), compressedOnce(bytes, 1))).toBe(0);
  });

  test("is left for the one-shot call where the runtime has none or it fails", () => {
    // In a process of its own: the module remembers what it found.
    const module = join(import.meta.dir, "../../src/cas/format/zstd-context.ts");
    for (const handle of ["undefined", "{ writeSync: () => undefined }"]) {
      const code = `
        import { mock } from "bun:test";
        import * as zlib from "node:zlib";
        const stream = { on: () => stream, _handle: ${handle}, _writeState: new Uint32Array(2) };
        mock.module("node:zlib", () => ({ ...zlib, createZstdCompress: () => stream }));
        const { compressZstdInto } = await import(${JSON.stringify(module)});
        const bytes = new Uint8Array(100_000).fill(7);
        const target = new Uint8Array(200_000);
        for (const turn of [1, 2]) {
          const length = compressZstdInto(target, bytes, 1);
          const back = Bun.zstdDecompressSync(target.subarray(0, length));
          console.log(turn, Buffer.compare(back, bytes));
        }`;
      const { stdout, stderr } = Bun.spawnSync([process.execPath, "-e", code]);
      expect(stdout.toString() || stderr.toString()).toBe("1 0\n2 0\n");
    }
  });
});
