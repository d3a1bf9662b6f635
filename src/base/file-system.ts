/**
 * Door 3, the real one: node:fs, synchronous. Paths are byte strings and go to the system as
 * bytes; no call follows a symbolic link at the end of a path; every error leaves as an AppError
 * that names the path.
 */
import * as fs from "node:fs";
import type { BigIntStats } from "node:fs";
import type { FileStat, FileSystem, FileType } from "./doors.ts";
import { errnoError, getErrnoCode, nulError } from "./errno.ts";
import { AppError } from "./error.ts";
import { nativePath, textFromPath } from "./path.ts";
import {
  dataRanges,
  getXattr,
  hasListedLock,
  hasRecordLock,
  listXattrs,
  setModeNoFollow,
  setTimesNs,
  setXattr,
  statHandle,
  statPath,
  syncFileSystem,
} from "./platform.ts";
import type { DataRange } from "./platform.ts";
import { STAT_BLOCK_SIZE_BYTES } from "./statx.ts";

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY } =
  fs.constants;

/** O_NONBLOCK: opening a FIFO that took a file's place must not wait for its other end. */
const OPEN_FLAGS = {
  r: O_RDONLY | O_NOFOLLOW | O_NONBLOCK,
  write: O_RDWR | O_NOFOLLOW | O_NONBLOCK,
  create: O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW,
} as const;

/** New files and directories belong to nobody else until somebody says so. */
const FILE_MODE = 0o600;
const DIRECTORY_MODE = 0o700;

/** For fewer files the rest of the file system is not worth flushing as well. */
const SYNC_TOGETHER_COUNT_MIN = 4;

/**
 * Of one write call. What the kernel caches of a larger one lies in folios of 4 MiB and more, each of
 * fresh memory: 2 GB in writes of 8 MiB took 9 s of system time on a virtual machine with Linux 6.18
 * that gives free memory back to its host, in writes of up to 1 MiB 1.2 to 1.6 s.
 */
export const WRITE_SIZE_BYTES_MAX = 1024 * 1024;

const NO_XATTRS: ReadonlyMap<string, Uint8Array> = new Map();

class RealFileSystem implements FileSystem {
  /** Paths of open handles, for messages only. */
  readonly #paths = new Map<number, string>();

  lstat(path: string): FileStat | undefined {
    if (path.includes("\0")) throw nulError(path);
    const found = statPath(path);
    if (found !== undefined) return found ?? undefined;
    try {
      const stats = fs.lstatSync(native(path), { bigint: true, throwIfNoEntry: false });
      return stats === undefined ? undefined : toFileStat(stats);
    } catch (thrown) {
      if (getErrnoCode(thrown) === "ENOTDIR") return undefined;
      throw systemError("look at", path, thrown);
    }
  }

  readDirectory(path: string): string[] {
    return attempt("list", path, () => fs.readdirSync(native(path), { encoding: "latin1" }));
  }

  readLink(path: string): string {
    return attempt("read the link", path, () =>
      fs.readlinkSync(native(path), { encoding: "latin1" }),
    );
  }

  open(path: string, how: "r" | "create" | "write", mode: number = FILE_MODE): number {
    try {
      const handle = fs.openSync(native(path), OPEN_FLAGS[how], mode);
      this.#paths.set(handle, path);
      return handle;
    } catch (thrown) {
      throw systemError(how === "create" ? "create" : "open", path, thrown);
    }
  }

  close(handle: number): void {
    const path = this.#path(handle);
    this.#paths.delete(handle);
    try {
      fs.closeSync(handle);
    } catch (thrown) {
      throw systemError("close", path, thrown);
    }
  }

  stat(handle: number): FileStat {
    const found = statHandle(handle);
    if (found !== undefined) return found;
    const stats = attempt("look at", this.#path(handle), () =>
      fs.fstatSync(handle, { bigint: true }),
    );
    return toFileStat(stats);
  }

  read(handle: number, target: Uint8Array, position: number): number {
    try {
      return fs.readSync(handle, target, 0, target.byteLength, position);
    } catch (thrown) {
      throw systemError("read", this.#path(handle), thrown);
    }
  }

  write(handle: number, source: Uint8Array, position: number): void {
    try {
      let written = 0;
      while (written < source.byteLength) {
        const length = Math.min(source.byteLength - written, WRITE_SIZE_BYTES_MAX);
        const count = fs.writeSync(handle, source, written, length, position + written);
        if (count <= 0) {
          throw errnoError({ action: "write", path: this.#path(handle), code: "EIO" });
        }
        written += count;
      }
    } catch (thrown) {
      throw systemError("write", this.#path(handle), thrown);
    }
  }

  truncate(handle: number, sizeBytes: number): void {
    attempt("truncate", this.#path(handle), () => fs.ftruncateSync(handle, sizeBytes));
  }

  sync(handle: number): void {
    attempt("sync", this.#path(handle), () => fs.fsyncSync(handle));
  }

  syncAll(handles: readonly number[]): void {
    const byDevice = Map.groupBy(handles, (handle) => this.stat(handle).device);
    for (const together of byDevice.values()) {
      // The one that was opened first has seen all failed writes of the others.
      const [first] = together;
      const isMany = together.length >= SYNC_TOGETHER_COUNT_MIN;
      if (isMany && first !== undefined && syncFileSystem(first)) continue;
      for (const handle of together) this.sync(handle);
    }
  }

  syncDirectory(path: string): void {
    attempt("sync the directory", path, () => {
      const handle = fs.openSync(native(path), O_RDONLY | O_DIRECTORY);
      try {
        fs.fsyncSync(handle);
      } finally {
        fs.closeSync(handle);
      }
    });
  }

  makeDirectory(path: string, mode: number = DIRECTORY_MODE): void {
    attempt("make the directory", path, () => fs.mkdirSync(native(path), { mode }));
  }

  link(existing: string, created: string): void {
    const action = `link ${textFromPath(created)} to`;
    attempt(action, existing, () => fs.linkSync(native(existing), native(created)));
  }

  symlink(target: string, created: string): void {
    attempt("make the symbolic link", created, () =>
      fs.symlinkSync(native(target), native(created)),
    );
  }

  rename(from: string, to: string): void {
    attempt(`rename ${textFromPath(from)} to`, to, () => fs.renameSync(native(from), native(to)));
  }

  unlink(path: string): void {
    attempt("remove", path, () => fs.unlinkSync(native(path)));
  }

  removeDirectory(path: string): void {
    attempt("remove the directory", path, () => fs.rmdirSync(native(path)));
  }

  setMode(path: string, mode: number): void {
    setModeNoFollow(path, mode);
  }

  setOwner(path: string, uid: number, gid: number): void {
    attempt("set the owner of", path, () => fs.lchownSync(native(path), uid, gid));
  }

  setTimes(path: string, mtimeNs: bigint): void {
    setTimesNs(path, mtimeNs);
  }

  readXattrs(path: string): ReadonlyMap<string, Uint8Array> {
    const names = listXattrs(path);
    if (names.length === 0) return NO_XATTRS;
    const values = new Map<string, Uint8Array>();
    for (const name of names) {
      const value = getXattr(path, name);
      if (value !== undefined) values.set(name, value);
    }
    return values;
  }

  setXattr(path: string, name: string, value: Uint8Array): void {
    setXattr(path, name, value);
  }

  dataRanges(handle: number, sizeBytes: number): DataRange[] {
    return dataRanges(handle, sizeBytes);
  }

  isLocked(path: string): boolean {
    let handle: number | undefined;
    try {
      handle = this.open(path, "r");
    } catch (thrown) {
      if (!(thrown instanceof AppError)) throw thrown;
      if (thrown.kind === "not-found") return false;
      // What we may not open can still be looked up among all locks.
      if (thrown.kind !== "permission") throw thrown;
    }
    try {
      const stat = handle === undefined ? this.lstat(path) : this.stat(handle);
      if (stat === undefined) return false;
      return (handle !== undefined && hasRecordLock(handle, path)) || hasListedLock(stat, handle);
    } finally {
      if (handle !== undefined) this.close(handle);
    }
  }

  space(path: string): { readonly freeBytes: number; readonly totalBytes: number } {
    const found = attempt("ask for the free space of", path, () =>
      fs.statfsSync(native(path), { bigint: true }),
    );
    // `bavail`, not `bfree`: the reserve of the superuser is not for backups.
    return {
      freeBytes: Number(found.bavail * found.bsize),
      totalBytes: Number(found.blocks * found.bsize),
    };
  }

  #path(handle: number): string {
    return this.#paths.get(handle) ?? `handle ${handle}`;
  }
}

/** The disk of this machine. */
export const realFileSystem: FileSystem = new RealFileSystem();

function attempt<Result>(action: string, path: string, call: () => Result): Result {
  try {
    return call();
  } catch (thrown) {
    throw systemError(action, path, thrown);
  }
}

/** An errno error as an AppError; anything else as it is. */
function systemError(action: string, path: string, thrown: unknown): unknown {
  const code = getErrnoCode(thrown);
  return code === undefined ? thrown : errnoError({ action, path, code, cause: thrown });
}

function native(path: string): string | Buffer {
  if (path.includes("\0")) throw nulError(path);
  return nativePath(path);
}

function toFileStat(stats: BigIntStats): FileStat {
  return {
    type: toFileType(stats),
    sizeBytes: Number(stats.size),
    mtimeNs: stats.mtimeNs,
    ctimeNs: stats.ctimeNs,
    birthtimeNs: stats.birthtimeNs,
    mode: Number(stats.mode & 0o7777n),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    inode: stats.ino,
    device: stats.dev,
    linkCount: Number(stats.nlink),
    allocatedBytes: Number(stats.blocks) * STAT_BLOCK_SIZE_BYTES,
  };
}

function toFileType(stats: BigIntStats): FileType {
  if (stats.isFile()) return "file";
  if (stats.isDirectory()) return "directory";
  return stats.isSymbolicLink() ? "symlink" : "other";
}
