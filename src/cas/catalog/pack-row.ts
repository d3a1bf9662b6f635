/**
 * Rows of packs in the catalog: the bytes of their values, and the checksum over key and value that
 * is looked at whenever a row is read.
 */
import { fromHex } from "../../base/hex.ts";
import { ByteReader, ByteWriter } from "../format/bytes.ts";
import { damagedCatalog } from "./catalog.ts";
import type { SegmentPack } from "../format/index-segment.ts";
import { packKindNumber, readPackKind } from "../format/pack-kind.ts";
import { readFrameLengths } from "../format/pack.ts";

/** A row as SQLite gives it; `lowest` is the lowest birth of all rows of this pack. */
export type PackRow = {
  number: number;
  id: string;
  birth: number;
  value: Uint8Array;
  checksum: number;
  lowest: number;
};

/** A pack row that was checked; as objects its frames would take ten times the memory. */
export type KnownPack = {
  readonly id: string;
  readonly idBytes: Uint8Array;
  readonly birth: number;
  readonly value: Uint8Array;
  /** Of each frame the offset, stored length and raw length, and at last its codec. */
  readonly frames: Uint32Array;
};

/** Numbers of `KnownPack.frames` for one frame. */
export const FRAME_NUMBER_COUNT = 4;

/** The checksum of a pack row over key and value. */
export function packChecksum(id: string, birth: number, value: Uint8Array): number {
  return Bun.hash.xxHash32(value, Bun.hash.xxHash32(`${id}-${birth}`));
}

/** A pack but for its id and birth. */
export function encodePackValue(pack: SegmentPack): Uint8Array {
  const writer = new ByteWriter(64 + 8 * pack.frames.length);
  writer.varint(pack.sizeBytes);
  writer.varint(pack.directoryLength);
  writer.u8(packKindNumber(pack.kind));
  writer.varint(pack.frames.length);
  for (const { codec, storedLength, rawLength } of pack.frames) {
    writer.u8(codec);
    writer.varint(storedLength);
    writer.varint(rawLength);
  }
  return writer.finish();
}

/** What stands before the frames, and the reader that has come to them. */
export function readPackValue(
  pack: KnownPack,
): Pick<SegmentPack, "sizeBytes" | "directoryLength" | "kind"> & { readonly reader: ByteReader } {
  const reader = new ByteReader(pack.value, `The catalog's row of pack ${pack.id}`);
  const sizeBytes = reader.varint();
  const directoryLength = reader.varint();
  return { sizeBytes, directoryLength, kind: readPackKind(reader), reader };
}

/** A row whose checksum agrees; AppError `damaged` with `context.catalog` otherwise. */
export function checkedPack({ id, birth, value, checksum }: PackRow): KnownPack {
  if (checksum === packChecksum(id, birth, value)) {
    const pack = { id, idBytes: fromHex(id), birth, value, frames: NO_FRAMES };
    return { ...pack, frames: readFrames(pack) };
  }
  throw damagedCatalog(`the row of pack ${id} has a wrong checksum`);
}

const NO_FRAMES = new Uint32Array(0);

function readFrames(pack: KnownPack): Uint32Array {
  const { reader } = readPackValue(pack);
  const frames = new Uint32Array(reader.varint() * FRAME_NUMBER_COUNT);
  let offset = 0;
  for (let index = 0; index < frames.length; index += FRAME_NUMBER_COUNT) {
    const { codec, storedLength, rawLength } = readFrameLengths(reader);
    frames.set([offset, storedLength, rawLength, codec], index);
    offset += storedLength;
  }
  return frames;
}
