/**
 * Bytes and numbers that look random and are the same for the same seed on every machine: AES in
 * counter mode, because gigabytes of them are needed and it makes some a second.
 */
import { createCipheriv, createHash } from "node:crypto";
import type { Cipheriv } from "node:crypto";

const POOL_SIZE_BYTES = 64 * 1024;
const ZEROS = new Uint8Array(1024 * 1024);

/** A stream of random bytes and numbers. */
export class Seeded {
  readonly #cipher: Cipheriv;
  #pool = Buffer.alloc(0);
  #position = 0;

  constructor(seed: string) {
    const key = createHash("sha256").update(seed).digest();
    this.#cipher = createCipheriv("aes-256-ctr", key, new Uint8Array(16));
  }

  /** Random bytes: nothing compresses them. */
  bytes(sizeBytes: number): Uint8Array {
    const bytes = new Uint8Array(sizeBytes);
    for (let offset = 0; offset < sizeBytes; offset += ZEROS.length) {
      const length = Math.min(ZEROS.length, sizeBytes - offset);
      bytes.set(this.#cipher.update(ZEROS.subarray(0, length)), offset);
    }
    return bytes;
  }

  /** A whole number of 32 bits. */
  uint32(): number {
    if (this.#position + 4 > this.#pool.length) {
      this.#pool = this.#cipher.update(ZEROS.subarray(0, POOL_SIZE_BYTES));
      this.#position = 0;
    }
    this.#position += 4;
    return this.#pool.readUInt32LE(this.#position - 4);
  }

  /** A whole number from 0 to `bound` - 1. */
  below(bound: number): number {
    return Math.floor((this.uint32() / 2 ** 32) * bound);
  }

  /** A whole number from `least` to `most`. */
  between(least: number, most: number): number {
    return least + this.below(most - least + 1);
  }
}
