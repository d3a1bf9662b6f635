/**
 * What a backup reads: volumes, as products describe them. A volume is a stream of paths with their
 * stats, ascending by the bytes of the whole path; where to read a file is said beside its name,
 * since a product often reads a captured link in its stead.
 */
import type { FileStat } from "../../base/doors.ts";

/** One path of a volume. */
export type WalkEntry = {
  /** Relative to the volume's root, a byte string. */
  readonly path: string;
  /** Taken before the backup reads; of `readPath`, which is the same inode. */
  readonly stat: FileStat;
  /** Absolute path to read: a captured link, or the file itself. */
  readonly readPath: string;
  /** Of append-only files: how much of it belongs to the backup. */
  readonly sizeBytesCaptured?: number;
};

/** How the contents of a file may change while it keeps its name. */
export type FileNature = "plain" | "immutable" | "append-only";

/** One volume of a node. */
export type VolumeSource = {
  readonly name: string;
  /** Recorded in the manifest. */
  readonly root: string;
  /** Ascending by the bytes of `path`, directories included and before what they contain. */
  readonly entries: Iterable<WalkEntry>;
  readonly nature: (path: string) => FileNature;
  /** True where nobody makes or removes hard links: then a new ctime means a changed file. */
  readonly ctimeCounts: boolean;
  /** What an unreadable file does: a problem in the report, or the end of the backup. */
  readonly onUnreadable: "incomplete" | "fail";
  /** What `entries` met on its way (folders that cannot be listed); asked once, when it has ended. */
  readonly problems?: () => Iterable<Problem>;
};

/**
 * Something that is not in the backup as it should be. `unsupported` (a socket, a FIFO, a device)
 * does not make a backup incomplete: no product keeps data in one.
 */
export type Problem = {
  /** Relative to the volume's root, a byte string. */
  readonly path: string;
  readonly kind: "unreadable" | "vanished" | "changed" | "unsupported";
  readonly message: string;
};
