/**
 * Claims: a chunk that several nodes hold is sent once. The first claimant sends it, the others
 * refer to it. A claim is settled only when the pack that holds the chunk is acknowledged; a claim
 * whose owner died is handed to the first referrer who asks. The table lies in a temporary SQLite
 * table of the coordinator, so memory does not grow with the backup.
 *
 * Invariant: for an id that was answered "not yours" there is an owner that either settles it or is
 * declared dead with `abandon`; `resolve` never answers a place that was not acknowledged.
 */
import type { Database } from "bun:sqlite";

/** Where a settled chunk lies. */
export type ClaimPlace = { readonly pack: string; readonly frame: number; readonly birth: number };

type ClaimRow = { owner: string; pack: string | null; frame: number | null; birth: number | null };

/** The coordinator's table of one operation; owns its connection, whose temporary table it is. */
export class ClaimTable implements Disposable {
  readonly #database: Database;
  readonly #dead = new Set<string>();
  readonly #finished = new Set<string>();

  constructor(database: Database) {
    this.#database = database;
    this.#database.run("DROP TABLE IF EXISTS temp.claim");
    this.#database.run(
      `CREATE TEMP TABLE claim (id BLOB PRIMARY KEY, owner TEXT NOT NULL, pack TEXT, frame INTEGER,
         birth INTEGER) STRICT, WITHOUT ROWID`,
    );
  }

  /** For each id: true if it is now (or was already) this node's to send. */
  claim(node: string, ids: readonly Uint8Array[]): boolean[] {
    return this.#database.transaction(() =>
      ids.map((id) => {
        const row = this.#get(id);
        if (row === undefined) {
          this.#database
            .query("INSERT INTO temp.claim (id, owner) VALUES ($id, $owner)")
            .run({ id, owner: node });
          return true;
        }
        if (row.pack !== null) return false;
        if (row.owner === node) return true;
        if (!this.#dead.has(row.owner)) return false;
        this.#take(id, node);
        return true;
      }),
    )();
  }

  /** Records where acknowledged chunks lie. Who settles owns, whoever claimed. */
  settle(node: string, places: readonly (ClaimPlace & { readonly id: Uint8Array })[]): void {
    this.#database.transaction(() => {
      for (const place of places) {
        this.#database
          .query(
            `INSERT INTO temp.claim (id, owner, pack, frame, birth)
             VALUES ($id, $owner, $pack, $frame, $birth)
             ON CONFLICT (id) DO UPDATE SET owner = $owner, pack = $pack, frame = $frame,
               birth = $birth WHERE pack IS NULL`,
          )
          .run({ id: place.id, owner: node, pack: place.pack, frame: place.frame, birth: place.birth });
      }
    })();
  }

  /** Where referred chunks lie; "yours" if the asker must send them now, "wait" if the owner still may. */
  resolve(node: string, ids: readonly Uint8Array[]): (ClaimPlace | "yours" | "wait")[] {
    return this.#database.transaction(() =>
      ids.map((id) => {
        const row = this.#get(id);
        if (row !== undefined && row.pack !== null) {
          return { pack: row.pack, frame: row.frame ?? 0, birth: row.birth ?? 0 };
        }
        if (row === undefined) {
          this.#database
            .query("INSERT INTO temp.claim (id, owner) VALUES ($id, $owner)")
            .run({ id, owner: node });
          return "yours" as const;
        }
        if (row.owner === node) return "yours" as const;
        if (this.#dead.has(row.owner) || this.#finished.has(row.owner)) {
          this.#take(id, node);
          return "yours" as const;
        }
        return "wait" as const;
      }),
    )();
  }

  /** The node is gone: what it claimed and did not settle goes to who asks next. */
  abandon(node: string): void {
    this.#dead.add(node);
  }

  /** The node has settled all it will settle in the store phase. */
  finished(node: string): void {
    this.#finished.add(node);
  }

  [Symbol.dispose](): void {
    this.#database.close();
  }

  #get(id: Uint8Array): ClaimRow | undefined {
    return (
      this.#database
        .query<ClaimRow, { id: Uint8Array }>(
          "SELECT owner, pack, frame, birth FROM temp.claim WHERE id = $id",
        )
        .get({ id }) ?? undefined
    );
  }

  #take(id: Uint8Array, node: string): void {
    this.#database.query("UPDATE temp.claim SET owner = $owner WHERE id = $id").run({ id, owner: node });
    // A new owner has not finished: it was just given work.
    this.#finished.delete(node);
  }
}
