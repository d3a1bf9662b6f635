/**
 * `astacus restore`: onto the cluster by a server, or into a folder straight from the site. What is
 * there already is only touched after somebody has seen the plan, or with --yes.
 */
import { resolve } from "node:path";
import { AppError } from "../base/error.ts";
import type { OperationRecord } from "../cluster/operations.ts";
import type {
  ClusterRestorePlan,
  RestoreRequest,
  RestoreResult,
} from "../cluster/restore-operation.ts";
import { print, sayNotice } from "./command.ts";
import type { CommandEnd, CommandRun } from "./command.ts";
import { connect } from "./connect.ts";
import { EXIT } from "./exit-code.ts";
import { finish } from "./finish.ts";
import { loadIdentities } from "./identities.ts";
import { between, count, renderPairs, size } from "./table.ts";
import { renderClusterPlan } from "./restore-plan-text.ts";

/** Its own options. */
export type RestoreOptions = {
  readonly backup?: string;
  readonly node?: readonly string[];
  readonly path?: readonly string[];
  readonly to?: string;
  readonly plan?: boolean;
  readonly yes?: boolean;
  readonly incomplete?: boolean;
};

/** Restores. */
export async function restore(run: CommandRun, own: RestoreOptions): Promise<CommandEnd> {
  if (own.to !== undefined) {
    const { restoreToFolder } = await import("./command-restore-to.ts");
    return await restoreToFolder(run, { ...own, to: resolve(own.to) });
  }
  const client = await connect(run, { sendsIdentities: true });
  const identities = await loadIdentities(run);
  let request = { ...requestOf(own), ...(identities.length === 0 ? {} : { identities }) };
  if (own.yes !== true || own.plan === true) {
    const asked = await client.post<ClusterRestorePlan>("/v1/restores/plan", request);
    const plan = sayNotice(run, asked);
    const text = (): string => renderClusterPlan(plan);
    const isRefused = plan.refusals.length > 0;
    if (own.plan === true) {
      print(run, plan, text);
      return isRefused ? EXIT.refused : EXIT.done;
    }
    run.terminal.say(text());
    if (isRefused) throw refusedPlan(plan.refusals);
    await mustAgree(run);
    // What was agreed to is this backup, whatever is the newest by now.
    request = { ...request, backup: plan.backup.id };
  }
  const record = await client.post<OperationRecord>("/v1/restores", request);
  return await finish(run, client, record, {
    text: (result, ended) => describe(result as RestoreResult, ended),
  });
}

/** Asks, or says that --yes is needed where nobody can be asked. */
export async function mustAgree(run: CommandRun): Promise<void> {
  if (!run.terminal.canAsk) {
    throw new AppError("refused", "A restore writes over what is there, so it needs --yes here.", {
      guidance: "--plan shows what it would do.",
      context: { reason: "needs-yes" },
    });
  }
  if (await run.terminal.ask("Restore?")) return;
  throw new AppError("refused", "Nothing was done.", { context: { reason: "not-agreed" } });
}

/** The error for a plan with refusals. */
export function refusedPlan(refusals: readonly string[]): AppError {
  return new AppError("refused", `The restore was refused: ${refusals.join("; ")}`, {
    guidance: "Clear the way, or restore to another place with --to DIR.",
    context: { reason: "plan-refused" },
  });
}

function requestOf(own: RestoreOptions): RestoreRequest {
  const nodes = own.node?.map((pair) => {
    const [from = "", to = from, ...rest] = pair.split("=");
    if (from !== "" && to !== "" && rest.length === 0) return { from, to };
    throw new AppError("usage", `--node ${pair}: it looks like FROM or FROM=TO.`);
  });
  return {
    ...(own.backup === undefined ? {} : { backup: own.backup }),
    ...(nodes === undefined ? {} : { nodes }),
    ...(own.path === undefined ? {} : { paths: own.path }),
    ...(own.incomplete === true ? { incomplete: true } : {}),
  };
}

function describe(result: RestoreResult, record: OperationRecord): string {
  const { totals } = result;
  const owners = totals.ownersNotSet;
  return renderPairs([
    ["restored", result.name],
    [
      "nodes",
      result.nodes.map(({ from, to }) => (from === to ? to : `${from} → ${to}`)).join(", "),
    ],
    ["written", `${count(totals.filesWritten)} files, ${size(totals.bytesWritten)}`],
    ["kept", `${count(totals.filesKept)} files that matched`],
    ...(totals.filesRemoved === 0 ? [] : [["removed", count(totals.filesRemoved)] as const]),
    ...(owners === 0 ? [] : [["owners not set", `${count(owners)} (not allowed)`] as const]),
    ["fetched", size(totals.fetchedBytes)],
    ["took", between(record.started, record.ended ?? record.started)],
  ]);
}
