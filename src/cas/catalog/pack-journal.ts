/**
 * Packs that the site has acknowledged and that no entry of the log names yet, with where their
 * chunks lie. What an operation sends is found here until its segments are current; what a dead
 * operation has sent is adopted by the next one while its birth is above the floor, since nobody may
 * remove it before. Rows carry checksums, and a directory is checked against its pack's id.
 *
 * Memory: a filter of the ids of all chunks (`IdFilter`), a few bytes each: nearly every chunk of a
 * first backup is asked for here, and is not here.
 */
import type { Database, Statement } from "bun:sqlite";
import { fromHex, SHA256_SIZE_BYTES } from "../../base/hex.ts";
import { guardRead } from "./catalog.ts";
import type { Catalog } from "./catalog.ts";
import { IdFilter } from "./id-filter.ts";
import { segmentFramesOf, storedDirectoryLength } from "../format/index-segment.ts";
import type { SegmentPack } from "../format/index-segment.ts";
import type { KeyRef } from "../keys/write-session.ts";
import { decodeDirectory, packIdOf } from "../format/pack.ts";
import type { PackDirectory, SealedPack } from "../format/pack.ts";

/** Where a chunk lies in a journaled pack. */
export type JournalPlace = {
  readonly pack: string;
  readonly birth: number;
  readonly frame: number;
  readonly frameCount: number;
  /** The operation that the pack belongs to now. */
  readonly operation: string;
  /** True if every node of the repository can open it. */
  readonly isOpen: boolean;
};

/** A journaled pack, ready to stand in a segment. */
export type JournalPack = { readonly pack: SegmentPack; readonly directory: PackDirectory };

/** What the journal keeps of a pack. */
export type SentPackRow = Pick<SealedPack, "id" | "directory" | "directoryBytes"> & {
  readonly sizeBytes: number;
};

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS journal_pack (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, birth INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL, frame_count INTEGER NOT NULL, chunk_count INTEGER NOT NULL,
    directory BLOB NOT NULL, operation TEXT NOT NULL, segment TEXT) STRICT;
  CREATE TABLE IF NOT EXISTS journal_chunk (
    id BLOB NOT NULL, pack INTEGER NOT NULL, frame INTEGER NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (id, pack)) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS journal_key (
    id TEXT PRIMARY KEY, birth INTEGER NOT NULL, hash TEXT NOT NULL, recipients TEXT NOT NULL) STRICT;
`;

const CHUNK_COLUMN_COUNT = 4;
const INSERT_ROW_COUNT = 32;

/** Ids that the filter is made for at first; it grows. */
const FILTER_ID_COUNT_MIN = 32 * 1024;

/** Fewer dead rows than this are not worth a sweep. */
const SWEEP_CHUNK_COUNT_MIN = 10_000;

type ChunkRow = { pack: number; frame: number; checksum: number };

type ChunkValue = Uint8Array | number;

/** What is kept in memory of a pack whose chunks were asked for. */
type KnownPack = {
  id: string;
  birth: number;
  frameCount: number;
  operation: string;
  /** 1 for a directory of an encrypted repository whose first origin is a session key. */
  isClosed: number;
};

const KNOWN_PACK_COUNT_MAX = 1024;

type PackRow = { id: string; birth: number; sizeBytes: number; directory: Uint8Array };

/** The journal of one node. */
export class PackJournal {
  readonly #database: Database;
  readonly #findChunk: Statement<ChunkRow, [Uint8Array]>;
  readonly #findPack: Statement<KnownPack, [number]>;
  readonly #insertChunks: Statement<null, ChunkValue[]>;
  readonly #insertChunk: Statement<null, ChunkValue[]>;
  /** By number; emptied whenever a pack changes. */
  readonly #known = new Map<number, KnownPack | null>();
  #packCount: number;
  /** Chunk rows of packs that are here, and of packs that were dropped. */
  #chunkCount: number;
  #deadCount: number;
  /** Of all chunks here; made when somebody asks. */
  #filter: IdFilter | undefined;

  constructor(catalog: Pick<Catalog, "database">) {
    this.#database = catalog.database;
    this.#database.run(SCHEMA);
    this.#findChunk = this.#database.query(
      "SELECT pack, frame, checksum FROM journal_chunk WHERE id = ?",
    );
    this.#findPack = this.#database.query(
      `SELECT id, birth, frame_count AS frameCount, operation,
         substr(directory, 1, 1) = x'01' AND substr(directory, 20, 1) = x'01' AS isClosed
       FROM journal_pack WHERE number = ?`,
    );
    this.#insertChunks = this.#database.query(insertChunksSql(INSERT_ROW_COUNT));
    this.#insertChunk = this.#database.query(insertChunksSql(1));
    const { packs, chunks } = this.#count();
    this.#packCount = packs;
    this.#chunkCount = chunks;
    this.#deadCount = this.#countRows() - chunks;
  }

  /** Enters a pack that the site has acknowledged; its bytes may be gone. */
  add(sealed: SentPackRow, birth: number, operation: string): void {
    const { directory } = sealed;
    const insertPack = this.#database.query<
      { number: number },
      [string, number, number, number, number, Uint8Array, string]
    >(
      `INSERT INTO journal_pack
         (id, birth, size_bytes, frame_count, chunk_count, directory, operation)
       VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING number`,
    );
    const chunkCount = directory.frames.reduce((sum, frame) => sum + frame.chunks.length, 0);
    this.#database.transaction(() => {
      const row = insertPack.get(
        sealed.id,
        birth,
        sealed.sizeBytes,
        directory.frames.length,
        chunkCount,
        sealed.directoryBytes,
        operation,
      );
      this.#addChunks({ id: sealed.id, number: row!.number, directory });
    })();
    this.#packCount += 1;
    this.#chunkCount += chunkCount;
  }

  /** False if the chunk is surely not here; asks SQLite at most the first time. */
  mayHave(id: Uint8Array): boolean {
    if (this.#packCount === 0) return false;
    this.#filter ??= this.#makeFilter();
    return this.#filter.mayHave(id);
  }

  /** A place of a chunk (that every node can open); rows with a wrong checksum are none. */
  find(id: Uint8Array, how: { readonly isOpen?: boolean } = {}): JournalPlace | undefined {
    if (!this.mayHave(id)) return undefined;
    for (const row of guardRead(() => this.#findChunk.all(id))) {
      const pack = this.#packOf(row.pack);
      if (pack === null) continue;
      if (row.checksum !== chunkChecksum(id, fromHex(pack.id), row.frame)) continue;
      const { birth, frameCount, operation } = pack;
      const isOpen = pack.isClosed === 0;
      if (how.isOpen === true && !isOpen) continue;
      return { pack: pack.id, birth, frame: row.frame, frameCount, operation, isOpen };
    }
    return undefined;
  }

  /** Makes a pack of another operation one of this operation, in no segment yet. */
  adopt(pack: string, operation: string): void {
    this.#known.clear();
    this.#database.run(
      "UPDATE journal_pack SET operation = ?, segment = NULL WHERE id = ? AND operation <> ?",
      [operation, pack, operation],
    );
  }

  /** Takes all packs of an operation out of the segments of an attempt that was not committed. */
  reopen(operation: string): void {
    this.#database.run("UPDATE journal_pack SET segment = NULL WHERE operation = ?", [operation]);
  }

  /**
   * Packs of an operation that are in no segment yet, with at most so many chunks together (and
   * always one, if there is one). A pack whose directory is not what its id says is dropped.
   */
  listUnnamed(operation: string, chunkCountMax: number): JournalPack[] {
    const found: JournalPack[] = [];
    let chunkCount = 0;
    const rows = this.#database
      .query<PackRow & { chunkCount: number }, [string]>(
        `SELECT id, birth, size_bytes AS sizeBytes, directory, chunk_count AS chunkCount
         FROM journal_pack WHERE operation = ? AND segment IS NULL ORDER BY number`,
      )
      .iterate(operation);
    for (const row of rows) {
      if (found.length > 0 && chunkCount + row.chunkCount > chunkCountMax) break;
      chunkCount += row.chunkCount;
      const opened = openRow(row);
      if (opened !== undefined) found.push(opened);
    }
    return found;
  }

  /** Says in which segment packs stand, which the site has but no entry names yet. */
  setSegment(packs: readonly string[], segment: string): void {
    const update = this.#database.query<null, [string, string]>(
      "UPDATE journal_pack SET segment = ? WHERE id = ?",
    );
    this.#database.transaction(() => {
      for (const pack of packs) update.run(segment, pack);
    })();
  }

  /** Packs of an operation whose birth the floor has passed. */
  countBelow(operation: string, floor: number): number {
    const row = this.#database
      .query<{ count: number }, [string, number]>(
        "SELECT count(*) AS count FROM journal_pack WHERE operation = ? AND birth <= ?",
      )
      .get(operation, floor);
    return row?.count ?? 0;
  }

  /** Drops what may be gone by now: packs born at or below the floor. */
  dropBelow(floor: number): void {
    this.#drop("birth <= ?", [floor]);
  }

  /** Drops the packs of segments that an entry names: the index has them now. */
  dropSegments(segments: readonly string[]): void {
    this.#drop("segment = ?", segments);
  }

  /** Drops all packs of an operation. */
  dropOperation(operation: string): void {
    this.#drop("operation = ?", [operation]);
  }

  /** Drops the packs that somebody knows by another way. */
  dropKnown(isKnown: (pack: string) => boolean): void {
    const rows = this.#database.query<{ id: string }, []>("SELECT id FROM journal_pack").all();
    const known = rows.map(({ id }) => id).filter(isKnown);
    this.#drop("id = ?", known);
  }

  /** Remembers the key object of packs that are journaled next. */
  addKey({ id, birth, hash, recipients }: KeyRef): void {
    this.#database
      .query("INSERT OR REPLACE INTO journal_key (id, birth, hash, recipients) VALUES (?, ?, ?, ?)")
      .run(id, birth, hash, recipients.join(" "));
  }

  /** The key object of a session, if it is remembered. */
  getKey(id: string): KeyRef | undefined {
    const row = guardRead(() =>
      this.#database
        .query<{ birth: number; hash: string; recipients: string }, [string]>(
          "SELECT birth, hash, recipients FROM journal_key WHERE id = ?",
        )
        .get(id),
    );
    if (row === null) return undefined;
    return { id, ...row, recipients: row.recipients.split(" ") };
  }

  /** Forgets the keys that the log names by now. */
  dropKeys(isKnown: (id: string) => boolean): void {
    const rows = this.#database.query<{ id: string }, []>("SELECT id FROM journal_key").all();
    const remove = this.#database.query<null, [string]>("DELETE FROM journal_key WHERE id = ?");
    for (const { id } of rows) if (isKnown(id)) remove.run(id);
  }

  #addChunks(pack: {
    readonly id: string;
    readonly number: number;
    readonly directory: PackDirectory;
  }): void {
    const packId = fromHex(pack.id);
    let pending: ChunkValue[] = [];
    for (const [frame, { chunks }] of pack.directory.frames.entries()) {
      for (const { id } of chunks) {
        this.#filter?.add(id);
        pending.push(id, pack.number, frame, chunkChecksum(id, packId, frame));
        if (pending.length < INSERT_ROW_COUNT * CHUNK_COLUMN_COUNT) continue;
        this.#insertChunks.run(...pending);
        pending = [];
      }
    }
    for (let index = 0; index < pending.length; index += CHUNK_COLUMN_COUNT) {
      this.#insertChunk.run(...pending.slice(index, index + CHUNK_COLUMN_COUNT));
    }
  }

  #makeFilter(): IdFilter {
    return guardRead(() => {
      const filter = new IdFilter(FILTER_ID_COUNT_MIN);
      const rows = this.#database
        .query<{ id: Uint8Array }, []>("SELECT id FROM journal_chunk")
        .iterate();
      for (const { id } of rows) filter.add(id);
      return filter;
    });
  }

  #packOf(number: number): KnownPack | null {
    const known = this.#known.get(number);
    if (known !== undefined) return known;
    const found = guardRead(() => this.#findPack.get(number));
    if (this.#known.size >= KNOWN_PACK_COUNT_MAX) this.#known.clear();
    this.#known.set(number, found);
    return found;
  }

  #count(): { readonly packs: number; readonly chunks: number } {
    const row = this.#database
      .query<{ packs: number; chunks: number }, []>(
        "SELECT count(*) AS packs, total(chunk_count) AS chunks FROM journal_pack",
      )
      .get();
    return row ?? { packs: 0, chunks: 0 };
  }

  #countRows(): number {
    const row = this.#database
      .query<{ count: number }, []>("SELECT count(*) AS count FROM journal_chunk")
      .get();
    return row?.count ?? 0;
  }

  #drop(
    where: "birth <= ?" | "segment = ?" | "operation = ?" | "id = ?",
    values: readonly (string | number)[],
  ): void {
    if (values.length === 0 || this.#packCount === 0) return;
    const drop = (): { readonly packs: number; readonly chunks: number; readonly dead: number } => {
      const remove = this.#database.query<null, [string | number]>(
        `DELETE FROM journal_pack WHERE ${where}`,
      );
      for (const value of values) remove.run(value);
      const { packs, chunks } = this.#count();
      const dead = this.#deadCount + this.#chunkCount - chunks;
      const isMany = dead >= Math.max(SWEEP_CHUNK_COUNT_MIN, chunks);
      if (!isMany && packs > 0) return { packs, chunks, dead };
      this.#sweep();
      return { packs, chunks, dead: 0 };
    };
    const { packs, chunks, dead } = guardRead(() => this.#database.transaction(drop)());
    this.#packCount = packs;
    this.#chunkCount = chunks;
    this.#deadCount = dead;
    this.#known.clear();
  }

  /**
   * Empties the table and enters anew what lives, which its packs tell: to look for the dead rows takes
   * half a minute where they are eight million.
   */
  #sweep(): void {
    this.#database.run("DELETE FROM journal_chunk");
    const rows = this.#database.query<PackRow & { number: number }, []>(
      `SELECT number, id, birth, size_bytes AS sizeBytes, directory FROM journal_pack`,
    );
    for (const row of rows.iterate()) {
      const opened = openRow(row);
      if (opened === undefined) continue;
      this.#addChunks({ id: row.id, number: row.number, directory: opened.directory });
    }
    this.#filter = undefined;
  }
}

function insertChunksSql(rowCount: number): string {
  const rows = Array.from({ length: rowCount }, () => "(?, ?, ?, ?)").join(", ");
  return `INSERT OR IGNORE INTO journal_chunk (id, pack, frame, checksum) VALUES ${rows}`;
}

function openRow(row: PackRow): JournalPack | undefined {
  const directoryBytes = row.directory.slice();
  if (packIdOf(directoryBytes) !== row.id) return undefined;
  const directory = decodeDirectory(directoryBytes, `The journaled pack ${row.id}`);
  const { id, birth, sizeBytes } = row;
  const pack = {
    id,
    birth,
    sizeBytes,
    directoryLength: storedDirectoryLength({ directory, bytes: { length: sizeBytes } }),
    kind: directory.kind,
    frames: segmentFramesOf(directory),
  };
  return { pack, directory };
}

const checksumInput = new Uint8Array(2 * SHA256_SIZE_BYTES + 4);
const checksumView = new DataView(checksumInput.buffer);

/** 32 bits: SQLite keeps numbers, and a wrong row must also lead to a pack that exists. */
function chunkChecksum(id: Uint8Array, packId: Uint8Array, frame: number): number {
  checksumInput.set(id, 0);
  checksumInput.set(packId, SHA256_SIZE_BYTES);
  checksumView.setUint32(2 * SHA256_SIZE_BYTES, frame);
  return Bun.hash.xxHash32(checksumInput);
}
