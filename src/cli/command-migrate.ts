/**
 * `astacus migrate`: shows the plan, asks, and follows the migration. Nothing is written before
 * somebody has agreed, or has said --yes; the same command goes on with what was interrupted.
 */
import { realClock } from "../base/clock.ts";
import { AppError } from "../base/error.ts";
import { DURATION_EXPECTED, parseDuration } from "../base/units.ts";
import type { MigrationResult } from "../cluster/migrate-operation.ts";
import type { LossResult } from "../cluster/lose-site.ts";
import type { MigrateRequest, MigrationPlan } from "../cluster/migrate-plan.ts";
import type { RetireResult } from "../cluster/migrate-retire.ts";
import type { OperationRecord } from "../cluster/operations.ts";
import { print } from "./command.ts";
import type { CommandEnd, CommandRun } from "./command.ts";
import { connect } from "./connect.ts";
import { EXIT } from "./exit-code.ts";
import { finish } from "./finish.ts";
import { renderMigrationPlan } from "./migrate-plan-text.ts";
import { lossText } from "./site-text.ts";
import { between, count, counted, renderPairs, size } from "./table.ts";

/** Its own options. */
export type MigrateOptions = {
  readonly from: string;
  readonly to: string;
  readonly backups?: readonly string[];
  readonly since?: string;
  readonly plan?: boolean;
  readonly yes?: boolean;
  readonly undo?: boolean;
  /** False for --no-switch. */
  readonly switch: boolean;
};

/** Migrates. */
export async function migrate(run: CommandRun, own: MigrateOptions): Promise<CommandEnd> {
  const request = requestOf(own, realClock.now());
  const client = await connect(run);
  if (own.yes !== true || own.plan === true) {
    const plan = await client.post<MigrationPlan>("/v1/migrations/plan", request);
    const text = (): string => renderMigrationPlan(plan);
    const isRefused = plan.refusals.length > 0;
    if (own.plan === true) {
      print(run, plan, text);
      return isRefused ? EXIT.refused : EXIT.done;
    }
    run.terminal.say(text());
    if (isRefused) {
      throw new AppError("refused", `The migration was refused: ${plan.refusals.join("; ")}`, {
        guidance: "Clear the way, and run it again. Nothing was changed.",
        context: { reason: "plan-refused" },
      });
    }
    await mustAgree(run, "Migrate?");
  }
  const record = await client.post<OperationRecord>("/v1/migrations", request);
  return await finish(run, client, record, {
    text: (result, ended) => describe(result as MigrationResult, ended),
  });
}

/** Ends a site. Ends with 1 if a lost one took backups with it, or nobody knows. */
export async function retire(
  run: CommandRun,
  site: string,
  own: { readonly yes?: boolean; readonly lost?: boolean },
): Promise<CommandEnd> {
  const isLost = own.lost === true;
  const client = await connect(run);
  if (own.yes !== true) {
    run.terminal.say(
      isLost
        ? `${site} is left out of the sites of the repository, and nothing is proved: what only ` +
            "it has is lost."
        : `Every pack of ${site} is read on the other sites and checked; then its log ends for good.\n` +
            "Nothing is removed from it. What is not proved elsewhere is named, and then nothing ends.",
    );
    await mustAgree(run, `Retire ${site}?`);
  }
  const path = `/v1/sites/${encodeURIComponent(site)}/retire`;
  if (!isLost) {
    const record = await client.post<OperationRecord>(path);
    return await finish(run, client, record, {
      text: (result, ended) => describeEnd(result as RetireResult, ended),
    });
  }
  const record = await client.post<OperationRecord>(path, { lost: true });
  return await finish(run, client, record, {
    text: (result) => lossText(result as LossResult),
    code: (result) => {
      const { missing, isKnown } = result as LossResult;
      return missing.length > 0 || !isKnown ? EXIT.failed : EXIT.done;
    },
  });
}

/** The request that the options mean; `nowMs` is what durations of --since count from. */
export function requestOf(own: MigrateOptions, nowMs: number): MigrateRequest {
  return {
    from: own.from,
    to: own.to,
    ...(own.backups === undefined ? {} : { backups: own.backups }),
    ...(own.since === undefined ? {} : { since: parseSince(own.since, nowMs) }),
    ...(own.undo === true ? { undo: true } : {}),
    ...(own.switch ? {} : { noSwitch: true }),
  };
}

async function mustAgree(run: CommandRun, question: string): Promise<void> {
  if (!run.terminal.canAsk) {
    throw new AppError("refused", "This needs --yes where nobody can be asked.", {
      guidance: "What it would do stands above. Nothing was changed.",
      context: { reason: "needs-yes" },
    });
  }
  if (await run.terminal.ask(question)) return;
  throw new AppError("refused", "Nothing was done.", { context: { reason: "not-agreed" } });
}

function parseSince(text: string, nowMs: number): string {
  const ms = /^\d{4}-/.test(text) ? Date.parse(text) : nowMs - durationOf(text);
  if (Number.isFinite(ms)) return new Date(ms).toISOString();
  throw new AppError("usage", `--since ${text} is no date.`, {
    guidance: `It takes a date such as 2026-11-22 or 2026-11-22T18:00:00Z, or ${DURATION_EXPECTED}.`,
  });
}

function durationOf(text: string): number {
  try {
    return parseDuration(text);
  } catch {
    return Number.NaN;
  }
}

function describeEnd(result: RetireResult, record: OperationRecord): string {
  const { site, successor, backups, packs, bytes, copied } = result;
  return renderPairs([
    ["retired", `${site.name} at ${site.location}`],
    [
      "proved",
      `${counted(backups, "backup")}, ${counted(packs, "pack")} (${size(bytes)}), elsewhere`,
    ],
    ...(copied.length === 0 ? [] : [["copied", copied.join(", ")] as const]),
    ["primary", `${successor.name} at ${successor.location}`],
    ["next", `take ${site.name} out of the configuration; then its objects may be removed`],
    ["took", between(record.started, record.ended ?? record.started)],
  ]);
}

function describe(result: MigrationResult, record: OperationRecord): string {
  const { copied, packs, packsFound, bytes, from, to } = result;
  const found = packsFound === 0 ? "" : `, ${count(packsFound)} of them were there`;
  return renderPairs([
    [result.switched ? "migrated" : "copied", `${from.name} → ${to.name}`],
    ["backups", `${count(copied.length)} copied`],
    ["packs", `${count(packs)} (${size(bytes)}), read back and checked${found}`],
    ["primary", result.switched ? `${to.name} at ${to.location}` : "as before"],
    ...(result.runningStill.length === 0
      ? []
      : [
          [
            "look again",
            `a backup still runs on ${result.runningStill.join(", ")}; run this again after it`,
          ] as const,
        ]),
    ["took", between(record.started, record.ended ?? record.started)],
  ]);
}
