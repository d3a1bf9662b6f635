/**
 * What the answers of object stores and the trouble on the way to them mean, as AppErrors: the part
 * that is the same for all. Each kind of store adds the codes of its own; where a code is unknown
 * the HTTP status decides, and where no answer came the connection is to blame.
 */
import { AppError, type ErrorKind } from "../base/error.ts";

/** Where it happened; never a secret. */
export type StorePlace = {
  readonly site: string;
  readonly location: string;
  /** The bucket or container. */
  readonly bucket: string;
  readonly key?: string;
};

/** What an error tells: the store's code (or the runtime's), the HTTP status, words. */
export type StoreFailure = {
  readonly code: string;
  readonly status: number | undefined;
  readonly message: string;
};

/** A failure in our words; `what` follows the location in a sentence. */
export type StoreMeaning = {
  readonly kind: ErrorKind;
  readonly what: string;
  readonly guidance?: string;
  readonly retryable?: boolean;
};

/** What a kind of store adds. */
export type StoreMeanings = {
  readonly codes: Readonly<Record<string, StoreMeaning>>;
  readonly statuses: Readonly<Record<number, StoreMeaning>>;
};

const MESSAGE_LENGTH_MAX = 300;

export const SLOW: StoreMeaning = {
  kind: "unavailable",
  what: "is overloaded or out of order",
};
export const LATE: StoreMeaning = { kind: "timeout", what: "did not answer in time" };
export const ALTERED: StoreMeaning = {
  kind: "damaged",
  what: "received other bytes than their checksum says",
  guidance: "Bytes were altered on the way or in memory. If it happens again, test the memory.",
  retryable: true,
};
export const NO_BUCKET: StoreMeaning = {
  kind: "not-found",
  what: "is missing its bucket",
  guidance: "Check the name and the endpoint, or create it first.",
};
export const CLOCK: StoreMeaning = {
  kind: "permission",
  what: "refuses the signature because the clocks differ too much",
  guidance: "Set this machine's clock (NTP); 15 minutes of difference are allowed.",
};
const UNREACHABLE: StoreMeaning = {
  kind: "unavailable",
  what: "cannot be reached",
  guidance: "Check endpoint, network, DNS and proxy.",
};
const TLS: StoreMeaning = {
  kind: "config",
  what: "shows a certificate that is not trusted",
  guidance: "Name the authority's certificate as caFile, and check the host name.",
};
const LOST: StoreMeaning = {
  kind: "config",
  what: "does not know the address",
  guidance: "Check endpoint and proxy: this does not look like the answer of such a store.",
};
const UNABLE: StoreMeaning = { kind: "refused", what: "does not support the request" };

const NETWORK_CODES: Readonly<Record<string, StoreMeaning>> = {
  ECONNREFUSED: UNREACHABLE,
  ConnectionRefused: UNREACHABLE,
  ECONNRESET: UNREACHABLE,
  ConnectionClosed: UNREACHABLE,
  EPIPE: UNREACHABLE,
  ENOTFOUND: UNREACHABLE,
  FailedToOpenSocket: UNREACHABLE,
  EAI_AGAIN: UNREACHABLE,
  EHOSTUNREACH: UNREACHABLE,
  ENETUNREACH: UNREACHABLE,
  ERR_SOCKET_CLOSED: UNREACHABLE,
  ETIMEDOUT: LATE,
  DEPTH_ZERO_SELF_SIGNED_CERT: TLS,
  SELF_SIGNED_CERT_IN_CHAIN: TLS,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: TLS,
  UNABLE_TO_GET_ISSUER_CERT: TLS,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: TLS,
  CERT_HAS_EXPIRED: TLS,
  ERR_TLS_CERT_ALTNAME_INVALID: TLS,
};

const STATUSES: Readonly<Record<number, StoreMeaning>> = {
  404: LOST,
  408: LATE,
  429: SLOW,
  501: UNABLE,
  504: LATE,
};

/** The error of a failed request, in the words of its kind of store. */
export function storeError(
  failure: StoreFailure,
  place: StorePlace,
  how: StoreMeanings & { readonly cause?: unknown },
): AppError {
  const { code, status, message } = failure;
  const meaning = meaningOf(failure, how);
  const bucket = meaning.kind === "not-found" ? ` (${place.bucket})` : "";
  const words = withoutSignature(message.split("\n")[0] ?? "").slice(0, MESSAGE_LENGTH_MAX);
  const detail = [code, status, words].filter((part) => part !== undefined && part !== "");
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
      ...(how.cause === undefined ? {} : { cause: how.cause }),
    },
  );
}

/**
 * What becomes of a copy that a store will not make: reading and putting may need other rights, and
 * tells better what is wrong. Throws again what passes, or would stop a put too.
 */
export function impossibleCopy(thrown: unknown): "impossible" {
  const isRefusal = thrown instanceof AppError && COPY_REFUSALS.has(thrown.kind);
  if (isRefusal && !thrown.retryable) return "impossible";
  throw thrown;
}

const COPY_REFUSALS: ReadonlySet<ErrorKind> = new Set([
  "permission",
  "refused",
  "not-found",
  "config",
]);

/** True for codes of the runtime: no answer came. */
export function isNetworkCode(code: string): boolean {
  return NETWORK_CODES[code] !== undefined;
}

function meaningOf({ code, status }: StoreFailure, how: StoreMeanings): StoreMeaning {
  const known = how.codes[code] ?? NETWORK_CODES[code];
  if (known !== undefined) return known;
  // A connection that broke in a way that has no name here.
  if (status === undefined) return UNREACHABLE;
  const meaning = how.statuses[status] ?? STATUSES[status];
  if (meaning !== undefined) return meaning;
  return status >= 500 ? SLOW : { kind: "refused", what: "refuses the request" };
}

/** Answers may repeat the address that was asked for, or copied from, with the right to read it. */
function withoutSignature(words: string): string {
  return words.replace(/\b((?:x-(?:amz|goog)-)?sig(?:nature)?=)[^&\s<"']+/gi, "$1…");
}
