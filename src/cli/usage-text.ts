/**
 * What an operation cost, in words: one line for each site.
 */
import type { SiteUsage } from "../cluster/usage.ts";
import { formatMoney, formatRequests } from "../sites/prices.ts";
import { size } from "./table.ts";

/** `site far: 12 put, 3 get; 4 MiB sent, 1 KiB read; 0.02 EUR`. */
export function describeUsage(usage: readonly SiteUsage[]): string[] {
  return usage.map((one) => `site ${one.site}: ${describeCost(one)}`);
}

/** The same without the site. */
export function describeCost({ requests, bytesRead, bytesWritten, cost }: SiteUsage): string {
  const moved = [
    ...(bytesWritten > 0 ? [`${size(bytesWritten)} sent`] : []),
    ...(bytesRead > 0 ? [`${size(bytesRead)} read`] : []),
  ].join(", ");
  const parts = [formatRequests(requests), moved, cost === undefined ? "" : formatMoney(cost)];
  return parts.filter((part) => part !== "").join("; ");
}
