/**
 * Which paths of a backup somebody asked for. A glob that matches a directory means all that it
 * holds, as people expect of a name that they copied from a listing; a glob with a leading `!`
 * takes away. No glob at all means everything.
 */
import picomatch from "picomatch";
import { AppError } from "../../base/error.ts";
import { parentPath, pathFromText } from "../../base/path.ts";

/** True for a path (relative, a byte string) that was asked for. */
export type PathFilter = (path: string) => boolean;

/** The filter that lets everything through; compare with it to know that nothing is left out. */
export const everyPath: PathFilter = () => true;

/**
 * A filter from globs as people type them.
 *
 * @example
 * const filter = compileFilter(["keyspace1/**", "!**\/*.tmp"]);
 */
export function compileFilter(globs: readonly string[] | undefined): PathFilter {
  if (globs === undefined || globs.length === 0) return everyPath;
  const excluded = globs.filter((glob) => glob.startsWith("!")).map((glob) => glob.slice(1));
  const included = globs.filter((glob) => !glob.startsWith("!"));
  const isExcluded = excluded.length === 0 ? () => false : matcher(excluded);
  const isIncluded = included.length === 0 ? everyPath : matcher(included);
  return (path) => isIncluded(path) && !isExcluded(path);
}

/** Why a restore is refused whose globs match nothing in all that it would look at. */
export function nothingMatches(globs: readonly string[]): string {
  const shown = globs.map((glob) => `\`${glob}\``).join(", ");
  return `nothing in the backup matches ${shown}; globs are relative to the root of a volume`;
}

/** Matches a path by itself or by a directory above it. */
function matcher(globs: readonly string[]): PathFilter {
  const matches = picomatch(globs.map(normalized), { dot: true, nonegate: true });
  let lastParent = "";
  let isLastParentIn = false;
  return (path) => {
    const parent = parentPath(path);
    if (parent !== lastParent) {
      lastParent = parent;
      isLastParentIn = ancestors(path).some((ancestor) => matches(ancestor));
    }
    return isLastParentIn || matches(path);
  };
}

/** `a/b`, `a` for `a/b/c`. */
function ancestors(path: string): string[] {
  const found: string[] = [];
  for (let parent = parentPath(path); parent !== ""; parent = parentPath(parent)) {
    found.push(parent);
  }
  return found;
}

/** As paths of listings are: bytes, relative, no slash at the end. */
function normalized(glob: string): string {
  const path = pathFromText(glob).replace(/^(?:\.?\/)+/, "");
  const bare = path.replace(/\/+$/, "");
  if (bare !== "") return bare;
  throw new AppError("usage", `\`${glob}\` names no file of a backup.`, {
    guidance: "Give paths or globs relative to the volume's root, as `astacus show` prints them.",
  });
}
