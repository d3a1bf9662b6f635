/**
 * The seven doors: the only ways from our code to the outside. Everything that can surprise us
 * (time, chance, disks, object stores, other nodes, SQLite, databases) comes in through one of these
 * interfaces, so that a simulator can replace all of them and drive a whole cluster in one process
 * from one seed. Real implementations live beside this file; nothing else may touch `Date.now`,
 * `setTimeout`, `Math.random`, `crypto.getRandomValues`, `node:fs` or `fetch`.
 *
 * Paths are *byte strings*: every char is one byte (latin1), so that names which are not UTF-8
 * survive. `pathFromText`/`textFromPath` in path.ts convert; an ASCII path is the same in both.
 */
import type { Database } from "bun:sqlite";
import type { Site } from "../sites/site.ts";

/** Door 1: time. Virtual in the simulator. */
export interface Clock {
  /** Wall clock, milliseconds since 1970 UTC. May jump; is never used for safety. */
  now(): number;
  /** Monotonic milliseconds, for durations and deadlines. */
  monotonic(): number;
  /** Resolves after `ms`; rejects with the signal's reason when it aborts first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** Door 2: chance. Ids, nonces and jitter come from here. */
export interface Random {
  /** `size` unpredictable bytes (predictable from the seed in the simulator). */
  bytes(size: number): Uint8Array;
  /** A number in [0, 1). */
  fraction(): number;
}

/** What kind of thing lies at a path. */
export type FileType = "file" | "directory" | "symlink" | "other";

/** One `lstat`, with nanoseconds. */
export type FileStat = {
  readonly type: FileType;
  readonly sizeBytes: number;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  /** 0n where the file system does not tell. */
  readonly birthtimeNs: bigint;
  /** Permission bits, 0o7777 masked. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly inode: bigint;
  readonly device: bigint;
  readonly linkCount: number;
  /** On the disk; where it is less than the size there are holes. Undefined if nobody told. */
  readonly allocatedBytes?: number;
};

/**
 * Door 3: the node's disk. Synchronous on purpose: the data plane runs in workers, and measured
 * rates of sync calls beat promises (docs/decisions.md). Every call throws AppError
 * (`not-found`, `permission`, `no-space`, `conflict` for EEXIST, `refused` for EXDEV with
 * context.code set to the errno name) and never a bare errno error.
 */
export interface FileSystem {
  /** Undefined if nothing is there. Does not follow symlinks. */
  lstat(path: string): FileStat | undefined;
  /** Names in a directory, unsorted, without `.` and `..`. */
  readDirectory(path: string): string[];
  readLink(path: string): string;
  /**
   * Opens for reading (`r`), for writing a new file (`create`, fails if it exists), or read-write
   * (`write`, existing). A new file may be asked to have a mode, of which the umask takes its part;
   * what it got is for `stat` to tell.
   */
  open(path: string, how: "r" | "create" | "write", mode?: number): number;
  close(handle: number): void;
  /** fstat of an open file. */
  stat(handle: number): FileStat;
  /** Reads into `target` at `position`; returns bytes read, 0 at the end. */
  read(handle: number, target: Uint8Array, position: number): number;
  /** Writes all of `source` at `position`. */
  write(handle: number, source: Uint8Array, position: number): void;
  truncate(handle: number, sizeBytes: number): void;
  sync(handle: number): void;
  /** `sync` of each, faster: absent where nothing is. A device is asked to flush once, not for each. */
  syncAll?(handles: readonly number[]): void;
  syncDirectory(path: string): void;
  makeDirectory(path: string, mode?: number): void;
  link(existing: string, created: string): void;
  symlink(target: string, created: string): void;
  rename(from: string, to: string): void;
  unlink(path: string): void;
  removeDirectory(path: string): void;
  setMode(path: string, mode: number): void;
  /** Does not follow symlinks. */
  setOwner(path: string, uid: number, gid: number): void;
  /** Sets mtime (and atime) with nanoseconds; does not follow symlinks. */
  setTimes(path: string, mtimeNs: bigint): void;
  /** All extended attributes that we may read, names as byte strings; empty where there are none. */
  readXattrs(path: string): ReadonlyMap<string, Uint8Array>;
  /** Creates or replaces one extended attribute; does not follow symlinks. */
  setXattr(path: string, name: string, value: Uint8Array): void;
  /** The parts of an open file that are not holes, ascending; the whole file where nobody can tell. */
  dataRanges(handle: number, sizeBytes: number): { offset: number; length: number }[];
  /**
   * True if another process holds a lock on the file, for reading or writing, with `fcntl` or
   * `flock`; takes none itself. False where nothing is. It opens and closes the file, which drops
   * `fcntl` locks that this process holds on it: ask about files of others only.
   */
  isLocked(path: string): boolean;
  /** Free and total bytes of the file system that holds `path`. */
  space(path: string): { readonly freeBytes: number; readonly totalBytes: number };
}

/** Door 4 is `Site` (src/sites/site.ts): the object stores. */
export type SiteDoor = (name: string) => Promise<Site>;

/**
 * Door 5: calls from node to node. The real one is HTTP with a stream of NDJSON events; the
 * simulator calls the other node's handler directly, and loses, repeats and delays messages.
 * `body` and the result are plain JSON values; both sides check them with schemas.
 */
export interface Network {
  call(
    address: string,
    method: string,
    body: unknown,
    options: {
      readonly timeoutMs: number;
      readonly signal?: AbortSignal;
      readonly onEvent?: (event: unknown) => void;
    },
  ): Promise<unknown>;
}

/** Door 6: SQLite files. `:memory:` databases in the simulator, which keeps and swaps them by path. */
export interface Databases {
  open(path: string): Database;
  /** Removes the file and its `-wal` and `-shm`; absent is fine. */
  remove(path: string): void;
}

/** Door 7: what a product needs of the world: commands and database clients (HTTP). */
export interface Outside {
  run(
    command: readonly string[],
    options: {
      readonly timeoutMs: number;
      readonly signal?: AbortSignal;
      readonly input?: Uint8Array;
    },
  ): Promise<{
    readonly exitCode: number;
    readonly stdout: Uint8Array;
    readonly stderr: Uint8Array;
  }>;
  fetch(url: string, init: RequestInit & { readonly timeoutMs: number }): Promise<Response>;
}

/** All doors but the sites, as one thing to hand down. */
export type Doors = {
  readonly clock: Clock;
  readonly random: Random;
  readonly files: FileSystem;
  readonly databases: Databases;
  readonly network: Network;
  readonly outside: Outside;
};
