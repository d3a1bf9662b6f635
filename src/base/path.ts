/**
 * Paths as byte strings: one char per byte (latin1), so that a name which is not UTF-8 survives a
 * backup, and comparing strings compares bytes. Text is turned into a path at the edges
 * (configuration, command line) and back only for people to read.
 */

// oxlint-disable-next-line no-control-regex -- the range is the whole of ASCII
const ASCII = /^[\x00-\x7f]*$/;

/** A text (UTF-16) as a path: its UTF-8 bytes, one per char. */
export function pathFromText(text: string): string {
  return ASCII.test(text) ? text : Buffer.from(text, "utf8").toString("latin1");
}

/** A path for people: decoded as UTF-8, with U+FFFD where it is not. */
export function textFromPath(path: string): string {
  return ASCII.test(path) ? path : Buffer.from(path, "latin1").toString("utf8");
}

/** What node:fs wants: the string itself for ASCII, else the bytes. */
export function nativePath(path: string): string | Buffer {
  return ASCII.test(path) ? path : Buffer.from(path, "latin1");
}

/** Joins with one slash; an empty part adds nothing. */
export function joinPath(parent: string, child: string): string {
  if (parent === "") return child;
  if (child === "") return parent;
  return parent.endsWith("/") ? parent + child : `${parent}/${child}`;
}

/** The directory part; "" for a bare name, "/" for a child of the root. */
export function parentPath(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash < 0 ? "" : slash === 0 ? "/" : path.slice(0, slash);
}

/**
 * True if a relative path stays below its root: no empty, `.` or `..` part, not absolute, no NUL.
 * Everything that comes out of a repository passes here before it touches a disk.
 */
export function isSafeRelativePath(path: string): boolean {
  if (path === "" || path.includes("\0")) return false;
  return path.split("/").every((part) => part !== "" && part !== "." && part !== "..");
}
