/**
 * Which chunk lies where: the current index segments as tables. It is filled from segments whose
 * hash was checked and from nothing else, and every row carries a checksum over key and value, so
 * that a bad page is noticed at the hit and never becomes a hole in a backup.
 *
 * A pack row lives while a segment mentions it; chunk rows of a pack that has gone are dead, since
 * numbers are never used twice, and are swept when they are many. Segments that come together are one
 * transaction. Memory: SQLite's page cache, the rows of `PACK_CACHE_COUNT` packs, those segments, and a
 * filter of the ids where many unknown ones are asked for (`IdFilter`, `FILTER_CHUNK_COUNT_MAX`).
 */
import type { Statement } from "bun:sqlite";
import { SHA256_SIZE_BYTES, toHex } from "../../base/hex.ts";
import { damagedCatalog, guardRead } from "./catalog.ts";
import type { Catalog } from "./catalog.ts";
import { chunkChecksum } from "./chunk-checksum.ts";
import { insertChunks } from "./chunk-inserter.ts";
import { IdFilter } from "./id-filter.ts";
import type { DecodedSegment, SegmentPack } from "../format/index-segment.ts";
import {
  checkedPack,
  encodePackValue,
  FRAME_NUMBER_COUNT,
  packChecksum,
  readPackFrames,
  readPackValue,
  sealOf,
} from "./pack-row.ts";
import type { KnownPack, PackRow } from "./pack-row.ts";
import { idKey } from "../format/bytes.ts";
import type { FrameCodec } from "../format/pack.ts";
import type { FrameSeal } from "../format/seal.ts";

/** Where a chunk lies. */
export type ChunkPlace = {
  readonly pack: string;
  readonly birth: number;
  readonly frame: number;
  /** Offset in the raw bytes of the frame. */
  readonly offset: number;
  readonly length: number;
  readonly frameOffset: number;
  readonly storedLength: number;
  readonly rawLength: number;
  readonly codec: FrameCodec;
  /** In encrypted repositories: which key the frame is under. */
  readonly seal?: FrameSeal;
  /** Only pack directories have it. */
  readonly frameChecksum?: undefined;
};

/** A segment that became current. */
export type FoundSegment = {
  readonly ref: { readonly id: string };
  readonly segment: DecodedSegment;
};

/** A pack, and one of the segments that mention it. */
export type IndexedPack = SegmentPack & { readonly segment: string };

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS index_segment (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE
  ) STRICT;
  CREATE TABLE IF NOT EXISTS index_pack (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    birth INTEGER NOT NULL,
    chunks INTEGER NOT NULL,
    value BLOB NOT NULL,
    checksum INTEGER NOT NULL,
    UNIQUE (id, birth)
  ) STRICT;
  CREATE TABLE IF NOT EXISTS index_mention (
    segment INTEGER NOT NULL,
    pack INTEGER NOT NULL,
    PRIMARY KEY (segment, pack)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS index_mention_pack ON index_mention (pack);
  CREATE TABLE IF NOT EXISTS index_chunk (
    id BLOB NOT NULL,
    pack INTEGER NOT NULL,
    frame INTEGER NOT NULL,
    start INTEGER NOT NULL,
    length INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (id, pack)
  ) STRICT, WITHOUT ROWID;`;

const FIND_COUNT = 64;
const PACK_CACHE_COUNT = 4096;
const PAGE_COUNT = 200;
const SWEEP_CHUNK_COUNT_MIN = 100_000;
const DEAD_KEY = "index-dead-chunks";
/** For so many ids a filter takes some 4 MiB. */
const FILTER_CHUNK_COUNT_MAX = 1_000_000;
/** One unknown chunk costs SQLite as much as it takes to enter so many ids into a filter. */
const FILTER_IDS_OF_A_MISS = 64;

type ChunkRow = { pack: number; frame: number; start: number; length: number; checksum: number };

/**
 * The index of chunks in a catalog.
 *
 * @example
 * const [place] = index.find(id);
 */
export class ChunkIndex {
  readonly #catalog: Catalog;
  readonly #findChunk: Statement<ChunkRow, [Uint8Array]>;
  readonly #findChunks: Statement<ChunkRow & { id: Uint8Array }, Uint8Array[]>;
  readonly #findPackByNumber: Statement<PackRow, [number]>;
  /** By number; the oldest goes first. */
  readonly #packs = new Map<number, KnownPack | undefined>();
  /** Births of packs that were repaired, whatever the segments say. */
  #repairs: ReadonlyMap<string, number> = new Map();
  /** True while it is known that there is no chunk at all; undefined before somebody asks. */
  #isEmpty: boolean | undefined;
  /** Of all chunks here, once so many unknown ones were asked for that it pays. */
  #filter: IdFilter | undefined;
  #missCount = 0;

  constructor(catalog: Catalog) {
    this.#catalog = catalog;
    const { database } = catalog;
    guardRead(() => database.run(SCHEMA));
    this.#findChunk = database.query(
      "SELECT pack, frame, start, length, checksum FROM index_chunk WHERE id = ? ORDER BY pack",
    );
    this.#findChunks = database.query(
      `SELECT id, pack, frame, start, length, checksum FROM index_chunk
       WHERE id IN (${Array.from({ length: FIND_COUNT }, () => "?").join(", ")}) ORDER BY id, pack`,
    );
    this.#findPackByNumber = database.query(
      `SELECT number, id, birth, value, checksum,
         (SELECT min(birth) FROM index_pack other WHERE other.id = index_pack.id) AS lowest
       FROM index_pack WHERE number = ?`,
    );
  }

  /** True if the segment was applied. */
  hasSegment(id: string): boolean {
    const query = this.#catalog.database.query("SELECT 1 FROM index_segment WHERE id = ?");
    return guardRead(() => query.get(id)) !== null;
  }

  /** The ids of all segments that were applied. */
  listSegments(): string[] {
    return guardRead(() =>
      this.#catalog.database
        .query<{ id: string }, []>("SELECT id FROM index_segment ORDER BY number")
        .all()
        .map(({ id }) => id),
    );
  }

  /**
   * Enters segments: packs that `isDeleted` are left out, and what is known of a pack from another
   * segment stays. Twice is as good as once.
   */
  applySegments(
    found: readonly FoundSegment[],
    isDeleted: (pack: string, birth: number) => boolean = () => false,
  ): void {
    const fresh = found.filter(({ ref }) => !this.hasSegment(ref.id));
    if (fresh.length === 0) return;
    this.#forgetFilter();
    this.#packs.clear();
    this.#catalog.transaction(() => {
      const entered = fresh.map(({ ref, segment }) => {
        const number = this.#insertedNumber("INSERT INTO index_segment (id) VALUES (?)", [ref.id]);
        const numbers = segment.packs.map((pack) =>
          isDeleted(pack.id, pack.birth) ? undefined : this.#mention(number, pack),
        );
        return { segment, numbers };
      });
      const count = this.#catalog.database.query<null, [number, number]>(
        "UPDATE index_pack SET chunks = ? WHERE number = ?",
      );
      for (const [number, chunks] of insertChunks(this.#catalog, entered)) {
        count.run(chunks, number);
      }
    });
  }

  /** Forgets segments, and the packs that no other segment mentions. */
  removeSegments(ids: readonly string[]): void {
    if (ids.length === 0) return;
    this.#packs.clear();
    const { database } = this.#catalog;
    this.#catalog.transaction(() => {
      let dead = 0;
      const find = database.query<{ number: number }, [string]>(
        "SELECT number FROM index_segment WHERE id = ?",
      );
      for (const id of ids) {
        const number = find.get(id)?.number;
        if (number === undefined) continue;
        const mentioned = database
          .query<{ pack: number }, [number]>("SELECT pack FROM index_mention WHERE segment = ?")
          .all(number);
        database.query("DELETE FROM index_mention WHERE segment = ?").run(number);
        database.query("DELETE FROM index_segment WHERE number = ?").run(number);
        const removeUnmentioned = database.query<{ chunks: number }, [number, number]>(
          `DELETE FROM index_pack WHERE number = ?
             AND NOT EXISTS (SELECT 1 FROM index_mention WHERE pack = ?) RETURNING chunks`,
        );
        for (const { pack } of mentioned) dead += removeUnmentioned.get(pack, pack)?.chunks ?? 0;
      }
      this.#noteDead(dead);
    });
  }

  /** Forgets packs by id, those up to a birth if one is given. */
  removePacks(ids: Iterable<string>, birthMax: (id: string) => number = () => Infinity): void {
    this.#packs.clear();
    const { database } = this.#catalog;
    this.#catalog.transaction(() => {
      let dead = 0;
      const find = database.query<{ number: number; birth: number; chunks: number }, [string]>(
        "SELECT number, birth, chunks FROM index_pack WHERE id = ?",
      );
      const removeMentions = database.query<null, [number]>(
        "DELETE FROM index_mention WHERE pack = ?",
      );
      const removePack = database.query<null, [number]>("DELETE FROM index_pack WHERE number = ?");
      for (const id of ids) {
        for (const { number, birth, chunks } of find.all(id)) {
          if (birth > birthMax(id)) continue;
          removeMentions.run(number);
          removePack.run(number);
          dead += chunks;
        }
      }
      this.#noteDead(dead);
    });
  }

  /** From now on these packs lie under these births; all others under those of their segments. */
  setRepairs(repairs: ReadonlyMap<string, number>): void {
    if (repairs === this.#repairs) return;
    this.#repairs = repairs;
    this.#packs.clear();
  }

  /** Forgets everything; the segments must be applied again. */
  clear(): void {
    this.#forgetFilter();
    this.#packs.clear();
    guardRead(() => {
      for (const table of ["segment", "pack", "mention", "chunk"]) {
        this.#catalog.database.run(`DROP TABLE IF EXISTS index_${table}`);
      }
      this.#catalog.database.run(SCHEMA);
      this.#catalog.set(DEAD_KEY, undefined);
    });
  }

  /** True if no chunk can be found here: then nobody needs to ask for one. */
  get isEmpty(): boolean {
    this.#isEmpty ??= guardRead(
      () => this.#catalog.database.query("SELECT 1 FROM index_chunk LIMIT 1").get() === null,
    );
    return this.#isEmpty;
  }

  /** False if the chunk is surely not here, which hardly ever asks SQLite. */
  mayHave(id: Uint8Array): boolean {
    if (this.isEmpty) return false;
    return this.#filter?.mayHave(id) ?? true;
  }

  /**
   * The places of a chunk, the longest known first. A row that fails its checksum is AppError
   * `damaged` with `context.catalog`: then the index is to be rebuilt.
   */
  find(id: Uint8Array): ChunkPlace[] {
    return guardRead(() => {
      const places: ChunkPlace[] = [];
      const rows = this.#findChunk.all(id);
      for (const row of rows) this.#addPlace(id, row, places);
      if (rows.length === 0) this.#noteMiss();
      return places;
    });
  }

  /** `find` of each, at a third of the price: calls into SQLite cost more than what it does. */
  findMany(ids: readonly Uint8Array[]): ChunkPlace[][] {
    return guardRead(() => {
      const places: ChunkPlace[][] = [];
      for (let start = 0; start < ids.length; start += FIND_COUNT) {
        const page = ids.slice(start, start + FIND_COUNT);
        const found = new Map(page.map((id): [string, ChunkPlace[]] => [idKey(id), []]));
        const asked = Array.from({ length: FIND_COUNT }, (_, index) => page[index] ?? page[0]!);
        for (const row of this.#findChunks.all(...asked)) {
          this.#addPlace(row.id, row, found.get(idKey(row.id)) ?? []);
        }
        for (const id of page) places.push(found.get(idKey(id)) ?? []);
      }
      return places;
    });
  }

  /**
   * A pack by id. Of two births the lower is right: whoever committed the other one later sent an
   * object that nobody needs.
   */
  findPack(id: string): IndexedPack | undefined {
    return guardRead(() => {
      const row = this.#catalog.database
        .query<{ number: number; segment: string }, [string]>(
          `SELECT p.number AS number,
             (SELECT s.id FROM index_mention m JOIN index_segment s ON s.number = m.segment
              WHERE m.pack = p.number ORDER BY m.segment LIMIT 1) AS segment
           FROM index_pack p WHERE p.id = ? ORDER BY p.birth LIMIT 1`,
        )
        .get(id);
      if (row === null) return undefined;
      const pack = this.#packOf(row.number);
      return pack === undefined ? undefined : indexedPack(pack, row.segment);
    });
  }

  /** Ids of packs above one, ascending. */
  packIds(range: { readonly after: string; readonly count: number }): string[] {
    const sql = "SELECT DISTINCT id FROM index_pack WHERE id > $after ORDER BY id LIMIT $count";
    const query = this.#catalog.database.query<{ id: string }, typeof range>(sql);
    return guardRead(() => query.all(range).map(({ id }) => id));
  }

  /** All packs (of one segment, if named), in no order that means anything. */
  *packs(options: { readonly segment?: string } = {}): Generator<IndexedPack, void, undefined> {
    const page = this.#catalog.database.query<
      { number: number; segment: string },
      { after: number; segment: string | null; count: number }
    >(
      `SELECT p.number AS number, s.id AS segment
       FROM index_pack p
         JOIN index_mention m ON m.pack = p.number
         JOIN index_segment s ON s.number = m.segment
       WHERE p.number > $after AND CASE WHEN $segment IS NULL
         THEN m.segment = (SELECT min(segment) FROM index_mention WHERE pack = p.number)
         ELSE s.id = $segment END
       ORDER BY p.number LIMIT $count`,
    );
    let after = 0;
    for (;;) {
      const query = { after, segment: options.segment ?? null, count: PAGE_COUNT };
      const rows = guardRead(() => page.all(query));
      for (const { number, segment } of rows) {
        const pack = guardRead(() => this.#packOf(number));
        if (pack !== undefined) yield indexedPack(pack, segment);
        after = number;
      }
      if (rows.length < PAGE_COUNT) return;
    }
  }

  /** How many packs are mentioned, retired ones too. */
  countPacks(): number {
    const sql = "SELECT count(DISTINCT id) AS sum FROM index_pack";
    return guardRead(() => this.#catalog.database.query<{ sum: number }, []>(sql).get()?.sum ?? 0);
  }

  /** How many chunk rows live packs have. */
  countChunks(): number {
    const sql = "SELECT total(chunks) AS sum FROM index_pack";
    const row = guardRead(() => this.#catalog.database.query<{ sum: number }, []>(sql).get());
    return row?.sum ?? 0;
  }

  /** Mentions a pack; its number if its chunks are to be entered, undefined if they are here. */
  #mention(segment: number, pack: SegmentPack): number | undefined {
    const { database } = this.#catalog;
    const known = database
      .query<{ number: number }, [string, number]>(
        "SELECT number FROM index_pack WHERE id = ? AND birth = ?",
      )
      .get(pack.id, pack.birth)?.number;
    const number = known ?? this.#insertPack(pack);
    database
      .query("INSERT OR IGNORE INTO index_mention (segment, pack) VALUES (?, ?)")
      .run(segment, number);
    return known === undefined ? number : undefined;
  }

  #insertPack(pack: SegmentPack): number {
    const value = encodePackValue(pack);
    return this.#insertedNumber(
      "INSERT INTO index_pack (id, birth, chunks, value, checksum) VALUES (?, ?, 0, ?, ?)",
      [pack.id, pack.birth, value, packChecksum(pack.id, pack.birth, value)],
    );
  }

  #insertedNumber(sql: string, values: (string | number | Uint8Array)[]): number {
    const row = this.#catalog.database
      .query<{ number: number }, (string | number | Uint8Array)[]>(`${sql} RETURNING number`)
      .get(...values);
    return row?.number ?? 0;
  }

  /** Makes the filter when it costs no more than the misses so far; looks at powers of two. */
  #noteMiss(): void {
    this.#missCount += 1;
    if (this.#filter !== undefined || Math.log2(this.#missCount) % 1 !== 0) return;
    const chunkCountMax = Math.min(this.#missCount * FILTER_IDS_OF_A_MISS, FILTER_CHUNK_COUNT_MAX);
    if (this.countChunks() > chunkCountMax) return;
    const ids = this.#catalog.database.query<{ id: Uint8Array }, []>("SELECT id FROM index_chunk");
    const filter = new IdFilter(Math.max(1, this.countChunks()));
    for (const { id } of ids.iterate()) {
      if (id.length !== SHA256_SIZE_BYTES) throw damagedCatalog("the id of a chunk is none");
      filter.add(id);
    }
    this.#filter = filter;
  }

  #forgetFilter(): void {
    this.#isEmpty = undefined;
    this.#filter = undefined;
    this.#missCount = 0;
  }

  #addPlace(id: Uint8Array, row: ChunkRow, places: ChunkPlace[]): void {
    const pack = this.#packOf(row.pack);
    if (pack === undefined) return;
    const place = placeOf(pack, row);
    if (place === undefined || row.checksum !== chunkChecksum(id, pack.idBytes, row)) {
      throw damagedCatalog(`the row of chunk ${toHex(id)} has a wrong checksum`);
    }
    places.push(place);
  }

  /** A pack by number; undefined if it has gone, or lies here under a lower birth too. */
  #packOf(number: number): KnownPack | undefined {
    if (this.#packs.has(number)) return this.#packs.get(number);
    const row = this.#findPackByNumber.get(number);
    const isRight = row !== null && row.birth === row.lowest;
    const pack = isRight ? repaired(checkedPack(row), this.#repairs) : undefined;
    for (const oldest of this.#packs.keys()) {
      if (this.#packs.size < PACK_CACHE_COUNT) break;
      this.#packs.delete(oldest);
    }
    this.#packs.set(number, pack);
    return pack;
  }

  /** Dead rows cost space and nothing else, so they are removed when they are half of the table. */
  #noteDead(chunkCount: number): void {
    const dead = Number(this.#catalog.get(DEAD_KEY) ?? 0) + chunkCount;
    const isMany = dead >= Math.max(SWEEP_CHUNK_COUNT_MIN, this.countChunks());
    if (isMany) {
      this.#catalog.database.run(
        "DELETE FROM index_chunk WHERE pack NOT IN (SELECT number FROM index_pack)",
      );
    }
    this.#catalog.set(DEAD_KEY, isMany ? undefined : String(dead));
  }
}

function repaired(pack: KnownPack, repairs: ReadonlyMap<string, number>): KnownPack {
  const birth = repairs.get(pack.id);
  return birth === undefined ? pack : { ...pack, birth };
}

function indexedPack(pack: KnownPack, segment: string): IndexedPack {
  const { id, birth } = pack;
  const { sizeBytes, directoryLength, kind } = readPackValue(pack);
  const frames = readPackFrames(pack);
  return { id, birth, sizeBytes, directoryLength, kind, frames, segment };
}

function placeOf(pack: KnownPack, row: ChunkRow): ChunkPlace | undefined {
  const at = row.frame * FRAME_NUMBER_COUNT;
  const { frames } = pack;
  const [frameOffset, storedLength, rawLength] = [frames[at], frames[at + 1], frames[at + 2]];
  if (frameOffset === undefined || storedLength === undefined || rawLength === undefined) return;
  if (row.start + row.length > rawLength) return undefined;
  const seal = sealOf(pack, row.frame);
  return {
    ...(seal === undefined ? {} : { seal }),
    pack: pack.id,
    birth: pack.birth,
    frame: row.frame,
    offset: row.start,
    length: row.length,
    frameOffset,
    storedLength,
    rawLength,
    codec: frames[at + 3] === 0 ? 0 : 1,
  };
}
