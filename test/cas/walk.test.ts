/** Walking a volume: order, filters, and what is not there or cannot be read. */
import { expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import type { FileSystem } from "../../src/base/doors.ts";
import { AppError } from "../../src/base/error.ts";
import { realFileSystem } from "../../src/base/file-system.ts";
import type { Problem } from "../../src/cas/write/volume-source.ts";
import { walkVolume } from "../../src/cas/write/walk.ts";
import type { WalkOptions } from "../../src/cas/write/walk.ts";
import { temporaryFolder } from "./temporary-folder.ts";

function makeTree(root: string, files: readonly string[]): void {
  for (const file of files) {
    fs.mkdirSync(join(root, file, ".."), { recursive: true });
    fs.writeFileSync(join(root, file), file);
  }
}

function walk(root: string, options: Partial<WalkOptions> = {}): string[] {
  return [...walkVolume({ files: realFileSystem, root, ...options })].map(({ path }) => path);
}

test("paths ascend by the bytes of the whole path, folders before their content", () => {
  using folder = temporaryFolder();
  makeTree(folder.path, ["a/b", "a/c/d", "a-b", "a.txt", "a-/x", "a0", "z", "a/b-/q", "a-b-/r"]);
  const paths = walk(folder.path);
  expect(paths).toEqual(paths.toSorted());
  expect(paths).toEqual([
    "a",
    "a-",
    "a-/x",
    "a-b",
    "a-b-",
    "a-b-/r",
    "a.txt",
    "a/b",
    "a/b-",
    "a/b-/q",
    "a/c",
    "a/c/d",
    "a0",
    "z",
  ]);
});

test("names that are not UTF-8 keep their bytes", () => {
  using folder = temporaryFolder();
  fs.writeFileSync(Buffer.from(`${folder.path}/\xff\xe9`, "latin1"), "x");
  expect(walk(folder.path)).toEqual(["\xff\xe9"]);
});

test("an excluded folder is left out with all it holds, hidden files match like others", () => {
  using folder = temporaryFolder();
  makeTree(folder.path, ["data/a", "tmp/b", "data/.hidden.log", "data/tmp/c", "x.log"]);
  expect(walk(folder.path, { exclude: ["tmp/", "**/*.log"] })).toEqual([
    "data",
    "data/a",
    "data/tmp",
    "data/tmp/c",
  ]);
});

test("only folders that may lead to an included file are entered", () => {
  using folder = temporaryFolder();
  makeTree(folder.path, ["data/a.db", "data/a.tmp", "data/deep/b.db", "other/c.db", "keep/d"]);
  const listed: string[] = [];
  const files: FileSystem = Object.assign(Object.create(realFileSystem) as FileSystem, {
    readDirectory(path: string) {
      listed.push(path.slice(folder.path.length));
      return realFileSystem.readDirectory(path);
    },
  });
  expect(walk(folder.path, { files, include: ["data/**/*.db", "keep"] })).toEqual([
    "data",
    "data/a.db",
    "data/deep",
    "data/deep/b.db",
    "keep",
    "keep/d",
  ]);
  expect(listed.toSorted()).toEqual(["", "/data", "/data/deep", "/keep"]);
});

test("symbolic links are entries and are not followed", () => {
  using folder = temporaryFolder();
  makeTree(folder.path, ["real/file"]);
  fs.symlinkSync("real", join(folder.path, "link"));
  const entries = [...walkVolume({ files: realFileSystem, root: folder.path })];
  expect(entries.map(({ path, stat }) => `${path} ${stat.type}`)).toEqual([
    "link symlink",
    "real directory",
    "real/file file",
  ]);
});

test("a skipped path is left out with what is below it", () => {
  using folder = temporaryFolder();
  makeTree(folder.path, [".captures/a", "b"]);
  expect(walk(folder.path, { skip: (path) => path === ".captures" })).toEqual(["b"]);
});

test("a folder on another device is an entry, is not entered, and is a problem", () => {
  using folder = temporaryFolder();
  makeTree(folder.path, ["mounted/a", "b"]);
  const files: FileSystem = Object.assign(Object.create(realFileSystem) as FileSystem, {
    lstat(path: string) {
      const stat = realFileSystem.lstat(path);
      if (stat === undefined || !path.includes("mounted")) return stat;
      return { ...stat, device: stat.device + 1n };
    },
  });
  expect(walk(folder.path, { files })).toEqual(["b", "mounted"]);
  const problems: Problem[] = [];
  walk(folder.path, { files, onProblem: (problem) => problems.push(problem) });
  expect(problems).toMatchObject([{ path: "mounted", kind: "unreadable" }]);
  expect(walk(folder.path, { files, crossDevices: true })).toEqual(["b", "mounted", "mounted/a"]);
});

test("a folder that cannot be listed is a problem, one that vanished is none", () => {
  using folder = temporaryFolder();
  makeTree(folder.path, ["locked/a", "gone/b", "c"]);
  const kinds = { locked: "permission", gone: "not-found" } as const;
  const files: FileSystem = Object.assign(Object.create(realFileSystem) as FileSystem, {
    readDirectory(path: string) {
      for (const [name, kind] of Object.entries(kinds)) {
        if (path.endsWith(name)) throw new AppError(kind, `no ${name}`);
      }
      return realFileSystem.readDirectory(path);
    },
  });
  const problems: Problem[] = [];
  const paths = walk(folder.path, { files, onProblem: (problem) => problems.push(problem) });
  expect(paths).toEqual(["c", "gone", "locked"]);
  expect(problems).toEqual([{ path: "locked", kind: "unreadable", message: "no locked" }]);
});

test("a root that is not there is an error that says so", () => {
  expect(() => walk("/nowhere/at/all")).toThrow("does not exist");
});
