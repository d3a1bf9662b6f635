/**
 * The cut rule "astacus-cdc-1" in plain TypeScript: the definition of the rule, the oracle for the
 * SIMD twin in chunker-wasm, and the fallback where SIMD does not compile. No constant in here may
 * ever change under this name: cuts decide what deduplicates, so another rule gets another name.
 *
 * A chunk ends at the first position, counted from its start, that is at least `minimum` and passes
 * two stages, or at `maximum`, or at the end of the data:
 *
 * 1. The sieve, cheap enough for every position, keeps one in 1024. It adds the four 32-bit words
 *    that end 0, 16, 32 and 48 bytes before the position, each multiplied, and the farther ones
 *    shifted by 8, 16 and 24 bits. Words so far apart see past the constant phrases of logs, which
 *    adjacent bytes do not; and the sum steps 16 bytes by one shift, so SIMD carries it for free.
 * 2. The judge hashes the 64 bytes before the position and compares with a strict limit before
 *    `normal` and an easy one from there on, which narrows the spread of sizes around the average.
 *
 * Data of a short period can pass the sieve everywhere. So that its cost is bounded, the rest of a
 * block (4096 bytes, counted from the chunk's start) is skipped after 32 misses of the judge in it.
 * Random data has 4 in a block: for it, and nearly always, a cut depends only on the 64 bytes before
 * it and on the distance from the last cut, and never on how the bytes arrived.
 */

/** The sizes and limits of the rule for one average. */
export type CutBounds = {
  readonly minimum: number;
  /** From here on the easy limit applies. */
  readonly normal: number;
  readonly maximum: number;
  /** What the judge's hash must stay below, before `normal`. */
  readonly strictLimit: number;
  /** The same from `normal` on. */
  readonly easyLimit: number;
};

// As int32: a constant beyond it makes Math.imul several times slower.
const SIEVE_MULTIPLIER = 0x9e3779b1 | 0;
const SIEVE_LIMIT = -0x7fc00000; // the lowest 2^22 of all int32: one in 1024
const SIEVE_STRIDE = 16; // a power of two
const JUDGE_MULTIPLIER = 0x27d4eb2f;
const FOLD_MULTIPLIER = 0x85ebca6b | 0;
const FINAL_MULTIPLIER = 0xc2b2ae35 | 0;
const BLOCK_SIZE_BYTES = 4096;
const MISS_COUNT_MAX = 32;

/** The average sizes that the rule is defined for: powers of two; below 64 KiB for tests only. */
export const AVERAGE_SIZES_BYTES: readonly number[] = Array.from(
  { length: 8 },
  (_, i) => 8192 << i,
);

/**
 * The bounds for an average. Chances per position are 1/(4·average) before 13/16 of the average and
 * 4/average after it; with minimum and maximum that makes the mean on random data 0.99 averages.
 */
export function boundsOfAverage(averageSizeBytes: number): CutBounds {
  return {
    minimum: averageSizeBytes / 4,
    normal: (averageSizeBytes / 16) * 13,
    maximum: averageSizeBytes * 4,
    strictLimit: 2 ** 40 / averageSizeBytes,
    easyLimit: 2 ** 44 / averageSizeBytes,
  };
}

/** Length of the chunk that starts at `start`, of which `available` bytes may be used. */
export function findCut(
  bytes: Uint8Array,
  range: { readonly start: number; readonly available: number },
  bounds: CutBounds,
): number {
  const { start } = range;
  const end = Math.min(range.available, bounds.maximum);
  const chunk = new DataView(bytes.buffer, bytes.byteOffset + start, end);
  const sieves = new Int32Array(SIEVE_STRIDE);
  let cut = bounds.minimum;
  while (cut < end) {
    const blockEnd = (cut | (BLOCK_SIZE_BYTES - 1)) + 1;
    const stop = Math.min(blockEnd, end);
    let missCount = 0;
    warmSieves(sieves, chunk, cut);
    let word = chunk.getInt32(cut - 5, true);
    for (; cut < stop && missCount < MISS_COUNT_MAX; cut += 1) {
      const lane = cut & (SIEVE_STRIDE - 1);
      word = (word >>> 8) | ((bytes[start + cut - 1] ?? 0) << 24);
      const sieve = (((sieves[lane] ?? 0) << 8) + Math.imul(word, SIEVE_MULTIPLIER)) | 0;
      sieves[lane] = sieve;
      if (sieve >= SIEVE_LIMIT) continue;
      if (judge(chunk, cut) < (cut < bounds.normal ? bounds.strictLimit : bounds.easyLimit)) {
        return cut;
      }
      missCount += 1;
    }
    cut = blockEnd;
  }
  return end;
}

/**
 * The sieves of the 16 positions before `position`, without the word that the next step shifts out.
 * Both the minimum and a block are multiples of the stride, so lanes count from `position`.
 */
function warmSieves(sieves: Int32Array, chunk: DataView, position: number): void {
  for (let lane = 0; lane < SIEVE_STRIDE; lane += 1) {
    const at = position + lane;
    const older = ((sieveWord(chunk, at - 52) << 8) + sieveWord(chunk, at - 36)) << 8;
    sieves[lane] = older + sieveWord(chunk, at - 20);
  }
}

function sieveWord(chunk: DataView, offset: number): number {
  return Math.imul(chunk.getInt32(offset, true), SIEVE_MULTIPLIER);
}

/** The hash of the 64 bytes before `position`, as an unsigned 32-bit number. */
function judge(chunk: DataView, position: number): number {
  let hash = judgeLane(chunk, position - 64);
  for (let lane = 1; lane < 4; lane += 1) {
    hash = (Math.imul(hash, FOLD_MULTIPLIER) + judgeLane(chunk, position - 64 + 4 * lane)) | 0;
    hash ^= hash >>> 13;
  }
  hash = Math.imul(hash, FINAL_MULTIPLIER);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** One of four independent hashes, each of every fourth word. */
function judgeLane(chunk: DataView, offset: number): number {
  let hash = 0;
  for (let at = offset; at < offset + 64; at += 16) {
    hash = Math.imul(hash ^ chunk.getInt32(at, true), JUDGE_MULTIPLIER);
    hash ^= hash >>> 15;
  }
  return hash;
}
