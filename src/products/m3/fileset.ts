/**
 * The small files of a fileset: the digest file, which holds the Adler-32 of the others, the
 * checkpoint, which holds that of the digest file and is written last, and the info file. Formats:
 * write.go, index_write.go, msgpack/schema.go of M3 1.5.
 */
import { fromBinary } from "@bufbuild/protobuf";
import { Decoder } from "@msgpack/msgpack";
import { z } from "zod";
import { AppError } from "../../base/error.ts";
import { CHECKPOINT_SIZE_BYTES, DATA_PARTS } from "./fileset-names.ts";
import { IndexDigestsSchema, IndexVolumeInfoSchema } from "./proto/index-fileset.pb.ts";

/** Expected Adler-32 by part: `info`, …, `segment-0-docdata`. */
export type FilesetDigests = ReadonlyMap<string, number>;

/** What a data or snapshot fileset says of itself. */
export type FilesetInfo = {
  readonly blockStartNs: bigint;
  readonly blockSizeNs: bigint;
  /** Series in the block. */
  readonly entryCount: number;
  readonly majorVersion: number;
  /** By its snapshot's id: M3 1.5 writes the type of a flush into the info of both. */
  readonly kind: "flush" | "snapshot";
  /** Of snapshots: when it began, and 32 hex digits that its metadata name as well. */
  readonly snapshotTimeNs: bigint;
  readonly snapshotUuid: string;
  /** 0 where M3 wrote none (before 0.15). */
  readonly volume: number;
};

/** What an index fileset says of itself. */
export type IndexFilesetInfo = {
  readonly blockStartNs: bigint;
  readonly blockSizeNs: bigint;
  /** Shards whose series it covers. */
  readonly shards: readonly number[];
};

/** The sum in a checkpoint file; undefined if M3 has not finished writing it. */
export function parseCheckpoint(bytes: Uint8Array): number | undefined {
  if (bytes.length !== CHECKPOINT_SIZE_BYTES) return undefined;
  return viewOf(bytes).getUint32(0, true);
}

/** The digest file of a data or snapshot fileset; undefined if it is none. */
export function parseDataDigests(bytes: Uint8Array): FilesetDigests | undefined {
  if (bytes.length !== DATA_PARTS.length * 4) return undefined;
  const view = viewOf(bytes);
  return new Map(DATA_PARTS.map((part, index) => [part, view.getUint32(index * 4, true)]));
}

/** The digest file of an index fileset; undefined if it is none. */
export function parseIndexDigests(bytes: Uint8Array): FilesetDigests | undefined {
  try {
    const { infoDigest, segments } = fromBinary(IndexDigestsSchema, bytes);
    const digests = new Map([["info", infoDigest]]);
    segments.forEach(({ files }, index) => {
      for (const { fileType, digest } of files) digests.set(`segment-${index}-${fileType}`, digest);
    });
    return digests;
  } catch {
    return undefined;
  }
}

const integer = z.union([z.int(), z.bigint()]).transform(BigInt);
const count = integer.transform(Number);

/** Fields were appended over the years: the first six are in every version. */
const infoSchema = z.tuple(
  [
    integer,
    integer,
    count,
    count,
    z.tuple([count]).rest(z.unknown()),
    z.tuple([count, count]).rest(z.unknown()),
    integer.optional(),
    count.optional(),
    z.instanceof(Uint8Array).nullish(),
    count.optional(),
  ],
  z.unknown(),
);

/** Number of the object in M3's msgpack schema. */
const INDEX_INFO_TYPE = 2;

/**
 * The info file of a data or snapshot fileset.
 * @throws AppError `damaged`.
 */
export function parseFilesetInfo(bytes: Uint8Array): FilesetInfo {
  if (bytes.length > INFO_SIZE_BYTES_MAX) throw damagedInfo("fileset");
  const fields = infoSchema.safeParse(decodeRootObject(bytes, INDEX_INFO_TYPE)?.fields);
  if (!fields.success) throw damagedInfo("fileset");
  const [blockStartNs, blockSizeNs, entryCount, majorVersion, , , time, , uuid, volume] =
    fields.data;
  return {
    blockStartNs,
    blockSizeNs,
    entryCount,
    majorVersion,
    kind: (uuid?.length ?? 0) > 0 ? "snapshot" : "flush",
    snapshotTimeNs: time ?? 0n,
    snapshotUuid: Buffer.from(uuid ?? []).toString("hex"),
    volume: volume ?? 0,
  };
}

/**
 * The info file of an index fileset.
 * @throws AppError `damaged`.
 */
export function parseIndexFilesetInfo(bytes: Uint8Array): IndexFilesetInfo {
  try {
    const { blockStart, blockSize, shards } = fromBinary(IndexVolumeInfoSchema, bytes);
    return { blockStartNs: blockStart, blockSizeNs: blockSize, shards };
  } catch (thrown) {
    throw damagedInfo("index fileset", thrown);
  }
}

/** Far above what M3's objects have: the decoder reserves what a length says before it reads on. */
const OBJECT_LENGTH_MAX = 64;

/** M3 writes some 100 bytes. */
const INFO_SIZE_BYTES_MAX = 16 * 1024;

/** One for all: a new one costs more than an entry of a log. */
const decoder = new Decoder({
  useBigInt64: true,
  maxArrayLength: OBJECT_LENGTH_MAX,
  maxMapLength: OBJECT_LENGTH_MAX,
});

/**
 * M3 writes objects as a version, a pair of type and fields, and sometimes more than it announced.
 * Undefined if the bytes are no such object of that type.
 */
export function decodeRootObject(
  bytes: Uint8Array,
  type: number,
): { readonly fields: unknown[]; readonly rest: unknown[] } | undefined {
  try {
    const [version, root, ...rest] = decoder.decodeMulti(bytes);
    if (typeof version !== "number" || !Array.isArray(root)) return undefined;
    const [found, fields]: unknown[] = root;
    return found === type && Array.isArray(fields) ? { fields, rest } : undefined;
  } catch {
    return undefined;
  }
}

function damagedInfo(what: string, cause?: unknown): AppError {
  return new AppError("damaged", `The info file of this ${what} cannot be read.`, {
    guidance: "M3 cannot read it either; it repairs the block from replicas.",
    cause,
  });
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
