/**
 * What every FileSystem must do: one suite, run against the disk of this machine and against the
 * simulated one. A property that holds on one only is either a defect of the simulation or must be
 * named in its header.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { FileStat, FileSystem } from "../../src/base/doors.ts";
import { AppError } from "../../src/base/error.ts";
import type { ErrorKind } from "../../src/base/error.ts";

/** A file system to try, with an empty directory to do it in. */
export type Subject = Disposable & {
  readonly files: FileSystem;
  readonly root: string;
  /** Returns when the clock that stamps files has moved on. */
  tick(): void;
};

const BYTES = new TextEncoder().encode("the quick brown fox");
/** "naïve" in latin1, which is not UTF-8, and "ü" in UTF-8. */
const RAW_NAMES = ["na\xefve", "\xc3\xbc", "plain"];

/** Runs the suite. */
export function describeFileSystem(name: string, open: () => Subject): void {
  describe(name, () => {
    let subject: Subject;
    let files: FileSystem;
    const at = (path: string): string => `${subject.root}/${path}`;
    const stat = (path: string): FileStat => {
      const found = files.lstat(at(path));
      if (found === undefined) throw new Error(`nothing at ${path}`);
      return found;
    };
    const context: Context = {
      at,
      stat,
      files: () => files,
      tick: () => subject.tick(),
      put(path, bytes = BYTES) {
        const handle = files.open(at(path), "create");
        files.write(handle, bytes, 0);
        files.sync(handle);
        files.close(handle);
      },
      get(path) {
        const handle = files.open(at(path), "r");
        try {
          const target = new Uint8Array(files.stat(handle).sizeBytes);
          expect(files.read(handle, target, 0)).toBe(target.byteLength);
          return target;
        } finally {
          files.close(handle);
        }
      },
    };
    beforeEach(() => {
      subject = open();
      files = subject.files;
    });
    afterEach(() => subject[Symbol.dispose]());
    describeContent(context);
    describeNames(context);
    describeLinks(context);
    describeMetadata(context);
  });
}

type Context = {
  readonly at: (path: string) => string;
  readonly stat: (path: string) => FileStat;
  readonly files: () => FileSystem;
  readonly tick: () => void;
  readonly put: (path: string, bytes?: Uint8Array) => void;
  readonly get: (path: string) => Uint8Array;
};

function describeContent({ at, files, put, get, stat }: Context): void {
  test("gives back what was written", () => {
    put("a");
    expect(get("a")).toEqual(BYTES);
    expect(stat("a")).toMatchObject({ type: "file", sizeBytes: BYTES.byteLength, linkCount: 1 });
  });

  test("a read at the end returns 0, one across the end what is there", () => {
    put("a");
    const handle = files().open(at("a"), "r");
    const target = new Uint8Array(8);
    expect(files().read(handle, target, BYTES.byteLength)).toBe(0);
    expect(files().read(handle, target, BYTES.byteLength - 3)).toBe(3);
    expect(target.subarray(0, 3)).toEqual(BYTES.subarray(-3));
    files().close(handle);
  });

  test("a write behind the end leaves zeros, one in the middle leaves the rest", () => {
    put("a", new Uint8Array([1, 2, 3]));
    const handle = files().open(at("a"), "write");
    files().write(handle, new Uint8Array([9]), 1);
    files().write(handle, new Uint8Array([7]), 5);
    files().write(handle, new Uint8Array(0), 100);
    files().close(handle);
    expect(get("a")).toEqual(new Uint8Array([1, 9, 3, 0, 0, 7]));
  });

  test("truncate cuts, and extends with zeros", () => {
    put("a", new Uint8Array([1, 2, 3]));
    const handle = files().open(at("a"), "write");
    files().truncate(handle, 1);
    files().truncate(handle, 3);
    files().close(handle);
    expect(get("a")).toEqual(new Uint8Array([1, 0, 0]));
  });

  test("an open file outlives its name", () => {
    put("a");
    const handle = files().open(at("a"), "r");
    files().unlink(at("a"));
    const target = new Uint8Array(BYTES.byteLength);
    expect(files().read(handle, target, 0)).toBe(BYTES.byteLength);
    expect(target).toEqual(BYTES);
    expect(files().stat(handle).linkCount).toBe(0);
    files().close(handle);
  });

  test("the data ranges of a file hold all its data", () => {
    put("a");
    const handle = files().open(at("a"), "r");
    const size = BYTES.byteLength;
    expect(files().dataRanges(handle, size)).toEqual([{ offset: 0, length: size }]);
    expect(files().dataRanges(handle, 0)).toEqual([]);
    files().close(handle);
  });

  test("what is opened for reading cannot be written, what is created cannot be read", () => {
    put("a");
    const reader = files().open(at("a"), "r");
    expectFailure(() => files().write(reader, BYTES, 0), "internal", "EBADF");
    const writer = files().open(at("b"), "create");
    expectFailure(() => files().read(writer, new Uint8Array(1), 0), "internal", "EBADF");
    files().close(reader);
    files().close(writer);
  });

  test("there is space, and less of it free than in all", () => {
    const { freeBytes, totalBytes } = files().space(at(""));
    expect(freeBytes).toBeGreaterThan(0);
    expect(totalBytes).toBeGreaterThanOrEqual(freeBytes);
  });
}

function describeNames({ at, files, put, get, stat }: Context): void {
  test("names are bytes, whatever they spell", () => {
    for (const name of RAW_NAMES) put(name, new TextEncoder().encode(name));
    expect(files().readDirectory(at("")).toSorted()).toEqual(RAW_NAMES.toSorted());
    for (const name of RAW_NAMES) expect(get(name)).toEqual(new TextEncoder().encode(name));
  });

  test("what is absent is undefined to lstat and not-found to all others", () => {
    put("file");
    for (const path of [at("none"), at("none/below"), at("file/below")]) {
      expect(files().lstat(path)).toBeUndefined();
      expectFailure(() => files().open(path, "r"), "not-found");
      expectFailure(() => files().open(path, "write"), "not-found");
      expectFailure(() => files().unlink(path), "not-found");
      expectFailure(() => files().removeDirectory(path), "not-found");
      expectFailure(() => files().readDirectory(path), "not-found");
      expectFailure(() => files().readLink(path), "not-found");
      expectFailure(() => files().syncDirectory(path), "not-found");
      expectFailure(() => files().setMode(path, 0o600), "not-found");
      expectFailure(() => files().setOwner(path, 0, 0), "not-found");
      expectFailure(() => files().setTimes(path, 1n), "not-found");
      expectFailure(() => files().setXattr(path, "user.a", BYTES), "not-found");
      expectFailure(() => files().readXattrs(path), "not-found");
      expectFailure(() => files().rename(path, at("to")), "not-found");
      expectFailure(() => files().link(path, at("to")), "not-found");
    }
    expectFailure(() => files().open(at("none/below"), "create"), "not-found", "ENOENT");
    expectFailure(() => files().readDirectory(at("file")), "not-found", "ENOTDIR");
  });

  test("a NUL in a path is refused, and does not cut the path there", () => {
    put("a");
    const path = at("a\0b");
    expectFailure(() => files().lstat(path), "refused");
    expectFailure(() => files().open(path, "create"), "refused");
    expectFailure(() => files().setTimes(path, 1n), "refused");
    expectFailure(() => files().setMode(path, 0), "refused");
    expectFailure(() => files().readXattrs(path), "refused");
  });

  test("what exists is never created again", () => {
    put("a", new Uint8Array([1]));
    put("b", new Uint8Array([2]));
    expectFailure(() => files().open(at("a"), "create"), "conflict", "EEXIST");
    expectFailure(() => files().makeDirectory(at("a")), "conflict", "EEXIST");
    expectFailure(() => files().symlink("x", at("a")), "conflict", "EEXIST");
    expectFailure(() => files().link(at("b"), at("a")), "conflict", "EEXIST");
    expect(get("a")).toEqual(new Uint8Array([1]));
  });

  test("rename replaces a file and keeps the inode", () => {
    put("a", new Uint8Array([1]));
    put("b", new Uint8Array([2]));
    const { inode } = stat("a");
    files().rename(at("a"), at("b"));
    expect(get("b")).toEqual(new Uint8Array([1]));
    expect(stat("b").inode).toBe(inode);
    expect(files().readDirectory(at(""))).toEqual(["b"]);
  });

  test("rename moves a directory with all in it, not into itself nor over a full one", () => {
    files().makeDirectory(at("d"));
    files().makeDirectory(at("full"));
    put("d/a");
    put("full/a");
    expectFailure(() => files().rename(at("d"), at("d/e")), "refused", "EINVAL");
    expectFailure(() => files().rename(at("d"), at("full")), "conflict", "ENOTEMPTY");
    expectFailure(() => files().rename(at("d/a"), at("full")), "refused", "EISDIR");
    files().rename(at("d"), at("e"));
    expect(get("e/a")).toEqual(BYTES);
    expect(files().lstat(at("d"))).toBeUndefined();
  });

  test("directories go when they are empty, and only by removeDirectory", () => {
    files().makeDirectory(at("d"), 0o711);
    expect(stat("d")).toMatchObject({ type: "directory", mode: 0o711 });
    put("d/a");
    expectFailure(() => files().removeDirectory(at("d")), "conflict", "ENOTEMPTY");
    expectFailure(() => files().unlink(at("d")), "refused", "EISDIR");
    expectFailure(() => files().removeDirectory(at("d/a")), "not-found", "ENOTDIR");
    files().unlink(at("d/a"));
    files().syncDirectory(at("d"));
    files().removeDirectory(at("d"));
    expect(files().readDirectory(at(""))).toEqual([]);
  });

  test("a directory cannot be read or written as a file", () => {
    files().makeDirectory(at("d"));
    expectFailure(() => files().open(at("d"), "write"), "refused", "EISDIR");
    const handle = files().open(at("d"), "r");
    expectFailure(() => files().read(handle, new Uint8Array(1), 0), "refused", "EISDIR");
    files().close(handle);
  });
}

function describeLinks({ at, files, put, get, stat, tick }: Context): void {
  test("hard links share one inode, and making or removing one changes ctime alone", () => {
    put("a");
    const before = stat("a");
    tick();
    files().link(at("a"), at("b"));
    const linked = stat("b");
    expect(linked).toMatchObject({ inode: before.inode, linkCount: 2, mtimeNs: before.mtimeNs });
    expect(linked.ctimeNs).toBeGreaterThan(before.ctimeNs);
    tick();
    files().unlink(at("a"));
    const after = stat("b");
    expect(after).toMatchObject({ linkCount: 1, mtimeNs: before.mtimeNs });
    expect(after.ctimeNs).toBeGreaterThan(linked.ctimeNs);
    expect(get("b")).toEqual(BYTES);
  });

  test("a directory cannot be hard linked", () => {
    files().makeDirectory(at("d"));
    expectFailure(() => files().link(at("d"), at("e")), "permission", "EPERM");
  });

  test("a symbolic link is read and never followed", () => {
    put("a");
    files().symlink("a", at("l"));
    files().symlink("na\xefve", at("raw"));
    expect(files().readLink(at("raw"))).toBe("na\xefve");
    expect(stat("l")).toMatchObject({ type: "symlink", sizeBytes: 1 });
    const before = stat("a");
    expectFailure(() => files().open(at("l"), "r"), "refused", "ELOOP");
    expectFailure(() => files().open(at("l"), "write"), "refused", "ELOOP");
    expectFailure(() => files().open(at("l"), "create"), "conflict", "EEXIST");
    expectFailure(() => files().setMode(at("l"), 0o777), "refused");
    files().setTimes(at("l"), 5n);
    expect(stat("l").mtimeNs).toBe(5n);
    expect(stat("a")).toEqual(before);
    expectFailure(() => files().readLink(at("a")), "refused", "EINVAL");
  });

  test("rename and unlink take the link, not its target", () => {
    put("a");
    files().symlink("a", at("l"));
    files().rename(at("l"), at("m"));
    expect(stat("m").type).toBe("symlink");
    files().unlink(at("m"));
    expect(get("a")).toEqual(BYTES);
  });
}

function describeMetadata({ at, files, put, stat, tick }: Context): void {
  test("times keep their nanoseconds, before 1970 as well", () => {
    put("a");
    for (const ns of [1_700_000_000_123_456_789n, 0n, -1n, -1_500_000_001n]) {
      files().setTimes(at("a"), ns);
      expect(stat("a").mtimeNs).toBe(ns);
    }
  });

  test("modes keep all twelve bits and change ctime alone", () => {
    put("a");
    expect(stat("a").mode).toBe(0o600);
    const before = stat("a");
    tick();
    files().setMode(at("a"), 0o4751);
    const after = stat("a");
    expect(after).toMatchObject({ mode: 0o4751, mtimeNs: before.mtimeNs });
    expect(after.ctimeNs).toBeGreaterThan(before.ctimeNs);
  });

  test("a write changes mtime, a read does not", () => {
    put("a");
    const before = stat("a");
    tick();
    const handle = files().open(at("a"), "write");
    files().read(handle, new Uint8Array(4), 0);
    expect(files().stat(handle).mtimeNs).toBe(before.mtimeNs);
    files().write(handle, new Uint8Array([1]), 0);
    expect(files().stat(handle).mtimeNs).toBeGreaterThan(before.mtimeNs);
    files().close(handle);
  });

  test("a new name changes the mtime of its directory", () => {
    files().makeDirectory(at("d"));
    const before = stat("d");
    tick();
    put("d/a");
    expect(stat("d").mtimeNs).toBeGreaterThan(before.mtimeNs);
  });

  test("setting the owner that it has is allowed to anybody", () => {
    put("a");
    const { uid, gid } = stat("a");
    files().setOwner(at("a"), uid, gid);
    expect(stat("a")).toMatchObject({ uid, gid });
  });

  test("extended attributes keep their bytes, none and many", () => {
    put("a");
    expect([...files().readXattrs(at("a")).keys()].filter(isUserXattr)).toEqual([]);
    const long = new Uint8Array(2000).fill(0xff);
    files().setXattr(at("a"), "user.empty", new Uint8Array(0));
    files().setXattr(at("a"), "user.long", BYTES);
    files().setXattr(at("a"), "user.long", long);
    const found = files().readXattrs(at("a"));
    expect([...found.keys()].filter(isUserXattr).toSorted()).toEqual(["user.empty", "user.long"]);
    expect(found.get("user.empty")).toEqual(new Uint8Array(0));
    expect(found.get("user.long")).toEqual(long);
  });
}

function isUserXattr(name: string): boolean {
  return name.startsWith("user.");
}

/** The call fails with an AppError of that kind which says what to do. */
function expectFailure(call: () => unknown, kind: ErrorKind, code?: string): void {
  let thrown: unknown;
  try {
    call();
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBeInstanceOf(AppError);
  if (!(thrown instanceof AppError)) return;
  expect({ kind: thrown.kind, message: thrown.message }).toEqual({ kind, message: thrown.message });
  if (code !== undefined) expect(thrown.context["code"]).toBe(code);
  expect(thrown.guidance).toBeString();
  expect(thrown.context["path"]).toBeString();
}
