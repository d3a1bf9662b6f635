/** The list of a capture: what was written is read, in its order, across buffers, all or in part. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import type { FileStat } from "../../../src/base/doors.ts";
import { realFileSystem } from "../../../src/base/file-system.ts";
import { CaptureListWriter, readCaptureList } from "../../../src/products/m3/capture-list.ts";
import type { CapturedEntry } from "../../../src/products/m3/capture-list.ts";
import { temporaryFolder } from "../../cas/temporary-folder.ts";

const STAT: FileStat = {
  type: "file",
  sizeBytes: 1,
  mtimeNs: 1n,
  ctimeNs: 2n,
  birthtimeNs: 0n,
  mode: 0o644,
  uid: 0,
  gid: 0,
  inode: 1n,
  device: 1n,
  linkCount: 1,
};

test("entries are read as they were written, and with a needle only those that have it", () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "list");
  const entries: CapturedEntry[] = Array.from({ length: 9_000 }, (_, index) => ({
    // Lines of many lengths, so that they lie across the ends of buffers in many ways.
    path: `${"x".repeat(index % 97)}\n"\xff${index}-${index % 7 === 0 ? "data" : "info"}.db`,
    stat: { ...STAT, sizeBytes: index },
    isLinked: index % 2 === 0,
  }));
  {
    using list = new CaptureListWriter(realFileSystem, path);
    for (const entry of entries) list.add(entry);
  }
  expect([...readCaptureList(realFileSystem, path)]).toEqual(entries);
  const wanted = entries.filter((_, index) => index % 7 === 0);
  expect([...readCaptureList(realFileSystem, path, '-data.db"')]).toEqual(wanted);
  expect([...readCaptureList(realFileSystem, path, "nowhere")]).toEqual([]);
});

test("a list that is cut short is an error, also where the cut line is not wanted", () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "list");
  {
    using list = new CaptureListWriter(realFileSystem, path);
    list.add({ path: "a", stat: STAT, isLinked: false });
  }
  const handle = realFileSystem.open(path, "write");
  realFileSystem.truncate(handle, realFileSystem.stat(handle).sizeBytes - 2);
  realFileSystem.close(handle);
  expect(() => [...readCaptureList(realFileSystem, path)]).toThrow("cut short");
  expect(() => [...readCaptureList(realFileSystem, path, "nowhere")]).toThrow("cut short");
});
