/**
 * Records of pack lists (docs/format.md section 7): which frames of a pack a backup uses. A list may
 * name too much, never too little, so a bitmap can only gain bits when two are joined.
 */
import assert from "node:assert/strict";
import { fromHex, SHA256_SIZE_BYTES, toHex } from "../../base/hex.ts";
import { ByteReader, ByteWriter } from "./bytes.ts";

/** The frames of one pack that somebody uses. */
export type PackUse = {
  /** The id of the pack as hex. */
  readonly pack: string;
  readonly frameCount: number;
  /** Bit i of byte i/8 (low bits first): frame i is used. */
  readonly frames: Uint8Array;
};

/** The key of the record in its tree: the 32 bytes of the id as latin1. */
export function packUseKey(use: PackUse): string {
  return Buffer.from(use.pack, "hex").toString("latin1");
}

/** The bytes of one record. */
export function encodePackUse(use: PackUse): Uint8Array<ArrayBuffer> {
  assert.equal(use.frames.length, bitmapSizeBytes(use.frameCount));
  const id = fromHex(use.pack);
  assert.equal(id.length, SHA256_SIZE_BYTES);
  const writer = new ByteWriter(SHA256_SIZE_BYTES + 8 + use.frames.length);
  writer.raw(id);
  writer.varint(use.frameCount);
  writer.raw(use.frames);
  return writer.finish();
}

/** A record back from its bytes; AppError `damaged`. */
export function decodePackUse(bytes: Uint8Array): PackUse {
  const reader = new ByteReader(bytes, "A record of a pack list");
  const pack = toHex(reader.raw(SHA256_SIZE_BYTES));
  const frameCount = reader.varint();
  const frames = reader.raw(bitmapSizeBytes(frameCount));
  reader.end();
  const lastBits = frameCount % 8;
  if (lastBits > 0 && (frames.at(-1) ?? 0) >> lastBits !== 0) {
    throw reader.damaged("names a frame that the pack does not have");
  }
  return { pack, frameCount, frames };
}

/** Bytes of a bitmap with a bit for each frame. */
export function bitmapSizeBytes(frameCount: number): number {
  return Math.ceil(frameCount / 8);
}

/** True if the bitmap has the frame. */
export function hasFrame(frames: Uint8Array, frame: number): boolean {
  return ((frames[frame >> 3] ?? 0) & (1 << (frame & 7))) !== 0;
}

/** Sets the bit of a frame. */
export function setFrame(frames: Uint8Array, frame: number): void {
  assert(frame >> 3 < frames.length);
  frames[frame >> 3] = (frames[frame >> 3] ?? 0) | (1 << (frame & 7));
}

/** Both uses of one pack as one. */
export function joinPackUses(one: PackUse, other: PackUse): PackUse {
  assert.equal(one.pack, other.pack);
  assert.equal(one.frameCount, other.frameCount);
  const frames = one.frames.map((byte, index) => byte | (other.frames[index] ?? 0));
  return { pack: one.pack, frameCount: one.frameCount, frames };
}
