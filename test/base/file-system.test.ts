/**
 * The real disk against the contract, and what only a real disk can do.
 */
import { describe, expect, test } from "bun:test";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { AppError } from "../../src/base/error.ts";
import { errnoError } from "../../src/base/errno.ts";
import { realFileSystem } from "../../src/base/file-system.ts";
import { MemoryFileSystem } from "../simulation/memory-file-system.ts";
import { describeFileSystem } from "./file-system-contract.ts";
import type { Subject } from "./file-system-contract.ts";

const MIB = 1024 * 1024;

describeFileSystem("the real file system", openReal);
describeFileSystem("the file system in memory", openMemory);

describe("the real file system alone", () => {
  test("tells holes from data", () => {
    using subject = openReal();
    const handle = realFileSystem.open(`${subject.root}/sparse`, "create");
    realFileSystem.write(handle, new Uint8Array(10).fill(1), 8 * MIB);
    realFileSystem.truncate(handle, 32 * MIB);
    const ranges = realFileSystem.dataRanges(handle, 32 * MIB);
    realFileSystem.close(handle);
    expect(ranges.length).toBe(1);
    const [range] = ranges;
    expect(range?.offset).toBeLessThanOrEqual(8 * MIB);
    expect((range?.offset ?? 0) + (range?.length ?? 0)).toBeGreaterThanOrEqual(8 * MIB + 10);
    expect(range?.length).toBeLessThan(4 * MIB);
  });

  test("reads and writes beyond 4 GiB", () => {
    using subject = openReal();
    const handle = realFileSystem.open(`${subject.root}/large`, "create");
    const position = 5 * 1024 * MIB + 3;
    realFileSystem.write(handle, new Uint8Array([42]), position);
    realFileSystem.close(handle);
    const reader = realFileSystem.open(`${subject.root}/large`, "r");
    const target = new Uint8Array(2);
    expect(realFileSystem.read(reader, target, position)).toBe(1);
    expect(target[0]).toBe(42);
    expect(realFileSystem.stat(reader).sizeBytes).toBe(position + 1);
    realFileSystem.close(reader);
  });

  test("syncs many files at once, and tells of one that is not open", () => {
    using subject = openReal();
    const handles = Array.from({ length: 10 }, (_, index) => {
      const handle = realFileSystem.open(`${subject.root}/f${index}`, "create");
      realFileSystem.write(handle, new Uint8Array(5000).fill(index), 0);
      return handle;
    });
    realFileSystem.syncAll?.(handles);
    const [first = 0] = handles;
    for (const handle of handles) realFileSystem.close(handle);
    expect(() => realFileSystem.syncAll?.([first])).toThrow(AppError);
  });

  test("is not held up by a FIFO in a file's place", () => {
    using subject = openReal();
    execFileSync("mkfifo", [`${subject.root}/fifo`]);
    const handle = realFileSystem.open(`${subject.root}/fifo`, "r");
    expect(realFileSystem.stat(handle).type).toBe("other");
    realFileSystem.close(handle);
  });
});

describe("errnoError", () => {
  test("maps the errors that callers tell apart", () => {
    const kindOf = (code: string): string => errnoError({ action: "open", path: "/a", code }).kind;
    expect(["ENOENT", "EACCES", "EROFS", "ENOSPC", "EDQUOT", "EEXIST"].map(kindOf)).toEqual([
      "not-found",
      "permission",
      "permission",
      "no-space",
      "no-space",
      "conflict",
    ]);
    expect(["ENOTEMPTY", "EXDEV", "ELOOP", "EIO", "EMFILE"].map(kindOf)).toEqual([
      "conflict",
      "refused",
      "refused",
      "damaged",
      "unavailable",
    ]);
  });

  test("does not promise that an unknown error goes away", () => {
    const error = errnoError({ action: "open", path: "/a", code: "EODD" });
    expect(error).toBeInstanceOf(AppError);
    expect(error.retryable).toBe(false);
  });

  test("tells what a refused hard link needs", () => {
    const error = errnoError({ action: "link /b to", path: "/a", code: "EPERM" });
    expect(error.guidance).toContain("CAP_FOWNER");
  });

  test("shows paths as people write them", () => {
    const error = errnoError({ action: "open", path: "/\xc3\xbc", code: "ENOENT" });
    expect(error.message).toContain("/ü");
    expect(error.context["path"]).toBe("/ü");
  });
});

function openReal(): Subject {
  const root = mkdtempSync(`${tmpdir()}/astacus-files-`);
  const probe = `${root}.probe`;
  return {
    files: realFileSystem,
    root,
    tick() {
      const start = touch(probe);
      while (touch(probe) <= start) continue;
    },
    [Symbol.dispose]() {
      rmSync(root, { recursive: true });
      rmSync(probe, { force: true });
    },
  };
}

/** Makes a file anew and returns when the disk thinks that this was. */
function touch(path: string): bigint {
  rmSync(path, { force: true });
  realFileSystem.close(realFileSystem.open(path, "create"));
  return realFileSystem.lstat(path)?.mtimeNs ?? 0n;
}

function openMemory(): Subject {
  let nowMs = 1_800_000_000_000;
  const files = new MemoryFileSystem({ clock: { now: () => nowMs } });
  files.makeDirectory("/data");
  return {
    files,
    root: "/data",
    tick() {
      nowMs += 1;
    },
    [Symbol.dispose]() {
      files.dropHandles();
    },
  };
}
