/**
 * The simulated cluster, seed after seed. `ASTACUS_SEEDS=from-to` replays those seeds and no others;
 * a failure names its seed and step. `ASTACUS_STEPS` makes walks longer.
 */
import { expect, test } from "bun:test";
import { walkCluster } from "./cluster-walk.ts";

/** How much work is spent on seeds where none are named: of this process, not of the clock on the wall. */
const BUDGET_CPU_MS = 45_000;
/** Fewer prove nothing, and reach too little of the code. */
const SEED_COUNT_MIN = 16;
const FIRST_SEED = 1;

const stepCount = Number(process.env["ASTACUS_STEPS"] ?? 14);

test("one seed gives one history, to the last call", async () => {
  for (const seed of [3, 4, 7]) {
    const first = await walkCluster(seed, 8);
    expect(await walkCluster(seed, 8)).toEqual(first);
  }
}, 120_000);

test("whatever goes wrong, every listed backup restores and every operation ends", async () => {
  const named = parseSeeds(process.env["ASTACUS_SEEDS"]);
  const faults: Record<string, number> = {};
  const outcomes: Record<string, number> = {};
  const started = process.cpuUsage();
  let steps = 0;
  let seeds = 0;
  for (let seed = named?.from ?? FIRST_SEED; isDue(seed); seed += 1) {
    const report = await walkCluster(seed, stepCount);
    seeds += 1;
    steps += report.steps;
    for (const [name, count] of Object.entries(report.faults)) add(faults, name, count);
    for (const [name, count] of Object.entries(report.outcomes)) add(outcomes, name, count);
  }
  const faultCount = Object.values(faults).reduce((sum, count) => sum + count, 0);
  console.log(`simulation: ${seeds} seeds, ${steps} cycles, ${faultCount} faults hit`);
  console.log(`  faults: ${shown(faults)}`);
  console.log(`  operations: ${shown(outcomes)}`);
  expect(seeds).toBeGreaterThan(0);

  function isDue(seed: number): boolean {
    if (named !== undefined) return seed <= named.to;
    const { user, system } = process.cpuUsage(started);
    return seeds < SEED_COUNT_MIN || user + system < 1000 * BUDGET_CPU_MS;
  }
}, 3_600_000);

function parseSeeds(text: string | undefined): { from: number; to: number } | undefined {
  if (text === undefined || text === "") return undefined;
  const [, from, to] = /^(\d+)(?:-(\d+))?$/.exec(text) ?? [];
  if (from === undefined) throw new Error(`ASTACUS_SEEDS is not FROM-TO: ${text}`);
  return { from: Number(from), to: Number(to ?? from) };
}

function add(counts: Record<string, number>, name: string, count: number): void {
  counts[name] = (counts[name] ?? 0) + count;
}

function shown(counts: Record<string, number>): string {
  return Object.entries(counts)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, count]) => `${name} ${count}`)
    .join(", ");
}
