/**
 * What an operation cost: requests by kind and bytes for each site, summed over the nodes that took
 * part, and money where the sites have prices. Counted is what passed between a node and its sites
 * while the operation ran there; what ran beside it is in the figure too.
 */
import { z } from "zod";
import { addUsage, NO_USAGE, priceOf, usageBetween, usageOf } from "../sites/prices.ts";
import type { Prices, Usage } from "../sites/prices.ts";

const count = z.number().min(0);

const requestsSchema = z.strictObject({
  get: count,
  put: count,
  head: count,
  delete: count,
  list: count,
});

/** What passed to one site. */
export const siteUsageSchema = z.strictObject({
  site: z.string(),
  requests: requestsSchema,
  bytesRead: count,
  bytesWritten: count,
  /** Of requests and outgoing bytes, at the configured prices. */
  cost: z.strictObject({ amount: count, currency: z.string() }).exactOptional(),
});

/** What passed to one site. */
export type SiteUsage = z.infer<typeof siteUsageSchema>;

/** A site whose requests are counted below its retries. */
export type CountedSite = {
  readonly name: string;
  /** The counters of now; undefined while it was not opened. */
  readonly usage?: () => Usage | undefined;
  readonly prices?: Prices;
};

/** Begins to count; the function that it returns says what passed since, untouched sites left out. */
export function meterUsage(sites: readonly CountedSite[]): () => SiteUsage[] {
  const before = new Map(sites.map((site) => [site.name, readUsage(site)]));
  return () =>
    sites
      .map((site) => ({
        site: site.name,
        ...usageBetween(before.get(site.name) ?? NO_USAGE, readUsage(site)),
      }))
      .filter(hasPassed);
}

/** What passed since the sites were opened, untouched ones left out. */
export function usageSoFar(sites: readonly CountedSite[]): SiteUsage[] {
  return sites.map((site) => ({ site: site.name, ...readUsage(site) })).filter(hasPassed);
}

/** The sum of both, by site. */
export function addUsages(one: readonly SiteUsage[], other: readonly SiteUsage[]): SiteUsage[] {
  const names = [...new Set([...one, ...other].map(({ site }) => site))];
  const of = (usages: readonly SiteUsage[], name: string): Usage =>
    usages.find(({ site }) => site === name) ?? NO_USAGE;
  return names.map((site) => ({ site, ...addUsage(of(one, site), of(other, site)) }));
}

/** With what it cost, where prices are known. */
export function priceUsages(
  usages: readonly SiteUsage[],
  sites: readonly CountedSite[],
): SiteUsage[] {
  return usages.map((usage) => {
    const prices = sites.find(({ name }) => name === usage.site)?.prices;
    return prices === undefined ? usage : { ...usage, cost: priceOf(prices, usage) };
  });
}

function readUsage(site: CountedSite): Usage {
  const counters = site.usage?.();
  return counters === undefined ? NO_USAGE : usageOf(counters);
}

function hasPassed({ requests }: Usage): boolean {
  return Object.values(requests).some((made) => made > 0);
}
