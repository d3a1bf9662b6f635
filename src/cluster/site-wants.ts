/**
 * What each site should hold, as pure functions of the logs and the retention of each: what a mirror
 * lacks, and what must not be forgotten yet because another site is still to get it.
 */
import type { RetentionBackup, RetentionPolicy } from "../cas/clean/retention.ts";
import { planRetention } from "../cas/clean/retention.ts";
import { backupsToHold, copyStateOf, isUndoneElsewhere } from "../cas/copy/copy-side.ts";
import type { BackupRecord, RepositoryState } from "../cas/log/state.ts";
import { isPinned, listedBackups } from "../cas/log/state.ts";
import type { SiteView } from "./site-views.ts";

/** What a site lacks of another. */
export type SiteLag = {
  readonly backups: number;
  /** As they were sent when they were made: what was shared with others is counted once. */
  readonly bytes: number;
  /** When the oldest of them ended, ISO 8601. */
  readonly oldest?: string;
};

/**
 * Backups that a site with this retention keeps of all that these logs list; without pins, those that
 * it keeps by its rules alone.
 */
export function wantedAt(
  policy: RetentionPolicy,
  states: readonly RepositoryState[],
  { withPins = true } = {},
): ReadonlySet<string> {
  const all = new Map<string, RetentionBackup>();
  for (const state of states) {
    for (const backup of listedBackups(state)) {
      const known = all.get(backup.backup);
      const pinned = known?.pinned === true || (withPins && isPinned(state, backup.backup));
      all.set(backup.backup, known === undefined ? rowOf(backup, pinned) : { ...known, pinned });
    }
  }
  const verdicts = planRetention([...all.values()], policy);
  return new Set(verdicts.filter(({ keep }) => keep).map(({ id }) => id));
}

/**
 * Backups that `from` holds and `to` wants and lacks, oldest first: it has never had them, or forgot
 * them by a rule that it has no more, or by a forget that was undone at `from`.
 */
export function lackingAt(
  from: RepositoryState,
  to: RepositoryState,
  policy: RetentionPolicy,
): BackupRecord[] {
  const isLacked = lackedAt(from, to, policy);
  return backupsToHold(from).filter(({ backup }) => isLacked(backup));
}

/** The figures of backups that a site lacks. */
export function lagOf(backups: readonly BackupRecord[]): SiteLag {
  const ends = backups.map(({ ended }) => ended).toSorted();
  return {
    backups: backups.length,
    bytes: backups.reduce((sum, { totals }) => sum + totals.storedBytes, 0),
    ...(ends[0] === undefined ? {} : { oldest: ends[0] }),
  };
}

/**
 * Why a backup that the retention of one site drops must stay there: another site wants it and does
 * not list it. One that does not answer counts as lacking it.
 */
export function heldFor(
  own: SiteView,
  others: readonly SiteView[],
  common: RetentionPolicy,
): (backup: string) => string | undefined {
  const state = own.open?.repository.state;
  const askers = others.filter(
    ({ id, role }) => id !== own.id && (role === "primary" || role === "mirror"),
  );
  const wants = askers.map(({ name, retention, open }) => {
    const there = open?.repository.state;
    const policy = retention ?? common;
    if (there !== undefined && state !== undefined) {
      return { why: `site ${name} is still to get it`, isHeld: lackedAt(state, there, policy) };
    }
    const wanted = wantedAt(policy, state === undefined ? [] : [state]);
    const isHeld = (backup: string): boolean => wanted.has(backup);
    return { why: `site ${name} wants it and does not answer`, isHeld };
  });
  return (backup) => wants.find(({ isHeld }) => isHeld(backup))?.why;
}

/** True of what `to` wants and does not list, and may get from `from`. */
function lackedAt(
  from: RepositoryState,
  to: RepositoryState,
  policy: RetentionPolicy,
): (backup: string) => boolean {
  const wanted = wantedAt(policy, [from, to]);
  // A pin of another site brings back nothing: the next cleanup would forget it once more.
  const wantedByRules = wantedAt(policy, [from, to], { withPins: false });
  return (backup) => {
    if (!wanted.has(backup)) return false;
    if (copyStateOf(to, backup) === "copy" || isUndoneElsewhere(from, to, backup)) return true;
    return wantedByRules.has(backup) && to.backups.get(backup)?.forgotten?.scope === "site";
  };
}

function rowOf(backup: BackupRecord, pinned: boolean): RetentionBackup {
  return {
    id: backup.backup,
    name: backup.name,
    cluster: backup.cluster,
    startMs: Date.parse(backup.started),
    endMs: Date.parse(backup.ended),
    complete: backup.complete,
    pinned,
    sequence: backup.sequence,
  };
}
