/** Which threads read what: all files come back, and a thread more is used only where it pays. */
import { expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import { realClock } from "../../src/base/clock.ts";
import { realFileSystem } from "../../src/base/file-system.ts";
import { realRandom } from "../../src/base/random.ts";
import type { BackupContext } from "../../src/cas/write/backup-context.ts";
import { openInlinePlane } from "../../src/cas/write/plane.ts";
import type { DataPlane } from "../../src/cas/write/plane.ts";
import { ReadPipeline } from "../../src/cas/write/read-pipeline.ts";
import { RIG_SETTINGS } from "./backup-rig.ts";
import { noise } from "./noise.ts";
import { temporaryFolder } from "./temporary-folder.ts";

const KIB = 1024;

test("tiny files are read by one thread, however many there are", async () => {
  const { read, lanes } = await readFiles(Array.from({ length: 3000 }, () => 40));
  expect(read).toBe(3000);
  expect(lanes).toEqual(new Set([0]));
});

test("large files are read by all threads", async () => {
  const { read, lanes } = await readFiles(Array.from({ length: 40 }, () => 500 * KIB));
  expect(read).toBe(40);
  expect(lanes).toEqual(new Set([0, 1, 2]));
});

test("tiny files do not wait behind an open one", async () => {
  const sizes = [20_000 * KIB, ...Array.from({ length: 50 }, () => 40)];
  const { read, lanes, last } = await readFiles(sizes, 20);
  expect(read).toBe(51);
  expect(lanes.size).toBeGreaterThan(1);
  expect(last).toBe("0");
});

test("nothing is lost between threads, whatever the sizes", async () => {
  for (let seed = 0; seed < 10; seed += 1) {
    const sizes = Array.from(noise(200, seed), (byte) => (byte < 200 ? byte * 37 : byte * KIB));
    const { read } = await readFiles(sizes);
    expect([seed, read]).toEqual([seed, sizes.length]);
  }
});

/** Reads files of these sizes with three lanes; tells how many came whole, and who read. */
async function readFiles(
  sizes: readonly number[],
  pauseMs = 0,
): Promise<{ readonly read: number; readonly lanes: ReadonlySet<number>; readonly last: string }> {
  using folder = temporaryFolder();
  const lanes = new Set<number>();
  const pipeline = new ReadPipeline(contextOf(threeLanes(lanes)), () => undefined);
  let read = 0;
  let last = "";
  for (const [index, size] of sizes.entries()) {
    const path = join(folder.path, String(index));
    fs.writeFileSync(path, noise(size, index));
    while (pipeline.isFull) await realClock.sleep(1);
    pipeline.throwIfFailed();
    let bytes = 0;
    pipeline.push({
      task: { path, sizeBytes: size },
      onStart: () => undefined,
      onChunk: ({ length }) => (bytes += length),
      onEnd: () => {
        if (bytes === size) read += 1;
        last = String(index);
      },
      onError: (error) => pipeline.fail(error),
    });
  }
  await realClock.sleep(pauseMs);
  await pipeline.close();
  pipeline.throwIfFailed();
  return { read, lanes, last };
}

/** Planes in this thread that let others run between batches, as threads do. */
function threeLanes(used: Set<number>): DataPlane {
  const doors = { files: realFileSystem, random: realRandom };
  const chunker = { rule: "astacus-cdc-1", averageSizeBytes: 64 * KIB } as const;
  const planes = [0, 1, 2].map(() => openInlinePlane(doors, { chunker, ...RIG_SETTINGS }));
  return {
    ...planes[0]!,
    laneCount: planes.length,
    async scan(lane, slot, tasks) {
      used.add(lane);
      await realClock.sleep(1);
      return await planes[lane]!.scan(0, slot, tasks);
    },
    store: (lane, slot, keep) => planes[lane]!.store(0, slot, keep),
  };
}

/** Of a backup that knows no chunk and sends all of them nowhere. */
function contextOf(plane: DataPlane): BackupContext {
  const nothing = (): void => undefined;
  return {
    plane,
    doors: { clock: realClock, files: realFileSystem, random: realRandom },
    settings: RIG_SETTINGS,
    lookup: {
      mayFind: () => false,
      isUnderWay: () => false,
      use: () => false,
      begin: nothing,
      cancel: nothing,
    },
    claims: { claim: async (ids: readonly Uint8Array[]) => ids.map(() => true) },
    foreign: { add: nothing },
    uploads: { room: async () => undefined, push: nothing },
    totals: { readBytes: 0, newChunks: 0, newBytes: 0 },
  } as unknown as BackupContext;
}
