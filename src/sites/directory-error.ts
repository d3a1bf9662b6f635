/**
 * What an errno means where it meets a directory site: the common table of base, with the site, the
 * key and the free bytes added, and with other advice where links are concerned.
 */
import { errnoError, getErrnoCode } from "../base/errno.ts";
import { AppError } from "../base/error.ts";
import { formatSize } from "../base/units.ts";

const LINK_GUIDANCE =
  "Directory sites need hard links (not SMB, FAT and some FUSE mounts). Use another file system.";

/** Where in a site it happened. */
export type DirectoryPlace = {
  readonly site: string;
  readonly location: string;
  readonly key?: string;
  readonly freeBytes?: number;
  /** Of the object that did not fit. */
  readonly sizeBytes?: number;
  /** There is room for bytes, and for no more files. */
  readonly isOutOfFiles?: boolean;
};

/** An errno error as AppError; AppErrors pass unchanged. */
export function directoryError(thrown: unknown, place: DirectoryPlace): AppError {
  if (thrown instanceof AppError) return thrown;
  const { site, location, key, freeBytes } = place;
  const context = {
    site,
    ...(key === undefined ? {} : { key }),
    ...(freeBytes === undefined ? {} : { freeBytes }),
  };
  const code = getErrnoCode(thrown);
  if (code === undefined) {
    const text = thrown instanceof Error ? thrown.message : String(thrown);
    return new AppError("internal", `${location}: ${text}`, { cause: thrown, context });
  }
  const action = key === undefined ? "use" : `use ${key} in`;
  const plain = errnoError({ action, path: location, code, cause: thrown });
  const free = freeBytes === undefined ? "" : ` ${describeSpace(freeBytes, place)}`;
  return new AppError(plain.kind, plain.message + free, {
    ...(plain.guidance === undefined ? {} : { guidance: plain.guidance }),
    retryable: plain.retryable,
    context: { ...context, code },
    cause: thrown,
  });
}

/** What was free when it happened, with what had been written of the object by then. */
function describeSpace(freeBytes: number, { sizeBytes, isOutOfFiles }: DirectoryPlace): string {
  if (isOutOfFiles === true) return "The file system can hold no more files (inodes).";
  const free = `Free space then: ${formatSize(freeBytes)}`;
  if (sizeBytes === undefined) return `${free}.`;
  return `${free}, with a part of its ${formatSize(sizeBytes)} written.`;
}

/** The file system takes no hard links, without which creating is not atomic. */
export function linksRefused(place: DirectoryPlace, cause: unknown): AppError {
  return new AppError("refused", `${place.location} does not allow hard links.`, {
    guidance: LINK_GUIDANCE,
    context: { site: place.site, code: getErrnoCode(cause) ?? "" },
    cause,
  });
}

/** The root is not there, or is not the one that was opened. */
export function rootMissing(site: string, location: string, what: string): AppError {
  return new AppError("not-found", `${location} ${what}.`, {
    guidance: "Is the disk mounted? The directory is made only when the site is initialised.",
    context: { site },
  });
}
