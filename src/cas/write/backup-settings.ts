/**
 * The settings of the write path, and the limits that are not worth a setting. Memory follows from
 * them: a plane holds two buffers of a batch, one open pack and its frame; sealed packs wait for at
 * most `uploadsMax` transfers and the batches in flight.
 */
import assert from "node:assert/strict";
import {
  FRAME_RAW_BYTES_MAX,
  FRAME_SIZE_BYTES_DEFAULT,
  PACK_SIZE_BYTES_MAX,
} from "../format/pack.ts";

/** How a node backs up. */
export type BackupSettings = {
  /** Threads that read, hash and compress; 0 does it in this thread. */
  readonly workers: number;
  readonly packSizeBytes: number;
  readonly frameSizeBytes: number;
  readonly compressionLevel: number;
  /** A `keep` is committed when so much was sent since the last one. */
  readonly keepEveryBytes: number;
  /** And when so many chunks were; `KEEP_EVERY_CHUNK_COUNT` unless said otherwise. */
  readonly keepEveryChunks?: number;
  /** Each so many-th backup trusts no earlier list, so that lists shrink again; 0 for never. */
  readonly lookUpEvery: number;
  /** Share of unchanged files that is read anyway, 0 to 1. */
  readonly rereadShare: number;
  /** Packs on their way to the site at once. */
  readonly uploadsMax: number;
  /** Data that a plane reads before its chunks are looked up. */
  readonly batchSizeBytes: number;
  /** A stat tells that a file is unchanged if it was taken so long after the last change. */
  readonly racyMs?: number;
  /** A mirror that is slower with a pack is left out of the backup. */
  readonly mirrorPatienceMs?: number;
};

/** Unless configured. */
export const BACKUP_SETTINGS_DEFAULT: BackupSettings = {
  workers: 2,
  packSizeBytes: 8 * 1024 * 1024,
  frameSizeBytes: FRAME_SIZE_BYTES_DEFAULT,
  compressionLevel: 1,
  keepEveryBytes: 8 * 1024 ** 3,
  lookUpEvery: 8,
  rereadShare: 0,
  uploadsMax: 2,
  batchSizeBytes: 4 * 1024 * 1024,
};

/** Coarser clocks than this were never met on a file system (FAT has two seconds). */
export const RACY_MS_DEFAULT = 2000;

/** Files in one batch at most, so that a batch of tiny files stays small. */
export const BATCH_FILE_COUNT_MAX = 256;

/** Batches of a worker between scan and store: the second hides the look-up of the first. */
export const BATCHES_IN_FLIGHT = 2;

/** Entries of a volume between the walk and the listing. */
export const WINDOW_ENTRY_COUNT_MAX = 4096;

/** Files that wait to be read at most. */
export const READ_QUEUE_COUNT_MAX = 1024;

/** Reads of a file that changes under us, the first included. */
export const READ_ATTEMPTS_MAX = 3;

/** Problems that a report names; the rest is counted. */
export const PROBLEM_COUNT_MAX = 1000;

/** Chunks of a segment of one node, which bounds the memory that encoding takes. */
export const SEGMENT_CHUNK_COUNT = 20_000;

/**
 * A `keep` is committed after so many chunks, too, however small they are: until then they lie in
 * the journal's tables, where each is a page to read and to write when they are millions.
 */
export const KEEP_EVERY_CHUNK_COUNT = 500_000;

/** How long `settle` waits for chunks that other nodes send, and between two questions. */
export const SETTLE_WAIT_MS_MAX = 15 * 60 * 1000;
export const SETTLE_PAUSE_MS = 100;
export const SETTLE_PAUSE_MS_MAX = 5000;

assert(BACKUP_SETTINGS_DEFAULT.packSizeBytes <= PACK_SIZE_BYTES_MAX);
assert(BACKUP_SETTINGS_DEFAULT.frameSizeBytes <= FRAME_RAW_BYTES_MAX / 2);
assert(READ_ATTEMPTS_MAX >= 2);
