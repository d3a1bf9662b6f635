/**
 * Folders and small files as wholes, over any file system.
 */
import type { FileSystem } from "./doors.ts";
import { joinPath, parentPath } from "./path.ts";

/** Makes a folder and what is missing above it; what is there keeps its mode. */
export function makeFolders(files: FileSystem, path: string, mode?: number): void {
  if (path === "" || path === "/" || files.lstat(path) !== undefined) return;
  makeFolders(files, parentPath(path), mode);
  files.makeDirectory(path, mode);
}

/** Files that are removed before other work of the process has its turn: some 10 ms. */
const REMOVED_COUNT = 1000;

/**
 * Removes a folder with all it holds; links inside are removed, not followed. Absent is fine.
 * @param pause - Lets other work of the process have its turn: a capture may hold millions of links.
 */
export async function removeFolder(
  files: FileSystem,
  path: string,
  pause: () => Promise<void>,
): Promise<void> {
  let count = 0;
  const remove = async (place: string): Promise<void> => {
    count += 1;
    if (count % REMOVED_COUNT === 0) await pause();
    if (removeFile(files, place)) return;
    for (const name of files.readDirectory(place)) await remove(joinPath(place, name));
    files.removeDirectory(place);
  };
  await remove(path);
}

/** False for a folder. Nearly all are files, so nobody asks before. */
function removeFile(files: FileSystem, path: string): boolean {
  try {
    files.unlink(path);
    return true;
  } catch (thrown) {
    const stat = files.lstat(path);
    if (stat === undefined) return true;
    if (stat.type === "directory") return false;
    throw thrown;
  }
}

/**
 * Puts a small file in place by rename, durably; works again after a crash at any point. Owner and
 * mode of `like` are set before it appears.
 */
export function replaceFile(
  files: FileSystem,
  path: string,
  bytes: Uint8Array,
  options: {
    readonly temporary?: string;
    readonly like?: { readonly uid: number; readonly gid: number; readonly mode: number };
  } = {},
): void {
  const { temporary = `${path}.new`, like } = options;
  if (files.lstat(temporary) !== undefined) files.unlink(temporary);
  const handle = files.open(temporary, "create");
  try {
    files.write(handle, bytes, 0);
    files.sync(handle);
  } finally {
    files.close(handle);
  }
  if (like !== undefined) {
    files.setOwner(temporary, like.uid, like.gid);
    files.setMode(temporary, like.mode);
  }
  files.rename(temporary, path);
  files.syncDirectory(parentPath(path));
}
