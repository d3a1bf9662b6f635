/**
 * The words of a restore: what callers give, what a plan says, what a run reports. One restore is
 * about one volume of one node and one directory on this machine.
 */
import type { FileStat, FileSystem, Random } from "../../base/doors.ts";
import type { ChunkSource } from "./chunk-source.ts";
import type { FileContent, FileRecord } from "../format/listing.ts";
import { PLAIN_SEALER } from "../format/seal.ts";
import type { Sealer } from "../format/seal.ts";
import type { TreeRoot } from "../format/tree.ts";
import type { OwnerPolicy } from "./restore-attributes.ts";
import type { OpenLanes } from "./restore-lanes.ts";

/** What an archive needs of a ChunkSource. */
export type ContentSource = Pick<ChunkSource, "fetch" | "fetchMany">;

/** What a restore needs of a ChunkSource. */
export type RestoreSource = Pick<
  ChunkSource,
  "fetch" | "planRanges" | "readRange" | "concurrency"
> &
  Partial<Pick<ChunkSource, "opener" | "openings">>;

/** What makes the chunk ids of a source. */
export function sealerOf(source: Pick<RestoreSource, "opener">): Sealer {
  return source.opener?.sealer ?? PLAIN_SEALER;
}

/** Tells what an existing file holds, if that is known without reading it. */
export type KnownContents = {
  get(path: string, stat: FileStat): FileContent | undefined;
};

/** How far a restore has come: files and bytes that are in place, written or kept. */
export type RestoreProgress = { readonly files: number; readonly bytes: number };

/** What a plan and a run have in common. */
export type RestoreOptions = {
  readonly listing: TreeRoot;
  readonly source: RestoreSource;
  readonly files: FileSystem;
  /** Absolute path, a byte string. It may be a symbolic link itself; nothing below it may. */
  readonly target: string;
  /** Globs of paths; none means everything. */
  readonly filter?: readonly string[];
  readonly ownerPolicy: OwnerPolicy;
  /** Files that the backup does not hold. Never removed where only a part is restored. */
  readonly extra: "keep" | "remove";
  /** Files of a higher group appear only when all of lower groups are in place. */
  readonly restoreOrder?: (path: string) => number;
  /** Absolute folders that hold captures: no target, and nothing in them is an extra file. */
  readonly captureFolders?: readonly string[];
  readonly onProgress?: (progress: RestoreProgress) => void;
  /** Lets other work go on; called after each stretch of work on the disk. */
  readonly pause?: () => Promise<void>;
  readonly signal?: AbortSignal | undefined;
};

/** What a plan may be told besides. */
export type RestorePlanOptions = RestoreOptions & {
  /** Where chunks lie, to tell what will be fetched. */
  readonly locate?: (ids: readonly Uint8Array[]) => readonly (ChunkLocation | undefined)[];
};

/** The frame that holds a chunk. */
export type ChunkLocation = {
  readonly pack: string;
  readonly frame: number;
  readonly storedLength: number;
};

/** What a run may be told besides. */
export type RestoreRunOptions = RestoreOptions & {
  readonly random: Random;
  /** Spares reading files whose contents are known. */
  readonly known?: KnownContents;
  /** Called for each regular file when it is in place, kept ones included. */
  readonly onFile?: (record: FileRecord, stat: FileStat) => void;
  /** Where chunks are decoded, checked and written; in this thread unless told. */
  readonly openLanes?: OpenLanes;
};

/** What a restore would do. */
export type RestorePlan = {
  /** Regular files of the backup that were asked for. */
  readonly files: number;
  readonly bytes: number;
  /** Already there, by size and time; the run compares contents. */
  readonly filesKept: number;
  readonly bytesKept: number;
  readonly filesToWrite: number;
  readonly bytesToWrite: number;
  readonly directories: number;
  readonly symlinks: number;
  readonly hardlinks: number;
  /** Below the target and not in the backup. */
  readonly extraFiles: number;
  readonly extraBytes: number;
  /** Some of the extra files. */
  readonly extraSample: readonly string[];
  /** Space that must be free on the way, and what is free. */
  readonly spaceNeededBytes: number;
  readonly spaceFreeBytes: number;
  readonly isSpaceShort: boolean;
  /** Packs to read from, and bytes of their frames; without `locate` no packs and raw bytes. */
  readonly packs: number;
  readonly bytesToFetch: number;
  /** Why it cannot be done, each with what to do; empty if it can. */
  readonly refusals: readonly string[];
};

/** What a restore did. */
export type RestoreResult = {
  readonly filesWritten: number;
  readonly bytesWritten: number;
  readonly filesKept: number;
  readonly bytesKept: number;
  readonly directories: number;
  readonly symlinks: number;
  readonly hardlinks: number;
  readonly filesRemoved: number;
  /** Files and directories whose recorded owner we may not give them. */
  readonly ownersNotSet: number;
  readonly xattrsNotSet: number;
  /** Left by a restore that was killed. */
  readonly temporariesRemoved: number;
  /** Bytes of chunks that were fetched, each counted once for each window of files. */
  readonly fetchedBytes: number;
};
