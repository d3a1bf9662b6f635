/**
 * The simulated disk: the contract of a file system, and what a crash keeps.
 */
import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import type { Random } from "../../src/base/doors.ts";
import { MemoryFileSystem } from "./memory-file-system.ts";

const OLD = new Uint8Array([1, 1, 1, 1]);
const NEW = new Uint8Array([2, 2, 2, 2, 2, 2]);
const clock = { now: () => 1000 };

describe("a power cut", () => {
  test("keeps a file whose content and name were synced", () => {
    const files = newDisk();
    write(files, "/a", OLD, { isSynced: true });
    files.syncDirectory("/");
    files.crash();
    expect(readAll(files, "/a")).toEqual(OLD);
  });

  test("loses a name that was not synced, whatever became of the content", () => {
    const files = newDisk();
    write(files, "/a", OLD, { isSynced: true });
    files.crash();
    expect(files.lstat("/a")).toBeUndefined();
  });

  test("leaves an empty file where only the name was synced", () => {
    const files = newDisk();
    write(files, "/a", OLD);
    files.syncDirectory("/");
    files.crash();
    expect(readAll(files, "/a")).toEqual(new Uint8Array(0));
  });

  test("brings the last synced content back, with its times", () => {
    const files = newDurableFile();
    files.setTimes("/a", 5n);
    syncFile(files, "/a");
    overwrite(files, "/a", NEW);
    files.setTimes("/a", 6n);
    files.crash();
    expect(readAll(files, "/a")).toEqual(OLD);
    expect(files.lstat("/a")?.mtimeNs).toBe(5n);
  });

  test("undoes an unlink and a rename that were not synced", () => {
    const files = newDurableFile();
    files.rename("/a", "/b");
    files.unlink("/b");
    files.crash();
    expect(files.readDirectory("/")).toEqual(["a"]);
    expect(readAll(files, "/a")).toEqual(OLD);
  });

  test("never does half of a rename across directories", () => {
    const files = newDurableFile();
    files.makeDirectory("/d");
    files.syncDirectory("/");
    files.rename("/a", "/d/a");
    files.syncDirectory("/d");
    files.crash();
    expect(files.readDirectory("/")).toEqual(["d"]);
    expect(readAll(files, "/d/a")).toEqual(OLD);
    expect(files.lstat("/d/a")?.linkCount).toBe(1);
  });

  test("does not bring back under its old name what was renamed before it was synced", () => {
    const files = newDisk();
    files.makeDirectory("/d");
    files.syncDirectory("/");
    write(files, "/a", OLD, { isSynced: true });
    files.rename("/a", "/d/a");
    files.syncDirectory("/d");
    files.crash({ torn: fixed(0.999) });
    expect(files.readDirectory("/")).toEqual(["d"]);
    expect(files.readDirectory("/d")).toEqual(["a"]);
  });

  test("takes all below a directory whose own name was not synced", () => {
    const files = newDisk();
    files.makeDirectory("/d");
    write(files, "/d/a", OLD, { isSynced: true });
    files.syncDirectory("/d");
    files.crash();
    expect(files.lstat("/d")).toBeUndefined();
  });

  test("closes all handles, and counts links and bytes anew", () => {
    const files = newDurableFile();
    files.link("/a", "/b");
    write(files, "/c", NEW);
    const handle = files.open("/a", "r");
    files.crash();
    expect(() => files.stat(handle)).toThrow("EBADF");
    expect(files.lstat("/a")?.linkCount).toBe(1);
    const { freeBytes, totalBytes } = files.space("/");
    expect(totalBytes - freeBytes).toBe(OLD.byteLength);
  });

  test("torn, keeps a beginning of the new content before the rest of the old", () => {
    const seen = new Set<string>();
    for (let step = 0; step <= 6; step += 1) {
      const files = newDurableFile();
      overwrite(files, "/a", NEW);
      files.crash({ torn: fixed(step / 7) });
      seen.add(readAll(files, "/a").join(""));
    }
    expect([...seen]).toEqual(["1111", "2111", "2211", "2221", "2222", "22222", "222222"]);
  });

  test("torn, keeps the first few changes of names in their order", () => {
    const seen: string[] = [];
    for (let step = 0; step <= 2; step += 1) {
      const files = newDisk();
      files.makeDirectory("/first");
      files.makeDirectory("/second");
      files.crash({ torn: fixed(step / 3) });
      seen.push(files.readDirectory("/").join());
    }
    expect(seen).toEqual(["", "first", "first,second"]);
  });

  test("gives a file that comes back a number of its own", () => {
    const files = newDurableFile();
    const number = files.lstat("/a")?.inode;
    files.unlink("/a");
    write(files, "/b", NEW);
    expect(files.lstat("/b")?.inode).toBe(number);
    files.crash({ torn: fixed(0) });
    const again = newDurableFile();
    again.makeDirectory("/d");
    again.syncDirectory("/");
    again.unlink("/a");
    write(again, "/d/b", NEW, { isSynced: true });
    again.syncDirectory("/d");
    again.crash();
    expect(again.readDirectory("/").toSorted()).toEqual(["a", "d"]);
    expect(again.lstat("/a")?.inode).not.toBe(again.lstat("/d/b")?.inode);
  });
});

describe("a full disk", () => {
  test("takes what fits, then fails with no-space", () => {
    const files = new MemoryFileSystem({ clock, capacityBytes: 4 });
    const handle = files.open("/a", "create");
    expect(() => files.write(handle, NEW, 0)).toThrow("ENOSPC");
    files.close(handle);
    expect(readAll(files, "/a")).toEqual(NEW.slice(0, 4));
    overwrite(files, "/a", OLD);
    expect(readAll(files, "/a")).toEqual(OLD);
  });

  test("gives space back when the last link and handle are gone", () => {
    const files = new MemoryFileSystem({ clock, capacityBytes: 6 });
    write(files, "/a", NEW);
    files.link("/a", "/b");
    const handle = files.open("/a", "r");
    const free = (): number => files.space("/").freeBytes;
    files.unlink("/a");
    expect(free()).toBe(0);
    files.unlink("/b");
    expect(free()).toBe(0);
    files.close(handle);
    expect(free()).toBe(6);
  });
});

describe("faults", () => {
  test("stop a call before it does anything, and every call is counted", () => {
    const files = newDurableFile();
    const calls: string[] = [];
    const before = files.callCount;
    files.fault = (call, path) => {
      calls.push(`${call} ${path}`);
      if (call === "unlink") throw new AppError("unavailable", "injected");
    };
    expect(() => files.unlink("/a")).toThrow("injected");
    files.lstat("/a");
    const handle = files.open("/a", "r");
    files.close(handle);
    expect(calls).toEqual(["unlink /a", "lstat /a", "open /a", "close /a"]);
    expect(files.callCount - before).toBe(4);
    files.fault = undefined;
    expect(readAll(files, "/a")).toEqual(OLD);
  });

  test("a lost sync succeeds, and the power cut shows it", () => {
    const files = newDisk();
    files.fault = (call) => (call.startsWith("sync") ? "lost" : undefined);
    write(files, "/a", OLD, { isSynced: true });
    files.syncDirectory("/");
    files.crash();
    expect(files.readDirectory("/")).toEqual([]);
  });

  test("a flipped bit is there before and after a power cut, and in no time stamp", () => {
    const files = newDurableFile();
    const before = files.lstat("/a");
    files.flipBit("/a", 2, 1);
    expect(readAll(files, "/a")).toEqual(new Uint8Array([1, 1, 3, 1]));
    expect(files.lstat("/a")).toEqual(before);
    files.crash();
    expect(readAll(files, "/a")).toEqual(new Uint8Array([1, 1, 3, 1]));
  });
});

test("no link or rename leads out of a volume", () => {
  const files = new MemoryFileSystem({ clock, volumes: ["/mnt"] });
  files.makeDirectory("/mnt");
  write(files, "/a", OLD);
  expect(() => files.link("/a", "/mnt/a")).toThrow("EXDEV");
  expect(() => files.rename("/a", "/mnt/a")).toThrow("EXDEV");
  write(files, "/mnt/b", OLD);
  files.link("/mnt/b", "/mnt/c");
  expect(files.lstat("/mnt/c")?.device).not.toBe(files.lstat("/a")?.device);
});

test("a dead process leaves the disk as programs saw it", () => {
  const files = newDisk();
  const handle = files.open("/a", "create");
  files.write(handle, OLD, 0);
  files.dropHandles();
  expect(() => files.close(handle)).toThrow("EBADF");
  expect(readAll(files, "/a")).toEqual(OLD);
});

function newDisk(): MemoryFileSystem {
  return new MemoryFileSystem({ clock });
}

/** A disk with OLD in `/a`, all of it durable. */
function newDurableFile(): MemoryFileSystem {
  const files = newDisk();
  write(files, "/a", OLD, { isSynced: true });
  files.syncDirectory("/");
  return files;
}

function write(
  files: MemoryFileSystem,
  path: string,
  bytes: Uint8Array,
  options: { readonly isSynced?: boolean } = {},
): void {
  const handle = files.open(path, "create");
  files.write(handle, bytes, 0);
  if (options.isSynced === true) files.sync(handle);
  files.close(handle);
}

function overwrite(files: MemoryFileSystem, path: string, bytes: Uint8Array): void {
  const handle = files.open(path, "write");
  files.write(handle, bytes, 0);
  files.close(handle);
}

function syncFile(files: MemoryFileSystem, path: string): void {
  const handle = files.open(path, "write");
  files.sync(handle);
  files.close(handle);
}

function readAll(files: MemoryFileSystem, path: string): Uint8Array {
  const handle = files.open(path, "r");
  const target = new Uint8Array(files.stat(handle).sizeBytes);
  files.read(handle, target, 0);
  files.close(handle);
  return target;
}

/** Chance that always falls the same way. */
function fixed(fraction: number): Random {
  return { bytes: (size) => new Uint8Array(size), fraction: () => fraction };
}
