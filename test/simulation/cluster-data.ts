/**
 * The data of simulated nodes: trees of small files that grow, shrink and are shared between nodes,
 * and how to read a whole tree back, as one value that can be compared.
 */
import type { FileSystem, Random } from "../../src/base/doors.ts";
import { sha256Hex } from "../../src/base/hex.ts";
import { joinPath } from "../../src/base/path.ts";

/** A tree: type, mode, time and content of each path. */
export type Tree = ReadonlyMap<string, string>;

const NAMES = ["a", "b", "c", "d-e", "f/g", "f/h", "f/i j", "k/l/m", "k/n", "o"];
const SIZE_BYTES_MAX = 60_000;

/** Everything below a folder; times only where `withTimes` says so. */
export function readTree(files: FileSystem, root: string, withTimes = true): Tree {
  const tree = new Map<string, string>();
  const visit = (folder: string, prefix: string): void => {
    for (const name of files.readDirectory(folder).toSorted()) {
      const path = joinPath(folder, name);
      const stat = files.lstat(path);
      if (stat === undefined) continue;
      const time = withTimes ? ` ${stat.mtimeNs}` : "";
      const shown = `${stat.type} ${stat.mode.toString(8)}${stat.type === "file" ? time : ""}`;
      if (stat.type === "file") {
        tree.set(prefix + name, `${shown} ${sha256Hex(readFile(files, path))}`);
      } else {
        tree.set(prefix + name, shown);
        if (stat.type === "directory") visit(path, `${prefix}${name}/`);
      }
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

/** Changes a few files below a root: makes, writes over, appends to and removes them. */
export function changeFiles(files: FileSystem, root: string, random: Random): void {
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random.fraction() * items.length)]!;
  for (let count = 1 + Math.floor(random.fraction() * 5); count > 0; count -= 1) {
    const path = joinPath(root, pick(NAMES));
    const stat = files.lstat(path);
    const fate = random.fraction();
    if (stat === undefined) {
      makeParents(files, root, path);
      writeFile(files, path, content(random));
    } else if (fate < 0.25) {
      files.unlink(path);
    } else if (fate < 0.6) {
      const handle = files.open(path, "write");
      files.write(handle, content(random).subarray(0, 3000), stat.sizeBytes);
      files.close(handle);
    } else {
      files.unlink(path);
      writeFile(files, path, content(random));
    }
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
  const kind = Math.floor(random.fraction() * 12);
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
