/**
 * What a node sees of its sites at one look: which of them answered, what each is, and why another
 * cannot be used. Pure: site-set.ts asks, this puts together.
 */
import type { AppError } from "../base/error.ts";
import type { Catalog } from "../cas/catalog/catalog.ts";
import type { RetentionPolicy } from "../cas/clean/retention.ts";
import type { Repository } from "../cas/log/repository.ts";
import type { Roles } from "../cas/log/state.ts";
import { newestComplete } from "../cas/log/state.ts";
import type { ChunkSource } from "../cas/read/chunk-source.ts";
import type { SiteRole } from "./site-roles.ts";
import type { ReadManifest, SourceHow } from "./site-sources.ts";

/** A site that is open. */
export type OpenSite = {
  readonly name: string;
  readonly id: string;
  readonly repository: Repository;
  readonly catalog: Catalog;
  /** Reads chunks through this node's index of this site, and what it does not give at the next. */
  readonly openSource: (how?: SourceHow) => ChunkSource;
  readonly readManifest: ReadManifest;
};

/** One site as it was found at the last look. */
export type SiteView = {
  readonly name: string;
  /** `closed`: its log has ended; undefined: nobody knows yet. */
  readonly role: SiteRole | "closed" | undefined;
  /** Its id, where it was ever seen. */
  readonly id: string | undefined;
  readonly location: string | undefined;
  /** Of its `role` entry, else of its configuration. */
  readonly retention: RetentionPolicy | undefined;
  /** False for a site that the roles name and this node cannot reach. */
  readonly isConfigured: boolean;
  /** Set if it answered. */
  readonly open: OpenSite | undefined;
  /** Why it did not, or may not be used. */
  readonly error: AppError | undefined;
};

/** All sites at one look. */
export type SitesNow = {
  /** The best `role` entry; undefined while nobody has spoken. */
  readonly roles: Roles | undefined;
  /** Configured ones in their order, then those that only the roles name. */
  readonly sites: readonly SiteView[];
};

/** A site to read from. */
export type Readable = {
  readonly site: OpenSite;
  /** Why it is not the primary, in words. */
  readonly notice?: string;
};

/** Why something else than the primary is read; `why` is a sentence. */
export function notThePrimary(
  primary: string,
  { why, role, site }: { readonly why: string; readonly role: string; readonly site: string },
): string {
  return `The primary ${primary} does not answer: ${why} This is what the ${role} ${site} has.`;
}

/** What a look found of a configured site. */
export type SeenSite = {
  readonly name: string;
  readonly firstRole: SiteRole;
  readonly retention: RetentionPolicy | undefined;
  readonly id: string | undefined;
  readonly location: string | undefined;
  readonly open: OpenSite | undefined;
  readonly error: AppError | undefined;
};

/** Configured sites in their order, then those that only the roles name. */
export function viewSites(
  roles: Roles | undefined,
  seen: readonly SeenSite[],
  lacking: (id: string, called: string) => AppError,
): SiteView[] {
  const first = seen.find(({ firstRole }) => firstRole === "primary") ?? seen[0];
  const views = seen.map((one): SiteView => {
    // A site that never answered is taken by its name for what the roles speak of.
    const id = one.id ?? roles?.sites.find(({ name }) => name === one.name)?.site;
    const row = roles?.sites.find(({ site }) => site === id);
    return {
      name: one.name,
      role: roleNow(one, { row: row?.role, hasRoles: roles !== undefined, isFirst: one === first }),
      id,
      location: one.location ?? row?.location,
      retention: row?.retention ?? one.retention,
      isConfigured: true,
      open: one.error === undefined ? one.open : undefined,
      error: one.error,
    };
  });
  const elsewhere = (roles?.sites ?? []).filter(({ site }) => !views.some(({ id }) => id === site));
  return [
    ...views,
    ...elsewhere.map((row): SiteView => ({
      name: row.name,
      role: row.role,
      id: row.site,
      location: row.location,
      retention: row.retention,
      isConfigured: false,
      open: undefined,
      error: lacking(row.site, `${row.name} (${row.location})`),
    })),
  ];
}

function roleNow(
  site: SeenSite,
  known: {
    readonly row: SiteRole | undefined;
    readonly hasRoles: boolean;
    readonly isFirst: boolean;
  },
): SiteView["role"] {
  if (site.open?.repository.state.closed !== undefined) return "closed";
  if (known.row !== undefined) return known.row;
  if (!known.hasRoles && known.isFirst) return "primary";
  // One that was seen before was left out on purpose; when it answers again, it is entered.
  if (known.hasRoles && site.open === undefined && site.id !== undefined) return undefined;
  return site.firstRole === "archive" ? "archive" : "mirror";
}

/** The best site that answers, for what these others did not give. */
export function nextToRead({ sites }: SitesNow, used: ReadonlySet<string>): OpenSite | undefined {
  const isPrimary = ({ role }: SiteView): number => Number(role === "primary");
  return sites
    .filter(({ name, open }) => open !== undefined && !used.has(name))
    .toSorted((a, b) => isPrimary(b) - isPrimary(a) || byFreshness(a, b))
    .at(0)?.open;
}

/** Mirrors before archives, then whoever has the newest backup. */
export function byFreshness(a: SiteView, b: SiteView): number {
  const rank = ({ role }: SiteView): number => (role === "archive" || role === "closed" ? 1 : 0);
  const newest = ({ open }: SiteView): string =>
    open === undefined ? "" : (newestComplete(open.repository.state)?.ended ?? "");
  if (rank(a) !== rank(b)) return rank(a) - rank(b);
  return newest(a) < newest(b) ? 1 : newest(a) > newest(b) ? -1 : 0;
}
