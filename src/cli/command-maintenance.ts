/**
 * `astacus cleanup`, `delete`, `undelete`, `pin` and `unpin`.
 */
import { AppError } from "../base/error.ts";
import type { CleanupReport } from "../cas/clean/cleanup.ts";
import type { SiteCleanup } from "../cluster/maintenance.ts";
import type { OperationRecord } from "../cluster/operations.ts";
import type { SiteUsage } from "../cluster/usage.ts";
import { lockEndText } from "../sites/lock-period.ts";
import type { CommandEnd, CommandRun } from "./command.ts";
import type { Client } from "./client.ts";
import { connect } from "./connect.ts";
import { EXIT } from "./exit-code.ts";
import { finish } from "./finish.ts";
import { count, size } from "./table.ts";
import { describeCost } from "./usage-text.ts";

/** Its own options. */
export type CleanupOptions = {
  readonly dryRun?: boolean;
  readonly sweep?: boolean;
  readonly minimumBackups?: number;
  readonly maximumBackups?: number;
  readonly keepDays?: number;
  readonly keepLast?: number;
  readonly hourly?: number;
  readonly daily?: number;
  readonly weekly?: number;
  readonly monthly?: number;
  readonly yearly?: number;
};

/** Applies retention, or says what it would do. */
export async function cleanup(run: CommandRun, own: CleanupOptions): Promise<CommandEnd> {
  const client = await connect(run);
  const { keepDays, keepLast, hourly, daily, weekly, monthly, yearly } = own;
  const { minimumBackups: minimum, maximumBackups: maximum } = own;
  const rules = { minimum, maximum, keepDays, keepLast, hourly, daily, weekly, monthly, yearly };
  const retention = Object.fromEntries(
    Object.entries(rules).filter(([, value]) => value !== undefined),
  );
  const record = await client.post<OperationRecord>("/v1/cleanups", {
    ...(own.dryRun === true ? { dryRun: true } : {}),
    ...(own.sweep === true ? { sweep: true } : {}),
    ...(Object.keys(retention).length === 0 ? {} : { retention }),
  });
  return await finish(run, client, record, {
    text: (result) => describeAll(result as CleanupReport),
    code: (result) => {
      const { alarms, sites = [] } = result as CleanupReport & { readonly sites?: SiteCleanup[] };
      const isBad = alarms.length > 0 || sites.some((one) => one.error !== undefined);
      return isBad ? EXIT.failed : EXIT.done;
    },
  });
}

type Mark = "delete" | "undelete" | "pin" | "unpin";

type MarkOptions = { readonly reason?: string; readonly backups?: readonly string[] };

/** The function of one of the four commands. */
export function markCommand(mark: Mark) {
  return async (
    run: CommandRun,
    named: readonly string[],
    own: MarkOptions,
  ): Promise<CommandEnd> => {
    const backups = [...named, ...(own.backups ?? [])];
    if (backups.length === 0) {
      throw new AppError("usage", "No backup was named.", {
        guidance: "`astacus list` shows what there is.",
      });
    }
    const client = await connect(run);
    let end: CommandEnd = EXIT.done;
    for (const backup of backups) {
      const record = await startMark(client, mark, { backup, reason: own.reason });
      const code = await finish(run, client, record, { text: () => `${backup}: ${DONE[mark]}` });
      if (code !== EXIT.done) end = code;
    }
    return end;
  };
}

const DONE: Readonly<Record<Mark, string>> = {
  delete: "forgotten; `astacus undelete` brings it back until cleanup has removed its data",
  undelete: "back in the list",
  pin: "pinned",
  unpin: "left to retention",
};

async function startMark(
  client: Client,
  mark: Mark,
  wanted: { readonly backup: string; readonly reason: string | undefined },
): Promise<OperationRecord> {
  const path = `/v1/backups/${encodeURIComponent(wanted.backup)}`;
  const body = wanted.reason === undefined ? {} : { reason: wanted.reason };
  if (mark === "delete") return await client.delete<OperationRecord>(path, body);
  return await client.post<OperationRecord>(`${path}/${mark}`, body);
}

function describe(report: CleanupReport, lockRenewal?: SiteUsage): string {
  const would = report.isDryRun ? "would be " : "";
  const lines = [
    ...report.forgotten.map((one) => `${would}forgotten: ${one.name} (${one.reasons.join(", ")})`),
    ...report.dropped.map((one) => `${would}dropped: ${one.kind} ${one.name} (${one.reason})`),
    `${would}retired: ${describePacks(report.retired)}`,
    `${would}deleted: ${describePacks(report.deleted)}`,
    ...(report.garbage.objects === 0
      ? []
      : [`${would}swept: ${count(report.garbage.objects)} objects, ${size(report.garbage.bytes)}`]),
    ...report.repacks.map((one) => `${would}repacked: ${count(one.from)} packs`),
    ...(report.locks === undefined
      ? []
      : [
          `${would}locked until ${lockEndText(report.locks.untilMs)}: ` +
            `${count(report.locks.renewed)} of ${count(report.locks.objects)} objects` +
            (lockRenewal === undefined ? "" : `, at most ${describeCost(lockRenewal)}`),
        ]),
    ...report.waits.map((wait) => `waits: ${wait}`),
    ...report.alarms.map((alarm) => `ALARM: ${alarm}`),
  ];
  return lines.join("\n");
}

/** The report of each site, under its name where there are several. */
function describeAll(report: CleanupReport & { readonly sites?: readonly SiteCleanup[] }): string {
  const { sites = [] } = report;
  if (sites.length < 2) return describe(report, sites[0]?.lockRenewal);
  return sites
    .map((one) => {
      const what =
        one.report === undefined
          ? `FAILED: ${one.error?.message ?? "no reason"}`
          : describe(one.report, one.lockRenewal);
      return `${one.role} ${one.site}:\n${what.replaceAll(/^/gm, "  ")}`;
    })
    .join("\n");
}

function describePacks(total: { readonly packs: number; readonly bytes: number }): string {
  return `${count(total.packs)} packs, ${size(total.bytes)}`;
}
