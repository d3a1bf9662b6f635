/**
 * The two kinds of packs, and their numbers in the format.
 */
import type { ByteReader } from "./bytes.ts";

/** What a pack holds: contents of files, or nodes of trees. */
export type PackKind = "data" | "metadata";

const PACK_KINDS: readonly PackKind[] = ["data", "metadata"];

/** The number of a pack's kind in the format. */
export function packKindNumber(kind: PackKind): number {
  return PACK_KINDS.indexOf(kind);
}

/** The kind with this number in the format. */
export function packKindOf(number: number): PackKind | undefined {
  return PACK_KINDS[number];
}

/** Reads the number of a pack's kind. */
export function readPackKind(reader: ByteReader): PackKind {
  const kind = packKindOf(reader.u8());
  if (kind === undefined) throw reader.damaged("has an unknown kind of pack");
  return kind;
}
