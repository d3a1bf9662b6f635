/**
 * The file calls under a directory site: which of node:fs/promises it uses, and the loops around
 * them. Absence is told from other errors here.
 */
import { constants } from "node:fs";
import * as nodeFiles from "node:fs/promises";
import { getErrnoCode } from "../base/errno.ts";
import { WRITE_SIZE_BYTES_MAX } from "../base/file-system.ts";
import { forgetCached } from "../base/platform.ts";

/** The calls of node:fs/promises that a directory site makes; tests put faults in between. */
export type DirectoryFiles = Pick<
  typeof nodeFiles,
  "link" | "lstat" | "mkdir" | "open" | "readdir" | "stat" | "statfs" | "unlink"
> & {
  /** Lets the system drop the pages of a synced file; only where files are the system's. */
  readonly forgetCached?: (file: nodeFiles.FileHandle) => void;
  /**
   * Writes the front of `bytes` into a new file without a copy in the system's memory; answers how
   * many. 0 where that cannot be done: it is for others to write the rest. Not durable yet.
   */
  readonly writeDirect?: (path: string, bytes: Uint8Array) => Promise<number>;
};

/** Direct writes begin and end at multiples of a block; of all known devices this is one. */
const DIRECT_UNIT_BYTES = 4096;

/**
 * A file system without direct writes says so when the file is opened, or at the first write. A file
 * that has no name any more is written on, too: what follows notices.
 */
const DIRECT_REFUSALS = new Set([
  "EINVAL",
  "ENOTSUP",
  "EOPNOTSUPP",
  "EACCES",
  "EPERM",
  "ENOENT",
  "ESTALE",
]);

/** The system's own. */
export const realDirectoryFiles: DirectoryFiles = {
  ...nodeFiles,
  forgetCached: (file) => forgetCached(file.fd),
  writeDirect,
};

async function writeDirect(path: string, bytes: Uint8Array): Promise<number> {
  if (process.platform !== "linux") return 0;
  const end = bytes.length - (bytes.length % DIRECT_UNIT_BYTES);
  let position = 0;
  let file: nodeFiles.FileHandle | undefined;
  try {
    file = await nodeFiles.open(path, constants.O_WRONLY | constants.O_DIRECT);
    // A write that stopped short would go on between two blocks, which is for others to do.
    while (position < end && position % DIRECT_UNIT_BYTES === 0) {
      const { bytesWritten } = await file.write(bytes, position, end - position, position);
      if (bytesWritten === 0) break;
      position += bytesWritten;
    }
  } catch (thrown) {
    if (!DIRECT_REFUSALS.has(getErrnoCode(thrown) ?? "")) throw thrown;
  } finally {
    await file?.close();
  }
  return position;
}

/** Writes `bytes` from a position in them, and in the file, to their end. */
export async function writeAll(
  file: nodeFiles.FileHandle,
  bytes: Uint8Array,
  start = 0,
): Promise<void> {
  let position = start;
  while (position < bytes.length) {
    const length = Math.min(bytes.length - position, WRITE_SIZE_BYTES_MAX);
    const { bytesWritten } = await file.write(bytes, position, length, position);
    if (bytesWritten === 0)
      throw Object.assign(new Error("A write wrote nothing"), { code: "EIO" });
    position += bytesWritten;
  }
}

/** The bytes from `start` to `end`; undefined if the file ends before `end`. */
export async function readRange(
  file: nodeFiles.FileHandle,
  start: number,
  end: number,
): Promise<Uint8Array | undefined> {
  const bytes = new Uint8Array(end - start);
  let filled = 0;
  while (filled < bytes.length) {
    const { bytesRead } = await file.read(bytes, filled, bytes.length - filled, start + filled);
    if (bytesRead === 0) return undefined;
    filled += bytesRead;
  }
  return bytes;
}

/** Syncs a directory by its path. */
export async function syncPath(files: DirectoryFiles, path: string): Promise<void> {
  const directory = await files.open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** True if nothing lies at the path that was asked for. */
export function isAbsence(thrown: unknown): boolean {
  const code = getErrnoCode(thrown);
  return code === "ENOENT" || code === "ENOTDIR";
}
