/**
 * Backups over all sites: which site has which, and where one is read from. The primary's list comes
 * first; what only another site still has is in it too, since it can be restored from there.
 */
import { AppError } from "../base/error.ts";
import type { RetentionPolicy } from "../cas/clean/retention.ts";
import { copyStateOf } from "../cas/copy/copy-side.ts";
import { findBackup } from "../cas/log/find-backup.ts";
import type { RepositoryState } from "../cas/log/state.ts";
import type { BackupSummary, PlaceState } from "./backup-summary.ts";
import { summarize } from "./backup-summary.ts";
import type { OpenSite, SitesNow, SiteView } from "./site-views.ts";
import { wantedAt } from "./site-wants.ts";

/** Tells when a backup was last read whole at a site, in ms since 1970. */
export type Prove = (
  site: string,
) => (backup: { readonly id: string; readonly sequence: number }) => number | undefined;

/** What a list is made from. */
export type PlacesOptions = {
  readonly now: SitesNow;
  /** The primary, or whoever is read in its place. */
  readonly site: OpenSite;
  readonly stateOf: (view: SiteView) => RepositoryState | undefined;
  /** Of sites that have none of their own. */
  readonly retention: RetentionPolicy;
  readonly prove?: Prove;
};

/** Rows of all sites, oldest first, each with where the backup is. */
export function summarizeAcross(
  options: PlacesOptions & { readonly forgotten: boolean },
): BackupSummary[] {
  const { now, site, retention, forgotten } = options;
  const { state } = site.repository;
  const policyOf = ({ retention: own }: SiteView): RetentionPolicy => own ?? retention;
  const self = now.sites.find(({ id }) => id === site.id);
  const rows = summarize(state, {
    retention: self === undefined ? retention : policyOf(self),
    site: site.name,
    forgotten,
  });
  const known = new Set(rows.map(({ id }) => id));
  const here = rows.length;
  for (const view of now.sites) {
    if (view.open === undefined || view.id === site.id) continue;
    const there = view.open.repository.state;
    const how = { retention: policyOf(view), site: view.name, forgotten: false };
    for (const row of summarize(there, how)) {
      // What was forgotten for all sites is on its way out there too.
      const isGoing = state.backups.get(row.id)?.forgotten?.scope === "all";
      if (known.has(row.id) || isGoing) continue;
      known.add(row.id);
      rows.push(row);
    }
  }
  const place = placesOf(options);
  const placed = rows.map((row) => ({ ...row, sites: place(row.id) }));
  return rows.length === here
    ? placed
    : placed.toSorted((a, b) => Date.parse(a.started) - Date.parse(b.started));
}

/** Tells where a backup is, by name of site. */
export function placesOf(
  options: PlacesOptions,
): (backup: string) => Readonly<Record<string, PlaceState>> {
  const { now, site, stateOf, retention, prove } = options;
  const { state } = site.repository;
  const views = now.sites.map((view) => {
    const there = view.id === site.id ? state : stateOf(view);
    const states = there === undefined ? [state] : [state, there];
    const isToHave = view.role === "primary" || view.role === "mirror";
    const wanted = isToHave ? wantedAt(view.retention ?? retention, states) : new Set<string>();
    const proved = view.id === undefined ? undefined : prove?.(view.id);
    return { name: view.name, there, wanted, proved };
  });
  return (id) => {
    const states = views.map(({ name, there, wanted, proved }): [string, PlaceState] => {
      const standing = there === undefined ? "copy" : copyStateOf(there, id);
      const record = there?.backups.get(id);
      if (standing === "there" && record !== undefined) {
        const provedAt = proved?.({ id, sequence: record.sequence });
        return [name, provedAt === undefined ? "acknowledged" : "verified"];
      }
      return [name, standing === "copy" && wanted.has(id) ? "lagging" : "-"];
    });
    return Object.fromEntries(states);
  };
}

/** Where a backup is read from: the site at hand if that lists it, else another one that does. */
export function siteWith(
  now: SitesNow,
  site: OpenSite,
  wanted: { readonly backup: string | undefined; readonly cluster: string },
): OpenSite {
  if (wanted.backup === undefined) return site;
  const others = now.sites.flatMap(({ open }) => (open === undefined ? [] : [open]));
  const all = [site, ...others.filter(({ id }) => id !== site.id)];
  return all.find((one) => hasBackup(one, wanted)) ?? site;
}

function hasBackup(
  { repository }: OpenSite,
  { backup, cluster }: { readonly backup: string | undefined; readonly cluster: string },
): boolean {
  try {
    findBackup(repository.state, backup, cluster);
    return true;
  } catch (thrown) {
    // A name that fits several is for the person to decide, at the site at hand.
    if (thrown instanceof AppError) return thrown.kind !== "not-found";
    throw thrown;
  }
}
