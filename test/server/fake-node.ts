/**
 * A node for tests of the HTTP side: real operations over a real journal, everything else scripted.
 * And a server context around it, without a listener.
 */
import { Database } from "bun:sqlite";
import { realClock } from "../../src/base/clock.ts";
import { AppError } from "../../src/base/error.ts";
import { realRandom } from "../../src/base/random.ts";
import { Secret } from "../../src/base/secret.ts";
import type { BackupSummary } from "../../src/cluster/backup-summary.ts";
import type { OperationContext, OperationKind } from "../../src/cluster/operations.ts";
import { Operations } from "../../src/cluster/operations.ts";
import type { JsonValue } from "../../src/cluster/protocol.ts";
import type { SiteStatus } from "../../src/cluster/site-status.ts";
import { createApp } from "../../src/server/app.ts";
import type { Config } from "../../src/server/config.ts";
import { parseConfig } from "../../src/server/config.ts";
import { silentLog } from "../../src/server/log.ts";
import { Metrics } from "../../src/server/metrics.ts";
import type { NodeApi, ServerContext } from "../../src/server/server-context.ts";

/** Tokens of the tests. */
export const TOKENS = {
  admin: "admin-token-0123456789",
  read: "read-token-0123456789",
  node: "node-token-0123456789",
} as const;

/** One backup, as `list` shows it. */
export const BACKUP: BackupSummary = {
  id: "ab".repeat(16),
  name: "nightly",
  cluster: "test",
  product: "files",
  started: "2026-01-01T00:00:00.000Z",
  ended: "2026-01-01T00:01:00.000Z",
  complete: true,
  degraded: false,
  nodes: ["a", "b"],
  files: 10,
  bytes: 1000,
  newBytes: 100,
  storedBytes: 50,
  problemCount: 0,
  pinned: false,
  keep: true,
  reasons: ["the newest complete one"],
  sequence: 7,
  site: "disk",
  sites: { disk: "acknowledged" },
};

/** The site that it is on. */
export const SITE: SiteStatus = {
  name: "disk",
  role: "primary",
  id: "ef".repeat(16),
  location: "file:/backup",
  configured: true,
  reachable: true,
  sequence: 7,
  backups: 1,
};

/** What a test may look at and change. */
export type FakeNode = {
  readonly api: NodeApi;
  readonly operations: Operations;
  /** Calls that came in, by method. */
  readonly calls: { readonly method: string; readonly request: unknown }[];
  /** What the next operations do; they end at once unless told. */
  work: (context: OperationContext) => Promise<JsonValue>;
  /** Thrown by the next start. */
  refusal: AppError | undefined;
  /** Why something else than the primary is read. */
  notice: string | undefined;
  /** What somebody should see to. */
  warnings: string[];
  /** As it is shown in lists of sites, and in the metrics. */
  site: SiteStatus;
  lease: { operation: string; kind: string } | undefined;
  handle: NodeApi["handle"];
  archive: NodeApi["archive"];
};

/** A node whose operations do what `work` says. */
export function createFakeNode(): FakeNode {
  const operations = new Operations({
    database: new Database(":memory:", { strict: true }),
    clock: realClock,
    random: realRandom,
    coordinator: "a",
  });
  const calls: FakeNode["calls"] = [];
  const start = (kind: OperationKind, request: unknown) => {
    calls.push({ method: kind, request });
    if (fake.refusal !== undefined) throw fake.refusal;
    return operations.start(kind, JSON.parse(JSON.stringify(request)) as JsonValue, (context) =>
      fake.work(context),
    );
  };
  const detail = { ...BACKUP, shares: [], problems: [], state: {} };
  const plan = { id: BACKUP.id, name: BACKUP.name, complete: true, degraded: false };
  const api: NodeApi = {
    operations,
    handle: (method, body, how) => fake.handle(method, body, how),
    startBackup: (request) => start("backup", request),
    startRestore: (request) => start("restore", request),
    startCleanup: (request) => start("cleanup", request),
    startVerify: (request) => start("verify", request),
    startScrub: (request) => start("scrub", { ...request }),
    startMark: (kind, request) => start(kind, request),
    startMigration: (request) => start("migrate", request),
    startRetirement: (request) => start("retire", request),
    planMigration: async (request) => {
      calls.push({ method: "plan", request });
      const site = (name: string) => ({ id: name, name, location: `memory:${name}` });
      return {
        from: site(request.from),
        to: site(request.to),
        switches: true,
        isSwitched: false,
        toRole: "mirror",
        isPartial: false,
        isWithinStore: false,
        backups: [{ id: BACKUP.id, name: BACKUP.name, state: "copy", packs: 3, bytes: 1000 }],
        copies: 1,
        present: 0,
        packs: 3,
        bytes: 1000,
        usage: [],
        nodes: [{ name: "a", helps: true }],
        refusals: [],
      };
    },
    startSync: (request) => start("sync", request ?? {}),
    startPromote: (request) => start("promote", request),
    startUpdateSites: () => start("update-sites", {}),
    listSites: async () => [fake.site],
    get notice() {
      return fake.notice;
    },
    get warnings() {
      return fake.warnings;
    },
    planRestore: async (request) => {
      calls.push({ method: "plan", request });
      const totals = {
        files: 10,
        bytes: 1000,
        filesToWrite: 4,
        bytesToWrite: 400,
        bytesToFetch: 300,
        filesKept: 6,
        extraFiles: 0,
      };
      return { backup: plan, nodes: [], refusals: [], totals };
    },
    listBackups: async () => [BACKUP],
    showBackup: async (wanted) => {
      if (wanted === "" || wanted === BACKUP.name || wanted === `backup-${BACKUP.name}`) {
        return detail;
      }
      throw new AppError("not-found", `There is no backup ${wanted}.`);
    },
    archive: (request, signal) => fake.archive(request, signal),
    status: async () => ({
      node: "a",
      cluster: "test",
      product: "files",
      version: "0.0.0",
      repository: "cd".repeat(16),
      site: { name: "disk", location: "file:/backup", id: "ef".repeat(16) },
      sequence: 7,
      backups: 1,
      running: operations.running(),
      recent: operations.list({ limit: 10 }),
      nodes: ["a", "b"].map((name) => ({
        name,
        address: `http://127.0.0.1:${name === "a" ? 5515 : 5516}`,
        zone: "",
        reachable: true,
        ...(fake.lease === undefined ? {} : { lease: fake.lease }),
      })),
    }),
  };
  const fake: FakeNode = {
    api,
    operations,
    calls,
    work: async () => ({ totals: { files: 10, bytes: 1000, newBytes: 100, storedBytes: 50 } }),
    refusal: undefined,
    notice: undefined,
    warnings: [],
    site: SITE,
    lease: undefined,
    archive: async () => {
      throw new AppError("not-found", "There is no backup to make an archive of.");
    },
    handle: async (method, body) => ({ method, echo: body as JsonValue }),
  };
  return fake;
}

/** A configuration for two nodes on this machine. */
export function createConfig(options: { readonly tokens?: boolean } = {}): Config {
  const config = parseConfig({
    text: JSON.stringify({
      cluster: "test",
      nodes: [
        { name: "a", address: "http://127.0.0.1:5515" },
        { name: "b", address: "http://127.0.0.1:5516" },
      ],
      data: "/var/lib/astacus/{node}",
      product: { type: "files", root: "/srv/{node}" },
      sites: [{ name: "disk", type: "directory", path: "/backup" }],
      retention: { minimum: 2, keepDays: 3 },
    }),
    fileName: "/etc/astacus.conf",
    nodeName: "a",
    environment: {},
    readFile: () => "",
    hostName: "a",
  });
  if (options.tokens !== true) return config;
  const { admin, read, node } = TOKENS;
  return {
    ...config,
    tokens: { admin: new Secret(admin), read: new Secret(read), node: new Secret(node) },
  };
}

/** The application over a fake node, as a function from request to response. */
export function createTestServer(
  options: { readonly tokens?: boolean; readonly config?: Config } = {},
): {
  readonly fake: FakeNode;
  readonly context: ServerContext;
  readonly metrics: Metrics;
  readonly ask: (method: string, path: string, more?: AskOptions) => Promise<Response>;
} {
  const fake = createFakeNode();
  const config = options.config ?? createConfig(options);
  const metrics = new Metrics(
    {
      now: () => Date.parse("2026-01-01T01:00:00Z"),
      isReady: () => true,
      running: () => fake.operations.running(),
      sites: () => [
        {
          name: "disk",
          requests: { get: 3, put: 2, head: 1, delete: 0, list: 0 },
          bytesRead: 10,
          bytesWritten: 20,
        },
      ],
      places: () => [fake.site],
      backups: () => ({
        count: 1,
        newestEndedMs: Date.parse(BACKUP.ended),
        isNewestDegraded: BACKUP.degraded,
      }),
    },
    "0.0.0",
  );
  const context: ServerContext = {
    version: "0.0.0",
    clock: realClock,
    log: silentLog,
    config: () => config,
    node: () => fake.api,
    readiness: () => ({ ready: true }),
    start: (begin) => begin(fake.api),
    metrics: async () => await metrics.render(),
    reload: async () => {},
    whenApplied: async () => ({ node: "open" }),
    hashOnDisk: async () => config.hash,
  };
  const app = createApp(context);
  const ask = async (method: string, path: string, more: AskOptions = {}): Promise<Response> => {
    const headers: Record<string, string> = { host: "localhost:5515", ...more.headers };
    if (more.token !== undefined) headers["authorization"] = `Bearer ${more.token}`;
    return await app.fetch(
      new Request(`http://localhost:5515${path}`, {
        method,
        headers,
        ...(more.body === undefined ? {} : { body: JSON.stringify(more.body) }),
        ...(more.text === undefined ? {} : { body: more.text }),
      }),
      {},
    );
  };
  return { fake, context, metrics, ask };
}

/** Beside method and path. */
export type AskOptions = {
  readonly body?: unknown;
  readonly text?: string;
  readonly token?: string;
  readonly headers?: Readonly<Record<string, string>>;
};
