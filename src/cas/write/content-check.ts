/**
 * Checks of contents while they pass: the thread that reads a file for a backup shows the same bytes
 * to a check that a product has named, so that what lies on the disk is proved against the database's
 * own checksums without a second read. Checks are code and live in a module of their own, which each
 * thread loads; what crosses threads is a name and a finding.
 */
import { AppError } from "../../base/error.ts";

/** What a check says of a file: plain data, for the product that named the check. */
export type Finding =
  | null
  | boolean
  | number
  | string
  | readonly Finding[]
  | { readonly [key: string]: Finding };

/** One check of one file. A check keeps nothing of the bytes it is shown: they are overwritten. */
export interface ContentCheck {
  /** All bytes that are read, in order, in pieces of any size. */
  update(bytes: Uint8Array): void;
  /** After the last of them. A check throws for its own defects only: that ends the backup. */
  finish(): Finding;
}

/** Where a check begins. */
export type ContentCheckStart = {
  /** Where in the file the first bytes lie. */
  readonly offset: number;
  /**
   * Of a resumed append-only file its size when it was last stored: what lies before it was checked
   * then, though the bytes from `offset` are shown again. 0 when the file is read from its start.
   */
  readonly verifiedBytes: number;
};

/** Begins a check; once for each time that a file is read. */
export type ContentCheckFactory = (start: ContentCheckStart) => ContentCheck;

/** The checks that a thread knows, by name. */
export type ContentChecks = { readonly [name: string]: ContentCheckFactory };

/** Where threads have their checks from. */
export type CheckSource = {
  /** For reading in this thread. */
  readonly checks: ContentChecks;
  /** The address of a module that exports the same as `contentChecks`, for workers. */
  readonly module: string;
};

/** Begins the named check; AppError `internal` if there is none, or it fails. */
export function beginCheck(
  checks: ContentChecks,
  name: string,
  start: ContentCheckStart,
): ContentCheck {
  const begin = Object.hasOwn(checks, name) ? checks[name] : undefined;
  if (begin === undefined) throw new AppError("internal", `There is no content check ${name}.`);
  const check = guarded(name, () => begin(start));
  return {
    update: (bytes) => guarded(name, () => check.update(bytes)),
    finish: () => guarded(name, () => check.finish()),
  };
}

/** Whatever a check throws is a defect of the check: what it says of the file counts for nothing. */
function guarded<Result>(name: string, call: () => Result): Result {
  try {
    return call();
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new AppError("internal", `The content check ${name} failed: ${why}`, { cause });
  }
}
