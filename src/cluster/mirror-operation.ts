/**
 * What mirrors get of a backup: at its start they are announced with the births under which packs may
 * be sent to them; after its commit they are brought what they lack, which is also all that `sync`
 * does. No mirror ever fails a backup: what it still lacks is said, and comes with the next one.
 */
import type { AppErrorJson } from "../base/error.ts";
import { AppError, toAppError } from "../base/error.ts";
import { forEachConcurrent } from "../base/semaphore.ts";
import type { CopyProgress, CopyReport } from "../cas/copy/copy-backups.ts";
import { copyBackups, forgottenForAll } from "../cas/copy/copy-backups.ts";
import type { CoordinatorParts } from "./coordinator-parts.ts";
import type { OperationContext } from "./operations.ts";
import type { LeaseMirror } from "./protocol.ts";
import type { OpenSite, SiteView } from "./site-views.ts";
import type { SiteLag } from "./site-wants.ts";
import { lackingAt, lagOf } from "./site-wants.ts";

/** What became of one mirror. */
export type MirrorReport = {
  readonly site: string;
  /** `acknowledged`: it has every backup that it wants. */
  readonly state: "acknowledged" | "lagging";
  /** Backups that it lists now, and did not before. */
  readonly copied: number;
  /** Packs and bytes that lie there now, those that nodes have sent included. */
  readonly packs: number;
  readonly bytes: number;
  /** Of the packs: those that nodes had sent already. */
  readonly packsSent: number;
  /** What it still lacks. */
  readonly lag: SiteLag;
  readonly error?: AppErrorJson;
};

/** The parts that copying between sites needs. */
type SyncParts = Pick<CoordinatorParts, "sites" | "site" | "config">;

/** The primary was found by a look at all sites; what that saw of mirrors is new enough. */
const MIRROR_LOOK_MS = 10_000;
/** Mirrors that are copied to at once. */
const MIRRORS_AT_ONCE = 2;

/** The mirrors that answer now, and the births of what is sent to them. */
export async function announceMirrors(
  { sites, site }: Pick<SyncParts, "sites" | "site">,
  signal: AbortSignal,
): Promise<LeaseMirror[]> {
  const now = await sites.look(signal, { maxAgeMs: MIRROR_LOOK_MS });
  return now.sites.flatMap(({ role, open, name }) =>
    role !== "mirror" || open === undefined || open.id === site.id
      ? []
      : [{ site: open.id, name, birth: open.repository.state.sequence }],
  );
}

/**
 * Brings every mirror (or those named) what it lacks, and the primary what landed elsewhere. Never
 * throws for what a site does: it is in the report.
 */
export async function syncMirrors(
  parts: SyncParts,
  context: OperationContext,
  options: {
    readonly names?: readonly string[];
    /** Under which births nodes have sent packs. */
    readonly announced?: readonly LeaseMirror[];
  } = {},
): Promise<MirrorReport[]> {
  const { sites } = parts;
  const { names, announced = [] } = options;
  const now = await sites.look(context.signal);
  // The roles may have changed since the operation began: then its site is a mirror by now.
  const site = now.sites.find(({ role }) => role === "primary")?.open ?? parts.site;
  const mirrors = now.sites.filter(({ role, name, id }) => {
    return role === "mirror" && id !== site.id && (names === undefined || names.includes(name));
  });
  if (mirrors.length === 0) return [];
  context.progress({ phase: "mirrors" });
  const reports = new Map<string, MirrorReport>();
  await forEachConcurrent(mirrors, MIRRORS_AT_ONCE, async (mirror) => {
    const sentUnder = announced.find((one) => one.site === mirror.id)?.birth;
    reports.set(mirror.name, await syncOne({ ...parts, site }, context, { mirror, sentUnder }));
  });
  return mirrors.flatMap(({ name }) => reports.get(name) ?? []);
}

/** Copies what `to` lacks of `from`; undefined if it lacks nothing. */
export async function copyLacking(
  parts: SyncParts,
  context: Pick<OperationContext, "id" | "signal">,
  how: {
    readonly from: OpenSite;
    readonly to: Pick<SiteView, "open" | "retention"> & { readonly open: OpenSite };
    readonly sentUnder?: number | undefined;
    readonly onProgress?: (progress: CopyProgress) => void;
  },
): Promise<CopyReport | undefined> {
  const { from, to, sentUnder, onProgress } = how;
  const { backup, retention } = parts.config;
  const [source, target] = [from.repository.state, to.open.repository.state];
  const backups = lackingAt(source, target, to.retention ?? retention).map((one) => one.backup);
  if (backups.length === 0 && forgottenForAll(source, target).length === 0) return undefined;
  return await copyBackups(sideOf(from), sideOf(to.open), {
    backups,
    override: "site",
    operation: context.id,
    concurrency: backup.uploadsMax,
    readBack: false,
    keepEveryBytes: backup.keepEveryBytes,
    ...(sentUnder === undefined ? {} : { sentUnder }),
    ...(onProgress === undefined ? {} : { onProgress }),
    signal: context.signal,
  });
}

/** A site as a side of a copy. */
export function sideOf({ repository, openSource }: OpenSite) {
  return { repository, source: openSource() };
}

async function syncOne(
  parts: SyncParts,
  context: OperationContext,
  how: { readonly mirror: SiteView; readonly sentUnder: number | undefined },
): Promise<MirrorReport> {
  const { mirror, sentUnder } = how;
  const { open, name } = mirror;
  let report: CopyReport | undefined;
  let error = mirror.error;
  if (open !== undefined) {
    try {
      await bringBack(parts, context, open);
      const onProgress = ({ backup, backupsDone, backupsTotal, bytes }: CopyProgress): void => {
        const of = `${backupsDone + 1} of ${backupsTotal}`;
        context.progress({
          message: `${name}: backup ${backup.name} (${of}), ${bytes} bytes`,
        });
      };
      const to = { ...mirror, open };
      const from = parts.site;
      report = await copyLacking(parts, context, { from, to, sentUnder, onProgress });
      const failed = report?.backups.find(({ state }) => state === "failed");
      if (failed?.error !== undefined) {
        error = new AppError(failed.error.kind, `${failed.name}: ${failed.error.message}`);
      }
    } catch (thrown) {
      error = toAppError(thrown);
    }
  }
  const lag = lagNow(parts, mirror);
  if (error !== undefined) context.say(`Mirror ${name} lags: ${error.message}`);
  const isBehind = lag.backups > 0 || open === undefined;
  return {
    site: name,
    state: isBehind ? "lagging" : "acknowledged",
    copied: report?.backups.filter(({ state }) => state === "copied").length ?? 0,
    packs: report?.packs ?? 0,
    bytes: report?.bytes ?? 0,
    packsSent: report?.packsFound ?? 0,
    lag,
    ...(error === undefined ? {} : { error: error.toJSON() }),
  };
}

/** What landed on a mirror while the primary was away, or was another one, is copied over. */
async function bringBack(
  parts: SyncParts,
  context: OperationContext,
  mirror: OpenSite,
): Promise<void> {
  const { sites, site } = parts;
  const retention = sites.last?.sites.find(({ id }) => id === site.id)?.retention;
  await copyLacking(parts, context, { from: mirror, to: { open: site, retention } });
}

/** What a mirror lacks as far as this node knows it; one that was never read lacks everything. */
function lagNow(parts: SyncParts, mirror: SiteView): SiteLag {
  const { sites, site, config } = parts;
  const { state } = site.repository;
  const there = sites.stateOf(mirror);
  const policy = mirror.retention ?? config.retention;
  return lagOf(there === undefined ? [...state.backups.values()] : lackingAt(state, there, policy));
}
