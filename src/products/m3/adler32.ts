/**
 * Adler-32, M3's checksum of everything, over bytes that come in pieces. Bun computes it natively but
 * always from the beginning, so sums of pieces are combined.
 */
const BASE = 65_521;

/** A running Adler-32. */
export class Adler32 {
  #sum = 1;

  update(bytes: Uint8Array): void {
    this.#sum = combineAdler32(this.#sum, Bun.hash.adler32(bytes), bytes.length);
  }

  /** The sum of all bytes so far. */
  get value(): number {
    return this.#sum;
  }

  reset(): void {
    this.#sum = 1;
  }
}

/** Adler-32 of bytes that are there as a whole. */
export function adler32(bytes: Uint8Array): number {
  return Bun.hash.adler32(bytes);
}

/**
 * Adler-32 of two pieces from those of each, `sizeBytes` being the size of the second. The first half
 * is 1 + Σb, the second adds the first up after each byte.
 */
export function combineAdler32(first: number, second: number, sizeBytes: number): number {
  const size = sizeBytes % BASE;
  const ones = first & 0xffff;
  const sum = (ones + (second & 0xffff) + BASE - 1) % BASE;
  const sums = ((first >>> 16) + (second >>> 16) + size * (ones + BASE - 1)) % BASE;
  return ((sums << 16) | sum) >>> 0;
}
