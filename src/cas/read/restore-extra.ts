/**
 * What lies below a restore's target and is not in the backup: found by walking both in the order
 * of whole paths, side by side. Captures, other file systems and what belongs to the file system
 * itself are not looked at. Memory: the names of one directory for each level.
 */
import type { FileStat, FileSystem } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { joinPath } from "../../base/path.ts";
import type { FileRecord } from "../format/listing.ts";
import { OpenPaths } from "../write/open-paths.ts";
import { readListing } from "./restore-records.ts";
import type { SelectionOptions } from "./restore-records.ts";
import { isTemporaryName } from "./restore-temporary.ts";

/** One path below the target. */
export type FoundPath = { readonly path: string; readonly stat: FileStat };

/** Where to look. */
export type ExtraOptions = Omit<SelectionOptions, "filter"> & {
  readonly files: FileSystem;
  readonly target: string;
  readonly captureFolders?: readonly string[];
  /** Lets other work go on; called after each stretch of work on the disk. */
  readonly pause?: () => Promise<void>;
  /** Told of each directory that may not be listed. */
  readonly onUnreadable?: (path: string, error: AppError) => void;
};

/** Paths that are looked at before other work of the process has its turn. */
const PAUSE_PATH_COUNT = 512;

/** What a removal tells, with absolute paths. */
export type RemovalEvents = {
  /** Names changed in a directory. */
  readonly onChanged: (directory: string) => void;
  /** A directory is gone. */
  readonly onRemoved: (directory: string) => void;
};

/** Everything below the target that the listing does not name, ascending by path. */
export async function* listExtra(
  options: ExtraOptions,
): AsyncGenerator<FoundPath, void, undefined> {
  const listing = readListing(options);
  let records: readonly FileRecord[] = [];
  let at = 0;
  let isEnded = false;
  let count = 0;
  try {
    for (const found of walkTarget(options)) {
      count += 1;
      if (count % PAUSE_PATH_COUNT === 0) await options.pause?.();
      options.signal?.throwIfAborted();
      while (!isEnded && (records[at]?.path ?? "") < found.path) {
        if (at < records.length) {
          at += 1;
          continue;
        }
        const next = await listing.next();
        isEnded = next.done === true;
        records = next.done === true ? [] : next.value;
        at = 0;
      }
      if (records[at]?.path !== found.path) yield found;
    }
  } finally {
    await listing.return();
  }
}

/** Removes what `listExtra` finds; returns how many files that were. */
export async function removeExtra(options: ExtraOptions & RemovalEvents): Promise<number> {
  const { files, target } = options;
  const directories = new OpenPaths<string>();
  let count = 0;
  for await (const { path, stat } of listExtra(options)) {
    for (const closed of directories.advance(path)) removeIfEmpty(options, closed);
    if (stat.type === "directory") {
      directories.open(path, path);
      continue;
    }
    files.unlink(joinPath(target, path));
    options.onChanged(parentOf(target, path));
    count += 1;
  }
  for (const closed of directories.end()) removeIfEmpty(options, closed);
  return count;
}

/** A directory that holds what must stay stays as well. */
function removeIfEmpty(
  options: Pick<ExtraOptions, "files" | "target"> & RemovalEvents,
  path: string,
): void {
  const absolute = joinPath(options.target, path);
  try {
    options.files.removeDirectory(absolute);
    options.onRemoved(absolute);
    options.onChanged(parentOf(options.target, path));
  } catch (thrown) {
    if (!(thrown instanceof AppError) || thrown.kind !== "conflict") throw thrown;
  }
}

/** All paths below the target in the order of listings; temporaries of restores are left out. */
function* walkTarget(options: ExtraOptions): Generator<FoundPath, void, undefined> {
  const root = options.files.lstat(options.target);
  if (root === undefined) return;
  const device = root.type === "directory" ? root.device : undefined;
  yield* walkDirectory(options, "", device);
}

function* walkDirectory(
  options: ExtraOptions,
  directory: string,
  device: bigint | undefined,
): Generator<FoundPath, void, undefined> {
  const { files, target } = options;
  const names = listNames(options, directory);
  // A directory's own place is before `a-b`, that of what it holds is behind it.
  const places = names.flatMap((name) => [name, `${name}/`]).toSorted();
  const entered = new Set<string>();
  for (const place of places) {
    if (place.endsWith("/")) {
      const name = place.slice(0, -1);
      if (entered.delete(name)) yield* walkDirectory(options, joinPath(directory, name), device);
      continue;
    }
    const path = joinPath(directory, place);
    const absolute = joinPath(target, path);
    if (options.captureFolders?.includes(absolute) === true) continue;
    const stat = files.lstat(absolute);
    if (stat === undefined || (device !== undefined && stat.device !== device)) continue;
    if (stat.type === "directory") entered.add(place);
    else if (isTemporaryName(place)) continue;
    yield { path, stat };
  }
}

function listNames(options: ExtraOptions, directory: string): string[] {
  const path = joinPath(options.target, directory);
  try {
    const names = options.files.readDirectory(path);
    return directory === "" ? names.filter((name) => name !== "lost+found") : names;
  } catch (thrown) {
    if (!(thrown instanceof AppError) || options.onUnreadable === undefined) throw thrown;
    options.onUnreadable(path, thrown);
    return [];
  }
}

function parentOf(target: string, path: string): string {
  const slash = path.lastIndexOf("/");
  return slash < 0 ? target : joinPath(target, path.slice(0, slash));
}
