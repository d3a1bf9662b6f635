/** Small index segments for tests: packs with one frame of two chunks each, made from names. */
import { fromHex, sha256, sha256Hex } from "../../src/base/hex.ts";
import { encodeSortedSegment } from "../../src/cas/format/index-segment.ts";
import type { SegmentChunk, SegmentPack } from "../../src/cas/format/index-segment.ts";
import type { EntryBodies } from "../../src/cas/log/entry.ts";

/** A segment and what is in it. */
export type BuiltSegment = {
  readonly ref: EntryBodies["keep"]["segments"][number];
  readonly bytes: Uint8Array;
  /** Ascending by id. */
  readonly packs: readonly SegmentPack[];
  /** Ids of the chunks, the same for the same names of packs. */
  readonly chunks: readonly Uint8Array[];
};

/** A segment of packs with these names, each with `chunkCount` chunks. */
export function makeSegment(
  names: readonly string[],
  packBirth: number,
  birth: number = packBirth,
  chunkCount = 1,
): BuiltSegment {
  const packs = names
    .map((name) => ({ name, pack: packOf(name, packBirth, chunkCount) }))
    .toSorted((a, b) => (a.pack.id < b.pack.id ? -1 : 1));
  const rows = packs
    .flatMap(({ name }, pack) =>
      Array.from({ length: chunkCount }, (_, index): SegmentChunk => {
        const id = chunkId(name, index);
        return { id, pack, frame: 0, offset: index * 10, length: 10 };
      }),
    )
    .toSorted((a, b) => Buffer.compare(a.id, b.id) || a.pack - b.pack);
  const encoded = encodeSortedSegment(
    packs.map(({ pack }) => pack),
    rows,
  );
  return {
    ref: {
      id: encoded.id,
      birth,
      sizeBytes: encoded.bytes.length,
      packs: encoded.packs,
      chunks: encoded.chunks,
    },
    bytes: encoded.bytes,
    packs: packs.map(({ pack }) => pack),
    chunks: rows.map(({ id }) => fromHex(Buffer.from(id).toString("hex"))),
  };
}

/** The id of a chunk of a pack. */
export function chunkId(pack: string, index: number): Uint8Array {
  return sha256(new TextEncoder().encode(`chunk ${index} of ${pack}`));
}

/** The id of a pack. */
export function packId(name: string): string {
  return sha256Hex(new TextEncoder().encode(`pack ${name}`));
}

function packOf(name: string, birth: number, chunkCount: number): SegmentPack {
  const storedLength = 10 * chunkCount;
  const directoryLength = 40;
  return {
    id: packId(name),
    birth,
    sizeBytes: storedLength + directoryLength + 16,
    directoryLength,
    kind: "data",
    frames: [{ offset: 0, codec: 0, storedLength, rawLength: storedLength }],
  };
}
