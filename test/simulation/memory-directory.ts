/**
 * The calls of node:fs/promises that a directory site makes, over a disk in memory and in virtual
 * time: so that the real directory site runs in a simulation, on a disk that a power cut can empty of
 * all that was not synced. Every call takes a moment; a process that has died makes no more of them.
 */
import type { Clock, FileStat, Random } from "../../src/base/doors.ts";
import { toAppError } from "../../src/base/error.ts";
import type { DirectoryFiles } from "../../src/sites/directory-files.ts";
import type { MemoryFileSystem } from "./memory-file-system.ts";
import type { ProcessLife } from "./simulated-process.ts";
import { never } from "./virtual-clock.ts";

/** Where the calls go, who makes them, and how long one takes at most. */
export type MemoryDirectoryOptions = {
  readonly files: MemoryFileSystem;
  readonly clock: Clock;
  readonly random: Random;
  readonly life: ProcessLife;
  readonly latencyMs: number;
};

type Call = <T>(name: string, effect: () => T) => Promise<T>;

/** Files for `openDirectorySite`. */
export function memoryDirectory(options: MemoryDirectoryOptions): DirectoryFiles {
  const { files, clock, random, life, latencyMs } = options;
  const call: Call = (name, effect) =>
    life.async("disk", name, async () => {
      await clock.sleep(random.fraction() * latencyMs);
      return life.isAlive ? asNode(effect) : await never();
    });
  const mustStat = (path: string): FileStat => {
    const stat = files.lstat(path);
    if (stat !== undefined) return stat;
    files.readDirectory(path);
    throw new Error(`${path} is there after all`);
  };
  const calls = {
    link: (existing: string, created: string) => call("link", () => files.link(existing, created)),
    lstat: (path: string, how?: StatHow) => call("lstat", () => statsOf(mustStat(path), how)),
    stat: (path: string, how?: StatHow) => call("stat", () => statsOf(mustStat(path), how)),
    mkdir: (path: string, how: { readonly mode: number }) =>
      call("mkdir", () => files.makeDirectory(path, how.mode)),
    open: (path: string, how: "r" | "wx") =>
      call(`open-${how}`, () => handleOf(files, path, { call, isNew: how === "wx" })),
    readdir: (path: string, how?: { readonly withFileTypes: boolean }) =>
      call("readdir", () => {
        const names = files.readDirectory(path);
        return how === undefined ? names : names.map((name) => entryOf(files, path, name));
      }),
    statfs: (path: string) =>
      call("statfs", () => ({ bavail: files.space(path).freeBytes, bsize: 1 })),
    unlink: (path: string) => call("unlink", () => files.unlink(path)),
  };
  // The overloads of node:fs/promises are many; a directory site uses these shapes of them.
  return calls as unknown as DirectoryFiles;
}

/** The disk in memory throws what our doors throw; node:fs has the name of the error in `code`. */
function asNode<T>(effect: () => T): T {
  try {
    return effect();
  } catch (thrown) {
    const { context, message } = toAppError(thrown);
    throw Object.assign(new Error(message, { cause: thrown }), { code: context["code"] });
  }
}

type StatHow = { readonly bigint?: boolean };

function handleOf(
  files: MemoryFileSystem,
  path: string,
  how: { readonly call: Call; readonly isNew: boolean },
): object {
  const { call } = how;
  const handle = files.open(path, how.isNew ? "create" : "r");
  const isDirectory = files.stat(handle).type === "directory";
  return {
    stat: () => call("stat", () => statsOf(files.stat(handle))),
    sync: () => call("sync", () => (isDirectory ? files.syncDirectory(path) : files.sync(handle))),
    write: (bytes: Uint8Array, offset: number, length: number, position: number) =>
      call("write", () => {
        files.write(handle, bytes.subarray(offset, offset + length), position);
        return { bytesWritten: length };
      }),
    read: (target: Uint8Array, offset: number, length: number, position: number) =>
      call("read", () => ({
        bytesRead: files.read(handle, target.subarray(offset, offset + length), position),
      })),
    close: () => call("close", () => files.close(handle)),
  };
}

function statsOf(stat: FileStat, how: StatHow = {}): object {
  const { type, sizeBytes, inode, device, linkCount, mode, mtimeNs } = stat;
  const kind = {
    isFile: () => type === "file",
    isDirectory: () => type === "directory",
    isSymbolicLink: () => type === "symlink",
  };
  const mtimeMs = Number(mtimeNs / 1_000_000n);
  if (how.bigint !== true) return { ...kind, size: sizeBytes, mode, mtimeMs };
  return { ...kind, ino: inode, dev: device, nlink: BigInt(linkCount), mode: BigInt(mode) };
}

function entryOf(files: MemoryFileSystem, folder: string, name: string): object {
  const type = files.lstat(`${folder}/${name}`)?.type;
  return {
    name,
    isFile: () => type === "file",
    isDirectory: () => type === "directory",
    isSymbolicLink: () => type === "symlink",
  };
}
