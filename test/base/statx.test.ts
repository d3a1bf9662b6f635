/** What the kernel tells of a file: the same as `node:fs`, for every kind of file and every time. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AppError } from "../../src/base/error.ts";
import { realFileSystem } from "../../src/base/file-system.ts";
import { statPath } from "../../src/base/platform.ts";
import { StatxBuffer } from "../../src/base/statx.ts";

const isLinux = process.platform === "linux";

test.skipIf(!isLinux)("a path is what node:fs says it is, whatever it is [needs Linux]", () => {
  const folder = fs.mkdtempSync(join(tmpdir(), "astacus-statx-"));
  try {
    fs.writeFileSync(join(folder, "file"), "twelve bytes", { mode: 0o640 });
    fs.linkSync(join(folder, "file"), join(folder, "link"));
    fs.symlinkSync("nowhere", join(folder, "symlink"));
    fs.mkdirSync(join(folder, "directory"));
    fs.lutimesSync(join(folder, "symlink"), -5, -5);
    fs.utimesSync(join(folder, "directory"), 8_000_000_000, 8_000_000_000);
    const names = ["file", "link", "symlink", "directory"].map((name) => join(folder, name));
    for (const path of [...names, "/dev/null", "/proc/self/exe", "/proc/1/stat", "/"]) {
      const expected = fs.lstatSync(path, { bigint: true });
      const found = statPath(path)!;
      expect([path, found]).toEqual([path, { ...found, ...fieldsOf(expected) }]);
      expect(found.allocatedBytes).toBe(Number(expected.blocks) * 512);
    }
    expect(realFileSystem.lstat(names[2]!)?.type).toBe("symlink");
    const handle = realFileSystem.open(names[0]!, "r");
    expect(realFileSystem.stat(handle)).toEqual(realFileSystem.lstat(names[0]!)!);
    realFileSystem.close(handle);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});

test("what is not there is told apart from what cannot be looked at", () => {
  expect(realFileSystem.lstat("/proc/self/nothing")).toBeUndefined();
  expect(realFileSystem.lstat("/dev/null/nothing")).toBeUndefined();
  expect(() => realFileSystem.lstat(`/${"a".repeat(300)}`)).toThrow(AppError);
  expect(() => realFileSystem.lstat(`/${"a/".repeat(4000)}`)).toThrow(AppError);
  expect(() => realFileSystem.lstat("/a\0b")).toThrow(AppError);
  expect(() => realFileSystem.stat(99_999)).toThrow(AppError);
});

test("every time is exact to the nanosecond", () => {
  const seconds = fc.oneof(
    fc.bigInt({ min: 0n, max: 2n ** 32n - 1n }),
    fc.bigInt({ min: -(2n ** 33n), max: 2n ** 33n }),
  );
  fc.assert(
    fc.property(seconds, fc.integer({ min: 0, max: 999_999_999 }), (second, nanosecond) => {
      const buffer = new StatxBuffer();
      const view = new DataView(buffer.bytes.buffer);
      view.setBigInt64(112, second, true);
      view.setUint32(120, nanosecond, true);
      const stat = buffer.read();
      expect(stat.mtimeNs).toBe(second * 1_000_000_000n + BigInt(nanosecond));
      expect(stat.birthtimeNs).toBe(0n);
    }),
    { numRuns: 2000 },
  );
});

function fieldsOf(stats: fs.BigIntStats): object {
  return {
    sizeBytes: Number(stats.size),
    mtimeNs: stats.mtimeNs,
    ctimeNs: stats.ctimeNs,
    mode: Number(stats.mode & 0o7777n),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    inode: stats.ino,
    device: stats.dev,
    linkCount: Number(stats.nlink),
  };
}
