/**
 * Rows of packs in the catalog: the bytes of their values, and the checksum over key and value that
 * is looked at whenever a row is read.
 */
import { fromHex } from "../../base/hex.ts";
import { ByteReader, ByteWriter } from "../format/bytes.ts";
import { damagedCatalog } from "./catalog.ts";
import type { SegmentFrame, SegmentPack } from "../format/index-segment.ts";
import { decodeFrameSeal, decodeOrigins, encodeOrigins, originsOf } from "../format/seal.ts";
import type { FrameOrigin, FrameSeal } from "../format/seal.ts";
import { packKindNumber, packKindOf } from "../format/pack-kind.ts";
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
  /** In encrypted repositories, which key each frame is under. */
  readonly seals?: PackSeals;
};

/** The origins of a pack's frames; of each frame the number of its origin, and its number there. */
export type PackSeals = { readonly origins: readonly FrameOrigin[]; readonly numbers: Uint32Array };

/** Numbers of `KnownPack.frames` for one frame. */
export const FRAME_NUMBER_COUNT = 4;
/** Added to the number of the kind of a pack whose frames are sealed. */
const SEALED_MARK = 2;

/** The checksum of a pack row over key and value. */
export function packChecksum(id: string, birth: number, value: Uint8Array): number {
  return Bun.hash.xxHash32(value, Bun.hash.xxHash32(`${id}-${birth}`));
}

/** A pack but for its id and birth. */
export function encodePackValue(pack: SegmentPack): Uint8Array {
  const writer = new ByteWriter(64 + 8 * pack.frames.length);
  writer.varint(pack.sizeBytes);
  writer.varint(pack.directoryLength);
  const { origins, numberOf } = originsOf(pack.frames);
  const isSealed = origins.length > 0;
  writer.u8(packKindNumber(pack.kind) + (isSealed ? SEALED_MARK : 0));
  if (isSealed) encodeOrigins(writer, origins);
  writer.varint(pack.frames.length);
  for (const { codec, storedLength, rawLength, seal } of pack.frames) {
    writer.u8(codec);
    writer.varint(storedLength);
    writer.varint(rawLength);
    if (seal === undefined) continue;
    writer.varint(numberOf(seal.origin));
    writer.varint(seal.number);
  }
  return writer.finish();
}

/** All frames of a pack. */
export function readPackFrames(pack: KnownPack): SegmentFrame[] {
  const { reader, origins } = readPackValue(pack);
  const frames: SegmentFrame[] = [];
  let offset = 0;
  for (let left = reader.varint(); left > 0; left -= 1) {
    const lengths = readFrameLengths(reader, origins !== undefined);
    const sealed = origins === undefined ? {} : { seal: decodeFrameSeal(reader, origins) };
    frames.push({ offset, ...lengths, ...sealed });
    offset += lengths.storedLength;
  }
  return frames;
}

/** Which key a frame is under; undefined in plain repositories. */
export function sealOf({ seals }: KnownPack, frame: number): FrameSeal | undefined {
  if (seals === undefined) return undefined;
  const origin = seals.origins[seals.numbers[2 * frame] ?? -1];
  const number = seals.numbers[2 * frame + 1];
  return origin === undefined || number === undefined ? undefined : { origin, number };
}

/** What stands before the frames, and the reader that has come to them. */
export function readPackValue(pack: KnownPack): Pick<
  SegmentPack,
  "sizeBytes" | "directoryLength" | "kind"
> & {
  readonly reader: ByteReader;
  readonly origins: FrameOrigin[] | undefined;
} {
  const reader = new ByteReader(pack.value, `The catalog's row of pack ${pack.id}`);
  const sizeBytes = reader.varint();
  const directoryLength = reader.varint();
  const mark = reader.u8();
  const isSealed = mark >= SEALED_MARK;
  const kind = packKindOf(isSealed ? mark - SEALED_MARK : mark);
  if (kind === undefined) throw reader.damaged("has an unknown kind of pack");
  const origins = isSealed ? decodeOrigins(reader, kind) : undefined;
  return { sizeBytes, directoryLength, kind, reader, origins };
}

/** A row whose checksum agrees; AppError `damaged` with `context.catalog` otherwise. */
export function checkedPack({ id, birth, value, checksum }: PackRow): KnownPack {
  if (checksum === packChecksum(id, birth, value)) {
    const pack = { id, idBytes: fromHex(id), birth, value, frames: NO_FRAMES };
    return { ...pack, ...readFrames(pack) };
  }
  throw damagedCatalog(`the row of pack ${id} has a wrong checksum`);
}

const NO_FRAMES = new Uint32Array(0);

function readFrames(pack: KnownPack): Pick<KnownPack, "frames" | "seals"> {
  const { reader, origins } = readPackValue(pack);
  const count = reader.varint();
  const frames = new Uint32Array(count * FRAME_NUMBER_COUNT);
  const numbers = origins === undefined ? undefined : new Uint32Array(2 * count);
  let offset = 0;
  for (let frame = 0; frame < count; frame += 1) {
    const { codec, storedLength, rawLength } = readFrameLengths(reader, numbers !== undefined);
    frames.set([offset, storedLength, rawLength, codec], frame * FRAME_NUMBER_COUNT);
    numbers?.set([reader.varint(), reader.varint()], 2 * frame);
    offset += storedLength;
  }
  if (origins === undefined || numbers === undefined) return { frames };
  return { frames, seals: { origins, numbers } };
}
