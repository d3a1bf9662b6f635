/**
 * The server's log: one JSON object a line on stderr. A message is a constant sentence; what varies
 * stands in fields, so that lines can be searched and counted. Secrets print as `***` by their type.
 */
import { toAppError } from "../base/error.ts";

/** From chatty to grave. */
export type LogLevel = "debug" | "info" | "warn" | "error";

/** What goes with a message. `error` may be anything that was thrown. */
export type LogFields = Readonly<Record<string, unknown>> & { readonly error?: unknown };

/** Writes lines of one level each. */
export type Log = Readonly<Record<LogLevel, (message: string, fields?: LogFields) => void>>;

const RANKS: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3 };

/** A log that writes to `write` what is at least as grave as `level()` says now. */
export function createLog(options: {
  readonly write: (line: string) => void;
  readonly now: () => number;
  readonly level: () => LogLevel;
  /** Stand in every line. */
  readonly fields?: Readonly<Record<string, string>>;
}): Log {
  const line =
    (level: LogLevel) =>
    (message: string, fields: LogFields = {}) => {
      if (RANKS[level] < RANKS[options.level()]) return;
      const { error, ...rest } = fields;
      const time = new Date(options.now()).toISOString();
      const failure = error === undefined ? {} : { error: describe(error, level) };
      const all = { time, level, message, ...options.fields, ...rest, ...failure };
      options.write(`${JSON.stringify(all)}\n`);
    };
  return { debug: line("debug"), info: line("info"), warn: line("warn"), error: line("error") };
}

/** A log that says nothing. */
export const silentLog: Log = createLog({ write: () => {}, now: () => 0, level: () => "error" });

/** A defect of ours is worth its stack; everything else explains itself. */
function describe(thrown: unknown, level: LogLevel): object {
  const error = toAppError(thrown);
  const cause = error.cause instanceof Error ? error.cause : error;
  const isOurs = error.kind === "internal" && level === "error";
  return { ...error.toJSON(), ...(isOurs ? { stack: cause.stack } : {}) };
}
