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
/** 128 MiB, for 67 million ids: beyond that more and more unknown ids pass. */
const BITS_LOG2_MAX = 30;
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
  /** Each for twice as many ids as the one before: nothing is ever entered again. */
  readonly #layers: Layer[];

  /** For so many ids at first. */
  constructor(countMin: number) {
    assert(countMin >= 1);
    this.#layers = [openLayer(countMin)];
  }

  add(id: Uint8Array): void {
    assert(id.length === SHA256_SIZE_BYTES);
    let layer = this.#layers.at(-1)!;
    if (layer.count >= layer.countMax) {
      layer = openLayer(2 * layer.countMax);
      this.#layers.push(layer);
    }
    layer.count += 1;
    for (const offset of WORD_OFFSETS) {
      const bit = wordAt(id, offset) & layer.mask;
      layer.words[bit >>> WORD_BITS_LOG2]! |= 1 << (bit & 31);
    }
  }

  /** False if the id was never added. */
  mayHave(id: Uint8Array): boolean {
    return this.#layers.some(({ words, mask }) =>
      WORD_OFFSETS.every((offset) => {
        const bit = wordAt(id, offset) & mask;
        return (words[bit >>> WORD_BITS_LOG2]! & (1 << (bit & 31))) !== 0;
      }),
    );
  }
}

type Layer = {
  readonly countMax: number;
  readonly words: Uint32Array;
  readonly mask: number;
  count: number;
};

function openLayer(countMax: number): Layer {
  const bitsLog2 = Math.min(BITS_LOG2_MAX, Math.ceil(Math.log2(countMax * BITS_OF_ID)));
  const words = new Uint32Array(2 ** Math.max(0, bitsLog2 - WORD_BITS_LOG2));
  return { countMax, words, mask: 32 * words.length - 1, count: 0 };
}

function wordAt(id: Uint8Array, offset: number): number {
  const low = id[offset]! | (id[offset + 1]! << 8);
  return low | (id[offset + 2]! << 16) | (id[offset + 3]! << 24);
}
