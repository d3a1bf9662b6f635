/**
 * The cut rule "astacus-cdc-1" in AssemblyScript with SIMD: the fast twin of chunker-reference.ts,
 * where the rule is explained. Both must agree on every byte string; no constant may change, since
 * the cuts decide what deduplicates. `bun scripts/build-chunker.ts` compiles this into binary.ts.
 */

const SIEVE_MULTIPLIER: u32 = 0x9e3779b1;
const SIEVE_LIMIT: i32 = -0x7fc00000;
const JUDGE_MULTIPLIER: u32 = 0x27d4eb2f;
const FOLD_MULTIPLIER: u32 = 0x85ebca6b;
const FINAL_MULTIPLIER: u32 = 0xc2b2ae35;
const BLOCK_SIZE_BYTES: u32 = 4096;
const MISS_COUNT_MAX: u32 = 32;

/**
 * Length of the chunk that starts at address `start`, of `available` bytes that may be used. Reads
 * up to 16 bytes past them (never lets them count), so the memory must go on that far.
 */
export function findCut(
  start: u32,
  available: u32,
  minimum: u32,
  normal: u32,
  maximum: u32,
  strictLimit: u32,
  easyLimit: u32,
): u32 {
  const end = min(available, maximum);
  const multiplier = i32x4.splat(SIEVE_MULTIPLIER);
  const limit = i32x4.splat(SIEVE_LIMIT);
  let cut = minimum;
  while (cut < end) {
    const blockEnd = (cut | (BLOCK_SIZE_BYTES - 1)) + 1;
    const stop = min(blockEnd, end);
    let missCount: u32 = 0;
    // Lane l of the vector o is the sieve of position cut + 4·l + o, carried 16 positions at a time.
    let sieve0 = warmSieve(start + cut, multiplier);
    let sieve1 = warmSieve(start + cut + 1, multiplier);
    let sieve2 = warmSieve(start + cut + 2, multiplier);
    let sieve3 = warmSieve(start + cut + 3, multiplier);
    for (; cut < stop; cut += 16) {
      const at = start + cut;
      sieve0 = stepSieve(sieve0, at, multiplier);
      sieve1 = stepSieve(sieve1, at + 1, multiplier);
      sieve2 = stepSieve(sieve2, at + 2, multiplier);
      sieve3 = stepSieve(sieve3, at + 3, multiplier);
      const least = i32x4.min_s(i32x4.min_s(sieve0, sieve1), i32x4.min_s(sieve2, sieve3));
      if (!v128.any_true(i32x4.lt_s(least, limit))) continue;
      const kept0 = i32x4.lt_s(sieve0, limit);
      const kept1 = i32x4.lt_s(sieve1, limit);
      const kept2 = i32x4.lt_s(sieve2, limit);
      const kept3 = i32x4.lt_s(sieve3, limit);
      let kept = spread(kept0) | (spread(kept1) << 1) | (spread(kept2) << 2) | (spread(kept3) << 3);
      for (; kept != 0 && missCount < MISS_COUNT_MAX; kept &= kept - 1) {
        const position = cut + ctz(kept);
        if (position >= end) return end;
        if (judge(start + position) < (position < normal ? strictLimit : easyLimit)) {
          return position;
        }
        missCount++;
      }
      if (missCount == MISS_COUNT_MAX) break;
    }
    cut = blockEnd;
  }
  return end;
}

/** The sieves of the positions 16 before `at`, without the word that the next step shifts out. */
function warmSieve(at: u32, multiplier: v128): v128 {
  const oldest = i32x4.mul(v128.load(at - 52), multiplier);
  const middle = i32x4.mul(v128.load(at - 36), multiplier);
  const newest = i32x4.mul(v128.load(at - 20), multiplier);
  return i32x4.add(i32x4.shl(i32x4.add(i32x4.shl(oldest, 8), middle), 8), newest);
}

/** Carries four sieves on by 16 bytes. */
function stepSieve(sieve: v128, at: u32, multiplier: v128): v128 {
  return i32x4.add(i32x4.shl(sieve, 8), i32x4.mul(v128.load(at - 4), multiplier));
}

/** The four lanes of a comparison as the bits 0, 4, 8 and 12. */
function spread(kept: v128): u32 {
  const bits = <u32>i32x4.bitmask(kept);
  return (bits & 1) | ((bits & 2) << 3) | ((bits & 4) << 6) | ((bits & 8) << 9);
}

/** The hash of the 64 bytes before address `at`. */
function judge(at: u32): u32 {
  let lanes = absorb(i32x4.splat(0), at - 64);
  lanes = absorb(lanes, at - 48);
  lanes = absorb(lanes, at - 32);
  lanes = absorb(lanes, at - 16);
  let hash = <u32>i32x4.extract_lane(lanes, 0);
  hash = fold(hash, <u32>i32x4.extract_lane(lanes, 1));
  hash = fold(hash, <u32>i32x4.extract_lane(lanes, 2));
  hash = fold(hash, <u32>i32x4.extract_lane(lanes, 3));
  hash *= FINAL_MULTIPLIER;
  return hash ^ (hash >> 16);
}

function absorb(lanes: v128, at: u32): v128 {
  const mixed = i32x4.mul(v128.xor(lanes, v128.load(at)), i32x4.splat(JUDGE_MULTIPLIER));
  return v128.xor(mixed, i32x4.shr_u(mixed, 15));
}

function fold(hash: u32, lane: u32): u32 {
  const mixed = hash * FOLD_MULTIPLIER + lane;
  return mixed ^ (mixed >> 13);
}
