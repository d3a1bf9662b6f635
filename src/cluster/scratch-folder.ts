/**
 * The place of captures: one folder for each operation, named by its id, on the file system of the
 * data. Made before a product's phase, removed when the node's lease ends; what a dead process left
 * is removed at the next start. Nothing that is not named like an operation is ever touched.
 */
import type { Clock, FileSystem } from "../base/doors.ts";
import { removeFolder } from "../base/folders.ts";
import { joinPath } from "../base/path.ts";

const OPERATION_ID = /^[0-9a-f]{32}$/;

/** Removes what operations of a dead process left. */
export async function sweepScratchFolder(
  { files, clock }: { readonly files: FileSystem; readonly clock: Clock },
  scratchFolder: string,
): Promise<void> {
  if (files.lstat(scratchFolder)?.type !== "directory") return;
  for (const name of files.readDirectory(scratchFolder)) {
    if (!OPERATION_ID.test(name)) continue;
    await removeFolder(files, joinPath(scratchFolder, name), () => clock.sleep(0));
  }
}
