/**
 * Which backups to keep: a pure function from the list of backups and a policy to a verdict, with
 * reasons in words, for each. Deleting is decided and checked elsewhere; this says only what is
 * wanted. Per cluster:
 *
 * - Ages count back from the newest complete backup of the cluster, never from a clock, so a cluster
 *   that stopped making backups keeps those it has.
 * - Only complete backups count for the minimum, the maximum and the rules.
 * - Pinned backups, the newest complete one, and the complete one that was committed last are never
 *   dropped. The last two differ after a clock has jumped, and then both are needed: by its date
 *   alone, tonight's backup would be older than one from a clock that ran a year ahead.
 * - A rule can only keep. A backup goes when no rule keeps it, or when it is beyond the maximum.
 * - The minimum wins over the maximum. Among those above it, the oldest go first.
 * - An incomplete backup goes when a complete one is newer by a day: until then it may be all there
 *   is of the last hours. While no backup is complete, all are kept.
 *
 * Planning again over what was kept keeps all of it.
 */
import { DAY_MS, formatDuration } from "../../base/units.ts";

/** A backup, as far as retention looks at it. */
export type RetentionBackup = {
  readonly id: string;
  readonly name: string;
  readonly cluster: string;
  readonly startMs: number;
  readonly endMs: number;
  readonly complete: boolean;
  readonly pinned: boolean;
  /** Who pinned it, for the reason. */
  readonly pinnedBy?: string;
  /** Its entry in the site's log. */
  readonly sequence: number;
};

/**
 * What to keep; every part is optional. `minimum`, `maximum` and `keepDays` mean what
 * `minimum_backups`, `maximum_backups` and `keep_days` of the original Astacus mean.
 */
export type RetentionPolicy = {
  /** At least this many complete backups, 3 unless told. */
  readonly minimum?: number;
  /** At most this many complete backups that are not pinned. */
  readonly maximum?: number;
  /** Those at most this many whole days older than the newest. 7 if no rule at all is given. */
  readonly keepDays?: number;
  readonly keepLast?: number;
  readonly keepWithinMs?: number;
  /** The newest of each of the newest N hours (days, …) that have a backup; in UTC, by its start. */
  readonly hourly?: number;
  readonly daily?: number;
  readonly weekly?: number;
  readonly monthly?: number;
  readonly yearly?: number;
};

/** The verdict on one backup. `reasons` is never empty. */
export type RetentionVerdict = {
  readonly id: string;
  readonly keep: boolean;
  readonly reasons: readonly string[];
};

/** The policy when none is configured, as in the original. */
export const RETENTION_DEFAULTS = { minimum: 3, keepDays: 7 } as const;

/** How much older than a complete backup an incomplete one must be to go. */
export const INCOMPLETE_KEPT_MS = DAY_MS;

type Period = "hourly" | "daily" | "weekly" | "monthly" | "yearly";

const PERIODS: readonly Period[] = ["hourly", "daily", "weekly", "monthly", "yearly"];

/** Decides on each backup; verdicts are in the order of the input. Clusters do not affect each other. */
export function planRetention(
  backups: readonly RetentionBackup[],
  policy: RetentionPolicy,
): RetentionVerdict[] {
  const effective = withDefaults(policy);
  const verdicts = new Map<string, RetentionVerdict>();
  for (const group of Map.groupBy(backups, (backup) => backup.cluster).values()) {
    for (const verdict of planCluster(group, effective)) verdicts.set(verdict.id, verdict);
  }
  return backups.flatMap((backup) => verdicts.get(backup.id) ?? []);
}

type EffectivePolicy = RetentionPolicy & { readonly minimum: number };

function withDefaults(policy: RetentionPolicy): EffectivePolicy {
  const rules = [policy.keepDays, policy.keepLast, policy.keepWithinMs];
  const isRuleGiven = [...rules, ...PERIODS.map((period) => policy[period])].some(
    (value) => value !== undefined,
  );
  const minimum = policy.minimum ?? RETENTION_DEFAULTS.minimum;
  return isRuleGiven
    ? { ...policy, minimum }
    : { ...policy, minimum, keepDays: RETENTION_DEFAULTS.keepDays };
}

function planCluster(
  backups: readonly RetentionBackup[],
  policy: EffectivePolicy,
): RetentionVerdict[] {
  const complete = backups.filter((backup) => backup.complete).toSorted(newestFirst);
  const newest = complete[0];
  if (newest === undefined) {
    return backups.map((backup) => kept(backup, ["no backup is complete yet", ...pins(backup)]));
  }
  const byRule = reasonsByRule(complete, policy);
  const always = reasonsAlways(complete, policy);
  const beyondMaximum = listBeyondMaximum(complete, { byRule, always, policy });

  return backups.map((backup) => {
    if (!backup.complete) return judgeIncomplete(backup, newest);
    const unconditional = [...pins(backup), ...(always.get(backup.id) ?? [])];
    if (beyondMaximum.has(backup.id)) {
      return dropped(backup, [`beyond the maximum of ${policy.maximum}`]);
    }
    const reasons = [...unconditional, ...(byRule.get(backup.id) ?? [])];
    return reasons.length > 0 ? kept(backup, reasons) : dropped(backup, [whyOld(policy)]);
  });
}

/** What is kept whatever the rules and the maximum say. */
function reasonsAlways(
  complete: readonly RetentionBackup[],
  policy: EffectivePolicy,
): Map<string, string[]> {
  const reasons = new Map<string, string[]>();
  const lastCommitted = complete.toSorted((a, b) => b.sequence - a.sequence)[0];
  for (const [index, backup] of complete.entries()) {
    if (index === 0) add(reasons, backup, "newest complete");
    else if (backup === lastCommitted) add(reasons, backup, "last complete one to be committed");
    if (index < policy.minimum) add(reasons, backup, `minimum of ${policy.minimum}`);
  }
  return reasons;
}

function reasonsByRule(
  complete: readonly RetentionBackup[],
  policy: EffectivePolicy,
): Map<string, string[]> {
  const reasons = new Map<string, string[]>();
  const { keepDays, keepLast, keepWithinMs } = policy;
  const newestEndMs = complete[0]?.endMs ?? 0;
  for (const [index, backup] of complete.entries()) {
    const ageMs = newestEndMs - backup.endMs;
    if (keepLast !== undefined && index < keepLast) add(reasons, backup, `last ${keepLast}`);
    if (keepWithinMs !== undefined && ageMs <= keepWithinMs) {
      add(reasons, backup, `within ${formatDuration(keepWithinMs)}`);
    }
    // Whole days, as the original counts them: 7 days and 23 hours are still 7 days.
    if (keepDays !== undefined && Math.floor(ageMs / DAY_MS) <= keepDays) {
      add(reasons, backup, `within ${keepDays} days`);
    }
  }
  for (const period of PERIODS) addNewestOfEach(period, policy[period] ?? 0, complete, reasons);
  return reasons;
}

function addNewestOfEach(
  period: Period,
  countMax: number,
  complete: readonly RetentionBackup[],
  reasons: Map<string, string[]>,
): void {
  const seen = new Set<string>();
  for (const backup of complete) {
    const label = periodLabel(period, backup.startMs);
    if (seen.has(label)) continue;
    if (seen.size >= countMax) return;
    seen.add(label);
    add(reasons, backup, `${period} ${label}`);
  }
}

function listBeyondMaximum(
  complete: readonly RetentionBackup[],
  how: {
    readonly byRule: ReadonlyMap<string, string[]>;
    readonly always: ReadonlyMap<string, string[]>;
    readonly policy: EffectivePolicy;
  },
): Set<string> {
  const { byRule, always, policy } = how;
  if (policy.maximum === undefined) return new Set();
  const unpinned = complete.filter((backup) => !backup.pinned);
  const fixed = unpinned.filter((backup) => always.has(backup.id));
  const optional = unpinned.filter((backup) => !always.has(backup.id) && byRule.has(backup.id));
  const room = Math.max(0, policy.maximum - fixed.length);
  return new Set(optional.slice(room).map((backup) => backup.id));
}

function judgeIncomplete(backup: RetentionBackup, newest: RetentionBackup): RetentionVerdict {
  const reasons = pins(backup);
  if (newest.endMs - backup.endMs < INCOMPLETE_KEPT_MS) {
    reasons.push("incomplete, and no complete one is newer by a day");
  }
  if (reasons.length > 0) return kept(backup, reasons);
  return dropped(backup, [`incomplete, and ${newest.name} is complete and newer by a day or more`]);
}

function whyOld(policy: EffectivePolicy): string {
  const { keepDays, keepWithinMs } = policy;
  const span =
    keepDays !== undefined
      ? `${keepDays} days`
      : keepWithinMs === undefined
        ? undefined
        : formatDuration(keepWithinMs);
  return span === undefined ? "beyond every rule" : `older than ${span} and beyond every rule`;
}

function pins(backup: RetentionBackup): string[] {
  if (!backup.pinned) return [];
  return [backup.pinnedBy === undefined ? "pinned" : `pinned by ${backup.pinnedBy}`];
}

/** By start, as people name backups; sequence and id make the order total. */
function newestFirst(a: RetentionBackup, b: RetentionBackup): number {
  return (
    b.startMs - a.startMs ||
    b.endMs - a.endMs ||
    b.sequence - a.sequence ||
    (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)
  );
}

/** The UTC period that holds a moment: `2026-11-22T18`, `2026-11-22`, `2026-W47`, `2026-11`, `2026`. */
function periodLabel(period: Period, ms: number): string {
  const iso = new Date(ms).toISOString();
  switch (period) {
    case "hourly":
      return iso.slice(0, -11);
    case "daily":
      return iso.slice(0, -14);
    case "weekly":
      return isoWeek(ms);
    case "monthly":
      return iso.slice(0, -17);
    case "yearly":
      return iso.slice(0, -20);
  }
}

/** ISO 8601: weeks start on Monday, and belong to the year that holds their Thursday. */
function isoWeek(ms: number): string {
  const dayIndex = Math.floor(ms / DAY_MS);
  // Day 0 of the epoch was a Thursday, hence 3 days after a Monday.
  const mondayIndex = dayIndex - ((((dayIndex + 3) % 7) + 7) % 7);
  const thursdayMs = (mondayIndex + 3) * DAY_MS;
  const year = new Date(thursdayMs).getUTCFullYear();
  const week = Math.floor((thursdayMs - Date.UTC(year, 0, 1)) / (7 * DAY_MS)) + 1;
  return `${year}-W${String(week).padStart(2, "0")}`;
}

function add(reasons: Map<string, string[]>, backup: RetentionBackup, reason: string): void {
  const list = reasons.get(backup.id);
  if (list === undefined) reasons.set(backup.id, [reason]);
  else list.push(reason);
}

function kept(backup: RetentionBackup, reasons: readonly string[]): RetentionVerdict {
  return { id: backup.id, keep: true, reasons };
}

function dropped(backup: RetentionBackup, reasons: readonly string[]): RetentionVerdict {
  return { id: backup.id, keep: false, reasons };
}
