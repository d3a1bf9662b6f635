/** Files that a real M3 wrote: every parser reads them, and the verifier finds what is changed. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { realFileSystem } from "../../../src/base/file-system.ts";
import { readCommitLogEntries } from "../../../src/products/m3/commit-log-entries.ts";
import { findCommitLogCut } from "../../../src/products/m3/commit-log.ts";
import { parseFilesetInfo, parseIndexFilesetInfo } from "../../../src/products/m3/fileset.ts";
import { verifyM3Share } from "../../../src/products/m3/share-verifier.ts";
import {
  newestCompleteSnapshot,
  rewriteSnapshotMetadata,
} from "../../../src/products/m3/snapshot-metadata.ts";
import { encodeChunk } from "./m3-encoders.ts";
import { readShareFiles, shareOf } from "./stored-share.ts";
import type { ShareFiles } from "./stored-share.ts";

const GOLDEN = join(import.meta.dir, "golden");
const files = realFileSystem;
const all = readShareFiles(GOLDEN);

const STATE = {
  captures: {
    n1: {
      snapshot: { index: 30, uuid: "6581bccde6bf11f1a292da3190f86d09", logIndex: 31 },
      logs: [...all]
        .filter(([path]) => path.startsWith("commitlogs/"))
        .map(([path, bytes]) => ({ name: path.slice(11), sizeBytes: bytes.length })),
      droppedLogs: [],
      logGaps: [],
    },
  },
};

async function problemsOf(share: ShareFiles): Promise<string[]> {
  const problems = await Array.fromAsync(verifyM3Share(shareOf(share, STATE)));
  return problems.map(({ path }) => path);
}

function mustGet(path: string): Uint8Array {
  const bytes = all.get(path);
  if (bytes === undefined) throw new Error(`no ${path}`);
  return bytes;
}

describe("files of a real M3", () => {
  test("tell the newest snapshot and the log that a restart begins with", () => {
    expect(newestCompleteSnapshot(files, join(GOLDEN, "snapshots"))).toMatchObject({
      index: 30,
      uuid: "6581bccde6bf11f1a292da3190f86d09",
      commitLog: { index: 31 },
    });
  });

  test("hold the entries of a log with series, shard and time", () => {
    const path = join(GOLDEN, "commitlogs/commitlog-0-30.db");
    const { cutBytes, chunkCount, tail } = findCommitLogCut(files, path, 1674);
    expect({ cutBytes, chunkCount, tail }).toEqual({
      cutBytes: 1674,
      chunkCount: 8,
      tail: "whole",
    });
    const entries = [...readCommitLogEntries(files, path, cutBytes)];
    expect(entries).toHaveLength(40);
    expect(entries[0]).toMatchObject({
      series: { id: "series-0", namespace: "default", shard: 0 },
      timestampNs: 1_795_384_499_000_000_000n,
      value: 435.5,
    });
    expect(new Set(entries.map(({ series }) => series.id)).size).toBe(5);
  });

  test("say in their info files what their names say", () => {
    const stem = "data/default/0/fileset-1795384380000000000-3-info.db";
    expect(parseFilesetInfo(mustGet(stem))).toMatchObject({
      blockStartNs: 1_795_384_380_000_000_000n,
      blockSizeNs: 60_000_000_000n,
      entryCount: 3,
      kind: "flush",
      volume: 3,
    });
    const snapshot = "snapshots/default/1/fileset-1795384440000000000-4-info.db";
    expect(parseFilesetInfo(mustGet(snapshot))).toMatchObject({
      kind: "snapshot",
      snapshotUuid: "6581bccde6bf11f1a292da3190f86d09",
      volume: 4,
    });
    const index = "index/data/default/fileset-1795384380000000000-0-info.db";
    expect(parseIndexFilesetInfo(mustGet(index)).shards.toSorted((a, b) => a - b)).toEqual([0, 1]);
  });

  test("have metadata that are rewritten byte for byte when nothing changes", () => {
    const path = "snapshots/snapshot-6581bccde6bf11f1a292da3190f86d09-30-metadata.db";
    const prefix = newestCompleteSnapshot(files, join(GOLDEN, "snapshots"))?.commitLog.path ?? "";
    const again = rewriteSnapshotMetadata(mustGet(path), prefix.replace(/\/commitlogs\/.*/, ""));
    expect(Buffer.from(again.metadata).equals(mustGet(path))).toBe(true);
  });
});

describe("the verifier of a share", () => {
  test("finds nothing wrong with what M3 wrote", async () => {
    expect(await problemsOf(all)).toEqual([]);
  });

  test("names a file of which any bit is changed, or its digest", async () => {
    for (const [path, bytes] of all) {
      const places = bytes.length === 0 ? [] : [0, bytes.length >> 1, bytes.length - 1];
      for (const place of places) {
        const damaged = Uint8Array.from(bytes);
        damaged[place] = (damaged[place] ?? 0) ^ 4;
        const found = await problemsOf(new Map(all).set(path, damaged));
        const named = path.replace(/checkpoint\.db$/, "digest.db");
        const metadata = path.replace(/-checkpoint\.db$/, ".db");
        expect(found.some((one) => [path, named, metadata].includes(one))).toBe(true);
      }
    }
  });

  test("notices any file that is missing, but a part of a volume that a whole one has replaced", async () => {
    for (const path of all.keys()) {
      const rest = new Map(all);
      rest.delete(path);
      const isReplaced = path.includes("fileset-1795384380000000000-2-");
      expect({ path, count: (await problemsOf(rest)).length > 0 }).toEqual({
        path,
        count: !isReplaced,
      });
    }
  });

  test("wants the logs from the snapshot's on without a gap, but for those that M3 lacked", async () => {
    const later = new Map(all).set("commitlogs/commitlog-0-35.db", encodeChunk(new Uint8Array(3)));
    expect(await problemsOf(later)).toEqual([
      "commitlogs/commitlog-0-33.db",
      "commitlogs/commitlog-0-34.db",
    ]);
    const n1 = { ...STATE.captures.n1, logGaps: [33], droppedLogs: ["commitlog-0-34.db"] };
    const problems = verifyM3Share(shareOf(later, { captures: { n1 } }));
    expect(await Array.fromAsync(problems)).toEqual([]);
  });

  test("says when a log was not cut at the end of a chunk", async () => {
    const path = "commitlogs/commitlog-0-30.db";
    const longer = Buffer.concat([mustGet(path), Uint8Array.of(1, 2, 3)]);
    expect(await problemsOf(new Map(all).set(path, longer))).toEqual([path, path]);
  });
});
