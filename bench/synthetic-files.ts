/**
 * A folder of files that are on no disk: what a read returns is computed from file and place. Below
 * its root it is read-only; every other path is the real file system's. The content is drawn from 256
 * pieces of 256 bytes, so that chunks are cut as in random data, hardly two of them are equal, and a
 * frame still shrinks to an eighth.
 */
import type { FileStat, FileSystem } from "../src/base/doors.ts";
import { realFileSystem } from "../src/base/file-system.ts";
import { Seeded } from "./seeded.ts";

/** Which folder, and what is in it. */
export type SyntheticFolder = {
  readonly root: string;
  readonly fileCount: number;
  readonly fileSizeBytes: number;
};

const PIECE_SIZE_BYTES = 256;
const PIECE_COUNT = 256;
const PIECES = new Seeded("synthetic").bytes(PIECE_COUNT * PIECE_SIZE_BYTES);
/** Long ago: a row of the stat cache is trusted at once. */
const CHANGED_NS = 1_700_000_000_000_000_000n;
const HANDLE_MIN = 2 ** 30;

/** A file's name in the folder; names ascend with numbers. */
export function syntheticName(number: number): string {
  return `file-${String(number).padStart(8, "0")}`;
}

/** Fills `target` with what the file holds from `position` on. */
export function fillSynthetic(target: Uint8Array, file: number, position: number): void {
  for (let offset = 0; offset < target.length;) {
    const at = (position + offset) % PIECE_SIZE_BYTES;
    const block = (position + offset - at) / PIECE_SIZE_BYTES;
    const length = Math.min(PIECE_SIZE_BYTES - at, target.length - offset);
    const start = pieceOf(file, block) * PIECE_SIZE_BYTES + at;
    target.set(PIECES.subarray(start, start + length), offset);
    offset += length;
  }
}

/** The real file system with the folder in it. */
export function withSyntheticFolder(folder: SyntheticFolder): FileSystem {
  const { root, fileCount, fileSizeBytes } = folder;
  const names = Array.from({ length: fileCount }, (_, number) => syntheticName(number));
  const numberAt = (path: string): number => Number(path.slice(root.length + 1).split("-")[1]);
  const isInside = (path: string): boolean => path.startsWith(`${root}/`);
  const statOf = (number: number): FileStat => ({
    ...ROOT_STAT,
    type: "file",
    sizeBytes: fileSizeBytes,
    mode: 0o600,
    inode: BigInt(number + 2),
  });
  const replaced: Partial<FileSystem> = {
    lstat(path) {
      if (path === root) return ROOT_STAT;
      return isInside(path) ? statOf(numberAt(path)) : realFileSystem.lstat(path);
    },
    readDirectory: (path) => (path === root ? [...names] : realFileSystem.readDirectory(path)),
    open: (path, how) =>
      isInside(path) ? HANDLE_MIN + numberAt(path) : realFileSystem.open(path, how),
    close: (handle) => (handle >= HANDLE_MIN ? undefined : realFileSystem.close(handle)),
    stat: (handle) =>
      handle >= HANDLE_MIN ? statOf(handle - HANDLE_MIN) : realFileSystem.stat(handle),
    read(handle, target, position) {
      if (handle < HANDLE_MIN) return realFileSystem.read(handle, target, position);
      const length = Math.max(0, Math.min(target.length, fileSizeBytes - position));
      fillSynthetic(target.subarray(0, length), handle - HANDLE_MIN, position);
      return length;
    },
    readXattrs: (path) => (isInside(path) ? new Map() : realFileSystem.readXattrs(path)),
    dataRanges: (handle, sizeBytes) =>
      handle >= HANDLE_MIN
        ? [{ offset: 0, length: sizeBytes }]
        : realFileSystem.dataRanges(handle, sizeBytes),
  };
  return new Proxy(realFileSystem, {
    get(target, name: keyof FileSystem) {
      const call = replaced[name] ?? target[name];
      return typeof call === "function" ? call.bind(target) : call;
    },
  });
}

const ROOT_STAT: FileStat = {
  type: "directory",
  sizeBytes: 4096,
  mtimeNs: CHANGED_NS,
  ctimeNs: CHANGED_NS,
  birthtimeNs: CHANGED_NS,
  mode: 0o700,
  uid: 0,
  gid: 0,
  inode: 1n,
  device: 1n,
  linkCount: 1,
};

/** Any mixing will do that shows no pattern within a frame. */
function pieceOf(file: number, block: number): number {
  let state = Math.imul(file + 1, 0x9e37_79b1) ^ Math.imul(block + 1, 0x85eb_ca6b);
  state = Math.imul(state ^ (state >>> 15), 0x2c1b_3c6d);
  state = Math.imul(state ^ (state >>> 12), 0x297a_2d39);
  return (state ^ (state >>> 15)) & (PIECE_COUNT - 1);
}
