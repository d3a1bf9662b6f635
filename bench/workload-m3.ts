/**
 * The life cycle of a time series database in the manner of M3: many small immutable filesets, one
 * for each shard and block, whose values hardly compress; segments of a reverse index; snapshots that
 * replace each other; append-only commit logs. A step is what two hours bring: a block is flushed for
 * every shard, and the active commit log grows by 1 % of all commit logs.
 */
import { appendFileSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { makeIdentifiers, makePostings, makeRecords, makeValues } from "./data-kinds.ts";
import { Seeded } from "./seeded.ts";
import { pathOf, setPastTime, writeTreeFile } from "./workload.ts";
import type { Workload } from "./workload.ts";

/** How much of it there is; the shares of the parts are fixed. */
export type M3Size = {
  readonly sizeBytes: number;
  readonly shardCount: number;
  readonly blockCount: number;
  readonly commitLogCount: number;
};

type Maker = (seeded: Seeded, sizeBytes: number) => Uint8Array;

/** The files of a fileset and their share of its bytes. */
const FILESET: readonly (readonly [name: string, share: number, make: Maker])[] = [
  ["data", 0.76, makeValues],
  ["index", 0.2, makeIdentifiers],
  ["bloomfilter", 0.02, makeRandom],
  ["summaries", 0.015, makeIdentifiers],
];
const SMALL_FILES: readonly (readonly [name: string, sizeBytes: number])[] = [
  ["info", 90],
  ["digest", 20],
  ["checkpoint", 4],
];
const SEGMENT: readonly (readonly [name: string, share: number, make: Maker])[] = [
  ["segment-0-docdata", 0.4, makeIdentifiers],
  ["segment-0-docidx", 0.1, makePostings],
  ["segment-0-fstterms", 0.3, makePostings],
  ["segment-0-fstfields", 0.02, makePostings],
  ["segment-0-postings", 0.18, makePostings],
];
const SHARES = { filesets: 0.62, snapshots: 0.06, segments: 0.12, commitLogs: 0.2 };
const GROWTH_SHARE = 0.01;

/** A node's tree. */
export function createM3Workload(size: M3Size, seed: string): Workload {
  const fileset = (folder: string, name: string, sizeBytes: number, step: number): void => {
    writeParts(
      join(folder, `${name}-`),
      FILESET,
      sizeBytes,
      `${seed} ${name} ${folder.slice(-20)}`,
      step,
    );
    const seeded = new Seeded(`${seed} small ${name} ${folder.slice(-20)}`);
    for (const [part, partBytes] of SMALL_FILES) {
      writeTreeFile(join(folder, `${name}-${part}.db`), partBytes, (n) => seeded.bytes(n), step);
    }
  };
  const filesetBytes = (size.sizeBytes * SHARES.filesets) / (size.shardCount * size.blockCount);
  const snapshotBytes = (size.sizeBytes * SHARES.snapshots) / size.shardCount;
  const segmentBytes = (size.sizeBytes * SHARES.segments) / size.blockCount;
  const commitLogBytes = Math.round((size.sizeBytes * SHARES.commitLogs) / size.commitLogCount);
  const writeBlock = (folder: string, block: number, step: number): void => {
    for (let shard = 0; shard < size.shardCount; shard += 1) {
      fileset(
        pathOf(folder, "data", "default", shard),
        `fileset-${startOf(block)}-0`,
        filesetBytes,
        step,
      );
    }
    const index = pathOf(folder, "index", "default", `fileset-${startOf(block)}-0-`);
    writeParts(index, SEGMENT, segmentBytes, `${seed} segment ${block}`, step);
  };
  return {
    name: "m3",
    about: "time series database: immutable filesets, index segments, commit logs",
    immutable: ["data/**", "index/**", "snapshots/**"],
    appendOnly: ["commitlogs/**"],
    create(folder) {
      for (let block = 0; block < size.blockCount; block += 1) writeBlock(folder, block, 0);
      for (let shard = 0; shard < size.shardCount; shard += 1) {
        const snapshots = pathOf(folder, "snapshots", "default", shard);
        fileset(snapshots, `fileset-${startOf(size.blockCount)}-0`, snapshotBytes, 0);
      }
      for (let log = 0; log < size.commitLogCount; log += 1) {
        const seeded = new Seeded(`${seed} log ${log}`);
        const path = join(folder, "commitlogs", `commitlog-0-${String(log).padStart(6, "0")}.db`);
        writeTreeFile(path, commitLogBytes, (n) => makeRecords(seeded, n));
      }
    },
    step(folder, number) {
      writeBlock(folder, size.blockCount + number - 1, number);
      growNewest(join(folder, "commitlogs"), `${seed} grow ${number}`, {
        sizeBytes: Math.round(size.sizeBytes * SHARES.commitLogs * GROWTH_SHARE),
        step: number,
      });
    },
  };
}

/** Removes the filesets of one block, oldest first: what a retention does. */
export function dropOldestBlock(folder: string, number: number): void {
  const prefix = `fileset-${startOf(number - 1)}-`;
  const shards = join(folder, "data", "default");
  const folders = readdirSync(shards).map((shard) => join(shards, shard));
  for (const parent of [...folders, join(folder, "index", "default")]) {
    for (const name of readdirSync(parent)) {
      if (name.startsWith(prefix)) rmSync(join(parent, name));
    }
  }
}

function growNewest(
  folder: string,
  seed: string,
  growth: { readonly sizeBytes: number; readonly step: number },
): void {
  const newest = readdirSync(folder).toSorted().at(-1)!;
  const path = join(folder, newest);
  appendFileSync(path, makeRecords(new Seeded(seed), growth.sizeBytes));
  setPastTime(path, growth.step);
}

function writeParts(
  prefix: string,
  parts: readonly (readonly [name: string, share: number, make: Maker])[],
  sizeBytes: number,
  seed: string,
  step: number,
): void {
  const seeded = new Seeded(seed);
  for (const [name, share, make] of parts) {
    const path = `${prefix}${name}.db`;
    writeTreeFile(path, Math.round(sizeBytes * share), (n) => make(seeded, n), step);
  }
}

function makeRandom(seeded: Seeded, sizeBytes: number): Uint8Array {
  return seeded.bytes(sizeBytes);
}

/** Blocks begin every two hours; names hold nanoseconds. */
function startOf(block: number): string {
  return `${1_700_006_400 + block * 7200}000000000`;
}
