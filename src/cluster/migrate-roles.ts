/**
 * What a migration and the end of a site do to the roles, as pure functions: the entry to make, or
 * undefined where the roles are so already. Two coordinators that decide from the same roles decide
 * the same, so of their two entries one is void and nothing else.
 */
import { AppError } from "../base/error.ts";
import type { EntryBodies } from "../cas/log/entry.ts";
import type { Roles } from "../cas/log/state.ts";
import type { RoleOfSite, SiteRole } from "./site-roles.ts";

type Row = Pick<RoleOfSite, "site" | "name" | "location">;
type RoleBody = EntryBodies["role"];

/**
 * The site that is copied to takes part: as a mirror, so that backups that run meanwhile reach it; as
 * an archive where only some backups are to go there, and while it is still empty, since each backup
 * would bring a mirror all that it lacks, beside the migration that does the same.
 */
export function joinRoles(
  roles: Roles | undefined,
  sites: { readonly from: Row; readonly to: Row },
  how: { readonly as: "mirror" | "archive"; readonly isEmpty: boolean },
): RoleBody | undefined {
  const { from, to } = sites;
  const wanted: SiteRole = how.as;
  const present = roles?.sites.find(({ site }) => site === to.site);
  if (present?.role === wanted || present?.role === "primary") return undefined;
  // A mirror that has something stays one: taking its role away for a copy would make it lag.
  if (present?.role === "mirror" && !how.isEmpty) return undefined;
  const reason = `${to.name} gets the backups of ${from.name}`;
  if (roles === undefined) {
    const rows = [withRole(from, "primary"), withRole(to, wanted)];
    return { epoch: 1, primary: from.site, sites: rows, reason };
  }
  return changed(roles, [{ ...(present ?? to), role: wanted }], { reason });
}

/**
 * `to` becomes the primary, and `from` a mirror, which goes on getting every backup. Where backups
 * were left behind on purpose it becomes an archive: of a mirror the primary would get them. Throws
 * AppError `conflict` if another site is the primary by now: it may have what neither of them has.
 */
export function switchRoles(
  roles: Roles | undefined,
  sites: { readonly from: Row; readonly to: Row },
  how: { readonly isPartial: boolean },
): RoleBody | undefined {
  const { from, to } = sites;
  if (roles?.primary === to.site) return undefined;
  if (roles !== undefined && roles.primary !== from.site) throw otherPrimary(roles, from);
  const reason = `migrated from ${from.name} to ${to.name}`;
  const before: Roles = roles ?? {
    epoch: 0,
    primary: from.site,
    sites: [withRole(from, "primary")],
    reason: "",
    sequence: 0,
  };
  const former = before.sites.filter(({ role }) => role === "primary");
  const present = before.sites.find(({ site }) => site === to.site);
  return changed(
    before,
    [
      ...former.map((row) => ({
        ...row,
        role: how.isPartial ? ("archive" as const) : ("mirror" as const),
      })),
      { ...(present ?? to), role: "primary" },
    ],
    { reason, primary: to.site },
  );
}

/** Without a site, which must not be the primary. */
export function leaveRoles(roles: Roles | undefined, site: Row): RoleBody | undefined {
  if (roles === undefined || !roles.sites.some((row) => row.site === site.site)) return undefined;
  return {
    epoch: roles.epoch + 1,
    primary: roles.primary,
    sites: roles.sites.filter((row) => row.site !== site.site),
    reason: `${site.name} was retired`,
  };
}

function otherPrimary({ primary, sites }: Roles, from: Row): AppError {
  const name = sites.find(({ site }) => site === primary)?.name ?? primary;
  return new AppError("conflict", `Site ${from.name} is not the primary any more: ${name} is.`, {
    guidance: `Nothing was switched. Migrate from there: \`astacus migrate --from ${name}\`.`,
    context: { site: from.name, primary: name, reason: "other-primary" },
  });
}

function changed(
  roles: Roles,
  rows: readonly RoleOfSite[],
  how: { readonly reason: string; readonly primary?: string },
): RoleBody {
  const kept = roles.sites.filter(({ site }) => !rows.some((row) => row.site === site));
  return {
    epoch: roles.epoch + 1,
    primary: how.primary ?? roles.primary,
    sites: [...kept, ...rows],
    reason: how.reason,
  };
}

function withRole({ site, name, location }: Row, role: SiteRole): RoleOfSite {
  return { site, name, location, role };
}
