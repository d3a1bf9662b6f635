/**
 * The data of simulated nodes: trees of small files that grow, shrink and are shared between nodes,
 * with links, holes, attributes and logs among them, and how to read a whole tree back, as one value
 * that can be compared.
 */
import type { FileStat, FileSystem, Random } from "../../src/base/doors.ts";
import { sha256Hex } from "../../src/base/hex.ts";
import { joinPath, parentPath } from "../../src/base/path.ts";

/** A tree: type, mode, time, attributes and content of each path. */
export type Tree = ReadonlyMap<string, string>;

/** The last one is not UTF-8. */
const NAMES = ["a", "b", "c", "d-e", "f/g", "f/h", "f/i j", "k/l/m", "k/n", "o", "p\xff/q"];
const LOGS = ["logs/1", "logs/2"];
const SIZE_BYTES_MAX = 60_000;

/** Everything below a folder. Hard links are told by their first name, where `withLinks` says so. */
export function readTree(files: FileSystem, root: string, withLinks = true): Tree {
  const tree = new Map<string, string>();
  const firstNames = new Map<bigint, string>();
  const describe = (path: string, name: string, stat: FileStat): string => {
    const { type, mode, uid, gid } = stat;
    if (type === "symlink") return `${type} ${files.readLink(path)}`;
    const attributes = [...files.readXattrs(path)].map(
      ([key, value]) => ` ${key}=${Buffer.from(value).toString("latin1")}`,
    );
    const shown = `${type} ${mode.toString(8)} ${uid}:${gid}${attributes.toSorted().join("")}`;
    if (type !== "file") return shown;
    const first = firstNames.get(stat.inode) ?? name;
    firstNames.set(stat.inode, first);
    const link = withLinks && first !== name ? ` is ${first}` : "";
    return `${shown} ${stat.mtimeNs} ${sha256Hex(readFile(files, path))}${link}`;
  };
  const visit = (folder: string, prefix: string): void => {
    for (const name of files.readDirectory(folder).toSorted()) {
      const path = joinPath(folder, name);
      const stat = files.lstat(path);
      if (stat === undefined) continue;
      tree.set(prefix + name, describe(path, prefix + name, stat));
      if (stat.type === "directory") visit(path, `${prefix}${name}/`);
    }
  };
  visit(root, "");
  return tree;
}

/** The paths in which two trees differ. */
export function differences(wanted: Tree, found: Tree): string[] {
  const paths = new Set([...wanted.keys(), ...found.keys()]);
  return [...paths]
    .filter((path) => wanted.get(path) !== found.get(path))
    .map(
      (path) => `${path}: ${wanted.get(path) ?? "nothing"} became ${found.get(path) ?? "nothing"}`,
    );
}

/** Changes a few files below a root: makes, writes over, appends to, links, marks and removes them. */
export function changeFiles(files: FileSystem, root: string, random: Random): void {
  for (let count = 1 + draw(random, 6); count > 0; count -= 1) {
    if (random.fraction() < 0.2) growLog(files, joinPath(root, pick(LOGS, random)), random);
    else changeFile(files, root, random);
  }
}

function changeFile(files: FileSystem, root: string, random: Random): void {
  const path = joinPath(root, pick(NAMES, random));
  makeParents(files, root, path);
  const stat = files.lstat(path);
  const fate = random.fraction();
  if (stat === undefined) return create(files, root, path, random);
  if (stat.type !== "file" || fate < 0.25) return files.unlink(path);
  if (fate < 0.55) return append(files, path, content(random).subarray(0, 3000));
  if (fate < 0.65) return files.setMode(path, pick([0o600, 0o644, 0o751], random));
  if (fate < 0.72) return files.setXattr(path, "user.kind", content(random).subarray(0, 40));
  if (fate < 0.78) return files.setOwner(path, draw(random, 3), draw(random, 3));
  files.unlink(path);
  create(files, root, path, random);
}

/** A file in most cases, else a link of either kind. */
function create(files: FileSystem, root: string, path: string, random: Random): void {
  const fate = random.fraction();
  const other = joinPath(root, pick(NAMES, random));
  if (fate < 0.12) files.symlink(pick(["a", "../b", "nowhere"], random), path);
  else if (fate < 0.25 && files.lstat(other)?.type === "file") files.link(other, path);
  else if (fate < 0.35) writeFile(files, path, sparseContent(random));
  else writeFile(files, path, content(random));
}

/** Logs only grow, until they are begun anew. */
function growLog(files: FileSystem, path: string, random: Random): void {
  const folder = parentPath(path);
  if (files.lstat(folder) === undefined) files.makeDirectory(folder, 0o750);
  if (files.lstat(path) === undefined) return writeFile(files, path, content(random));
  if (random.fraction() > 0.1) return append(files, path, content(random));
  files.unlink(path);
}

function append(files: FileSystem, path: string, bytes: Uint8Array): void {
  const handle = files.open(path, "write");
  try {
    files.write(handle, bytes, files.stat(handle).sizeBytes);
  } finally {
    files.close(handle);
  }
}

function makeParents(files: FileSystem, root: string, path: string): void {
  const parts = path
    .slice(root.length + 1)
    .split("/")
    .slice(0, -1);
  let folder = root;
  for (const part of parts) {
    folder = joinPath(folder, part);
    if (files.lstat(folder) === undefined) files.makeDirectory(folder, 0o755);
  }
}

/** Drawn from a small stock, so that nodes and times share much of it. */
function content(random: Random): Uint8Array {
  const kind = draw(random, 12);
  const size = kind === 0 ? 0 : Math.floor(random.fraction() ** 2 * SIZE_BYTES_MAX);
  const bytes = new Uint8Array(size);
  let state = kind * 7919 + 1;
  for (let index = 0; index < size; index += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    // Half of the kinds compress well.
    bytes[index] = kind % 2 === 0 ? state >>> 16 : (state >>> 28) + 64;
  }
  return bytes;
}

/** Some data, a hole of several chunks, and perhaps some data again. */
function sparseContent(random: Random): Uint8Array {
  const bytes = new Uint8Array(100_000 + draw(random, 50_000));
  bytes.set(content(random).subarray(0, 9000), 0);
  if (random.fraction() < 0.5) bytes.set(content(random).subarray(0, 9000), 90_000);
  return bytes;
}

function writeFile(files: FileSystem, path: string, bytes: Uint8Array): void {
  const handle = files.open(path, "create");
  try {
    files.write(handle, bytes, 0);
  } finally {
    files.close(handle);
  }
}

function readFile(files: FileSystem, path: string): Uint8Array {
  const handle = files.open(path, "r");
  try {
    const bytes = new Uint8Array(files.stat(handle).sizeBytes);
    files.read(handle, bytes, 0);
    return bytes;
  } finally {
    files.close(handle);
  }
}

function pick<T>(items: readonly T[], random: Random): T {
  return items[draw(random, items.length)]!;
}

function draw(random: Random, count: number): number {
  return Math.floor(random.fraction() * count);
}
