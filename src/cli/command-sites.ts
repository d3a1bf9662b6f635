/**
 * `astacus site list`, `site promote`, `site update`, and `astacus sync`.
 */
import type { MirrorReport } from "../cluster/mirror-operation.ts";
import type { OperationRecord } from "../cluster/operations.ts";
import type { PromoteResult, UpdateResult } from "../cluster/promote-operation.ts";
import type { SiteStatus } from "../cluster/site-status.ts";
import { print } from "./command.ts";
import type { CommandEnd, CommandRun } from "./command.ts";
import { connect } from "./connect.ts";
import { EXIT } from "./exit-code.ts";
import { finish } from "./finish.ts";
import { mirrorLines, promoteText, siteTable } from "./site-text.ts";

/** Lists the sites. Ends with 1 if one that is configured does not answer. */
export async function listSites(run: CommandRun): Promise<CommandEnd> {
  const client = await connect(run);
  const answer = await client.get<{ sites: SiteStatus[] }>("/v1/sites");
  print(run, answer, () => siteTable(answer.sites));
  return answer.sites.every((site) => site.reachable) ? EXIT.done : EXIT.failed;
}

/** Makes a mirror the primary. Ends with 1 if backups were lost. */
export async function promote(run: CommandRun, site: string): Promise<CommandEnd> {
  const client = await connect(run);
  const path = `/v1/sites/${encodeURIComponent(site)}/promote`;
  const record = await client.post<OperationRecord>(path, {});
  return await finish(run, client, record, {
    text: (result) => promoteText(result as PromoteResult),
    code: (result) => {
      const { missing, isKnown } = result as PromoteResult;
      return missing.length > 0 || !isKnown ? EXIT.failed : EXIT.done;
    },
  });
}

/** Brings mirrors up to date. Ends with 1 if one still lags. */
export async function sync(run: CommandRun, sites: readonly string[]): Promise<CommandEnd> {
  const client = await connect(run);
  const body = sites.length === 0 ? {} : { sites };
  const record = await client.post<OperationRecord>("/v1/sync", body);
  const mirrorsOf = (result: unknown): readonly MirrorReport[] =>
    (result as { readonly mirrors: readonly MirrorReport[] }).mirrors;
  return await finish(run, client, record, {
    text: (result) => {
      const lines = mirrorLines(mirrorsOf(result));
      return lines.length === 0 ? "There are no mirrors." : lines.join("\n");
    },
    code: (result) =>
      mirrorsOf(result).some(({ state }) => state === "lagging") ? EXIT.failed : EXIT.done,
  });
}

/** Enters the retention of sites as the server's configuration has it now. */
export async function update(run: CommandRun): Promise<CommandEnd> {
  const client = await connect(run);
  const record = await client.post<OperationRecord>("/v1/sites/update", {});
  return await finish(run, client, record, {
    text: (result) => {
      const { changed } = result as UpdateResult;
      return changed.length === 0 ? "Nothing has changed." : `Entered anew: ${changed.join(", ")}.`;
    },
  });
}
