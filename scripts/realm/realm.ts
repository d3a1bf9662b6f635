/**
 * Real databases on this machine, by hand: an M3 cluster with its etcd, a load with a ledger, and the
 * comparison of the ledger with what the database has. Each command ends; the servers go on until
 * `down`. What a realm is made of lies in its folder. See docs/realm.md.
 *
 * Usage: bun run realm --help
 */
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Command } from "commander";
import { parseDuration } from "../../src/base/units.ts";
import { renderTable, size } from "../../src/cli/table.ts";
import { getEtcdProcess, startEtcd } from "../real/etcd.ts";
import type { EtcdVersion } from "../real/etcd.ts";
import { endServer } from "../real/server-process.ts";
import { checkM3 } from "./m3-check.ts";
import type { CheckResult } from "./m3-check.ts";
import { loadM3 } from "./m3-load.ts";
import { M3Realm } from "./m3-realm.ts";
import type { M3Settings } from "./m3-settings.ts";

const FOLDER = join(tmpdir(), "astacus-realm");
const NUMBERED = /^(?:node)?(\d+)$/;

type UpOptions = {
  readonly dir: string;
  readonly nodes: string;
  readonly replicas?: string;
  readonly shards: string;
  readonly block: string;
  readonly retention: string;
  readonly bufferPast: string;
  readonly bufferFuture: string;
  readonly flushEvery: string;
  readonly write: string;
  readonly env: string;
  readonly zone: string;
  readonly hostIds?: string;
  readonly portBase?: string;
  readonly etcd?: string;
  readonly etcdVersion?: string;
  readonly empty?: boolean;
};

type EtcdUpOptions = {
  readonly dir: string;
  readonly port?: string;
  readonly etcdVersion?: string;
  readonly user?: readonly string[];
  readonly tls?: boolean;
};

async function m3Up(options: UpOptions): Promise<void> {
  const startedMs = performance.now();
  const isNew = !fs.existsSync(join(options.dir, "realm.json"));
  const realm = isNew ? await createM3(options) : M3Realm.open(options.dir);
  if (isNew && options.empty !== true) await realm.up();
  else {
    await realm.startEtcd();
    if (options.empty !== true) {
      await realm.startAll();
      await realm.untilBootstrapped();
    }
  }
  const took = ((performance.now() - startedMs) / 1000).toFixed(1);
  const what =
    options.empty === true ? "etcd runs, the nodes do not" : "all nodes are bootstrapped";
  console.log(`${what}; took ${took} s`);
  await printStatus(realm);
  console.log(`\nA section for astacus.conf (nodes node1, …, each with its own \`data\`):\n`);
  console.log(exampleConfig(realm));
}

async function createM3(options: UpOptions): Promise<M3Realm> {
  const hostIds = options.hostIds?.split(",");
  const settings: Partial<M3Settings> = {
    nodeCount: hostIds?.length ?? Number(options.nodes),
    shardCount: Number(options.shards),
    blockSeconds: secondsOf(options.block),
    retentionSeconds: secondsOf(options.retention),
    bufferPastSeconds: secondsOf(options.bufferPast),
    bufferFutureSeconds: secondsOf(options.bufferFuture),
    commitLogFlushIntervalMs: parseDuration(options.flushEvery),
    writeConsistency: options.write as M3Settings["writeConsistency"],
    environment: options.env,
    zone: options.zone,
    ...(options.replicas === undefined ? {} : { replicaCount: Number(options.replicas) }),
    ...(hostIds === undefined ? {} : { hostIds }),
  };
  const realm = await M3Realm.create({
    folder: options.dir,
    settings,
    isLasting: true,
    ...(options.portBase === undefined ? {} : { portBase: Number(options.portBase) }),
    ...(options.etcd === undefined ? {} : { etcdEndpoint: options.etcd }),
    ...(options.etcdVersion === undefined
      ? {}
      : { etcdVersion: options.etcdVersion as EtcdVersion }),
  });
  if ("missing" in realm) throw new Error(`missing: ${realm.missing}`);
  return realm;
}

async function printStatus(realm: M3Realm): Promise<void> {
  const { settings, folder } = realm;
  const etcd = realm.isEtcdUp() ? "up" : "down, or somebody else's";
  console.log(`folder ${folder}`);
  console.log(`etcd ${realm.etcdEndpoint} (${etcd}), environment ${settings.environment}`);
  console.log(
    `namespace ${settings.namespace}: ${settings.shardCount} shards, blocks of ` +
      `${settings.blockSeconds} s for ${settings.retentionSeconds} s; commit log flushed every ` +
      `${realm.commitLogFlushIntervalMs} ms`,
  );
  const rows = (await realm.status()).map(({ node, pid, files, ...status }) => [
    `node${node.number}`,
    node.hostId,
    pid === undefined ? "down" : status.isBootstrapped ? "up" : "starting",
    String(pid ?? ""),
    size(status.residentBytes),
    `${node.ports.node} ${node.ports.nodeHttp} ${node.ports.clusterHttp} ${node.ports.coordinator}`,
    files.commitLogs.join(" "),
    files.snapshots.join(" "),
    `${files.filledFilesetCount} of ${files.filesetCount}`,
    `${files.fileCount}, ${size(files.sizeBytes)}`,
  ]);
  const titles = [
    "NODE",
    "ID",
    "STATE",
    "PID",
    "MEMORY",
    "PORTS: NODE, JSON, CLUSTER, COORDINATOR",
  ];
  titles.push("LOGS", "SNAPSHOTS", "FILLED FILESETS", "FILES");
  console.log(
    renderTable(
      titles.map((title) => ({ title })),
      rows,
    ),
  );
  console.log(`data: ${realm.nodes.map(({ dataFolder }) => dataFolder).join(" ")}`);
}

/** The `product` section of a configuration that backs this realm up. */
function exampleConfig(realm: M3Realm): string {
  const { environment, zone } = realm.settings;
  return [
    "product:",
    "  type: m3",
    `  root: "${realm.folder}/{node}/data"`,
    `  environment: ${environment}`,
    `  zone: ${zone}`,
    `  etcd: {endpoints: ["${realm.etcdEndpoint}"]}`,
    "  instances:",
    ...realm.nodes.map(
      ({ number, hostId, ports }) =>
        `    node${number}: {id: ${hostId}, endpoint: "127.0.0.1:${ports.node}", ` +
        `httpPorts: {node: ${ports.nodeHttp}, cluster: ${ports.clusterHttp}}}`,
    ),
  ].join("\n");
}

type Verb = "start" | "stop" | "kill" | "wipe";

async function m3Act(verb: Verb, which: string, options: { dir: string; wait?: boolean }) {
  const realm = M3Realm.open(options.dir);
  if (which === "etcd") {
    if (verb === "wipe") throw new Error("etcd is not wiped alone; use `down`");
    await (verb === "start" ? realm.startEtcd() : realm.stopEtcd(verb));
    console.log(`etcd: ${verb}`);
    return;
  }
  const numbers = numbersOf(realm, which);
  const startedMs = performance.now();
  await Promise.all(
    numbers.map(async (number) => {
      if (verb === "start") realm.startNode(number);
      else if (verb === "stop") await realm.stopNode(number);
      else if (verb === "kill") await realm.killNode(number);
      else realm.wipeNode(number);
    }),
  );
  if (verb === "start" && options.wait !== false) {
    for (const number of numbers) await realm.untilBootstrapped(number);
  }
  const took = ((performance.now() - startedMs) / 1000).toFixed(1);
  console.log(`${numbers.map((number) => `node${number}`).join(", ")}: ${verb}, took ${took} s`);
}

function numbersOf(realm: M3Realm, which: string): number[] {
  if (which === "all") return realm.nodes.map(({ number }) => number);
  const byId = realm.nodes.find(({ hostId }) => hostId === which);
  const number = byId?.number ?? Number(NUMBERED.exec(which)?.[1] ?? Number.NaN);
  return [realm.node(number).number];
}

async function m3Load(options: {
  readonly dir: string;
  readonly ledger: string;
  readonly seconds: string;
  readonly series: string;
  readonly interval: string;
}): Promise<void> {
  const stop = new AbortController();
  process.once("SIGINT", () => stop.abort());
  process.once("SIGTERM", () => stop.abort());
  const result = await loadM3(M3Realm.open(options.dir), {
    ledgerFile: options.ledger,
    seconds: Number(options.seconds),
    seriesCount: Number(options.series),
    intervalMs: parseDuration(options.interval),
    signal: stop.signal,
  });
  console.log(`${result.acknowledgedCount} points acknowledged, ${result.refusedCount} refused`);
  if (result.lastRefusal !== undefined) console.log(`last refusal: ${result.lastRefusal}`);
  if (result.acknowledgedCount === 0) process.exitCode = 1;
}

async function m3Check(options: {
  readonly dir: string;
  readonly ledger: string;
  readonly before?: string;
  readonly floor: string;
  readonly everyReplica?: boolean;
  readonly json?: boolean;
}): Promise<void> {
  const { before } = options;
  const beforeMs = before === undefined ? undefined : instantOf(before);
  const result = await checkM3(M3Realm.open(options.dir), {
    ledgerFile: options.ledger,
    floor: Number(options.floor),
    everyReplica: options.everyReplica ?? false,
    ...(beforeMs === undefined ? {} : { beforeMs }),
  });
  console.log(options.json === true ? JSON.stringify(result, undefined, 2) : checkText(result));
  if (!result.isGood) process.exitCode = 1;
}

function checkText(result: CheckResult): string {
  const titles = ["VIEW", "PRESENT", "MISSING", "WRONG", "OTHER", "LACKS WERE ACKNOWLEDGED"];
  const columns = titles.map((title, index) => ({ title, isNumber: index > 0 && index < 5 }));
  const rows = result.views.map((view) => [
    view.view,
    String(view.presentCount),
    String(view.missingCount),
    String(view.wrongCount),
    String(view.otherCount),
    view.failure ??
      (view.lackAcknowledgedMs ?? []).map((ms) => new Date(ms).toISOString()).join(" to "),
  ]);
  const few =
    result.expectedCount < result.floor ? `, fewer than the floor of ${result.floor}` : "";
  return [
    renderTable(columns, rows),
    ...result.views.flatMap(({ view, examples }) => examples.map((text) => `${view}: ${text}`)),
    `${result.expectedCount} points of the ledger${few}: ${result.isGood ? "good" : "NOT GOOD"}`,
  ].join("\n");
}

/** Milliseconds of `1795384430998` or `2026-11-22T21:53:50Z`. */
function instantOf(text: string): number {
  const ms = /^\d+$/.test(text) ? Number(text) : Date.parse(text);
  if (Number.isNaN(ms)) throw new Error(`${text} is neither milliseconds nor a time in ISO 8601`);
  return ms;
}

function secondsOf(text: string): number {
  const seconds = parseDuration(text) / 1000;
  if (!Number.isInteger(seconds)) throw new Error(`${text} is not a whole number of seconds`);
  return seconds;
}

async function etcdUp(options: EtcdUpOptions): Promise<void> {
  if (getEtcdProcess(options.dir) !== undefined) throw new Error(`it runs in ${options.dir}`);
  const users = Object.fromEntries(
    (options.user ?? []).map((pair) => [pair.split(":")[0] ?? "", pair.replace(/^[^:]*:/, "")]),
  );
  const etcd = await startEtcd({
    directory: options.dir,
    isLasting: true,
    tls: options.tls ?? false,
    ...(options.port === undefined ? {} : { clientPort: Number(options.port) }),
    ...(options.etcdVersion === undefined ? {} : { version: options.etcdVersion as EtcdVersion }),
    ...(options.user === undefined ? {} : { users }),
  });
  if ("missing" in etcd) throw new Error(`missing: ${etcd.missing}`);
  const { endpoint, tls, process } = etcd;
  console.log(JSON.stringify({ endpoint, pid: process.pid, folder: options.dir, ...tls }));
}

async function etcdDown({ dir }: { readonly dir: string }): Promise<void> {
  const etcd = getEtcdProcess(dir);
  if (etcd === undefined) throw new Error(`no etcd runs in ${dir}`);
  await endServer(etcd, { signal: "SIGTERM" });
  fs.rmSync(dir, { recursive: true, force: true });
  console.log(`etcd has ended, and ${dir} is removed`);
}

function m3Command(): Command {
  const m3 = new Command("m3").description("an M3 cluster with its etcd");
  const command = (name: string, text: string) =>
    m3
      .command(name)
      .description(text)
      .option("--dir <folder>", "where it lies", folderOf, join(FOLDER, "m3"));
  command("up", "make a cluster and start it; start one that was made before")
    .option("--nodes <n>", "nodes", "3")
    .option("--replicas <n>", "copies of each shard (default: 3, or all nodes if fewer)")
    .option("--shards <n>", "shards", "4")
    .option("--block <duration>", "block size, of data and index", "1m")
    .option("--retention <duration>", "each block of it gets a fileset in each shard", "1h")
    .option("--buffer-past <duration>", "after this a block is flushed", "5s")
    .option("--buffer-future <duration>", "points may be so far ahead", "5s")
    .option("--flush-every <duration>", "of the commit log", "1s")
    .option("--write <level>", "consistency of writes: one, majority, all", "majority")
    .option("--env <name>", "M3's environment", "default_env")
    .option("--zone <name>", "M3's zone", "embedded")
    .option("--host-ids <ids>", "with commas between; their number is that of the nodes")
    .option("--port-base <port>", "ports in a row from here (default: free ones)")
    .option("--etcd <url>", "an etcd that runs (default: one of its own)")
    .option("--etcd-version <version>", "3.6, 3.5, or path for the one on PATH")
    .option("--empty", "start etcd only: nodes without placement, to be restored into")
    .action(m3Up);
  command("status", "what runs, and what is on disk").action(async ({ dir }: { dir: string }) => {
    await printStatus(M3Realm.open(dir));
  });
  command("load", "write a known load, and note every point that is acknowledged")
    .requiredOption("--ledger <file>", "appended to")
    .option("--seconds <n>", "how long", "60")
    .option("--series <n>", "series", "10")
    .option("--interval <duration>", "between points of a series", "100ms")
    .action(m3Load);
  command("check", "compare every point of a ledger; ends with 1 if one is missing or wrong")
    .requiredOption("--ledger <file>", "what was acknowledged")
    .option("--before <time>", "only what was acknowledged before: ISO 8601, or milliseconds")
    .option("--floor <n>", "fewer points in the ledger are a failure", "1")
    .option("--every-replica", "each node must have all of them")
    .option("--json", "print the result as JSON")
    .action(m3Check);
  const verbs = {
    start: "start a node and wait until it is bootstrapped",
    stop: "ask a node to end",
    kill: "end a node at once, with SIGKILL",
    wipe: "remove the data of a node that does not run",
  } as const;
  for (const [verb, text] of Object.entries(verbs)) {
    const one = command(`${verb} <node>`, `${text}; NODE is 1, node1, a host id, all, or etcd`);
    if (verb === "start") one.option("--no-wait", "do not wait until it is bootstrapped");
    one.action(async (which: string, options: { dir: string; wait?: boolean }) => {
      await m3Act(verb as Verb, which, options);
    });
  }
  command("down", "end everything at once and remove the folder").action(
    async ({ dir }: { dir: string }) => {
      await M3Realm.open(dir).down();
      console.log(`ended, and ${dir} is removed`);
    },
  );
  return m3;
}

function etcdCommand(): Command {
  const etcd = new Command("etcd").description("an etcd alone");
  const command = (name: string, text: string) =>
    etcd
      .command(name)
      .description(text)
      .option("--dir <folder>", "where it lies", folderOf, join(FOLDER, "etcd"));
  command("up", "start an etcd of one member; prints JSON")
    .option("--port <port>", "for clients (default: a free one)")
    .option("--etcd-version <version>", "3.6, 3.5, or path for the one on PATH")
    .option("--user <name:password...>", "with authentication; root must be among them")
    .option("--tls", "https with client certificates; needs openssl")
    .action(etcdUp);
  command("down", "end it and remove the folder").action(etcdDown);
  return etcd;
}

function folderOf(text: string): string {
  return resolve(text);
}

const program = new Command("realm")
  .description("Real databases on this machine, for tests by hand.")
  .addCommand(m3Command())
  .addCommand(etcdCommand());
try {
  await program.parseAsync();
} catch (thrown) {
  console.error(`realm: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
  process.exitCode = 1;
}
