/**
 * What a cleanup wants, as pure functions of the state and the policy: which backups to forget, which
 * keeps and pins have outlived their operations, what has been retired for long enough, where the
 * floor goes. Windows and ages are policy and count from the newest complete backup; what keeps data
 * safe is decided elsewhere, from what is in use at the entry of the log that commits it.
 */
import { DAY_MS, formatDuration } from "../../base/units.ts";
import type { RetentionBackup, RetentionPolicy } from "./retention.ts";
import { planRetention } from "./retention.ts";
import type { BackupRecord, RepositoryState } from "../log/state.ts";
import { listedBackups, newestComplete } from "../log/state.ts";

/** The policy of a cleanup. */
export type CleanupPolicy = {
  readonly policy: RetentionPolicy;
  /** How long what was forgotten can be brought back; 0 gives space back after two more runs. */
  readonly undoWindowMs: number;
  /** A keep whose operation has said nothing for this long is dropped. */
  readonly keepSilentMs: number;
  /** Operations known to have ended: their keeps are dropped. */
  readonly endedOperations?: ReadonlySet<string>;
  /** Pins whose operations are known to have ended. */
  readonly endedPins?: ReadonlySet<string>;
  /** Why a backup that the policy drops must stay all the same: another site is to get it first. */
  readonly heldFor?: ((backup: string) => string | undefined) | undefined;
  /** This machine's clock. */
  readonly now: number;
  /** The site's clock, where it tells. */
  readonly siteTime?: number;
};

/** A backup that policy drops. */
export type ForgetRow = {
  readonly id: string;
  readonly name: string;
  readonly reasons: readonly string[];
};

/** A keep or pin that has no use any more. */
export type DropRow = {
  readonly kind: "keep" | "pin";
  readonly name: string;
  readonly reason: string;
};

/** What is old enough to be deleted, before anybody has looked at who uses it. */
export type Expired = {
  readonly packs: readonly string[];
  readonly backups: readonly BackupRecord[];
  /** Why other retired packs and forgotten backups stay. */
  readonly waits: readonly string[];
};

/** A clock that is off by more stops retention. */
export const CLOCK_SKEW_MS_MAX = DAY_MS;

/**
 * Why the times at hand are not to be trusted; undefined if nothing is wrong with them. Retention
 * then waits, and so does what counts days; backups and all else go on.
 */
export function clockDoubt(
  state: RepositoryState,
  { now, siteTime }: Pick<CleanupPolicy, "now" | "siteTime">,
): string | undefined {
  if (siteTime !== undefined && Math.abs(now - siteTime) > CLOCK_SKEW_MS_MAX) {
    const skew = formatDuration(Math.abs(now - siteTime));
    return `the clock of this node is ${skew} away from the site's`;
  }
  const newest = newestTime(state);
  const ahead = newest - (siteTime ?? now);
  if (ahead <= CLOCK_SKEW_MS_MAX) return undefined;
  return `the newest entry was written ${formatDuration(ahead)} from now: a clock was or is wrong`;
}

/** What the policy drops, and what of it must wait. */
export type ForgetPlan = { readonly rows: readonly ForgetRow[]; readonly waits: readonly string[] };

/** Which listed backups go now: those that the policy drops, but for what another site is to get. */
export function planForget(
  state: RepositoryState,
  { policy, heldFor }: Pick<CleanupPolicy, "policy" | "heldFor">,
): ForgetPlan {
  const rows: ForgetRow[] = [];
  const waits: string[] = [];
  for (const row of planDropped(state, policy)) {
    const why = heldFor?.(row.id);
    if (why === undefined) rows.push(row);
    else waits.push(`backup ${row.name} is not forgotten yet: ${why}`);
  }
  return { rows, waits };
}

/** Which listed backups the policy drops; a pinned one is never among them. */
function planDropped(state: RepositoryState, policy: RetentionPolicy): ForgetRow[] {
  const pins = new Map(state.pins.values().map((pin) => [pin.backup, pin.reason]));
  const listed = listedBackups(state);
  const backups = listed.map((backup) => retentionBackup(backup, pins.get(backup.backup)));
  const names = new Map(listed.map(({ backup, name }) => [backup, name]));
  return planRetention(backups, policy)
    .filter(({ keep }) => !keep)
    .map(({ id, reasons }) => ({ id, name: names.get(id) ?? id, reasons }));
}

/** Which keeps and pins belong to operations that ended or fell silent. */
export function planDrops(
  state: RepositoryState,
  options: CleanupPolicy & { readonly isClockGood: boolean },
): DropRow[] {
  const rows: DropRow[] = [];
  for (const [name, keep] of state.keeps) {
    const silentMs = options.now - Date.parse(keep.time);
    if (options.endedOperations?.has(name) === true) {
      rows.push({ kind: "keep", name, reason: "its operation has ended" });
    } else if (options.isClockGood && silentMs > options.keepSilentMs) {
      const reason = `its operation has been silent for ${formatDuration(silentMs)}`;
      rows.push({ kind: "keep", name, reason });
    }
  }
  for (const name of state.pins.keys()) {
    if (options.endedPins?.has(name) !== true) continue;
    rows.push({ kind: "pin", name, reason: "its operation has ended" });
  }
  return rows;
}

/**
 * What has been retired or forgotten for longer than the window, and not by the operation that
 * cleaned up last or by this one: `before` is the first entry of the former.
 */
export function findExpired(
  state: RepositoryState,
  options: { readonly undoWindowMs: number; readonly before: number },
): Expired {
  const { undoWindowMs, before } = options;
  const cutMs = windowStart(state, undoWindowMs);
  const isOld = ({ sequence, time }: { readonly sequence: number; readonly time: string }) =>
    sequence < before && (undoWindowMs === 0 || Date.parse(time) <= cutMs);
  const packs = [...state.retired].filter(([, retired]) => isOld(retired)).map(([pack]) => pack);
  const pinned = new Set(state.pins.values().map(({ backup }) => backup));
  const forgotten = state.backups.values().filter((backup) => backup.forgotten !== undefined);
  const [gone, kept] = [[] as BackupRecord[], [] as BackupRecord[]];
  for (const backup of forgotten) {
    const isGone =
      backup.forgotten !== undefined && isOld(backup.forgotten) && !pinned.has(backup.backup);
    (isGone ? gone : kept).push(backup);
  }
  const waits: string[] = [];
  const waitingCount = state.retired.size - packs.length;
  const why =
    cutMs === -Infinity
      ? "there is no complete backup to count the undo window from"
      : `the undo window of ${formatDuration(undoWindowMs)}, and one more cleanup, must pass first`;
  if (waitingCount > 0) waits.push(`${waitingCount} retired packs stay: ${why}`);
  if (kept.length > 0) waits.push(`${kept.length} forgotten backups stay: ${why}`);
  return { packs, backups: gone, waits };
}

/** Where the floor goes: where the undo window begins, or as far as the births named require. */
export function planFloor(
  state: RepositoryState,
  options: { readonly undoWindowMs: number; readonly births: readonly number[] },
): number {
  const cutMs = windowStart(state, options.undoWindowMs);
  let floor = state.floor;
  for (const birth of options.births) floor = Math.max(floor, birth);
  for (const { sequence, time } of state.backups.values()) {
    if (Date.parse(time) <= cutMs) floor = Math.max(floor, sequence);
  }
  return Math.min(floor, state.sequence);
}

/** When the undo window began; never, while no backup is complete. */
function windowStart(state: RepositoryState, undoWindowMs: number): number {
  const newest = newestComplete(state);
  return newest === undefined ? -Infinity : Date.parse(newest.time) - undoWindowMs;
}

/** The latest time that anything in the state was committed or ended. */
function newestTime(state: RepositoryState): number {
  let newest = -Infinity;
  for (const { time, ended } of state.backups.values()) {
    newest = Math.max(newest, Date.parse(time), Date.parse(ended));
  }
  for (const { time } of state.keeps.values()) newest = Math.max(newest, Date.parse(time));
  return newest;
}

function retentionBackup(backup: BackupRecord, pinnedBy: string | undefined): RetentionBackup {
  return {
    id: backup.backup,
    name: backup.name,
    cluster: backup.cluster,
    startMs: Date.parse(backup.started),
    endMs: Date.parse(backup.ended),
    complete: backup.complete,
    pinned: pinnedBy !== undefined,
    ...(pinnedBy === undefined ? {} : { pinnedBy }),
    sequence: backup.sequence,
  };
}
