/**
 * A real etcd for tests and demonstrations, of one member: built once with the Go toolchain into the
 * cache, or found on PATH. It does not sync its writes, so it survives the end of its process and not
 * that of the machine.
 *
 *   bun scripts/real/etcd.ts install          3.6 and 3.5
 */
import * as fs from "node:fs";
import { join, resolve } from "node:path";
import { makeCertificates } from "./certificates.ts";
import type { ClientCertificate } from "./certificates.ts";
import { buildGoModule } from "./go-build.ts";
import type { Missing } from "./missing.ts";
import { endServer, freePorts, getServer, isRunning, startServer } from "./server-process.ts";
import type { ServerProcess } from "./server-process.ts";

/** Built from go.mod files of this project, or whatever `etcd` on PATH is. */
export type EtcdVersion = "3.6" | "3.5" | "path";

const VERSIONS = { "3.6": "3.6.6", "3.5": "3.5.21" } as const;
const START_TRIES = 3;
const START_DEADLINE_MS = 30_000;
const POLL_MS = 25;
const EVERY_KEY = btoa("\0");

/** What to start; a directory that was used before is gone on with. */
export type EtcdOptions = {
  readonly directory: string;
  /** Free ones unless given. */
  readonly clientPort?: number;
  readonly peerPort?: number;
  /** 3.6 unless given; if it cannot be built, what is on PATH. */
  readonly version?: EtcdVersion;
  /** Passwords by name; with these, authentication is on. `root` must be among them. */
  readonly users?: Readonly<Record<string, string>>;
  /** https, and clients must show a certificate; needs openssl. */
  readonly tls?: boolean;
  /** Goes on when this process ends. */
  readonly isLasting?: boolean;
};

/** A server that runs, and how to reach it. */
export type RealEtcd = {
  /** `http://127.0.0.1:2379`. */
  readonly endpoint: string;
  readonly clientPort: number;
  readonly peerPort: number;
  /** Paths of PEM files, if it was started with `tls`. */
  readonly tls?: ClientCertificate;
  readonly process: ServerProcess;
  /** Asks it to end and waits until it is gone; its directory stays. */
  stop(): Promise<void>;
  /** Ends it at once, as a power cut does. */
  kill(): Promise<void>;
};

/** The path of the program; the first time it is built, in 1 to 2 minutes. */
export async function installEtcd(version?: EtcdVersion): Promise<string | Missing> {
  const onPath = Bun.which("etcd");
  if (version === "path") return onPath ?? { missing: "etcd on PATH" };
  const wanted = version ?? "3.6";
  const built = await buildGoModule({
    name: `etcd-${VERSIONS[wanted]}`,
    folder: join(import.meta.dir, `etcd-${wanted}`),
    programs: { etcd: "go.etcd.io/etcd/server/v3" },
    megabytes: 1536,
  });
  if (typeof built === "string") return join(built, "etcd");
  return version === undefined && onPath !== null ? onPath : built;
}

/**
 * Starts a server and waits until it answers; says what is missing if there is no program. Throws if
 * a given port is taken.
 */
export async function startEtcd(options: EtcdOptions): Promise<RealEtcd | Missing> {
  const program = await installEtcd(options.version);
  if (typeof program !== "string") return program;
  const directory = resolve(options.directory);
  fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
  const tls = options.tls === true ? await makeCertificates(join(directory, "tls")) : undefined;
  if (tls !== undefined && "missing" in tls) return tls;
  for (let attempt = 1; ; attempt += 1) {
    const [freeClient = 0, freePeer = 0] = freePorts(2);
    const { clientPort = freeClient, peerPort = freePeer } = options;
    const scheme = tls === undefined ? "http" : "https";
    const endpoint = `${scheme}://127.0.0.1:${clientPort}`;
    const server = startServer({
      argv: argvOf(program, directory, endpoint, peerPort, tls?.serverFlags ?? []),
      logFile: logFile(directory),
      processFile: processFile(directory),
      isLasting: options.isLasting ?? false,
    });
    const etcd = handleOf(server, endpoint, clientPort, peerPort, tls?.client);
    if (await answers(etcd)) {
      if (options.users !== undefined) await enableUsers(etcd, directory, options.users);
      return etcd;
    }
    await etcd.kill();
    const isFixed = options.clientPort !== undefined || options.peerPort !== undefined;
    if (isFixed || attempt >= START_TRIES) {
      const log = fs.readFileSync(logFile(directory), "utf8").slice(-500);
      throw new Error(`etcd does not answer on ${endpoint}; is the port taken?\n${log}`);
    }
  }
}

/** The server that an earlier command started in a directory; undefined if it does not run. */
export function getEtcdProcess(directory: string): ServerProcess | undefined {
  return getServer(processFile(resolve(directory)));
}

/** Sends one request of etcd's JSON API (`/v3/kv/range`); throws if it is refused. */
export async function callEtcd(
  etcd: Pick<RealEtcd, "endpoint" | "tls">,
  path: string,
  body: Readonly<Record<string, unknown>>,
): Promise<Record<string, unknown>> {
  const response = await fetch(etcd.endpoint + path, {
    method: "POST",
    body: JSON.stringify(body),
    ...tlsOf(etcd.tls),
  });
  if (!response.ok) throw new Error(`etcd: ${path}: ${response.status} ${await response.text()}`);
  return (await response.json()) as Record<string, unknown>;
}

function argvOf(
  program: string,
  directory: string,
  endpoint: string,
  peerPort: number,
  more: readonly string[],
): string[] {
  const peer = `http://127.0.0.1:${peerPort}`;
  return [
    program,
    "--name=one",
    `--data-dir=${join(directory, "data")}`,
    `--listen-client-urls=${endpoint}`,
    `--advertise-client-urls=${endpoint}`,
    `--listen-peer-urls=${peer}`,
    `--initial-advertise-peer-urls=${peer}`,
    `--initial-cluster=one=${peer}`,
    "--logger=zap",
    "--unsafe-no-fsync",
    ...more,
  ];
}

function handleOf(
  server: ServerProcess,
  endpoint: string,
  clientPort: number,
  peerPort: number,
  tls: ClientCertificate | undefined,
): RealEtcd {
  return {
    endpoint,
    clientPort,
    peerPort,
    ...(tls === undefined ? {} : { tls }),
    process: server,
    stop: async () => await endServer(server, { signal: "SIGTERM" }),
    kill: async () => await endServer(server, { signal: "SIGKILL" }),
  };
}

async function answers(etcd: RealEtcd): Promise<boolean> {
  const deadlineMs = performance.now() + START_DEADLINE_MS;
  while (performance.now() < deadlineMs && isRunning(etcd.process)) {
    try {
      const options = { signal: AbortSignal.timeout(2_000), ...tlsOf(etcd.tls) };
      const response = await fetch(`${etcd.endpoint}/health`, options);
      // The port may be another server's, which answers although ours has ended.
      if (response.ok) return isRunning(etcd.process);
    } catch {
      // Not yet.
    }
    await Bun.sleep(POLL_MS);
  }
  return false;
}

async function enableUsers(
  etcd: RealEtcd,
  directory: string,
  users: Readonly<Record<string, string>>,
): Promise<void> {
  const done = join(directory, "users-enabled");
  if (fs.existsSync(done)) return;
  const permission = { permType: "READWRITE", key: EVERY_KEY, range_end: EVERY_KEY };
  await callEtcd(etcd, "/v3/auth/role/add", { name: "root" });
  await callEtcd(etcd, "/v3/auth/role/add", { name: "everything" });
  await callEtcd(etcd, "/v3/auth/role/grant", { name: "everything", perm: permission });
  for (const [name, password] of Object.entries(users)) {
    await callEtcd(etcd, "/v3/auth/user/add", { name, password });
    const role = name === "root" ? "root" : "everything";
    await callEtcd(etcd, "/v3/auth/user/grant", { user: name, role });
  }
  await callEtcd(etcd, "/v3/auth/enable", {});
  fs.writeFileSync(done, "");
}

function tlsOf(tls: ClientCertificate | undefined) {
  if (tls === undefined) return {};
  const { caFile, certFile, keyFile } = tls;
  return { tls: { ca: Bun.file(caFile), cert: Bun.file(certFile), key: Bun.file(keyFile) } };
}

function processFile(directory: string): string {
  return join(directory, "process.json");
}

function logFile(directory: string): string {
  return join(directory, "etcd.log");
}

if (import.meta.main) {
  if (Bun.argv[2] === "install") {
    for (const version of ["3.6", "3.5"] as const) {
      const program = await installEtcd(version);
      if (typeof program === "string") console.log(program);
      else {
        console.error(`missing: ${program.missing}`);
        process.exitCode = 1;
      }
    }
  } else {
    console.error("usage: bun scripts/real/etcd.ts install");
    process.exitCode = 2;
  }
}
