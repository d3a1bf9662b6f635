/**
 * Walks a tree of files in the order of the bytes of the whole path. That is not the order of folder
 * by folder: `a-b` comes before `a/b`, so a folder's content waits until its siblings with smaller
 * names are through. Symbolic links are not followed, other file systems not entered. Memory: the
 * names of the folders between the root and the current path.
 */
import picomatch from "picomatch";
import type { FileStat, FileSystem } from "../../base/doors.ts";
import { AppError, toAppError } from "../../base/error.ts";
import { joinPath, textFromPath } from "../../base/path.ts";
import type { Problem, WalkEntry } from "./volume-source.ts";

/** What to walk. */
export type WalkOptions = {
  readonly files: FileSystem;
  /** Absolute, a byte string; itself not among the entries. */
  readonly root: string;
  /** Globs over relative paths; of what is not a folder, only what matches one is walked. */
  readonly include?: readonly string[];
  /** Globs; what matches one is left out, a folder with all it contains. */
  readonly exclude?: readonly string[];
  /** Leaves out a path and what is below it. */
  readonly skip?: (path: string) => boolean;
  /** Enters mounted file systems too. */
  readonly crossDevices?: boolean;
  readonly onProblem?: (problem: Problem) => void;
  readonly signal?: AbortSignal | undefined;
};

/** A folder that is being walked. */
type Folder = {
  /** "" for the root, else its path and a slash. */
  readonly prefix: string;
  /** Ascending. */
  readonly names: readonly string[];
  next: number;
  /** Subfolders that were met and not entered yet; the one to enter first is the last. */
  readonly waiting: string[];
};

/**
 * All paths below the root, ascending; folders before what they contain. What vanishes on the way was
 * never there; what cannot be looked at is a problem.
 *
 * @example
 * for (const { path, stat } of walkVolume({ files, root: "/data", exclude: ["lost+found"] })) …
 */
export function* walkVolume(options: WalkOptions): Generator<WalkEntry, void, undefined> {
  const { files, root, signal } = options;
  const wants = compileFilter(options);
  const device = mustLookAtRoot(files, root).device;
  const folders: Folder[] = [openFolder(options, "")];
  for (let folder = folders.at(-1); folder !== undefined; folder = folders.at(-1)) {
    signal?.throwIfAborted();
    const name = folder.names[folder.next];
    const subfolder = folder.waiting.at(-1);
    if (subfolder !== undefined && (name === undefined || `${subfolder}/` < name)) {
      folder.waiting.pop();
      folders.push(openFolder(options, `${folder.prefix}${subfolder}/`));
      continue;
    }
    if (name === undefined) {
      folders.pop();
      continue;
    }
    folder.next += 1;
    const path = folder.prefix + name;
    if (options.skip?.(path) === true) continue;
    const readPath = joinPath(root, path);
    const stat = lookAt(options, path, readPath);
    if (stat === undefined || !wants(path, stat.type === "directory")) continue;
    yield { path, stat, readPath };
    if (stat.type !== "directory") continue;
    if (stat.device === device || options.crossDevices === true) folder.waiting.push(name);
    else options.onProblem?.(otherDevice(path));
  }
}

/** What lies there is not in the backup, and nobody may believe that it is. */
function otherDevice(path: string): Problem {
  const message =
    "is another file system and was not entered; exclude it, or back it up as a root of its own";
  return { path, kind: "unreadable", message };
}

function mustLookAtRoot(files: FileSystem, root: string): FileStat {
  const stat = files.lstat(root);
  // The root itself may be a link: whoever configured it means what it leads to.
  const target = stat?.type === "symlink" ? files.lstat(joinPath(root, ".")) : stat;
  if (target?.type === "directory") return target;
  const text = textFromPath(root);
  const what = target === undefined ? "does not exist" : "is not a directory";
  throw new AppError("not-found", `${text} ${what}.`, {
    guidance: "Check the configured path, and that its file system is mounted.",
    context: { path: text },
  });
}

function openFolder(options: WalkOptions, prefix: string): Folder {
  const path = prefix.slice(0, -1);
  let names: string[] = [];
  try {
    names = options.files.readDirectory(joinPath(options.root, path)).toSorted();
  } catch (error) {
    // The root was there a moment ago; without it there is nothing to store.
    if (prefix === "") throw error;
    report(options, path, toAppError(error));
  }
  return { prefix, names, next: 0, waiting: [] };
}

function lookAt(options: WalkOptions, path: string, readPath: string): FileStat | undefined {
  try {
    return options.files.lstat(readPath);
  } catch (error) {
    report(options, path, toAppError(error));
    return undefined;
  }
}

function report(options: WalkOptions, path: string, error: AppError): void {
  if (error.kind === "not-found") return;
  if (error.kind === "internal" || error.kind === "cancelled") throw error;
  options.onProblem?.({ path, kind: "unreadable", message: error.message });
}

type Filter = (path: string, isFolder: boolean) => boolean;

/** Globs are text and match paths as text; dots are nothing special. */
function compileFilter({ include = [], exclude = [] }: WalkOptions): Filter {
  if (include.length === 0 && exclude.length === 0) return () => true;
  const isExcluded = compileGlobs(exclude);
  if (include.length === 0) return (path) => !isExcluded(textFromPath(path));
  // A glob that matches a folder means all that it holds.
  const isIncluded = compileGlobs(include.flatMap((glob) => [glob, `${cleanGlob(glob)}/**`]));
  const bases = include.map((glob) => picomatch.scan(cleanGlob(glob)).base);
  return (path, isFolder) => {
    const text = textFromPath(path);
    if (isExcluded(text)) return false;
    return isIncluded(text) || (isFolder && bases.some((base) => mayLead(text, base)));
  };
}

function compileGlobs(globs: readonly string[]): (text: string) => boolean {
  if (globs.length === 0) return () => false;
  return picomatch(globs.map(cleanGlob), { dot: true, nonegate: true });
}

/** `logs/` and `./logs` mean `logs`. */
function cleanGlob(glob: string): string {
  return glob.replace(/^\.\//, "").replace(/(?<=.)\/$/, "");
}

/** True if a folder lies above or below the fixed part of a glob. */
function mayLead(folder: string, base: string): boolean {
  if (base === "" || base === "." || folder === base) return true;
  return base.startsWith(`${folder}/`) || folder.startsWith(`${base}/`);
}
