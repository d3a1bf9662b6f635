/**
 * A ledger of points that a database has acknowledged: text, one line a point, appended when the
 * acknowledgement came, so that it holds nothing that was not promised and its order is that of the
 * promises. A line is `acknowledged series time value`, times in milliseconds. A last line without
 * its end is what a killed writer left, and does not count.
 */
import * as fs from "node:fs";
import type { Point } from "./m3-http.ts";

/** A point and when it was acknowledged, by this machine's clock. */
export type LedgerEntry = Point & {
  readonly acknowledgedMs: number;
  /** From 0. */
  readonly series: number;
};

/** Every series of a ledger has this name with its number behind. */
export const SERIES_PREFIX = "realm_ledger_";

/** Appends to a ledger; what was written is in the file, though not yet on the disk. */
export class LedgerWriter implements Disposable {
  readonly #handle: number;

  constructor(path: string) {
    this.#handle = fs.openSync(path, "a");
  }

  append(entry: LedgerEntry): void {
    const { acknowledgedMs, series, timeMs, value } = entry;
    fs.writeSync(this.#handle, `${acknowledgedMs} ${series} ${timeMs} ${value}\n`);
  }

  [Symbol.dispose](): void {
    fs.closeSync(this.#handle);
  }
}

/** All entries of a ledger; none if there is no file. Throws at a line that is none. */
export function readLedger(path: string): LedgerEntry[] {
  if (!fs.existsSync(path)) return [];
  const lines = fs.readFileSync(path, "utf8").split("\n");
  return lines.slice(0, -1).map((line, index) => {
    const [acknowledgedMs = Number.NaN, series = Number.NaN, timeMs = Number.NaN, value] = line
      .split(" ")
      .map(Number);
    if (value === undefined || [acknowledgedMs, series, timeMs, value].some(Number.isNaN)) {
      throw new Error(`${path}:${index + 1} is not a line of a ledger: ${line}`);
    }
    return { acknowledgedMs, series, timeMs, value };
  });
}
