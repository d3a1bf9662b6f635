/**
 * What a backup reads: volumes, as products describe them. A volume is a stream of paths with their
 * stats, ascending by the bytes of the whole path; where to read a file is said beside its name,
 * since a product often reads a captured link in its stead.
 */
import type { FileStat } from "../../base/doors.ts";
import type { Finding } from "./content-check.ts";

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
  /** Names the check that a file's bytes are shown to while they are read (content-check.ts). */
  readonly check?: (path: string) => string | undefined;
  /**
   * Told what the check found, once for each file that was read and is in the backup as it was read
   * then; not for files that are taken from their stat.
   */
  readonly checked?: (path: string, finding: Finding) => void;
  /**
   * What `entries` met on its way (folders that cannot be listed), and what checks found; asked once,
   * when it has ended and all is read.
   */
  readonly problems?: () => Iterable<Problem>;
};

/**
 * Something that is not in the backup as it should be. `unsupported` (a socket, a FIFO, a device)
 * does not make a backup incomplete: no product keeps data in one. `damaged` is what was stored as it
 * lies on the disk and does not match the database's own checksum; no backup trusts its stat later.
 */
export type Problem = {
  /** Relative to the volume's root, a byte string. */
  readonly path: string;
  readonly kind: "unreadable" | "vanished" | "changed" | "unsupported" | "damaged";
  readonly message: string;
};
