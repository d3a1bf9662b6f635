/**
 * Who sends a chunk that several nodes have: the first that claims it. The others remember where they
 * can read it again, and learn after the barrier where it lies, or that they must send it after all.
 * What is remembered lies in a temporary table of the catalog, so that memory stays bounded.
 */
import type { Database } from "bun:sqlite";
import type { Catalog } from "../catalog/catalog.ts";

/** Where a chunk lies that somebody has sent and the site has acknowledged. */
export type ClaimPlace = {
  /** Hex id of the pack. */
  readonly pack: string;
  readonly birth: number;
  readonly frame: number;
  /** Frames of the pack, which its users' lists must say. */
  readonly frameCount: number;
};

/** A chunk with its place. */
export type SettledChunk = ClaimPlace & { readonly id: Uint8Array };

/** The claims of one operation; over the wire where a coordinator keeps them. */
export interface Claims {
  /** For each chunk: true if it is ours to send. */
  claim(ids: Uint8Array[]): Promise<boolean[]>;
  /** Says where claimed chunks lie now. */
  settle(places: SettledChunk[]): Promise<void>;
  /** For each chunk of others: its place, or that it became ours to send, or that it is under way. */
  resolve(ids: Uint8Array[]): Promise<(ClaimPlace | "yours" | "wait")[]>;
}

/** Claims of a node that backs up alone: everything is ours. */
export function localClaims(): Claims {
  return {
    claim: async (ids) => ids.map(() => true),
    settle: async () => undefined,
    resolve: async (ids) => ids.map(() => "yours"),
  };
}

/** A chunk that another node sends, and where we can read it. */
export type ForeignChunk = {
  readonly id: Uint8Array;
  readonly readPath: string;
  readonly offset: number;
  readonly length: number;
};

/** The chunks of one operation that other nodes have claimed. */
export class ForeignChunks implements Disposable {
  readonly #database: Database;

  constructor(catalog: Pick<Catalog, "database">) {
    this.#database = catalog.database;
    this.#database.run("DROP TABLE IF EXISTS temp.foreign_chunk");
    this.#database.run(
      `CREATE TEMP TABLE foreign_chunk (
         id BLOB PRIMARY KEY, read_path TEXT NOT NULL, read_offset INTEGER NOT NULL,
         length INTEGER NOT NULL) WITHOUT ROWID`,
    );
  }

  add(chunk: ForeignChunk): void {
    this.#database
      .query<null, [Uint8Array, string, number, number]>(
        `INSERT OR IGNORE INTO temp.foreign_chunk (id, read_path, read_offset, length)
         VALUES (?, ?, ?, ?)`,
      )
      .run(chunk.id, chunk.readPath, chunk.offset, chunk.length);
  }

  /** The first chunks after an id. */
  list(after: Uint8Array, countMax: number): ForeignChunk[] {
    return this.#database
      .query<ForeignChunk, [Uint8Array, number]>(
        `SELECT id, read_path AS readPath, read_offset AS offset, length
         FROM temp.foreign_chunk WHERE id > ? ORDER BY id LIMIT ?`,
      )
      .all(after, countMax);
  }

  remove(id: Uint8Array): void {
    this.#database.query<null, [Uint8Array]>("DELETE FROM temp.foreign_chunk WHERE id = ?").run(id);
  }

  [Symbol.dispose](): void {
    this.#database.run("DROP TABLE IF EXISTS temp.foreign_chunk");
  }
}
