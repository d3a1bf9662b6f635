/**
 * Packs (docs/format.md section 4) as bytes: the directory that says where each frame and chunk lies,
 * and what is checked when a pack comes back. The id of a pack is the hash of its directory and pins
 * every byte of it: frames by their checksums or chunk ids, the trailer by the directory's length.
 */
import assert from "node:assert/strict";
import { sha256, SHA256_SIZE_BYTES, sha256Hex } from "../../base/hex.ts";
import { OBJECT_SIZE_BYTES_MAX } from "../../sites/site.ts";
import { ByteReader, ByteWriter, damagedError } from "./bytes.ts";
import { packKindNumber, readPackKind } from "./pack-kind.ts";
import type { PackKind } from "./pack-kind.ts";
import {
  decodeFrameSeal,
  decodeOrigins,
  encodeOrigins,
  openFrame,
  originsOf,
  PLAIN_SEALER,
  TAG_SIZE_BYTES,
} from "./seal.ts";
import type { FrameOrigin, FrameSeal, Sealer } from "./seal.ts";
import { decompressExactly } from "./zstd.ts";

export type { PackKind } from "./pack-kind.ts";

/** How a frame is stored: 0 as is, 1 zstd. */
export type FrameCodec = 0 | 1;

/** One chunk in the raw bytes of its frame. */
export type FrameChunk = {
  readonly id: Uint8Array;
  readonly offset: number;
  readonly length: number;
};

/** One frame: where it lies in the pack and what is in it. */
export type FrameRow = {
  readonly offset: number;
  readonly codec: FrameCodec;
  readonly storedLength: number;
  readonly rawLength: number;
  /** First half of SHA-256 of the stored bytes; undefined where the id of the only chunk says it. */
  readonly checksum: Uint8Array | undefined;
  readonly chunks: readonly FrameChunk[];
  /** In encrypted repositories: which key it is under. */
  readonly seal?: FrameSeal;
};

/** The directory at the end of a pack. */
export type PackDirectory = {
  readonly kind: PackKind;
  readonly salt: Uint8Array;
  readonly frames: readonly FrameRow[];
};

/** What `decodeFrame` must know of a frame. */
export type StoredFrame = {
  readonly codec: FrameCodec;
  readonly rawLength: number;
  readonly storedLength?: number;
  readonly checksum?: Uint8Array | undefined;
  readonly seal?: FrameSeal | undefined;
};

/** What opens one sealed frame: key, nonce and associated data, as `Sealer.frameOpening` gives them. */
export type FrameOpening = Uint8Array;

/** Raw bytes of one frame at most, which also bounds a chunk. */
export const FRAME_RAW_BYTES_MAX = 4 * 1024 * 1024;

/** Raw bytes of a frame that small chunks share, unless configured. */
export const FRAME_SIZE_BYTES_DEFAULT = 512 * 1024;

/** The largest pack that may be asked for: what it may grow beyond that still fits an object. */
export const PACK_SIZE_BYTES_MAX = 48 * 1024 * 1024;

/** Chunks of one pack at most, so that the directory stays small and a segment can hold the pack. */
export const PACK_CHUNK_COUNT_MAX = 200_000;

/** Bytes of a pack's salt. */
export const SALT_SIZE_BYTES = 16;

/** Bytes behind the directory. */
export const PACK_TRAILER_SIZE_BYTES = 16;

/** Bytes of a frame's checksum. */
export const FRAME_CHECKSUM_SIZE_BYTES = 16;

/** Bytes of the directory for a chunk, about. */
export const DIRECTORY_BYTES_PER_CHUNK = 36;
const DIRECTORY_BYTES_PER_CHUNK_MAX = 64;
const DIRECTORY_VERSION = 0;
const SEALED_DIRECTORY_VERSION = 1;
/** "ASTPACK0" */
const TRAILER_MAGIC = Uint8Array.of(0x41, 0x53, 0x54, 0x50, 0x41, 0x43, 0x4b, 0x30);
/** "ASTPACK1" */
const SEALED_TRAILER_MAGIC = Uint8Array.of(0x41, 0x53, 0x54, 0x50, 0x41, 0x43, 0x4b, 0x31);

assert(
  PACK_SIZE_BYTES_MAX +
    FRAME_RAW_BYTES_MAX +
    PACK_CHUNK_COUNT_MAX * (DIRECTORY_BYTES_PER_CHUNK_MAX - DIRECTORY_BYTES_PER_CHUNK) <=
    OBJECT_SIZE_BYTES_MAX,
);

/** A finished pack, ready to be sent. */
export type SealedPack = {
  /** The id as hex; the name follows from it and the birth (`packKey`). */
  readonly id: string;
  readonly kind: PackKind;
  /** The whole object, in a buffer (perhaps a longer one) of its own. */
  readonly bytes: Uint8Array;
  readonly directory: PackDirectory;
  /** In plain, also where the pack has it sealed. */
  readonly directoryBytes: Uint8Array;
  /** Hex SHA-256 of `bytes`, where somebody has computed it. */
  readonly sha256?: string;
};

/** The name of a pack in a site. */
export function packKey(id: string, birth: number): string {
  return `pack/${id.slice(0, 2)}/${id}-${birth}`;
}

/**
 * The whole pack from its frames and directory.
 *
 * @example
 * const { id, bytes } = assemblePack(frames, encodeDirectory(directory));
 */
export function assemblePack(
  frames: Uint8Array,
  directoryBytes: Uint8Array,
  sealer: Sealer = PLAIN_SEALER,
): { readonly id: string; readonly bytes: Uint8Array<ArrayBuffer> } {
  const directory = sealer.sealObject("directory", plainArray(directoryBytes));
  const sizeBytes = frames.length + directory.length + PACK_TRAILER_SIZE_BYTES;
  assert(sizeBytes <= OBJECT_SIZE_BYTES_MAX);
  const bytes = new Uint8Array(sizeBytes);
  bytes.set(frames, 0);
  writeTail(bytes, frames.length, { directory, isSealed: !sealer.isPlain });
  return { id: packIdOf(directoryBytes), bytes };
}

/** Writes what follows the frames. */
export function writeTail(
  target: Uint8Array,
  framesEnd: number,
  { directory, isSealed }: { readonly directory: Uint8Array; readonly isSealed: boolean },
): void {
  const directoryEnd = framesEnd + directory.length;
  target.set(directory, framesEnd);
  const trailer = new DataView(target.buffer, target.byteOffset + directoryEnd);
  trailer.setUint32(0, directory.length, true);
  trailer.setUint32(4, 0, true);
  target.set(isSealed ? SEALED_TRAILER_MAGIC : TRAILER_MAGIC, directoryEnd + 8);
}

/** True if bytes end as packs of encrypted repositories do. */
export function isSealedPack(bytes: Uint8Array): boolean {
  const magic = bytes.subarray(-SEALED_TRAILER_MAGIC.length);
  return Buffer.compare(magic, SEALED_TRAILER_MAGIC) === 0;
}

/** The same bytes, of which the compiler knows that no thread shares them. */
export function plainArray(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return bytes.buffer instanceof ArrayBuffer
    ? (bytes as Uint8Array<ArrayBuffer>)
    : new Uint8Array(bytes);
}

/** The bytes of a directory; offsets are not stored, they are the sums of what comes before. */
export function encodeDirectory(directory: PackDirectory): Uint8Array<ArrayBuffer> {
  assert.equal(directory.salt.length, SALT_SIZE_BYTES);
  const writer = new ByteWriter(1024 + 64 * directory.frames.length);
  const isSealed = directory.frames.some(({ seal }) => seal !== undefined);
  const { origins, numberOf } = originsOf(directory.frames);
  writer.u8(isSealed ? SEALED_DIRECTORY_VERSION : DIRECTORY_VERSION);
  writer.u8(packKindNumber(directory.kind));
  writer.raw(directory.salt);
  if (isSealed) encodeOrigins(writer, origins);
  writer.varint(directory.frames.length);
  for (const frame of directory.frames) {
    writer.u8(frame.codec);
    writer.varint(frame.storedLength);
    writer.varint(frame.rawLength);
    assert.equal(frame.seal !== undefined, isSealed);
    if (frame.seal !== undefined) {
      writer.varint(numberOf(frame.seal.origin));
      writer.varint(frame.seal.number);
    }
    writer.varint(frame.chunks.length);
    const isChecked = isSealed || needsChecksum(frame.codec, frame.chunks.length);
    assert.equal(frame.checksum !== undefined, isChecked);
    if (frame.checksum !== undefined) writer.raw(frame.checksum);
    for (const chunk of frame.chunks) {
      assert.equal(chunk.id.length, SHA256_SIZE_BYTES);
      writer.raw(chunk.id);
      writer.varint(chunk.length);
    }
  }
  return writer.finish();
}

/** A directory back from its bytes, with offsets; AppError `damaged` that names `what`. */
export function decodeDirectory(bytes: Uint8Array, what: string): PackDirectory {
  const reader = new ByteReader(bytes, what);
  const version = reader.u8();
  const isSealed = version === SEALED_DIRECTORY_VERSION;
  if (version !== DIRECTORY_VERSION && !isSealed) throw reader.damaged("has an unknown version");
  const kind = readPackKind(reader);
  const salt = reader.raw(SALT_SIZE_BYTES);
  const origins = isSealed ? decodeOrigins(reader, kind) : undefined;
  const frameCount = reader.varint();
  const frames: FrameRow[] = [];
  let offset = 0;
  for (let index = 0; index < frameCount; index++) {
    const frame = decodeFrameRow(reader, offset, origins);
    frames.push(frame);
    offset += frame.storedLength;
  }
  reader.end();
  return { kind, salt, frames };
}

/** True if a frame of this shape carries a checksum of its stored bytes. */
export function needsChecksum(codec: FrameCodec, chunkCount: number): boolean {
  return codec !== 0 || chunkCount !== 1;
}

/** The id of the pack with this directory, as hex. */
export function packIdOf(directoryBytes: Uint8Array): string {
  return sha256Hex(directoryBytes);
}

/** The checksum of a frame's stored bytes. */
export function frameChecksum(stored: Uint8Array): Uint8Array {
  return sha256(stored).subarray(0, FRAME_CHECKSUM_SIZE_BYTES);
}

/** Where the directory and the trailer lie in a pack of which a segment tells the two lengths. */
export function directoryRange(
  sizeBytes: number,
  directoryLength: number,
): { readonly offset: number; readonly length: number } {
  const length = directoryLength + PACK_TRAILER_SIZE_BYTES;
  return { offset: sizeBytes - length, length };
}

/** Opens a whole pack: trailer, id, directory and lengths are checked, frames are not decoded. */
export function openPack(
  bytes: Uint8Array,
  expectedId: string,
  what: string,
  sealer: Sealer = PLAIN_SEALER,
): PackDirectory {
  const storedDirectory = cutStoredDirectory(bytes, { what, isSealed: !sealer.isPlain });
  const directoryBytes = sealer.openObject("directory", storedDirectory, what);
  if (packIdOf(directoryBytes) !== expectedId) {
    throw damagedError(what, "has a directory that does not match its name", { expectedId });
  }
  const directory = decodeDirectory(directoryBytes, what);
  const storedBytes = directory.frames.reduce((sum, frame) => sum + frame.storedLength, 0);
  if (storedBytes + storedDirectory.length + PACK_TRAILER_SIZE_BYTES !== bytes.length) {
    throw damagedError(what, "is not as long as its frames and directory");
  }
  return directory;
}

/**
 * The plain bytes of the directory from the end of a pack (all of it or what `directoryRange` names);
 * whether they are those of the pack's id is left to the caller.
 */
export function cutDirectory(
  tail: Uint8Array,
  what: string,
  sealer: Sealer = PLAIN_SEALER,
): Uint8Array {
  const stored = cutStoredDirectory(tail, { what, isSealed: !sealer.isPlain });
  return sealer.openObject("directory", stored, what);
}

function cutStoredDirectory(
  tail: Uint8Array,
  { what, isSealed }: { readonly what: string; readonly isSealed: boolean },
): Uint8Array {
  if (tail.length < PACK_TRAILER_SIZE_BYTES) throw damagedError(what, "is too short for a pack");
  const trailerOffset = tail.length - PACK_TRAILER_SIZE_BYTES;
  const reader = new ByteReader(tail.subarray(trailerOffset), what);
  const directoryLength = reader.u32();
  if (reader.u32() !== 0) throw reader.damaged("has a trailer with unknown bits");
  const magic = isSealed ? SEALED_TRAILER_MAGIC : TRAILER_MAGIC;
  if (Buffer.compare(reader.raw(magic.length), magic) !== 0) {
    throw reader.damaged("does not end as a pack does");
  }
  if (directoryLength > trailerOffset) throw reader.damaged("has a directory longer than itself");
  return tail.subarray(trailerOffset - directoryLength, trailerOffset);
}

/**
 * The raw bytes of a frame: a view of `stored` for codec 0 of a plain repository, else fresh. Checks
 * what the row tells; the chunk ids are left to the caller, who cuts the chunks. A sealed frame needs
 * its opening, whose tag proves the bytes: its checksum is for those who cannot open it.
 */
export function decodeFrame(
  stored: Uint8Array,
  row: StoredFrame,
  what: string,
  opening?: FrameOpening,
): Uint8Array {
  if (row.storedLength !== undefined && stored.length !== row.storedLength) {
    throw damagedError(what, `has ${stored.length} stored bytes instead of ${row.storedLength}`);
  }
  if (opening === undefined && row.checksum !== undefined) {
    assert(row.seal === undefined, "a sealed frame is opened with its key");
    const isRight = Buffer.compare(frameChecksum(stored), row.checksum) === 0;
    if (!isRight) throw damagedError(what, "does not match its checksum");
  }
  if (row.rawLength > FRAME_RAW_BYTES_MAX) {
    throw damagedError(what, `claims ${row.rawLength} raw bytes, more than a frame may have`);
  }
  const packed = opening === undefined ? stored : openFrame(stored, opening, what);
  if (row.codec === 1) return decompressExactly(packed, row.rawLength, what);
  if (packed.length !== row.rawLength) {
    throw damagedError(what, `has ${packed.length} bytes instead of ${row.rawLength}`);
  }
  return packed;
}

/**
 * True if the stored bytes of a frame are those of its row in the directory, as far as that shows
 * without opening it: by its checksum, or by the id of its only chunk.
 */
export function isStoredFrame(
  stored: Uint8Array,
  row: Pick<FrameRow, "storedLength" | "checksum" | "chunks" | "seal">,
  sealer: Sealer = PLAIN_SEALER,
): boolean {
  if (stored.length !== row.storedLength) return false;
  const { checksum, chunks, seal } = row;
  if (checksum === undefined) {
    return chunks[0] !== undefined && Buffer.compare(sha256(stored), chunks[0].id) === 0;
  }
  const found = seal === undefined ? frameChecksum(stored) : sealer.frameChecksum(stored, seal);
  return Buffer.compare(found, checksum) === 0;
}

/** Reads codec, stored length and raw length, as directories and index segments write them. */
export function readFrameLengths(
  reader: ByteReader,
  isSealed = false,
): {
  readonly codec: FrameCodec;
  readonly storedLength: number;
  readonly rawLength: number;
} {
  const codec = reader.u8();
  if (codec !== 0 && codec !== 1) throw reader.damaged("has a frame with an unknown codec");
  const storedLength = reader.varint();
  const rawLength = reader.varint();
  if (rawLength > FRAME_RAW_BYTES_MAX) throw reader.damaged("has a frame of more than 4 MiB");
  if (storedLength > OBJECT_SIZE_BYTES_MAX) throw reader.damaged("has a frame larger than a pack");
  if (isSealed && storedLength < TAG_SIZE_BYTES) {
    throw reader.damaged("has a frame that is shorter than its tag");
  }
  if (codec === 0 && storedLength !== rawLength + (isSealed ? TAG_SIZE_BYTES : 0)) {
    throw reader.damaged("has a plain frame with two lengths");
  }
  return { codec, storedLength, rawLength };
}

function decodeFrameRow(
  reader: ByteReader,
  offset: number,
  origins: readonly FrameOrigin[] | undefined,
): FrameRow {
  const { codec, storedLength, rawLength } = readFrameLengths(reader, origins !== undefined);
  const seal = origins === undefined ? undefined : decodeFrameSeal(reader, origins);
  const chunkCount = reader.varint();
  const checksum =
    seal !== undefined || needsChecksum(codec, chunkCount)
      ? reader.raw(FRAME_CHECKSUM_SIZE_BYTES)
      : undefined;
  const chunks: FrameChunk[] = [];
  let chunkOffset = 0;
  for (let index = 0; index < chunkCount; index++) {
    const id = reader.raw(SHA256_SIZE_BYTES);
    const length = reader.varint();
    chunks.push({ id, offset: chunkOffset, length });
    chunkOffset += length;
  }
  if (chunkOffset !== rawLength) throw reader.damaged("has a frame whose chunks do not fill it");
  const row = { offset, codec, storedLength, rawLength, checksum, chunks };
  return seal === undefined ? row : { ...row, seal };
}
