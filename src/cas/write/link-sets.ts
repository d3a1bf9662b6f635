/**
 * The sets of hard links of one volume: the first path of an inode is the file, the others refer to
 * it. Captures make every file one of a set, so that the table may grow to the size of the volume:
 * what passes a bound in memory goes to a temporary table of the catalog.
 */
import type { Database } from "bun:sqlite";
import type { FileStat } from "../../base/doors.ts";
import type { Catalog } from "../catalog/catalog.ts";

const MEMORY_COUNT_MAX = 32_768;

/** First paths by inode. */
export class LinkSets implements Disposable {
  readonly #database: Database;
  readonly #memoryCountMax: number;
  #recent = new Map<string, string>();
  #isSpilled = false;

  constructor(
    catalog: Pick<Catalog, "database">,
    options: { readonly memoryCountMax?: number } = {},
  ) {
    this.#database = catalog.database;
    this.#memoryCountMax = options.memoryCountMax ?? MEMORY_COUNT_MAX;
    this.#database.run("DROP TABLE IF EXISTS temp.link_set");
  }

  /** The first path of the inode's set; undefined if this would be it. */
  get(stat: FileStat): string | undefined {
    const key = keyOf(stat);
    const recent = this.#recent.get(key);
    if (recent !== undefined || !this.#isSpilled) return recent;
    const row = this.#database
      .query<{ path: string }, [string]>("SELECT path FROM temp.link_set WHERE inode = ?")
      .get(key);
    return row?.path;
  }

  set(stat: FileStat, path: string): void {
    this.#recent.set(keyOf(stat), path);
    if (this.#recent.size > this.#memoryCountMax) this.#spill();
  }

  /** Forgets a set whose first path could not be stored. */
  delete(stat: FileStat): void {
    const key = keyOf(stat);
    this.#recent.delete(key);
    if (this.#isSpilled) {
      this.#database.run("DELETE FROM temp.link_set WHERE inode = ?", [key]);
    }
  }

  [Symbol.dispose](): void {
    this.#recent = new Map();
    this.#database.run("DROP TABLE IF EXISTS temp.link_set");
  }

  #spill(): void {
    this.#isSpilled = true;
    this.#database.run(
      `CREATE TEMP TABLE IF NOT EXISTS link_set (
         inode TEXT PRIMARY KEY, path TEXT NOT NULL) WITHOUT ROWID`,
    );
    const insert = this.#database.query<null, [string, string]>(
      "INSERT OR REPLACE INTO temp.link_set (inode, path) VALUES (?, ?)",
    );
    this.#database.transaction(() => {
      for (const [key, path] of this.#recent) insert.run(key, path);
    })();
    this.#recent = new Map();
  }
}

/** Inodes are given away again, even during a walk: the time of birth tells the files apart. */
function keyOf(stat: FileStat): string {
  return `${stat.device}:${stat.inode}:${stat.birthtimeNs}`;
}
