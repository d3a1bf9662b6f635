/**
 * What a tree on disk looks like, as text, and what it should look like by the files that a test
 * backed up. Both are made by code that restores know nothing of.
 */
import type { FileSystem } from "../../src/base/doors.ts";
import { sha256Hex } from "../../src/base/hex.ts";
import { joinPath } from "../../src/base/path.ts";
import type { TestFile } from "./repository-builder.ts";

/** One line for each path, ascending. */
export type TreeShape = readonly string[];

/** Whether owners are compared; directories that a filter implied have no times of their own. */
export type ShapeOptions = {
  readonly withOwners?: boolean;
  readonly noTimesOf?: readonly string[];
};

/** The tree below `root`. */
export function shapeOf(files: FileSystem, root: string, options: ShapeOptions = {}): TreeShape {
  const lines: string[] = [];
  const firsts = new Map<string, string>();
  for (const path of walk(files, root, "").toSorted()) {
    const absolute = joinPath(root, path);
    const stat = files.lstat(absolute);
    if (stat === undefined) throw new Error(`${path} went away`);
    const inode = `${stat.device}:${stat.inode}`;
    const first = stat.type === "directory" ? undefined : firsts.get(inode);
    if (first !== undefined) {
      lines.push(`${path} = ${first}`);
      continue;
    }
    firsts.set(inode, path);
    const { mode, mtimeNs, uid, gid } = stat;
    const what =
      stat.type === "symlink"
        ? `-> ${files.readLink(absolute)}`
        : stat.type === "file"
          ? contentLine(readFile(files, absolute))
          : stat.type;
    const xattrs = stat.type === "symlink" ? "" : xattrLine(files.readXattrs(absolute));
    lines.push(line(path, { what, mode, mtimeNs, uid, gid, xattrs, type: stat.type }, options));
  }
  return lines;
}

/** The tree that these files make. */
export function shapeExpected(files: readonly TestFile[], options: ShapeOptions = {}): TreeShape {
  return files
    .toSorted((one, other) => (one.path < other.path ? -1 : 1))
    .map((file) => {
      if (file.hardlink !== undefined) return `${file.path} = ${file.hardlink}`;
      const type =
        file.symlink === undefined
          ? file.content === undefined
            ? "directory"
            : "file"
          : "symlink";
      const what =
        file.symlink === undefined
          ? file.content === undefined
            ? "directory"
            : contentLine(file.content)
          : `-> ${file.symlink}`;
      const attributes = {
        what,
        type,
        mode: file.mode ?? (type === "file" ? 0o644 : 0o755),
        mtimeNs: file.mtimeNs ?? 1_700_000_000_123_456_789n,
        uid: file.uid ?? 0,
        gid: file.gid ?? 0,
        xattrs: xattrLine(file.xattrs ?? new Map()),
      };
      return line(file.path, attributes, options);
    });
}

/** The bytes of a file. */
export function readFile(files: FileSystem, path: string): Uint8Array {
  const handle = files.open(path, "r");
  try {
    const bytes = new Uint8Array(files.stat(handle).sizeBytes);
    let filled = 0;
    while (filled < bytes.length) {
      const count = files.read(handle, bytes.subarray(filled), filled);
      if (count === 0) throw new Error(`${path} ends early`);
      filled += count;
    }
    return bytes;
  } finally {
    files.close(handle);
  }
}

/** Makes a file; parents must be there. */
export function writeFile(files: FileSystem, path: string, bytes: Uint8Array): void {
  const handle = files.open(path, "create");
  files.write(handle, bytes, 0);
  files.sync(handle);
  files.close(handle);
}

/** All paths below a directory. */
export function walk(files: FileSystem, root: string, directory: string): string[] {
  return files.readDirectory(joinPath(root, directory)).flatMap((name) => {
    const path = joinPath(directory, name);
    const isDirectory = files.lstat(joinPath(root, path))?.type === "directory";
    return isDirectory ? [path, ...walk(files, root, path)] : [path];
  });
}

function xattrLine(xattrs: ReadonlyMap<string, Uint8Array>): string {
  const rows = Array.from(xattrs, ([name, value]) => `${name}=${value.toHex()}`);
  return rows.toSorted((one, other) => (one < other ? -1 : 1)).join(";");
}

function contentLine(bytes: Uint8Array): string {
  return `${bytes.length} bytes ${sha256Hex(bytes).slice(0, 16)}`;
}

function line(
  path: string,
  attributes: {
    readonly what: string;
    readonly type: string;
    readonly mode: number;
    readonly mtimeNs: bigint;
    readonly uid: number;
    readonly gid: number;
    readonly xattrs: string;
  },
  options: ShapeOptions,
): string {
  const mode = attributes.type === "symlink" ? "" : ` ${attributes.mode.toString(8)}`;
  const owner = options.withOwners === true ? ` ${attributes.uid}:${attributes.gid}` : "";
  const time = options.noTimesOf?.includes(path) === true ? "" : ` ${attributes.mtimeNs}`;
  return `${path} ${attributes.what}${mode}${owner}${time} ${attributes.xattrs}`.trimEnd();
}
