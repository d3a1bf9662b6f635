/**
 * The other generated trees: sstables, log text, big files with small edits, tiny files. What they
 * stand for is said beside each.
 */
import { appendFileSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { makeBlocks, makeIdentifiers, makeLogText, makeMixed } from "./data-kinds.ts";
import { createM3Workload } from "./workload-m3.ts";
import { Seeded } from "./seeded.ts";
import { pathOf, setPastTime, writeTreeFile } from "./workload.ts";
import type { Workload } from "./workload.ts";

const MEBIBYTE = 1024 * 1024;

/** How much data a run uses. */
export type RunSize = "small" | "full";

/** All workloads, by name. */
export const WORKLOADS: Readonly<Record<string, (size: RunSize) => Workload>> = {
  m3: (size) =>
    size === "full"
      ? m3({ sizeBytes: 4096 * MEBIBYTE, shardCount: 64, blockCount: 15, commitLogCount: 24 })
      : m3({ sizeBytes: 512 * MEBIBYTE, shardCount: 32, blockCount: 8, commitLogCount: 6 }),
  cassandra: (size) => cassandra(size === "full" ? 1750 * MEBIBYTE : 227 * MEBIBYTE),
  logs: (size) => logs(size === "full" ? 2048 * MEBIBYTE : 256 * MEBIBYTE),
  edits: (size) => edits(size === "full" ? 1024 * MEBIBYTE : 128 * MEBIBYTE),
  tiny: (size) => tiny(size === "full" ? 200_000 : 20_000),
};

/** A quarter of the small m3 tree, for rows that need many backups. */
export function createLittleWorkload(): Workload {
  return m3({ sizeBytes: 128 * MEBIBYTE, shardCount: 8, blockCount: 8, commitLogCount: 4 });
}

function m3(size: Parameters<typeof createM3Workload>[0]): Workload {
  return createM3Workload(size, "m3 21");
}

const SSTABLE_COUNT = 35;
const SSTABLE_PARTS = [
  ["Data.db", 0.94, makeBlocks],
  ["Index.db", 0.05, makeIdentifiers],
  ["Filter.db", 0.008, (seeded: Seeded, n: number) => seeded.bytes(n)],
  ["Statistics.db", 0.001, makeIdentifiers],
  ["Summary.db", 0.0005, makeIdentifiers],
  ["CompressionInfo.db", 0.0004, makeIdentifiers],
  ["Digest.crc32", 0, makeIdentifiers],
  ["TOC.txt", 0, makeIdentifiers],
] as const;

/** Seven tables of five sstables, of very different sizes; a step flushes one a table. */
function cassandra(sizeBytes: number): Workload {
  const sstable = (folder: string, number: number, step: number): void => {
    const seeded = new Seeded(`cassandra ${number}`);
    const share = [0.05, 0.05, 0.1, 0.2, 0.6][Math.floor(number / 7) % 5]! / 7;
    for (const [part, partShare, make] of SSTABLE_PARTS) {
      const path = pathOf(folder, "data", "ks", `table-${number % 7}`, `nb-${number}-big-${part}`);
      const bytes = Math.max(10, Math.round(sizeBytes * share * partShare));
      writeTreeFile(path, bytes, (n) => make(seeded, n), step);
    }
  };
  return {
    name: "cassandra",
    about: "sstables: immutable, compressed by the database",
    immutable: ["data/**"],
    create(folder) {
      for (let number = 0; number < SSTABLE_COUNT; number += 1) sstable(folder, number, 0);
    },
    step(folder, step) {
      for (let table = 0; table < 7; table += 1) {
        sstable(folder, SSTABLE_COUNT * step + table, step);
      }
    },
  };
}

const LOG_COUNT = 48;

/** Text logs, six of them active; a step grows these by a quarter of a file. */
function logs(sizeBytes: number): Workload {
  const fileBytes = Math.round(sizeBytes / LOG_COUNT);
  const path = (folder: string, log: number): string =>
    pathOf(folder, `host-${log % 6}`, `app.log.${Math.floor(log / 6)}`);
  return {
    name: "logs",
    about: "log text, which compresses well",
    appendOnly: ["**"],
    create(folder) {
      for (let log = 0; log < LOG_COUNT; log += 1) {
        const seeded = new Seeded(`logs ${log}`);
        writeTreeFile(path(folder, log), fileBytes, (n) => makeLogText(seeded, n, log));
      }
    },
    step(folder, step) {
      for (let log = LOG_COUNT - 6; log < LOG_COUNT; log += 1) {
        const seeded = new Seeded(`logs ${log} step ${step}`);
        appendFileSync(
          path(folder, log),
          makeLogText(seeded, Math.round(fileBytes / 4), 1000 * step),
        );
        setPastTime(path(folder, log), step);
      }
    },
  };
}

const EDITED_FILE_COUNT = 4;
const EDIT_COUNT = 24;

/** Four big files; a step inserts, removes or overwrites up to 4 KiB at 24 places of each. */
function edits(sizeBytes: number): Workload {
  const path = (folder: string, file: number): string => pathOf(folder, `image-${file}.bin`);
  return {
    name: "edits",
    about: "big files with small edits anywhere",
    create(folder) {
      for (let file = 0; file < EDITED_FILE_COUNT; file += 1) {
        const seeded = new Seeded(`edits ${file}`);
        const fileBytes = Math.round(sizeBytes / EDITED_FILE_COUNT);
        writeTreeFile(path(folder, file), fileBytes, (n) => makeMixed(seeded, n));
      }
    },
    step(folder, step) {
      for (let file = 0; file < EDITED_FILE_COUNT; file += 1) {
        const seeded = new Seeded(`edits ${file} step ${step}`);
        writeFileSync(path(folder, file), edited(readFileSync(path(folder, file)), seeded));
        setPastTime(path(folder, file), step);
      }
    },
  };
}

function edited(bytes: Uint8Array, seeded: Seeded): Uint8Array {
  const places = Array.from({ length: EDIT_COUNT }, () => seeded.below(bytes.length - 4096));
  const parts: Uint8Array[] = [];
  let position = 0;
  for (const place of places.toSorted((a, b) => a - b)) {
    if (place < position) continue;
    parts.push(bytes.subarray(position, place));
    const kind = seeded.below(3);
    const length = seeded.between(1, 4096);
    if (kind !== 1) parts.push(seeded.bytes(length));
    position = kind === 0 ? place : place + length;
  }
  return Buffer.concat([...parts, bytes.subarray(position)]);
}

/** Small documents, a hundred a folder; a step changes, adds and removes 2 % of them. */
function tiny(fileCount: number): Workload {
  const write = (folder: string, file: number, step: number): void => {
    const seeded = new Seeded(`tiny ${file} step ${step}`);
    const sizeBytes = 60 + seeded.below(1 + seeded.below(8000));
    const make = (n: number): Uint8Array => {
      const random = seeded.bytes(Math.ceil(n * 0.55));
      return Buffer.concat([random, makeLogText(seeded, n, file % 7)]).subarray(0, n);
    };
    writeTreeFile(tinyPath(folder, file), sizeBytes, make, step);
  };
  return {
    name: "tiny",
    about: `${fileCount.toLocaleString("en")} files of some kilobytes`,
    create(folder) {
      for (let file = 0; file < fileCount; file += 1) write(folder, file, 0);
    },
    step(folder, step) {
      const seeded = new Seeded(`tiny step ${step}`);
      const changeCount = Math.round(fileCount / 150);
      for (let change = 0; change < changeCount; change += 1) {
        write(folder, seeded.below(fileCount), step);
        write(folder, fileCount * step + change, step);
        rmSync(tinyPath(folder, seeded.below(fileCount)), { force: true });
      }
    },
  };
}

function tinyPath(folder: string, file: number): string {
  const hundred = Math.floor(file / 100);
  return pathOf(folder, Math.floor(hundred / 100), hundred % 100, `document-${file}.json`);
}
