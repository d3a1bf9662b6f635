/**
 * Google Cloud Storage for tests: fake-gcs-server, built once with the Go toolchain into the cache.
 * It checks `ifGenerationMatch` under one lock and declared hashes, which
 * test/sites/gcs-site.test.ts proves; it knows no credentials, and makes a bucket that is missing.
 *
 *   bun scripts/real/gcs.ts install
 *   bun scripts/real/gcs.ts up --port 4443 --directory ./gcs-data
 */
import * as fs from "node:fs";
import { join, resolve } from "node:path";
import { buildGoModule } from "./go-build.ts";
import type { Missing } from "./missing.ts";
import { runPart } from "./part-command.ts";
import { endServer, freePorts, isRunning, startServer, until } from "./server-process.ts";

const VERSION = "1.56.1";
const PROGRAM = "fake-gcs-server";
const BUCKET = "astacus";
const BUILD_MEGABYTES = 1500;
const START_TRIES = 3;
const START_DEADLINE_MS = 30_000;

/** A server that runs, and how to reach it; it wants no credentials. */
export type RealGcs = {
  readonly endpoint: string;
  readonly bucket: string;
  /** Ends the server and waits until it is gone; its directory stays. */
  stop(): Promise<void>;
};

/** Builds the server if it is not in the cache; returns its path. Takes minutes the first time. */
export async function installGcsServer(): Promise<string | Missing> {
  const folder = await buildGoModule({
    name: `${PROGRAM}-${VERSION}`,
    folder: join(import.meta.dir, PROGRAM),
    programs: { [PROGRAM]: "github.com/fsouza/fake-gcs-server" },
    megabytes: BUILD_MEGABYTES,
  });
  return typeof folder === "string" ? join(folder, PROGRAM) : folder;
}

/**
 * Starts a server with a bucket on a free (or the given) port; says what is missing if it cannot.
 */
export async function startGcsServer(options: {
  readonly directory: string;
  readonly port?: number;
}): Promise<RealGcs | Missing> {
  const program = await installGcsServer();
  if (typeof program !== "string") return program;
  const directory = resolve(options.directory);
  const root = join(directory, "root");
  fs.mkdirSync(root, { recursive: true });
  const logFile = join(directory, "gcs.log");
  for (let attempt = 1; ; attempt += 1) {
    const [free = 0] = freePorts(1);
    const port = options.port ?? free;
    const endpoint = `http://127.0.0.1:${port}`;
    const server = startServer({
      argv: [program, ...flagsOf(port, root)],
      logFile,
      processFile: join(directory, "process.json"),
      isLasting: false,
    });
    await until(PROGRAM, START_DEADLINE_MS, async () => {
      return !isRunning(server) || (await makeBucket(endpoint));
    });
    if (isRunning(server)) {
      const stop = async () => await endServer(server, { signal: "SIGTERM", patienceMs: 3_000 });
      return { endpoint, bucket: BUCKET, stop };
    }
    // Between finding a port and using it somebody else may take it.
    if (options.port !== undefined || attempt >= START_TRIES) {
      const log = fs.readFileSync(logFile, "utf8").slice(-500);
      throw new Error(`${PROGRAM} does not run on ${endpoint}; is the port taken?\n${log}`);
    }
  }
}

function flagsOf(port: number, root: string): string[] {
  const listen = ["-scheme", "http", "-host", "127.0.0.1", "-port", String(port)];
  const address = `127.0.0.1:${port}`;
  const names = ["-public-host", address, "-external-url", `http://${address}`];
  const store = ["-backend", "filesystem", "-filesystem-root", root];
  return [...listen, ...names, ...store, "-log-level", "error"];
}

/** False while nobody answers. */
async function makeBucket(endpoint: string): Promise<boolean> {
  try {
    const response = await fetch(`${endpoint}/storage/v1/b?project=test`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ name: BUCKET }),
      signal: AbortSignal.timeout(5_000),
    });
    return response.ok || response.status === 409;
  } catch {
    return false;
  }
}

if (import.meta.main) {
  process.exitCode = await runPart({
    script: "gcs.ts",
    install: installGcsServer,
    start: startGcsServer,
    show: ({ endpoint, bucket }) => ({ endpoint, bucket }),
  });
}
