/**
 * Folders as a benchmark sees them: how many bytes lie there, and whether two of them are the same,
 * byte by byte. Memory: two pieces of a file.
 */
import { closeSync, openSync, readdirSync, readSync, statSync } from "node:fs";
import { join } from "node:path";

/** Bytes and number of the plain files below a folder. */
export type TreeSize = { readonly bytes: number; readonly files: number };

const PIECE_SIZE_BYTES = 1024 * 1024;

/** Adds up a tree. */
export function measureTree(folder: string): TreeSize {
  let bytes = 0;
  let files = 0;
  for (const path of listFiles(folder)) {
    bytes += statSync(join(folder, path)).size;
    files += 1;
  }
  return { bytes, files };
}

/** Throws at the first file that differs, is missing or is too many. */
export function mustBeEqual(expected: string, actual: string): void {
  const wanted = listFiles(expected).toSorted();
  const found = listFiles(actual).toSorted();
  const missing = wanted.find((path, index) => path !== found[index]);
  if (missing !== undefined || wanted.length !== found.length) {
    throw new Error(
      `${actual} has ${found.length} files and not ${wanted.length}; see ${missing ?? "the last"}`,
    );
  }
  const left = new Uint8Array(PIECE_SIZE_BYTES);
  const right = new Uint8Array(PIECE_SIZE_BYTES);
  for (const path of wanted)
    mustBeEqualFiles(join(expected, path), join(actual, path), left, right);
}

function mustBeEqualFiles(
  expected: string,
  actual: string,
  left: Uint8Array,
  right: Uint8Array,
): void {
  const handles = [openSync(expected, "r"), openSync(actual, "r")] as const;
  try {
    for (let position = 0; ;) {
      const count = readSync(handles[0], left, 0, left.length, position);
      const other = readSync(handles[1], right, 0, right.length, position);
      const isSame =
        count === other && Buffer.compare(left.subarray(0, count), right.subarray(0, count)) === 0;
      if (!isSame) throw new Error(`${actual} differs from ${expected} after byte ${position}`);
      if (count === 0) return;
      position += count;
    }
  } finally {
    for (const handle of handles) closeSync(handle);
  }
}

function listFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1));
}

/** Reads all files once, so that they lie in the page cache: borg tells the system to forget what it has read. */
export function warmTree(folder: string): void {
  Bun.spawnSync(["sh", "-c", "find . -type f -print0 | xargs -0 cat | wc -c"], { cwd: folder });
}
