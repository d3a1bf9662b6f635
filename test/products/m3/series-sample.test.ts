/**
 * Samples of series: noted of what a capture took, on a real disk, and chosen so that nodes agree.
 */
import { expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import { realFileSystem } from "../../../src/base/file-system.ts";
import { captureM3 } from "../../../src/products/m3/capture.ts";
import { LogCuts } from "../../../src/products/m3/capture-logs.ts";
import { filesetFileName } from "../../../src/products/m3/fileset-names.ts";
import {
  chooseBlocks,
  chooseShards,
  sampleSeries,
} from "../../../src/products/m3/series-sample.ts";
import { temporaryFolder } from "../../cas/temporary-folder.ts";
import { encodeFileset } from "./m3-encoders.ts";

const MINUTE_NS = 60_000_000_000n;

/** Writes a fileset as M3 would; one without series has an empty data file. */
function writeFileset(
  root: string,
  place: string,
  of: { readonly block: number; readonly entryCount: number; readonly volume?: number },
): void {
  const { block, entryCount, volume = 0 } = of;
  const blockStartNs = BigInt(block) * MINUTE_NS;
  const data = new Uint8Array(entryCount * 10);
  const folder = join(root, "data", place);
  fs.mkdirSync(folder, { recursive: true });
  for (const [part, bytes] of encodeFileset({ blockStartNs, volume, entryCount, data })) {
    const name = filesetFileName({ blockStartNs, volume, isLegacy: false }, part);
    fs.writeFileSync(join(folder, name), bytes);
  }
}

/** Captures a node whose filesets `fill` wrote; `meanwhile` happens before the samples are taken. */
async function sampleNode(
  fill: (root: string) => void,
  meanwhile: (root: string) => void = () => undefined,
  isStored: () => boolean = () => false,
) {
  using folder = temporaryFolder();
  const root = join(folder.path, "m3");
  const scratch = join(folder.path, "scratch");
  for (const path of [join(root, "commitlogs"), join(root, "data"), scratch]) {
    fs.mkdirSync(path, { recursive: true });
  }
  fill(root);
  const where = { files: realFileSystem, root, scratch };
  const { shards } = await captureM3({
    ...where,
    triesMax: 1,
    cuts: new LogCuts(),
    isStored,
    say: () => undefined,
    pause: () => Promise.resolve(),
    signal: new AbortController().signal,
  });
  meanwhile(root);
  return sampleSeries({ ...where, shards });
}

const at = (block: number): string => String(BigInt(block) * MINUTE_NS);

test("the newest block and the roundest other one are counted, of the newest volumes", async () => {
  const samples = await sampleNode((root) => {
    for (const block of [62, 63, 64, 65, 66]) {
      writeFileset(root, "default/0", { block, entryCount: block });
      writeFileset(root, "default/1", { block, entryCount: block === 66 ? 0 : 7 });
    }
    writeFileset(root, "default/0", { block: 64, entryCount: 100, volume: 1 });
    writeFileset(root, "default/0", { block: 67, entryCount: 0 });
  });
  expect(samples).toEqual([
    { namespace: "default", blockStartNs: at(66), counts: { 0: 66 } },
    { namespace: "default", blockStartNs: at(64), counts: { 0: 100, 1: 7 } },
  ]);
});

test("what M3 deletes and writes after the capture changes nothing of what was linked", async () => {
  const samples = await sampleNode(
    (root) => writeFileset(root, "default/0", { block: 5, entryCount: 3 }),
    (root) => {
      fs.rmSync(join(root, "data"), { recursive: true });
      writeFileset(root, "default/0", { block: 6, entryCount: 9 });
    },
  );
  expect(samples).toEqual([{ namespace: "default", blockStartNs: at(5), counts: { 0: 3 } }]);
});

test("files that were not linked are read where they are, or left out when they are gone", async () => {
  const fill = (root: string) => {
    for (const shard of [0, 1]) writeFileset(root, `n/${shard}`, { block: 5, entryCount: 4 });
  };
  const drop = (root: string) => fs.rmSync(join(root, "data/n/1"), { recursive: true });
  expect(await sampleNode(fill, drop, () => true)).toEqual([
    { namespace: "n", blockStartNs: at(5), counts: { 0: 4 } },
  ]);
});

test("a node without a flushed point has no samples", async () => {
  const empty = (root: string) => writeFileset(root, "default/0", { block: 5, entryCount: 0 });
  expect(await sampleNode(empty)).toEqual([]);
});

test("nodes with other shards choose the same ones of those that they share", () => {
  const all = Array.from({ length: 4096 }, (_, shard) => shard);
  const chosen = chooseShards(all);
  expect(chosen).toHaveLength(1024);
  const some = all.filter((shard) => shard % 3 !== 0);
  expect(chooseShards(some)).toEqual(chosen.filter((shard) => shard % 3 !== 0));
  expect(chooseShards([0, 1, 2])).toEqual([0, 1, 2]);
});

test("a block more or less leaves nodes one block in common", () => {
  const blocks = Array.from({ length: 40 }, (_, index) => BigInt(1000 + index) * MINUTE_NS);
  for (let count = 2; count < blocks.length; count += 1) {
    const one = chooseBlocks(blocks.slice(0, count));
    const other = new Set(chooseBlocks(blocks.slice(0, count + 1)));
    expect(one.filter((block) => other.has(block)).length).toBeGreaterThan(0);
  }
});
