/**
 * The one error that crosses layers. `AppError` is for what the world can break (a full disk, a
 * wrong token, a damaged pack); what only a bug can break is an `assert`. Every AppError says what
 * is wrong, what to do next, and whether trying again can help.
 */

/** What went wrong, coarsely: decides exit codes, HTTP codes and retries. */
export type ErrorKind =
  | "usage" // the caller asked for something that makes no sense
  | "config" // the configuration is wrong
  | "not-found" // a named thing is not there
  | "conflict" // somebody else holds it, or it is there already
  | "refused" // it could be done and must not
  | "permission" // credentials, owners, modes
  | "unavailable" // a site, node or database does not answer
  | "timeout" // it did not answer in time
  | "damaged" // stored bytes are not what they should be
  | "no-space" // a disk or bucket is full
  | "incomplete" // the operation ended, and something is missing
  | "cancelled" // somebody asked for it to stop
  | "internal"; // a defect of ours

/** Everything an AppError is made of. */
export type AppErrorOptions = {
  /** What to do next, as a full sentence. */
  readonly guidance?: string;
  /** True where the same call may succeed later, unchanged. */
  readonly retryable?: boolean;
  /** Ids and names that help to find the place; never secrets. */
  readonly context?: Readonly<Record<string, string | number | boolean>>;
  readonly cause?: unknown;
};

/** How an AppError looks on the wire and in `--json`. */
export type AppErrorJson = {
  readonly kind: ErrorKind;
  readonly message: string;
  readonly guidance?: string;
  readonly retryable: boolean;
  readonly context?: Readonly<Record<string, string | number | boolean>>;
};

/** An error of the world, with advice. */
export class AppError extends Error {
  override readonly name = "AppError";
  readonly kind: ErrorKind;
  readonly retryable: boolean;
  readonly guidance: string | undefined;
  readonly context: Readonly<Record<string, string | number | boolean>>;

  constructor(kind: ErrorKind, message: string, options: AppErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.kind = kind;
    this.guidance = options.guidance;
    this.retryable = options.retryable ?? (kind === "unavailable" || kind === "timeout");
    this.context = options.context ?? {};
  }

  /** The wire form: everything but stack and cause. */
  toJSON(): AppErrorJson {
    return {
      kind: this.kind,
      message: this.message,
      ...(this.guidance === undefined ? {} : { guidance: this.guidance }),
      retryable: this.retryable,
      ...(Object.keys(this.context).length === 0 ? {} : { context: this.context }),
    };
  }
}

/** Any thrown thing as an AppError; what is not one already becomes `internal`. */
export function toAppError(thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown;
  if (thrown instanceof Error && thrown.name === "AbortError") {
    return new AppError("cancelled", "The operation was cancelled.", { cause: thrown });
  }
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const code = thrown instanceof Error && "code" in thrown ? String(thrown.code) : "";
  const meaning = code.startsWith("SQLITE_") ? databaseMeaning(code) : undefined;
  if (meaning === undefined) return new AppError("internal", message, { cause: thrown });
  const [kind, guidance] = meaning;
  return new AppError(kind, `The local database in \`data\` failed: ${message} (${code}).`, {
    guidance,
    context: { code },
    cause: thrown,
  });
}

/** What an error of SQLite is in our words. */
export type DatabaseMeaning = readonly [kind: ErrorKind, guidance: string];

const DAMAGED: DatabaseMeaning = [
  "damaged",
  "Move the file away: a catalog is built again from the sites, a journal begins anew.",
];
const NO_ACCESS: DatabaseMeaning = [
  "permission",
  "Check that the directory exists and that its owner and mode let Astacus write there.",
];

const DATABASE_MEANINGS: Readonly<Record<string, DatabaseMeaning>> = {
  SQLITE_NOTADB: DAMAGED,
  SQLITE_CORRUPT: DAMAGED,
  SQLITE_CANTOPEN: NO_ACCESS,
  SQLITE_READONLY: NO_ACCESS,
  SQLITE_PERM: NO_ACCESS,
  SQLITE_FULL: ["no-space", "Free space on that file system and run it again."],
  SQLITE_IOERR: ["damaged", "Check the disk that holds the file, and the kernel log."],
  SQLITE_BUSY: ["unavailable", "Another process holds the database: end it or try again."],
};

/** Extended codes (SQLITE_CANTOPEN_ISDIR) mean what their first two words mean; others are ours. */
export function databaseMeaning(code: string): DatabaseMeaning | undefined {
  return DATABASE_MEANINGS[code.split("_").slice(0, 2).join("_")];
}
