/**
 * What each file held when it was last read: a cache, one SQLite row a path, that lets a backup pass
 * an unchanged file with one `stat`. A row names the operation that vouched for it, and is trusted
 * while a backup that covers this operation's chunks is listed; what nobody covers is looked up again,
 * chunk by chunk. Each row, and each mapping of operation to backup, carries a checksum over key and
 * value: a corrupt page must never put one file's chunks into another. Memory: one page of rows and
 * one batch of writes.
 */
import type { Database, Statement } from "bun:sqlite";
import { fromHex, SHA256_SIZE_BYTES, toHex } from "../../base/hex.ts";
import { ByteReader, ByteWriter } from "../format/bytes.ts";
import { guardRead } from "./catalog.ts";
import type { Catalog } from "./catalog.ts";
import type { ChunkRef } from "../format/listing.ts";
import type { TreeRoot } from "../format/tree.ts";

/** What a file holds, in the form that its record needs. */
export type StatContent =
  | { readonly form: "inline"; readonly chunks: readonly ChunkRef[] }
  | {
      readonly form: "tree";
      readonly root: TreeRoot;
      /** The ends of the list, to resume an append-only file without reading the tree. */
      readonly first: ChunkRef;
      readonly last: readonly [ChunkRef, ChunkRef];
    };

/** One row. */
export type StatRow = {
  readonly inode: bigint;
  readonly birthtimeNs: bigint;
  readonly sizeBytes: number;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  /** Wall clock, not after the stat was taken. */
  readonly takenNs: bigint;
  readonly isSparse: boolean;
  /** False if the file had no extended attributes, which a new ctime would tell of. */
  readonly hasXattrs: boolean;
  readonly content: StatContent;
};

/** A row with the number of the operation that vouched for it. */
export type VouchedRow = StatRow & { readonly operation: number };

const PAGE_ROW_COUNT = 1000;
const WRITE_COUNT_MAX = 1000;
const CHECK_SIZE_BYTES = 8;
const FIXED_SIZE_BYTES = 48;
const FLAG_SPARSE = 1;
const FLAG_XATTRS = 2;

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS stat_volume (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
  CREATE TABLE IF NOT EXISTS stat_operation (
    number INTEGER PRIMARY KEY AUTOINCREMENT, operation TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS stat_backup (
    number INTEGER NOT NULL, backup TEXT NOT NULL, checksum BLOB NOT NULL,
    PRIMARY KEY (number, backup)) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS stat_row (
    volume INTEGER NOT NULL, path TEXT NOT NULL, operation INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (volume, path)) STRICT, WITHOUT ROWID;
`;

/**
 * The stat cache of one node.
 *
 * @example
 * const number = cache.begin(operation);
 * using cursor = cache.openCursor("data");
 * const row = cursor.take("a/b");
 * cursor.put("a/b", { ...row, operation: number });
 */
export class StatCache {
  readonly #database: Database;
  /** Rows whose checksum did not match, since this cache was opened. */
  damagedRowCount = 0;

  constructor(catalog: Pick<Catalog, "database">) {
    this.#database = catalog.database;
    makeStatTables(catalog);
  }

  /** The number that `begin` gives next. */
  get nextNumber(): number {
    const row = this.#database
      .query<{ seq: number }, []>("SELECT seq FROM sqlite_sequence WHERE name = 'stat_operation'")
      .get();
    return (row?.seq ?? 0) + 1;
  }

  /** A number for an operation, above all earlier ones. */
  begin(operation: string): number {
    this.#database.run("INSERT INTO stat_operation (operation) VALUES (?)", [operation]);
    const row = this.#database
      .query<{ number: number }, []>("SELECT max(number) AS number FROM stat_operation")
      .get();
    const number = row?.number ?? 0;
    this.#database.run("DELETE FROM stat_operation WHERE number < ?", [number]);
    return number;
  }

  /** Backups whose lists cover all rows of an operation. */
  backupsOf(number: number): string[] {
    const rows = this.#database
      .query<{ backup: string; checksum: Uint8Array }, { number: number }>(
        "SELECT backup, checksum FROM stat_backup WHERE number = $number",
      )
      .all({ number });
    return rows
      .filter((row) => Buffer.compare(row.checksum, mappingChecksum(number, row.backup)) === 0)
      .map((row) => row.backup);
  }

  /** Says that the backup covers all rows of these operations. */
  cover(numbers: Iterable<number>, backup: string): void {
    const insert = this.#database.query<null, [number, string, Uint8Array]>(
      "INSERT OR REPLACE INTO stat_backup (number, backup, checksum) VALUES (?, ?, ?)",
    );
    this.#database.transaction(() => {
      for (const number of numbers) insert.run(number, backup, mappingChecksum(number, backup));
    })();
  }

  /** Forgets backups that are not listed any more, and operations that no row or backup needs. */
  prune(isListed: (backup: string) => boolean): void {
    const rows = this.#database
      .query<{ backup: string }, []>("SELECT DISTINCT backup FROM stat_backup")
      .all();
    const remove = this.#database.query<null, [string]>("DELETE FROM stat_backup WHERE backup = ?");
    for (const { backup } of rows) if (!isListed(backup)) remove.run(backup);
  }

  /** Goes through a volume's rows beside a walk of it; one that only reads may be left anywhere. */
  openCursor(volume: string, how: { readonly isReadOnly?: boolean } = {}): StatCursor {
    this.#database.run("INSERT OR IGNORE INTO stat_volume (name) VALUES (?)", [volume]);
    const row = this.#database
      .query<{ number: number }, { volume: string }>(
        "SELECT number FROM stat_volume WHERE name = $volume",
      )
      .get({ volume });
    const place = { name: volume, number: row?.number ?? 0, ...how };
    return new StatCursor(this.#database, place, () => {
      this.damagedRowCount += 1;
    });
  }
}

/** Makes the tables of the stat cache where there are none. */
export function makeStatTables(catalog: Pick<Catalog, "database">): void {
  catalog.database.run(SCHEMA);
}

/** A row without a value is removed. */
type Write = {
  readonly path: string;
  readonly operation: number;
  readonly value: Uint8Array | undefined;
};

type StatVolume = {
  readonly name: string;
  readonly number: number;
  readonly isReadOnly?: boolean;
};

type Page = { path: string; operation: number; value: Uint8Array };

/**
 * Rows of one volume, asked for in ascending order of paths. A row that was passed over belongs to a
 * path that is gone, and is removed. Writes are gathered; disposing writes what is left.
 */
export class StatCursor implements Disposable {
  readonly #database: Database;
  readonly #volume: StatVolume;
  readonly #onDamaged: () => void;
  readonly #select: Statement<Page, [number, string, number]>;
  readonly #insert: Statement<null, [number, string, number, Uint8Array]>;
  readonly #delete: Statement<null, [number, string]>;
  readonly #writer = new ByteWriter(1024);
  #page: Page[] = [];
  #next = 0;
  #isLastPage = false;
  #after = "";
  #writes: Write[] = [];

  constructor(database: Database, volume: StatVolume, onDamaged: () => void) {
    this.#database = database;
    this.#volume = volume;
    this.#onDamaged = onDamaged;
    this.#select = database.query(
      `SELECT path, operation, value FROM stat_row WHERE volume = ? AND path > ?
       ORDER BY path LIMIT ?`,
    );
    this.#insert = database.query(
      "INSERT OR REPLACE INTO stat_row (volume, path, operation, value) VALUES (?, ?, ?, ?)",
    );
    this.#delete = database.query("DELETE FROM stat_row WHERE volume = ? AND path = ?");
  }

  /** The row of a path; undefined if there is none, or a damaged one. */
  take(path: string): VouchedRow | undefined {
    for (;;) {
      const row = this.#peek();
      if (row === undefined || row.path > path) return undefined;
      this.#next += 1;
      if (row.path === path) return this.#decode(row);
      this.remove(row.path);
    }
  }

  /** Writes a path's row. */
  put(path: string, row: VouchedRow): void {
    const value = encodeRow(this.#writer, row, keyChecksum(this.#volume.name, path, row.operation));
    this.#write({ path, operation: row.operation, value });
  }

  remove(path: string): void {
    this.#write({ path, operation: 0, value: undefined });
  }

  /** Removes the rows behind the last path that was asked for. */
  end(): void {
    for (let row = this.#peek(); row !== undefined; row = this.#peek()) {
      this.#next += 1;
      this.remove(row.path);
    }
  }

  /** Writes what was gathered. */
  flush(): void {
    const writes = this.#writes;
    this.#writes = [];
    if (writes.length === 0) return;
    this.#database.transaction(() => {
      const { number } = this.#volume;
      for (const { path, operation, value } of writes) {
        if (value === undefined) this.#delete.run(number, path);
        else this.#insert.run(number, path, operation, value);
      }
    })();
  }

  [Symbol.dispose](): void {
    this.flush();
  }

  #write(write: Write): void {
    if (this.#volume.isReadOnly === true) return;
    this.#writes.push(write);
    if (this.#writes.length >= WRITE_COUNT_MAX) this.flush();
  }

  /** Pages are read behind the last row that was taken, so that our own writes never show. */
  #peek(): Page | undefined {
    if (this.#next < this.#page.length) return this.#page[this.#next];
    if (this.#isLastPage) return undefined;
    this.#page = guardRead(() =>
      this.#select.all(this.#volume.number, this.#after, PAGE_ROW_COUNT),
    );
    this.#next = 0;
    this.#isLastPage = this.#page.length < PAGE_ROW_COUNT;
    this.#after = this.#page.at(-1)?.path ?? this.#after;
    return this.#page[0];
  }

  #decode(page: Page): VouchedRow | undefined {
    const key = keyChecksum(this.#volume.name, page.path, page.operation);
    const row = decodeRow(page.value, key);
    if (row === undefined) {
      this.#onDamaged();
      return undefined;
    }
    return { ...row, operation: page.operation };
  }
}

function keyChecksum(volume: string, path: string, operation: number): bigint {
  return Bun.hash.xxHash3(`${volume}\0${path}\0${operation}`);
}

function mappingChecksum(number: number, backup: string): Uint8Array {
  const bytes = new Uint8Array(CHECK_SIZE_BYTES);
  const checksum = Bun.hash.xxHash3(`${number}\0${backup}`);
  new DataView(bytes.buffer).setBigUint64(0, checksum, true);
  return bytes;
}

// Buffers of a row each, a hundred bytes and more of the engine's, were a tenth of all garbage.
const fixedBytes = new Uint8Array(FIXED_SIZE_BYTES);
const fixed = new DataView(fixedBytes.buffer);
const checkBytes = new Uint8Array(CHECK_SIZE_BYTES);
const check = new DataView(checkBytes.buffer);

function encodeRow(writer: ByteWriter, row: StatRow, key: bigint): Uint8Array {
  fixed.setBigUint64(0, BigInt.asUintN(64, row.inode), true);
  fixed.setBigInt64(8, row.birthtimeNs, true);
  fixed.setBigInt64(16, row.mtimeNs, true);
  fixed.setBigInt64(24, row.ctimeNs, true);
  fixed.setBigInt64(32, row.takenNs, true);
  fixed.setFloat64(40, row.sizeBytes, true);
  writer.reset();
  writer.raw(fixedBytes);
  writer.u8((row.isSparse ? FLAG_SPARSE : 0) | (row.hasXattrs ? FLAG_XATTRS : 0));
  encodeContent(writer, row.content);
  check.setBigUint64(0, Bun.hash.xxHash3(writer.view(), key), true);
  writer.raw(checkBytes);
  return writer.finish();
}

/** Undefined if the checksum does not match. */
function decodeRow(value: Uint8Array, key: bigint): StatRow | undefined {
  const end = value.length - CHECK_SIZE_BYTES;
  if (end < FIXED_SIZE_BYTES) return undefined;
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  const body = value.subarray(0, end);
  if (view.getBigUint64(end, true) !== Bun.hash.xxHash3(body, key)) return undefined;
  const reader = new ByteReader(body.subarray(FIXED_SIZE_BYTES), "A row of the stat cache");
  const flags = reader.u8();
  return {
    inode: view.getBigUint64(0, true),
    birthtimeNs: view.getBigInt64(8, true),
    mtimeNs: view.getBigInt64(16, true),
    ctimeNs: view.getBigInt64(24, true),
    takenNs: view.getBigInt64(32, true),
    sizeBytes: view.getFloat64(40, true),
    isSparse: (flags & FLAG_SPARSE) !== 0,
    hasXattrs: (flags & FLAG_XATTRS) !== 0,
    content: decodeContent(reader),
  };
}

function encodeContent(writer: ByteWriter, content: StatContent): void {
  if (content.form === "inline") {
    writer.u8(0);
    writer.varint(content.chunks.length);
    for (const chunk of content.chunks) encodeRef(writer, chunk);
    return;
  }
  writer.u8(1);
  writer.raw(fromHex(content.root.id));
  writer.varint(content.root.length);
  writer.varint(content.root.count);
  for (const chunk of [content.first, ...content.last]) encodeRef(writer, chunk);
}

function decodeContent(reader: ByteReader): StatContent {
  if (reader.u8() === 0) {
    const count = reader.varint();
    return { form: "inline", chunks: Array.from({ length: count }, () => decodeRef(reader)) };
  }
  const id = toHex(reader.raw(SHA256_SIZE_BYTES));
  const root = { id, length: reader.varint(), count: reader.varint() };
  const first = decodeRef(reader);
  return { form: "tree", root, first, last: [decodeRef(reader), decodeRef(reader)] };
}

function encodeRef(writer: ByteWriter, chunk: ChunkRef): void {
  writer.raw(chunk.id);
  writer.varint(chunk.length);
}

function decodeRef(reader: ByteReader): ChunkRef {
  return { id: reader.raw(SHA256_SIZE_BYTES), length: reader.varint() };
}
