/**
 * `astacus list` and `astacus show`, from a server or straight from the site.
 */
import type { BackupDetail, BackupSummary } from "../cluster/backup-summary.ts";
import { qualityOf } from "../cluster/backup-quality.ts";
import { printDone, sayNotice } from "./command.ts";
import type { CommandEnd, CommandRun } from "./command.ts";
import { connect } from "./connect.ts";
import { isOffline } from "./reader.ts";
import { between, count, counted, renderPairs, renderTable, size, time } from "./table.ts";

const PROBLEMS_SHOWN = 20;
const CLOSED =
  "This is what the log says: nodes, volumes and problems are sealed, and no identity was given " +
  "that opens them (--identity).";

/** Lists backups, oldest first. */
export async function list(run: CommandRun, own: { readonly all?: boolean }): Promise<CommandEnd> {
  const forgotten = own.all === true;
  const answer = await readBackups(run, forgotten);
  for (const warning of answer.warnings ?? []) run.terminal.say(`WARNING: ${warning}`);
  return printDone(run, answer, () => renderList(answer.backups));
}

type Answer = {
  readonly backups: readonly BackupSummary[];
  readonly notice?: string;
  readonly warnings?: readonly string[];
};

async function readBackups(run: CommandRun, forgotten: boolean): Promise<Answer> {
  if (isOffline(run)) {
    const { withOffline } = await import("./offline.ts");
    return await withOffline(run, async (offline, { notice }) => {
      const backups = offline.listBackups({ forgotten });
      return { backups, ...(notice === undefined ? {} : { notice }) };
    });
  }
  const client = await connect(run);
  const query = { forgotten: forgotten ? true : undefined };
  return sayNotice(run, await client.get<Answer>("/v1/backups", query));
}

/** Shows one backup. */
export async function show(run: CommandRun, wanted: string): Promise<CommandEnd> {
  const detail = await readBackup(run, wanted);
  return printDone(run, detail, () => renderDetail(detail));
}

async function readBackup(run: CommandRun, wanted: string): Promise<BackupDetail> {
  if (isOffline(run)) {
    const { withOffline } = await import("./offline.ts");
    return await withOffline(run, async (offline, { notice }) => {
      const detail = await offline.showBackup(wanted);
      return { ...detail, ...(notice === undefined ? {} : { notice }) };
    });
  }
  const client = await connect(run);
  const path = `/v1/backups/${encodeURIComponent(wanted)}`;
  return sayNotice(run, await client.get<BackupDetail>(path));
}

function renderList(backups: readonly BackupSummary[]): string {
  if (backups.length === 0) return "No backups.";
  const isOneCluster = new Set(backups.map((backup) => backup.cluster)).size === 1;
  const hasSites = backups.some(({ sites }) => Object.keys(sites).length > 1);
  const columns = [
    { title: "NAME" },
    ...(isOneCluster ? [] : [{ title: "CLUSTER" }]),
    { title: "ENDED (UTC)" },
    { title: "TOOK", isNumber: true },
    { title: "NODES", isNumber: true },
    { title: "FILES", isNumber: true },
    { title: "SIZE", isNumber: true },
    { title: "NEW", isNumber: true },
    { title: "STORED", isNumber: true },
    { title: "STATE" },
    ...(hasSites ? [{ title: "SITES" }] : []),
    { title: "KEEP" },
  ];
  const rows = backups.map((backup) => [
    backup.name,
    ...(isOneCluster ? [] : [backup.cluster]),
    time(backup.ended),
    between(backup.started, backup.ended),
    count(backup.nodes.length),
    count(backup.files),
    size(backup.bytes),
    size(backup.newBytes),
    size(backup.storedBytes),
    stateOf(backup),
    ...(hasSites ? [placesText(backup)] : []),
    `${backup.keep ? "yes" : "no"}: ${backup.reasons.join(", ")}`,
  ]);
  return renderTable(columns, rows);
}

/** What each site has of a backup; those that are not to have it are left out. */
function placesText({ sites }: BackupSummary): string {
  return Object.entries(sites)
    .filter(([, state]) => state !== "-")
    .map(([name, state]) => `${name} ${state}`)
    .join(", ");
}

function stateOf(backup: BackupSummary): string {
  if (backup.forgotten !== undefined) return "forgotten";
  const quality = qualityOf(backup);
  const state = quality === "incomplete" ? "INCOMPLETE" : quality;
  return backup.pinned ? `${state}, pinned` : state;
}

function renderDetail(detail: BackupDetail): string {
  const pairs = renderPairs([
    ["backup", detail.name],
    ["id", detail.id],
    ["cluster", detail.cluster],
    ["product", detail.product],
    ["started", `${time(detail.started)} UTC`],
    ["ended", `${time(detail.ended)} UTC (${between(detail.started, detail.ended)})`],
    ["state", stateOf(detail)],
    ["files", count(detail.files)],
    ["size", size(detail.bytes)],
    ["new", `${size(detail.newBytes)}, stored as ${size(detail.storedBytes)}`],
    ["site", detail.site],
    ...(Object.keys(detail.sites).length > 1 ? [["sites", placesText(detail)] as const] : []),
    ...(detail.provedAt === undefined
      ? []
      : [["proved", `${time(detail.provedAt)} UTC: all was read, and was right`] as const]),
    ["keep", `${detail.keep ? "yes" : "no"}: ${detail.reasons.join(", ")}`],
    ...(detail.forgotten === undefined
      ? []
      : [["forgotten", `${time(detail.forgotten.time)} UTC: ${detail.forgotten.reason}`] as const]),
  ]);
  const shares = renderTable(
    [
      { title: "NODE" },
      { title: "ZONE" },
      { title: "VOLUME" },
      { title: "FILES", isNumber: true },
      { title: "SIZE", isNumber: true },
      { title: "ROOT" },
    ],
    detail.shares
      .toSorted((a, b) => (a.name < b.name ? -1 : 1))
      .flatMap((share) =>
        share.volumes.map((volume) => [
          share.name,
          share.zone,
          volume.name,
          count(volume.files),
          size(volume.bytes),
          volume.root,
        ]),
      ),
  );
  const rest = detail.closed === true ? [CLOSED] : [shares, ...renderProblems(detail)];
  return [pairs, "", ...rest].join("\n");
}

function renderProblems(detail: BackupDetail): string[] {
  if (detail.problemCount === 0) return [];
  const shown = detail.problems.slice(0, PROBLEMS_SHOWN);
  const lines = shown.map((one) => `  ${one.node}: ${one.kind} ${one.path}: ${one.message}`);
  const more = detail.problemCount - shown.length;
  const rest = more > 0 ? [`  … and ${count(more)} more (--json shows all that were kept)`] : [];
  return ["", `${counted(detail.problemCount, "problem")}:`, ...lines, ...rest];
}
