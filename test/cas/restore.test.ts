/** Restores: exactly what was backed up, nothing else touched, and nothing that must not be. */
import { describe, expect, test } from "bun:test";
import type { FileSystem } from "../../src/base/doors.ts";
import { errnoError } from "../../src/base/errno.ts";
import type { AppError } from "../../src/base/error.ts";
import type { RestoreRunOptions } from "../../src/cas/read/restore-options.ts";
import { planVolumeRestore, runVolumeRestore } from "../../src/cas/read/restore.ts";
import type { MemoryFileSystem } from "../simulation/memory-file-system.ts";
import { noise } from "./noise.ts";
import type { TestFile } from "./repository-builder.ts";
import {
  disk,
  everyKind,
  failureOf,
  memoryDisk,
  optionsOf,
  OUR_GID,
  OUR_UID,
  prepare,
  text,
  withCalls,
} from "./restore-setup.ts";
import { readFile, shapeExpected, shapeOf, walk, writeFile } from "./tree-shape.ts";

describe.each(["real", "memory"] as const)("on the %s disk", (kind) => {
  test("restores every kind of file exactly", async () => {
    using at = disk(kind);
    using prepared = await prepare(everyKind());
    const target = `${at.root}/new/place`;
    const result = await runVolumeRestore(optionsOf(prepared, { files: at.files, target }));
    const shape = { withOwners: true };
    expect(shapeOf(at.files, target, shape)).toEqual(shapeExpected(everyKind(), shape));
    expect(result).toMatchObject({
      filesWritten: 9,
      filesKept: 0,
      directories: 3,
      symlinks: 2,
      hardlinks: 2,
      ownersNotSet: 0,
    });
  });

  test("changes nothing the second time", async () => {
    using at = disk(kind);
    using prepared = await prepare(everyKind());
    const options = optionsOf(prepared, { files: at.files, target: `${at.root}/t` });
    await runVolumeRestore(options);
    const paths = walk(at.files, options.target, "");
    const stats = (): unknown[] => paths.map((path) => at.files.lstat(`${options.target}/${path}`));
    const before = stats();
    const plan = await planVolumeRestore(options);
    expect(plan).toMatchObject({ filesToWrite: 0, bytesToWrite: 0, extraFiles: 0, refusals: [] });
    // A directory that even its owner may not write to is opened for a while.
    const result = await runVolumeRestore(options);
    expect(result).toMatchObject({ filesWritten: 0, filesKept: 9, fetchedBytes: 0 });
    const closed = paths.indexOf("a/closed");
    expect(stats().toSpliced(closed, 1)).toEqual(before.toSpliced(closed, 1));
  });

  test("replaces what differs, a symbolic link included, and mends modes and times", async () => {
    using at = disk(kind);
    const { files, root } = at;
    using prepared = await prepare(everyKind());
    const target = `${root}/t`;
    await runVolumeRestore(optionsOf(prepared, { files, target }));
    files.unlink(`${target}/a-b`);
    files.symlink("/etc/passwd", `${target}/a-b`);
    files.setMode(`${target}/holes`, 0o777);
    files.setTimes(`${target}/nothing`, 77n);
    files.unlink(`${target}/b`);
    writeFile(files, `${target}/b`, text("was a link once"));
    files.unlink(`${target}/many`);
    const handle = files.open(`${target}/na\xefve`, "write");
    files.write(handle, text("NO UTF-8"), 0);
    files.close(handle);
    files.setTimes(`${target}/na\xefve`, 1_700_000_000_123_456_789n);
    const plan = await planVolumeRestore(optionsOf(prepared, { files, target }));
    // By size and time the plan cannot tell that the last one differs.
    expect(plan).toMatchObject({ files: 9, filesToWrite: 3 });
    const result = await runVolumeRestore(optionsOf(prepared, { files, target }));
    expect(result).toMatchObject({ filesWritten: 3, filesKept: 6 });
    expect(shapeOf(files, target)).toEqual(shapeExpected(everyKind()));
  });

  test("never writes into a file that has another name elsewhere", async () => {
    using at = disk(kind);
    const { files, root } = at;
    using prepared = await prepare([{ path: "x", content: text("from the backup") }]);
    files.makeDirectory(`${root}/t`);
    writeFile(files, `${root}/captured`, text("as it was before"));
    files.link(`${root}/captured`, `${root}/t/x`);
    await runVolumeRestore(optionsOf(prepared, { files, target: `${root}/t` }));
    expect(readFile(files, `${root}/captured`)).toEqual(text("as it was before"));
    expect(readFile(files, `${root}/t/x`)).toEqual(text("from the backup"));
  });

  test("removes extra files only if asked to", async () => {
    using at = disk(kind);
    const { files, root } = at;
    using prepared = await prepare([{ path: "d" }, { path: "d/x", content: text("x") }]);
    for (const path of ["t", "t/d", "t/d!", "t/d/sub", "t/gone", "t/gone/deep", "t/caught"]) {
      files.makeDirectory(`${root}/${path}`);
    }
    for (const path of ["t/d/w", "t/d/y", "t/d!/e", "t/gone/deep/f", "t/caught/kept"]) {
      writeFile(files, `${root}/${path}`, text("extra"));
    }
    files.symlink("d", `${root}/t/link`);
    const target = `${root}/t`;
    const options = optionsOf(prepared, { files, target, captureFolders: [`${target}/caught`] });
    const plan = await planVolumeRestore(options);
    expect(plan.extraFiles).toBe(5);
    expect(plan.extraSample).toEqual(["d!/e", "d/w", "d/y", "gone/deep/f", "link"]);
    await runVolumeRestore(options);
    expect(readFile(files, `${root}/t/d/y`)).toEqual(text("extra"));
    const result = await runVolumeRestore({ ...options, extra: "remove" });
    expect(result.filesRemoved).toBe(5);
    expect(walk(files, target, "").toSorted()).toEqual(["caught", "caught/kept", "d", "d/x"]);
  });
});

test("lets others have their turn while it looks for extra files among many", async () => {
  const files = memoryDisk();
  const content = text("x");
  using prepared = await prepare(
    Array.from({ length: 3000 }, (_, index) => ({ path: String(index), content })),
  );
  const options = optionsOf(prepared, { files, target: "/t" });
  await runVolumeRestore(options);
  let looks = 0;
  let looksMax = 0;
  const watched = withCalls(files, {
    lstat: (path) => {
      looks += 1;
      looksMax = Math.max(looksMax, looks);
      return files.lstat(path);
    },
  });
  const pause = async (): Promise<void> => void (looks = 0);
  for (const extra of ["keep", "remove"] as const) {
    await planVolumeRestore({ ...options, extra, files: watched, pause });
  }
  expect(looksMax).toBeGreaterThan(0);
  expect(looksMax).toBeLessThan(2000);
});

test("lets others have their turn while it goes through many records that need no work", async () => {
  const files = memoryDisk();
  const content = text("x");
  using prepared = await prepare(
    Array.from({ length: 3000 }, (_, index) => ({ path: String(index), content })),
  );
  const options = optionsOf(prepared, { files, target: "/t" });
  let pauses = 0;
  const pause = async (): Promise<void> => void (pauses += 1);
  const restoreOrder = (path: string): number => Number(path) % 4;
  await runVolumeRestore({ ...options, restoreOrder });
  await runVolumeRestore({ ...options, restoreOrder, pause });
  // Each of four groups is a walk through all of them.
  expect(pauses).toBeGreaterThanOrEqual(12);
});

describe("a part of a backup", () => {
  const files: TestFile[] = [
    { path: "a", mode: 0o711 },
    { path: "a-b" },
    { path: "a-b/x", content: text("other") },
    { path: "a/first", content: text("linked") },
    { path: "a/x", content: text("wanted") },
    { path: "c" },
    { path: "c/link1", hardlink: "a/first" },
    { path: "c/link2", hardlink: "a/first" },
    { path: "no-parent/deep/x", content: text("nobody recorded its directory") },
  ];

  async function restored(filter: readonly string[]): Promise<string[]> {
    using prepared = await prepare(files);
    const disk = memoryDisk();
    await runVolumeRestore(optionsOf(prepared, { files: disk, target: "/t/x", filter }));
    return walk(disk, "/t/x", "").toSorted();
  }

  test("brings the directories on the way, with their modes", async () => {
    using prepared = await prepare(files);
    const disk = memoryDisk();
    await runVolumeRestore(optionsOf(prepared, { files: disk, target: "/t/x", filter: ["a/x"] }));
    expect(walk(disk, "/t/x", "")).toEqual(["a", "a/x"]);
    expect(disk.lstat("/t/x/a")?.mode).toBe(0o711);
  });

  test("leaves directories on the way as they are", async () => {
    using prepared = await prepare(files);
    const disk = memoryDisk();
    disk.makeDirectory("/t/x");
    disk.makeDirectory("/t/x/a", 0o700);
    await runVolumeRestore(optionsOf(prepared, { files: disk, target: "/t/x", filter: ["a/x"] }));
    expect(disk.lstat("/t/x/a")?.mode).toBe(0o700);
  });

  test("is chosen by globs, names of directories and exceptions", async () => {
    expect((await restored(["**/x"])).join(" ")).toBe(
      "a a-b a-b/x a/x no-parent no-parent/deep no-parent/deep/x",
    );
    expect(await restored(["a"])).toEqual(["a", "a/first", "a/x"]);
    expect(await restored(["a/", "!**/first"])).toEqual(["a", "a/x"]);
    expect(await restored(["*-b"])).toEqual(["a-b", "a-b/x"]);
    expect(await restored(["missing"])).toEqual([]);
  });

  test("has a file under the names that were asked for when its first name was not", async () => {
    using prepared = await prepare(files);
    const disk = memoryDisk();
    await runVolumeRestore(optionsOf(prepared, { files: disk, target: "/t/x", filter: ["c"] }));
    expect(walk(disk, "/t/x", "")).toEqual(["c", "c/link1", "c/link2"]);
    expect(readFile(disk, "/t/x/c/link2")).toEqual(text("linked"));
    expect(disk.lstat("/t/x/c/link1")?.linkCount).toBe(2);
  });

  test("never removes what else is there", async () => {
    using prepared = await prepare(files);
    const disk = memoryDisk();
    disk.makeDirectory("/t/x");
    writeFile(disk, "/t/x/extra", text("stays"));
    const rest = { files: disk, target: "/t/x", filter: ["a"], extra: "remove" } as const;
    await runVolumeRestore(optionsOf(prepared, rest));
    expect(readFile(disk, "/t/x/extra")).toEqual(text("stays"));
  });
});

describe("refuses, and touches nothing,", () => {
  async function refusal(
    arrange: (files: MemoryFileSystem) => void,
    rest: Partial<RestoreRunOptions> = {},
    capacityBytes = 1 << 20,
  ): Promise<AppError> {
    using prepared = await prepare([
      { path: "d" },
      { path: "d/x", content: noise(5000, 1) },
      { path: "l", symlink: "d" },
    ]);
    const files = memoryDisk({ capacityBytes });
    arrange(files);
    const before = walk(files, "/t", "");
    const options = optionsOf(prepared, { files, target: "/t/x", ...rest });
    const plan = await planVolumeRestore(options);
    expect(plan.refusals).not.toEqual([]);
    const error = await failureOf(() => runVolumeRestore(options));
    expect(walk(files, "/t", "")).toEqual(before);
    return error;
  }

  test("a symbolic link where the backup has a directory", async () => {
    const error = await refusal((files) => {
      files.makeDirectory("/t/outside");
      files.makeDirectory("/t/x");
      files.symlink("../outside", "/t/x/d");
    });
    expect(error.kind).toBe("refused");
    expect(error.message).toContain("/t/x/d is a symbolic link");
  });

  test("a file where the backup has a directory", async () => {
    const error = await refusal((files) => {
      files.makeDirectory("/t/x");
      writeFile(files, "/t/x/d", text("x"));
    });
    expect(error.message).toContain("/t/x/d is not a directory");
  });

  test("a directory where the backup has a file or a link", async () => {
    const error = await refusal((files) => {
      for (const path of ["/t/x", "/t/x/d", "/t/x/d/x", "/t/x/l"]) files.makeDirectory(path);
    });
    expect(error.message).toContain("/t/x/d/x is a directory");
    expect(error.message).toContain("1 more reason");
  });

  test("a target that is a file", async () => {
    const error = await refusal((files) => writeFile(files, "/t/x", text("x")));
    expect(error.message).toContain("/t/x is in the way");
  });

  test("a target among captures", async () => {
    const error = await refusal(() => undefined, { captureFolders: ["/t"] });
    expect(error.message).toContain("captures");
  });

  test("too little space, with both figures", async () => {
    const error = await refusal(() => undefined, {}, 4000);
    expect(error.kind).toBe("no-space");
    expect(error.message).toMatch(/needs .* of free space and has /);
  });

  test("a target that is no plain absolute path", async () => {
    using prepared = await prepare([]);
    for (const target of ["relative", "/", "/t/../etc", "/t//x"]) {
      const options = optionsOf(prepared, { files: memoryDisk(), target });
      expect((await failureOf(() => runVolumeRestore(options))).kind).toBe("usage");
    }
  });
});

describe("owners", () => {
  const files: TestFile[] = [
    { path: "d", uid: 71, gid: 72 },
    { path: "d/x", content: text("x"), uid: 73, gid: 74, mode: 0o6755 },
    { path: "l", symlink: "x", uid: 75, gid: 76 },
  ];
  const ownersOf = (disk: FileSystem): (string | undefined)[] =>
    ["/t/x", "/t/x/d", "/t/x/d/x", "/t/x/l"].map((path) => {
      const stat = disk.lstat(path);
      return stat && `${stat.uid}:${stat.gid}`;
    });

  test("are those that were recorded; a target that was made is the first one's", async () => {
    using prepared = await prepare(files);
    const disk = memoryDisk();
    await runVolumeRestore(optionsOf(prepared, { files: disk, target: "/t/x" }));
    expect(ownersOf(disk)).toEqual(["71:72", "71:72", "73:74", "75:76"]);
    expect(disk.lstat("/t/x/d/x")?.mode).toBe(0o6755);
  });

  test("are those of the directory, if that is wanted", async () => {
    using prepared = await prepare(files);
    const disk = memoryDisk();
    disk.makeDirectory("/t/x");
    disk.setOwner("/t/x", 5, 6);
    const rest = { files: disk, target: "/t/x", ownerPolicy: "parent" } as const;
    await runVolumeRestore(optionsOf(prepared, rest));
    expect(ownersOf(disk)).toEqual(["5:6", "5:6", "5:6", "5:6"]);
    expect(disk.lstat("/t/x/d/x")?.mode).toBe(0o755);
  });

  test("that may not be set are counted, and nobody runs a file as somebody else", async () => {
    using prepared = await prepare(files);
    const disk = memoryDisk();
    const setOwner = (path: string): void => {
      throw errnoError({ action: "set the owner of", path, code: "EPERM" });
    };
    const options = optionsOf(prepared, { files: withCalls(disk, { setOwner }), target: "/t/x" });
    const result = await runVolumeRestore(options);
    expect(result.filesWritten).toBe(1);
    expect(result.ownersNotSet).toBeGreaterThanOrEqual(3);
    expect(disk.lstat("/t/x/d/x")?.mode).toBe(0o755);
    expect(ownersOf(disk)[2]).toBe(`${OUR_UID}:${OUR_GID}`);
  });
});
