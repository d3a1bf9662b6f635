/**
 * A cluster of ordinary `astacus server` processes on this machine, driven as a user drives it: a
 * configuration file, the command line, HTTP. Everything lies in one folder that the caller owns;
 * disposing ends every process. Used by the large scenario and by the tests with real processes.
 */
import * as fs from "node:fs";
import { join } from "node:path";

const PROJECT = join(import.meta.dir, "..");
const PROGRAM = join(PROJECT, "src/astacus.ts");
const READY_MS_MAX = 30_000;
const STOP_MS_MAX = 15_000;
const POLL_MS = 30;

/** How a command ended, and what it wrote. */
export type CliEnd = { readonly code: number; readonly stdout: string; readonly stderr: string };

/** Another user for a process; needs root and `setpriv`. */
export type RunAs = { readonly uid: number; readonly gid: number };

/** What a cluster is made of. */
export type ProcessClusterOptions = {
  readonly folder: string;
  /** One entry of `sites`, as YAML on one line. */
  readonly site: string;
  readonly nodes?: readonly string[];
  readonly cluster?: string;
  /** Replaces `data: FOLDER/data/{node}`. */
  readonly data?: string;
  /** Replaces `FOLDER/roots/{node}`. */
  readonly root?: string;
  /** YAML after the rest. */
  readonly more?: string;
  /** Replaces `files`. */
  readonly productType?: string;
  /** More lines in `product`. */
  readonly product?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly runAs?: RunAs;
};

type Server = { readonly name: string; readonly child: Bun.Subprocess };

/** Servers and the commands that are sent to them. */
export class ProcessCluster implements AsyncDisposable {
  readonly folder: string;
  readonly config: string;
  readonly names: readonly string[];
  readonly urls: ReadonlyMap<string, string>;
  readonly #options: ProcessClusterOptions;
  readonly #servers = new Map<string, Server>();
  readonly #commands = new Set<Bun.Subprocess>();

  private constructor(options: ProcessClusterOptions, urls: readonly string[]) {
    this.#options = options;
    this.folder = options.folder;
    this.names = options.nodes ?? ["amber", "birch", "cedar"];
    this.urls = new Map(this.names.map((name, index) => [name, urls[index] ?? ""]));
    this.config = join(this.folder, "astacus.conf");
  }

  /** Makes folders and the configuration; starts nothing. */
  static async make(options: ProcessClusterOptions): Promise<ProcessCluster> {
    const urls = await freeUrls(options.nodes?.length ?? 3);
    const cluster = new ProcessCluster(options, urls);
    fs.mkdirSync(cluster.folder, { recursive: true });
    for (const name of cluster.names) fs.mkdirSync(cluster.root(name), { recursive: true });
    fs.writeFileSync(cluster.config, cluster.configText());
    return cluster;
  }

  /** The configuration, with other settings if given. */
  configText(change: Partial<ProcessClusterOptions> = {}): string {
    const { folder, names } = this;
    const options = { ...this.#options, ...change };
    const nodes = names.map((name) => `  - {name: ${name}, address: "${this.url(name)}"}`);
    const product = [
      `type: ${options.productType ?? "files"}`,
      `root: "${options.root ?? `${folder}/roots/{node}`}"`,
      ...(options.product ?? []),
    ];
    return [
      `cluster: ${options.cluster ?? "scenario"}`,
      "nodes:",
      ...nodes,
      `data: "${options.data ?? `${folder}/data/{node}`}"`,
      "product:",
      ...product.map((line) => `  ${line}`),
      `sites:\n  - ${options.site}`,
      options.more ?? "",
    ].join("\n");
  }

  /** A further configuration file beside the first one. */
  writeConfig(name: string, change: Partial<ProcessClusterOptions>): string {
    const path = join(this.folder, name);
    fs.writeFileSync(path, this.configText(change));
    return path;
  }

  root(name: string): string {
    const pattern = this.#options.root ?? `${this.folder}/roots/{node}`;
    return pattern.replaceAll("{node}", name);
  }

  url(name: string): string {
    const url = this.urls.get(name);
    if (url === undefined) throw new Error(`there is no node ${name}`);
    return url;
  }

  pid(name: string): number {
    return this.#mustGet(name).child.pid;
  }

  /** Starts a server; does not wait until it is ready. */
  start(name: string, options: { readonly config?: string } = {}): Bun.Subprocess {
    const log = fs.openSync(this.#logPath(name), "a");
    const config = options.config ?? this.config;
    const child = Bun.spawn(this.#argv(["server", "-c", config, "--node", name]), {
      stdin: "ignore",
      stdout: "ignore",
      stderr: log,
      env: this.#environment(),
    });
    fs.closeSync(log);
    this.#servers.set(name, { name, child });
    return child;
  }

  /** Starts all servers and waits until each is ready. */
  async startAll(): Promise<void> {
    for (const name of this.names) this.start(name);
    for (const name of this.names) await this.untilReady(name);
  }

  async untilReady(name: string): Promise<void> {
    const { child } = this.#mustGet(name);
    await until(`${name} is ready`, async () => {
      if (child.exitCode !== null) {
        throw new Error(`the server of ${name} ended:\n${this.log(name).slice(-2000)}`);
      }
      return (await fetch(`${this.url(name)}/readyz`).catch(() => undefined))?.ok === true;
    });
  }

  /** Ends a server at once, as a power cut does. */
  async kill(name: string): Promise<void> {
    const { child } = this.#mustGet(name);
    child.kill("SIGKILL");
    await child.exited;
    this.#servers.delete(name);
  }

  /** Asks a server to end; its exit code and how long it took. */
  async stop(name: string): Promise<{ readonly code: number; readonly ms: number }> {
    const server = this.#mustGet(name);

    const startedMs = performance.now();
    server.child.kill("SIGTERM");
    const killer = setTimeout(() => server.child.kill("SIGKILL"), STOP_MS_MAX);
    const code = await server.child.exited;
    clearTimeout(killer);
    this.#servers.delete(name);
    return { code, ms: performance.now() - startedMs };
  }

  /** The largest resident size that the running server has had. */
  readPeak(name: string): number {
    const { child } = this.#mustGet(name);
    const status = fs.readFileSync(`/proc/${child.pid}/status`, "utf8");
    return Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
  }

  /** Runs a command against the server of `node` (the first one unless told). */
  async cli(args: readonly string[], node?: string): Promise<CliEnd> {
    return await this.run([...args, "-u", this.url(node ?? this.names[0] ?? "")]);
  }

  /** Runs a command with exactly these arguments. */
  async run(args: readonly string[]): Promise<CliEnd> {
    return await this.spawn(args).end;
  }

  /** Starts a command, for those that a test has to interrupt. */
  spawn(args: readonly string[]): {
    readonly child: Bun.Subprocess;
    readonly end: Promise<CliEnd>;
  } {
    const child = Bun.spawn(this.#argv(args), {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      env: this.#environment(),
    });
    this.#commands.add(child);
    const end = async (): Promise<CliEnd> => {
      const [stdout, stderr] = await Promise.all([
        new Response(child.stdout).text(),
        new Response(child.stderr).text(),
      ]);
      const code = await child.exited;
      this.#commands.delete(child);
      return { code, stdout, stderr };
    };
    return { child, end: end() };
  }

  /** Runs a command that has to succeed, with --json; its document. */
  async json<T>(args: readonly string[], node?: string): Promise<T> {
    const end = await this.cli([...args, "--json"], node);
    if (end.code !== 0) {
      throw new Error(`\`astacus ${args.join(" ")}\` ended with ${end.code}:\n${end.stderr}`);
    }
    return JSON.parse(end.stdout) as T;
  }

  /** Asks a server over HTTP. */
  async get<T>(path: string, node?: string): Promise<T> {
    return (await (await fetch(this.url(node ?? this.names[0] ?? "") + path)).json()) as T;
  }

  /** Requests to the site by kind, summed over all running servers. */
  async requests(): Promise<Record<string, number>> {
    const sums: Record<string, number> = {};
    for (const name of this.#servers.keys()) {
      const page = await (await fetch(`${this.url(name)}/metrics`)).text();
      const rows = page.matchAll(/^astacus_site_requests\{[^}]*kind="(\w+)"[^}]*\} (\d+)/gm);
      for (const [, kind = "", value] of rows) sums[kind] = (sums[kind] ?? 0) + Number(value);
    }
    return sums;
  }

  /** What a server has logged. */
  log(name: string): string {
    return fs.readFileSync(this.#logPath(name), "utf8");
  }

  async stopAll(): Promise<void> {
    await Promise.all([...this.#servers.keys()].map(async (name) => await this.stop(name)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#commands) child.kill("SIGKILL");
    await Promise.all([...this.#servers.keys()].map(async (name) => await this.kill(name)));
  }

  #mustGet(name: string): Server {
    const server = this.#servers.get(name);
    if (server === undefined) throw new Error(`the server of ${name} does not run`);
    return server;
  }

  #logPath(name: string): string {
    return join(this.folder, `${name}.log`);
  }

  #environment(): Record<string, string | undefined> {
    return { ...process.env, NO_COLOR: "1", ...this.#options.environment };
  }

  #argv(args: readonly string[]): string[] {
    const { runAs } = this.#options;
    const program = [process.execPath, PROGRAM, ...args];
    if (runAs === undefined) return program;
    return [
      "setpriv",
      `--reuid=${runAs.uid}`,
      `--regid=${runAs.gid}`,
      "--clear-groups",
      ...program,
    ];
  }
}

/** Asks again and again until the answer is yes; an error that names `what` after 30 s. */
export async function until(what: string, isTrue: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = performance.now() + READY_MS_MAX;
  while (!(await isTrue())) {
    if (performance.now() > endMs) throw new Error(`not in ${READY_MS_MAX / 1000} s: ${what}`);
    await Bun.sleep(POLL_MS);
  }
}

/** Addresses on loopback; all ports are open at once, so that no two are the same. */
export async function freeUrls(count: number): Promise<string[]> {
  const servers = Array.from({ length: count }, () =>
    Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response() }),
  );
  const urls = servers.map((server) => server.url.origin);
  for (const server of servers) await server.stop(true);
  return urls;
}
