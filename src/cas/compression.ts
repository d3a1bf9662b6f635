/**
 * Decides whether compressing pays. A sample of a chunk is compressed first: what hardly shrinks is
 * stored as it is, which costs neither zstd time now nor at restore, nor a second hash. The rule and
 * the figures behind it are in docs/decisions.md ("Frames and compression").
 */

/** How hard to compress. */
export type Compression = {
  /** The level of zstd, 1 to 19. */
  readonly level: number;
};

const SAMPLE_COUNT = 3;
const SAMPLE_SIZE_BYTES = 4 * 1024;
const SAMPLE_LEVEL = 1;

/** A sample that does not shrink below this share of itself says that compressing does not pay. */
const SAMPLE_SHARE_MAX = 0.95;

/** A frame is stored compressed only if that saves this share of it. */
const FRAME_SHARE_MAX = 0.99;

/** False if samples from the start, middle and end say that the bytes would not shrink. */
export function looksCompressible(bytes: Uint8Array): boolean {
  const last = bytes.length - SAMPLE_SIZE_BYTES;
  if (last <= SAMPLE_SIZE_BYTES * SAMPLE_COUNT) return true;
  let storedBytes = 0;
  for (let index = 0; index < SAMPLE_COUNT; index++) {
    const start = Math.floor((last * index) / (SAMPLE_COUNT - 1));
    const sample = bytes.subarray(start, start + SAMPLE_SIZE_BYTES);
    storedBytes += Bun.zstdCompressSync(sample, { level: SAMPLE_LEVEL }).length;
  }
  return storedBytes < SAMPLE_SHARE_MAX * SAMPLE_COUNT * SAMPLE_SIZE_BYTES;
}

/** True if a compressed frame is so much smaller that it is worth decompressing at restore. */
export function isCompressedEnough(rawBytes: number, storedBytes: number): boolean {
  return storedBytes < FRAME_SHARE_MAX * rawBytes;
}
