/**
 * A set of packs with the frames that somebody uses of them, in a temporary table of a catalog, so
 * that what is large stays out of memory. Several may be open at once.
 */
import type { Database, Statement } from "bun:sqlite";
import { fromHex, toHex } from "../../base/hex.ts";
import type { Catalog } from "../catalog/catalog.ts";
import { bitmapSizeBytes } from "../format/pack-list.ts";
import type { PackUse } from "../format/pack-list.ts";

const PAGE_PACK_COUNT = 500;

type Row = { pack: Uint8Array; frameCount: number; frames: Uint8Array };

let tableCount = 0;

/** The set. */
export class PackTable implements Disposable {
  readonly #database: Database;
  readonly #table: string;
  readonly #select: Statement<Row, [Uint8Array]>;
  readonly #insert: Statement<null, [Uint8Array, number, Uint8Array]>;
  readonly #page: Statement<Row, [Uint8Array]>;

  constructor(catalog: Pick<Catalog, "database">) {
    tableCount += 1;
    this.#database = catalog.database;
    this.#table = `temp.copy_pack_${tableCount}`;
    this.#database.run(`CREATE TEMP TABLE copy_pack_${tableCount} (
      pack BLOB NOT NULL PRIMARY KEY, frame_count INTEGER NOT NULL, frames BLOB NOT NULL
    ) STRICT, WITHOUT ROWID`);
    // Prepared and not `query`: that one keeps statements by their text, and the name is unique.
    const columns = "pack, frame_count AS frameCount, frames";
    this.#select = this.#database.prepare(`SELECT ${columns} FROM ${this.#table} WHERE pack = ?`);
    this.#insert = this.#database.prepare(
      `INSERT OR REPLACE INTO ${this.#table} (pack, frame_count, frames) VALUES (?, ?, ?)`,
    );
    this.#page = this.#database.prepare(
      `SELECT ${columns} FROM ${this.#table} WHERE pack > ? ORDER BY pack LIMIT ${PAGE_PACK_COUNT}`,
    );
  }

  /** Adds uses, joined with what is known of a pack; returns the packs that were not known. */
  add(uses: readonly PackUse[]): PackUse[] {
    const fresh: PackUse[] = [];
    this.#database.transaction(() => {
      for (const use of uses) {
        const id = fromHex(use.pack);
        const known = this.#select.get(id);
        if (known === null) fresh.push(use);
        const joined = known === null ? use : joinUses(known, use);
        this.#insert.run(id, joined.frameCount, joined.frames);
      }
    })();
    return fresh;
  }

  /** All uses, ascending by pack. */
  *list(): Generator<PackUse, void, undefined> {
    let after = new Uint8Array(0);
    for (;;) {
      const rows = this.#page.all(after);
      for (const { pack, frameCount, frames } of rows) {
        yield { pack: toHex(pack), frameCount, frames };
      }
      if (rows.length < PAGE_PACK_COUNT) return;
      after = new Uint8Array(rows.at(-1)!.pack);
    }
  }

  [Symbol.dispose](): void {
    this.#select.finalize();
    this.#insert.finalize();
    this.#page.finalize();
    this.#database.run(`DROP TABLE IF EXISTS ${this.#table}`);
  }
}

/** Who could not see a pack's directory names fewer frames than it has: the larger count is right. */
function joinUses(
  one: Pick<Row, "frameCount" | "frames">,
  other: PackUse,
): Pick<Row, "frameCount" | "frames"> {
  const frameCount = Math.max(one.frameCount, other.frameCount);
  const frames = new Uint8Array(bitmapSizeBytes(frameCount));
  for (const use of [one, other]) {
    for (const [index, byte] of use.frames.entries()) frames[index]! |= byte;
  }
  return { frameCount, frames };
}
