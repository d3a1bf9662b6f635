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
import { openOffline } from "../cluster/offline.ts";
import type { Offline } from "../cluster/offline.ts";
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

/** Runs `work` over the primary site of the file; Ctrl-C ends it. */
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
    const { site } = await openSite(config.sites[0], OFFLINE_DOORS);
    await using _ = site;
    using offline = await openOffline({
      site,
      doors: OFFLINE_DOORS,
      tempFolder: pathFromText(tempFolder),
      cluster: config.cluster,
      retention: config.retention,
      concurrency: config.restore.concurrency,
      openLanes: openWorkerLanes,
      encryption: await loadEncryption(run, config),
      signal: stop.signal,
    });
    return await work(offline, config);
  } finally {
    process.off("SIGINT", interrupt);
    rmSync(tempFolder, { recursive: true, force: true });
  }
}
