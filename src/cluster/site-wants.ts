/**
 * What each site should hold, as pure functions of the logs and the retention of each: what a mirror
 * lacks, and what must not be forgotten yet because another site is still to get it.
 */
import type { RetentionBackup, RetentionPolicy } from "../cas/clean/retention.ts";
import { planRetention } from "../cas/clean/retention.ts";
import { backupsToHold, copyStateOf } from "../cas/copy/copy-side.ts";
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

/** Backups that a site with this retention keeps of all that these logs list. */
export function wantedAt(
  policy: RetentionPolicy,
  states: readonly RepositoryState[],
): ReadonlySet<string> {
  const all = new Map<string, RetentionBackup>();
  for (const state of states) {
    for (const backup of listedBackups(state)) {
      const known = all.get(backup.backup);
      const pinned = known?.pinned === true || isPinned(state, backup.backup);
      all.set(backup.backup, known === undefined ? rowOf(backup, pinned) : { ...known, pinned });
    }
  }
  const verdicts = planRetention([...all.values()], policy);
  return new Set(verdicts.filter(({ keep }) => keep).map(({ id }) => id));
}

/** Backups that `from` holds, `to` wants and has never had, oldest first. */
export function lackingAt(
  from: RepositoryState,
  to: RepositoryState,
  policy: RetentionPolicy,
): BackupRecord[] {
  const wanted = wantedAt(policy, [from, to]);
  return backupsToHold(from).filter(
    ({ backup }) => wanted.has(backup) && copyStateOf(to, backup) === "copy",
  );
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
    const states = [state, there].filter((one) => one !== undefined);
    return { name, there, wanted: wantedAt(retention ?? common, states) };
  });
  return (backup) => {
    for (const { name, there, wanted } of wants) {
      if (!wanted.has(backup)) continue;
      if (there === undefined) return `site ${name} wants it and does not answer`;
      if (copyStateOf(there, backup) === "copy") return `site ${name} is still to get it`;
    }
    return undefined;
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
