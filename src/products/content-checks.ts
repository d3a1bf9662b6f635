/**
 * The content checks that products name, by name. Workers load this module by its address: it must
 * pull in nothing that a worker cannot have.
 */
import type { CheckSource, ContentCheck, ContentChecks } from "../cas/write/content-check.ts";

/** By the names that products use in `VolumeSource.check`. */
export const contentChecks: ContentChecks = {
  adler32: () => new Adler32Check(),
};

/** For planes of any kind: the checks themselves, and where workers find them. */
export const checkSource: CheckSource = { checks: contentChecks, module: import.meta.url };

const BASE = 65_521;

/** Adler-32 of what is shown; the finding is the number. */
class Adler32Check implements ContentCheck {
  #sum = 1;

  update(bytes: Uint8Array): void {
    this.#sum = combineAdler32(this.#sum, Bun.hash.adler32(bytes), bytes.length);
  }

  finish(): number {
    return this.#sum;
  }
}

/**
 * Adler-32 of two pieces from those of each, `sizeBytes` being the size of the second: Bun's function
 * always begins at 1. The first sum is 1 + Σb, the second adds the first up after each byte.
 */
export function combineAdler32(first: number, second: number, sizeBytes: number): number {
  const size = sizeBytes % BASE;
  const ones = first & 0xffff;
  const sum = (ones + (second & 0xffff) + BASE - 1) % BASE;
  const sums = ((first >>> 16) + (second >>> 16) + size * (ones + BASE - 1)) % BASE;
  return ((sums << 16) | sum) >>> 0;
}
