/**
 * Azure Blob Storage for tests: azurite, the emulator of its vendor, installed from npm into the
 * cache by a lock file of its own (it is no dependency of the project) and run by Bun.
 *
 *   bun scripts/real/azurite.ts install
 *   bun scripts/real/azurite.ts up --port 10000 --directory ./azure-data
 */
import * as sdk from "@azure/storage-blob";
import * as fs from "node:fs";
import { join, resolve } from "node:path";
import { openAzureService } from "../../src/sites/azure-client.ts";
import { HttpExchange } from "../../src/sites/http-exchange.ts";
import { makeCertificates } from "./certificates.ts";
import { cacheBase } from "./go-build.ts";
import type { Missing } from "./missing.ts";
import { runPart } from "./part-command.ts";
import { endServer, freePorts, isRunning, startServer, until } from "./server-process.ts";

const VERSION = "3.37.0";
/** The emulator knows this account and key, which its documentation names. */
const ACCOUNT = "devstoreaccount1";
const ACCOUNT_KEY =
  "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const CONTAINER = "astacus";
const START_TRIES = 3;
const START_DEADLINE_MS = 60_000;

/** An emulator that runs, and how to reach it. */
export type RealAzure = {
  /** With the account as its path. */
  readonly endpoint: string;
  readonly account: string;
  readonly accountKey: string;
  readonly container: string;
  /** PEM file of the authority, with `tls`. */
  readonly caFile?: string;
  /** Ends the emulator and waits until it is gone; its directory stays. */
  stop(): Promise<void>;
};

/** Installs the emulator if it is not in the cache, in seconds; returns its program. */
export async function installAzurite(): Promise<string | Missing> {
  const target = join(cacheBase(), `azurite-${VERSION}`);
  const program = join(target, "node_modules/azurite/dist/src/blob/main.js");
  if (fs.existsSync(program)) return program;
  fs.mkdirSync(cacheBase(), { recursive: true });
  // Made beside its place, so that it is there complete or not at all.
  const work = fs.mkdtempSync(`${target}-`);
  try {
    fs.cpSync(join(import.meta.dir, "azurite"), work, { recursive: true });
    const install = Bun.spawn(
      ["nice", process.execPath, "install", "--frozen-lockfile", "--ignore-scripts"],
      { cwd: work, stdin: "ignore", stdout: "ignore", stderr: "pipe" },
    );
    const talk = await new Response(install.stderr).text();
    if ((await install.exited) !== 0) {
      return { missing: `azurite ${VERSION} (bun install failed: ${talk.trim().slice(-300)})` };
    }
    if (!fs.existsSync(program)) fs.renameSync(work, target);
    return program;
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
}

/** Starts an emulator with a container on a free (or the given) port. */
export async function startAzurite(options: {
  readonly directory: string;
  readonly port?: number;
  /** https with an authority of its own, and tokens beside keys; needs openssl. */
  readonly tls?: boolean;
}): Promise<RealAzure | Missing> {
  const program = await installAzurite();
  if (typeof program !== "string") return program;
  const directory = resolve(options.directory);
  fs.mkdirSync(join(directory, "root"), { recursive: true });
  const logFile = join(directory, "azurite.log");
  const tlsFolder = join(directory, "tls");
  const made = options.tls === true ? await makeCertificates(tlsFolder) : undefined;
  if (made !== undefined && "missing" in made) return made;
  const caFile = made?.client.caFile;
  for (let attempt = 1; ; attempt += 1) {
    const [free = 0] = freePorts(1);
    const port = options.port ?? free;
    const server = startServer({
      argv: [
        process.execPath,
        program,
        ...flagsOf(port, join(directory, "root")),
        ...(caFile === undefined ? [] : tlsFlagsOf(tlsFolder)),
      ],
      logFile,
      processFile: join(directory, "process.json"),
      isLasting: false,
    });
    const scheme = caFile === undefined ? "http" : "https";
    const endpoint = `${scheme}://127.0.0.1:${port}/${ACCOUNT}`;
    const authorities = caFile === undefined ? undefined : fs.readFileSync(caFile, "utf8");
    await until("azurite", START_DEADLINE_MS, async () => {
      return !isRunning(server) || (await answers(endpoint, authorities));
    });
    if (isRunning(server)) {
      await makeContainer(endpoint, authorities);
      const stop = async () => await endServer(server, { signal: "SIGTERM", patienceMs: 3_000 });
      const known = { account: ACCOUNT, accountKey: ACCOUNT_KEY, container: CONTAINER };
      return { endpoint, ...known, ...(caFile === undefined ? {} : { caFile }), stop };
    }
    // Between finding a port and using it somebody else may take it.
    if (options.port !== undefined || attempt >= START_TRIES) {
      const log = fs.readFileSync(logFile, "utf8").slice(-500);
      throw new Error(`azurite does not run on ${endpoint}; is the port taken?\n${log}`);
    }
  }
}

function flagsOf(port: number, location: string): string[] {
  const address = ["--blobHost", "127.0.0.1", "--blobPort", String(port)];
  const quiet = ["--silent", "--disableTelemetry", "--skipApiVersionCheck"];
  return [...address, "--location", location, ...quiet];
}

function tlsFlagsOf(folder: string): string[] {
  const files = ["--cert", join(folder, "server.crt"), "--key", join(folder, "server.key")];
  return [...files, "--oauth", "basic"];
}

async function answers(endpoint: string, authorities: string | undefined): Promise<boolean> {
  try {
    // Any answer will do: without credentials it is a refusal.
    await fetch(endpoint, {
      signal: AbortSignal.timeout(5_000),
      ...(authorities === undefined ? {} : { tls: { ca: authorities } }),
    });
    return true;
  } catch {
    return false;
  }
}

async function makeContainer(endpoint: string, authorities: string | undefined): Promise<void> {
  const account = { name: "azurite", endpoint, account: ACCOUNT, accountKey: ACCOUNT_KEY };
  const network = { timeoutMs: 30_000, ...(authorities === undefined ? {} : { authorities }) };
  const service = openAzureService(sdk, account, new HttpExchange(network));
  await service.getContainerClient(CONTAINER).createIfNotExists();
}

if (import.meta.main) {
  process.exitCode = await runPart({
    script: "azurite.ts",
    install: installAzurite,
    start: startAzurite,
    show: ({ endpoint, container, account, accountKey }) => ({
      endpoint,
      container,
      account,
      accountKey,
    }),
  });
}
