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
export function bestOf(found: readonly (Roles | undefined)[]): Roles | undefined {
  let best: Roles | undefined;
  for (const roles of found) {
    if (roles !== undefined && areBetterRoles(roles, best)) best = roles;
  }
  return best;
}

/**
 * The roles to enter so that every site that answers has one: the first entry once there are two
 * sites, or the known roles and whoever is new. Undefined where nothing is to be said. A site whose
 * log has ended is not entered again.
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
  if (unspoken.length === 0) return undefined;
  return {
    epoch: best.epoch + 1,
    primary: best.primary,
    sites: [...best.sites, ...unspoken.map((site) => roleOf(site))],
    reason: `${unspoken.map(({ name }) => name).join(", ")} joined`,
  };
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
