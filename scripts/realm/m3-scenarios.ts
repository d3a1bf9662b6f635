/**
 * Scenarios on a real M3 cluster, each with its own proof: what was acknowledged before a backup
 * answers after the restore, at the consistency it was written with, on every replica. The first two
 * run in the tests; all of them from the command line (`bun run realm m3 scenarios`).
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { RACY_MS_DEFAULT } from "../../src/cas/write/backup-settings.ts";
import type { CliEnd } from "../scenario-cluster.ts";
import { until } from "../scenario-cluster.ts";
import { M3Scene } from "./m3-scene.ts";
import type { BackupAnswer, Checked, SceneOptions } from "./m3-scene.ts";

/** What a scenario found, for a table. */
export type Figures = { readonly [what: string]: number | string };

/** Where a scenario may put its things, and whom it tells. */
export type ScenarioContext = {
  readonly folder: string;
  readonly say: (message: string) => void;
  /** Another user for the servers of Astacus. */
  readonly runAs?: SceneOptions["runAs"];
};

/** One scenario. */
export type Scenario = {
  readonly name: string;
  readonly what: string;
  readonly run: (context: ScenarioContext) => Promise<Figures>;
};

/** A check with fewer points proves nothing. */
const POINT_COUNT_MIN = 500;

/** A log of this size has chunks of points behind its first one. */
const LOG_SIZE_BYTES_MIN = 500;

/** Two looks of M3 for work, and some time to spare. */
const SNAPSHOT_WAIT_MS = 30_000;

/** All of them, in the order in which they are run. */
export const M3_SCENARIOS: readonly Scenario[] = [
  { name: "wipe-all", what: "backup under writes, all nodes and etcd wiped", run: wipeAll },
  { name: "new-names", what: "new names, addresses, zone and environment", run: newNames },
  { name: "ten-backups", what: "ten backups while M3 flushes, each restored", run: tenBackups },
  { name: "one-node", what: "one node lost and restored alone", run: oneNode },
  { name: "empty-database", what: "the check of the database misses what is lost", run: emptied },
  { name: "namespace", what: "the files of one namespace, without commit logs", run: oneNamespace },
  { name: "degraded", what: "a node that does not answer, two copies asked for", run: degraded },
  { name: "damage", what: "a damaged fileset and a damaged commit log", run: damage },
  { name: "killed-node", what: "a node killed in the middle of a backup", run: killedNode },
  { name: "full-disk", what: "a disk that fills during the restore", run: fullDisk },
  { name: "refusals", what: "what must not be done, and says why", run: refusals },
];

/** Writes go on while two backups are made; both are restored into an empty cluster. */
export async function wipeAll(context: ScenarioContext): Promise<Figures> {
  await using scene = await stage(context, "wipe-all");
  scene.beginLoad();
  await untilFlushed(scene);
  const first = await scene.backup();
  await Bun.sleep(5_000);
  const second = await scene.backup();
  await scene.endLoad();
  mustBe(first.complete && second.complete, `complete backups: ${first.problems.join("; ")}`);
  await scene.realm.stopAll();
  // Files that were changed a moment ago are read again by the next backup, whatever their stat says.
  await Bun.sleep(RACY_MS_DEFAULT + 500);
  await scene.backup();
  const unchanged = await scene.backup();
  mustBe(unchanged.readBytes === 0, `an unchanged backup read ${unchanged.readBytes} bytes`);
  mustBe(capturesOf(scene).length === 0, `captures are left: ${capturesOf(scene).join(", ")}`);
  const figures: Record<string, number | string> = {
    files: first.totals.files,
    firstReadBytes: first.readBytes,
    secondReadBytes: second.readBytes,
    unchangedReadBytes: unchanged.readBytes,
  };
  for (const [name, backup] of [
    ["first", first],
    ["second", second],
  ] as const) {
    const checked = await restoreAll(scene, backup);
    figures[`${name}Points`] = checked.points;
  }
  const end = await scene.astacus.cli(["verify", "--database", second.name]);
  mustBe(end.code === 0, `the database holds the backup: ${end.stdout}${end.stderr}`);
  mustBe(/^ok {4}series of default: [1-9]/m.test(end.stdout), end.stdout);
  return figures;
}

/** Into nodes with other addresses, whose ids are a rotation of the old ones, in another environment. */
export async function newNames(context: ScenarioContext): Promise<Figures> {
  await using old = await stage(context, "old");
  old.beginLoad();
  await untilFlushed(old);
  const backup = await old.backup();
  await old.endLoad();
  await old.astacus[Symbol.asyncDispose]();
  await old.realm.killAll();
  const [one = "", two = "", three = ""] = old.realm.settings.hostIds;
  const figures: Record<string, number | string> = {};
  for (const [name, hostIds, environment] of [
    ["rotated", [two, three, one], "default_env"],
    ["new", ["fresh-a", "fresh-b", "fresh-c"], "team/other"],
  ] as const) {
    await using scene = await stage(context, name, {
      settings: { hostIds, environment, zone: `zone-${name}` },
      siteFolder: old.siteFolder,
      ledgerFile: old.ledgerFile,
      isEmpty: true,
    });
    await scene.restore(backup.name);
    await scene.bootstrap();
    figures[`${name}Points`] = mustHold(await scene.check(backup.safeMs), name).points;
  }
  return figures;
}

/** M3 flushes, snapshots, rotates and cleans up beneath ten backups; each is restored and checked. */
async function tenBackups(context: ScenarioContext): Promise<Figures> {
  await using scene = await stage(context, "ten", { settings: { blockSeconds: 30 } });
  scene.beginLoad();
  await untilFlushed(scene);
  const backups: (BackupAnswer & { safeMs: number })[] = [];
  for (let count = 1; count <= 10; count += 1) {
    backups.push(await scene.backup());
    context.say(`backup ${count} of 10`);
    await Bun.sleep(4_000);
  }
  await scene.endLoad();
  let points = 0;
  for (const backup of backups) points += (await restoreAll(scene, backup)).points;
  const readBytes = backups.reduce((sum, { readBytes: bytes }) => sum + bytes, 0);
  return { backups: backups.length, points, readBytes };
}

/** The others run on: they are not asked, and etcd is left alone. */
async function oneNode(context: ScenarioContext): Promise<Figures> {
  await using scene = await stage(context, "one-node");
  scene.beginLoad();
  await untilFlushed(scene);
  const backup = await scene.backup();
  await scene.endLoad();
  await scene.realm.killNode(2);
  scene.realm.wipeNode(2);
  await scene.restore(backup.name, ["--node", "node2"]);
  await scene.bootstrap();
  const checked = mustHold(await scene.check(backup.safeMs), "one node");
  return { points: checked.points };
}

/** Nodes that come up empty are told from those that were restored. */
async function emptied(context: ScenarioContext): Promise<Figures> {
  await using scene = await stage(context, "emptied");
  scene.beginLoad();
  await untilFlushed(scene);
  const { name } = await scene.backup();
  await scene.endLoad();
  const full = await scene.astacus.cli(["verify", "--database", name]);
  mustBe(full.code === 0, `a database that was not touched holds it: ${full.stdout}${full.stderr}`);
  await scene.realm.killAll();
  const down = await scene.astacus.cli(["verify", "--database", name]);
  mustBe(down.code === 1 && /BAD {3}instance/.test(down.stdout), `all are down: ${down.stdout}`);
  for (const { number } of scene.realm.nodes) scene.realm.wipeNode(number);
  await scene.bootstrap();
  const empty = await scene.astacus.cli(["verify", "--database", name]);
  const lost = /^BAD {3}series of default: fewer than in the backup: (\d+) in /m.exec(empty.stdout);
  mustBe(empty.code === 1 && lost !== null, `what is lost is missed: ${empty.stdout}`);
  return { seriesLeft: lost?.[1] ?? "" };
}

/** Filesets and snapshots of a namespace come back by a path; M3 builds the index again. */
async function oneNamespace(context: ScenarioContext): Promise<Figures> {
  await using scene = await stage(context, "namespace");
  scene.beginLoad();
  await untilFlushed(scene);
  await scene.endLoad();
  // By then a snapshot holds what was in the commit logs alone.
  await Bun.sleep(SNAPSHOT_WAIT_MS);
  const backup = await scene.backup();
  await scene.realm.killAll();
  for (const node of scene.realm.nodes) scene.realm.wipeNode(node.number);
  await scene.restore(backup.name, ["--path", `${scene.realm.settings.namespace}/**`]);
  const logs = scene.realm.files(1).commitLogs.length;
  mustBe(logs === 0, `${logs} commit logs came back with the namespace`);
  await scene.bootstrap();
  return { points: mustHold(await scene.check(backup.safeMs), "namespace").points };
}

/** Two of three copies: the third node comes up empty and has its data from the others. */
async function degraded(context: ScenarioContext): Promise<Figures> {
  await using scene = await stage(context, "degraded", {
    product: ["copies: 2"],
    more: "backup: {degraded: true, nodeTimeout: 5s}",
  });
  scene.beginLoad();
  await untilFlushed(scene);
  await scene.astacus.kill("node3");
  const backup = await scene.backup();
  await scene.endLoad();
  mustBe(backup.complete && backup.degraded, `a degraded backup: ${JSON.stringify(backup)}`);
  const listed = await scene.astacus.cli(["list"]);
  mustBe(listed.stdout.includes("degraded"), `list says degraded:\n${listed.stdout}`);
  scene.astacus.start("node3");
  await scene.astacus.untilReady("node3");
  await scene.wipeAll();
  await scene.restore(backup.name);
  await scene.bootstrap();
  const checked = mustHold(await scene.check(backup.safeMs, { everyReplica: false }), "degraded");
  return { points: checked.points, problems: backup.problems.length };
}

/** A bit flips in a fileset and in a commit log on a node's disk: each is named on the day. */
async function damage(context: ScenarioContext): Promise<Figures> {
  await using scene = await stage(context, "damage");
  scene.beginLoad();
  await untilFlushed(scene);
  // A clean end would leave logs that are hardly more than a header.
  await scene.realm.killAll();
  await scene.endLoad();
  const { dataFolder } = scene.realm.node(1);
  const fileset = largest(join(dataFolder, "data"), /-data\.db$/);
  const log = newestLog(join(dataFolder, "commitlogs"));
  for (const path of [fileset, log]) flipBit(path);
  const backup = await scene.backup();
  mustBe(!backup.complete, "a backup of damaged files is marked");
  for (const path of [fileset, log]) {
    const name = path.split("/").at(-1) ?? "";
    mustBe(
      backup.problems.some((problem) => problem.includes(name)),
      `${name} is named: ${backup.problems.join("; ")}`,
    );
  }
  const verified = await scene.astacus.cli(["verify", backup.name, "--deep"]);
  mustBe(verified.code !== 0, "a deep verification finds it again");
  return { problems: backup.problems.length };
}

/** The server of one node and its M3 die while the backup runs; the next one is whole. */
async function killedNode(context: ScenarioContext): Promise<Figures> {
  await using scene = await stage(context, "killed", { more: "backup: {nodeTimeout: 5s}" });
  scene.beginLoad();
  await untilFlushed(scene);
  const running = scene.astacus.spawn(["backup", "-u", scene.astacus.url("node1")]);
  await Bun.sleep(400);
  await Promise.all([scene.astacus.kill("node2"), scene.realm.killNode(2)]);
  const { code } = await running.end;
  scene.astacus.start("node2");
  await scene.astacus.untilReady("node2");
  scene.realm.startNode(2);
  await scene.realm.untilBootstrapped(2);
  await Bun.sleep(3_000);
  const backup = await scene.backup();
  await scene.endLoad();
  mustBe(backup.complete, `the next backup is whole: ${backup.problems.join("; ")}`);
  // M3 acknowledges writes while a node starts, and that node forgets them: so ask it before the end.
  const before = await scene.check(backup.safeMs, { everyReplica: false });
  await scene.wipeAll();
  await scene.restore(backup.name);
  await scene.bootstrap();
  const after = await scene.check(backup.safeMs, { everyReplica: false });
  mustHold(after, "killed node");
  mustBe(after.missing <= before.missing, `${after.missing} missing, ${before.missing} before`);
  return {
    firstExitCode: code,
    points: after.points,
    missingOnReplicasBefore: before.missing,
    missingOnReplicasAfter: after.missing,
  };
}

/** A small file system for one node: the restore fails, says so, and is run again with more room. */
async function fullDisk(context: ScenarioContext): Promise<Figures> {
  await using scene = await stage(context, "full");
  scene.beginLoad();
  await untilFlushed(scene);
  const backup = await scene.backup();
  await scene.endLoad();
  await scene.wipeAll();
  const { dataFolder } = scene.realm.node(2);
  const mount = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=1m", "none", dataFolder]);
  if (mount.exitCode !== 0) return { skipped: "needs the right to mount a file system" };
  let failed: CliEnd;
  try {
    failed = await scene.astacus.cli(["restore", "--backup", backup.name, "--yes"]);
    mustBe(failed.code !== 0 && /space|full/i.test(failed.stderr), `no space: ${failed.stderr}`);
  } finally {
    await until("the small file system is gone", () => {
      return Bun.spawnSync(["umount", dataFolder]).exitCode === 0;
    });
  }
  await scene.restore(backup.name);
  await scene.bootstrap();
  return { points: mustHold(await scene.check(backup.safeMs), "full disk").points };
}

/** M3 that runs, etcd that is away, an environment that is not there. */
async function refusals(context: ScenarioContext): Promise<Figures> {
  await using scene = await stage(context, "refusals");
  scene.beginLoad();
  await Bun.sleep(3_000);
  const { name } = await scene.backup();
  await scene.endLoad();
  const cases: Record<string, { readonly end: CliEnd; readonly says: RegExp }> = {};
  cases["M3 runs"] = {
    end: await scene.astacus.cli(["restore", "--backup", name, "--yes"]),
    says: /M3 runs on node/,
  };
  await scene.realm.stopAll();
  await scene.realm.stopEtcd();
  cases["etcd is down"] = { end: await scene.astacus.cli(["backup"]), says: /etcd/ };
  await scene.realm.startEtcd();
  const other = scene.astacus.writeConfig("other.conf", {
    product: [`etcd: {endpoints: ["${scene.realm.etcdEndpoint}"]}`, "environment: nowhere"],
  });
  await scene.astacus.stopAll();
  for (const node of scene.astacus.names) scene.astacus.start(node, { config: other });
  for (const node of scene.astacus.names) await scene.astacus.untilReady(node);
  cases["another environment"] = {
    end: await scene.astacus.cli(["backup"]),
    says: /no M3 environment nowhere/,
  };
  for (const [what, { end, says }] of Object.entries(cases)) {
    mustBe(end.code !== 0 && says.test(end.stderr), `${what}: ${end.code} ${end.stderr}`);
  }
  return { refused: Object.keys(cases).length };
}

async function stage(
  context: ScenarioContext,
  name: string,
  options: Partial<SceneOptions> = {},
): Promise<M3Scene> {
  const { runAs } = context;
  const scene = await M3Scene.create({
    folder: join(context.folder, name),
    ...(runAs === undefined ? {} : { runAs }),
    ...options,
  });
  if ("missing" in scene) throw new Error(`M3 cannot be had: ${scene.missing}`);
  context.say(`${name}: M3 and Astacus run`);
  return scene;
}

/** Waits until M3 has flushed a block, completed a snapshot and written enough points. */
async function untilFlushed(scene: M3Scene): Promise<void> {
  await scene.realm.untilFiles(
    1,
    "a block was flushed and a snapshot completed",
    (files) => files.filledFilesetCount > 0 && files.snapshots.length > 0,
  );
}

async function restoreAll(
  scene: M3Scene,
  backup: BackupAnswer & { readonly safeMs: number },
): Promise<Checked> {
  await scene.wipeAll();
  await scene.restore(backup.name);
  await scene.bootstrap();
  return mustHold(await scene.check(backup.safeMs), backup.name);
}

function mustHold(checked: Checked, what: string): Checked {
  mustBe(checked.points >= POINT_COUNT_MIN, `${what}: only ${checked.points} points to check`);
  mustBe(checked.result.isGood, `${what}: ${JSON.stringify(checked.result.views)}`);
  return checked;
}

function mustBe(isSo: boolean, what: string): void {
  if (!isSo) throw new Error(`not so: ${what}`);
}

/** What captures have left behind. */
function capturesOf(scene: M3Scene): string[] {
  return scene.realm.nodes.flatMap(({ dataFolder }) => {
    const folder = join(dataFolder, ".astacus");
    return fs.existsSync(folder) ? fs.readdirSync(folder) : [];
  });
}

function largest(folder: string, pattern: RegExp): string {
  const files = fs
    .readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => pattern.test(name))
    .map((name) => ({ path: join(folder, name), size: fs.statSync(join(folder, name)).size }))
    .toSorted((a, b) => b.size - a.size);
  const [first] = files;
  if (first === undefined || first.size === 0) throw new Error(`${folder} has nothing to damage`);
  return first.path;
}

/** Older ones may be of no use to M3 any more, and are then in no backup. */
function newestLog(folder: string): string {
  const logs = fs
    .readdirSync(folder)
    .map((name) => ({ path: join(folder, name), index: Number(/-(\d+)\.db$/.exec(name)?.[1]) }))
    .toSorted((a, b) => b.index - a.index);
  const log = logs.find(({ path }) => fs.statSync(path).size > LOG_SIZE_BYTES_MIN);
  if (log === undefined) throw new Error(`${folder} has no log to damage`);
  return log.path;
}

function flipBit(path: string): void {
  const bytes = fs.readFileSync(path);
  const middle = bytes.length >> 1;
  bytes[middle] = (bytes[middle] ?? 0) ^ 1;
  fs.writeFileSync(path, bytes);
}
