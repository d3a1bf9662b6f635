/** Restores with threads: the same as in one thread, damaged ranges and failures included. */
import { describe, expect, test } from "bun:test";
import type { FileStat } from "../../src/base/doors.ts";
import { AppError } from "../../src/base/error.ts";
import { openWorkerLanes } from "../../src/cas/read/restore-lanes.ts";
import type { OpenLanes, RestoreLane } from "../../src/cas/read/restore-lanes.ts";
import type { RestoreSource } from "../../src/cas/read/restore-options.ts";
import { runVolumeRestore } from "../../src/cas/read/restore.ts";
import { noise } from "./noise.ts";
import type { TestFile } from "./repository-builder.ts";
import {
  disk,
  everyKind,
  failureOf,
  optionsOf,
  OUR_GID,
  OUR_UID,
  prepare,
} from "./restore-setup.ts";
import { shapeExpected, shapeOf, walk } from "./tree-shape.ts";

const SIZES = { chunkSizeBytes: 64 << 10, packSizeBytes: 256 << 10, frameSizeBytes: 32 << 10 };

/** Enough for threads: tiny files, files that lie in several ranges, and every kind of file. */
function manyFiles(): TestFile[] {
  const shared = noise(3000, 1);
  const tiny = Array.from({ length: 600 }, (_, index): TestFile => {
    const content = index % 7 === 0 ? shared : noise(20 + index, index + 10);
    const mode = index % 5 === 0 ? 0o640 : 0o600;
    return { path: `tiny/${index}`, content, mode, mtimeNs: BigInt(index) * 1_000_000_007n };
  });
  const large = [1, 2, 3].map((number): TestFile => {
    const content = Buffer.concat([noise(700_000, number), shared]);
    return { path: `large-${number}`, content, mode: 0o4711 };
  });
  return [...everyKind(), { path: "tiny" }, ...large, ...tiny]
    .map((file) => ({ ...file, uid: OUR_UID, gid: OUR_GID }))
    .toSorted((one, other) => (one.path < other.path ? -1 : 1));
}

/** A source of which each range has a wrong byte. */
function withWrongBytes(source: RestoreSource): RestoreSource {
  return {
    concurrency: source.concurrency,
    fetch: (...given) => source.fetch(...given),
    planRanges: (refs) => source.planRanges(refs),
    async readRange(...given) {
      const bytes = await source.readRange(...given);
      if (bytes === undefined) return undefined;
      const wrong = new Uint8Array(bytes);
      wrong[wrong.length >> 1]! ^= 1;
      return wrong;
    },
  };
}

/** Worker lanes of which the first fails at its second job. */
const openFailingLanes: OpenLanes = (settings) => {
  const opened = openWorkerLanes(settings);
  let count = 0;
  const lanes = opened.lanes.map((lane): RestoreLane => ({
    async run(...given) {
      count += 1;
      const outcome = await lane.run(...given);
      if (count > 2) throw new AppError("no-space", "The disk is full.");
      return outcome;
    },
    sync: () => lane.sync(),
    publish: (...given) => lane.publish(...given),
    abandon: () => lane.abandon(),
  }));
  return { lanes, [Symbol.dispose]: () => opened[Symbol.dispose]() };
};

for (const how of ["in one thread", "in workers"] as const) {
  const lanes = how === "in workers" ? { openLanes: openWorkerLanes } : {};

  describe(`a restore ${how}`, () => {
    test("puts many files in place exactly, and tells how each looks there", async () => {
      using at = disk("real");
      using prepared = await prepare(manyFiles(), SIZES);
      const target = `${at.root}/t`;
      const told = new Map<string, FileStat>();
      const options = optionsOf(prepared, {
        files: at.files,
        target,
        ...lanes,
        onFile: (record, stat) => told.set(record.path, stat),
      });
      const result = await runVolumeRestore(options);
      expect(shapeOf(at.files, target)).toEqual(shapeExpected(manyFiles()));
      expect(result).toMatchObject({ filesKept: 0, ownersNotSet: 0, temporariesRemoved: 0 });
      expect(told.size).toBe(result.filesWritten);
      for (const [path, stat] of told)
        expect(at.files.lstat(`${target}/${path}`)).toMatchObject(stat);
    }, 30_000);

    test("takes other copies of what is damaged", async () => {
      using at = disk("real");
      using prepared = await prepare(manyFiles(), SIZES);
      const target = `${at.root}/t`;
      const source = withWrongBytes(prepared.source);
      const options = optionsOf({ ...prepared, source }, { files: at.files, target, ...lanes });
      await runVolumeRestore(options);
      expect(shapeOf(at.files, target)).toEqual(shapeExpected(manyFiles()));
    }, 30_000);
  });
}

test("a file that nobody has whole is named, and without it the others are restored", async () => {
  using at = disk("real");
  const files = ["one", "two", "three"].map((path, index): TestFile => {
    return { path, content: noise(9000, index), uid: OUR_UID, gid: OUR_GID };
  });
  using prepared = await prepare(files.toSorted((a, b) => (a.path < b.path ? -1 : 1)));
  let lost: Uint8Array | undefined;
  const source: RestoreSource = {
    ...withWrongBytes(prepared.source),
    fetch: async (id, length, ...rest) => {
      // The listing is a small chunk too.
      if (length > 1000) lost ??= id;
      if (lost !== undefined && Buffer.from(lost).equals(id))
        throw new AppError("damaged", "The pack is cut.");
      return await prepared.source.fetch(id, length, ...rest);
    },
  };
  const target = `${at.root}/t`;
  const options = optionsOf({ ...prepared, source }, { files: at.files, target });
  const error = await failureOf(() => runVolumeRestore(options));
  const path = String(error.context["path"]);
  expect(error).toMatchObject({ kind: "damaged" });
  expect(error.message).toBe(`${path} cannot be restored: The pack is cut.`);
  expect(error.guidance).toContain(`--path '!${path}'`);
  await runVolumeRestore({ ...options, filter: [`!${path}`] });
  const others = files.map((file) => file.path).filter((one) => one !== path);
  expect(walk(at.files, target, "")).toEqual(others.toSorted());
});

test("a restore whose worker fails says so, leaves nothing temporary, and can be run again", async () => {
  using at = disk("real");
  using prepared = await prepare(manyFiles(), SIZES);
  const target = `${at.root}/t`;
  const options = optionsOf(prepared, { files: at.files, target });
  const error = await failureOf(() =>
    runVolumeRestore({ ...options, openLanes: openFailingLanes }),
  );
  expect(error.kind).toBe("no-space");
  const left = walk(at.files, target, "").filter((path) => path.includes(".astacus-restore-"));
  expect(left).toEqual([]);
  await runVolumeRestore({ ...options, openLanes: openWorkerLanes });
  expect(shapeOf(at.files, target)).toEqual(shapeExpected(manyFiles()));
}, 30_000);
