/**
 * Enters the chunks of segments into the index, in the order of the table. Ids are random, so that rows
 * in any other order each cost a page to read and a page to write once the table is larger than
 * SQLite's memory: ten segments that are entered together write a third of the pages that ten do
 * one after another.
 */
import type { Statement } from "bun:sqlite";
import { fromHex } from "../../base/hex.ts";
import { checkMemory } from "../../base/memory-guard.ts";
import { idPrefix } from "../format/index-segment.ts";
import type { DecodedSegment, SegmentChunk } from "../format/index-segment.ts";
import type { Catalog } from "./catalog.ts";
import { chunkChecksum } from "./chunk-checksum.ts";

/** A segment, and the numbers of its packs in the index; none for a pack whose chunks are left out. */
export type EnteredSegment = {
  readonly segment: DecodedSegment;
  readonly numbers: readonly (number | undefined)[];
};

const CHUNK_COLUMN_COUNT = 6;
const INSERT_ROW_COUNT = 64;

type ChunkValue = Uint8Array | number;

/** Enters all chunks of packs with numbers; answers how many by the pack's number. */
export function insertChunks(
  catalog: Catalog,
  segments: readonly EnteredSegment[],
): Map<number, number> {
  const counts = new Map<number, number>();
  const wanted = segments.filter(({ numbers }) => numbers.some((number) => number !== undefined));
  const insert = new ChunkInserter(catalog);
  const cursors = wanted.map((entered) => new Cursor(entered));
  for (const { chunk, number, packId } of inOrder(cursors)) {
    insert.add(chunk, { number, packId });
    counts.set(number, (counts.get(number) ?? 0) + 1);
  }
  insert.finish();
  return counts;
}

/** Inserts chunk rows many at a time, which spares most of the calls into SQLite. */
class ChunkInserter {
  readonly #many: Statement<null, ChunkValue[]>;
  readonly #one: Statement<null, ChunkValue[]>;
  #pending: ChunkValue[] = [];

  constructor(catalog: Catalog) {
    this.#many = catalog.database.query(insertChunksSql(INSERT_ROW_COUNT));
    this.#one = catalog.database.query(insertChunksSql(1));
  }

  add(chunk: SegmentChunk, pack: { readonly number: number; readonly packId: Uint8Array }): void {
    const { id, frame, offset, length } = chunk;
    const checksum = chunkChecksum(id, pack.packId, { frame, start: offset, length });
    this.#pending.push(id, pack.number, frame, offset, length, checksum);
    if (this.#pending.length < INSERT_ROW_COUNT * CHUNK_COLUMN_COUNT) return;
    this.#many.run(...this.#pending);
    this.#pending = [];
    checkMemory();
  }

  finish(): void {
    for (let index = 0; index < this.#pending.length; index += CHUNK_COLUMN_COUNT) {
      this.#one.run(...this.#pending.slice(index, index + CHUNK_COLUMN_COUNT));
    }
    this.#pending = [];
  }
}

function insertChunksSql(rowCount: number): string {
  const rows = Array.from({ length: rowCount }, () => "(?, ?, ?, ?, ?, ?)").join(", ");
  return `INSERT OR IGNORE INTO index_chunk (id, pack, frame, start, length, checksum) VALUES ${rows}`;
}

/** The next chunk of a segment that is to be entered. */
class Cursor {
  readonly #numbers: EnteredSegment["numbers"];
  readonly #packIds: readonly Uint8Array[];
  readonly #chunks: Generator<SegmentChunk, void, undefined>;
  chunk!: SegmentChunk;
  number = 0;
  /** The first bytes of the chunk's id. */
  prefix = 0;

  constructor({ segment, numbers }: EnteredSegment) {
    this.#numbers = numbers;
    this.#packIds = segment.packs.map(({ id }) => fromHex(id));
    this.#chunks = segment.chunks();
  }

  get packId(): Uint8Array {
    return this.#packIds[this.chunk.pack]!;
  }

  /** False at the end. */
  next(): boolean {
    for (;;) {
      const { value, done } = this.#chunks.next();
      if (done === true) return false;
      const number = this.#numbers[value.pack];
      if (number === undefined) continue;
      this.chunk = value;
      this.number = number;
      this.prefix = idPrefix(value.id);
      return true;
    }
  }
}

/** All chunks, ascending by the first bytes of their ids; yields the cursor that stands at the least. */
function* inOrder(all: readonly Cursor[]): Generator<Cursor, void, undefined> {
  // A binary heap: the least comes first.
  const heap = all.filter((cursor) => cursor.next()).toSorted((a, b) => a.prefix - b.prefix);
  for (;;) {
    const first = heap[0];
    if (first === undefined) return;
    yield first;
    if (!first.next()) {
      const last = heap.pop();
      if (last === undefined || heap.length === 0) return;
      heap[0] = last;
    }
    sink(heap);
  }
}

/** Puts the first of a heap where it belongs. */
function sink(heap: Cursor[]): void {
  for (let index = 0; ;) {
    const left = 2 * index + 1;
    if (left >= heap.length) return;
    const right = left + 1;
    const isRightLess = right < heap.length && heap[right]!.prefix < heap[left]!.prefix;
    const child = isRightLess ? right : left;
    if (heap[index]!.prefix <= heap[child]!.prefix) return;
    [heap[index], heap[child]] = [heap[child]!, heap[index]!];
    index = child;
  }
}
