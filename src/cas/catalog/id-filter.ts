/**
 * Says of most chunk ids that were never added that they were not, without asking SQLite: a first
 * backup asks about each of its chunks, and hardly one is there. Ids are hashes already, so that their
 * own bytes say which bits are theirs. Nothing can be taken out; who drops much makes a new filter.
 *
 * Memory: 2 to 4 bytes for each id that it is made for.
 */
import assert from "node:assert/strict";
import { SHA256_SIZE_BYTES } from "../../base/hex.ts";

/** Then one unknown id in 400 passes when the filter is full. */
const BITS_OF_ID = 16;

const WORD_BITS_LOG2 = 5;
const WORD_OFFSETS = [0, 8, 16, 24] as const;

/**
 * A set of ids that may say yes to what is not in it.
 *
 * @example
 * const filter = new IdFilter(100_000);
 * filter.add(id);
 * if (filter.mayHave(id)) row = select.get(id);
 */
export class IdFilter {
  readonly countMax: number;
  readonly #words: Uint32Array;
  readonly #mask: number;
  #count = 0;

  /** For so many ids; more make it say yes too often. */
  constructor(countMax: number) {
    assert(countMax >= 1);
    assert(countMax <= 2 ** 26);
    const bitsLog2 = Math.max(WORD_BITS_LOG2, Math.ceil(Math.log2(countMax * BITS_OF_ID)));
    this.countMax = countMax;
    this.#words = new Uint32Array(2 ** (bitsLog2 - WORD_BITS_LOG2));
    this.#mask = 2 ** bitsLog2 - 1;
  }

  /** True if it holds as many ids as it was made for. */
  get isFull(): boolean {
    return this.#count >= this.countMax;
  }

  add(id: Uint8Array): void {
    assert(id.length === SHA256_SIZE_BYTES);
    for (const offset of WORD_OFFSETS) {
      const bit = this.#bitAt(id, offset);
      this.#words[bit >>> WORD_BITS_LOG2]! |= 1 << (bit & 31);
    }
    this.#count += 1;
  }

  /** False if the id was never added. */
  mayHave(id: Uint8Array): boolean {
    for (const offset of WORD_OFFSETS) {
      const bit = this.#bitAt(id, offset);
      if ((this.#words[bit >>> WORD_BITS_LOG2]! & (1 << (bit & 31))) === 0) return false;
    }
    return true;
  }

  #bitAt(id: Uint8Array, offset: number): number {
    const low = id[offset]! | (id[offset + 1]! << 8);
    return ((low | (id[offset + 2]! << 16) | (id[offset + 3]! << 24)) & this.#mask) >>> 0;
  }
}
