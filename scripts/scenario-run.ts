/**
 * The large run of three real servers, from an empty site to new nodes: first backup, unchanged
 * backup, change, third backup, a lost node, and three empty nodes that know only the configuration
 * and the site. Every restore is compared with what was there, byte by byte, by code that shares
 * nothing with Astacus. Figures are read from outside: /proc, /metrics, the operations' records.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { ProcessCluster } from "./scenario-cluster.ts";
import {
  addOddities,
  changeFiles,
  empty,
  linkAndUnlink,
  listUnits,
  sizeOf,
  spread,
} from "./scenario-data.ts";
import { compareTrees, recordTree } from "./tree-comparison.ts";
import type { TreeRecord } from "./tree-comparison.ts";

/** What to run, and where. */
export type ScenarioOptions = {
  readonly folder: string;
  readonly sources: readonly string[];
  /** One entry of `sites`, as YAML on one line. */
  readonly site: string;
  /** Where the site keeps its bytes on this machine. */
  readonly siteFolder: string;
  readonly environment?: Readonly<Record<string, string>>;
  readonly say?: (text: string) => void;
};

/** One backup or restore, as it was measured. */
export type ScenarioStep = {
  readonly step: string;
  readonly seconds: number;
  /** Requests to the site by kind, of all servers together. */
  readonly requests: Readonly<Record<string, number>>;
  readonly readBytes: number;
  readonly newBytes: number;
  readonly storedBytes: number;
  readonly files: number;
  readonly bytes: number;
};

/** What came of it. */
export type ScenarioResult = {
  readonly data: { readonly files: number; readonly bytes: number };
  readonly steps: readonly ScenarioStep[];
  /** What is not as it was, by restore; all empty if all is well. */
  readonly differences: Readonly<Record<string, readonly string[]>>;
  readonly comparedEntries: number;
  /** Peak resident size of each server process. */
  readonly peakRssBytes: Readonly<Record<string, number>>;
  readonly siteBytes: number;
};

/** The record of an operation, as far as it is looked at here. */
type Ended = {
  readonly started: string;
  readonly ended: string;
  readonly result: {
    readonly readBytes?: number;
    readonly totals: Readonly<Record<string, number>>;
  };
};

type Trees = ReadonlyMap<string, TreeRecord>;

type Gathered = {
  readonly steps: ScenarioStep[];
  readonly differences: Record<string, readonly string[]>;
  readonly peakRssBytes: Record<string, number>;
  comparedEntries: number;
};

const LOST = "birch";
/** This share of the data comes after the first backup. */
const LATER_SHARE = 0.1;

/** Runs it all; throws where a command fails, and reports differences. */
export async function runScenario(options: ScenarioOptions): Promise<ScenarioResult> {
  const { folder, say = () => undefined } = options;
  const gathered: Gathered = { steps: [], differences: {}, peakRssBytes: {}, comparedEntries: 0 };
  const { site, environment = {} } = options;
  const all = listUnits(options.sources);
  const now = all.slice(0, Math.ceil(all.length * (1 - LATER_SHARE)));
  await using cluster = await ProcessCluster.make({
    folder: join(folder, "old"),
    site,
    environment,
  });
  const roots = cluster.names.map((name) => cluster.root(name));
  spread(now, roots);
  for (const root of roots) addOddities(root);
  must(await cluster.run(["site", "init", "-c", cluster.config]), "site init");
  await cluster.startAll();
  await backup(cluster, gathered, "first");
  const first = record(cluster);
  const { files, bytes } = first.totals;
  say(`${files} files, ${(bytes / 1e9).toFixed(2)} GB on three nodes`);
  await backup(cluster, gathered, "unchanged");
  const linkedCount = roots.reduce((sum, root) => sum + linkAndUnlink(root), 0);
  say(`${linkedCount} files were linked and unlinked`);
  await backup(cluster, gathered, "linked");
  for (const [index, root] of roots.entries()) changeFiles(root, index + 1);
  spread(all.slice(now.length), roots, 1);
  await backup(cluster, gathered, "changed");
  const changed = record(cluster);
  notePeaks(cluster, gathered, "backups");
  empty(cluster.root(LOST));
  await restore(cluster, gathered, { step: "lost node", backup: "changed", wanted: changed.trees });
  notePeaks(cluster, gathered, "backups and restore");
  await cluster.stopAll();
  for (const [backup, wanted] of [
    ["changed", changed.trees],
    ["first", first.trees],
  ] as const) {
    await onEmptyNodes(options, gathered, { backup, wanted });
  }
  return { data: { files, bytes }, ...gathered, siteBytes: sizeOf(options.siteFolder) };
}

/** New processes, new data folders, empty roots: only the configuration and the site. */
async function onEmptyNodes(
  options: ScenarioOptions,
  gathered: Gathered,
  what: { readonly backup: string; readonly wanted: Trees },
): Promise<void> {
  const { site, environment = {} } = options;
  const folder = join(options.folder, `new-${what.backup}`);
  await using cluster = await ProcessCluster.make({ folder, site, environment });
  await cluster.startAll();
  await restore(cluster, gathered, { step: `empty nodes, ${what.backup}`, ...what });
  notePeaks(cluster, gathered, `new-${what.backup}`);
  await cluster.stopAll();
  fs.rmSync(folder, { recursive: true, force: true });
}

async function backup(cluster: ProcessCluster, gathered: Gathered, name: string): Promise<void> {
  await measure(cluster, gathered, `${name} backup`, ["backup", "--name", name]);
}

async function restore(
  cluster: ProcessCluster,
  gathered: Gathered,
  what: { readonly step: string; readonly backup: string; readonly wanted: Trees },
): Promise<void> {
  await measure(cluster, gathered, what.step, ["restore", "--yes", "--backup", what.backup]);
  const found = record(cluster);
  gathered.differences[what.step] = [...what.wanted].flatMap(([name, was]) => {
    gathered.comparedEntries += was.size;
    return compareTrees(was, found.trees.get(name) ?? new Map<string, string>()).map(
      (difference) => `${name}/${difference}`,
    );
  });
}

async function measure(
  cluster: ProcessCluster,
  gathered: Gathered,
  step: string,
  args: readonly string[],
): Promise<void> {
  const before = await cluster.requests();
  const { started, ended, result } = await cluster.json<Ended>(args);
  const requests: Record<string, number> = {};
  for (const [kind, count] of Object.entries(await cluster.requests())) {
    requests[kind] = count - (before[kind] ?? 0);
  }
  const { totals } = result;
  gathered.steps.push({
    step,
    seconds: (Date.parse(ended) - Date.parse(started)) / 1000,
    requests,
    readBytes: result.readBytes ?? totals["fetchedBytes"] ?? 0,
    newBytes: totals["newBytes"] ?? 0,
    storedBytes: totals["storedBytes"] ?? 0,
    files: totals["files"] ?? totals["filesWritten"] ?? 0,
    bytes: totals["bytes"] ?? totals["bytesWritten"] ?? 0,
  });
}

function record(cluster: ProcessCluster): {
  readonly trees: Trees;
  readonly totals: { readonly files: number; readonly bytes: number };
} {
  const trees = new Map<string, TreeRecord>();
  const totals = { files: 0, bytes: 0 };
  for (const name of cluster.names) {
    const tree = recordTree(cluster.root(name));
    trees.set(name, tree.record);
    totals.files += tree.totals.files;
    totals.bytes += tree.totals.bytes;
  }
  return { trees, totals };
}

function notePeaks(cluster: ProcessCluster, gathered: Gathered, prefix: string): void {
  for (const name of cluster.names) {
    gathered.peakRssBytes[`${prefix} ${name}`] = cluster.readPeak(name);
  }
}

function must(end: { readonly code: number; readonly stderr: string }, what: string): void {
  if (end.code !== 0) throw new Error(`\`astacus ${what}\` ended with ${end.code}:\n${end.stderr}`);
}
