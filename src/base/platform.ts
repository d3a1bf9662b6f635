/**
 * What Bun has no call for, straight from libc: times with nanoseconds, modes without following a
 * link, extended attributes, holes, locks, syncing many files at once, and stats that leave no garbage
 * (`statx.ts`). The only file with FFI. Where the library cannot be loaded
 * (macOS, an unusual libc) each function falls back to something safe: times lose their last
 * digits, there are no attributes, a file is all data.
 */
import { dlopen, read } from "bun:ffi";
import { chmodSync, lstatSync, lutimesSync, readFileSync, statfsSync } from "node:fs";
import { constants, release } from "node:os";
import type { FileStat } from "./doors.ts";
import { errnoError, getErrnoCode, nulError } from "./errno.ts";
import type { AppError } from "./error.ts";
import { deviceOfMount, devicesOfLocks, deviceText } from "./listed-locks.ts";
import { nativePath } from "./path.ts";
import { STATX_WANTED, StatxBuffer } from "./statx.ts";

/** A part of a file that holds data. */
export type DataRange = { offset: number; length: number };

/**
 * Looks at a path, not following a link at its end; null if nothing is there. Undefined for any other
 * failure, and where there is no such call: then `node:fs` does it, and tells what is wrong.
 */
export function statPath(path: string): FileStat | null | undefined {
  const library = getStatx();
  if (library === undefined || path.length >= pathBuffer.length) return undefined;
  pathBuffer[pathBuffer.write(path, 0, "latin1")] = 0;
  if (library.statx(AT_FDCWD, pathBuffer, AT_SYMLINK_NOFOLLOW, STATX_WANTED, statx.bytes) === 0) {
    return statx.read();
  }
  return isAbsent(library) ? null : undefined;
}

/** Looks at an open file; undefined as for a path. */
export function statHandle(handle: number): FileStat | undefined {
  const library = getStatx();
  if (library === undefined) return undefined;
  pathBuffer[0] = 0;
  if (library.statx(handle, pathBuffer, AT_EMPTY_PATH, STATX_WANTED, statx.bytes) !== 0) return;
  return statx.read();
}

const statx = new StatxBuffer();

/** PATH_MAX of Linux, the closing NUL included. */
const pathBuffer = Buffer.allocUnsafeSlow(4096);

/** Sets mtime and atime, of a symbolic link itself if it is one. */
export function setTimesNs(path: string, mtimeNs: bigint): void {
  const library = getLibrary();
  if (library === undefined) return setTimesFallback(path, mtimeNs);
  const nanoseconds = ((mtimeNs % SECOND_NS) + SECOND_NS) % SECOND_NS;
  const seconds = (mtimeNs - nanoseconds) / SECOND_NS;
  const times = new BigInt64Array([seconds, nanoseconds, seconds, nanoseconds]);
  if (library.utimensat(AT_FDCWD, terminated(path), times, AT_SYMLINK_NOFOLLOW) !== 0) {
    throw lastError(library, "set the times of", path);
  }
}

/** Sets permission bits; a symbolic link is refused, never followed. */
export function setModeNoFollow(path: string, mode: number): void {
  const library = getLibrary();
  if (library !== undefined) {
    if (setModeDirectly(library, path, mode)) return;
    if (library.fchmodat(AT_FDCWD, terminated(path), mode, AT_SYMLINK_NOFOLLOW) === 0) return;
    const code = lastErrno(library);
    if (!UNSUPPORTED.has(code)) throw errnoError({ action: "set the mode of", path, code });
  }
  setModeFallback(path, mode);
}

/**
 * With the call of Linux 6.6 and later, where libc of old takes four others in its stead. False for
 * any failure: the other way tells what is wrong.
 */
function setModeDirectly(library: Library, path: string, mode: number): boolean {
  if (!hasFchmodat2) return false;
  const target = terminated(path);
  if (library.syscall(SYS_FCHMODAT2, AT_FDCWD, target, mode, AT_SYMLINK_NOFOLLOW) === 0n)
    return true;
  if (lastErrno(library) === "ENOSYS") hasFchmodat2 = false;
  return false;
}

let hasFchmodat2 = true;

/** Names of the extended attributes, as byte strings; empty where there can be none. */
export function listXattrs(path: string): readonly string[] {
  const library = getLibrary();
  if (library === undefined) return [];
  const target = terminated(path);
  // Nearly all files have none, which one call tells and which makes no garbage.
  if (Number(library.llistxattr(target, null, NO_BYTES)) === 0) return NO_NAMES;
  const bytes = readGrowing((into, size) => library.llistxattr(target, into, size));
  if (bytes === undefined) {
    const code = lastErrno(library);
    if (UNSUPPORTED.has(code)) return [];
    throw errnoError({ action: "list the extended attributes of", path, code });
  }
  return bytes
    .toString("latin1")
    .split("\0")
    .filter((name) => name !== "");
}

/** The value of one extended attribute; undefined if there is none of that name. */
export function getXattr(path: string, name: string): Uint8Array | undefined {
  const library = getLibrary();
  if (library === undefined) return undefined;
  const target = terminated(path);
  const key = terminated(name);
  const bytes = readGrowing((into, size) => library.lgetxattr(target, key, into, size));
  if (bytes !== undefined) return new Uint8Array(bytes);
  const code = lastErrno(library);
  if (code === "ENODATA" || UNSUPPORTED.has(code)) return undefined;
  throw errnoError({ action: `read the extended attribute ${name} of`, path, code });
}

/** Creates or replaces one extended attribute, of a symbolic link itself if it is one. */
export function setXattr(path: string, name: string, value: Uint8Array): void {
  const action = `set the extended attribute ${name} of`;
  const library = getLibrary();
  if (library === undefined) throw errnoError({ action, path, code: "ENOSYS" });
  // A pointer to no bytes is no pointer: an empty value is the first 0 bytes of something.
  const bytes = value.byteLength === 0 ? new Uint8Array(1) : value;
  const size = BigInt(value.byteLength);
  if (library.lsetxattr(terminated(path), terminated(name), bytes, size, 0) !== 0) {
    throw lastError(library, action, path);
  }
}

/**
 * The data of an open file, without its holes. What cannot be asked counts as data: a hole that is
 * read as zeros costs time, data taken for a hole would be lost.
 */
export function dataRanges(handle: number, sizeBytes: number): DataRange[] {
  const library = getLibrary();
  const ranges: DataRange[] = [];
  let offset = 0;
  while (offset < sizeBytes) {
    const start = library === undefined ? offset : seek(library, handle, offset, SEEK_DATA);
    if (start === undefined || start >= sizeBytes) break;
    const end = library === undefined ? sizeBytes : seek(library, handle, start, SEEK_HOLE);
    const until = end === undefined || end <= start ? sizeBytes : Math.min(end, sizeBytes);
    ranges.push({ offset: start, length: until - start });
    offset = until;
  }
  return ranges;
}

/**
 * Makes everything that was written to the file system of an open file durable, in one go; false
 * where that cannot be relied on. Before Linux 5.8 it does not tell of failed writes, and where the
 * file system is a program or a server it may not reach the disk at all.
 */
export function syncFileSystem(handle: number): boolean {
  const library = getLibrary();
  if (library === undefined || !canReportFailedWrites()) return false;
  try {
    if (!SYNCABLE_TYPES.has(statfsSync(`/proc/self/fd/${handle}`).type)) return false;
  } catch {
    return false;
  }
  return library.syncfs(handle) === 0;
}

/**
 * Lets the system drop its copy in memory of an open file; only what is on disk already goes. Advice:
 * it may be ignored.
 */
export function forgetCached(handle: number): void {
  getLibrary()?.posix_fadvise(handle, 0n, 0n, POSIX_FADV_DONTNEED);
}

/** True if another process, or another open file of this one, has a `fcntl` lock on an open file. */
export function hasRecordLock(handle: number, path: string): boolean {
  const library = getLibrary();
  if (library === undefined) return false;
  // struct flock: type and whence (shorts), start, length (0 is all), pid.
  const lock = new DataView(new ArrayBuffer(32));
  lock.setInt16(0, F_WRLCK, true);
  if (library.fcntl(handle, F_GETLK, new Uint8Array(lock.buffer)) !== 0) {
    throw lastError(library, "ask for locks of", path);
  }
  return lock.getInt16(0, true) !== F_UNLCK;
}

/** True if Linux lists a lock of another process on the file. A handle helps to find its mount. */
export function hasListedLock(
  stat: Pick<FileStat, "device" | "inode">,
  handle: number | undefined,
): boolean {
  if (process.platform !== "linux") return false;
  const devices = devicesOfLocks(readKernelText("/proc/locks"), stat.inode, process.pid);
  if (devices.length === 0) return false;
  if (devices.includes(deviceText(stat.device))) return true;
  if (handle === undefined) return false;
  const fdinfo = readKernelText(`/proc/self/fdinfo/${handle}`);
  const mount = deviceOfMount(fdinfo, readKernelText("/proc/self/mountinfo"));
  return mount !== undefined && devices.includes(mount);
}

/** Empty where a kernel or a container does not show it. */
function readKernelText(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

function canReportFailedWrites(): boolean {
  const [major = 0, minor = 0] = release().split(".").map(Number);
  return major > 5 || (major === 5 && minor >= 8);
}

const SECOND_NS = 1_000_000_000n;

/** Of statfs: ext2 to ext4, XFS, Btrfs, F2FS, tmpfs. */
const SYNCABLE_TYPES: ReadonlySet<number> = new Set([
  0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994,
]);

// Linux numbers; the same on x64 and arm64. The library is not loaded anywhere else.
const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_EMPTY_PATH = 0x1000;
const ENOENT = 2;
const ENOTDIR = 20;
const SYS_FCHMODAT2 = 452n;
const POSIX_FADV_DONTNEED = 4;
const F_GETLK = 5;
const F_WRLCK = 1;
const F_UNLCK = 2;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

const NO_BYTES = 0n;
const NO_NAMES: readonly string[] = [];

const UNSUPPORTED: ReadonlySet<string> = new Set(["EOPNOTSUPP", "ENOTSUP", "ENOSYS"]);

const LIBRARIES = [
  "libc.so.6",
  `libc.musl-${process.arch === "arm64" ? "aarch64" : "x86_64"}.so.1`,
];

const SYMBOLS = {
  utimensat: { args: ["i32", "ptr", "ptr", "i32"], returns: "i32" },
  fchmodat: { args: ["i32", "ptr", "u32", "i32"], returns: "i32" },
  syscall: { args: ["i64", "i32", "ptr", "u32", "i32"], returns: "i64" },
  llistxattr: { args: ["ptr", "ptr", "u64"], returns: "i64" },
  lgetxattr: { args: ["ptr", "ptr", "ptr", "u64"], returns: "i64" },
  lsetxattr: { args: ["ptr", "ptr", "ptr", "u64", "i32"], returns: "i32" },
  fcntl: { args: ["i32", "i32", "ptr"], returns: "i32" },
  posix_fadvise: { args: ["i32", "i64", "i64", "i32"], returns: "i32" },
  syncfs: { args: ["i32"], returns: "i32" },
  lseek: { args: ["i32", "i64", "i32"], returns: "i64" },
  __errno_location: { args: [], returns: "ptr" },
} as const;

/** Apart, since libc has had it since 2018 only: one name that is missing fails all of them. */
const STATX_SYMBOLS = {
  statx: { args: ["i32", "ptr", "i32", "u32", "ptr"], returns: "i32" },
  __errno_location: SYMBOLS.__errno_location,
} as const;

type Library = ReturnType<typeof openLibrary>;
type StatxLibrary = ReturnType<typeof openStatx>;

/** Null once loading was tried and failed. */
let loadedStatx: StatxLibrary | null | undefined;

function getStatx(): StatxLibrary | undefined {
  if (loadedStatx === undefined) loadedStatx = loadFirst(openStatx) ?? null;
  return loadedStatx ?? undefined;
}

/** Null once loading was tried and failed. */
let loaded: Library | null | undefined;

function getLibrary(): Library | undefined {
  if (loaded === undefined) loaded = loadFirst(openLibrary) ?? null;
  return loaded ?? undefined;
}

function loadFirst<Loaded>(open: (name: string) => Loaded): Loaded | undefined {
  if (process.platform !== "linux") return undefined;
  for (const name of LIBRARIES) {
    try {
      return open(name);
    } catch {
      // Not this libc; without any of them the fallbacks serve.
    }
  }
  return undefined;
}

function openLibrary(name: string) {
  return dlopen(name, SYMBOLS).symbols;
}

function openStatx(name: string) {
  return dlopen(name, STATX_SYMBOLS).symbols;
}

/** Bytes with a closing NUL; a NUL inside would name another file. */
function terminated(path: string): Buffer {
  if (path.includes("\0")) throw nulError(path);
  return Buffer.from(`${path}\0`, "latin1");
}

/** Asks for the size, then for the bytes, and again if they grew; undefined for an error. */
function readGrowing(call: (into: Uint8Array | null, size: bigint) => bigint): Buffer | undefined {
  for (let attempt = 0; attempt < 8; attempt += 1) {
    const size = Number(call(null, 0n));
    if (size < 0) return undefined;
    if (size === 0) return Buffer.alloc(0);
    const into = Buffer.alloc(size);
    const got = Number(call(into, BigInt(size)));
    if (got >= 0) return into.subarray(0, got);
  }
  return undefined;
}

/** Where data or a hole begins; undefined behind the last data; the same offset if it cannot tell. */
function seek(library: Library, handle: number, offset: number, how: number): number | undefined {
  const found = Number(library.lseek(handle, BigInt(offset), how));
  if (found >= 0) return found;
  return lastErrno(library) === "ENXIO" ? undefined : offset;
}

function lastError(library: Library, action: string, path: string): AppError {
  return errnoError({ action, path, code: lastErrno(library) });
}

function isAbsent(library: StatxLibrary): boolean {
  const errno = lastErrnoNumber(library);
  return errno === ENOENT || errno === ENOTDIR;
}

function lastErrnoNumber(library: Pick<Library, "__errno_location">): number {
  const location = library.__errno_location();
  return location === null ? 0 : read.i32(location, 0);
}

function lastErrno(library: Library): string {
  const errno = lastErrnoNumber(library);
  for (const [name, value] of Object.entries(constants.errno)) {
    if (value === errno) return name;
  }
  return `errno ${errno}`;
}

function setTimesFallback(path: string, mtimeNs: bigint): void {
  const seconds = Number(mtimeNs) / 1e9;
  try {
    lutimesSync(nativePath(path), seconds, seconds);
  } catch (thrown) {
    throw fallbackError("set the times of", path, thrown);
  }
}

function setModeFallback(path: string, mode: number): void {
  const action = "set the mode of";
  try {
    const isLink = lstatSync(nativePath(path)).isSymbolicLink();
    if (!isLink) return chmodSync(nativePath(path), mode);
  } catch (thrown) {
    throw fallbackError(action, path, thrown);
  }
  throw errnoError({ action, path, code: "ELOOP" });
}

function fallbackError(action: string, path: string, cause: unknown): unknown {
  const code = getErrnoCode(cause);
  return code === undefined ? cause : errnoError({ action, path, code, cause });
}
