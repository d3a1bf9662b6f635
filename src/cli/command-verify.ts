/**
 * `astacus verify`, by a server or straight from the site; `--database` by a server alone.
 */
import { AppError } from "../base/error.ts";
import type { VerifyReport } from "../cas/read/verify.ts";
import type { OperationRecord } from "../cluster/operations.ts";
import { describeRepair } from "../cluster/repair.ts";
import type { DatabaseReport } from "../cluster/verify-database.ts";
import type { VerifyResult } from "../cluster/verify-operation.ts";
import { describeChecks } from "./check-lines.ts";
import { print } from "./command.ts";
import type { CommandEnd, CommandRun } from "./command.ts";
import { connect } from "./connect.ts";
import { EXIT } from "./exit-code.ts";
import { finish } from "./finish.ts";
import { isOffline } from "./reader.ts";
import { describeVerification } from "./verify-report.ts";

type VerifyOptions = {
  readonly deep?: boolean;
  readonly database?: boolean;
  readonly repair?: boolean;
  readonly site?: string;
};

/** Verifies one backup or all, or the database; ends with 1 if anything is wrong. */
export async function verify(
  run: CommandRun,
  backup: string | undefined,
  own: VerifyOptions,
): Promise<CommandEnd> {
  if (own.database === true) return await verifyDatabase(run, backup, own.deep === true);
  const deep = own.deep === true;
  const request = { deep, ...(backup === undefined ? {} : { backup }) };
  if (own.repair === true) return await repair(run, { ...request, ...siteOf(own) });
  if (own.site !== undefined) throw new AppError("usage", "--site goes with --repair.");
  if (!isOffline(run)) {
    const client = await connect(run);
    const record = await client.post<OperationRecord>("/v1/verifications", request);
    return await finish(run, client, record, {
      text: (report) => describeVerified(report as VerifyResult),
      code: (report) => codeOf(report as VerifyReport),
    });
  }
  const { withOffline } = await import("./offline.ts");
  const report = await withOffline(run, async (offline) => await offline.verify(request));
  print(run, report, () => describeVerification(report));
  if (!report.ok) run.terminal.say(NOBODY_IS_TOLD);
  return codeOf(report);
}

const NOBODY_IS_TOLD =
  "No node was told: backups go on relying on these packs until a server finds them, by " +
  "`astacus verify` (--deep --repair) or by scrubbing.";

/** A server writes what is repaired; it tells what it did while it goes on. */
async function repair(run: CommandRun, request: object): Promise<CommandEnd> {
  if (isOffline(run)) {
    throw new AppError("usage", "--repair needs a server: with -c FILE give -u URL as well.");
  }
  const client = await connect(run);
  const record = await client.post<OperationRecord>("/v1/repairs", request);
  return await finish(run, client, record, {
    text: (report) => describeRepaired(report as VerifyResult),
    code: (report) => codeOf(report as VerifyResult),
  });
}

function describeRepaired(report: VerifyResult): string {
  const lines = (report.repairs ?? []).map(describeRepair);
  return [...lines, describeVerified(report)].join("\n");
}

/** As a server tells it, which remembers what it found. */
function describeVerified(report: VerifyResult): string {
  const { distrusted = 0 } = report;
  if (distrusted === 0) return describeVerification(report);
  const hope =
    "Packs that are not repaired are not relied on any more: the next backup sends what is still on the disks again.";
  return `${describeVerification(report)}\n${hope}`;
}

function siteOf({ site }: VerifyOptions): { readonly site?: string } {
  return site === undefined ? {} : { site };
}

/** The server of a node asks, which knows where the database is and may reach it. */
async function verifyDatabase(
  run: CommandRun,
  backup: string | undefined,
  deep: boolean,
): Promise<CommandEnd> {
  if (deep) {
    throw new AppError("usage", "--deep checks a backup, --database what is running: ask for one.");
  }
  if (isOffline(run)) {
    throw new AppError("usage", "--database needs a server: with -c FILE give -u URL as well.");
  }
  const client = await connect(run);
  const request = { database: true, ...(backup === undefined ? {} : { backup }) };
  const record = await client.post<OperationRecord>("/v1/verifications", request);
  return await finish(run, client, record, {
    text: (report) => describeDatabase(report as DatabaseReport),
    code: (report) => codeOf(report as DatabaseReport),
  });
}

function describeDatabase({ ok, backup, checks }: DatabaseReport): string {
  const lines = describeChecks(checks);
  const verdict = ok ? "holds what backup" : "does not hold what backup";
  return [...lines, `The database ${verdict} ${backup.name} says, as far as was asked.`].join("\n");
}

function codeOf({ ok }: { readonly ok: boolean }): CommandEnd {
  return ok ? EXIT.done : EXIT.failed;
}
