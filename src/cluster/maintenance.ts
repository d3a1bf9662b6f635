/**
 * Operations that lease nobody: cleanup, and marks on backups. They work on the repository alone and
 * may run beside anything.
 */
import type { AppErrorJson } from "../base/error.ts";
import { AppError, toAppError } from "../base/error.ts";
import { dropPin, forgetBackups, pinBackup, undoForget } from "../cas/clean/backup-marks.ts";
import type { CleanupReport } from "../cas/clean/cleanup.ts";
import { planCleanup, runCleanup } from "../cas/clean/cleanup.ts";
import { findBackup } from "../cas/log/find-backup.ts";
import type { ForgetRef } from "../cas/log/entry.ts";
import type { RetentionPolicy } from "../cas/clean/retention.ts";
import type { CoordinatorParts } from "./coordinator-parts.ts";
import type { OperationContext } from "./operations.ts";
import type { JsonValue } from "./protocol.ts";
import { renewalUsage } from "./site-locks.ts";
import type { OpenSite, SiteView } from "./site-views.ts";
import { heldFor } from "./site-wants.ts";
import { withSoundIndex } from "./sound-index.ts";
import type { SiteUsage } from "./usage.ts";
import { priceUsages } from "./usage.ts";

/** How a cleanup may be asked for. */
export type CleanupRequest = {
  /** In place of the configured retention. */
  readonly retention?: RetentionPolicy;
  readonly dryRun?: boolean;
  /** Also LIST the site for garbage that no entry speaks of. */
  readonly sweep?: boolean;
  /** In place of the configured undo window. */
  readonly undoWindowMs?: number;
};

/** Operations that are known to have ended: what they held may go. */
export type EndedOperations = {
  readonly operations: ReadonlySet<string>;
  /** Of these, those that pinned a backup for as long as they ran; people's pins stay. */
  readonly restores: ReadonlySet<string>;
};

/** What a cleanup did at one site, or why it did nothing there. */
export type SiteCleanup = {
  readonly site: string;
  readonly role: string;
  readonly report?: CleanupReport;
  /** Of a plan: what it would ask of a site that locks to renew the locks, with money where prices are. */
  readonly lockRenewal?: SiteUsage;
  readonly error?: AppErrorJson;
};

/**
 * Plans a cleanup and, unless it is a dry run, does it: on the primary, then on every mirror, each by
 * its own retention. Archives and closed sites are left alone. The report is the primary's, with those
 * of all under `sites`; a mirror that fails costs the others nothing.
 */
export async function runCleanupOperation(
  parts: CoordinatorParts,
  context: OperationContext,
  request: CleanupRequest,
  ended: EndedOperations,
): Promise<JsonValue> {
  const views = (await parts.sites.look(context.signal)).sites;
  const all: SiteCleanup[] = [];
  const own = views.find(({ id }) => id === parts.site.id);
  if (own?.open === undefined) throw own?.error ?? new AppError("unavailable", "No primary.");
  const report = await cleanSite(parts, context, { request, ended, view: own, views });
  all.push(rowOf(parts, { site: own.name, role: "primary", report }));
  for (const view of views) {
    const { name, role, open, error } = view;
    if (role !== "mirror" || view === own) continue;
    try {
      if (open === undefined) throw error ?? new AppError("unavailable", "It was not asked.");
      const one = await cleanSite(parts, context, { request, ended, view, views });
      all.push(rowOf(parts, { site: name, role, report: one }));
    } catch (thrown) {
      context.signal.throwIfAborted();
      all.push({ site: name, role, error: toAppError(thrown).toJSON() });
    }
  }
  return { ...report, sites: all } as unknown as JsonValue;
}

/** With what the renewal of locks in a plan comes to; what was done is in the operation's usage. */
function rowOf(
  { sites }: CoordinatorParts,
  row: SiteCleanup & { readonly report: CleanupReport },
): SiteCleanup {
  const { isDryRun, locks } = row.report;
  if (!isDryRun || locks === undefined) return row;
  const [lockRenewal] = priceUsages([renewalUsage(row.site, locks.requests)], sites.configured);
  return lockRenewal === undefined ? row : { ...row, lockRenewal };
}

async function cleanSite(
  parts: CoordinatorParts,
  context: OperationContext,
  how: {
    readonly request: CleanupRequest;
    readonly ended: EndedOperations;
    readonly view: SiteView;
    readonly views: readonly SiteView[];
  },
): Promise<CleanupReport> {
  const { config, doors } = parts;
  const { request, ended, view, views } = how;
  const { open } = view;
  if (open === undefined) throw new AppError("internal", `Site ${view.name} is not open.`);
  const { repository } = open;
  const phase = (step: string): string => (views.length === 1 ? step : `${step} (${view.name})`);
  context.progress({ phase: phase("plan") });
  const options = {
    repository,
    policy: request.retention ?? view.retention ?? config.retention,
    heldFor: heldFor(view, views, request.retention ?? config.retention),
    undoWindowMs: request.undoWindowMs ?? config.undoWindowMs,
    keepSilentMs: config.undoWindowMs,
    endedOperations: ended.operations,
    endedPins: ended.restores,
    now: doors.clock.now(),
    operation: context.id,
    sweep: request.sweep ?? false,
    signal: context.signal,
  };
  return await withSoundIndex(repository, context.signal, async () => {
    const source = open.openSource();
    if (request.dryRun === true) return await planCleanup({ ...options, source });
    const onStep = (step: string): void => {
      context.progress({ phase: phase(step) });
    };
    const report = await runCleanup({ ...options, source, onStep });
    if (report.locks !== undefined) parts.sites.locks.note(open, report.locks.untilMs);
    // A list that could not be read held everything back; the next cleanup looks with fresh eyes.
    if (report.alarms.length > 0) await repository.rebuildIndex(context.signal);
    return report;
  });
}

/** What a mark became at a mirror: what it lacks of it comes with the next sync, or by hand. */
export type MarkedSite = { readonly site: string; readonly error?: AppErrorJson };

type MarkKind = "delete" | "undelete" | "pin" | "unpin";

type MarkRequest = { readonly backups: readonly string[]; readonly reason?: string };

/**
 * Forgets, brings back, pins or unpins backups, all or none found by name first: on the primary, then
 * on every mirror that has them. What a mirror does not do is told and fails nothing.
 */
export async function runMarkOperation(
  parts: CoordinatorParts,
  context: OperationContext,
  kind: MarkKind,
  request: MarkRequest,
): Promise<JsonValue> {
  const { repository, config } = parts;
  if (request.backups.length === 0 || request.backups.includes("")) {
    throw new AppError("usage", "No backup was named.", {
      guidance: "Name one or more; `astacus list` shows them.",
    });
  }
  const state = await repository.catchUp(context.signal);
  const found = request.backups.map((wanted) =>
    findBackup(state, wanted, config.cluster, { forgotten: kind === "undelete" || kind === "pin" }),
  );
  const ids = found.map(({ backup }) => backup);
  await markAt(parts.site, context, { kind, ids, reason: request.reason });
  // What is forgotten at a mirror is so by the entry of the primary: an undo of that one undoes both.
  const here = repository.state.backups;
  const sites: MarkedSite[] = [];
  for (const { role, open, name, error } of parts.sites.last?.sites ?? []) {
    if (role !== "mirror" || open?.id === parts.site.id) continue;
    try {
      if (open === undefined) throw error ?? new AppError("unavailable", "It was not asked.");
      const there = (await open.repository.catchUp(context.signal)).backups;
      const known = ids.filter((id) => there.has(id));
      const originOf = (id: string): ForgetRef | undefined => here.get(id)?.forgotten?.origin;
      await markAt(open, context, { kind, ids: known, reason: request.reason, originOf });
      sites.push({ site: name });
    } catch (thrown) {
      context.signal.throwIfAborted();
      context.say(`${name}: ${toAppError(thrown).message}`);
      sites.push({ site: name, error: toAppError(thrown).toJSON() });
    }
  }
  const backups = found.map((backup) => ({ id: backup.backup, name: backup.name }));
  return { backups, ...(sites.length === 0 ? {} : { sites }) };
}

async function markAt(
  { repository, openSource }: OpenSite,
  context: OperationContext,
  mark: {
    readonly kind: MarkKind;
    readonly ids: readonly string[];
    readonly reason: string | undefined;
    /** At a mirror: the forget of the primary. */
    readonly originOf?: (id: string) => ForgetRef | undefined;
  },
): Promise<void> {
  const { kind, ids, reason, originOf } = mark;
  const { signal } = context;
  const common = { operation: context.id, signal };
  if (ids.length === 0) return;
  if (kind === "delete") {
    const why = reason ?? "deleted by name";
    const byOrigin = Map.groupBy(ids, (id) => JSON.stringify(originOf?.(id)));
    for (const backups of byOrigin.values()) {
      const origin = originOf?.(backups[0] ?? "");
      await forgetBackups(repository, { backups, reason: why, scope: "all", origin, ...common });
    }
    return;
  }
  for (const backup of ids) {
    if (kind === "undelete") {
      await withSoundIndex(repository, signal, () =>
        undoForget(repository, openSource, { backup, ...common }),
      );
    } else if (kind === "pin") {
      const pin = { backup, pin: context.id, reason: reason ?? "pinned by name", ...common };
      await withSoundIndex(repository, signal, () => pinBackup(repository, openSource, pin));
    } else {
      const pins = [...repository.state.pins].filter(([, pin]) => pin.backup === backup);
      for (const [pin] of pins) await dropPin(repository, { pin, ...common });
    }
  }
}
