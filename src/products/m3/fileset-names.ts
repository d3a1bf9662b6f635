/**
 * M3's file names as typed values, and which files of a folder make a fileset. A name that M3 itself
 * would not write is no value here: callers count it, so that nothing is lost without a word.
 * Names: fs.go and files.go of M3 1.5 (`src/dbnode/persist/fs`).
 */
import { AppError } from "../../base/error.ts";

/** Parts of a data or snapshot fileset, in the order in which its digest file lists the first five. */
export const DATA_PARTS = ["info", "index", "summaries", "bloomfilter", "data"] as const;

/** The two parts that speak for the others; the checkpoint is written last. */
export const SEAL_PARTS = ["digest", "checkpoint"] as const;

/** A part of a data or snapshot fileset; index filesets have `info`, the seals, and segments. */
export type FilesetPart = (typeof DATA_PARTS)[number] | (typeof SEAL_PARTS)[number];

/** Name of one file of a fileset. */
export type FilesetName = {
  /** Nanoseconds since 1970. */
  readonly blockStartNs: bigint;
  /** Later volumes of a block replace earlier ones; 0 for legacy names, which have none. */
  readonly volume: number;
  /** True for names from before M3 had volumes: `fileset-<time>-<part>.db`. */
  readonly isLegacy: boolean;
  /** `segment` for one file of an index segment. */
  readonly part: FilesetPart | "segment";
  /** Of index filesets: which segment, and which of its files (`docdata`, `fstterms`, …). */
  readonly segment?: { readonly index: number; readonly file: string };
};

/** Name of a snapshot's metadata or of its checkpoint. */
export type SnapshotMetadataName = {
  /** 32 hex digits, without dashes. */
  readonly uuid: string;
  /** Counts up with each snapshot of the node. */
  readonly index: number;
  readonly isCheckpoint: boolean;
};

/** Name of a commit log. */
export type CommitLogName = {
  /** 0 since M3 0.8; older versions wrote the block's start, nanoseconds. */
  readonly timeNs: bigint;
  /** Counts up with each log; M3 trusts the one in the log's first entry more. */
  readonly index: number;
};

/** All files of one block and volume in one folder. */
export type Fileset = {
  readonly blockStartNs: bigint;
  readonly volume: number;
  readonly isLegacy: boolean;
  /** Names, by part; segments as `segment-<index>-<file>`. */
  readonly names: ReadonlyMap<string, string>;
};

/** The files of a folder, sorted out. */
export type FilesetFolder = {
  /** Ascending by block start and volume. */
  readonly filesets: readonly Fileset[];
  /** Names that are no file of a fileset. */
  readonly unknown: readonly string[];
};

const FILESET =
  /^fileset-(\d+)-(?:(\d+)-)?(info|index|summaries|bloomfilter|data|digest|checkpoint)\.db$/;
const SEGMENT = /^fileset-(\d+)-(\d+)-segment-(\d+)-([a-z]+)\.db$/;
const SNAPSHOT_METADATA = /^snapshot-([0-9a-f]{32})-(\d+)-metadata(-checkpoint)?\.db$/;
const COMMIT_LOG = /^commitlog-(\d+)-(\d+)\.db$/;

/** Size of a complete checkpoint file; an emptier one is none. */
export const CHECKPOINT_SIZE_BYTES = 4;

/** A file of a fileset; undefined for any other name. */
export function parseFilesetName(name: string): FilesetName | undefined {
  const match = FILESET.exec(name);
  if (match !== null) {
    const [, time = "", volume, part] = match;
    return {
      blockStartNs: BigInt(time),
      volume: Number(volume ?? 0),
      isLegacy: volume === undefined,
      part: part as FilesetPart,
    };
  }
  const [, time, volume, index, file] = SEGMENT.exec(name) ?? [];
  if (time === undefined || file === undefined) return undefined;
  return {
    blockStartNs: BigInt(time),
    volume: Number(volume),
    isLegacy: false,
    part: "segment",
    segment: { index: Number(index), file },
  };
}

/** A snapshot's metadata or its checkpoint; undefined for any other name. */
export function parseSnapshotMetadataName(name: string): SnapshotMetadataName | undefined {
  const [, uuid, index, checkpoint] = SNAPSHOT_METADATA.exec(name) ?? [];
  if (uuid === undefined) return undefined;
  return { uuid, index: safeIndex(index, name), isCheckpoint: checkpoint !== undefined };
}

/** A commit log; undefined for any other name. */
export function parseCommitLogName(name: string): CommitLogName | undefined {
  const [, time, index] = COMMIT_LOG.exec(name) ?? [];
  if (time === undefined) return undefined;
  return { timeNs: BigInt(time), index: safeIndex(index, name) };
}

/** The name of a file of a fileset, as M3 writes it. */
export function filesetFileName(of: Omit<FilesetName, "part" | "segment">, key: string): string {
  const volume = of.isLegacy ? "" : `${of.volume}-`;
  return `fileset-${of.blockStartNs}-${volume}${key}.db`;
}

/** The names of a snapshot's metadata and of its checkpoint. */
export function snapshotMetadataNames(id: { readonly uuid: string; readonly index: number }): {
  readonly metadata: string;
  readonly checkpoint: string;
} {
  const stem = `snapshot-${id.uuid.replaceAll("-", "")}-${id.index}-metadata`;
  return { metadata: `${stem}.db`, checkpoint: `${stem}-checkpoint.db` };
}

/** The name of a commit log. */
export function commitLogFileName(index: number): string {
  return `commitlog-0-${index}.db`;
}

/** `info`, …, or `segment-0-docdata`: what `Fileset.names` goes by. */
export function filesetPartKey(name: FilesetName): string {
  const { segment } = name;
  return segment === undefined ? name.part : `segment-${segment.index}-${segment.file}`;
}

/** Sorts by block start, then volume: the last of a block is the one that counts. */
export function compareFilesets(
  one: Pick<Fileset, "blockStartNs" | "volume">,
  other: Pick<Fileset, "blockStartNs" | "volume">,
): number {
  if (one.blockStartNs !== other.blockStartNs) {
    return one.blockStartNs < other.blockStartNs ? -1 : 1;
  }
  return one.volume - other.volume;
}

/** The filesets of one folder from its names, complete or not. A legacy volume 0 is one of its own. */
export function groupFilesets(names: Iterable<string>): FilesetFolder {
  const sets = new Map<string, Fileset & { readonly names: Map<string, string> }>();
  const unknown: string[] = [];
  for (const name of names) {
    const parsed = parseFilesetName(name);
    if (parsed === undefined) {
      unknown.push(name);
      continue;
    }
    const { blockStartNs, volume, isLegacy } = parsed;
    const key = `${blockStartNs}-${isLegacy ? "legacy" : volume}`;
    let set = sets.get(key);
    if (set === undefined)
      sets.set(key, (set = { blockStartNs, volume, isLegacy, names: new Map() }));
    set.names.set(filesetPartKey(parsed), name);
  }
  return { filesets: [...sets.values()].toSorted(compareFilesets), unknown };
}

/** Which parts a data or snapshot fileset lacks, by name; M3 needs all seven. */
export function missingDataParts(fileset: Pick<Fileset, "names">): string[] {
  return [...DATA_PARTS, ...SEAL_PARTS].filter((part) => !fileset.names.has(part));
}

/**
 * Which parts an index fileset lacks that every one has; its segments are named by its digest file
 * (`parseIndexDigests`).
 */
export function missingIndexParts(fileset: Pick<Fileset, "names">): string[] {
  return ["info", ...SEAL_PARTS].filter((part) => !fileset.names.has(part));
}

/** M3 counts in 64 bits; an index beyond 2^53 was never reached by counting. */
function safeIndex(text: string | undefined, name: string): number {
  const index = Number(text);
  if (Number.isSafeInteger(index)) return index;
  throw new AppError("damaged", `The name ${name} has an index that M3 cannot have given.`, {
    guidance: "Move the file out of M3's data directory; no version of M3 writes such a name.",
  });
}
