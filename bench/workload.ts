/**
 * A generated source tree: how it is made, and how it changes between two backups. All of it comes
 * from a seed. Modification times are set into the past, since some tools (we among them) do not
 * trust a file that changed within the last seconds, and would read it again.
 */
import { appendFileSync, mkdirSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

/** One kind of source. */
export type Workload = {
  readonly name: string;
  /** What it stands for. */
  readonly about: string;
  /** Writes the first state into an empty folder. */
  create(folder: string): void;
  /** Brings it to the next state; `number` counts from 1. */
  step(folder: string, number: number): void;
  /** Patterns of files that never change, and of those that only grow. */
  readonly immutable?: readonly string[];
  readonly appendOnly?: readonly string[];
};

/** Pieces in which long files are made. */
export const PIECE_SIZE_BYTES = 4 * 1024 * 1024;

/** Some fixed moment of the past; each step is an hour later. */
const PAST_S = 1_700_000_000;

/** Writes a file in pieces, its folders too. */
export function writeTreeFile(
  path: string,
  sizeBytes: number,
  make: (sizeBytes: number) => Uint8Array,
  stepNumber = 0,
): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, make(Math.min(sizeBytes, PIECE_SIZE_BYTES)));
  for (let done = PIECE_SIZE_BYTES; done < sizeBytes; done += PIECE_SIZE_BYTES) {
    appendFileSync(path, make(Math.min(sizeBytes - done, PIECE_SIZE_BYTES)));
  }
  setPastTime(path, stepNumber);
}

/** Makes a file look as if it was last changed at that step, long ago. */
export function setPastTime(path: string, stepNumber: number): void {
  const time = PAST_S + stepNumber * 3600;
  utimesSync(path, time, time);
}

/** `join` that pads numbers, so that listings sort as they count. */
export function pathOf(folder: string, ...parts: (string | number)[]): string {
  const named = parts.map((part) =>
    typeof part === "number" ? String(part).padStart(4, "0") : part,
  );
  return join(folder, ...named);
}
