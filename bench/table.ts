/**
 * Figures as tables in Markdown: a table for each row, a line for each tool, and how we stand beside
 * the best peer of each column. Limits (`cp`, `rsync`, `tar`) are shown and never the best peer.
 */
import type { Figure } from "./tool-run.ts";

const MEBIBYTE = 1024 * 1024;

/** All rows. `questions` says what each asks. */
export function renderTables(
  figures: readonly Figure[],
  questions: Readonly<Record<string, string>>,
): string {
  const rows = [...new Set(figures.map((figure) => figure.row))];
  return rows
    .map((row) => {
      const ofRow = figures.filter((figure) => figure.row === row);
      return [`### ${row}`, "", questions[row] ?? "", "", ...renderRow(ofRow), ""].join("\n");
    })
    .join("\n");
}

function renderRow(figures: readonly Figure[]): string[] {
  const ours = figures.find((figure) => figure.tool === "astacus" && figure.error === undefined);
  const lines = figures.map((figure) => renderFigure(figure, ours));
  return [
    "| tool | runs | wall s | CPU s | ours / its wall | ours / its CPU | peak MiB | stored MiB | objects | verified | |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
    ...lines,
    ...(ours === undefined ? [] : ["", renderVerdict(ours, figures)]),
  ];
}

function renderFigure(figure: Figure, ours: Figure | undefined): string {
  if (figure.error !== undefined) {
    return `| ${figure.tool} | failed: ${figure.error.slice(0, 200).replaceAll(/[|\n]/g, " ")} |`;
  }
  const isOther = ours !== undefined && figure !== ours;
  const stored = figure.storedBytes === undefined ? "" : (figure.storedBytes / MEBIBYTE).toFixed(1);
  const cells = [
    figure.isLimit === true ? `_${figure.tool}_` : figure.tool,
    figure.runCount,
    seconds(figure.wallMs),
    seconds(figure.cpuMs),
    isOther ? (ours.wallMs / figure.wallMs).toFixed(2) : "",
    isOther ? (ours.cpuMs / figure.cpuMs).toFixed(2) : "",
    Math.round(figure.peakBytes / MEBIBYTE),
    stored,
    figure.objectCount ?? "",
    figure.isVerified === true ? "yes" : "",
    renderOwn(figure),
  ];
  return `| ${cells.join(" | ")} |`;
}

/** What only our own process tells. */
function renderOwn(figure: Figure): string {
  const parts: string[] = [];
  if (figure.readBytes !== undefined) {
    parts.push(`read ${(figure.readBytes / MEBIBYTE).toFixed(1)} MiB`);
  }
  const requests = Object.entries(figure.requests ?? {}).filter(([, count]) => count > 0);
  if (requests.length > 0)
    parts.push(requests.map(([kind, count]) => `${count} ${kind}`).join(", "));
  return parts.join("; ");
}

function renderVerdict(ours: Figure, figures: readonly Figure[]): string {
  const peers = figures.filter(
    (figure) => figure !== ours && figure.isLimit !== true && figure.error === undefined,
  );
  if (peers.length === 0) return "No peer ran.";
  const beside = (pick: (figure: Figure) => number): string => {
    const best = peers.reduce((left, right) => (pick(right) < pick(left) ? right : left));
    return `${(pick(ours) / pick(best)).toFixed(2)} (${best.tool})`;
  };
  const stored = peers.every((figure) => (figure.storedBytes ?? 0) > 0)
    ? `, stored ${beside((figure) => figure.storedBytes ?? 0)}`
    : "";
  const wall = beside((figure) => figure.wallMs);
  const cpu = beside((figure) => figure.cpuMs);
  return `Beside the best peer: wall ${wall}, CPU ${cpu}${stored}.`;
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(ms < 1000 ? 3 : 2);
}
