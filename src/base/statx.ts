/**
 * The structure that statx(2) of Linux fills, read into what we keep of it. `node:fs` makes some thirty
 * objects of each file that is looked at, nearly all of them garbage at once, and a backup looks at
 * millions. Layout: include/uapi/linux/stat.h, the same on x64 and arm64.
 */
import type { FileStat, FileType } from "./doors.ts";

export const STATX_SIZE_BYTES = 256;

/** STATX_BASIC_STATS and STATX_BTIME. */
export const STATX_WANTED = 0xfff;
const STATX_BTIME = 0x800;

/** Where fields lie, in words of 32 bits. */
const WORD = {
  mask: 0,
  linkCount: 4,
  uid: 5,
  gid: 6,
  size: 10,
  blocks: 12,
  birthtime: 20,
  ctime: 24,
  mtime: 28,
  deviceMajor: 34,
  deviceMinor: 35,
} as const;
/** In halves of a word, and in double words. */
const MODE_HALF = 14;
const INODE_DOUBLE = 4;

/** What `st_blocks` counts, whatever the file system's own blocks are. */
export const STAT_BLOCK_SIZE_BYTES = 512;
const WORD_RANGE = 2 ** 32;
const HALF_RANGE = 2 ** 16;
const SECOND_NS = 1e9;

const TYPE_MASK = 0o170000;
const TYPES: Readonly<Record<number, FileType>> = {
  0o100000: "file",
  0o040000: "directory",
  0o120000: "symlink",
};

/** A buffer for the call, and its reader. One for each thread. */
export class StatxBuffer {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #halves: Uint16Array;
  readonly #words: Uint32Array;
  readonly #doubles: BigUint64Array;
  /** A number of 64 bits on its way from two halves to one. */
  readonly #pair = new Uint32Array(2);
  readonly #whole = new BigUint64Array(this.#pair.buffer);
  #device: { readonly major: number; readonly minor: number; readonly number: bigint } | undefined;

  constructor() {
    const memory = new ArrayBuffer(STATX_SIZE_BYTES);
    this.bytes = new Uint8Array(memory);
    this.#halves = new Uint16Array(memory);
    this.#words = new Uint32Array(memory);
    this.#doubles = new BigUint64Array(memory);
  }

  /** What lies in the buffer. */
  read(): FileStat {
    const words = this.#words;
    const mode = this.#halves[MODE_HALF]!;
    const hasBirthtime = (words[WORD.mask]! & STATX_BTIME) !== 0;
    return {
      type: TYPES[mode & TYPE_MASK] ?? "other",
      sizeBytes: this.#number(WORD.size),
      mtimeNs: this.#time(WORD.mtime),
      ctimeNs: this.#time(WORD.ctime),
      birthtimeNs: hasBirthtime ? this.#time(WORD.birthtime) : 0n,
      mode: mode & 0o7777,
      uid: words[WORD.uid]!,
      gid: words[WORD.gid]!,
      inode: this.#doubles[INODE_DOUBLE]!,
      device: this.#deviceNumber(words[WORD.deviceMajor]!, words[WORD.deviceMinor]!),
      linkCount: words[WORD.linkCount]!,
      allocatedBytes: this.#number(WORD.blocks) * STAT_BLOCK_SIZE_BYTES,
    };
  }

  #number(word: number): number {
    return this.#words[word]! + this.#words[word + 1]! * WORD_RANGE;
  }

  /** Seconds in 64 bits with a sign, then nanoseconds in 32, as nanoseconds. */
  #time(word: number): bigint {
    const low = this.#words[word]!;
    const high = this.#words[word + 1]!;
    const nanoseconds = this.#words[word + 2]!;
    if (high !== 0) {
      const seconds = BigInt.asIntN(64, (BigInt(high) << 32n) | BigInt(low));
      return seconds * BigInt(SECOND_NS) + BigInt(nanoseconds);
    }
    // 1970 to 2106 by halves of the seconds, in numbers that stay exact: one BigInt instead of five.
    const upper = Math.floor(low / HALF_RANGE) * SECOND_NS;
    const lower = (low % HALF_RANGE) * SECOND_NS + nanoseconds;
    const sum = (upper % HALF_RANGE) * HALF_RANGE + (lower % WORD_RANGE);
    this.#pair[0] = sum % WORD_RANGE;
    this.#pair[1] =
      Math.floor(upper / HALF_RANGE) +
      Math.floor(lower / WORD_RANGE) +
      Math.floor(sum / WORD_RANGE);
    return this.#whole[0]!;
  }

  /** As libc's `makedev` puts the halves together, so that it is what `st_dev` says. */
  #deviceNumber(major: number, minor: number): bigint {
    const known = this.#device;
    if (known !== undefined && known.major === major && known.minor === minor) return known.number;
    const [high, low] = [BigInt(major), BigInt(minor)];
    const number =
      ((high & 0xffff_f000n) << 32n) |
      ((high & 0xfffn) << 8n) |
      ((low & 0xffff_ff00n) << 12n) |
      (low & 0xffn);
    this.#device = { major, minor, number };
    return number;
  }
}
