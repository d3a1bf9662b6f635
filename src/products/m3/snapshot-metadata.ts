/**
 * The metadata of M3's snapshots: which snapshot of a node is complete, and from which commit log on
 * a restart reads. Metadata count when their checkpoint, written after them, holds the Adler-32 of
 * their bytes; M3 itself ignores all others and deletes them.
 */
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import type { FileSystem } from "../../base/doors.ts";
import { AppError, toAppError } from "../../base/error.ts";
import { joinPath, pathFromText, textFromPath } from "../../base/path.ts";
import { adler32 } from "./adler32.ts";
import {
  CHECKPOINT_SIZE_BYTES,
  parseSnapshotMetadataName,
  snapshotMetadataNames,
} from "./fileset-names.ts";
import { SnapshotMetadataSchema } from "./proto/snapshot.pb.ts";
import { readSmallFile } from "./small-file.ts";

/** One complete snapshot. */
export type SnapshotMetadata = {
  /** Counts up with each snapshot of the node. */
  readonly index: number;
  /** 32 hex digits, as in the names of its files and in the info files of its filesets. */
  readonly uuid: string;
  /** The snapshot holds all that was written to logs below this index. */
  readonly commitLog: {
    /** Absolute, as M3 wrote it; a byte string. */
    readonly path: string;
    readonly index: number;
  };
};

/** How often a folder is listed again when its newest snapshot vanishes meanwhile. */
const LIST_TRIES_MAX = 100;

/**
 * The snapshot that M3 would start from: the newest whose checkpoint is right; undefined if there is
 * none, or no folder.
 * @param folder - `snapshots` below M3's root.
 */
export function newestCompleteSnapshot(
  files: FileSystem,
  folder: string,
): SnapshotMetadata | undefined {
  if (files.lstat(folder) === undefined) return undefined;
  for (let tries = 1; tries <= LIST_TRIES_MAX; tries += 1) {
    const found = newestOf(files, folder, files.readDirectory(folder));
    if (found !== "vanished") return found;
  }
  throw new AppError(
    "incomplete",
    `Snapshots in ${textFromPath(folder)} vanish as they are read.`,
    {
      guidance: "Run it again; if it happens always, see what else deletes files there.",
      retryable: true,
    },
  );
}

/** Metadata that vanish were the newest no more: the listing they came from is too old. */
function newestOf(
  files: FileSystem,
  folder: string,
  names: readonly string[],
): SnapshotMetadata | undefined | "vanished" {
  const newestFirst = names
    .flatMap((name) => {
      const parsed = parseSnapshotMetadataName(name);
      return parsed === undefined || parsed.isCheckpoint ? [] : [{ name, index: parsed.index }];
    })
    .toSorted((one, other) => other.index - one.index);
  for (const { name } of newestFirst) {
    try {
      return readSnapshotMetadata(files, folder, name);
    } catch (thrown) {
      const { kind } = toAppError(thrown);
      if (kind === "not-found") return "vanished";
      if (kind !== "incomplete" && kind !== "damaged") throw thrown;
    }
  }
  return undefined;
}

/**
 * Reads one snapshot's metadata and holds them against their checkpoint.
 * @param name - Of the metadata, not of the checkpoint.
 * @throws AppError `incomplete` without a whole checkpoint; `damaged` if it does not match or the
 *   metadata cannot be read; `not-found` if the metadata are gone.
 */
export function readSnapshotMetadata(
  files: FileSystem,
  folder: string,
  name: string,
): SnapshotMetadata {
  const parsed = parseSnapshotMetadataName(name);
  if (parsed === undefined || parsed.isCheckpoint) throw damaged(name, "is no snapshot metadata");
  const metadata = readSmallFile(files, joinPath(folder, name));
  const checkpointPath = joinPath(folder, snapshotMetadataNames(parsed).checkpoint);
  const checkpoint =
    files.lstat(checkpointPath) === undefined ? undefined : readIfThere(files, checkpointPath);
  if (checkpoint?.length !== CHECKPOINT_SIZE_BYTES) {
    throw new AppError("incomplete", `The snapshot metadata ${name} have no checkpoint.`, {
      guidance: "M3 was writing them, or stopped while it did; the snapshot before them counts.",
    });
  }
  return parseSnapshotMetadata(name, metadata, checkpoint);
}

/** @throws AppError `damaged` if bytes, checkpoint and name do not agree. */
export function parseSnapshotMetadata(
  name: string,
  metadata: Uint8Array,
  checkpoint: Uint8Array,
): SnapshotMetadata {
  if (!Buffer.from(checkpoint).equals(encodeChecksum(adler32(metadata)))) {
    throw damaged(name, "do not match their checkpoint");
  }
  const found = decodeSnapshotMetadata(name, metadata);
  const named = parseSnapshotMetadataName(name);
  if (named?.uuid === found.uuid && named.index === found.index) return found;
  throw damaged(name, `speak of snapshot ${found.uuid}-${found.index}`);
}

/** What a restore to another `filePathPrefix` writes instead: metadata and their checkpoint. */
export function rewriteSnapshotMetadata(
  metadata: Uint8Array,
  newPathPrefix: string,
): { readonly metadata: Uint8Array; readonly checkpoint: Uint8Array } {
  const message = fromBinary(SnapshotMetadataSchema, metadata);
  if (message.commitLogId !== undefined) {
    const name = message.commitLogId.filePath.split("/").at(-1) ?? "";
    const folder = joinPath(textFromPath(newPathPrefix), "commitlogs");
    message.commitLogId.filePath = joinPath(folder, name);
  }
  const rewritten = toBinary(SnapshotMetadataSchema, message);
  return { metadata: rewritten, checkpoint: encodeChecksum(adler32(rewritten)) };
}

/** M3's checkpoints and digests: a u32, little-endian. */
export function encodeChecksum(checksum: number): Uint8Array {
  const bytes = new Uint8Array(CHECKPOINT_SIZE_BYTES);
  new DataView(bytes.buffer).setUint32(0, checksum, true);
  return bytes;
}

function decodeSnapshotMetadata(name: string, bytes: Uint8Array): SnapshotMetadata {
  try {
    const message = fromBinary(SnapshotMetadataSchema, bytes);
    return {
      index: Number(message.snapshotIndex),
      uuid: new TextDecoder().decode(message.snapshotUuid).replaceAll("-", ""),
      commitLog: {
        path: pathFromText(message.commitLogId?.filePath ?? ""),
        index: Number(message.commitLogId?.index ?? 0n),
      },
    };
  } catch (thrown) {
    throw damaged(name, "are no protobuf message that M3 could have written", thrown);
  }
}

function readIfThere(files: FileSystem, path: string): Uint8Array | undefined {
  try {
    return readSmallFile(files, path);
  } catch (thrown) {
    if (toAppError(thrown).kind === "not-found") return undefined;
    throw thrown;
  }
}

function damaged(name: string, what: string, cause?: unknown): AppError {
  return new AppError("damaged", `The snapshot metadata ${name} ${what}.`, {
    guidance: "M3 ignores such metadata and starts from an older snapshot or from its commit logs.",
    cause,
  });
}
