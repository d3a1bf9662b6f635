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

/** Runs `work` over the primary site of the file, or the first that answers; Ctrl-C ends it. */
export async function withOffline<T>(
  run: CommandRun,
  work: (offline: Offline, config: SharedConfig) => Promise<T>,
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
    using offline = await openFirst(run, all, async (site, others) => {
      const folder = mkdtempSync(join(tempFolder, "site-"));
      return await openOffline({ ...options, site, others, tempFolder: pathFromText(folder) });
    });
    return await work(offline, config);
  } finally {
    process.off("SIGINT", interrupt);
    rmSync(tempFolder, { recursive: true, force: true });
  }
}

/** What reads one site, and knows which is the primary if that is another one. */
type SiteReader = Disposable & { readonly primaryElsewhere: string | undefined };

/** Opens the primary, as the log says, or the first site that answers, and then says so. */
export async function openFirst<Reader extends SiteReader>(
  run: CommandRun,
  sites: readonly OtherSite[],
  open: (site: Site, others: readonly OtherSite[]) => Promise<Reader>,
): Promise<Reader> {
  const openOne = async (one: OtherSite): Promise<Reader> =>
    await open(
      await one.open(),
      sites.filter((other) => other !== one),
    );
  const failures: AppError[] = [];
  for (const one of sites) {
    try {
      const offline = await openOne(one);
      const name = offline.primaryElsewhere;
      const primary = sites.find((other) => other.name === name);
      const isTried = sites.indexOf(one) > sites.findIndex((other) => other === primary);
      if (primary !== undefined && !isTried) {
        const better = await openOne(primary).catch((thrown: unknown) => {
          if (!mayBeElsewhere(thrown)) throw thrown;
          failures.push(thrown);
          return undefined;
        });
        if (better !== undefined) {
          offline[Symbol.dispose]();
          return better;
        }
      }
      for (const { message } of failures) run.terminal.say(`NOTICE ${message}`);
      if (failures.length > 0) run.terminal.say(`NOTICE This is what site ${one.name} has.`);
      return offline;
    } catch (thrown) {
      if (!mayBeElsewhere(thrown)) throw thrown;
      failures.push(thrown);
    }
  }
  throw failures[0] ?? new AppError("config", "The configuration names no site.");
}
