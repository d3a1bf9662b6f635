/**
 * Sites in words: the table of all, what became of mirrors, what a promotion lost.
 */
import type { LossResult } from "../cluster/lose-site.ts";
import type { MirrorReport } from "../cluster/mirror-operation.ts";
import type { PromoteResult } from "../cluster/promote-operation.ts";
import type { LockStatus } from "../cluster/site-locks.ts";
import type { SiteStatus } from "../cluster/site-status.ts";
import type { SiteLag } from "../cluster/site-wants.ts";
import { lockEndText } from "../sites/lock-period.ts";
import { formatMoney } from "../sites/prices.ts";
import { age, count, counted, renderTable, size, time } from "./table.ts";
import { describeUsage } from "./usage-text.ts";

/** All sites. */
export function siteTable(sites: readonly SiteStatus[]): string {
  return renderTable(
    [
      { title: "SITE" },
      { title: "ROLE" },
      { title: "BACKUPS", isNumber: true },
      { title: "STORED", isNumber: true },
      { title: "LOCATION" },
      { title: "STATE" },
    ],
    sites.map((site) => [
      site.name,
      site.role,
      site.backups === undefined ? "?" : count(site.backups),
      describeStored(site),
      site.location ?? "?",
      describeSite(site),
    ]),
  );
}

/** What became of each mirror; nothing where there is none. */
export function mirrorLines(mirrors: readonly MirrorReport[]): string[] {
  return mirrors.map((mirror) => {
    const { site, state, copied, packs, bytes, packsSent, lag, error } = mirror;
    const sent = packsSent === 0 ? "" : `, ${count(packsSent)} of them sent by the nodes`;
    const brought =
      copied === 0
        ? ""
        : `; ${counted(copied, "backup")}, ${counted(packs, "pack")} of ${size(bytes)}${sent}`;
    const why = error === undefined ? "" : `: ${error.message}`;
    const what =
      state === "lagging" ? `LAGS by ${lagText(lag)}${why}` : `up to date${brought}${why}`;
    return `mirror ${site}: ${what}`;
  });
}

/** What a promotion did, and every backup that it lost. */
export function promoteText(result: PromoteResult): string {
  const { site, former, isKnown, missing } = result;
  const head = `${site} is the primary now, in place of ${former}.`;
  if (missing.length > 0) {
    const lines = missing.map(({ name, ended, bytes, at }) => {
      const where = at.length === 0 ? "nowhere else" : `on ${at.join(", ")}: \`astacus sync\``;
      return `  ${name}, ended ${time(ended)} UTC, ${size(bytes)} (${where})`;
    });
    const are = missing.length === 1 ? "backup is" : "backups are";
    return [head, `${count(missing.length)} ${are} NOT on ${site}:`, ...lines].join("\n");
  }
  if (isKnown) return `${head} It has every backup that this node knows of.`;
  return `${head} This node never read the log of ${former}, so it cannot say what is lost.`;
}

/** What leaving out a lost site did, and every backup that is lost with it. */
export function lossText({ lost, isKnown, missing }: LossResult): string {
  const head = `${lost.name} (${lost.location ?? "?"}) is no site of the repository any more.`;
  const next = "Take it out of the configuration of all nodes where it still stands there.";
  if (!isKnown) {
    return `${head}\nThis node never read its log, so it cannot say what is lost.\n${next}`;
  }
  if (missing.length === 0) {
    return `${head} Nothing that this node knows of was only there.\n${next}`;
  }
  const lines = missing.map(
    ({ name, ended, bytes }) => `  ${name}, ended ${time(ended)} UTC, ${size(bytes)}`,
  );
  const were = missing.length === 1 ? "backup was" : "backups were";
  return [head, `${count(missing.length)} ${were} only there:`, ...lines, next].join("\n");
}

/** What each site was asked by the node that answers, since its start; and what that has cost. */
export function usageLines(sites: readonly SiteStatus[]): string[] {
  return describeUsage(sites.flatMap(({ usage }) => usage ?? []));
}

function describeStored({ storedBytes, storagePerMonth }: SiteStatus): string {
  if (storedBytes === undefined) return "?";
  if (storagePerMonth === undefined) return size(storedBytes);
  return `${size(storedBytes)}, ${formatMoney(storagePerMonth)} a month`;
}

/** Whether a site can be used, and what it lacks. */
function describeSite({ configured, reachable, error, lag, lock }: SiteStatus): string {
  if (!configured) return "NOT CONFIGURED on this node";
  const behind = [
    ...(lag === undefined || lag.backups === 0 ? [] : [`lags by ${lagText(lag)}`]),
    ...(lock === undefined ? [] : [lockText(lock)]),
  ].join(", ");
  if (!reachable) {
    const why = error ?? "no answer";
    return behind === "" ? `DOWN: ${why}` : `DOWN: ${why.replace(/\.$/, "")}; ${behind}`;
  }
  return behind === "" ? "up" : `up, ${behind}`;
}

function lockText({ until, ending }: LockStatus): string {
  if (until === undefined) return ending ? "NOT LOCKED yet" : "under a legal hold";
  const end = lockEndText(Date.parse(until));
  return ending ? `LOCKS END ${end}` : `locked until ${end}`;
}

function lagText(lag: SiteLag & { readonly ageSeconds?: number }): string {
  const oldest = lag.ageSeconds === undefined ? "" : `, the oldest ${age(lag.ageSeconds)} old`;
  return `${counted(lag.backups, "backup")}, ${size(lag.bytes)}${oldest}`;
}
