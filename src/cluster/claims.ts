/**
 * Claims: a chunk that several nodes hold is sent once. The first claimant sends it, the others
 * refer to it. A claim is settled only when the pack that holds the chunk is acknowledged; a claim
 * whose owner will not settle it any more is handed to the first referrer who asks. The table lies in
 * a temporary SQLite table of the coordinator, so memory does not grow with the backup.
 *
 * Invariant: `resolve` never answers a place that was not acknowledged, and "wait" only while there
 * is an owner that still may settle: nobody waits for a node that failed or has ended.
 */
import type { Database } from "bun:sqlite";

/** Where a settled chunk lies. */
export type ClaimPlace = {
  readonly pack: string;
  readonly birth: number;
  readonly frame: number;
  /** Frames of the pack, which the lists of its users must say. */
  readonly frameCount: number;
};

/**
 * How far a node is: it stores; it has settled what it claimed meanwhile, and sends what was handed
 * to it; nothing more comes from it.
 */
type Stage = "storing" | "settling" | "ended";

type ClaimRow = {
  owner: string;
  isHandedOver: number;
  pack: string | null;
  birth: number;
  frame: number;
  frameCount: number;
};

/** The coordinator's table of one attempt; owns its connection, whose temporary table it is. */
export class ClaimTable implements Disposable {
  readonly #database: Database;
  readonly #stages = new Map<string, Stage>();

  constructor(database: Database) {
    this.#database = database;
    this.#database.run("DROP TABLE IF EXISTS temp.claim");
    this.#database.run(
      `CREATE TEMP TABLE claim (
         id BLOB PRIMARY KEY, owner TEXT NOT NULL, is_handed_over INTEGER NOT NULL DEFAULT 0,
         pack TEXT, birth INTEGER NOT NULL DEFAULT 0, frame INTEGER NOT NULL DEFAULT 0,
         frame_count INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID`,
    );
  }

  /** For each id: true if it is now (or was already) this node's to send. */
  claim(node: string, ids: readonly Uint8Array[]): boolean[] {
    return this.#database.transaction(() =>
      ids.map((id) => {
        const row = this.#get(id);
        if (row === undefined) {
          this.#insert(id, node);
          return true;
        }
        if (row.pack !== null) return false;
        if (row.owner === node) return true;
        if (this.#stageOf(row.owner) !== "ended") return false;
        this.#handOver(id, node);
        return true;
      }),
    )();
  }

  /** Records where acknowledged chunks lie. Who settles owns, whoever claimed. */
  settle(node: string, places: readonly (ClaimPlace & { readonly id: Uint8Array })[]): void {
    const update = this.#database.query(
      `INSERT INTO temp.claim (id, owner, pack, birth, frame, frame_count)
       VALUES ($id, $owner, $pack, $birth, $frame, $frameCount)
       ON CONFLICT (id) DO UPDATE SET owner = $owner, pack = $pack, birth = $birth, frame = $frame,
         frame_count = $frameCount WHERE pack IS NULL`,
    );
    this.#database.transaction(() => {
      for (const { id, pack, birth, frame, frameCount } of places) {
        update.run({ id, owner: node, pack, birth, frame, frameCount });
      }
    })();
  }

  /**
   * Where referred chunks lie; "yours" if the asker must send them now, "wait" if the owner still
   * may. Who asks has settled whatever it claimed while it stored.
   */
  resolve(node: string, ids: readonly Uint8Array[]): (ClaimPlace | "yours" | "wait")[] {
    if (this.#stageOf(node) === "storing") this.#stages.set(node, "settling");
    return this.#database.transaction(() => ids.map((id) => this.#resolveOne(node, id)))();
  }

  /** Nothing more comes from the node: it failed, or it has settled everything. */
  ended(node: string): void {
    this.#stages.set(node, "ended");
  }

  [Symbol.dispose](): void {
    this.#database.close();
  }

  #resolveOne(node: string, id: Uint8Array): ClaimPlace | "yours" | "wait" {
    const row = this.#get(id);
    if (row === undefined) {
      this.#insert(id, node);
      return "yours";
    }
    const { pack, birth, frame, frameCount } = row;
    if (pack !== null) return { pack, birth, frame, frameCount };
    if (row.owner === node) return "yours";
    const stage = this.#stageOf(row.owner);
    const isComing = stage === "storing" || (stage === "settling" && row.isHandedOver === 1);
    if (isComing) return "wait";
    this.#handOver(id, node);
    return "yours";
  }

  #stageOf(node: string): Stage {
    return this.#stages.get(node) ?? "storing";
  }

  #get(id: Uint8Array): ClaimRow | undefined {
    return (
      this.#database
        .query<ClaimRow, { id: Uint8Array }>(
          `SELECT owner, is_handed_over AS isHandedOver, pack, birth, frame,
             frame_count AS frameCount
           FROM temp.claim WHERE id = $id`,
        )
        .get({ id }) ?? undefined
    );
  }

  #insert(id: Uint8Array, owner: string): void {
    // An owner that has stored was told "yours" while it settled.
    const isHandedOver = this.#stageOf(owner) === "storing" ? 0 : 1;
    this.#database
      .query(
        `INSERT INTO temp.claim (id, owner, is_handed_over) VALUES ($id, $owner, $isHandedOver)`,
      )
      .run({ id, owner, isHandedOver });
  }

  #handOver(id: Uint8Array, owner: string): void {
    this.#database
      .query("UPDATE temp.claim SET owner = $owner, is_handed_over = 1 WHERE id = $id")
      .run({ id, owner });
  }
}
