/**
 * A real S3 server for tests and demonstrations: versitygw, built once with the Go toolchain into a
 * cache directory, started on loopback with a directory of its own, and ended with its owner.
 *
 *   bun scripts/real/s3.ts install
 *   bun scripts/real/s3.ts up --port 7070 --directory ./s3-data
 */
import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import { existsSync, mkdirSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";

const VERSION = "1.8.0";
const MODULE = `github.com/versity/versitygw/cmd/versitygw@v${VERSION}`;
const ACCESS_KEY_ID = "astacus-test";
const SECRET_ACCESS_KEY = "astacus-test-secret";
const BUCKET = "astacus";
const START_TRIES = 3;
const START_DEADLINE_MS = 20_000;
const POLL_MS = 25;

/** A server that runs, and how to reach it. */
export type RealS3 = {
  readonly endpoint: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly bucket: string;
  /** Ends the server and waits until it is gone; its directory stays. */
  stop(): Promise<void>;
};

/** Why there is no server. */
export type Missing = { readonly missing: string };

/** Builds the server if it is not in the cache; returns its path. Takes minutes the first time. */
export async function installS3Server(): Promise<string | Missing> {
  const directory = cacheDirectory();
  const binary = join(directory, "versitygw");
  if (existsSync(binary)) return binary;
  if (Bun.which("go") === null) return { missing: "go toolchain" };
  mkdirSync(directory, { recursive: true });
  const build = Bun.spawn(["nice", "go", "install", MODULE], {
    cwd: directory,
    env: { ...process.env, GOBIN: directory },
    stdout: "ignore",
    stderr: "pipe",
  });
  const talk = await new Response(build.stderr).text();
  if ((await build.exited) === 0) return binary;
  return { missing: `versitygw ${VERSION} (go install failed: ${talk.trim().slice(-300)})` };
}

/** Starts a server with a bucket on a free (or the given) port; says what is missing if it cannot. */
export async function startS3Server(options: {
  readonly directory: string;
  readonly port?: number;
}): Promise<RealS3 | Missing> {
  const binary = await installS3Server();
  if (typeof binary !== "string") return binary;
  const root = join(resolve(options.directory), "root");
  mkdirSync(root, { recursive: true });
  const wanted = options.port ?? 0;
  for (let attempt = 1; ; attempt += 1) {
    // Between finding a port and using it somebody else may take it.
    const port = wanted === 0 ? freePort() : wanted;
    const server = startProcess(binary, root, port);
    const endpoint = `http://127.0.0.1:${port}`;
    if (await answers(endpoint, server)) return await withBucket(endpoint, server);
    await stopProcess(server);
    if (wanted !== 0 || attempt >= START_TRIES) {
      throw new Error(`versitygw does not answer on ${endpoint}; is the port taken?`);
    }
  }
}

type Server = ReturnType<typeof startProcess>;

function startProcess(binary: string, root: string, port: number) {
  const server = Bun.spawn(
    [binary, "--port", `127.0.0.1:${port}`, "--region", "us-east-1", "--quiet", "posix", root],
    {
      env: {
        ...process.env,
        ROOT_ACCESS_KEY: ACCESS_KEY_ID,
        ROOT_SECRET_KEY: SECRET_ACCESS_KEY,
      },
      stdout: "ignore",
      stderr: "ignore",
    },
  );
  server.unref();
  process.once("exit", () => server.kill("SIGKILL"));
  return server;
}

async function stopProcess(server: Server): Promise<void> {
  server.kill("SIGTERM");
  const timer = setTimeout(() => server.kill("SIGKILL"), 3_000);
  await server.exited;
  clearTimeout(timer);
}

async function answers(endpoint: string, server: Server): Promise<boolean> {
  const deadline = performance.now() + START_DEADLINE_MS;
  while (performance.now() < deadline && server.exitCode === null) {
    try {
      // Any answer will do: without credentials it is a refusal.
      await fetch(endpoint, { signal: AbortSignal.timeout(1_000) });
      return server.exitCode === null;
    } catch {
      await Bun.sleep(POLL_MS);
    }
  }
  return false;
}

async function withBucket(endpoint: string, server: Server): Promise<RealS3> {
  const client = new S3Client({
    endpoint,
    region: "us-east-1",
    forcePathStyle: true,
    credentials: { accessKeyId: ACCESS_KEY_ID, secretAccessKey: SECRET_ACCESS_KEY },
  });
  try {
    await client.send(new CreateBucketCommand({ Bucket: BUCKET }));
  } catch (thrown) {
    if (!(thrown instanceof Error && thrown.name.startsWith("BucketAlready"))) throw thrown;
  } finally {
    client.destroy();
  }
  return {
    endpoint,
    accessKeyId: ACCESS_KEY_ID,
    secretAccessKey: SECRET_ACCESS_KEY,
    bucket: BUCKET,
    stop: async () => await stopProcess(server),
  };
}

function freePort(): number {
  const probe = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => undefined } });
  const { port } = probe;
  probe.stop(true);
  return port;
}

function cacheDirectory(): string {
  const { ASTACUS_REAL_CACHE, XDG_CACHE_HOME } = process.env;
  const base =
    ASTACUS_REAL_CACHE ?? join(XDG_CACHE_HOME ?? join(homedir(), ".cache"), "astacus-real");
  return join(base, `versitygw-${VERSION}`);
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    args: Bun.argv.slice(2),
    allowPositionals: true,
    options: { port: { type: "string" }, directory: { type: "string" } },
  });
  const [command] = positionals;
  if (command === "install") {
    const binary = await installS3Server();
    console.log(typeof binary === "string" ? binary : `missing: ${binary.missing}`);
    return typeof binary === "string" ? 0 : 1;
  }
  if (command !== "up" || values.directory === undefined) {
    console.error("usage: bun scripts/real/s3.ts install | up --directory D [--port N]");
    return 2;
  }
  const { directory, port = "0" } = values;
  const server = await startS3Server({ directory, port: Number(port) });
  if ("missing" in server) {
    console.error(`missing: ${server.missing}`);
    return 1;
  }
  const { endpoint, bucket, accessKeyId, secretAccessKey } = server;
  console.log(JSON.stringify({ endpoint, bucket, accessKeyId, secretAccessKey }));
  const { promise, resolve: end } = Promise.withResolvers<void>();
  process.once("SIGINT", end);
  process.once("SIGTERM", end);
  await promise;
  await server.stop();
  return 0;
}

if (import.meta.main) process.exitCode = await main();
