/**
 * A segment from the rows that it has filled in a catalog: the way back from what a node knows to the
 * bytes of an object that its site has lost. A segment is written of nothing but its rows, so these
 * either give its id or are not all there. Memory: the rows of one segment, as a merge has them.
 */
import { comparePlaces, encodeSortedSegment } from "../format/index-segment.ts";
import type { SegmentChunk, SegmentPack } from "../format/index-segment.ts";
import type { Sealer } from "../format/seal.ts";
import type { Catalog } from "./catalog.ts";
import type { PackRow } from "./pack-row.ts";
import { checkedPack, readPackFrames, readPackValue } from "./pack-row.ts";

type PlaceRow = { id: Uint8Array; pack: number; frame: number; start: number; length: number };

/** The bytes of a segment; undefined if this node does not have its rows whole. */
export function segmentFromRows(
  catalog: Pick<Catalog, "database">,
  id: string,
  sealer: Sealer,
): Uint8Array<ArrayBuffer> | undefined {
  const rows = catalog.database
    .query<PackRow, [string]>(
      `SELECT p.number AS number, p.id AS id, p.birth AS birth, p.value AS value,
         p.checksum AS checksum, p.birth AS lowest
       FROM index_segment s
         JOIN index_mention m ON m.segment = s.number
         JOIN index_pack p ON p.number = m.pack
       WHERE s.id = ? ORDER BY p.id`,
    )
    .all(id);
  if (rows.length === 0) return undefined;
  const ordinals = new Map(rows.map(({ number }, ordinal) => [number, ordinal]));
  const segment = encodeSortedSegment(
    rows.map((row) => segmentPack(row)),
    segmentChunks(catalog, id, ordinals).toSorted(comparePlaces),
    sealer,
  );
  return segment.id === id ? segment.bytes : undefined;
}

/** As the segment names it, whatever repairs say. */
function segmentPack(row: PackRow): SegmentPack {
  const pack = checkedPack(row);
  const { sizeBytes, directoryLength, kind } = readPackValue(pack);
  const frames = readPackFrames(pack);
  return { id: pack.id, birth: pack.birth, sizeBytes, directoryLength, kind, frames };
}

function segmentChunks(
  { database }: Pick<Catalog, "database">,
  id: string,
  ordinals: ReadonlyMap<number, number>,
): SegmentChunk[] {
  // Reads the whole table, which has no order by pack: that is for once in the life of a site.
  const query = database.query<PlaceRow, [string]>(
    `SELECT id, pack, frame, start, length FROM index_chunk WHERE pack IN
       (SELECT m.pack FROM index_mention m JOIN index_segment s ON s.number = m.segment
        WHERE s.id = ?)`,
  );
  const chunks: SegmentChunk[] = [];
  for (const { id: chunk, pack, frame, start, length } of query.iterate(id)) {
    const ordinal = ordinals.get(pack);
    if (ordinal === undefined) continue;
    chunks.push({ id: chunk, pack: ordinal, frame, offset: start, length });
  }
  return chunks;
}
