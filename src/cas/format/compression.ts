/**
 * Decides whether compressing pays, and how hard to try. Samples of a chunk are compressed first: what
 * hardly shrinks is stored as it is, which costs neither zstd time now nor at restore, nor a second
 * hash. The chunks of a file resemble each other, so what was found out for one serves for some that
 * follow it. The rules and the figures behind them are in docs/decisions.md ("Frames and compression").
 */
import { compressedSizeMax, compressZstdInto } from "./zstd-context.ts";

/** How hard to compress. */
export type Compression = {
  /** The level of zstd for chunks that have a frame of their own, 1 to 19. */
  readonly level: number;
};

/** A chunk of this size gains nothing from sharing a frame, and is read back faster alone. */
export const OWN_FRAME_BYTES_MIN = 64 * 1024;

/** The level of shared frames at least: small files have much in common, and are few bytes. */
const SHARED_LEVEL_MIN = 3;

const SAMPLE_LEVEL = 1;

/**
 * zstd's level that leaves literals as they are, which spares the dearest part on both ways. It is taken
 * in place of level 1 where a sample hardly grows by it: then matches do nearly all the work.
 */
const MATCHES_LEVEL = -1;
const MATCHES_GROWTH_MAX = 1.05;
/** A chunk that shrinks so much less than its sample is of other data than the sample. */
const MATCHES_SURPRISE_MAX = 1.1;

/**
 * Start, then middle: the first that shrinks decides, so what compresses costs the shorter one. The
 * longer one sees what repeats after a page.
 */
const SAMPLES = [
  { place: 0, sizeBytes: 4 * 1024 },
  { place: 0.5, sizeBytes: 12 * 1024 },
] as const;

/** Where samples are compressed to; what comes out is of no use. */
const sampleTarget = new Uint8Array(
  Math.max(...SAMPLES.map(({ sizeBytes }) => compressedSizeMax(sizeBytes))),
);

/** A sample that shrinks below this share of itself says that compressing pays. */
const SAMPLE_SHARE_MAX = 0.92;

/** A frame is stored compressed only if it shrinks below this: each restore pays for it. */
const FRAME_SHARE_MAX = 0.92;

/** The level for a frame of several small chunks. */
export function sharedLevelOf(compression: Compression): number {
  return Math.max(compression.level, SHARED_LEVEL_MIN);
}

/** False if samples from the middle and the start both say that the bytes would not shrink. */
export function looksCompressible(bytes: Uint8Array): boolean {
  return findShrinking(bytes) !== undefined;
}

/** How to compress a chunk: one that comes out larger is compressed at the configured level instead. */
export type LevelChoice = { readonly level: number; readonly sizeBytesMax: number };

/** Chunks of a file that are treated like the one before them, in a row. */
const FOLLOWERS_MAX = 7;
/** A chunk whose share is so many times that of the first, or so many times less, is of other data. */
const FOLLOWER_SHARE_RATIO_MAX = 1.1;
/** Of a chunk that follows one that would not shrink, so much of its middle is looked at. */
const FOLLOWER_SAMPLE_BYTES = 4 * 1024;

/** How the chunk was stored that began a row of followers; no level: as it is. */
type Leader = { readonly level: number | undefined; readonly share: number };

/**
 * Chooses for chunks with frames of their own, one after the other.
 *
 * @example
 * chooser.begin();
 * const choice = chooser.choose(bytes);
 * // … compresses …
 * chooser.took(level, compressedBytes / bytes.length);
 */
export class LevelChooser {
  readonly #compression: Compression;
  #leader: Leader | undefined;
  #followerCount = 0;

  constructor(compression: Compression) {
    this.#compression = compression;
  }

  /** The next chunk is of another file. */
  begin(): void {
    this.#leader = undefined;
  }

  /** Undefined for a chunk that looks as if it would not shrink. */
  choose(bytes: Uint8Array): LevelChoice | undefined {
    const leader = this.#followerCount < FOLLOWERS_MAX ? this.#leader : undefined;
    if (leader !== undefined && !(leader.level === undefined && shrinksInside(bytes))) {
      this.#followerCount += 1;
      return leader.level === undefined ? undefined : follow(leader, leader.level, bytes);
    }
    this.#followerCount = 0;
    const choice = chooseLevel(bytes, this.#compression);
    this.#leader = choice === undefined ? { level: undefined, share: 1 } : undefined;
    return choice;
  }

  /** How a chunk was compressed that was to be, and to what share of itself. */
  took(level: number, share: number): void {
    const isLeader = this.#followerCount === 0;
    const { level: before, share: expected } = this.#leader ?? { level, share };
    const isAlike =
      level === before &&
      share < FRAME_SHARE_MAX &&
      share <= FOLLOWER_SHARE_RATIO_MAX * expected &&
      expected <= FOLLOWER_SHARE_RATIO_MAX * share;
    if (!isAlike) this.#leader = undefined;
    else if (isLeader) this.#leader = { level, share };
  }
}

function follow({ share }: Leader, level: number, bytes: Uint8Array): LevelChoice {
  const isMatches = level === MATCHES_LEVEL;
  return {
    level,
    sizeBytesMax: isMatches ? MATCHES_SURPRISE_MAX * share * bytes.length : Infinity,
  };
}

function shrinksInside(bytes: Uint8Array): boolean {
  const start = Math.max(0, Math.floor((bytes.length - FOLLOWER_SAMPLE_BYTES) / 2));
  const sample = bytes.subarray(start, start + FOLLOWER_SAMPLE_BYTES);
  return compressZstdInto(sampleTarget, sample, SAMPLE_LEVEL) < SAMPLE_SHARE_MAX * sample.length;
}

function chooseLevel(bytes: Uint8Array, { level }: Compression): LevelChoice | undefined {
  const found = findShrinking(bytes);
  if (found === undefined) return undefined;
  const configured = { level, sizeBytesMax: Infinity };
  if (level !== SAMPLE_LEVEL) return configured;
  const { sample, compressedBytes } = found;
  const matchesBytes = compressZstdInto(sampleTarget, sample, MATCHES_LEVEL);
  if (matchesBytes > MATCHES_GROWTH_MAX * compressedBytes) return configured;
  const share = (MATCHES_SURPRISE_MAX * matchesBytes) / sample.length;
  return { level: MATCHES_LEVEL, sizeBytesMax: share * bytes.length };
}

type Shrinking = { readonly sample: Uint8Array; readonly compressedBytes: number };

/** The first sample that shrinks, and to what. */
function findShrinking(bytes: Uint8Array): Shrinking | undefined {
  for (const { place, sizeBytes } of SAMPLES) {
    const start = Math.max(0, Math.floor((bytes.length - sizeBytes) * place));
    const sample = bytes.subarray(start, start + sizeBytes);
    const compressedBytes = compressZstdInto(sampleTarget, sample, SAMPLE_LEVEL);
    if (compressedBytes < SAMPLE_SHARE_MAX * sample.length) return { sample, compressedBytes };
  }
  return undefined;
}

/** True if a compressed frame is so much smaller that it is worth decompressing at restore. */
export function isCompressedEnough(rawBytes: number, storedBytes: number): boolean {
  return storedBytes < FRAME_SHARE_MAX * rawBytes;
}
