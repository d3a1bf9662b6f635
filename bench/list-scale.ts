/**
 * How long does `list` take with 10,000 backups? The log is made by real commits of backups that hold
 * nothing, in a directory site. Then a real server lists them over HTTP, and the command line asks the
 * server; at last the command line reads the site with no server and no catalog.
 *
 *     bun bench/list-scale.ts [--backups 10000] [--requests 200] [--scratch DIR]
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { realClock } from "../src/base/clock.ts";
import { realDatabases } from "../src/base/databases.ts";
import { sha256Hex } from "../src/base/hex.ts";
import { realRandom } from "../src/base/random.ts";
import { Catalog } from "../src/cas/catalog/catalog.ts";
import type { BackupBody } from "../src/cas/log/entry.ts";
import { drawId } from "../src/cas/format/ids.ts";
import { Repository } from "../src/cas/log/repository.ts";
import { makeDirectorySite, openDirectorySite } from "../src/sites/directory-site.ts";
import { runMeasured } from "./measure.ts";

const DOORS = { clock: realClock, random: realRandom };
const DAY_MS = 24 * 3600 * 1000;
const START_MS = Date.UTC(2000, 0, 1);
const READY_WAIT_MS = 20_000;
/** A command is started so often; the least counts. */
const COMMAND_COUNT = 5;

const { values } = parseArgs({
  options: {
    backups: { type: "string", default: "10000" },
    requests: { type: "string", default: "200" },
    scratch: { type: "string" },
  },
});

const folder = mkdtempSync(join(values.scratch ?? tmpdir(), "astacus-list-scale-"));
try {
  await run(Number(values.backups), Number(values.requests));
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function run(backupCount: number, requestCount: number): Promise<void> {
  const makeMs = await timeOf(() => makeBackups(backupCount));
  const perCommitMs = makeMs / backupCount;
  console.log(`${backupCount} commits: ${perCommitMs.toFixed(1)} ms each`);
  const port = freePort();
  const config = writeConfig(port);
  const astacus = join(import.meta.dir, "..", "src", "astacus.ts");
  const server = Bun.spawn([process.execPath, astacus, "server", "-c", config], {
    stdout: "ignore",
    stderr: "ignore",
  });
  try {
    const url = `http://127.0.0.1:${port}`;
    console.log(`server ready after ${(await waitReady(url)).toFixed(0)} ms`);
    await measureRequests(`${url}/v1/backups`, requestCount);
    await measureCommand("list over HTTP", [astacus, "--url", url, "list"]);
  } finally {
    server.kill();
    await server.exited;
  }
  await measureCommand("list from the site, no catalog", [astacus, "-c", config, "list"]);
}

/** A repository with so many backups of nothing, a day apart. */
async function makeBackups(count: number): Promise<void> {
  const path = join(folder, "site");
  await makeDirectorySite({ name: "bench", path });
  await using site = await openDirectorySite({ name: "bench", path });
  const chunker = { rule: "astacus-cdc-1", averageSizeBytes: 262_144 } as const;
  await Repository.init(site, { doors: DOORS, chunker, node: "node1" });
  using catalog = Catalog.open(realDatabases, join(folder, "maker.sqlite"));
  const repository = await Repository.open({ site, catalog, doors: DOORS, node: "node1" });
  for (let number = 1; number <= count; number += 1) {
    const operation = drawId(realRandom);
    await repository.commit(
      ({ sequence }) => ({ kind: "backup", body: backupBody(number, sequence) }),
      { operation },
    );
  }
}

function backupBody(number: number, sequence: number): BackupBody {
  const startedMs = START_MS + number * DAY_MS;
  const hash = sha256Hex(new TextEncoder().encode(`backup ${number}`));
  return {
    backup: hash.slice(0, 32),
    name: `backup-${number}`,
    cluster: "bench",
    product: "files",
    started: new Date(startedMs).toISOString(),
    ended: new Date(startedMs + 60_000).toISOString(),
    complete: true,
    problems: 0,
    plannedAt: sequence,
    manifest: { id: hash, birth: sequence, sizeBytes: 1000 },
    segments: [],
    revived: [],
    lists: [{ node: "node1", root: { id: hash, length: 100, count: 1 } }],
    listPacks: [],
    totals: { files: 1000 + number, bytes: 1e9, newBytes: 1e7, storedBytes: 5e6 },
  };
}

function writeConfig(port: number): string {
  mkdirSync(join(folder, "files"));
  const path = join(folder, "astacus.conf");
  writeFileSync(
    path,
    [
      "cluster: bench",
      "nodes:",
      `  - {name: node1, address: "http://127.0.0.1:${port}"}`,
      `data: ${join(folder, "data")}`,
      `sites: [{name: bench, type: directory, path: ${join(folder, "site")}}]`,
      `product: {type: files, root: ${join(folder, "files")}}`,
      "",
    ].join("\n"),
  );
  return path;
}

/** Until the node has read the log; the time since now. */
async function waitReady(url: string): Promise<number> {
  const startMs = performance.now();
  for (;;) {
    const response = await fetch(`${url}/readyz`).catch(() => undefined);
    if (response?.ok === true) return performance.now() - startMs;
    if (performance.now() - startMs > READY_WAIT_MS)
      throw new Error("the server did not get ready");
    await Bun.sleep(20);
  }
}

async function measureRequests(url: string, count: number): Promise<void> {
  const times: number[] = [];
  let sizeBytes = 0;
  for (let request = 0; request < count; request += 1) {
    const startMs = performance.now();
    const response = await fetch(url);
    const body = await response.arrayBuffer();
    if (!response.ok) throw new Error(`${url} answered ${response.status}`);
    times.push(performance.now() - startMs);
    sizeBytes = body.byteLength;
  }
  const sorted = times.toSorted((a, b) => a - b);
  const at = (share: number): string => sorted[Math.floor(share * (count - 1))]!.toFixed(1);
  console.log(
    `HTTP, ${count} times, ${(sizeBytes / 1e6).toFixed(1)} MB: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, least ${at(0)} ms`,
  );
}

async function measureCommand(name: string, args: readonly string[]): Promise<void> {
  let wallMs = Infinity;
  let cpuMs = Infinity;
  for (let count = 0; count < COMMAND_COUNT; count += 1) {
    const cost = await runMeasured([
      { argv: [process.execPath, ...args], env: { ASTACUS_NODE: "node1" } },
    ]);
    wallMs = Math.min(wallMs, cost.wallMs);
    cpuMs = Math.min(cpuMs, cost.cpuMs);
  }
  console.log(`${name}: ${wallMs.toFixed(0)} ms, CPU ${cpuMs.toFixed(0)} ms`);
}

function freePort(): number {
  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response() });
  const { port } = server;
  void server.stop(true);
  if (port === undefined) throw new Error("no port is free");
  return port;
}

async function timeOf(work: () => Promise<void>): Promise<number> {
  const startMs = performance.now();
  await work();
  return performance.now() - startMs;
}
