/**
 * A real S3 server for tests and demonstrations: versitygw, built once with the Go toolchain into a
 * cache directory, started on loopback with a directory of its own, and ended with its owner.
 *
 *   bun scripts/real/s3.ts install
 *   bun scripts/real/s3.ts up --port 7070 --directory ./s3-data
 */
import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import * as fs from "node:fs";
import { join, resolve } from "node:path";
import { makeCertificates } from "./certificates.ts";
import { cacheBase } from "./go-build.ts";
import type { Missing } from "./missing.ts";
import { runPart } from "./part-command.ts";
import { endServer, freePorts, isRunning, startServer } from "./server-process.ts";
import type { ServerProcess } from "./server-process.ts";

const VERSION = "1.8.0";
const MODULE = `github.com/versity/versitygw/cmd/versitygw@v${VERSION}`;
const ACCESS_KEY_ID = "astacus-test";
const SECRET_ACCESS_KEY = "astacus-test-secret";
const REGION = "us-east-1";
const BUCKET = "astacus";
const LOCKED_BUCKET = "astacus-locked";
const START_TRIES = 3;
const START_DEADLINE_MS = 20_000;
const POLL_MS = 25;

/** A server that runs, and how to reach it. */
export type RealS3 = {
  /** `versitygw 1.8.0`. */
  readonly make: string;
  readonly endpoint: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly bucket: string;
  /** A bucket with versions and object lock. */
  readonly lockedBucket: string;
  /** PEM file of the authority, with `tls`. */
  readonly caFile?: string;
  /** Ends the server and waits until it is gone; its directory stays. */
  stop(): Promise<void>;
};

/** What a server is started with. */
export type S3ServerOptions = {
  readonly directory: string;
  /** A free one unless given. */
  readonly port?: number;
  /** https, with an authority of its own; needs openssl. */
  readonly tls?: boolean;
  /** Buckets may stand in the host name too: `bucket.<domain>`. */
  readonly domain?: string;
  /** More of the server's own settings. */
  readonly environment?: Readonly<Record<string, string>>;
};

/** A make of S3 server: how to get its program and what to call it with. */
export type S3ServerMake = {
  readonly make: string;
  readonly install: () => Promise<string | Missing>;
  readonly argv: (program: string, at: S3Address) => readonly string[];
  readonly environment: (at: S3Address) => Readonly<Record<string, string>>;
  /** Asked until it answers with 200, or with anything where it is left out. */
  readonly healthPath?: string;
};

/** What a program is told. */
export type S3Address = {
  readonly directory: string;
  readonly port: number;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly domain?: string;
  /** PEM files, with TLS. */
  readonly tls?: { readonly certFile: string; readonly keyFile: string };
};

const VERSITYGW: S3ServerMake = {
  make: `versitygw ${VERSION}`,
  install: installS3Server,
  argv: (program, { directory, port, domain, tls }) => [
    program,
    "--port",
    `127.0.0.1:${port}`,
    "--region",
    REGION,
    "--quiet",
    ...(domain === undefined ? [] : ["--virtual-domain", `${domain}:${port}`]),
    ...(tls === undefined ? [] : ["--cert", tls.certFile, "--key", tls.keyFile]),
    "posix",
    "--versioning-dir",
    join(directory, "versions"),
    join(directory, "root"),
  ],
  environment: ({ accessKeyId, secretAccessKey }) => ({
    ROOT_ACCESS_KEY: accessKeyId,
    ROOT_SECRET_KEY: secretAccessKey,
  }),
};

/** Builds the server if it is not in the cache; returns its path. Takes minutes the first time. */
export async function installS3Server(): Promise<string | Missing> {
  const directory = join(cacheBase(), `versitygw-${VERSION}`);
  const binary = join(directory, "versitygw");
  if (fs.existsSync(binary)) return binary;
  if (Bun.which("go") === null) return { missing: "go toolchain" };
  fs.mkdirSync(directory, { recursive: true });
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
export async function startS3Server(options: S3ServerOptions): Promise<RealS3 | Missing> {
  return await startServerOf(VERSITYGW, options);
}

/** The same for a server of any make. */
export async function startServerOf(
  make: S3ServerMake,
  options: S3ServerOptions,
): Promise<RealS3 | Missing> {
  const program = await make.install();
  if (typeof program !== "string") return program;
  const directory = resolve(options.directory);
  for (const name of ["root", "versions"]) {
    fs.mkdirSync(join(directory, name), { recursive: true });
  }
  const tlsFolder = join(directory, "tls");
  const made = options.tls === true ? await makeCertificates(tlsFolder) : undefined;
  if (made !== undefined && "missing" in made) return made;
  const caFile = made?.client.caFile;
  const tls = { certFile: join(tlsFolder, "server.crt"), keyFile: join(tlsFolder, "server.key") };
  for (let attempt = 1; ; attempt += 1) {
    // Between finding a port and using it somebody else may take it.
    const [free = 0] = freePorts(1);
    const at: S3Address = {
      directory,
      port: options.port ?? free,
      accessKeyId: ACCESS_KEY_ID,
      secretAccessKey: SECRET_ACCESS_KEY,
      ...(options.domain === undefined ? {} : { domain: options.domain }),
      ...(caFile === undefined ? {} : { tls }),
    };
    const server = startServer({
      argv: make.argv(program, at),
      logFile: join(directory, "server.log"),
      processFile: join(directory, "process.json"),
      environment: { ...make.environment(at), ...options.environment },
      isLasting: false,
    });
    const endpoint = `${caFile === undefined ? "http" : "https"}://127.0.0.1:${at.port}`;
    const real = { make: make.make, endpoint, ...(caFile === undefined ? {} : { caFile }) };
    if (await answers(real, make, server)) return await withBuckets(real, server);
    await endServer(server, { signal: "SIGKILL" });
    if (options.port !== undefined || attempt >= START_TRIES) {
      const log = fs.readFileSync(join(directory, "server.log"), "utf8").slice(-500);
      throw new Error(`${make.make} does not answer on ${endpoint}; is the port taken?\n${log}`);
    }
  }
}

type Reached = Pick<RealS3, "make" | "endpoint" | "caFile">;

async function answers(
  { endpoint, caFile }: Reached,
  { healthPath }: S3ServerMake,
  server: ServerProcess,
): Promise<boolean> {
  const deadline = performance.now() + START_DEADLINE_MS;
  while (performance.now() < deadline && isRunning(server)) {
    try {
      const response = await fetch(`${endpoint}${healthPath ?? ""}`, {
        signal: AbortSignal.timeout(1_000),
        ...(caFile === undefined ? {} : { tls: { ca: Bun.file(caFile) } }),
      });
      // Without credentials it is a refusal, which will do where there is no page for health.
      if (healthPath === undefined || response.ok) return isRunning(server);
    } catch {
      // Not yet.
    }
    await Bun.sleep(POLL_MS);
  }
  return false;
}

async function withBuckets(reached: Reached, server: ServerProcess): Promise<RealS3> {
  const real: RealS3 = {
    ...reached,
    accessKeyId: ACCESS_KEY_ID,
    secretAccessKey: SECRET_ACCESS_KEY,
    bucket: BUCKET,
    lockedBucket: LOCKED_BUCKET,
    stop: async () => await endServer(server, { signal: "SIGTERM", patienceMs: 3_000 }),
  };
  const client = clientOf(real);
  try {
    await makeBucket(client, BUCKET, false);
    await makeBucket(client, LOCKED_BUCKET, true);
  } finally {
    client.destroy();
  }
  return real;
}

/** A client of the SDK, for what tests do behind the back of a site. */
export function clientOf(real: RealS3): S3Client {
  const { endpoint, accessKeyId, secretAccessKey, caFile } = real;
  const ca = caFile === undefined ? undefined : fs.readFileSync(caFile, "utf8");
  return new S3Client({
    endpoint,
    region: REGION,
    forcePathStyle: true,
    credentials: { accessKeyId, secretAccessKey },
    requestChecksumCalculation: "WHEN_REQUIRED",
    ...(ca === undefined ? {} : { requestHandler: { httpsAgent: { ca } } }),
  });
}

async function makeBucket(client: S3Client, Bucket: string, isLocked: boolean): Promise<void> {
  try {
    const command = { Bucket, ...(isLocked ? { ObjectLockEnabledForBucket: true } : {}) };
    await client.send(new CreateBucketCommand(command));
  } catch (thrown) {
    if (!(thrown instanceof Error && thrown.name.startsWith("BucketAlready"))) throw thrown;
  }
}

if (import.meta.main) {
  process.exitCode = await runPart({
    script: "s3.ts",
    install: installS3Server,
    start: startS3Server,
    show: ({ endpoint, bucket, accessKeyId, secretAccessKey }) => ({
      endpoint,
      bucket,
      accessKeyId,
      secretAccessKey,
    }),
  });
}
