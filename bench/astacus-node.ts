/**
 * Astacus as the benchmark runs it: one process that opens a cluster of one node, does one thing and
 * ends, so that starting is counted as it is for other tools. The same code path as in a server, only
 * without HTTP between: real disk, real directory site, workers. Prints one line of JSON.
 *
 *     bun bench/astacus-node.ts backup '{"source": "…", "repository": "…", "home": "…", "name": "1"}'
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { realClock } from "../src/base/clock.ts";
import { realDatabases } from "../src/base/databases.ts";
import type { Doors, FileSystem, Network } from "../src/base/doors.ts";
import { realFileSystem } from "../src/base/file-system.ts";
import { guardMemory } from "../src/base/memory-guard.ts";
import { realOutside } from "../src/base/outside.ts";
import { pathFromText } from "../src/base/path.ts";
import { realRandom } from "../src/base/random.ts";
import { BACKUP_SETTINGS_DEFAULT } from "../src/cas/write/backup-settings.ts";
import type { ChunkerSettings } from "../src/cas/format/chunker.ts";
import { openWorkerLanes } from "../src/cas/read/restore-lanes.ts";
import { decodeFrameAside } from "../src/cas/format/frame-decoder.ts";
import { openPlane } from "../src/cas/write/plane.ts";
import { Repository } from "../src/cas/log/repository.ts";
import type { MemberConfig } from "../src/cluster/member-config.ts";
import { Member } from "../src/cluster/member.ts";
import type { OperationRecord } from "../src/cluster/operations.ts";
import { createFilesProduct } from "../src/products/files.ts";
import { countRequests } from "../src/sites/counting-site.ts";
import type { CountingSite } from "../src/sites/counting-site.ts";
import { makeDirectorySite, openDirectorySite } from "../src/sites/directory-site.ts";

const optionsSchema = z.strictObject({
  source: z.string(),
  repository: z.string(),
  home: z.string(),
  /** Of the backup to make, or to restore. */
  name: z.string().optional(),
  target: z.string().optional(),
  /** Globs of what to restore. */
  paths: z.array(z.string()).optional(),
  drop: z.array(z.string()).optional(),
  immutable: z.array(z.string()).optional(),
  appendOnly: z.array(z.string()).optional(),
  averageSizeBytes: z.number().default(256 * 1024),
  workers: z.number().default(BACKUP_SETTINGS_DEFAULT.workers),
});

/** What the process is asked for. */
export type AstacusNodeOptions = z.input<typeof optionsSchema>;

/** What it prints. */
export type AstacusNodeAnswer = {
  readonly requests: Readonly<Record<string, number>>;
  readonly siteBytesRead: number;
  readonly siteBytesWritten: number;
  readonly peakBytes: number;
  readonly result: unknown;
};

type Settings = z.output<typeof optionsSchema>;

const NODE = "node1";
/** Space comes back when what was retired is not touched by the next cleanup but one. */
const CLEANUP_COUNT = 3;

if (import.meta.main) {
  const [command = "", json = "{}"] = process.argv.slice(2);
  const answer = await runAstacus(command, JSON.parse(json));
  console.log(JSON.stringify(answer));
}

/** Does one thing; the source may lie in another file system than the real one. */
export async function runAstacus(
  command: string,
  options: unknown,
  files: FileSystem = realFileSystem,
): Promise<AstacusNodeAnswer> {
  const settings = optionsSchema.parse(options);
  mkdirSync(settings.home, { recursive: true });
  if (command === "init") await makeDirectorySite({ name: "bench", path: settings.repository });
  const path = settings.repository;
  await using site = countRequests(await openDirectorySite({ name: "bench", path }));
  const result =
    command === "init"
      ? await init(site, settings)
      : await runMember(command, { site, settings, files });
  return {
    requests: site.requests,
    siteBytesRead: site.bytesRead,
    siteBytesWritten: site.bytesWritten,
    peakBytes: process.resourceUsage().maxRSS * 1024,
    result,
  };
}

async function init(site: CountingSite, settings: Settings): Promise<unknown> {
  const chunker = { rule: "astacus-cdc-1", averageSizeBytes: settings.averageSizeBytes } as const;
  return Repository.init(site, {
    doors: openDoors(realFileSystem, mustNotCall),
    chunker,
    node: NODE,
  });
}

async function runMember(
  command: string,
  {
    site,
    settings,
    files,
  }: { readonly site: CountingSite; readonly settings: Settings; readonly files: FileSystem },
): Promise<unknown> {
  const config = configOf(settings);
  // A member calls itself as it calls others.
  let member: Member | undefined = undefined;
  const doors = openDoors(files, async (_address, method, body, options) => {
    const signal = options.signal ?? AbortSignal.timeout(options.timeoutMs);
    const emit = options.onEvent ?? (() => undefined);
    return member?.handle(method, body, { signal, emit });
  });
  const end = new AbortController();
  using _ = { [Symbol.dispose]: () => end.abort() };
  void guardMemory(end.signal);
  await using opened = await Member.open({
    config,
    doors,
    sites: [{ name: site.name, firstRole: "primary", open: async () => site }],
    product: createFilesProduct({
      type: "files",
      root: pathFromText(settings.target ?? settings.source),
      volume: "root",
      unreadable: "fail",
      ...(settings.immutable === undefined ? {} : { immutable: settings.immutable }),
      ...(settings.appendOnly === undefined ? {} : { appendOnly: settings.appendOnly }),
    }),
    version: "0.0.0",
    decode: decodeFrameAside,
    openLanes: openWorkerLanes,
    openPlane: () => openPlane(doors, chunkerOf(opened.repository), config.backup),
  });
  member = opened;
  return await act(command, opened, settings);
}

async function act(command: string, member: Member, settings: Settings): Promise<unknown> {
  const { name, paths } = settings;
  switch (command) {
    case "backup":
      return ended(member, member.startBackup(name === undefined ? {} : { name }));
    case "restore":
      return ended(
        member,
        member.startRestore({
          ...(name === undefined ? {} : { backup: name }),
          ...(paths === undefined ? {} : { paths }),
        }),
      );
    case "list":
      return (await member.listBackups()).length;
    case "drop":
      return drop(member, settings.drop ?? []);
    default:
      throw new Error(`There is no command ${command}: init, backup, restore, list, drop`);
  }
}

async function drop(member: Member, backups: readonly string[]): Promise<unknown> {
  await ended(member, member.startMark("delete", { backups }));
  const results: unknown[] = [];
  for (let count = 0; count < CLEANUP_COUNT; count += 1) {
    results.push(await ended(member, member.startCleanup({ undoWindowMs: 0 })));
  }
  return results;
}

/** Waits for the end of an operation; throws what it failed with. */
async function ended(member: Member, started: OperationRecord): Promise<unknown> {
  for await (const event of member.operations.watch(started.id, new AbortController().signal)) {
    if (event.type !== "end") continue;
    const { state, error, result } = event.record;
    if (state === "done") return result;
    throw new Error(`${started.kind} ${state}: ${error?.message ?? ""} ${error?.guidance ?? ""}`);
  }
  throw new Error(`${started.kind} did not end`);
}

function configOf(settings: Settings): MemberConfig {
  const home = pathFromText(settings.home);
  return {
    cluster: "bench",
    node: NODE,
    nodes: [{ name: NODE, address: "http://127.0.0.1:5515", zone: "" }],
    dataFolder: home,
    scratchFolder: pathFromText(join(settings.home, "scratch")),
    backup: {
      ...BACKUP_SETTINGS_DEFAULT,
      workers: settings.workers,
      attempts: 1,
      degraded: false,
      minimumFreeSpaceBytes: 0,
    },
    restore: { owner: "recorded", concurrency: 4 },
    retention: { minimum: 0, keepLast: 1000 },
    undoWindowMs: 0,
    leaseTimeMs: 60_000,
    nodePatienceMs: 60_000,
  };
}

/** The rule in the header is a name that a newer version may have coined. */
function chunkerOf(repository: Repository): ChunkerSettings {
  const { rule, averageSizeBytes } = repository.header.chunker;
  if (rule !== "astacus-cdc-1") throw new Error(`The chunker ${rule} is not known here`);
  return { rule, averageSizeBytes };
}

function openDoors(files: FileSystem, call: Network["call"]): Doors {
  return {
    clock: realClock,
    random: realRandom,
    files,
    databases: realDatabases,
    network: { call },
    outside: realOutside,
  };
}

function mustNotCall(): Promise<never> {
  throw new Error("A new repository calls nobody");
}
