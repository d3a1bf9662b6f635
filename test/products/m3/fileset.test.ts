/** Filesets: digests, info files, and the judge that is fed in one read pass. */
import { describe, expect, test } from "bun:test";
import { encode } from "@msgpack/msgpack";
import { adler32 } from "../../../src/products/m3/adler32.ts";
import { FilesetJudge } from "../../../src/products/m3/fileset-judge.ts";
import { filesetFileName } from "../../../src/products/m3/fileset-names.ts";
import {
  parseCheckpoint,
  parseDataDigests,
  parseFilesetInfo,
  parseIndexDigests,
} from "../../../src/products/m3/fileset.ts";
import { encodeFileset, encodeFilesetInfo, encodeIndexFileset } from "./m3-encoders.ts";

const START = 1_790_000_000_000_000_000n;
const content = { blockStartNs: START, volume: 3, entryCount: 12, data: Buffer.from("points") };

type Folder = Map<string, Uint8Array>;

function folderOf(parts: [string, Uint8Array][], volume = 0): Folder {
  const name = { blockStartNs: START, volume, isLegacy: false };
  return new Map(parts.map(([part, bytes]) => [`default/1/${filesetFileName(name, part)}`, bytes]));
}

function judgeAll(
  kind: "data" | "index",
  folder: Folder,
): { paths: string[]; judge: FilesetJudge } {
  const judge = new FilesetJudge(kind, (path) => folder.get(path));
  const problems = [...folder].flatMap(([path, bytes]) => judge.judge(path, adler32(bytes)));
  return { paths: problems.map(({ path }) => path), judge };
}

describe("the judge of filesets", () => {
  const kinds = [
    ["data", encodeFileset(content)],
    ["index", encodeIndexFileset(Buffer.from("segment"))],
  ] as const;

  test.each(kinds)("finds nothing wrong with a sound %s fileset", (kind, parts) => {
    const { paths, judge } = judgeAll(kind, folderOf(parts));
    expect(paths).toEqual([]);
    expect(judge.judgedCount).toBe(parts.length);
  });

  test.each(kinds)("names each damaged file of a %s fileset, by itself", (kind, parts) => {
    for (const part of parts.map(([name]) => name)) {
      const folder = folderOf(
        parts.map(([name, bytes]) => [name, name === part ? flipped(bytes) : bytes]),
      );
      const isSeal = part === "digest" || part === "checkpoint";
      const { paths } = judgeAll(kind, folder);
      expect(paths).toEqual(
        [...folder.keys()].filter((path) => path.endsWith(`-${isSeal ? "digest" : part}.db`)),
      );
    }
  });

  test("needs only the files that were read", () => {
    const folder = folderOf(encodeFileset(content));
    const judge = new FilesetJudge("data", (path) => folder.get(path));
    const path = [...folder.keys()].find((one) => one.endsWith("-data.db")) ?? "";
    expect(judge.judge(path, adler32(content.data))).toEqual([]);
    expect(judge.judge(path, 5)).toHaveLength(1);
  });

  test("counts files whose fileset is gone, and says nothing of them", () => {
    const folder = folderOf(encodeFileset(content));
    const judge = new FilesetJudge("data", () => undefined);
    for (const path of folder.keys()) expect(judge.judge(path, 1)).toEqual([]);
    expect(judge.unjudgedCount).toBe(7);
    expect(judge.judge("default/1/README", 1)).toEqual([]);
  });

  test("is not confused by many filesets in turn, nor reads one again while it is near", () => {
    const folder: Folder = new Map();
    for (let volume = 0; volume < 600; volume += 1) {
      for (const [path, bytes] of folderOf(encodeFileset(content), volume)) folder.set(path, bytes);
    }
    let reads = 0;
    const judge = new FilesetJudge("data", (path) => {
      reads += 1;
      return folder.get(path);
    });
    for (const [path, bytes] of folder) expect(judge.judge(path, adler32(bytes))).toEqual([]);
    expect(reads).toBe(600 * 2);
  });
});

describe("info files", () => {
  test("say what the fileset is", () => {
    const uuid = "00112233445566778899aabbccddeeff";
    expect(parseFilesetInfo(encodeFilesetInfo({ ...content, snapshotUuid: uuid }))).toEqual({
      blockStartNs: START,
      blockSizeNs: 60_000_000_000n,
      entryCount: 12,
      majorVersion: 1,
      kind: "snapshot",
      snapshotTimeNs: START,
      snapshotUuid: uuid,
      volume: 3,
    });
    expect(parseFilesetInfo(encodeFilesetInfo(content)).kind).toBe("flush");
  });

  test("of the first version have six fields, of a later one more than we know", () => {
    const first = [START, 60n, 1, 1, [0], [1, 2]];
    const encodeAll = (fields: unknown[]): Uint8Array =>
      Buffer.concat([encode(1), encode([2, fields], { useBigInt64: true })]);
    expect(parseFilesetInfo(encodeAll(first))).toMatchObject({
      kind: "flush",
      volume: 0,
      entryCount: 1,
    });
    const later = [...first, START, 1, Buffer.alloc(16), 4, 1, "new", [1]];
    expect(parseFilesetInfo(encodeAll(later))).toMatchObject({ kind: "snapshot", volume: 4 });
  });

  test("that are none are damaged, not a crash", () => {
    const whole = encodeFilesetInfo(content);
    for (let size = 0; size < whole.length; size += 1) {
      expect(() => parseFilesetInfo(whole.subarray(0, size))).toThrow("cannot be read");
    }
  });

  test.each([
    ["array", 12, [0xdd, 0x00, 0xff, 0xff, 0xff]],
    ["map", 12, [0xdf, 0x00, 0xff, 0xff, 0xff, 0xa1, 0x61]],
    ["array in arrays", 5000, [0xdc, 0x04, 0x00]],
    ["array in a large file", 60_000, [0xdc, 0x04, 0x00]],
  ])("are not believed about the length of an %s", (_, depth, header) => {
    const nested = Array.from({ length: depth }).flatMap(() => header);
    const before = process.memoryUsage.rss();
    expect(() => parseFilesetInfo(Uint8Array.from([1, ...nested]))).toThrow("cannot be read");
    // A place for each element would be 128 MiB for each of them.
    expect(process.memoryUsage.rss() - before).toBeLessThan(128 * 1024 * 1024);
  });
});

test("digests and checkpoints of a wrong size are none", () => {
  expect(parseCheckpoint(new Uint8Array(0))).toBeUndefined();
  expect(parseCheckpoint(new Uint8Array(5))).toBeUndefined();
  expect(parseDataDigests(new Uint8Array(19))).toBeUndefined();
  expect(parseIndexDigests(Uint8Array.of(0x0a, 0xff))).toBeUndefined();
});

function flipped(bytes: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(bytes);
  copy[copy.length - 1] = (copy.at(-1) ?? 0) ^ 1;
  return copy;
}
