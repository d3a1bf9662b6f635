/**
 * What the parts of one node's backup share: the doors, the places where chunks are looked up and
 * stored, and the counts that end in its report.
 */
import type { Database } from "bun:sqlite";
import type { Clock, FileSystem, Random } from "../../base/doors.ts";
import type { BackupSettings } from "./backup-settings.ts";
import { PROBLEM_COUNT_MAX } from "./backup-settings.ts";
import type { ChunkLookup } from "./chunk-lookup.ts";
import type { Claims, ForeignChunks } from "./claims.ts";
import type { DataPlane } from "./plane.ts";
import type { FrameSealing, Sealer } from "../format/seal.ts";
import type { StatCache } from "../catalog/stat-cache.ts";
import type { ChunkFetch } from "../format/tree.ts";
import type { UploadQueue } from "./upload-queue.ts";
import type { Problem } from "./volume-source.ts";

/** What a node's backup amounts to. */
export type NodeTotals = {
  files: number;
  directories: number;
  /** Sizes of all files. */
  bytes: number;
  /** Read from files; the rest was known to be unchanged. */
  readBytes: number;
  /** Raw bytes of the chunks that were sent. */
  newBytes: number;
  /** Bytes of the packs that were sent, data and metadata. */
  storedBytes: number;
  /** Chunks of all files, repeated ones too; and those that were sent. */
  chunks: number;
  newChunks: number;
  unchangedFiles: number;
};

/** How far a node's backup is. */
export type NodeProgress = {
  readonly phase: string;
  readonly files: number;
  readonly filesTotal?: number;
  readonly bytes: number;
  readonly bytesTotal?: number;
  readonly readBytes: number;
  readonly newBytes: number;
  readonly storedBytes: number;
};

/** Shared by all parts of one node's backup. */
export type BackupContext = {
  readonly doors: { readonly clock: Clock; readonly files: FileSystem; readonly random: Random };
  readonly database: Database;
  readonly settings: BackupSettings;
  readonly signal: AbortSignal | undefined;
  readonly plane: DataPlane;
  readonly lookup: ChunkLookup;
  readonly uploads: UploadQueue;
  readonly claims: Claims;
  readonly foreign: ForeignChunks;
  readonly statCache: StatCache;
  /** Stores a node of a listing; returns its id. */
  readonly putNode: (bytes: Uint8Array) => Uint8Array;
  /** Stores a node that a later backup may read again: of the chunk list of a large file. */
  readonly putOpenNode: (bytes: Uint8Array) => Uint8Array;
  readonly sealer: Sealer;
  /** In an encrypted repository: what file contents are sealed with. */
  readonly sealing: FrameSealing | undefined;
  /** Fetches a tree node that an earlier backup stored. */
  readonly fetchNode: ChunkFetch;
  /** Random id of the operation. */
  readonly operation: string;
  /** Its number in the stat cache. */
  readonly number: number;
  readonly trust: TrustedRows;
  readonly totals: NodeTotals;
  readonly problems: ProblemList;
  /** Called between records and batches: progress, and what a long operation must do meanwhile. */
  readonly tick: () => Promise<void>;
};

/** Whose word is taken for rows of the stat cache. */
export interface TrustedRows {
  /** True if a listed backup covers the rows of this operation; its list is then part of ours. */
  trusts(number: number): boolean;
}

/**
 * Problems of one backup: the first ones by name, all of them counted. Harmless ones count only where
 * they are named, so that whoever sees more than are named knows that something is missing.
 */
export class ProblemList {
  readonly #named: Problem[] = [];
  #count = 0;

  get named(): readonly Problem[] {
    return this.#named;
  }

  get count(): number {
    return this.#count;
  }

  add(problem: Problem): void {
    const isNamed = this.#named.length < PROBLEM_COUNT_MAX;
    if (isNamed) this.#named.push(problem);
    if (isNamed || problem.kind !== "unsupported") this.#count += 1;
  }
}

/** Totals of nothing. */
export function emptyTotals(): NodeTotals {
  return {
    files: 0,
    directories: 0,
    bytes: 0,
    readBytes: 0,
    newBytes: 0,
    storedBytes: 0,
    chunks: 0,
    newChunks: 0,
    unchangedFiles: 0,
  };
}
