/**
 * Text for people: tables with aligned columns, sizes, ages.
 */
import { formatDuration, formatSize } from "../base/units.ts";

/** A column: its title, and whether numbers stand in it. */
export type Column = { readonly title: string; readonly isNumber?: boolean };

/** A table; the last column is not padded. */
export function renderTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
): string {
  const all = [columns.map((column) => column.title), ...rows];
  const widths = columns.map((_, index) =>
    Math.max(...all.map((row) => Bun.stringWidth(row[index] ?? ""))),
  );
  const lines = all.map((row) =>
    row
      .map((cell, index) => {
        const space = " ".repeat(Math.max(0, (widths[index] ?? 0) - Bun.stringWidth(cell)));
        return columns[index]?.isNumber === true ? space + cell : cell + space;
      })
      .join("  ")
      .trimEnd(),
  );
  return lines.join("\n");
}

/** Lines of `name  value`, aligned. */
export function renderPairs(pairs: readonly (readonly [string, string])[]): string {
  const width = Math.max(...pairs.map(([name]) => name.length));
  return pairs.map(([name, value]) => `${name.padEnd(width)}  ${value}`.trimEnd()).join("\n");
}

/** `1.5 GiB`. */
export function size(bytes: number): string {
  return formatSize(bytes);
}

/** `12,345`. */
export function count(value: number): string {
  return value.toLocaleString("en");
}

/** `1 backup`, `12,345 backups`. */
export function counted(value: number, one: string): string {
  return `${count(value)} ${one}${value === 1 ? "" : "s"}`;
}

/** How old something is; in seconds, since nobody asks for less. */
export function age(seconds: number): string {
  return seconds < 1 ? "0s" : formatDuration(seconds * 1000);
}

/** How long something took. */
export function between(started: string, ended: string): string {
  return formatDuration(Math.max(0, Date.parse(ended) - Date.parse(started)));
}

/** `2026-11-22 18:00:00`, UTC. */
export function time(iso: string): string {
  return iso.replace("T", " ").replace(/(\.\d+)?(Z|\+00:00)$/, "");
}
