/**
 * What each site is, as pure functions: from the `role` entries that were found and from what the
 * configuration says of sites that nobody has spoken of. An entry wins over every configuration; a
 * configuration only says what a site is at first.
 */
import { roleBodySchema } from "../cas/log/entry.ts";
import type { EntryBodies } from "../cas/log/entry.ts";
import { areBetterRoles } from "../cas/log/state.ts";
import type { RepositoryState, Roles } from "../cas/log/state.ts";
import type { RetentionPolicy } from "../cas/clean/retention.ts";
import { z } from "zod";

/** What a site is to the others. */
export type SiteRole = "primary" | "mirror" | "archive";

/** One row of a `role` entry. */
export type RoleOfSite = EntryBodies["role"]["sites"][number];

/** A site that answered, as far as roles are concerned. */
export type FoundSite = {
  readonly id: string;
  readonly name: string;
  readonly location: string;
  /** What its configuration says it is at first. */
  readonly firstRole: SiteRole;
  readonly retention?: RetentionPolicy;
  readonly state: Pick<RepositoryState, "roles" | "closed">;
};

/** Roles as a node remembers them. */
export const rememberedRolesSchema = z.strictObject({
  ...roleBodySchema.shape,
  sequence: z.int().min(0),
});

/** The best of what was found; undefined where nobody has spoken. */
function bestOf(found: readonly (Roles | undefined)[]): Roles | undefined {
  let best: Roles | undefined;
  for (const roles of found) {
    if (roles !== undefined && areBetterRoles(roles, best)) best = roles;
  }
  return best;
}

/**
 * The roles that count: the best, and of several entries of that rank the one in the log of the
 * primary itself.
 */
export function rolesNow(
  remembered: Roles | undefined,
  open: readonly { readonly id: string; readonly roles: Roles | undefined }[],
): Roles | undefined {
  const best = bestOf([remembered, ...open.map(({ roles }) => roles)]);
  const own = open.find(({ id }) => id === best?.primary)?.roles;
  return own !== undefined && isSameRank(own, best) ? own : best;
}

/** What a `role` entry says, without the place of one in a log. */
export function bodyOfRoles({ epoch, primary, sites, reason }: Roles): EntryBodies["role"] {
  return { epoch, primary, sites, reason };
}

/** True if two entries say the same, wherever they stand. */
export function areSameRoles(body: EntryBodies["role"], roles: Roles | undefined): boolean {
  return roles !== undefined && Bun.deepEquals({ ...body }, bodyOfRoles(roles));
}

function isSameRank(one: Roles, other: Roles | undefined): boolean {
  return one.epoch === other?.epoch && one.primary === other.primary;
}

/**
 * The roles to enter so that every site that answers has one: the first entry once there are two
 * sites, or the known roles and whoever is new, or the same again, above another entry of their rank.
 * Undefined where nothing is to be said. A site whose log has ended is not entered again.
 */
export function planRoles(
  best: Roles | undefined,
  found: readonly FoundSite[],
): EntryBodies["role"] | undefined {
  const open = found.filter((site) => site.state.closed === undefined);
  if (best === undefined) {
    const primary = open.find((site) => site.firstRole === "primary") ?? open[0];
    if (primary === undefined || open.length < 2) return undefined;
    const sites = open.map((site) => roleOf(site, site === primary ? "primary" : undefined));
    return { epoch: 1, primary: primary.id, sites, reason: "the configuration names these sites" };
  }
  const unspoken = open.filter((site) => !best.sites.some((one) => one.site === site.id));
  if (unspoken.length === 0) return hasOthersOfRank(best, open) ? raised(best) : undefined;
  return {
    epoch: best.epoch + 1,
    primary: best.primary,
    sites: [...best.sites, ...unspoken.map((site) => roleOf(site))],
    reason: `${unspoken.map(({ name }) => name).join(", ")} joined`,
  };
}

/** True if the primary's own log has these roles, and a mirror others of the same rank. */
function hasOthersOfRank(best: Roles, open: readonly FoundSite[]): boolean {
  const body = bodyOfRoles(best);
  const isArchive = (id: string): boolean =>
    best.sites.some(({ site, role }) => site === id && role === "archive");
  return (
    open.some(({ id, state }) => id === best.primary && areSameRoles(body, state.roles)) &&
    open.some(({ id, state: { roles } }) => {
      const isOfRank = roles !== undefined && isSameRank(roles, best);
      // An archive is not told of roles, so it could never get these.
      return isOfRank && !isArchive(id) && !areSameRoles(body, roles);
    })
  );
}

function raised(roles: Roles): EntryBodies["role"] {
  return { ...bodyOfRoles(roles), epoch: roles.epoch + 1 };
}

/**
 * The roles with what a configuration says now of the retention of its sites, by id; undefined where
 * they say so already.
 */
export function withRetentions(
  roles: Roles,
  retentions: ReadonlyMap<string, RetentionPolicy | undefined>,
): EntryBodies["role"] | undefined {
  const sites = roles.sites.map((row) => {
    if (!retentions.has(row.site)) return row;
    const { retention: _, ...rest } = row;
    const retention = retentions.get(row.site);
    return retention === undefined ? rest : { ...rest, retention: { ...retention } };
  });
  const changed = sites.filter((row, index) => !Bun.deepEquals(row, roles.sites[index]));
  if (changed.length === 0) return undefined;
  const names = changed.map(({ name }) => name).join(", ");
  const { epoch, primary } = roles;
  return { epoch: epoch + 1, primary, sites, reason: `new retention of ${names}` };
}

/** A row of the entry; who is not the primary is at first a mirror. */
export function roleOf(site: Omit<FoundSite, "state">, role?: SiteRole): RoleOfSite {
  const { id, name, location, firstRole, retention } = site;
  const first = firstRole === "archive" ? "archive" : "mirror";
  return {
    site: id,
    name,
    location,
    role: role ?? first,
    ...(retention === undefined ? {} : { retention: { ...retention } }),
  };
}
