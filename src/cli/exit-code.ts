/**
 * Exit codes: documented, and the same for ever, because scripts test them.
 */
import type { AppError } from "../base/error.ts";

/** What the process ends with. */
export const EXIT = {
  done: 0,
  failed: 1,
  usage: 2,
  unreachable: 3,
  refused: 4,
  incomplete: 5,
  cancelled: 130,
} as const;

/** One of the exit codes. */
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** The code in a line each, for `--help` and the documentation. */
export const EXIT_CODES_IN_WORDS = [
  "0    done",
  "1    failed; also where no backup, site or node has the name that was given",
  "2    wrong usage or wrong configuration",
  "3    the server cannot be reached, or its node is not ready",
  "4    refused: not allowed, nothing fits what was asked for, or it needs --yes",
  "5    ended, but incomplete",
  "130  cancelled",
].join("\n");

/** The code for an error. */
export function exitCodeOf(error: Pick<AppError, "kind" | "context">): ExitCode {
  const reason = error.context["reason"];
  const status = error.context["status"];
  if (reason === "server-unreachable" || reason === "not-ready") return EXIT.unreachable;
  if (status === 401 || status === 403) return EXIT.refused;
  switch (error.kind) {
    case "usage":
    case "config":
      return EXIT.usage;
    case "refused":
      return EXIT.refused;
    case "incomplete":
      return EXIT.incomplete;
    case "cancelled":
      return EXIT.cancelled;
    default:
      return EXIT.failed;
  }
}
