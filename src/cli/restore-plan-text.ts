/**
 * Plans of restores in words.
 */
import { formatDuration } from "../base/units.ts";
import { textFromPath } from "../base/path.ts";
import { qualityOf } from "../cluster/backup-quality.ts";
import type { OfflinePlan } from "../cluster/offline.ts";
import type { ClusterRestorePlan } from "../cluster/restore-operation.ts";
import { count, renderTable, size } from "./table.ts";

type Row = {
  readonly node: string;
  readonly volume: string;
  readonly target: string;
  readonly filesToWrite: number;
  readonly bytesToWrite: number;
  readonly filesKept: number;
  readonly extraFiles: number;
  readonly extraRemoved: boolean;
};

/** The plan for a cluster. */
export function renderClusterPlan(plan: ClusterRestorePlan): string {
  const rows = plan.nodes.flatMap((node) =>
    node.volumes.map((volume) => ({
      node: node.from === node.to ? node.to : `${node.from} → ${node.to}`,
      ...volume,
    })),
  );
  const estimate =
    plan.estimateMs === undefined ? [] : [`About ${formatDuration(plan.estimateMs)}.`];
  return render(plan.backup, rows, [...estimate, ...describeRefusals(plan.refusals)]);
}

/** The plan for a folder. */
export function renderFolderPlan(plan: OfflinePlan): string {
  const rows = plan.volumes.map(({ outcome, ...place }) => ({
    ...place,
    ...outcome,
    target: place.target,
    extraRemoved: false,
  }));
  return render(plan.backup, rows, describeRefusals(plan.refusals));
}

function render(
  backup: { readonly name: string; readonly complete: boolean; readonly degraded: boolean },
  rows: readonly Row[],
  tail: readonly string[],
): string {
  const table = renderTable(
    [
      { title: "NODE" },
      { title: "VOLUME" },
      { title: "WRITE", isNumber: true },
      { title: "SIZE", isNumber: true },
      { title: "KEEP", isNumber: true },
      { title: "OTHER FILES" },
      { title: "INTO" },
    ],
    rows.map((row) => [
      row.node,
      row.volume,
      count(row.filesToWrite),
      size(row.bytesToWrite),
      count(row.filesKept),
      row.extraFiles === 0
        ? "none"
        : `${count(row.extraFiles)} ${row.extraRemoved ? "REMOVED" : "left alone"}`,
      textFromPath(row.target),
    ]),
  );
  const quality = qualityOf(backup);
  const mark = { complete: "", degraded: " (degraded)", incomplete: " (INCOMPLETE)" }[quality];
  const title = `Backup ${backup.name}${mark}:`;
  return [title, table, ...tail].join("\n");
}

function describeRefusals(refusals: readonly string[]): string[] {
  if (refusals.length === 0) return [];
  return ["Refused:", ...refusals.map((refusal) => `  ${refusal}`)];
}
