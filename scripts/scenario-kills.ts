/**
 * Servers die at any moment: backups and restores run, a server that is drawn from a seed is ended by
 * SIGKILL after a time drawn from it, is started again, and the same command is given again until it
 * succeeds. A kill is survived when that was so and everything restored is as it was, byte by byte.
 */
import { join } from "node:path";
import { Seeded } from "../bench/seeded.ts";
import { ProcessCluster } from "./scenario-cluster.ts";
import { addOddities, changeFiles, empty, listUnits, spread } from "./scenario-data.ts";
import type { Unit } from "./scenario-data.ts";
import type { ScenarioOptions } from "./scenario-run.ts";
import { compareTrees, recordTree } from "./tree-comparison.ts";

/** What was survived. */
export type KillsResult = {
  /** Servers that were ended while an operation ran. */
  readonly survived: number;
  readonly cycles: number;
  /** Kills that hit the server that led the operation. */
  readonly coordinators: number;
  /** Commands that ended well although a server was ended while they ran. */
  readonly wentOn: number;
  /** Commands that had to be given again, and how often at most. */
  readonly repeated: number;
  readonly triesMax: number;
  readonly differences: readonly string[];
  readonly seconds: number;
};

/** More data says nothing new, and takes longer between two kills. */
const BYTES_MAX = 120 * 1024 ** 2;
const TRIES_MAX = 10;
const COMMAND_MS_MAX = 300_000;
/** A command that nobody disturbs takes about so long at first. */
const USUAL_MS = 3000;

type Counts = { -readonly [Key in keyof Omit<KillsResult, "differences" | "seconds">]: number };

type Run = {
  readonly cluster: ProcessCluster;
  readonly random: Seeded;
  readonly counts: Counts;
  readonly say: (text: string) => void;
  usualMs: number;
};

/** Runs until `count` kills hit a running operation. */
export async function runKills(
  options: ScenarioOptions & { readonly count: number; readonly seed: string },
): Promise<KillsResult> {
  const { site, environment = {}, count, say = () => undefined } = options;
  const folder = join(options.folder, "kills");
  await using cluster = await ProcessCluster.make({ folder, site, environment });
  const roots = cluster.names.map((name) => cluster.root(name));
  spread(someOf(options.sources), roots);
  for (const root of roots) addOddities(root);
  const init = await cluster.run(["site", "init", "-c", cluster.config]);
  if (init.code !== 0) throw new Error(init.stderr);
  await cluster.startAll();
  const startedMs = performance.now();
  const counts = { survived: 0, cycles: 0, coordinators: 0, wentOn: 0, repeated: 0, triesMax: 0 };
  const random = new Seeded(options.seed);
  const run: Run = { cluster, random, counts, say, usualMs: USUAL_MS };
  const differences: string[] = [];
  while (counts.survived < count && differences.length === 0) {
    const round = (counts.cycles += 1);
    for (const root of roots) changeFiles(root, round);
    await untilDone(run, ["backup", "--name", `round-${round}`]);
    const was = roots.map((root) => recordTree(root).record);
    empty(draw(random, roots));
    await untilDone(run, ["restore", "--yes"]);
    for (const [index, root] of roots.entries()) {
      const { record } = recordTree(root);
      differences.push(...compareTrees(was[index] ?? new Map<string, string>(), record));
    }
    say(`round ${round}: ${counts.survived} kills survived, ${differences.length} differences`);
  }
  const verified = await cluster.cli(["verify", "--deep"]);
  if (verified.code !== 0) differences.push(`verify --deep: ${verified.stderr}`);
  return { ...counts, differences, seconds: (performance.now() - startedMs) / 1000 };
}

/** Gives the same command until it succeeds; a server ends in each of the first three tries. */
async function untilDone(run: Run, args: readonly string[]): Promise<void> {
  const { cluster, random, counts } = run;
  const coordinator = draw(random, cluster.names);
  for (let tries = 1; tries <= TRIES_MAX; tries += 1) {
    const startedMs = performance.now();
    const command = cluster.spawn([...args, "-u", cluster.url(coordinator)]);
    const victim = draw(random, cluster.names);
    const pause = Bun.sleep(random.below(Math.ceil(run.usualMs)));
    const isHit = (await Promise.race([command.end, pause])) === undefined && tries <= 3;
    if (isHit) {
      await cluster.kill(victim);
      cluster.start(victim);
    }
    const end = await within(COMMAND_MS_MAX, command.end, `${args.join(" ")} after a kill`);
    if (isHit) {
      await cluster.untilReady(victim);
      counts.survived += 1;
      if (victim === coordinator) counts.coordinators += 1;
      if (end.code === 0) counts.wentOn += 1;
      const what = victim === coordinator ? `${victim}, the coordinator` : victim;
      const last = end.stderr.trimEnd().split("\n").slice(-2).join(" | ");
      run.say(`${args[0]}: killed ${what}, ended with ${end.code}: ${end.code === 0 ? "" : last}`);
    } else if (end.code === 0) {
      run.usualMs = (run.usualMs + performance.now() - startedMs) / 2;
    }
    counts.triesMax = Math.max(counts.triesMax, tries);
    if (end.code === 0) return;
    if (tries === 1) counts.repeated += 1;
    if (!isHit) run.say(`${args[0]} again: ${end.code} ${end.stderr.trimEnd().slice(-300)}`);
  }
  throw new Error(`\`${args.join(" ")}\` did not succeed in ${TRIES_MAX} tries`);
}

async function within<T>(ms: number, promise: Promise<T>, what: string): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => late.reject(new Error(`took longer than ${ms / 1000} s: ${what}`)),
    ms,
  );
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

function someOf(sources: readonly string[]): Unit[] {
  let bytes = 0;
  return listUnits(sources).filter((unit) => (bytes += unit.bytes) <= BYTES_MAX);
}

function draw<T>(random: Seeded, from: readonly T[]): T {
  return from[random.below(from.length)]!;
}
