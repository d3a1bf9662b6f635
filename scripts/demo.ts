/**
 * The demonstration: three ordinary servers on this machine back up real files, one node loses its
 * data and gets it back, and every byte is compared. It types the commands that a user types, and
 * prints them. Everything lies in one temporary folder that goes at the end, also after Ctrl-C.
 *
 * Usage: demo.ts [PATH]   files of PATH instead of this project's dependencies
 */
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { renderTable, size } from "../src/cli/table.ts";
import { compareTrees, recordTree } from "./tree-comparison.ts";
import type { TreeRecord } from "./tree-comparison.ts";

const PROJECT = join(import.meta.dir, "..");
const PROGRAM = join(PROJECT, "src/astacus.ts");
const NODES = ["amber", "birch", "cedar"] as const;
const LOST = "birch";
const FREE_BYTES_MIN = 2 * 1000 ** 3;
const COPY_BYTES_MAX = 300 * 1024 ** 2;
const READY_MS_MAX = 30_000;
const STOP_MS_MAX = 12_000;

type Server = { readonly name: string; readonly url: string; readonly process: Bun.Subprocess };

type Demo = {
  readonly folder: string;
  readonly config: string;
  readonly urls: readonly string[];
  readonly servers: Server[];
  readonly stopped: AbortSignal;
};

type Operation = {
  readonly kind: string;
  readonly started: string;
  readonly ended: string;
  readonly result: {
    readonly readBytes?: number;
    readonly totals: Readonly<Record<string, number>>;
  };
};

/** What is told to the person, besides the outputs of the commands. */
function say(text: string): void {
  console.log(text);
}

function title(text: string): void {
  say(`\n\u001b[1m== ${text}\u001b[0m`);
}

async function main(): Promise<number> {
  const startedMs = performance.now();
  const stop = new AbortController();
  const { free } = diskSpace(tmpdir());
  if (free < FREE_BYTES_MIN) {
    say(`The demonstration needs 2 GB free in ${tmpdir()}, and there are ${size(free)}.`);
    say("Free some space, or set TMPDIR to a folder on another disk.");
    return 1;
  }
  const folder = fs.mkdtempSync(join(fs.realpathSync(tmpdir()), "astacus-demo-"));
  const servers: Server[] = [];
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => stop.abort(new Error(`stopped by ${signal}`)));
  }
  try {
    const urls = await freeUrls(NODES.length);
    const config = join(folder, "astacus.conf");
    const demo: Demo = { folder, config, urls, servers, stopped: stop.signal };
    const isGood = await run(demo, resolve(process.argv[2] ?? join(PROJECT, "node_modules")));
    const seconds = Math.round((performance.now() - startedMs) / 1000);
    say(isGood ? `\nAll is back, byte for byte. It took ${seconds} s.` : "\nIT IS NOT THE SAME.");
    return isGood ? 0 : 1;
  } catch (thrown) {
    say(
      `\nThe demonstration stopped: ${thrown instanceof Error ? thrown.message : String(thrown)}`,
    );
    showLogs(folder);
    return stop.signal.aborted ? 130 : 1;
  } finally {
    await stopServers(servers);
    fs.rmSync(folder, { recursive: true, force: true });
    say("The servers have ended, and the temporary folder is removed.");
  }
}

async function run(demo: Demo, source: string): Promise<boolean> {
  title("Three nodes with real files");
  fillRoots(demo, source);
  writeConfig(demo);
  title("A repository, and one server beside each node");
  await astacus(demo, ["site", "init", "-c", demo.config]);
  startServers(demo);
  for (const server of demo.servers) await untilReady(server, demo.stopped);
  const url = ["-u", demo.urls[0] ?? ""];
  await astacus(demo, ["status", ...url]);
  title("The first backup: everything is read once, and equal data is sent once");
  await astacus(demo, ["backup", "--name", "first", ...url]);
  title("Some files change");
  changeFiles(demo);
  title("The second backup: only what changed is read and sent");
  await astacus(demo, ["backup", "--name", "second", ...url]);
  await astacus(demo, ["list", ...url]);
  title(`Node ${LOST} loses all its data`);
  const before = NODES.map((name) => recordTree(rootOf(demo, name)));
  fs.rmSync(rootOf(demo, LOST), { recursive: true });
  fs.mkdirSync(rootOf(demo, LOST));
  say(`$ rm -r ${rootOf(demo, LOST)}/*`);
  title("The restore: what is there stays, what is missing comes back");
  await astacus(demo, ["restore", "--yes", ...url]);
  title("The comparison: names, bytes, modes, owners, times, links");
  const differences = NODES.flatMap((name, index) => {
    const was: TreeRecord = before[index]?.record ?? new Map<string, string>();
    const { record } = recordTree(rootOf(demo, name));
    return compareTrees(was, record).map((difference) => `${name}/${difference}`);
  });
  for (const difference of differences.slice(0, 20)) say(`  ${difference}`);
  const entryCount = before.reduce((sum, { record }) => sum + record.size, 0);
  say(`${entryCount} files, folders and links compared: ${differences.length} differences`);
  await summarize(demo);
  return differences.length === 0;
}

/** Each package goes to one node, and every third to a second one: replicas, as databases have. */
function fillRoots(demo: Demo, source: string): void {
  if (!fs.existsSync(source)) throw new Error(`there is no ${source}`);
  let copied = 0;
  let parts = 0;
  const names = fs.statSync(source).isDirectory() ? fs.readdirSync(source).toSorted() : [""];
  for (const name of NODES) fs.mkdirSync(rootOf(demo, name), { recursive: true });
  for (const [index, name] of names.entries()) {
    demo.stopped.throwIfAborted();
    const from = join(source, name);
    const bytes = sizeOf(from);
    const holders = index % 3 === 0 ? [index, index + 1] : [index];
    if (copied + bytes * holders.length > COPY_BYTES_MAX) continue;
    for (const holder of holders) {
      const node = NODES[holder % NODES.length] ?? LOST;
      const target = join(rootOf(demo, node), name === "" ? "file" : name);
      fs.cpSync(from, target, {
        recursive: true,
        preserveTimestamps: true,
        verbatimSymlinks: true,
      });
      copied += bytes;
      parts += 1;
    }
  }
  for (const name of NODES) addOddities(rootOf(demo, name));
  say(`${parts} parts of ${relative(process.cwd(), source) || source}, ${size(copied)}, below`);
  for (const name of NODES) say(`  ${rootOf(demo, name)}`);
}

/** What a restore has to get right besides bytes. */
function addOddities(root: string): void {
  const odd = join(root, "odd");
  fs.mkdirSync(join(odd, "empty"), { recursive: true, mode: 0o750 });
  fs.writeFileSync(join(odd, "mode-0400"), "read only\n", { mode: 0o400 });
  fs.writeFileSync(join(odd, "empty-file"), "");
  fs.writeFileSync(Buffer.concat([Buffer.from(`${odd}/not-utf8-`), Buffer.of(0xff, 0xfe)]), "x");
  fs.symlinkSync("../nowhere", join(odd, "dangling"));
  fs.linkSync(join(odd, "mode-0400"), join(odd, "another-name"));
  fs.utimesSync(join(odd, "empty-file"), 1, 1.25);
}

function writeConfig(demo: Demo): void {
  const nodes = NODES.map((name, index) => `  - {name: ${name}, address: "${demo.urls[index]}"}`);
  const text = `cluster: demo
nodes:
${nodes.join("\n")}
data: ${demo.folder}/data/{node}
product:
  type: files
  root: ${demo.folder}/{node}
sites:
  - {name: backups, type: directory, path: ${demo.folder}/site}
`;
  fs.writeFileSync(demo.config, text);
  say(`\n${demo.config}:\n\n${text.replaceAll(/^/gm, "    ").trimEnd()}`);
}

function startServers(demo: Demo): void {
  for (const [index, name] of NODES.entries()) {
    say(`$ astacus server -c ${demo.config} --node ${name} &`);
    const log = fs.openSync(join(demo.folder, `${name}.log`), "w");
    const child = Bun.spawn(
      [process.execPath, PROGRAM, "server", "-c", demo.config, "--node", name],
      { stdin: "ignore", stdout: "ignore", stderr: log },
    );
    fs.closeSync(log);
    demo.servers.push({ name, url: demo.urls[index] ?? "", process: child });
  }
}

async function untilReady(server: Server, stopped: AbortSignal): Promise<void> {
  const endMs = performance.now() + READY_MS_MAX;
  while (performance.now() < endMs) {
    stopped.throwIfAborted();
    if (server.process.exitCode !== null) throw new Error(`the server of ${server.name} ended`);
    const answer = await fetch(`${server.url}/readyz`).catch(() => undefined);
    if (answer?.ok === true) return;
    await Bun.sleep(100);
  }
  throw new Error(`the server of ${server.name} is not ready after ${READY_MS_MAX / 1000} s`);
}

/** Runs a command as a user does, with its output on the terminal. */
async function astacus(demo: Demo, args: readonly string[]): Promise<void> {
  demo.stopped.throwIfAborted();
  say(`$ astacus ${args.join(" ")}`);
  const child = Bun.spawn([process.execPath, PROGRAM, ...args], {
    stdin: "ignore",
    stdout: "inherit",
    stderr: "inherit",
  });
  const end = (): void => child.kill("SIGINT");
  demo.stopped.addEventListener("abort", end);
  const code = await child.exited;
  demo.stopped.removeEventListener("abort", end);
  demo.stopped.throwIfAborted();
  if (code !== 0) throw new Error(`\`astacus ${args[0]}\` ended with ${code}`);
}

function changeFiles(demo: Demo): void {
  for (const name of NODES) {
    const root = rootOf(demo, name);
    const files = listFiles(root);
    const grown = files.filter((_, index) => index % 200 === 0).slice(0, 20);
    for (const path of grown) {
      fs.chmodSync(path, fs.statSync(path).mode | 0o200);
      fs.appendFileSync(path, `changed: ${createHash("sha256").update(path).digest("hex")}\n`);
    }
    const gone = files.filter((_, index) => index % 200 === 7).slice(0, 5);
    for (const path of gone) fs.rmSync(path);
    fs.writeFileSync(join(root, "new-file"), `new on ${name}\n`);
    const moved = files.filter((_, index) => index % 200 === 11).slice(0, 5);
    for (const path of moved) fs.renameSync(path, `${path}.moved`);
    say(`${name}: ${grown.length} grown, ${gone.length} removed, ${moved.length} moved, 1 new`);
  }
}

async function summarize(demo: Demo): Promise<void> {
  const answer = await fetch(`${demo.urls[0]}/v1/operations`);
  const { operations } = (await answer.json()) as { operations: Operation[] };
  const rows = operations.toReversed().map(({ kind, started, ended, result }) => {
    const { totals, readBytes } = result;
    const read = kind === "backup" ? readBytes : totals["fetchedBytes"];
    return [
      kind,
      String(totals["files"] ?? totals["filesWritten"] ?? 0),
      size(totals["bytes"] ?? totals["bytesWritten"] ?? 0),
      size(read ?? 0),
      kind === "backup" ? size(totals["storedBytes"] ?? 0) : "",
      `${((Date.parse(ended) - Date.parse(started)) / 1000).toFixed(1)} s`,
    ];
  });
  title("Summary");
  const columns = ["OPERATION", "FILES", "SIZE", "READ", "STORED", "TOOK"];
  say(
    renderTable(
      columns.map((name, index) => ({ title: name, isNumber: index > 0 })),
      rows,
    ),
  );
  say(`The site holds ${size(sizeOf(join(demo.folder, "site")))} for both backups of all nodes.`);
}

async function stopServers(servers: readonly Server[]): Promise<void> {
  for (const { process: child } of servers) child.kill("SIGTERM");
  const killer = setTimeout(() => {
    for (const { process: child } of servers) child.kill("SIGKILL");
  }, STOP_MS_MAX);
  await Promise.all(servers.map(async ({ process: child }) => await child.exited));
  clearTimeout(killer);
}

function showLogs(folder: string): void {
  for (const name of NODES) {
    const path = join(folder, `${name}.log`);
    if (!fs.existsSync(path)) continue;
    const lines = fs.readFileSync(path, "utf8").trimEnd().split("\n").slice(-3);
    for (const line of lines) say(`  ${name}: ${line}`);
  }
}

function rootOf(demo: Demo, node: string): string {
  return join(demo.folder, node);
}

/** All ports are open at once, so that no two are the same. */
async function freeUrls(count: number): Promise<string[]> {
  const servers = Array.from({ length: count }, () =>
    Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response() }),
  );
  const urls = servers.map((server) => server.url.origin);
  for (const server of servers) await server.stop(true);
  return urls;
}

function diskSpace(path: string): { free: number } {
  const { bavail, bsize } = fs.statfsSync(path);
  return { free: bavail * bsize };
}

function sizeOf(path: string): number {
  const stat = fs.lstatSync(path);
  if (!stat.isDirectory()) return stat.isFile() ? stat.size : 0;
  return fs.readdirSync(path).reduce((sum, name) => sum + sizeOf(join(path, name)), 0);
}

/**
 * Regular files below a root. A symbolic link is never followed: `readdirSync` with `recursive` does
 * follow those to folders, and what they lead to is not ours to change.
 */
function listFiles(root: string): string[] {
  const found: string[] = [];
  const waiting = [root];
  for (let folder = waiting.pop(); folder !== undefined; folder = waiting.pop()) {
    for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
      const path = join(folder, entry.name);
      if (entry.isDirectory() && entry.name !== "odd") waiting.push(path);
      else if (entry.isFile()) found.push(path);
    }
  }
  return found.toSorted();
}

process.exitCode = await main();
