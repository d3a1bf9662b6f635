/** M3's file names: there and back, and what belongs together. */
import { describe, expect, test } from "bun:test";
import {
  commitLogFileName,
  filesetFileName,
  filesetPartKey,
  groupFilesets,
  missingDataParts,
  missingIndexParts,
  parseCommitLogName,
  parseFilesetName,
  parseSnapshotMetadataName,
  snapshotMetadataNames,
} from "../../../src/products/m3/fileset-names.ts";

const TIME = 1_790_000_000_000_000_000n;

describe("names of M3's files", () => {
  test("are the same after parsing and writing, legacy and segments included", () => {
    const names = [
      `fileset-${TIME}-0-info.db`,
      `fileset-${TIME}-12-checkpoint.db`,
      `fileset-${TIME}-bloomfilter.db`,
      `fileset-${TIME}-3-segment-0-docdata.db`,
      `fileset-${TIME}-3-segment-11-fstterms.db`,
    ];
    const again = names.map((name) => {
      const parsed = parseFilesetName(name);
      return parsed && filesetFileName(parsed, filesetPartKey(parsed));
    });
    expect(again).toEqual(names);
  });

  test("that M3 would not write are no names", () => {
    const strange = [
      `fileset-${TIME}-0-info.db.tmp`,
      `fileset-${TIME}-0-thing.db`,
      `fileset--1-0-info.db`,
      `fileset-${TIME}-1-2-info.db`,
      `fileset-${TIME}-segment-0-docdata.db`,
      "fileset-x-info.db",
      "Fileset-1-0-info.db",
      "",
    ];
    expect(strange.filter((name) => parseFilesetName(name) !== undefined)).toEqual([]);
    expect(parseCommitLogName("commitlog-0-1.db.old")).toBeUndefined();
    expect(parseSnapshotMetadataName("snapshot-00-1-metadata.db")).toBeUndefined();
  });

  test("of logs and snapshot metadata carry index and UUID", () => {
    expect(parseCommitLogName(commitLogFileName(17))).toEqual({ timeNs: 0n, index: 17 });
    expect(parseCommitLogName(`commitlog-${TIME}-2.db`)?.timeNs).toBe(TIME);
    const uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
    const { metadata, checkpoint } = snapshotMetadataNames({ uuid, index: 4 });
    const plain = uuid.replaceAll("-", "");
    expect(parseSnapshotMetadataName(metadata)).toEqual({
      uuid: plain,
      index: 4,
      isCheckpoint: false,
    });
    expect(parseSnapshotMetadataName(checkpoint)?.isCheckpoint).toBe(true);
  });
});

describe("filesets of a folder", () => {
  const parts = ["info", "index", "summaries", "bloomfilter", "data", "digest", "checkpoint"];
  const whole = (time: bigint, volume: number): string[] =>
    parts.map((part) => `fileset-${time}-${volume}-${part}.db`);

  test("are sorted by block and by volume as numbers, and strange names are kept apart", () => {
    const names = [...whole(TIME, 10), ...whole(TIME, 9), ...whole(9n, 0), "lost+found"];
    const { filesets, unknown } = groupFilesets(names);
    expect(filesets.map(({ blockStartNs, volume }) => [blockStartNs, volume])).toEqual([
      [9n, 0],
      [TIME, 9],
      [TIME, 10],
    ]);
    expect(unknown).toEqual(["lost+found"]);
  });

  test("say which parts they lack", () => {
    for (const part of parts) {
      const names = whole(TIME, 0).filter((name) => !name.endsWith(`-${part}.db`));
      const [fileset] = groupFilesets(names).filesets;
      expect(fileset && missingDataParts(fileset)).toEqual([part]);
    }
    const [index] = groupFilesets([`fileset-${TIME}-0-segment-0-docdata.db`]).filesets;
    expect(index && missingIndexParts(index)).toEqual(["info", "digest", "checkpoint"]);
  });

  test("without a volume are not mixed with volume 0", () => {
    const { filesets } = groupFilesets([...whole(TIME, 0), `fileset-${TIME}-info.db`]);
    expect(new Set(filesets.map(({ isLegacy }) => isLegacy))).toEqual(new Set([false, true]));
  });
});
