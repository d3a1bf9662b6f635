/**
 * What a key and a body may be, the same for every kind of site. Parts of a key never begin with a
 * dot, so that a directory site's temporary files can never be taken for objects.
 */
import assert from "node:assert/strict";
import { AppError } from "../base/error.ts";
import { OBJECT_SIZE_BYTES_MAX } from "./site.ts";

const PART = /^[A-Za-z0-9_-][A-Za-z0-9._-]*$/;
const PREFIX = /^[A-Za-z0-9._/-]*$/;
const KEY_LENGTH_MAX = 512;

/** True for a key that this code could have written; a listing skips everything else. */
export function isObjectKey(key: string): boolean {
  return key.length <= KEY_LENGTH_MAX && key.split("/").every((part) => PART.test(part));
}

/** Keys are built by our own code from checked ids, so a bad one is a bug. */
export function assertObjectKey(key: string): void {
  assert(isObjectKey(key), `not an object key: ${JSON.stringify(key)}`);
}

/** A prefix may end anywhere in a key, and may be empty. */
export function assertKeyPrefix(prefix: string): void {
  assert(PREFIX.test(prefix), `not a key prefix: ${JSON.stringify(prefix)}`);
  assert(!prefix.split("/").includes(".."), `not a key prefix: ${JSON.stringify(prefix)}`);
  assert(!prefix.startsWith("/"), `not a key prefix: ${JSON.stringify(prefix)}`);
}

/** One PUT carries a whole object, so its size has an end. */
export function assertObjectBody(bytes: Uint8Array): void {
  assert(bytes.length <= OBJECT_SIZE_BYTES_MAX, `object of ${bytes.length} bytes is too large`);
}

/** Where a range begins and ends inside an object of `sizeBytes`. */
export function cutRange(
  range: { readonly offset?: number; readonly length?: number },
  sizeBytes: number,
): { readonly start: number; readonly end: number } {
  const offset = range.offset ?? 0;
  const length = range.length ?? sizeBytes;
  assert(Number.isSafeInteger(offset) && offset >= 0);
  assert(Number.isSafeInteger(length) && length >= 0);
  const start = Math.min(offset, sizeBytes);
  return { start, end: Math.min(start + length, sizeBytes) };
}

/** Throws `cancelled` (or the AppError that the signal carries) if the signal has fired. */
export function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw cancelledBy(signal);
}

/** The error of a signal that has fired. */
export function cancelledBy(signal: AbortSignal): AppError {
  const reason: unknown = signal.reason;
  if (reason instanceof AppError) return reason;
  if (reason instanceof Error && reason.name === "TimeoutError") {
    return new AppError("timeout", "The call took longer than its deadline.", { cause: reason });
  }
  return new AppError("cancelled", "The operation was cancelled.", { cause: reason });
}
