/**
 * Errors as HTTP answers: the one place where an AppError gets its status and its JSON. The body is
 * the same everywhere: what is wrong, what to do, and a code that programs may test.
 */
import { AppError, toAppError } from "../base/error.ts";
import type { ErrorKind } from "../base/error.ts";

/** The body of every answer that is an error. */
export type ErrorAnswer = {
  /** The reason in one word (`lease-held`), or the kind where there is none. */
  readonly code: string;
  readonly kind: ErrorKind;
  readonly message: string;
  readonly guidance?: string;
  readonly retryable: boolean;
  readonly context?: Readonly<Record<string, string | number | boolean>>;
};

const STATUS: Readonly<Record<ErrorKind, number>> = {
  usage: 400,
  config: 422,
  "not-found": 404,
  conflict: 409,
  refused: 422,
  permission: 403,
  unavailable: 503,
  timeout: 504,
  damaged: 500,
  "no-space": 507,
  incomplete: 500,
  cancelled: 409,
  internal: 500,
};

/** The status for an error; `context.status` has the last word (401, 405, 413). */
export function statusOf(error: AppError): number {
  const wanted = error.context["status"];
  return typeof wanted === "number" ? wanted : STATUS[error.kind];
}

/** The body for an error. */
export function errorAnswerOf(error: AppError): ErrorAnswer {
  const { reason, status: _, ...context } = error.context;
  return {
    code: typeof reason === "string" ? reason : error.kind,
    kind: error.kind,
    message: error.message,
    ...(error.guidance === undefined ? {} : { guidance: error.guidance }),
    retryable: error.retryable,
    ...(Object.keys(context).length === 0 ? {} : { context }),
  };
}

/** Anything that was thrown, as an answer. */
export function errorResponse(thrown: unknown): Response {
  const error = toAppError(thrown);
  const headers: Record<string, string> = {};
  if (statusOf(error) === 401) headers["www-authenticate"] = "Bearer";
  if (statusOf(error) === 503) headers["retry-after"] = "5";
  return Response.json(errorAnswerOf(error), { status: statusOf(error), headers });
}

/** The AppError that an answer tells of; what is not ours becomes `unavailable`. */
export function errorFromAnswer(status: number, body: unknown, from: string): AppError {
  if (isErrorAnswer(body)) {
    const { kind, message, guidance, retryable, code, context } = body;
    return new AppError(kind, message, {
      retryable,
      context: { ...context, ...(code === kind ? {} : { reason: code }) },
      ...(guidance === undefined ? {} : { guidance }),
    });
  }
  return new AppError("unavailable", `${from} answered ${status}, and not as Astacus does.`, {
    guidance: "Is another program on that port, or a proxy in between?",
    retryable: status >= 500,
    context: { status },
  });
}

function isErrorAnswer(body: unknown): body is ErrorAnswer {
  if (typeof body !== "object" || body === null) return false;
  const { kind, message, code } = body as Record<string, unknown>;
  const isKnown = typeof kind === "string" && Object.hasOwn(STATUS, kind);
  return isKnown && typeof message === "string" && typeof code === "string";
}
