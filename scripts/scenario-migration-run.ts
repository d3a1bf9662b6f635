/**
 * The migrations themselves, with three real servers: for each next site its name is added to the
 * configuration, `site init` makes it, and `migrate` is given again and again until it succeeds, while
 * servers die and backups are made; then the former site is retired and taken out.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { Seeded } from "../bench/seeded.ts";
import { forEachConcurrent } from "../src/base/semaphore.ts";
import type { OperationRecord } from "../src/cluster/operations.ts";
import { ProcessCluster, until } from "./scenario-cluster.ts";
import { compareTrees, recordTree } from "./tree-comparison.ts";
import type { KnownHashes, TreeRecord } from "./tree-comparison.ts";

/** A site that runs. */
export type SitePlace = {
  readonly name: string;
  readonly kind: string;
  /** Its entry of `sites`, on one line. */
  readonly yaml: string;
  readonly environment: Readonly<Record<string, string>>;
};

/** What to run, and where. */
export type MigrationScenarioOptions = {
  readonly folder: string;
  /** In the order of the migrations. */
  readonly places: readonly SitePlace[];
  readonly sizeBytes: number;
  readonly backups: number;
  readonly kills: number;
  /** Backups that are restored whole; of the others comes back what each has added. All by default. */
  readonly restores?: number;
  readonly seed: string;
  readonly say?: (text: string) => void;
};

/** One migration. */
export type Hop = {
  readonly from: string;
  readonly to: string;
  /** From the first command to the end of the last. */
  readonly seconds: number;
  readonly tries: number;
  readonly kills: number;
  readonly backupsMeanwhile: number;
  /** Of packs that the plan names; what backups bring meanwhile is not in it. */
  readonly bytes: number;
  /** Of the last try. */
  readonly requests: string;
  /** What it took to prove the former site's packs elsewhere, and to retire it. */
  readonly retireSeconds: number;
};

/** What came of it. */
export type MigrationScenarioResult = {
  readonly hops: readonly Hop[];
  readonly lastSite: string;
  readonly backupsListed: number;
  /** Of them; of the rest what each has added was restored. */
  readonly restoredWhole: number;
  readonly comparedEntries: number;
  /** What is not as it was; empty if all is well. */
  readonly differences: readonly string[];
};

type Trees = ReadonlyMap<string, TreeRecord>;

type Run = {
  readonly options: MigrationScenarioOptions;
  readonly cluster: ProcessCluster;
  readonly random: Seeded;
  /** By round, which is the beginning of a backup's name. */
  readonly wanted: Map<string, Trees>;
  readonly known: KnownHashes;
  round: number;
  killsLeft: number;
};

type Site = { readonly site: string; readonly requests: Readonly<Record<string, number>> };

/** The first backup has this share of all bytes. */
const FIRST_SHARE = 0.6;
const TRIES_MAX = 30;
const BETWEEN_BACKUPS_MS = 2_000;
/** Each of them is copied from then on and restored in the end: not more where a machine is slow. */
const MEANWHILE_MAX = 5;
/** How many of them fit into a migration, at some 20 MB/s. */
const BYTES_PER_MS_BETWEEN = 200_000;
const RESTORES_AT_ONCE = 2;
/** More often than packs arrive. */
const POLL_MS = 20;

/** Runs it all; throws where a command fails for good, and reports differences. */
export async function runMigrations(
  options: MigrationScenarioOptions,
): Promise<MigrationScenarioResult> {
  const { folder, places, say = () => undefined } = options;
  const first = places[0];
  if (first === undefined || places.length < 2) throw new Error("two sites are needed at least");
  const environment = Object.assign({}, ...places.map((place) => place.environment)) as Record<
    string,
    string
  >;
  await using cluster = await ProcessCluster.make({
    folder: join(folder, "cluster"),
    site: first.yaml,
    environment,
  });
  must(await cluster.run(["site", "init", "-c", cluster.config]), "site init");
  await cluster.startAll();
  const run: Run = {
    options,
    cluster,
    random: new Seeded(options.seed),
    wanted: new Map(),
    known: new Map(),
    round: 0,
    killsLeft: options.kills,
  };
  const startedMs = performance.now();
  for (let count = 0; count < options.backups; count += 1) await backUp(run);
  say(`${options.backups} backups in ${((performance.now() - startedMs) / 1000).toFixed(1)} s`);
  const hops: Hop[] = [];
  for (const [index, to] of places.entries()) {
    const from = places[index - 1];
    if (from === undefined) continue;
    const hopsLeft = places.length - index;
    const hop = await migrate(run, { from, to, kills: Math.ceil(run.killsLeft / hopsLeft) });
    const retireMs = performance.now();
    must(await cluster.cli(["site", "retire", from.name, "--yes"]), `site retire ${from.name}`);
    hops.push({ ...hop, retireSeconds: (performance.now() - retireMs) / 1000 });
    say(`${from.name} (${from.kind}) → ${to.name} (${to.kind}): ${JSON.stringify(hops.at(-1))}`);
    await configure(run, [to]);
  }
  const restoreMs = performance.now();
  const restored = await restoreAll(run, places.at(-1)!);
  say(`restored and compared in ${((performance.now() - restoreMs) / 1000).toFixed(1)} s`);
  return { hops, lastSite: places.at(-1)!.name, ...restored };
}

/** Makes a backup of what the nodes hold after a change; its name begins with its round. */
async function backUp(run: Run): Promise<void> {
  const round = change(run);
  const end = await run.cluster.cli(["backup", "--name", round]);
  must(end, `backup --name ${round}`);
}

/** The data grows, and what the nodes hold then is remembered under the name of the round. */
function change(run: Run): string {
  const { options, cluster, random, wanted } = run;
  run.round += 1;
  const round = `r${run.round}`;
  const { sizeBytes, backups } = options;
  const share = run.round === 1 ? FIRST_SHARE : (1 - FIRST_SHARE) / Math.max(1, backups - 1);
  // What is made while migrations run is small: it is about moments, not about bytes.
  const bytes = run.round > backups ? 300_000 : Math.floor(sizeBytes * share);
  const trees = new Map<string, TreeRecord>();
  for (const name of cluster.names) {
    grow(cluster.root(name), round, Math.floor(bytes / cluster.names.length), random);
    trees.set(name, recordTree(cluster.root(name), run.known).record);
  }
  wanted.set(round, trees);
  return round;
}

/** Large and small files of bytes that nothing compresses; some older ones go. */
function grow(root: string, round: string, bytes: number, random: Seeded): void {
  const folder = join(root, round);
  fs.mkdirSync(folder, { recursive: true });
  let rest = bytes;
  for (let index = 0; rest > 0; index += 1) {
    const wanted = index % 4 === 0 ? 8_000_000 : 20_000 + (random.uint32() % 200_000);
    const length = Math.min(rest, wanted);
    fs.writeFileSync(join(folder, `file-${index}`), random.bytes(length));
    rest -= length;
  }
  const older = fs.readdirSync(root).filter((name) => name !== round);
  const victim = older.length > 0 ? older[random.uint32() % older.length] : undefined;
  const file = victim === undefined ? undefined : fs.readdirSync(join(root, victim))[0];
  if (victim !== undefined && file !== undefined) fs.rmSync(join(root, victim, file));
}

/** One migration, with kills, and backups meanwhile. */
async function migrate(
  run: Run,
  how: { readonly from: SitePlace; readonly to: SitePlace; readonly kills: number },
): Promise<Omit<Hop, "retireSeconds">> {
  const { cluster } = run;
  const { from, to, kills } = how;
  await configure(run, [from, to]);
  must(await cluster.run(["site", "init", to.name, "-c", cluster.config]), `site init ${to.name}`);
  const args = ["migrate", "--from", from.name, "--to", to.name, "--yes", "--json"];
  const planned = await planWhenAllKnow(run, args.slice(0, -2));
  const startedMs = performance.now();
  const stopped = new AbortController();
  const backing = backUpMeanwhile(run, stopped.signal);
  const hop = { tries: 0, kills: 0, bytes: planned.bytes };
  let requests = "";
  let said = "";
  try {
    for (;;) {
      hop.tries += 1;
      if (hop.tries > TRIES_MAX) throw new Error(`migrate failed in ${TRIES_MAX} tries: ${said}`);
      const coordinator = draw(run.random, cluster.names);
      const command = cluster.spawn([...args, "-u", cluster.url(coordinator)]);
      if (hop.kills < kills && (await untilCopied(run, coordinator, command))) {
        // Mostly the coordinator, sometimes one that only copies.
        const victim = hop.kills % 3 === 2 ? draw(run.random, cluster.names) : coordinator;
        await cluster.kill(victim);
        cluster.start(victim);
        await cluster.untilReady(victim);
        hop.kills += 1;
        run.killsLeft -= 1;
      }
      const end = await command.end;
      said = end.stderr;
      if (end.code !== 0) continue;
      const { usage = [] } = JSON.parse(end.stdout) as { usage?: Site[] };
      requests = usage.map(describeUsage).join("; ");
      break;
    }
  } finally {
    stopped.abort();
  }
  const backupsMeanwhile = await backing;
  const seconds = (performance.now() - startedMs) / 1000;
  return { from: from.kind, to: to.kind, seconds, backupsMeanwhile, requests, ...hop };
}

/** What is to be copied; a plan is refused until each node has read its new configuration. */
async function planWhenAllKnow(
  { cluster }: Run,
  args: readonly string[],
): Promise<{ readonly bytes: number }> {
  let text = "";
  await until("all nodes know the next site", async () => {
    const { code, stdout } = await cluster.cli([...args, "--plan", "--json"]);
    text = stdout;
    return code === 0;
  });
  return JSON.parse(text) as { bytes: number };
}

/** Waits until a share of what is to be copied is there, which is drawn; false if it ended before. */
async function untilCopied(
  { cluster, random }: Run,
  coordinator: string,
  command: { readonly end: Promise<unknown> },
): Promise<boolean> {
  const share = random.below(1000) / 1000;
  const ended = new AbortController();
  void command.end.then(() => ended.abort());
  while (!ended.signal.aborted) {
    const path = "/v1/operations?kind=migrate&limit=1";
    const { operations } = await cluster.get<{ operations: OperationRecord[] }>(path, coordinator);
    const [newest] = operations;
    if (newest !== undefined && newest.ended === undefined) {
      const { bytes = 0, bytesTotal } = newest.progress ?? {};
      if (bytesTotal !== undefined && bytes >= share * bytesTotal) return !ended.signal.aborted;
    }
    await Bun.sleep(POLL_MS);
  }
  return false;
}

/** Backups through any server, until it is told to stop; what a kill has hit is made again. */
async function backUpMeanwhile(run: Run, stopped: AbortSignal): Promise<number> {
  const { cluster, options, random } = run;
  let made = 0;
  do {
    const round = change(run);
    for (let attempt = 1; ; attempt += 1) {
      const name = attempt === 1 ? round : `${round}-again-${attempt}`;
      const end = await cluster.cli(["backup", "--name", name], draw(random, cluster.names));
      if (end.code === 0) break;
      if (attempt >= TRIES_MAX) throw new Error(`backup ${name}: ${end.stderr}`);
      await Bun.sleep(500);
    }
    made += 1;
    const untilMs =
      performance.now() + BETWEEN_BACKUPS_MS + options.sizeBytes / BYTES_PER_MS_BETWEEN;
    while (!stopped.aborted && performance.now() < untilMs) await Bun.sleep(100);
  } while (!stopped.aborted && made < MEANWHILE_MAX);
  return made;
}

/** Rewrites the configuration with these sites, and has every server read it. */
async function configure(run: Run, places: readonly SitePlace[]): Promise<void> {
  const { cluster } = run;
  const site = places.map(({ yaml }) => yaml).join("\n  - ");
  fs.writeFileSync(cluster.config, cluster.configText({ site }));
  const reload = async (name: string): Promise<void> => {
    must(await cluster.cli(["reload"], name), `reload of ${name}`);
    // It is opened anew as soon as nothing runs; a short wait, so that it does not look ready before.
    await Bun.sleep(700);
    await cluster.untilReady(name);
  };
  await Promise.all(cluster.names.map(reload));
}

/** Every listed backup from the last site alone, on a machine that knows nothing else. */
async function restoreAll(
  { cluster, options, wanted }: Run,
  last: SitePlace,
): Promise<Omit<MigrationScenarioResult, "hops" | "lastSite">> {
  await cluster.stopAll();
  const config = cluster.writeConfig("last-alone.conf", { site: last.yaml });
  const listed = await cluster.run(["list", "--json", "-c", config]);
  must(listed, "list");
  const names = (JSON.parse(listed.stdout) as { backups: { name: string }[] }).backups.map(
    ({ name }) => name,
  );
  const differences: string[] = [];
  for (const round of wanted.keys()) {
    if (!names.some((name) => roundOf(name) === round)) differences.push(`${round}: not listed`);
  }
  const whole = new Set(spread(names, options.restores ?? names.length));
  let comparedEntries = 0;
  const restoreOne = async (name: string): Promise<void> => {
    const target = join(options.folder, "restored", name);
    const round = roundOf(name);
    const only = whole.has(name) ? [] : ["--path", `${round}/**`];
    const args = ["restore", "--backup", name, ...only, "--to", target, "--yes", "-c", config];
    must(await cluster.run(args), args.join(" "));
    for (const [node, all] of wanted.get(round) ?? []) {
      const was = whole.has(name) ? all : below(all, round);
      const { record } = recordTree(join(target, node, "root"));
      const is = whole.has(name) ? record : below(record, round);
      comparedEntries += is.size;
      if (is.size === 0) differences.push(`${name}/${node}: nothing was compared`);
      differences.push(...compareTrees(was, is).map((one) => `${name}/${node}/${one}`));
    }
    fs.rmSync(target, { recursive: true, force: true });
  };
  await forEachConcurrent(names, RESTORES_AT_ONCE, restoreOne);
  return {
    backupsListed: names.length,
    restoredWhole: whole.size,
    comparedEntries,
    differences,
  };
}

/** So many of them, from the first to the last at even distances. */
function spread(names: readonly string[], count: number): string[] {
  if (names.length <= count) return [...names];
  const step = (names.length - 1) / Math.max(1, count - 1);
  return names.filter((_, index) => Math.round(Math.round(index / step) * step) === index);
}

/** What lies in one folder, without the folder, whose times a restore of its files need not set. */
function below(record: TreeRecord, folder: string): TreeRecord {
  return new Map([...record].filter(([path]) => path.startsWith(`${folder}/`)));
}

function roundOf(name: string): string {
  return name.split("-")[0] ?? name;
}

function describeUsage({ site, requests }: Site): string {
  const made = Object.entries(requests).filter(([, count]) => count > 0);
  return `${site} ${made.map(([kind, count]) => `${kind} ${count}`).join(" ")}`;
}

function draw<T>(random: Seeded, from: readonly T[]): T {
  return from[random.uint32() % from.length]!;
}

function must(end: { readonly code: number; readonly stderr: string }, what: string): void {
  if (end.code !== 0) throw new Error(`\`astacus ${what}\` ended with ${end.code}:\n${end.stderr}`);
}
