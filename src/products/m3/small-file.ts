/** Files of M3 that are small by nature (digests, checkpoints, metadata), read as a whole. */
import type { FileSystem } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { textFromPath } from "../../base/path.ts";

/** Far above what M3 writes: an index fileset of 1,000 segments has a digest file of 100 KB. */
export const SMALL_FILE_SIZE_BYTES_MAX = 8 * 1024 * 1024;

/**
 * All bytes of a file.
 * @throws AppError `damaged` if it is larger than any such file can be; `not-found` as the door does.
 */
export function readSmallFile(files: FileSystem, path: string): Uint8Array {
  const handle = files.open(path, "r");
  try {
    const { sizeBytes } = files.stat(handle);
    if (sizeBytes > SMALL_FILE_SIZE_BYTES_MAX) throw tooLarge(path, sizeBytes);
    const bytes = new Uint8Array(sizeBytes);
    let filled = 0;
    while (filled < sizeBytes) {
      const count = files.read(handle, bytes.subarray(filled), filled);
      if (count === 0) break;
      filled += count;
    }
    return bytes.subarray(0, filled);
  } finally {
    files.close(handle);
  }
}

function tooLarge(path: string, sizeBytes: number): AppError {
  return new AppError(
    "damaged",
    `${textFromPath(path)} has ${sizeBytes} bytes; M3 writes no such file of that size.`,
    { guidance: "Check the node's disk; if the file is M3's, M3 can tell what it is." },
  );
}
