/**
 * What the answers of Google Cloud Storage mean, as AppErrors. A JSON answer names a reason; a
 * download fails with plain text. A missing bucket and a missing object have the same status.
 */
import { ALTERED, LATE, NO_BUCKET, SLOW, storeError } from "./store-error.ts";
import type { StoreFailure, StoreMeaning, StoreMeanings, StorePlace } from "./store-error.ts";
import { AppError } from "../base/error.ts";
import type { HttpAnswer } from "./http-exchange.ts";

const CREDENTIALS: StoreMeaning = {
  kind: "permission",
  what: "refuses the credentials",
  guidance:
    "Check the service account's key and that it is not disabled, the machine's role, and the clock.",
};
const DENIED: StoreMeaning = {
  kind: "permission",
  what: "denies access",
  guidance:
    "The account needs the role Storage Object Admin on the bucket, or Object Creator and Object " +
    "Viewer where nothing shall ever be removed.",
};
const LOCKED: StoreMeaning = {
  kind: "refused",
  what: "keeps the object by a retention policy or a hold",
  guidance: "It can be removed when the policy has run out.",
};
const AGAIN: StoreMeaning = { kind: "unavailable", what: "asks to send the request again" };

const MEANINGS: StoreMeanings = {
  codes: {
    authError: CREDENTIALS,
    required: CREDENTIALS,
    accountDisabled: DENIED,
    forbidden: DENIED,
    insufficientPermissions: DENIED,
    rateLimitExceeded: SLOW,
    userRateLimitExceeded: SLOW,
    quotaExceeded: SLOW,
    backendError: SLOW,
    internalError: SLOW,
    conflict: AGAIN,
    retentionPolicyNotMet: LOCKED,
    objectUnderActiveHold: LOCKED,
    bucketMissing: NO_BUCKET,
    hashMismatch: ALTERED,
  },
  statuses: { 401: CREDENTIALS, 403: DENIED, 408: LATE, 409: AGAIN },
};

/** What an answer that is no success tells. */
export function gcsFailure({ status, bytes }: HttpAnswer): StoreFailure {
  const text = new TextDecoder().decode(bytes);
  const { reason, message } = parseGcsError(text);
  // The reason for altered bytes is `invalid`, as that of any bad request; only words tell.
  const isAltered = status === 400 && /hash|checksum|md5|crc32c/i.test(message);
  return { code: isAltered ? "hashMismatch" : reason, status, message };
}

/** The AppError for an answer that is no success. */
export function gcsError(failure: StoreFailure, place: StorePlace): AppError {
  return storeError(failure, place, MEANINGS);
}

/** The AppError for a request that got no answer; AppErrors pass unchanged. */
export function gcsNetworkError(thrown: unknown, place: StorePlace): AppError {
  if (thrown instanceof AppError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const named = thrown instanceof Error && "code" in thrown ? thrown.code : undefined;
  const code = typeof named === "string" ? named : "";
  return storeError({ code, status: undefined, message }, place, { ...MEANINGS, cause: thrown });
}

/** The error object of the JSON API, or the plain text of a download. */
function parseGcsError(text: string): { readonly reason: string; readonly message: string } {
  const error = childOf(parseJson(text), "error");
  const message = childOf(error, "message");
  const errors = childOf(error, "errors");
  const reason = childOf(Array.isArray(errors) ? errors[0] : undefined, "reason");
  return {
    reason: typeof reason === "string" ? reason : "",
    message: typeof message === "string" ? message : text,
  };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function childOf(value: unknown, key: string): unknown {
  if (typeof value !== "object" || value === null) return undefined;
  return (value as Record<string, unknown>)[key];
}
