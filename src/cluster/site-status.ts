/**
 * Sites as people and monitors see them: what each is, whether it answers, what it lacks. Made from
 * the last look; no site is asked.
 */
import type { LockStanding } from "../cas/clean/lock-standing.ts";
import type { RetentionPolicy } from "../cas/clean/retention.ts";
import type { RepositoryState } from "../cas/log/state.ts";
import { listedBackups } from "../cas/log/state.ts";
import { storagePrice } from "../sites/prices.ts";
import type { Money } from "../sites/prices.ts";
import type { LockStatus } from "./site-locks.ts";
import { lockStatusOf } from "./site-locks.ts";
import type { SitesNow, SiteView } from "./site-views.ts";
import type { SiteLag } from "./site-wants.ts";
import { lackingAt, lagOf } from "./site-wants.ts";
import type { CountedSite, SiteUsage } from "./usage.ts";
import { priceUsages, usageSoFar } from "./usage.ts";

/** One site. */
export type SiteStatus = {
  readonly name: string;
  /** `unknown` as long as no site has said what it is. */
  readonly role: "primary" | "mirror" | "archive" | "closed" | "unknown";
  readonly id?: string;
  readonly location?: string;
  /** False for one that the repository knows and this node's configuration does not. */
  readonly configured: boolean;
  readonly reachable: boolean;
  /** Why it cannot be used. */
  readonly error?: string;
  /** The last entry of its log that this node has read. */
  readonly sequence?: number;
  /** Backups that it lists, as far as this node has read. */
  readonly backups?: number;
  /** About: what its backups, forgotten ones too, stored when they were made. */
  readonly storedBytes?: number;
  /** What keeping that costs a month, at the configured prices. */
  readonly storagePerMonth?: Money;
  /** What this node has asked of it since its start. */
  readonly usage?: SiteUsage;
  /** Where it locks: until when what backups need is locked. */
  readonly lock?: LockStatus;
  /** Of mirrors: what they lack of the primary. */
  readonly lag?: SiteLag & { readonly ageSeconds?: number };
};

/** What a status is made from. */
export type SiteStatusOptions = {
  readonly now: SitesNow;
  /** What was last read of a site. */
  readonly stateOf: (view: SiteView) => RepositoryState | undefined;
  /** What was last heard of a site's locks, by its id. */
  readonly locksOf?: (id: string) => LockStanding | undefined;
  /** Of sites that have none of their own. */
  readonly retention: RetentionPolicy;
  readonly nowMs: number;
  /** With their counters and prices. */
  readonly configured?: readonly CountedSite[];
};

/** All sites, in the order of the configuration. */
export function statusOfSites(options: SiteStatusOptions): SiteStatus[] {
  const { now, stateOf } = options;
  const primary = now.sites.find(({ role }) => role === "primary");
  const from = primary === undefined ? undefined : stateOf(primary);
  return now.sites.map((view) => {
    const { name, role = "unknown", id, location, isConfigured, open, error } = view;
    const state = stateOf(view);
    const standing = id === undefined ? undefined : options.locksOf?.(id);
    const { nowMs } = options;
    const lag = role === "mirror" && from !== undefined ? lagOfSite(view, { from, options }) : {};
    return {
      name,
      role,
      ...(id === undefined ? {} : { id }),
      ...(location === undefined ? {} : { location }),
      configured: isConfigured,
      reachable: open !== undefined,
      ...(error === undefined ? {} : { error: error.message }),
      ...(state === undefined
        ? {}
        : { sequence: state.sequence, backups: listedBackups(state).length }),
      ...costOf(
        state,
        options.configured?.find((one) => one.name === name && view.isConfigured),
      ),
      ...(standing === undefined ? {} : { lock: lockStatusOf(standing, { nowMs, open }) }),
      ...lag,
    };
  });
}

function costOf(
  state: RepositoryState | undefined,
  site: CountedSite | undefined,
): Pick<SiteStatus, "storedBytes" | "storagePerMonth" | "usage"> {
  const [usage] = site === undefined ? [] : priceUsages(usageSoFar([site]), [site]);
  const used = usage === undefined ? {} : { usage };
  if (state === undefined) return used;
  const stored = state.backups.values().map(({ totals }) => totals.storedBytes);
  const storedBytes = stored.reduce((sum, bytes) => sum + bytes, 0);
  const prices = site?.prices;
  const money = prices === undefined ? {} : { storagePerMonth: storagePrice(prices, storedBytes) };
  return { storedBytes, ...money, ...used };
}

function lagOfSite(
  view: SiteView,
  how: { readonly from: RepositoryState; readonly options: SiteStatusOptions },
): Pick<SiteStatus, "lag"> {
  const { from, options } = how;
  const { stateOf, retention, nowMs } = options;
  const to = stateOf(view);
  const lacking =
    to === undefined ? listedBackups(from) : lackingAt(from, to, view.retention ?? retention);
  const lag = lagOf(lacking);
  if (lag.oldest === undefined) return { lag };
  const ageSeconds = Math.max(0, Math.round((nowMs - Date.parse(lag.oldest)) / 1000));
  return { lag: { ...lag, ageSeconds } };
}
