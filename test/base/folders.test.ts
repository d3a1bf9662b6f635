/** Removing whole folders: what goes, what stays, and that others have their turn meanwhile. */
import { afterAll, expect, test } from "bun:test";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { FileSystem } from "../../src/base/doors.ts";
import { errnoError } from "../../src/base/errno.ts";
import { realFileSystem } from "../../src/base/file-system.ts";
import { removeFolder } from "../../src/base/folders.ts";

const BASE = fs.mkdtempSync(join(tmpdir(), "astacus-folders-"));
afterAll(() => fs.rmSync(BASE, { recursive: true }));

const atOnce = async (): Promise<void> => undefined;

test("a folder goes with all it holds, and what its links point to stays", async () => {
  const [folder, other] = [join(BASE, "folder"), join(BASE, "other")];
  fs.mkdirSync(join(folder, "deep/deeper"), { recursive: true });
  fs.mkdirSync(other);
  for (const path of [join(folder, "a"), join(folder, "deep/deeper/b"), join(other, "kept")]) {
    fs.writeFileSync(path, "x");
  }
  fs.symlinkSync(other, join(folder, "deep/link"));
  await removeFolder(realFileSystem, folder, atOnce);
  expect(fs.existsSync(folder)).toBe(false);
  expect(fs.readdirSync(other)).toEqual(["kept"]);
  await removeFolder(realFileSystem, folder, atOnce);
  await removeFolder(realFileSystem, join(other, "kept"), atOnce);
  expect(fs.readdirSync(other)).toEqual([]);
});

test.each([1, 50])("others have their turn while files in %d folders go", async (folderCount) => {
  const folder = join(BASE, `large-${folderCount}`);
  for (let index = 0; index < 2500; index += 1) {
    const part = join(folder, `${index % folderCount}`);
    fs.mkdirSync(part, { recursive: true });
    fs.writeFileSync(join(part, `${index}`), "");
  }
  const left: number[] = [];
  await removeFolder(realFileSystem, folder, async () => {
    left.push(fs.readdirSync(folder, { recursive: true }).length);
  });
  expect(left).toHaveLength(2);
  expect(left[0]).toBeGreaterThan(left[1]!);
  expect(fs.existsSync(folder)).toBe(false);
});

test("a file that cannot be removed is told", async () => {
  const folder = join(BASE, "held");
  fs.mkdirSync(folder);
  fs.writeFileSync(join(folder, "file"), "x");
  const files = Object.assign(Object.create(realFileSystem) as FileSystem, {
    unlink: (path: string) => {
      throw errnoError({ action: "remove", path, code: "EPERM" });
    },
  });
  expect(removeFolder(files, folder, atOnce)).rejects.toThrow("held/file");
  expect(fs.readdirSync(folder)).toEqual(["file"]);
});
