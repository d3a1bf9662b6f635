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

/** Reads the number of a pack's kind. */
export function readPackKind(reader: ByteReader): PackKind {
  const kind = PACK_KINDS[reader.u8()];
  if (kind === undefined) throw reader.damaged("has an unknown kind of pack");
  return kind;
}
