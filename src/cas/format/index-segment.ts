/**
 * Index segments (docs/format.md section 5): which chunk lies where, for a set of packs. Rows are
 * sorted by id, so that segments merge in one pass; a segment's id is the hash of its bytes. Decoding
 * checks everything that the bytes alone can show, since the catalog is filled from nothing else.
 */
import assert from "node:assert/strict";
import { fromHex, SHA256_SIZE_BYTES, sha256Hex, toHex } from "../../base/hex.ts";
import { ByteReader, ByteWriter, damagedError } from "./bytes.ts";
import {
  type FrameCodec,
  PACK_CHUNK_COUNT_MAX,
  PACK_TRAILER_SIZE_BYTES,
  type PackDirectory,
  type PackKind,
  readFrameLengths,
  type SealedPack,
} from "./pack.ts";
import { packKindNumber, readPackKind } from "./pack-kind.ts";
import { decodeFrameSeal, decodeOrigins, encodeOrigins, originsOf, PLAIN_SEALER } from "./seal.ts";
import type { FrameSeal, Sealer } from "./seal.ts";

/** One frame of a pack, as a segment names it. */
export type SegmentFrame = {
  readonly offset: number;
  readonly codec: FrameCodec;
  readonly storedLength: number;
  readonly rawLength: number;
  /** In encrypted repositories: which key it is under. */
  readonly seal?: FrameSeal;
};

/** One pack, as a segment names it. */
export type SegmentPack = {
  readonly id: string;
  readonly birth: number;
  /** Bytes of the whole object. */
  readonly sizeBytes: number;
  readonly directoryLength: number;
  readonly kind: PackKind;
  readonly frames: readonly SegmentFrame[];
};

/** One place of a chunk. */
export type SegmentChunk = {
  readonly id: Uint8Array;
  /** Ordinal of the pack in the segment. */
  readonly pack: number;
  /** Ordinal of the frame in the pack. */
  readonly frame: number;
  /** Offset in the raw bytes of the frame. */
  readonly offset: number;
  readonly length: number;
};

/** A segment in its encoded form; with a birth and a size it is what log entries name. */
export type EncodedSegment = {
  readonly id: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly packs: number;
  readonly chunks: number;
};

/** A segment that was read; `chunks` decodes and checks as it goes. */
export type DecodedSegment = {
  readonly packs: readonly SegmentPack[];
  readonly chunkCount: number;
  /** Ascending by id; the ids are views of the segment's bytes. */
  chunks(): Generator<SegmentChunk, void, undefined>;
};

/** Chunks of one segment at most. */
export const SEGMENT_CHUNK_COUNT_MAX = 500_000;

/** "ASTIDX0\n" */
const MAGIC = Uint8Array.of(0x41, 0x53, 0x54, 0x49, 0x44, 0x58, 0x30, 0x0a);
/** "ASTIDX1\n" */
const SEALED_MAGIC = Uint8Array.of(0x41, 0x53, 0x54, 0x49, 0x44, 0x58, 0x31, 0x0a);
const CHUNK_SIZE_BYTES_MIN = SHA256_SIZE_BYTES + 4;

assert(PACK_CHUNK_COUNT_MAX <= SEGMENT_CHUNK_COUNT_MAX);

/** The name of a segment in a site. */
export function segmentKey(id: string, birth: number): string {
  return `index/${id}-${birth}`;
}

/**
 * A segment of these packs and all their chunks.
 *
 * @example
 * const pack = segmentPackOf(sealed, birth);
 * const segment = encodeSegment([{ pack, directory: sealed.directory }]);
 */
export function encodeSegment(
  rows: readonly { readonly pack: SegmentPack; readonly directory: PackDirectory }[],
  sealer: Sealer = PLAIN_SEALER,
): EncodedSegment {
  const sorted = rows.toSorted((one, other) => (one.pack.id < other.pack.id ? -1 : 1));
  const chunks = sorted.flatMap(({ directory }, pack) => chunksOf(directory, pack));
  return encodeSortedSegment(
    sorted.map(({ pack }) => pack),
    sortPlaces(chunks),
    sealer,
  );
}

/** A segment of packs and chunks that are in order already, as a merge has them. */
export function encodeSortedSegment(
  packs: readonly SegmentPack[],
  chunks: readonly SegmentChunk[],
  sealer: Sealer = PLAIN_SEALER,
): EncodedSegment {
  assert(chunks.length <= SEGMENT_CHUNK_COUNT_MAX);
  const writer = new ByteWriter(1024 + 44 * chunks.length);
  writer.raw(sealer.isPlain ? MAGIC : SEALED_MAGIC);
  writer.varint(packs.length);
  writer.varint(chunks.length);
  let before: SegmentPack | undefined;
  for (const pack of packs) {
    assert(before === undefined || before.id < pack.id);
    encodePack(writer, pack, !sealer.isPlain);
    before = pack;
  }
  let last: SegmentChunk | undefined;
  for (const chunk of chunks) {
    assert(last === undefined || comparePlaces(last, chunk) <= 0);
    encodeChunk(writer, chunk);
    last = chunk;
  }
  const bytes = sealer.sealObject("index", writer.finish());
  return { id: sha256Hex(bytes), bytes, packs: packs.length, chunks: chunks.length };
}

/** A segment from its bytes, which must have the hash that its name says. */
export function decodeSegment(
  stored: Uint8Array,
  expectedId: string,
  sealer: Sealer = PLAIN_SEALER,
): DecodedSegment {
  const what = `Index segment ${expectedId}`;
  if (sha256Hex(stored) !== expectedId) throw damagedError(what, "does not match its name");
  const bytes = sealer.openObject("index", stored, what);
  const reader = new ByteReader(bytes, what);
  const magic = sealer.isPlain ? MAGIC : SEALED_MAGIC;
  if (Buffer.compare(reader.raw(magic.length), magic) !== 0) {
    throw reader.damaged("does not start as a segment does");
  }
  const packCount = reader.varint();
  const chunkCount = reader.varint();
  if (chunkCount > SEGMENT_CHUNK_COUNT_MAX) throw reader.damaged("claims too many chunks");
  const packs: SegmentPack[] = [];
  for (let index = 0; index < packCount; index++) {
    const pack = decodePack(reader, !sealer.isPlain);
    const before = packs.at(-1);
    if (before !== undefined && before.id >= pack.id) throw reader.damaged("has unsorted packs");
    packs.push(pack);
  }
  if (reader.remaining < chunkCount * CHUNK_SIZE_BYTES_MIN) throw reader.damaged("ends too early");
  const rest = bytes.subarray(reader.position);
  return { packs, chunkCount, chunks: () => decodeChunks(rest, { what, packs, chunkCount }) };
}

/** How a segment names a pack that was sent with this birth. */
export function segmentPackOf(sealed: SealedPack, birth: number): SegmentPack {
  return {
    id: sealed.id,
    birth,
    sizeBytes: sealed.bytes.length,
    directoryLength: storedDirectoryLength(sealed),
    kind: sealed.kind,
    frames: segmentFramesOf(sealed.directory),
  };
}

/** Bytes of the directory as it lies in the pack. */
export function storedDirectoryLength(
  pack: Pick<SealedPack, "directory"> & { readonly bytes: { readonly length: number } },
): number {
  const last = pack.directory.frames.at(-1);
  const framesEnd = last === undefined ? 0 : last.offset + last.storedLength;
  return pack.bytes.length - framesEnd - PACK_TRAILER_SIZE_BYTES;
}

/** The frames of a directory as a segment names them. */
export function segmentFramesOf(directory: PackDirectory): SegmentFrame[] {
  return directory.frames.map(({ offset, codec, storedLength, rawLength, seal }) => ({
    offset,
    codec,
    storedLength,
    rawLength,
    ...(seal === undefined ? {} : { seal }),
  }));
}

/** The order of rows in a segment: by id, then pack, frame and offset. */
export function comparePlaces(one: SegmentChunk, other: SegmentChunk): number {
  return (
    Buffer.compare(one.id, other.id) ||
    one.pack - other.pack ||
    one.frame - other.frame ||
    one.offset - other.offset
  );
}

/** Sorts by the first bytes as numbers where they differ, which is nearly always. */
function sortPlaces(chunks: readonly SegmentChunk[]): SegmentChunk[] {
  const keyed = chunks.map((chunk) => ({ chunk, prefix: idPrefix(chunk.id) }));
  keyed.sort((one, other) => one.prefix - other.prefix || comparePlaces(one.chunk, other.chunk));
  return keyed.map(({ chunk }) => chunk);
}

/** The first bytes of an id as a number: they tell nearly any two apart. */
export function idPrefix(id: Uint8Array): number {
  let prefix = 0;
  for (let index = 0; index < 6; index++) prefix = prefix * 256 + (id[index] ?? 0);
  return prefix;
}

function chunksOf(directory: PackDirectory, pack: number): SegmentChunk[] {
  return directory.frames.flatMap(({ chunks }, frame) =>
    chunks.map(({ id, offset, length }) => ({ id, pack, frame, offset, length })),
  );
}

function encodePack(writer: ByteWriter, pack: SegmentPack, isSealed: boolean): void {
  const id = fromHex(pack.id);
  assert.equal(id.length, SHA256_SIZE_BYTES);
  writer.raw(id);
  writer.varint(pack.birth);
  writer.varint(pack.sizeBytes);
  writer.varint(pack.directoryLength);
  writer.u8(packKindNumber(pack.kind));
  const { origins, numberOf } = originsOf(pack.frames);
  if (isSealed) encodeOrigins(writer, origins);
  writer.varint(pack.frames.length);
  for (const frame of pack.frames) {
    writer.u8(frame.codec);
    writer.varint(frame.storedLength);
    writer.varint(frame.rawLength);
    assert.equal(frame.seal !== undefined, isSealed);
    if (frame.seal === undefined) continue;
    writer.varint(numberOf(frame.seal.origin));
    writer.varint(frame.seal.number);
  }
}

function encodeChunk(writer: ByteWriter, chunk: SegmentChunk): void {
  writer.raw(chunk.id);
  writer.varint(chunk.pack);
  writer.varint(chunk.frame);
  writer.varint(chunk.offset);
  writer.varint(chunk.length);
}

function decodePack(reader: ByteReader, isSealed: boolean): SegmentPack {
  const id = toHex(reader.raw(SHA256_SIZE_BYTES));
  const birth = reader.varint();
  const sizeBytes = reader.varint();
  const directoryLength = reader.varint();
  const kind = readPackKind(reader);
  const origins = isSealed ? decodeOrigins(reader, kind) : undefined;
  const frameCount = reader.varint();
  const frames: SegmentFrame[] = [];
  let offset = 0;
  for (let index = 0; index < frameCount; index++) {
    const lengths = readFrameLengths(reader, isSealed);
    const sealed = origins === undefined ? {} : { seal: decodeFrameSeal(reader, origins) };
    frames.push({ offset, ...lengths, ...sealed });
    offset += lengths.storedLength;
  }
  if (offset + directoryLength + PACK_TRAILER_SIZE_BYTES !== sizeBytes) {
    throw reader.damaged("has a pack whose frames and directory do not fill it");
  }
  return { id, birth, sizeBytes, directoryLength, kind, frames };
}

function* decodeChunks(
  bytes: Uint8Array,
  segment: {
    readonly what: string;
    readonly packs: readonly SegmentPack[];
    readonly chunkCount: number;
  },
): Generator<SegmentChunk, void, undefined> {
  const reader = new ByteReader(bytes, segment.what);
  let last: SegmentChunk | undefined;
  for (let index = 0; index < segment.chunkCount; index++) {
    const chunk: SegmentChunk = {
      id: reader.raw(SHA256_SIZE_BYTES),
      pack: reader.varint(),
      frame: reader.varint(),
      offset: reader.varint(),
      length: reader.varint(),
    };
    const frame = segment.packs[chunk.pack]?.frames[chunk.frame];
    if (frame === undefined) throw reader.damaged("has a chunk in a frame that it does not name");
    if (chunk.offset + chunk.length > frame.rawLength) {
      throw reader.damaged("has a chunk that passes the end of its frame");
    }
    if (last !== undefined && comparePlaces(last, chunk) > 0) {
      throw reader.damaged("has unsorted chunks");
    }
    yield chunk;
    last = chunk;
  }
  reader.end();
}
