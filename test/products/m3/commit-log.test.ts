/** Commit logs: where they may be cut, what their checksums prove, what is in them. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { CommitLogCheck } from "../../../src/products/m3/commit-log-check.ts";
import type { CommitLogFinding } from "../../../src/products/m3/commit-log-check.ts";
import { readCommitLogEntries } from "../../../src/products/m3/commit-log-entries.ts";
import { findCommitLogCut } from "../../../src/products/m3/commit-log.ts";
import { MemoryFileSystem } from "../../simulation/memory-file-system.ts";
import { encodeChunk, encodeLogEntry, encodeLogInfo } from "./m3-encoders.ts";

const PATH = "/log";

function diskWith(bytes: Uint8Array): MemoryFileSystem {
  const files = new MemoryFileSystem({ clock: { now: () => 0 } });
  const handle = files.open(PATH, "create");
  files.write(handle, bytes, 0);
  files.close(handle);
  return files;
}

function check(
  bytes: Uint8Array,
  from: { offset?: number; verifiedBytes?: number; pieces?: number } = {},
): CommitLogFinding {
  const { offset = 0, verifiedBytes = 0, pieces = bytes.length } = from;
  const one = new CommitLogCheck({ offset, verifiedBytes });
  for (let at = offset; at < bytes.length; at += pieces)
    one.update(bytes.subarray(at, at + pieces));
  return one.finish();
}

/** Chunks of data, and where each ends. */
const chunksOf = fc.array(fc.uint8Array({ maxLength: 200 }), { minLength: 1, maxLength: 12 });

function join(data: readonly Uint8Array[]): { bytes: Uint8Array; ends: number[] } {
  const chunks = data.map(encodeChunk);
  let end = 0;
  const ends = chunks.map((chunk) => (end += chunk.length));
  return { bytes: Buffer.concat(chunks), ends };
}

describe("the cut of a commit log", () => {
  test("is the end of its last whole chunk, wherever the log ends", () => {
    fc.assert(
      fc.property(chunksOf, fc.nat(), (data, wish) => {
        const { bytes, ends } = join(data);
        const sizeBytes = wish % (bytes.length + 1);
        const whole = ends.filter((end) => end <= sizeBytes);
        const cutBytes = whole.at(-1) ?? 0;
        const found = findCommitLogCut(diskWith(bytes), PATH, sizeBytes);
        expect(found).toEqual({
          cutBytes,
          chunkCount: whole.length,
          tail: cutBytes === sizeBytes ? "whole" : "torn",
        });
      }),
    );
  });

  test("is the same from any boundary that an earlier walk found", () => {
    fc.assert(
      fc.property(chunksOf, fc.nat(), (data, wish) => {
        const { bytes, ends } = join(data);
        const files = diskWith(bytes);
        const from = [0, ...ends][wish % (ends.length + 1)] ?? 0;
        const whole = findCommitLogCut(files, PATH, bytes.length);
        expect(findCommitLogCut(files, PATH, bytes.length, from).cutBytes).toBe(whole.cutBytes);
      }),
    );
  });

  test("is before a header whose size contradicts its checksum", () => {
    const { bytes, ends } = join([new Uint8Array(50), new Uint8Array(70), new Uint8Array(9)]);
    for (const broken of [0, 3, 4, 7]) {
      const copy = bytes.slice();
      const at = (ends[0] ?? 0) + broken;
      copy[at] = (copy[at] ?? 0) ^ 0x10;
      const found = findCommitLogCut(diskWith(copy), PATH, copy.length);
      expect(found).toEqual({ cutBytes: 62, chunkCount: 1, tail: "damaged" });
    }
  });

  test("costs one read for many small chunks and skips large ones", () => {
    const { bytes } = join([
      ...Array.from({ length: 300 }, () => new Uint8Array(100)),
      new Uint8Array(3_000_000),
      ...Array.from({ length: 300 }, () => new Uint8Array(100)),
    ]);
    const files = diskWith(bytes);
    const before = files.callCount;
    expect(findCommitLogCut(files, PATH, bytes.length).chunkCount).toBe(601);
    expect(files.callCount - before).toBeLessThan(8);
  });
});

describe("the check m3-commit-log", () => {
  test("counts the same chunks in pieces of any size", () => {
    fc.assert(
      fc.property(chunksOf, fc.integer({ min: 1, max: 50 }), (data, pieces) => {
        const { bytes } = join(data);
        const found = check(bytes, { pieces });
        expect(found).toEqual({
          chunks: data.length,
          endsAt: bytes.length,
          sizeBytes: bytes.length,
        });
      }),
    );
  });

  test("finds any flipped bit, in the chunk that holds it", () => {
    fc.assert(
      fc.property(chunksOf, fc.nat(), fc.nat({ max: 7 }), (data, wish, bit) => {
        const { bytes, ends } = join(data);
        const at = wish % bytes.length;
        const copy = bytes.slice();
        copy[at] = (copy[at] ?? 0) ^ (1 << bit);
        const starts = [0, ...ends].filter((start) => start <= at);
        expect(check(copy).firstBadOffset).toBe(starts.at(-1));
      }),
      { numRuns: 400 },
    );
  });

  test("proves only what was appended when the file is resumed", () => {
    const { bytes, ends } = join([
      new Uint8Array(500).fill(1),
      new Uint8Array(40).fill(2),
      new Uint8Array(5),
    ]);
    const copy = bytes.slice();
    copy[20] = 77;
    const verifiedBytes = ends[0] ?? 0;
    for (const offset of [0, 100, verifiedBytes]) {
      const found = check(copy, { offset, verifiedBytes, pieces: 33 });
      expect(found).toEqual({ chunks: 2, endsAt: bytes.length, sizeBytes: bytes.length });
    }
    expect(check(copy).firstBadOffset).toBe(0);
  });

  test("tells a torn tail by where the last chunk ended", () => {
    const { bytes } = join([new Uint8Array(10), new Uint8Array(20)]);
    const found = check(bytes.subarray(0, bytes.length - 1));
    expect(found).toEqual({ chunks: 1, endsAt: 22, sizeBytes: bytes.length - 1 });
  });
});

describe("the entries of a commit log", () => {
  const described = { id: "cpu{host=ä}", namespace: "default", shard: 7 };

  function messages(): Uint8Array {
    const now = 1_790_000_000_123_456_789n;
    return Buffer.concat([
      encodeLogInfo(42),
      encodeLogEntry({ series: 0, described, timestampNs: now, value: 1.5 }),
      encodeLogEntry({
        series: 300,
        described: { ...described, shard: 999 },
        timestampNs: 5n,
        value: -0,
      }),
      encodeLogEntry({ series: 0, timestampNs: now + 1n, value: Number.NaN }),
    ]);
  }

  test("come out with their series, however chunks cut them", () => {
    const all = messages();
    for (let size = 1; size <= all.length; size += 1) {
      const chunks = Array.from({ length: Math.ceil(all.length / size) }, (_, index) =>
        encodeChunk(all.subarray(index * size, (index + 1) * size)),
      );
      const bytes = Buffer.concat(chunks);
      const entries = [...readCommitLogEntries(diskWith(bytes), PATH, bytes.length)];
      expect(
        entries.map(({ series, timestampNs, value }) => [series.shard, timestampNs, value]),
      ).toEqual([
        [7, 1_790_000_000_123_456_789n, 1.5],
        [999, 5n, -0],
        [7, 1_790_000_000_123_456_790n, Number.NaN],
      ]);
      expect(entries[0]?.series).toEqual(described);
    }
  });

  test("end with an error at a bad chunk, after those before it", () => {
    const good = encodeChunk(messages());
    const bad = encodeChunk(encodeLogEntry({ series: 0, timestampNs: 9n, value: 1 }));
    bad[15] = (bad[15] ?? 0) ^ 1;
    const bytes = Buffer.concat([good, bad]);
    const seen: bigint[] = [];
    const readAll = (): void => {
      for (const entry of readCommitLogEntries(diskWith(bytes), PATH, bytes.length)) {
        seen.push(entry.timestampNs);
      }
    };
    expect(readAll).toThrow(`at byte ${good.length}`);
    expect(seen).toHaveLength(3);
  });

  test("of a series that was never described are an error", () => {
    const bytes = encodeChunk(
      Buffer.concat([encodeLogInfo(0), encodeLogEntry({ series: 3, timestampNs: 1n, value: 1 })]),
    );
    expect(() => [...readCommitLogEntries(diskWith(bytes), PATH, bytes.length)]).toThrow(
      "never described",
    );
  });
});
