/**
 * Errors of the operating system as AppErrors: the one table from errno names to kinds and advice.
 * The simulated disk throws through it as well, so that code sees the same errors on both. The
 * errno name always stays in `context.code`.
 */
import { AppError } from "./error.ts";
import type { ErrorKind } from "./error.ts";
import { textFromPath } from "./path.ts";

/** What was tried, on what, and how the system answered. */
export type SystemFailure = {
  /** A verb phrase that fits after "Cannot": `open`, `make a link at`. */
  readonly action: string;
  readonly path: string;
  /** The errno name, `ENOENT`. */
  readonly code: string;
  readonly cause?: unknown;
};

type Meaning = readonly [kind: ErrorKind, what: string, guidance: string, retryable?: boolean];

const OWNER = "Check owner and mode of it and of the directories above, and which user Astacus is.";
const FREE = "Free space on that file system, or raise the quota, and run it again.";
const DISK = "Check the disk and the kernel log; what lies there may have to be restored.";
const TYPE = "Look at what lies at that path: it is not of the type that is needed here.";
const CHANGED = "Something else uses that path at the same time, or an earlier run left it.";
const LIMIT = "Raise the limit of the system, or use fewer workers.";
const MOUNT = "Check that the file system is mounted and that its server answers.";
const UNABLE = "That file system cannot do this: use another one, or switch off what needs it.";

const MEANINGS: Readonly<Record<string, Meaning>> = {
  ENOENT: ["not-found", "it does not exist", "Check the path, and that its volume is mounted."],
  ENOTDIR: ["not-found", "a part of the path is not a directory", TYPE],
  EACCES: ["permission", "access is denied", OWNER],
  EPERM: ["permission", "the system does not permit it", OWNER],
  EROFS: ["permission", "the file system is read-only", "Mount it for writing."],
  ENOSPC: ["no-space", "no space is left", FREE],
  EDQUOT: ["no-space", "the quota is used up", FREE],
  EEXIST: ["conflict", "it exists already", CHANGED],
  ENOTEMPTY: ["conflict", "the directory is not empty", CHANGED],
  ETXTBSY: ["conflict", "it is a program that runs", "Stop that program first."],
  EBUSY: ["conflict", "it is in use", "Find who holds it, a mount perhaps, and end that."],
  EXDEV: ["refused", "both ends must be on one file system", "Choose a place on the same volume."],
  ELOOP: ["refused", "it is a symbolic link, or there are too many of them", TYPE],
  EISDIR: ["refused", "it is a directory", TYPE],
  EINVAL: ["refused", "the system finds the request invalid", TYPE],
  ENXIO: ["refused", "it is a device or socket without another end", TYPE],
  ENODEV: ["refused", "there is no such device", TYPE],
  ENAMETOOLONG: ["refused", "the name is too long", "Use a shorter path."],
  EMLINK: ["refused", "it has too many hard links", "Remove captures that are no longer used."],
  EFBIG: [
    "refused",
    "the file would be too large",
    "Check the size limits of file system and user.",
  ],
  EOPNOTSUPP: ["refused", "the file system does not support it", UNABLE],
  ENOTSUP: ["refused", "the file system does not support it", UNABLE],
  ENOSYS: ["refused", "the system does not support it", UNABLE],
  EIO: ["damaged", "the disk reports an input/output error", DISK],
  EUCLEAN: ["damaged", "the file system is damaged", DISK],
  EBADMSG: ["damaged", "a checksum of the file system does not fit", DISK],
  EMFILE: ["unavailable", "too many files are open in this process", LIMIT],
  ENFILE: ["unavailable", "too many files are open on this machine", LIMIT],
  ENOMEM: ["unavailable", "memory is short", LIMIT],
  EAGAIN: ["unavailable", "the system is busy", "Run it again."],
  EINTR: ["unavailable", "it was interrupted", "Run it again."],
  ESTALE: ["unavailable", "the network file system has lost it", MOUNT],
  ENOTCONN: ["unavailable", "the file system does not answer", MOUNT],
  EHOSTDOWN: ["unavailable", "the file server is down", MOUNT],
  ETIMEDOUT: ["timeout", "the file system did not answer in time", MOUNT],
  EBADF: ["internal", "the file is not open", "This is a defect of Astacus: please report it."],
};

const UNKNOWN: Meaning = ["unavailable", "the system refused", "Look the code up.", false];

const LINK_GUIDANCE =
  "With fs.protected_hardlinks a user may link only own files, or those that it may read and " +
  "write: run Astacus as the owner of the data, or give it CAP_FOWNER.";

/** The AppError for a failed call to the system. */
export function errnoError(failure: SystemFailure): AppError {
  const { action, code } = failure;
  const [kind, what, advice, retryable] = MEANINGS[code] ?? UNKNOWN;
  const path = textFromPath(failure.path);
  const guidance = action.startsWith("link ") && code === "EPERM" ? LINK_GUIDANCE : advice;
  return new AppError(kind, `Cannot ${action} ${path}: ${what} (${code}).`, {
    guidance,
    context: { path, code },
    ...(retryable === undefined ? {} : { retryable }),
    ...(failure.cause === undefined ? {} : { cause: failure.cause }),
  });
}

/** The AppError for a path or name with a NUL in it, where the system would see another, shorter one. */
export function nulError(path: string): AppError {
  const shown = textFromPath(path).replaceAll("\0", "\\0");
  return new AppError("refused", `The path ${shown} contains a NUL.`, {
    guidance: "No file can have that name: look for where it comes from.",
    context: { path: shown },
  });
}

/** The errno name of a thrown thing, if it has one. */
export function getErrnoCode(thrown: unknown): string | undefined {
  if (!(thrown instanceof Error) || !("code" in thrown)) return undefined;
  return typeof thrown.code === "string" && /^E[A-Z0-9]+$/.test(thrown.code)
    ? thrown.code
    : undefined;
}
