/**
 * `astacus status`, `cancel`, `reload` and `check-reload`.
 */
import { AppError } from "../base/error.ts";
import type { OperationRecord } from "../cluster/operations.ts";
import type { ClusterStatus } from "../cluster/status.ts";
import type { Applied } from "../server/server-context.ts";
import { print, printDone } from "./command.ts";
import type { CommandEnd, CommandRun } from "./command.ts";
import type { Client } from "./client.ts";
import { connect } from "./connect.ts";
import { describeScrubbing } from "./command-scrub.ts";
import { EXIT } from "./exit-code.ts";
import { siteTable, usageLines } from "./site-text.ts";
import { age, between, count, renderPairs, renderTable, time } from "./table.ts";

const RECENT_SHOWN = 5;

/** Shows the cluster. Ends with 1 if a node or the site does not answer. */
export async function status(run: CommandRun): Promise<CommandEnd> {
  const client = await connect(run);
  const state = await client.get<ClusterStatus>("/v1/status");
  print(run, state, () => renderStatus(state));
  const isWell = state.siteError === undefined && state.nodes.every((node) => node.reachable);
  return isWell ? EXIT.done : EXIT.failed;
}

/** Stops an operation; takes the first letters of an id too. */
export async function cancel(run: CommandRun, wanted: string): Promise<CommandEnd> {
  const client = await connect(run);
  const id = await findOperation(client, wanted);
  const record = await client.post<OperationRecord>(`/v1/operations/${id}/cancel`, {
    reason: "astacus cancel",
  });
  return printDone(run, record, () => `${record.kind} ${record.id} is being cancelled`);
}

/** Has the server read its file again. Ends with 3 if its node is not ready with it. */
export async function reload(run: CommandRun): Promise<CommandEnd> {
  const client = await connect(run);
  const answer = await client.post<Applied & { readonly hash: string }>("/v1/config/reload");
  const { node, reason = "", guidance } = answer;
  print(run, answer, () => RELOADED[node]);
  if (node !== "open") run.terminal.say(reason);
  if (guidance !== undefined) run.terminal.say(`  ${guidance}`);
  return node === "open" || node === "busy" ? EXIT.done : EXIT.unreachable;
}

const RELOADED: Readonly<Record<Applied["node"], string>> = {
  open: "The configuration was read again, and the node works with it.",
  busy: "The configuration was read again; the node takes it over when what runs now has ended.",
  opening: "The configuration was read again; the node is still being opened with it.",
  failed: "The configuration was read again, and the node cannot be opened with it; it tries on.",
};

/** Compares the file on the server's disk with what it has read. */
export async function checkReload(
  run: CommandRun,
  own: { readonly status?: boolean },
): Promise<CommandEnd> {
  const client = await connect(run);
  const state = await client.get<{ config_hash: string; needs_reload: boolean }>("/config/status");
  if (own.status === true || run.options.json === true) {
    const text = state.needs_reload ? "The file has changed: reload." : "The file is as loaded.";
    print(run, state, () => text);
  }
  return state.needs_reload ? EXIT.failed : EXIT.done;
}

async function findOperation(client: Client, wanted: string): Promise<string> {
  if (/^[0-9a-f]{32}$/.test(wanted)) return wanted;
  const { operations } = await client.get<{ operations: OperationRecord[] }>("/v1/operations");
  const found = operations.filter(
    (record) => record.id.startsWith(wanted) && record.ended === undefined,
  );
  const only = found[0];
  if (only !== undefined && found.length === 1) return only.id;
  const what = found.length === 0 ? "No running operation begins" : "Several operations begin";
  throw new AppError("not-found", `${what} with ${wanted}.`, {
    guidance: "`astacus status` shows what runs.",
  });
}

function renderStatus(state: ClusterStatus): string {
  const { lastComplete, site } = state;
  const newest =
    lastComplete === undefined
      ? "none yet"
      : `${lastComplete.name}, ${age(lastComplete.ageSeconds)} old` +
        (lastComplete.degraded ? ", degraded" : "");
  const head = renderPairs([
    ["cluster", `${state.cluster} (${state.product}), asked at node ${state.node}`],
    ["version", state.version],
    ["site", `${site.name} at ${site.location}`],
    ...(state.notice === undefined ? [] : [["NOTICE", state.notice] as const]),
    ...(state.warnings ?? []).map((warning) => ["WARNING", warning] as const),
    ...(state.siteError === undefined ? [] : [["log", `UNREAD: ${state.siteError}`] as const]),
    ["repository", `${state.repository}, log at ${count(state.sequence)}`],
    ["backups", count(state.backups)],
    ["newest", newest],
  ]);
  const nodes = renderTable(
    [{ title: "NODE" }, { title: "ZONE" }, { title: "ADDRESS" }, { title: "STATE" }],
    state.nodes.map((node) => [node.name, node.zone, node.address, describeNode(node)]),
  );
  const { sites = [] } = state;
  const siteLines = [
    ...(sites.length > 1 || sites.some((one) => one.storagePerMonth ?? one.lock)
      ? ["", siteTable(sites)]
      : []),
    ...usageLines(sites).map((line) => `Since this server began, ${line}`),
  ];
  const { scrub = [] } = state;
  const scrubLines = scrub.length === 0 ? [] : ["", "Scrubbing:", describeScrubbing(scrub)];
  return [
    head,
    "",
    nodes,
    ...siteLines,
    ...scrubLines,
    ...renderOperations("Running", state.running),
    ...recent(state),
  ].join("\n");
}

function describeNode(node: ClusterStatus["nodes"][number]): string {
  if (!node.reachable) return `DOWN: ${node.error ?? "no answer"}`;
  const lease = node.lease === undefined ? "idle" : `in a ${node.lease.kind}`;
  return `up (${node.version ?? "?"}), ${lease}`;
}

function recent(state: ClusterStatus): string[] {
  const ended = state.recent.filter((record) => record.ended !== undefined);
  return renderOperations("Recent", ended.slice(0, RECENT_SHOWN));
}

function renderOperations(title: string, records: readonly OperationRecord[]): string[] {
  if (records.length === 0) return [];
  const lines = records.map((record) => {
    const took = record.ended === undefined ? "" : `, ${between(record.started, record.ended)}`;
    const why = record.error === undefined ? "" : `: ${record.error.message}`;
    const id = record.id.slice(0, 12);
    return `  ${id}  ${record.kind} ${record.state}, ${time(record.started)}${took}${why}`;
  });
  return ["", `${title}:`, ...lines];
}
