/**
 * Real processes for tests: servers of a small cluster in a temporary folder, and the command line
 * as a user runs it. Disposing it ends every process that was started and removes the folder.
 */
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PROJECT = join(import.meta.dir, "../..");
const PROGRAM = join(PROJECT, "src/astacus.ts");
const READY_MS_MAX = 60_000;

/** What a command did. */
export type CommandOutcome = {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
};

/** How a cluster is made. */
export type ClusterOptions = {
  readonly nodes: readonly string[];
  /** Names of directory sites in place of the one that is called disk; `site` is the first's folder. */
  readonly sites?: readonly string[];
  /** More lines for the configuration. */
  readonly more?: string;
  /** Instead of 127.0.0.1. */
  readonly host?: string;
};

/** Servers of one cluster. */
export class ProcessCluster implements AsyncDisposable {
  readonly folder: string;
  readonly config: string;
  readonly urls: Readonly<Record<string, string>>;
  readonly #running = new Map<string, Bun.Subprocess>();

  private constructor(folder: string, urls: Readonly<Record<string, string>>) {
    this.folder = folder;
    this.config = join(folder, "astacus.conf");
    this.urls = urls;
  }

  /** A folder with a configuration and a root for each node; nothing runs yet. */
  static async create(options: ClusterOptions): Promise<ProcessCluster> {
    const folder = fs.mkdtempSync(join(fs.realpathSync(tmpdir()), "astacus-test-"));
    const urls = await freeUrls(options.nodes, options.host ?? "127.0.0.1");
    const cluster = new ProcessCluster(folder, urls);
    const nodes = options.nodes.map((name) => `  - {name: ${name}, address: "${urls[name]}"}`);
    const sites = (options.sites ?? ["disk"]).map((name, index) => {
      const path = join(folder, index === 0 ? "site" : `site-${name}`);
      return `  - {name: ${name}, type: directory, path: "${path}"}`;
    });
    const text = `cluster: test
nodes:
${nodes.join("\n")}
data: ${folder}/data/{node}
product: {type: files, root: "${folder}/roots/{node}"}
sites:
${sites.join("\n")}
${options.more ?? ""}
`;
    fs.writeFileSync(cluster.config, text);
    for (const name of options.nodes) fs.mkdirSync(cluster.root(name), { recursive: true });
    return cluster;
  }

  /** Where a node's files are. */
  root(node: string): string {
    return join(this.folder, "roots", node);
  }

  /** Makes the repository, on a site by name or on the first. */
  async init(...site: readonly string[]): Promise<void> {
    const { code, stderr } = await this.run(["site", "init", ...site, "-c", this.config]);
    if (code !== 0) throw new Error(stderr);
  }

  /** Starts servers and waits until they are ready. */
  async start(...nodes: readonly string[]): Promise<void> {
    for (const node of nodes) this.spawn(node);
    for (const node of nodes) await this.untilReady(node);
  }

  /** Starts a server. */
  spawn(node: string): Bun.Subprocess {
    const log = fs.openSync(this.logPath(node), "a");
    const child = Bun.spawn(
      [process.execPath, PROGRAM, "server", "-c", this.config, "--node", node],
      { stdin: "ignore", stdout: "ignore", stderr: log, env: cleanEnvironment() },
    );
    fs.closeSync(log);
    this.#running.set(node, child);
    return child;
  }

  /** Asks until the node is ready. */
  async untilReady(node: string): Promise<void> {
    await this.until(`node ${node} is ready`, async () => {
      const answer = await fetch(`${this.urls[node]}/readyz`).catch(() => undefined);
      return answer?.ok === true;
    });
  }

  /** Waits for a condition of the outside world, which only asking can show. */
  async until(what: string, isTrue: () => Promise<boolean>): Promise<void> {
    const endMs = performance.now() + READY_MS_MAX;
    while (!(await isTrue())) {
      if (performance.now() > endMs)
        throw new Error(`not within a minute: ${what}\n${this.logs()}`);
      await Bun.sleep(20);
    }
  }

  /** Sends a signal to a server and waits for its end. */
  async stop(node: string, signal: NodeJS.Signals): Promise<number | null> {
    const child = this.#running.get(node);
    this.#running.delete(node);
    child?.kill(signal);
    await child?.exited;
    return child?.exitCode ?? null;
  }

  /** The process of a server. */
  process(node: string): Bun.Subprocess {
    const child = this.#running.get(node);
    if (child === undefined) throw new Error(`no server of ${node} runs`);
    return child;
  }

  /** Runs `astacus` with the address of a node. */
  async at(node: string, ...args: readonly string[]): Promise<CommandOutcome> {
    return await this.run([...args, "-u", this.urls[node] ?? ""]);
  }

  /** Runs `astacus`. */
  async run(
    args: readonly string[],
    environment: Readonly<Record<string, string>> = {},
  ): Promise<CommandOutcome> {
    return await runAstacus(args, environment);
  }

  /** The lines of a node's log, parsed. */
  log(node: string): { message: string; level: string; error?: { message: string } }[] {
    const text = fs.readFileSync(this.logPath(node), "utf8").trimEnd();
    return text.split("\n").map((line) => JSON.parse(line) as { message: string; level: string });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#running.values()) {
      child.kill("SIGCONT");
      child.kill("SIGKILL");
      await child.exited;
    }
    fs.rmSync(this.folder, { recursive: true, force: true });
  }

  private logPath(node: string): string {
    return join(this.folder, `${node}.log`);
  }

  private logs(): string {
    return [...this.#running.keys()]
      .map((node) => `${node}: ${fs.readFileSync(this.logPath(node), "utf8").slice(-500)}`)
      .join("\n");
  }
}

/** Runs `astacus` to its end. */
export async function runAstacus(
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<CommandOutcome> {
  const child = spawnAstacus(args, environment);
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { code, stdout, stderr };
}

/** Starts `astacus` and leaves it to the caller. */
export function spawnAstacus(
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Bun.Subprocess<"ignore", "pipe", "pipe"> {
  return Bun.spawn([process.execPath, PROGRAM, ...args], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    env: { ...cleanEnvironment(), ...environment },
  });
}

function cleanEnvironment(): Record<string, string | undefined> {
  const ours = Object.entries(process.env).filter(([name]) => !name.startsWith("ASTACUS_"));
  return Object.fromEntries(ours);
}

/** All ports are open at once, so that no two are the same. */
async function freeUrls(
  names: readonly string[],
  host: string,
): Promise<Readonly<Record<string, string>>> {
  const servers = names.map(() =>
    Bun.serve({ hostname: host, port: 0, fetch: () => new Response() }),
  );
  const shown = host.includes(":") ? `[${host}]` : host;
  const urls = servers.map((server, index) => [names[index], `http://${shown}:${server.port}`]);
  for (const server of servers) await server.stop(true);
  return Object.fromEntries(urls) as Record<string, string>;
}
