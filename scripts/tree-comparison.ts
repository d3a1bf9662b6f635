/**
 * Compares directory trees byte by byte, with nothing of Astacus in it: types, contents (SHA-256),
 * modes, owners, times in nanoseconds, targets of symbolic links, and which files are one by hard
 * links. Paths are bytes, one char each (latin1), so that names which are not UTF-8 count too.
 */
import { createHash } from "node:crypto";
import { closeSync, lstatSync, openSync, readdirSync, readlinkSync, readSync } from "node:fs";

/** What lies at one path, as a line that says everything. */
export type TreeRecord = ReadonlyMap<string, string>;

/** Totals of a tree. */
export type TreeTotals = { files: number; directories: number; symlinks: number; bytes: number };

/** Hashes of files by inode, size and times: for a tree that is recorded again and again. */
export type KnownHashes = Map<string, string>;

/**
 * A tree as it is now; the times of its root do not count. With `known`, a file of which inode, size
 * and both times are as they were is not read again: for what is compared with, never for a copy.
 */
export function recordTree(
  root: string,
  known?: KnownHashes,
): { record: TreeRecord; totals: TreeTotals } {
  const record = new Map<string, string>();
  const totals: TreeTotals = { files: 0, directories: 0, symlinks: 0, bytes: 0 };
  const firstByInode = new Map<bigint, string>();
  const top = Buffer.from(root).toString("latin1");
  const waiting = [""];
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const whole = Buffer.from(path === "" ? top : `${top}/${path}`, "latin1");
    const stat = lstatSync(whole, { bigint: true });
    const common = `${(stat.mode & 0o7777n).toString(8)} ${stat.uid}:${stat.gid}`;
    if (stat.isDirectory()) {
      if (path !== "") record.set(path, `directory ${common} ${stat.mtimeNs}`);
      totals.directories += 1;
      for (const bytes of readdirSync(whole, { encoding: "buffer" })) {
        const name = bytes.toString("latin1");
        waiting.push(path === "" ? name : `${path}/${name}`);
      }
    } else if (stat.isSymbolicLink()) {
      totals.symlinks += 1;
      const target = readlinkSync(whole, { encoding: "buffer" }).toString("latin1");
      record.set(path, `symlink ${stat.uid}:${stat.gid} ${stat.mtimeNs} -> ${target}`);
    } else if (stat.isFile()) {
      totals.files += 1;
      totals.bytes += Number(stat.size);
      const which = `${stat.ino} ${stat.size} ${stat.mtimeNs} ${stat.ctimeNs}`;
      const hash = known?.get(which) ?? hashFile(whole);
      known?.set(which, hash);
      record.set(path, `file ${common} ${stat.mtimeNs} ${stat.size} ${hash}`);
      if (stat.nlink > 1n) noteLink(record, firstByInode, { path, inode: stat.ino });
    } else {
      record.set(path, `other ${common}`);
    }
  }
  return { record, totals };
}

/** Every difference, in words. */
export function compareTrees(before: TreeRecord, after: TreeRecord): string[] {
  const differences: string[] = [];
  for (const [path, was] of before) {
    const is = after.get(path);
    if (is === undefined) differences.push(`${path}: missing (${was})`);
    else if (is !== was) differences.push(`${path}: was ${was}, is ${is}`);
  }
  for (const [path, is] of after) if (!before.has(path)) differences.push(`${path}: new (${is})`);
  return differences;
}

/** Names of one inode are told by the smallest of them, whatever the order of the walk. */
function noteLink(
  record: Map<string, string>,
  firstByInode: Map<bigint, string>,
  link: { readonly path: string; readonly inode: bigint },
): void {
  const known = firstByInode.get(link.inode) ?? "";
  const names = [...known.split("\0").filter((name) => name !== ""), link.path].toSorted();
  firstByInode.set(link.inode, names.join("\0"));
  for (const name of names) {
    const line = record.get(name)?.replace(/ = .*$/, "") ?? "";
    record.set(name, `${line} = ${names[0]}`);
  }
}

const buffer = Buffer.alloc(1024 * 1024);

function hashFile(path: Buffer): string {
  const hash = createHash("sha256");
  const handle = openSync(path, "r");
  try {
    for (;;) {
      const length = readSync(handle, buffer, 0, buffer.length, null);
      if (length === 0) return hash.digest("hex");
      hash.update(buffer.subarray(0, length));
    }
  } finally {
    closeSync(handle);
  }
}
