/**
 * The two sides of a copy: a repository at a site, and what its chunks are read through. Which
 * backups of a side concern the other one is said here.
 */
import { AppError } from "../../base/error.ts";
import type { SiteCall } from "../../sites/site.ts";
import type { ChunkSource } from "../read/chunk-source.ts";
import type { Repository } from "../log/repository.ts";
import { hasUndone, isPinned } from "../log/state.ts";
import type { BackupRecord, RepositoryState } from "../log/state.ts";

/** A site as a side of a copy. */
export type CopySide = { readonly repository: Repository; readonly source: ChunkSource };

/** How a backup of one site stands at another: `forgotten-there` also if it was deleted there. */
export type CopyState = "copy" | "there" | "forgotten-there";

/** Throws unless both are sites of one repository, and two of them. */
export function mustBeSitesOfOne(from: CopySide, to: CopySide): void {
  const [one, other] = [from.repository, to.repository];
  const where = `${one.site.location} and ${other.site.location}`;
  if (one.header.repository !== other.header.repository) {
    throw new AppError("refused", `${where} are sites of two repositories.`, {
      guidance:
        "Only sites of one repository can hold copies of each other. Make the new site with " +
        "`astacus site init` while the old one is configured: it then takes the old one's id.",
      context: { from: one.header.repository, to: other.header.repository },
    });
  }
  if (one.sealer.isPlain !== other.sealer.isPlain) {
    throw new AppError("refused", `Of ${where} only one is encrypted.`, {
      guidance: "Chunk ids differ then, so nothing can be copied as it is.",
      context: { from: one.header.site, to: other.header.site },
    });
  }
  if (one.header.site !== other.header.site) return;
  throw new AppError("refused", `${where} are one and the same site.`, {
    guidance:
      "Either both names lead to one place, or one is a plain copy of the other's objects, which " +
      "may be read and never written.",
    context: { site: one.header.site },
  });
}

/** What a site asks others to hold: listed backups, and pinned ones that were not forgotten for all. */
export function backupsToHold(state: RepositoryState): BackupRecord[] {
  return [...state.backups.values()]
    .filter(
      ({ backup, forgotten }) =>
        forgotten === undefined || (forgotten.scope === "site" && isPinned(state, backup)),
    )
    .toSorted((one, other) => one.sequence - other.sequence);
}

/** How a backup stands at a site. */
export function copyStateOf(state: RepositoryState, backup: string): CopyState {
  if (!state.everIds.has(backup)) return "copy";
  const record = state.backups.get(backup);
  return record !== undefined && record.forgotten === undefined ? "there" : "forgotten-there";
}

/** True if the target has forgotten a backup by the very forget that the source has undone. */
export function isUndoneElsewhere(
  from: RepositoryState,
  to: RepositoryState,
  backup: string,
): boolean {
  const record = from.backups.get(backup);
  if (record === undefined || record.forgotten !== undefined) return false;
  const forgotten = to.backups.get(backup)?.forgotten;
  return hasUndone(record, forgotten === undefined ? to.buried.get(backup) : forgotten.origin);
}

/**
 * Throws if a backup is of a cluster that the other side does not have, while it has backups of
 * clusters that are not known here: then these are two worlds, and not two sites of one.
 */
export function mustNotBeForeign(
  from: RepositoryState,
  to: RepositoryState,
  backup: Pick<BackupRecord, "name" | "cluster">,
): void {
  const [here, there] = [clustersOf(from), clustersOf(to)];
  if (there.has(backup.cluster)) return;
  const foreign = [...there].filter((cluster) => !here.has(cluster));
  if (foreign.length === 0) return;
  const names = foreign.toSorted().join(", ");
  throw new AppError(
    "refused",
    `Backup ${backup.name} is of cluster ${backup.cluster}; the target holds backups of ${names}.`,
    {
      guidance: "Backups of two clusters are not mixed by a copy: give each cluster its own site.",
      context: { cluster: backup.cluster },
    },
  );
}

/** Options of a call to a site. */
export function callOf(signal: AbortSignal | undefined): SiteCall {
  return signal === undefined ? {} : { signal };
}

function clustersOf(state: RepositoryState): ReadonlySet<string> {
  return new Set(state.backups.values().map(({ cluster }) => cluster));
}
