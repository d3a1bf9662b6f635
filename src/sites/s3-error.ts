/**
 * What the answers of S3 and its kin mean, as AppErrors: which of them pass by themselves, and what
 * to do about the others. What is the same for all kinds of stores is in store-error.ts.
 */
import { AppError } from "../base/error.ts";
import { ALTERED, CLOCK, isNetworkCode, LATE, NO_BUCKET, SLOW, storeError } from "./store-error.ts";
import type { StoreFailure, StoreMeaning, StorePlace } from "./store-error.ts";

const CREDENTIALS: StoreMeaning = {
  kind: "permission",
  what: "refuses the credentials",
  guidance: "Check access key, secret and session token, and that they belong to this endpoint.",
};
const DENIED: StoreMeaning = {
  kind: "permission",
  what: "denies access",
  guidance:
    "The credentials need s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket; without " +
    "the last one S3 answers 403 for every object that is absent.",
};
/** The refusal tells the store's time, and the next request is signed with that. */
const CLOCK_ONCE: StoreMeaning = { ...CLOCK, retryable: true };
const REGION: StoreMeaning = {
  kind: "config",
  what: "says that the bucket lies in another region",
  guidance: "Set region and endpoint to those of the bucket.",
};
const AGAIN: StoreMeaning = { kind: "unavailable", what: "asks to send the request again" };
const FULL: StoreMeaning = {
  kind: "no-space",
  what: "has no space left",
  guidance: "Raise the quota or run a cleanup; what is stored is intact.",
};
const COLD: StoreMeaning = {
  kind: "refused",
  what: "has moved the object to cold storage",
  guidance: "Restore it there first, and remove the bucket's transition rules.",
};
const LOCKED: StoreMeaning = {
  kind: "refused",
  what: "has locked the object",
  guidance: "It can be removed when its lock has ended.",
};
const UNABLE: StoreMeaning = {
  kind: "refused",
  what: "does not support the request",
  guidance: "The store must support If-None-Match on PUT (conditional writes).",
};
const NO_CREDENTIALS: StoreMeaning = {
  kind: "config",
  what: "needs credentials, and none were found",
  guidance: "Configure access key and secret, or give the machine a role.",
};

const CODES: Readonly<Record<string, StoreMeaning>> = {
  AccessDenied: DENIED,
  AccountProblem: DENIED,
  AllAccessDisabled: DENIED,
  Forbidden: DENIED,
  InvalidAccessKeyId: CREDENTIALS,
  SignatureDoesNotMatch: CREDENTIALS,
  XAdminUserNotFound: CREDENTIALS,
  InvalidToken: CREDENTIALS,
  InvalidTokenId: CREDENTIALS,
  ExpiredToken: CREDENTIALS,
  ExpiredTokenException: CREDENTIALS,
  TokenRefreshRequired: CREDENTIALS,
  CredentialsProviderError: NO_CREDENTIALS,
  RequestTimeTooSkewed: CLOCK_ONCE,
  RequestExpired: CLOCK_ONCE,
  AuthorizationHeaderMalformed: REGION,
  PermanentRedirect: REGION,
  NoSuchBucket: NO_BUCKET,
  ConditionalRequestConflict: AGAIN,
  OperationAborted: AGAIN,
  SlowDown: SLOW,
  SlowDownRead: SLOW,
  SlowDownWrite: SLOW,
  ServiceUnavailable: SLOW,
  InternalError: SLOW,
  Throttling: SLOW,
  TooManyRequests: SLOW,
  RequestTimeout: LATE,
  TimeoutError: LATE,
  BadDigest: ALTERED,
  InvalidDigest: ALTERED,
  XAmzContentSHA256Mismatch: ALTERED,
  XAmzContentChecksumMismatch: ALTERED,
  QuotaExceeded: FULL,
  InsufficientStorage: FULL,
  XMinioStorageFull: FULL,
  XMinioAdminBucketQuotaExceeded: FULL,
  // MinIO's and versitygw's words for what AWS calls AccessDenied.
  ObjectLocked: LOCKED,
  InvalidObjectState: COLD,
  NotImplemented: UNABLE,
};

const STATUSES: Readonly<Record<number, StoreMeaning>> = {
  301: REGION,
  307: AGAIN,
  401: CREDENTIALS,
  403: DENIED,
  501: UNABLE,
  507: FULL,
};

/** Codes for credentials that are unknown, which those of a role become when their time is over. */
const UNKNOWN_CREDENTIALS = new Set([
  "ExpiredToken",
  "ExpiredTokenException",
  "TokenRefreshRequired",
  "InvalidToken",
  "InvalidTokenId",
  "InvalidAccessKeyId",
]);

/** True if credentials may have ended, so that fresh ones would help. */
export function mayBeExpiry(thrown: unknown): boolean {
  const { code, status } = s3Failure(thrown);
  // The answer to a HEAD has no text.
  return UNKNOWN_CREDENTIALS.has(code) || (status === 403 && CODES[code] === undefined);
}

/** What is known of a thrown thing. */
export function s3Failure(thrown: unknown): StoreFailure {
  if (!(thrown instanceof Error)) return { code: "", status: undefined, message: String(thrown) };
  const named = "code" in thrown && typeof thrown.code === "string" ? thrown.code : undefined;
  const code = thrown.name === "Error" || thrown.name === "" ? (named ?? "") : thrown.name;
  const isKnown = CODES[code] !== undefined || isNetworkCode(code);
  return {
    code: isKnown ? code : (named ?? code),
    status: statusOf(thrown),
    message: thrown.message,
  };
}

/** The AppError for a failed request; AppErrors pass unchanged. */
export function s3Error(thrown: unknown, place: StorePlace): AppError {
  if (thrown instanceof AppError) return thrown;
  return s3FailureError(s3Failure(thrown), place, thrown);
}

/** The same for a failure that came inside an answer, as those of single keys of a removal do. */
export function s3FailureError(
  failure: StoreFailure,
  place: StorePlace,
  cause?: unknown,
): AppError {
  return storeError(failure, place, { codes: CODES, statuses: STATUSES, cause });
}

function statusOf(thrown: Error): number | undefined {
  if (!("$metadata" in thrown)) return undefined;
  const metadata: unknown = thrown.$metadata;
  if (typeof metadata !== "object" || metadata === null) return undefined;
  if (!("httpStatusCode" in metadata)) return undefined;
  return typeof metadata.httpStatusCode === "number" ? metadata.httpStatusCode : undefined;
}
