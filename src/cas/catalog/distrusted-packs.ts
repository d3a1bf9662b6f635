/**
 * Packs that somebody found damaged or missing at this site, and that nobody has repaired: the write
 * path passes them over, so that what is still on the disks is sent again. A pack is known by id and
 * birth: one that was repaired lies under another birth. Memory: none; the table is small.
 */
import type { Database } from "bun:sqlite";
import { guardRead } from "./catalog.ts";
import type { Catalog } from "./catalog.ts";
import { isDeletedPack } from "../log/state.ts";
import type { RepositoryState } from "../log/state.ts";

/** A pack that is not relied on. */
export type DistrustedPack = { readonly id: string; readonly birth: number };

/** So many of the lowest ids count, and are told to others: the rest when these are gone. */
export const DISTRUSTED_COUNT_MAX = 100_000;

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS distrusted_pack (id TEXT PRIMARY KEY, birth INTEGER NOT NULL) STRICT;
`;

/** The table of one site's catalog. */
export class DistrustedPacks {
  readonly #database: Database;

  constructor(catalog: Pick<Catalog, "database">) {
    this.#database = catalog.database;
    guardRead(() => this.#database.run(SCHEMA));
  }

  /** Enters packs; the last birth of one counts. */
  add(packs: Iterable<DistrustedPack>): void {
    const insert = this.#database.query<null, [string, number]>(
      "INSERT OR REPLACE INTO distrusted_pack (id, birth) VALUES (?, ?)",
    );
    this.#database.transaction(() => {
      for (const { id, birth } of packs) insert.run(id, birth);
    })();
  }

  /** Relies on packs again: they are sound, repaired, or gone. */
  remove(ids: Iterable<string>): void {
    const remove = this.#database.query<null, [string]>("DELETE FROM distrusted_pack WHERE id = ?");
    this.#database.transaction(() => {
      for (const id of ids) remove.run(id);
    })();
  }

  /**
   * The first of them that the log may still name, at most `DISTRUSTED_COUNT_MAX`: those that were
   * deleted, or repaired by whomever, are forgotten.
   */
  list(state: Pick<RepositoryState, "deleted" | "repairs">): DistrustedPack[] {
    const rows = guardRead(() =>
      this.#database
        .query<DistrustedPack, []>("SELECT id, birth FROM distrusted_pack ORDER BY id")
        .all(),
    );
    const past = rows.filter(({ id, birth }) => {
      return isDeletedPack(state, id, birth) || (state.repairs.get(id) ?? birth) !== birth;
    });
    if (past.length > 0) this.remove(past.map(({ id }) => id));
    const gone = new Set(past);
    return rows.filter((row) => !gone.has(row)).slice(0, DISTRUSTED_COUNT_MAX);
  }
}

/** True of the packs of a list. */
export function isDistrusted(
  packs: readonly DistrustedPack[],
): (pack: string, birth: number) => boolean {
  if (packs.length === 0) return () => false;
  const known = new Set(packs.map(({ id, birth }) => `${id}-${birth}`));
  return (pack, birth) => known.has(`${pack}-${birth}`);
}
