/**
 * `astacus backup`.
 */
import type { BackupResult } from "../cluster/backup-operation.ts";
import { qualityOf } from "../cluster/backup-quality.ts";
import type { OperationRecord } from "../cluster/operations.ts";
import type { CommandEnd, CommandRun } from "./command.ts";
import { connect } from "./connect.ts";
import { EXIT } from "./exit-code.ts";
import { finish } from "./finish.ts";
import { mirrorLines } from "./site-text.ts";
import { between, count, renderPairs, size } from "./table.ts";

/** A server of an earlier version says nothing of mirrors. */
type BackupAnswer = Omit<BackupResult, "mirrors"> & Partial<Pick<BackupResult, "mirrors">>;

/** Starts a backup and follows it. */
export async function backup(
  run: CommandRun,
  own: { readonly name?: string },
): Promise<CommandEnd> {
  const client = await connect(run);
  const body = own.name === undefined ? {} : { name: own.name };
  const record = await client.post<OperationRecord>("/v1/backups", body);
  return await finish(run, client, record, {
    text: (result, ended) => describe(result as BackupAnswer, ended),
    code: (result) => ((result as BackupResult).complete ? EXIT.done : EXIT.incomplete),
  });
}

function describe(result: BackupAnswer, record: OperationRecord): string {
  const { totals } = result;
  const reused = Math.max(0, totals.bytes - totals.newBytes);
  const lines = renderPairs([
    ["backup", result.name],
    ["id", result.backup],
    ["state", describeState(result)],
    ["files", count(totals.files)],
    ["size", size(totals.bytes)],
    ["read", size(result.readBytes)],
    ["new", `${size(totals.newBytes)}, stored as ${size(totals.storedBytes)}`],
    ["reused", size(reused)],
    ["took", between(record.started, record.ended ?? record.started)],
  ]);
  const { mirrors = [] } = result;
  return [
    lines,
    ...mirrorLines(mirrors),
    ...result.problems.slice(0, 20).map((problem) => `  ${problem}`),
  ].join("\n");
}

function describeState(result: BackupAnswer): string {
  const quality = qualityOf(result);
  const { problemCount } = result;
  if (problemCount === 0) return quality;
  return `${quality}, ${count(problemCount)} ${problemCount === 1 ? "problem" : "problems"}`;
}
