/**
 * Rows that are not one workload side by side: chunk sizes, cleaning up, long lists, big catalogs.
 */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { astacusPeer } from "./astacus-peer.ts";
import { runMeasured } from "./measure.ts";
import type { Peer, Place } from "./peers.ts";
import { makeRepository, measured, runWorkload } from "./tool-run.ts";
import type { Figure } from "./tool-run.ts";
import { measureTree, mustBeEqual } from "./trees.ts";
import type { Workload } from "./workload.ts";
import { dropOldestBlock } from "./workload-m3.ts";
import { createLittleWorkload, WORKLOADS } from "./workloads.ts";
import type { RunSize } from "./workloads.ts";

/** What a row gets. */
export type RowOptions = {
  readonly scratch: string;
  readonly data: string;
  readonly size: RunSize;
  readonly peers: readonly Peer[];
  readonly repeatCount: number;
  readonly say: (text: string) => void;
};

/** A row and its question. */
export type OtherRow = {
  readonly question: string;
  readonly run: (options: RowOptions) => Promise<Figure[]>;
};

const CHUNK_SIZES_KIB = [64, 256, 1024];
const BACKUP_COUNT = 10;

/** All of them, by name. */
export const OTHER_ROWS: Readonly<Record<string, OtherRow>> = {
  "chunk-size": {
    question: "What does the average size of a chunk do to speed and to what small edits store?",
    run: runChunkSizes,
  },
  cleanup: {
    question: `Of ${BACKUP_COUNT} backups of a changing source all but the last are dropped: how long until the space is back, and is the last one whole?`,
    run: runCleanup,
  },
  list: {
    question: "How long does `list` take with 10,000 backups in the repository?",
    run: (options) => runScript("list", "list-scale.ts", ["--scratch", options.scratch]),
  },
  catalog: {
    question: "A catalog of 10 million chunks: time and memory",
    run: () => runScript("catalog", "catalog-scale.ts", ["--chunks", "10000000"]),
  },
};

async function runChunkSizes(options: RowOptions): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const name of ["edits", "m3"]) {
    const workload = WORKLOADS[name]!(options.size);
    const tools = CHUNK_SIZES_KIB.map((kib) =>
      astacusPeer({ workload, averageSizeBytes: kib * 1024, name: `astacus-${kib}K` }),
    );
    const phases = new Set(["first", "grown"] as const);
    const found = await runWorkload({ ...options, workload, tools, phases });
    figures.push(...found.map((figure) => ({ ...figure, row: `chunk-size/${figure.row}` })));
  }
  return figures;
}

async function runCleanup(options: RowOptions): Promise<Figure[]> {
  const figures: Figure[] = [];
  const workload = createLittleWorkload();
  const tools = [astacusPeer({ workload }), ...options.peers].filter(
    ({ drop }) => drop !== undefined,
  );
  for (const tool of tools) {
    const row = {
      tool: tool.name,
      row: "cleanup",
      ...(tool.isLimit === true ? { isLimit: true } : {}),
    };
    try {
      figures.push({ ...row, ...(await cleanUp(tool, workload, options)) });
    } catch (thrown) {
      const error = thrown instanceof Error ? thrown.message : String(thrown);
      options.say(`cleanup ${tool.name} failed: ${error}`);
      figures.push({ ...row, runCount: 0, wallMs: 0, cpuMs: 0, peakBytes: 0, error });
    }
  }
  return figures;
}

/** Each tool gets its own source, which takes the same steps. */
async function cleanUp(
  tool: Peer,
  workload: Workload,
  options: RowOptions,
): Promise<ReturnType<typeof measured>> {
  const source = join(options.data, "source-cleanup");
  const folder = join(options.scratch, `cleanup-${tool.name}`);
  const place: Place = {
    source,
    repository: join(folder, "repository"),
    home: join(folder, "home"),
  };
  const target = join(folder, "restored");
  try {
    mkdirSync(source, { recursive: true });
    workload.create(source);
    await makeRepository(tool, place);
    for (let number = 1; number <= BACKUP_COUNT; number += 1) {
      if (number > 1) {
        workload.step(source, number - 1);
        dropOldestBlock(source, number - 1);
      }
      await runMeasured(tool.backup(place, String(number)));
    }
    const names = Array.from({ length: BACKUP_COUNT - 1 }, (_, index) => String(index + 1));
    const cost = await runMeasured(tool.drop!(place, names));
    options.say(`cleanup ${tool.name}: ${Math.round(cost.wallMs)} ms`);
    const after = measureTree(place.repository);
    mkdirSync(target, { recursive: true });
    await runMeasured(tool.restore(place, String(BACKUP_COUNT), target));
    mustBeEqual(source, target);
    return {
      ...measured(cost),
      storedBytes: after.bytes,
      objectCount: after.files,
      isVerified: true,
    };
  } finally {
    for (const path of [source, folder]) rmSync(path, { recursive: true, force: true });
  }
}

/** A row that is a script of its own, which prints what it found. */
async function runScript(row: string, script: string, args: readonly string[]): Promise<Figure[]> {
  const path = join(import.meta.dir, script);
  const cost = await runMeasured([{ argv: [process.execPath, path, ...args] }]);
  console.log(`${row}:\n${cost.stdout}`);
  return [{ tool: "astacus", row, ...measured(cost) }];
}
