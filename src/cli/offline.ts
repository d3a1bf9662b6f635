/**
 * Commands without a server: opens the site of a configuration file with a temporary catalog, and
 * removes that again.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { realClock } from "../base/clock.ts";
import { realDatabases } from "../base/databases.ts";
import { AppError } from "../base/error.ts";
import { realFileSystem } from "../base/file-system.ts";
import { pathFromText } from "../base/path.ts";
import { realRandom } from "../base/random.ts";
import { openWorkerLanes } from "../cas/read/restore-lanes.ts";
import { mayBeElsewhere } from "../cas/read/failover.ts";
import { openOffline } from "../cluster/offline.ts";
import type { Offline } from "../cluster/offline.ts";
import type { OtherSite } from "../cluster/offline-sites.ts";
import { notThePrimary } from "../cluster/site-views.ts";
import type { Site } from "../sites/site.ts";
import { openSite } from "../server/open-site.ts";
import type { SharedConfig } from "../server/config.ts";
import type { CommandRun } from "./command.ts";
import { loadEncryption } from "./identities.ts";
import { loadSharedConfig } from "./load-config.ts";

/** The doors that reading a site takes. */
export const OFFLINE_DOORS = {
  clock: realClock,
  random: realRandom,
  files: realFileSystem,
  databases: realDatabases,
};

/** What a command without a server knows besides. */
export type OfflineHow = {
  readonly config: SharedConfig;
  /** Why it is not the primary that is read. */
  readonly notice: string | undefined;
};

/** Runs `work` over the primary site of the file, or the first that answers; Ctrl-C ends it. */
export async function withOffline<T>(
  run: CommandRun,
  work: (offline: Offline, how: OfflineHow) => Promise<T>,
): Promise<T> {
  const config = loadSharedConfig(run.options.config ?? "");
  const stop = new AbortController();
  const interrupt = (): void =>
    stop.abort(new AppError("cancelled", "Cancelled; run it again to go on."));
  process.once("SIGINT", interrupt);
  const tempFolder = mkdtempSync(join(tmpdir(), "astacus-"));
  try {
    await using sites = new AsyncDisposableStack();
    const all = config.sites.map((site): OtherSite => ({
      name: site.name,
      open: async () => sites.use((await openSite(site, OFFLINE_DOORS)).site),
    }));
    const options = {
      doors: OFFLINE_DOORS,
      cluster: config.cluster,
      retention: config.retention,
      concurrency: config.restore.concurrency,
      openLanes: openWorkerLanes,
      encryption: await loadEncryption(run, config),
      signal: stop.signal,
    };
    const { reader, notice } = await openFirst(run, all, async (site, others) => {
      const folder = mkdtempSync(join(tempFolder, "site-"));
      return await openOffline({ ...options, site, others, tempFolder: pathFromText(folder) });
    });
    using offline = reader;
    return await work(offline, { config, notice });
  } finally {
    process.off("SIGINT", interrupt);
    rmSync(tempFolder, { recursive: true, force: true });
  }
}

/** What reads one site, and knows which is the primary if that is another one. */
export type SiteReader = Disposable & {
  readonly role: string;
  readonly primaryElsewhere: string | undefined;
};

/**
 * Opens the primary, as the log says, or the first site that answers. What could not be used is said,
 * and if it is not the primary that is read, the notice says why.
 */
export async function openFirst<Reader extends SiteReader>(
  run: CommandRun,
  sites: readonly OtherSite[],
  open: (site: Site, others: readonly OtherSite[]) => Promise<Reader>,
): Promise<{ readonly reader: Reader; readonly notice: string | undefined }> {
  const failures = new Map<string, AppError>();
  const tryOne = async (one: OtherSite): Promise<Reader | undefined> => {
    try {
      const others = sites.filter((other) => other !== one);
      return await open(await one.open(), others);
    } catch (thrown) {
      if (!mayBeElsewhere(thrown)) throw thrown;
      failures.set(one.name, thrown);
      return undefined;
    }
  };
  for (const one of sites) {
    const first = await tryOne(one);
    if (first === undefined) continue;
    const primary = sites.find(({ name }) => name === first.primaryElsewhere);
    const isTried = primary === undefined || failures.has(primary.name);
    const better = isTried ? undefined : await tryOne(primary);
    if (better !== undefined) first[Symbol.dispose]();
    const reader = better ?? first;
    const notice = noticeOf(reader, one.name, { failures, first: sites[0]?.name });
    for (const [name, { message }] of failures) {
      if (notice === undefined) run.terminal.say(`NOTICE Site ${name} does not answer: ${message}`);
    }
    if (notice !== undefined) run.terminal.say(`NOTICE ${notice}`);
    return { reader, notice };
  }
  const [failure] = failures.values();
  throw failure ?? new AppError("config", "The configuration names no site.");
}

/** Undefined if it is the primary that is read, as far as anybody has said which that is. */
function noticeOf(
  reader: SiteReader,
  site: string,
  how: { readonly failures: ReadonlyMap<string, AppError>; readonly first: string | undefined },
): string | undefined {
  const { role } = reader;
  // Nobody has entered roles yet: the first site is the primary.
  const isFirst = role === "site" && how.first !== site;
  const primary = reader.primaryElsewhere ?? (isFirst ? how.first : undefined);
  if (primary === undefined) return undefined;
  const why = how.failures.get(primary)?.message ?? "the configuration does not name it.";
  return notThePrimary(primary, { why, role, site });
}
