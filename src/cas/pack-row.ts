/**
 * Rows of packs in the catalog: the bytes of their values, and the checksum over key and value that
 * is looked at whenever a row is read.
 */
import { fromHex } from "../base/hex.ts";
import { ByteReader, ByteWriter } from "./bytes.ts";
import { damagedCatalog } from "./catalog.ts";
import type { SegmentPack } from "./index-segment.ts";
import { packKindNumber, readPackKind } from "./pack.ts";

/** A row as SQLite gives it; `lowest` is the lowest birth of all rows of this pack. */
export type PackRow = {
  number: number;
  id: string;
  birth: number;
  value: Uint8Array;
  checksum: number;
  lowest: number;
};

/** A pack row that was checked; frames stay encoded, which is a tenth of the memory. */
export type KnownPack = {
  readonly id: string;
  readonly idBytes: Uint8Array;
  readonly birth: number;
  readonly value: Uint8Array;
};

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
    return { id, idBytes: fromHex(id), birth, value };
  }
  throw damagedCatalog(`the row of pack ${id} has a wrong checksum`);
}
