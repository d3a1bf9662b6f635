/**
 * The file calls under a directory site: which of node:fs/promises it uses, and the loops around
 * them. Absence is told from other errors here.
 */
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
};

/** The system's own. */
export const realDirectoryFiles: DirectoryFiles = {
  ...nodeFiles,
  forgetCached: (file) => forgetCached(file.fd),
};

/** Writes the whole of `bytes` from the start of the file. */
export async function writeAll(file: nodeFiles.FileHandle, bytes: Uint8Array): Promise<void> {
  let position = 0;
  while (position < bytes.length) {
    const length = Math.min(bytes.length - position, WRITE_SIZE_BYTES_MAX);
    const { bytesWritten } = await file.write(bytes, position, length, position);
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
