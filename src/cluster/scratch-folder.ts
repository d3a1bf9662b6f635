/**
 * The place of captures: one folder for each operation, named by its id, on the file system of the
 * data. Made before a product's phase, removed when the node's lease ends; what a dead process left
 * is removed at the next start. Nothing that is not named like an operation is ever touched.
 */
import type { FileSystem } from "../base/doors.ts";
import { joinPath, parentPath } from "../base/path.ts";

const OPERATION_ID = /^[0-9a-f]{32}$/;

/** Makes a folder and what is missing above it. */
export function makeFolders(files: FileSystem, path: string): void {
  if (path === "" || path === "/" || files.lstat(path) !== undefined) return;
  makeFolders(files, parentPath(path));
  files.makeDirectory(path);
}

/** Removes a folder with all it holds; links inside are removed, not followed. Absent is fine. */
export function removeFolder(files: FileSystem, path: string): void {
  const stat = files.lstat(path);
  if (stat === undefined) return;
  if (stat.type !== "directory") return files.unlink(path);
  for (const name of files.readDirectory(path)) removeFolder(files, joinPath(path, name));
  files.removeDirectory(path);
}

/** Removes what operations of a dead process left. */
export function sweepScratchFolder(files: FileSystem, scratchFolder: string): void {
  if (files.lstat(scratchFolder)?.type !== "directory") return;
  for (const name of files.readDirectory(scratchFolder)) {
    if (OPERATION_ID.test(name)) removeFolder(files, joinPath(scratchFolder, name));
  }
}
