/**
 * Packs (docs/format.md section 4) as bytes: the directory that says where each frame and chunk lies,
 * and what is checked when a pack comes back. The id of a pack is the hash of its directory and pins
 * every byte of it: frames by their checksums or chunk ids, the trailer by the directory's length.
 */
import assert from "node:assert/strict";
import { sha256, SHA256_SIZE_BYTES, sha256Hex } from "../../base/hex.ts";
import { OBJECT_SIZE_BYTES_MAX } from "../../sites/site.ts";
import { ByteReader, ByteWriter, damagedError } from "./bytes.ts";
import {
  type Compression,
  isCompressedEnough,
  looksCompressible,
  OWN_FRAME_BYTES_MIN,
  sharedLevelOf,
} from "./compression.ts";
import { decompressExactly } from "./zstd.ts";
import { compressedSizeMax, compressZstdInto } from "./zstd-context.ts";

/** What a pack holds: contents of files, or nodes of trees. */
export type PackKind = "data" | "metadata";

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
};

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

/** Smaller chunks share a frame whatever is in them: a frame each would cost more than it saves. */
const PROBED_CHUNK_SIZE_BYTES_MIN = 16 * 1024;
const DIRECTORY_BYTES_PER_CHUNK = 36;
const DIRECTORY_BYTES_PER_CHUNK_MAX = 64;
const DIRECTORY_VERSION = 0;
const PACK_KINDS: readonly PackKind[] = ["data", "metadata"];
/** "ASTPACK0" */
const TRAILER_MAGIC = Uint8Array.of(0x41, 0x53, 0x54, 0x50, 0x41, 0x43, 0x4b, 0x30);

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
  /** The whole object, in a buffer (perhaps a longer one) of its own that may be transferred. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly directory: PackDirectory;
  readonly directoryBytes: Uint8Array;
  /** Hex SHA-256 of `bytes`, where somebody has computed it. */
  readonly sha256?: string;
};

/** What a `PackBuilder` is made with. */
export type PackBuilderOptions = {
  readonly kind: PackKind;
  /** A pack is sealed when it has grown to this; it may pass it by one frame and its directory. */
  readonly packSizeBytes: number;
  /** Raw bytes of a frame that small chunks share. */
  readonly frameSizeBytes?: number;
  readonly compression: Compression;
  /** 16 random bytes for each pack. */
  readonly salt: () => Uint8Array;
  /**
   * A buffer of at least so many bytes for a pack to be, which then leaves with it. New memory costs
   * more than all the copying here, so whoever makes many packs hands the same buffers out again.
   */
  readonly takeBuffer?: (sizeBytes: number) => Uint8Array<ArrayBuffer>;
};

/**
 * Gathers chunks into frames and frames into packs. A large chunk is a frame of its own, and a plain
 * one if it would not shrink: copied once and hashed once, as its id is the checksum. Small chunks
 * share frames.
 *
 * @example
 * const builder = new PackBuilder({ kind: "data", packSizeBytes: 32 << 20, compression, salt });
 * for (const chunk of chunks) { const full = builder.add(sha256(chunk), chunk); … }
 * const last = builder.finish();
 */
export class PackBuilder {
  readonly #kind: PackKind;
  readonly #packSizeBytes: number;
  readonly #frameSizeBytes: number;
  readonly #compression: Compression;
  readonly #salt: () => Uint8Array;
  readonly #takeBuffer: ((sizeBytes: number) => Uint8Array<ArrayBuffer>) | undefined;
  /** Stored frames of the pack that is open. */
  #out: Uint8Array<ArrayBuffer> | undefined;
  #outLength = 0;
  #frames: FrameRow[] = [];
  #chunkCount = 0;
  /** Raw chunks of the frame that is open. */
  readonly #gather: Uint8Array;
  #gatherLength = 0;
  #gathered: FrameChunk[] = [];

  constructor(options: PackBuilderOptions) {
    this.#frameSizeBytes = options.frameSizeBytes ?? FRAME_SIZE_BYTES_DEFAULT;
    assert(options.packSizeBytes >= 1);
    assert(options.packSizeBytes <= PACK_SIZE_BYTES_MAX);
    assert(this.#frameSizeBytes >= 1);
    assert(this.#frameSizeBytes <= FRAME_RAW_BYTES_MAX / 2);
    this.#kind = options.kind;
    this.#packSizeBytes = options.packSizeBytes;
    this.#compression = options.compression;
    this.#salt = options.salt;
    this.#takeBuffer = options.takeBuffer;
    this.#gather = new Uint8Array(Buffer.allocUnsafeSlow(2 * this.#frameSizeBytes).buffer);
  }

  /** Bytes that are in no sealed pack yet. */
  get pendingBytes(): number {
    return this.#outLength + this.#gatherLength;
  }

  /** Takes a copy of a chunk; returns the pack that became full by it. */
  add(id: Uint8Array, bytes: Uint8Array): SealedPack | undefined {
    assert.equal(id.length, SHA256_SIZE_BYTES);
    assert(bytes.length > 0);
    assert(bytes.length <= FRAME_RAW_BYTES_MAX);
    const length = bytes.length;
    if (length >= PROBED_CHUNK_SIZE_BYTES_MIN && !looksCompressible(bytes)) {
      this.#storePlain(bytes, [{ id: new Uint8Array(id), offset: 0, length }]);
    } else {
      this.#gatherChunk(new Uint8Array(id), bytes);
    }
    this.#chunkCount += 1;
    return this.#isFull() ? this.#seal() : undefined;
  }

  /** Seals what is pending; undefined if nothing is. */
  finish(): SealedPack | undefined {
    return this.#chunkCount === 0 ? undefined : this.#seal();
  }

  #isFull(): boolean {
    const directoryBytes = this.#chunkCount * DIRECTORY_BYTES_PER_CHUNK;
    return (
      this.pendingBytes + directoryBytes >= this.#packSizeBytes ||
      this.#chunkCount >= PACK_CHUNK_COUNT_MAX
    );
  }

  #gatherChunk(id: Uint8Array, bytes: Uint8Array): void {
    const length = bytes.length;
    if (length >= Math.min(OWN_FRAME_BYTES_MIN, this.#frameSizeBytes)) {
      this.#storeFrame(bytes, [{ id, offset: 0, length }], this.#compression.level);
      return;
    }
    this.#gather.set(bytes, this.#gatherLength);
    this.#gathered.push({ id, offset: this.#gatherLength, length });
    this.#gatherLength += length;
    if (this.#gatherLength >= this.#frameSizeBytes) this.#flushFrame();
  }

  #flushFrame(): void {
    if (this.#gathered.length === 0) return;
    const raw = this.#gather.subarray(0, this.#gatherLength);
    this.#storeFrame(raw, this.#gathered, sharedLevelOf(this.#compression));
    this.#gathered = [];
    this.#gatherLength = 0;
  }

  #storeFrame(raw: Uint8Array, chunks: readonly FrameChunk[], level: number): void {
    this.#out ??= this.#openBuffer();
    const target = this.#out.subarray(this.#outLength);
    const packedLength = compressZstdInto(target, raw, level);
    if (isCompressedEnough(raw.length, packedLength)) {
      this.#enterFrame(1, target.subarray(0, packedLength), raw.length, chunks);
    } else {
      this.#storePlain(raw, chunks);
    }
  }

  #storePlain(raw: Uint8Array, chunks: readonly FrameChunk[]): void {
    this.#out ??= this.#openBuffer();
    this.#out.set(raw, this.#outLength);
    this.#enterFrame(0, raw, raw.length, chunks);
  }

  /** The frame's stored bytes lie at the end of the open pack. */
  #enterFrame(
    codec: FrameCodec,
    stored: Uint8Array,
    rawLength: number,
    chunks: readonly FrameChunk[],
  ): void {
    const offset = this.#outLength;
    this.#outLength += stored.length;
    const checksum = needsChecksum(codec, chunks.length) ? frameChecksum(stored) : undefined;
    this.#frames.push({ offset, codec, storedLength: stored.length, rawLength, checksum, chunks });
  }

  #seal(): SealedPack {
    this.#flushFrame();
    const directory = {
      kind: this.#kind,
      salt: new Uint8Array(this.#salt()),
      frames: this.#frames,
    };
    const directoryBytes = encodeDirectory(directory);
    const pack = { id: packIdOf(directoryBytes), bytes: this.#closeBuffer(directoryBytes) };
    this.#frames = [];
    this.#outLength = 0;
    this.#chunkCount = 0;
    return { ...pack, kind: this.#kind, directory, directoryBytes };
  }

  #openBuffer(): Uint8Array<ArrayBuffer> {
    const sizeBytes = this.#packSizeBytes + compressedSizeMax(FRAME_RAW_BYTES_MAX);
    if (this.#takeBuffer !== undefined) return this.#takeBuffer(sizeBytes);
    return new Uint8Array(Buffer.allocUnsafeSlow(sizeBytes).buffer);
  }

  /** The open pack as a whole object: in its own buffer, if that leaves with it, else in a copy. */
  #closeBuffer(directoryBytes: Uint8Array): Uint8Array<ArrayBuffer> {
    const out = this.#out;
    assert(out !== undefined);
    const sizeBytes = this.#outLength + directoryBytes.length + PACK_TRAILER_SIZE_BYTES;
    if (this.#takeBuffer === undefined || sizeBytes > out.length) {
      return assemblePack(out.subarray(0, this.#outLength), directoryBytes).bytes;
    }
    this.#out = undefined;
    writeTail(out, this.#outLength, directoryBytes);
    return out.subarray(0, sizeBytes);
  }
}

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
): { readonly id: string; readonly bytes: Uint8Array<ArrayBuffer> } {
  const directoryEnd = frames.length + directoryBytes.length;
  const sizeBytes = directoryEnd + PACK_TRAILER_SIZE_BYTES;
  assert(sizeBytes <= OBJECT_SIZE_BYTES_MAX);
  const bytes = new Uint8Array(sizeBytes);
  bytes.set(frames, 0);
  writeTail(bytes, frames.length, directoryBytes);
  return { id: packIdOf(directoryBytes), bytes };
}

/** Writes what follows the frames. */
function writeTail(target: Uint8Array, framesEnd: number, directoryBytes: Uint8Array): void {
  const directoryEnd = framesEnd + directoryBytes.length;
  target.set(directoryBytes, framesEnd);
  const trailer = new DataView(target.buffer, target.byteOffset + directoryEnd);
  trailer.setUint32(0, directoryBytes.length, true);
  trailer.setUint32(4, 0, true);
  target.set(TRAILER_MAGIC, directoryEnd + 8);
}

/** The bytes of a directory; offsets are not stored, they are the sums of what comes before. */
export function encodeDirectory(directory: PackDirectory): Uint8Array<ArrayBuffer> {
  assert.equal(directory.salt.length, SALT_SIZE_BYTES);
  const writer = new ByteWriter(1024 + 64 * directory.frames.length);
  writer.u8(DIRECTORY_VERSION);
  writer.u8(PACK_KINDS.indexOf(directory.kind));
  writer.raw(directory.salt);
  writer.varint(directory.frames.length);
  for (const frame of directory.frames) {
    writer.u8(frame.codec);
    writer.varint(frame.storedLength);
    writer.varint(frame.rawLength);
    writer.varint(frame.chunks.length);
    assert.equal(frame.checksum !== undefined, needsChecksum(frame.codec, frame.chunks.length));
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
  if (reader.u8() !== DIRECTORY_VERSION) throw reader.damaged("has an unknown version");
  const kind = readPackKind(reader);
  const salt = reader.raw(SALT_SIZE_BYTES);
  const frameCount = reader.varint();
  const frames: FrameRow[] = [];
  let offset = 0;
  for (let index = 0; index < frameCount; index++) {
    const frame = decodeFrameRow(reader, offset);
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
export function openPack(bytes: Uint8Array, expectedId: string, what: string): PackDirectory {
  const directoryBytes = cutDirectory(bytes, what);
  if (packIdOf(directoryBytes) !== expectedId) {
    throw damagedError(what, "has a directory that does not match its name", { expectedId });
  }
  const directory = decodeDirectory(directoryBytes, what);
  const storedBytes = directory.frames.reduce((sum, frame) => sum + frame.storedLength, 0);
  if (storedBytes + directoryBytes.length + PACK_TRAILER_SIZE_BYTES !== bytes.length) {
    throw damagedError(what, "is not as long as its frames and directory");
  }
  return directory;
}

/** The directory's bytes from the end of a pack (all of it or what `directoryRange` names). */
export function cutDirectory(tail: Uint8Array, what: string): Uint8Array {
  if (tail.length < PACK_TRAILER_SIZE_BYTES) throw damagedError(what, "is too short for a pack");
  const trailerOffset = tail.length - PACK_TRAILER_SIZE_BYTES;
  const reader = new ByteReader(tail.subarray(trailerOffset), what);
  const directoryLength = reader.u32();
  if (reader.u32() !== 0) throw reader.damaged("has a trailer with unknown bits");
  if (Buffer.compare(reader.raw(TRAILER_MAGIC.length), TRAILER_MAGIC) !== 0) {
    throw reader.damaged("does not end as a pack does");
  }
  if (directoryLength > trailerOffset) throw reader.damaged("has a directory longer than itself");
  return tail.subarray(trailerOffset - directoryLength, trailerOffset);
}

/**
 * The raw bytes of a frame: a view of `stored` for codec 0, else fresh. Checks what the row tells;
 * the chunk ids are left to the caller, who cuts the chunks.
 */
export function decodeFrame(stored: Uint8Array, row: StoredFrame, what: string): Uint8Array {
  if (row.storedLength !== undefined && stored.length !== row.storedLength) {
    throw damagedError(what, `has ${stored.length} stored bytes instead of ${row.storedLength}`);
  }
  if (row.checksum !== undefined && Buffer.compare(frameChecksum(stored), row.checksum) !== 0) {
    throw damagedError(what, "does not match its checksum");
  }
  if (row.rawLength > FRAME_RAW_BYTES_MAX) {
    throw damagedError(what, `claims ${row.rawLength} raw bytes, more than a frame may have`);
  }
  if (row.codec === 1) return decompressExactly(stored, row.rawLength, what);
  if (stored.length !== row.rawLength) {
    throw damagedError(what, `has ${stored.length} bytes instead of ${row.rawLength}`);
  }
  return stored;
}

/** The number of a pack's kind in the format. */
export function packKindNumber(kind: PackKind): number {
  return PACK_KINDS.indexOf(kind);
}

/** Reads the number of a pack's kind. */
export function readPackKind(reader: ByteReader): PackKind {
  const kind = PACK_KINDS[reader.u8()];
  if (kind === undefined) throw reader.damaged("has an unknown kind of pack");
  return kind;
}

/** Reads codec, stored length and raw length, as directories and index segments write them. */
export function readFrameLengths(reader: ByteReader): {
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
  if (codec === 0 && storedLength !== rawLength) {
    throw reader.damaged("has a plain frame with two lengths");
  }
  return { codec, storedLength, rawLength };
}

function decodeFrameRow(reader: ByteReader, offset: number): FrameRow {
  const { codec, storedLength, rawLength } = readFrameLengths(reader);
  const chunkCount = reader.varint();
  const checksum = needsChecksum(codec, chunkCount)
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
  return { offset, codec, storedLength, rawLength, checksum, chunks };
}
