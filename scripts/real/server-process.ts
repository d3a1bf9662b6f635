/**
 * Server processes that may outlive the command that started them: a later command finds them by a
 * file that names the process and when it began, so that a process id used again is never mistaken
 * for the server. Linux only: it reads /proc.
 */
import { spawn } from "node:child_process";
import * as fs from "node:fs";

const POLL_MS = 20;
const PORT_MIN = 12_000;
const PORT_END = 32_000;

/** A process, also after its id has been given to another one. */
export type ServerProcess = {
  readonly pid: number;
  /** When it began, in clock ticks since the machine started. */
  readonly startTicks: string;
};

/** How to start a server. */
export type StartOptions = {
  readonly argv: readonly string[];
  /** Output is appended here. */
  readonly logFile: string;
  /** Written when it has started. */
  readonly processFile: string;
  readonly environment?: Readonly<Record<string, string>>;
  /** Goes on when this process ends; otherwise it is killed then. */
  readonly isLasting: boolean;
};

/** Starts a server in a session of its own; does not wait until it answers. */
export function startServer(options: StartOptions): ServerProcess {
  const [program = "", ...args] = options.isLasting ? options.argv : bound(options.argv);
  const log = fs.openSync(options.logFile, "a");
  const child = spawn(program, args, {
    detached: true,
    stdio: ["ignore", log, log],
    env: { ...process.env, ...options.environment },
  });
  fs.closeSync(log);
  const { pid } = child;
  if (pid === undefined) throw new Error(`${program} cannot be started`);
  child.unref();
  const server = { pid, startTicks: readStat(pid)?.startTicks ?? "" };
  fs.writeFileSync(options.processFile, JSON.stringify(server));
  if (!options.isLasting) process.once("exit", () => signal(server, "SIGKILL"));
  return server;
}

/** Ends it with this process even if that is killed, where the system has the program for it. */
function bound(argv: readonly string[]): readonly string[] {
  return Bun.which("setpriv") === null ? argv : ["setpriv", "--pdeathsig", "KILL", "--", ...argv];
}

/** The process that a file names; undefined if it has ended or was never started. */
export function getServer(processFile: string): ServerProcess | undefined {
  if (!fs.existsSync(processFile)) return undefined;
  const server = JSON.parse(fs.readFileSync(processFile, "utf8")) as ServerProcess;
  return isRunning(server) ? server : undefined;
}

/** False when it holds nothing more: no port, no lock. */
export function isRunning(server: ServerProcess): boolean {
  const stat = readStat(server.pid);
  if (stat === undefined || stat.startTicks !== server.startTicks) return false;
  // A first thread that has ended waits for the others, which still hold ports, and for its parent.
  return stat.state !== "Z" || countThreads(server.pid) > 1;
}

/** Asks a server to end and waits until it is gone; kills it when it takes longer than that. */
export async function endServer(
  server: ServerProcess,
  how: { readonly signal: "SIGINT" | "SIGTERM" | "SIGKILL"; readonly patienceMs?: number },
): Promise<void> {
  const killAtMs = performance.now() + (how.patienceMs ?? 20_000);
  signal(server, how.signal);
  while (isRunning(server)) {
    if (performance.now() > killAtMs) signal(server, "SIGKILL");
    await Bun.sleep(POLL_MS);
  }
}

/** Memory that is resident now, in bytes; 0 if it has ended. */
export function residentBytes(server: ServerProcess): number {
  if (!isRunning(server)) return 0;
  const status = fs.readFileSync(`/proc/${server.pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
}

/**
 * Different free ports on loopback; somebody else may take one before it is used. They lie below those
 * that the system gives to outgoing connections: a server that is down for a moment must find its own
 * port free again.
 */
export function freePorts(count: number): number[] {
  const listeners: Bun.TCPSocketListener[] = [];
  try {
    while (listeners.length < count) {
      const port = PORT_MIN + Math.floor(Math.random() * (PORT_END - PORT_MIN));
      try {
        const options = { hostname: "127.0.0.1", port, socket: { data: () => undefined } };
        listeners.push(Bun.listen(options));
      } catch (thrown) {
        if ((thrown as { code?: string }).code !== "EADDRINUSE") throw thrown;
      }
    }
    return listeners.map((listener) => listener.port);
  } finally {
    for (const listener of listeners) listener.stop(true);
  }
}

/** Asks again and again until the answer is yes; an error that names `what` when time is up. */
export async function until(
  what: string,
  timeoutMs: number,
  isTrue: () => boolean | Promise<boolean>,
  pollMs = POLL_MS * 5,
): Promise<void> {
  const endMs = performance.now() + timeoutMs;
  while (!(await isTrue())) {
    if (performance.now() > endMs) throw new Error(`not in ${timeoutMs / 1000} s: ${what}`);
    await Bun.sleep(pollMs);
  }
}

function signal(server: ServerProcess, name: NodeJS.Signals): void {
  if (!isRunning(server)) return;
  try {
    process.kill(server.pid, name);
  } catch (thrown) {
    if (isRunning(server)) throw thrown;
  }
}

function countThreads(pid: number): number {
  try {
    return fs.readdirSync(`/proc/${pid}/task`).length;
  } catch {
    return 0;
  }
}

function readStat(
  pid: number,
): { readonly state: string; readonly startTicks: string } | undefined {
  try {
    const text = fs.readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name of the program stands in parentheses and may hold anything.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return { state: fields[0] ?? "", startTicks: fields[19] ?? "" };
  } catch {
    return undefined;
  }
}
