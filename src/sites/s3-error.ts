/**
 * What the answers of S3 and its kin mean, as AppErrors: which of them pass by themselves, and what
 * to do about the others. Stores differ in their codes, so the HTTP status decides where the code is
 * unknown.
 */
import { AppError, type ErrorKind } from "../base/error.ts";

/** Where it happened; never a secret. */
export type S3Place = {
  readonly site: string;
  readonly location: string;
  readonly bucket: string;
  readonly key?: string;
};

/** The parts of an error of the SDK, of Node or of Bun that tell what it is. */
export type S3Failure = {
  readonly code: string;
  readonly status: number | undefined;
  readonly message: string;
};

type Meaning = {
  readonly kind: ErrorKind;
  readonly what: string;
  readonly guidance?: string;
  readonly retryable?: boolean;
};

const CREDENTIALS: Meaning = {
  kind: "permission",
  what: "refuses the credentials",
  guidance: "Check access key, secret and session token, and that they belong to this endpoint.",
};
const DENIED: Meaning = {
  kind: "permission",
  what: "denies access",
  guidance:
    "The credentials need s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket; without " +
    "the last one S3 answers 403 for every object that is absent.",
};
const CLOCK: Meaning = {
  kind: "permission",
  what: "refuses the signature because the clocks differ too much",
  guidance: "Set this machine's clock (NTP); S3 allows 15 minutes of difference.",
  // The refusal tells the store's time, and the next request is signed with that.
  retryable: true,
};
const REGION: Meaning = {
  kind: "config",
  what: "says that the bucket lies in another region",
  guidance: "Set region and endpoint to those of the bucket.",
};
const AGAIN: Meaning = { kind: "unavailable", what: "asks to send the request again" };
const SLOW: Meaning = { kind: "unavailable", what: "is overloaded or out of order" };
const UNREACHABLE: Meaning = {
  kind: "unavailable",
  what: "cannot be reached",
  guidance: "Check endpoint, network, DNS and proxy.",
};
const LATE: Meaning = { kind: "timeout", what: "did not answer in time" };
const ALTERED: Meaning = {
  kind: "damaged",
  what: "received other bytes than their checksum says",
  guidance: "Bytes were altered on the way or in memory. If it happens again, test the memory.",
  retryable: true,
};
const FULL: Meaning = {
  kind: "no-space",
  what: "has no space left",
  guidance: "Raise the quota or run a cleanup; what is stored is intact.",
};
const COLD: Meaning = {
  kind: "refused",
  what: "has moved the object to cold storage",
  guidance: "Restore it there first, and remove the bucket's transition rules.",
};
const LOCKED: Meaning = {
  kind: "refused",
  what: "has locked the object",
  guidance: "It can be removed when its lock has ended.",
};
const UNABLE: Meaning = {
  kind: "refused",
  what: "does not support the request",
  guidance: "The store must support If-None-Match on PUT (conditional writes).",
};
const TLS: Meaning = {
  kind: "config",
  what: "shows a certificate that is not trusted",
  guidance: "Name the authority's certificate as caFile, and check the host name.",
};
const NO_BUCKET: Meaning = {
  kind: "not-found",
  what: "is missing its bucket",
  guidance: "Check the bucket's name and endpoint, or create the bucket first.",
};
const LOST: Meaning = {
  kind: "config",
  what: "does not know the address",
  guidance: "Check endpoint, bucket and proxy: this does not look like the answer of an S3 store.",
};
const NO_CREDENTIALS: Meaning = {
  kind: "config",
  what: "needs credentials, and none were found",
  guidance: "Configure access key and secret, or give the machine a role.",
};

const CODES: Readonly<Record<string, Meaning>> = {
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
  RequestTimeTooSkewed: CLOCK,
  RequestExpired: CLOCK,
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
  ETIMEDOUT: LATE,
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
  ECONNREFUSED: UNREACHABLE,
  ConnectionRefused: UNREACHABLE,
  ECONNRESET: UNREACHABLE,
  ConnectionClosed: UNREACHABLE,
  EPIPE: UNREACHABLE,
  ENOTFOUND: UNREACHABLE,
  EAI_AGAIN: UNREACHABLE,
  EHOSTUNREACH: UNREACHABLE,
  ENETUNREACH: UNREACHABLE,
  ERR_SOCKET_CLOSED: UNREACHABLE,
  DEPTH_ZERO_SELF_SIGNED_CERT: TLS,
  SELF_SIGNED_CERT_IN_CHAIN: TLS,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: TLS,
  UNABLE_TO_GET_ISSUER_CERT: TLS,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: TLS,
  CERT_HAS_EXPIRED: TLS,
  ERR_TLS_CERT_ALTNAME_INVALID: TLS,
};

const STATUSES: Readonly<Record<number, Meaning>> = {
  301: REGION,
  307: AGAIN,
  401: CREDENTIALS,
  403: DENIED,
  408: LATE,
  429: SLOW,
  501: UNABLE,
  504: LATE,
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
export function s3Failure(thrown: unknown): S3Failure {
  if (!(thrown instanceof Error)) return { code: "", status: undefined, message: String(thrown) };
  const named = "code" in thrown && typeof thrown.code === "string" ? thrown.code : undefined;
  const code = thrown.name === "Error" || thrown.name === "" ? (named ?? "") : thrown.name;
  return {
    code: CODES[code] === undefined ? (named ?? code) : code,
    status: statusOf(thrown),
    message: thrown.message,
  };
}

/** The AppError for a failed request; AppErrors pass unchanged. */
export function s3Error(thrown: unknown, place: S3Place): AppError {
  if (thrown instanceof AppError) return thrown;
  return s3FailureError(s3Failure(thrown), place, thrown);
}

/** The same for a failure that came inside an answer, as those of single keys of a removal do. */
export function s3FailureError(failure: S3Failure, place: S3Place, cause?: unknown): AppError {
  const { code, status, message } = failure;
  const meaning = CODES[code] ?? meaningOfStatus(status);
  const bucket = meaning === NO_BUCKET ? ` (${place.bucket})` : "";
  const detail = [code, status, message].filter((part) => part !== undefined && part !== "");
  return new AppError(
    meaning.kind,
    `${place.location} ${meaning.what}${bucket}: ${detail.join(" ")}`,
    {
      ...(meaning.guidance === undefined ? {} : { guidance: meaning.guidance }),
      ...(meaning.retryable === undefined ? {} : { retryable: meaning.retryable }),
      context: {
        site: place.site,
        bucket: place.bucket,
        ...(place.key === undefined ? {} : { key: place.key }),
        ...(code === "" ? {} : { code }),
        ...(status === undefined ? {} : { status }),
      },
      ...(cause === undefined ? {} : { cause }),
    },
  );
}

function meaningOfStatus(status: number | undefined): Meaning {
  // Without a status no answer came: a connection broke in a way that has no name here.
  if (status === undefined) return UNREACHABLE;
  const meaning = STATUSES[status];
  if (meaning !== undefined) return meaning;
  if (status >= 500) return SLOW;
  if (status === 404) return LOST;
  return { kind: "refused", what: "refuses the request" };
}

function statusOf(thrown: Error): number | undefined {
  if (!("$metadata" in thrown)) return undefined;
  const metadata: unknown = thrown.$metadata;
  if (typeof metadata !== "object" || metadata === null) return undefined;
  if (!("httpStatusCode" in metadata)) return undefined;
  return typeof metadata.httpStatusCode === "number" ? metadata.httpStatusCode : undefined;
}
