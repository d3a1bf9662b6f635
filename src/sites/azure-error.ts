/**
 * What the answers of Azure Blob Storage mean, as AppErrors. The service names its errors in a
 * header of every answer, those to HEAD included; so a missing container never looks like a missing
 * blob.
 */
import { AppError } from "../base/error.ts";
import { ALTERED, CLOCK, LATE, NO_BUCKET, SLOW, storeError } from "./store-error.ts";
import type { StoreFailure, StoreMeaning, StoreMeanings, StorePlace } from "./store-error.ts";

const CREDENTIALS: StoreMeaning = {
  kind: "permission",
  what: "refuses the credentials",
  guidance:
    "Check accountKey, connectionString or sasToken, and that they belong to this account. The " +
    "clock may be wrong by no more than 15 minutes, and a token may have expired.",
};
const DENIED: StoreMeaning = {
  kind: "permission",
  what: "denies access",
  guidance:
    "A token needs the permissions read, add, create, write, delete and list on the container; an " +
    "identity needs the role Storage Blob Data Contributor.",
};
const COLD: StoreMeaning = {
  kind: "refused",
  what: "has moved the object to the archive tier",
  guidance: "Rehydrate it there first, and remove the rules that archive what is in the container.",
};
const LOCKED: StoreMeaning = {
  kind: "refused",
  what: "keeps the object by a retention policy or legal hold",
  guidance: "It can be removed when the policy has run out.",
};
const SNAPSHOTS: StoreMeaning = {
  kind: "refused",
  what: "keeps the object because it has snapshots",
  guidance: "Astacus makes none: remove them, and whatever makes them.",
};
const NO_CONTAINER: StoreMeaning = { ...NO_BUCKET, what: "is missing its container" };

const MEANINGS: StoreMeanings = {
  codes: {
    AuthenticationFailed: CREDENTIALS,
    InvalidAuthenticationInfo: CREDENTIALS,
    NoAuthenticationInformation: CREDENTIALS,
    AccountIsDisabled: DENIED,
    AuthorizationFailure: DENIED,
    AuthorizationPermissionMismatch: DENIED,
    AuthorizationProtocolMismatch: DENIED,
    AuthorizationResourceTypeMismatch: DENIED,
    AuthorizationServiceMismatch: DENIED,
    AuthorizationSourceIPMismatch: DENIED,
    InsufficientAccountPermissions: DENIED,
    PublicAccessNotPermitted: DENIED,
    RequestDateTooOld: CLOCK,
    ContainerNotFound: NO_CONTAINER,
    ContainerBeingDeleted: NO_CONTAINER,
    ContainerDisabled: NO_CONTAINER,
    InternalError: SLOW,
    ServerBusy: SLOW,
    TooManyRequests: SLOW,
    OperationTimedOut: LATE,
    Md5Mismatch: ALTERED,
    InvalidMd5: ALTERED,
    Crc64Mismatch: ALTERED,
    BlobArchived: COLD,
    BlobBeingRehydrated: COLD,
    BlobImmutableDueToPolicy: LOCKED,
    BlobImmutableDueToLegalHold: LOCKED,
    SnapshotsPresent: SNAPSHOTS,
    SnapshotOperationRateExceeded: SLOW,
  },
  statuses: { 401: CREDENTIALS, 403: DENIED },
};

/** What an error of the SDK, or of the runtime below it, tells. */
export function azureFailure(thrown: unknown): StoreFailure {
  if (!(thrown instanceof Error)) return { code: "", status: undefined, message: String(thrown) };
  const statusCode: unknown = "statusCode" in thrown ? thrown.statusCode : undefined;
  const status = typeof statusCode === "number" ? statusCode : undefined;
  const code = textOf(thrown, "code") ?? errorCodeOf(thrown) ?? "";
  const { message } = thrown;
  // The emulator has one code for a wrong key and for a lack of rights.
  const isUnknown = code === "AuthorizationFailure" && message.includes("failed to authenticate");
  return { code: isUnknown ? "AuthenticationFailed" : code, status, message };
}

/** The AppError for a failed request; AppErrors pass unchanged. */
export function azureError(thrown: unknown, place: StorePlace): AppError {
  // The SDK may wrap what its HTTP client threw.
  if (thrown instanceof AppError) return thrown;
  if (thrown instanceof Error && thrown.cause instanceof AppError) return thrown.cause;
  return storeError(azureFailure(thrown), place, { ...MEANINGS, cause: thrown });
}

/** The same for one part of a batch. */
export function azurePartError(failure: StoreFailure, place: StorePlace): AppError {
  return storeError(failure, place, MEANINGS);
}

/** Answers without a body name their error in a header, which the SDK parses into details. */
function errorCodeOf(thrown: Error): string | undefined {
  const details: unknown = "details" in thrown ? thrown.details : undefined;
  return typeof details === "object" && details !== null ? textOf(details, "errorCode") : undefined;
}

function textOf(holder: object, name: string): string | undefined {
  const value: unknown = (holder as Record<string, unknown>)[name];
  return typeof value === "string" && value !== "" ? value : undefined;
}
