/**
 * The catalog: one SQLite file of a node, a cache that can be removed at any time and is built again
 * from the site and the disk. Nothing that is only here is ever needed, so whatever looks wrong with
 * the file (another schema, a failed check, damaged pages) ends in a new one, and `rebuilt` says why.
 * Each table belongs to one file, which makes it and prepares its statements.
 */
import { SQLiteError } from "bun:sqlite";
import type { Database } from "bun:sqlite";
import type { Databases } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { textFromPath } from "../../base/path.ts";

const SCHEMA_VERSION = 3;
const CACHE_KIB = 8 * 1024;
const WAL_SIZE_BYTES_KEPT = 64 * 1024 * 1024;

/** An open catalog. */
export class Catalog implements Disposable {
  readonly path: string;
  readonly database: Database;
  /** Why the file was made anew at this opening; undefined if it was not, or was not there. */
  readonly rebuilt: string | undefined;

  private constructor(path: string, database: Database, rebuilt: string | undefined) {
    this.path = path;
    this.database = database;
    this.rebuilt = rebuilt;
  }

  /**
   * Opens a catalog, or makes one.
   *
   * @example
   * using catalog = Catalog.open(doors.databases, "/var/lib/astacus/catalog.sqlite");
   */
  static open(databases: Databases, path: string): Catalog {
    try {
      return new Catalog(path, openChecked(databases, path), undefined);
    } catch (thrown) {
      const why = whyUnusable(thrown);
      if (why === undefined) throw thrown;
      databases.remove(path);
      return new Catalog(path, openChecked(databases, path), why);
    }
  }

  /** A small value by name. */
  get(key: string): string | undefined {
    return guardRead(
      () =>
        this.database
          .query<{ value: string }, { key: string }>(
            "SELECT value FROM catalog_meta WHERE key = $key",
          )
          .get({ key })?.value,
    );
  }

  /** Sets a small value; undefined removes it. */
  set(key: string, value: string | undefined): void {
    if (value === undefined) {
      this.database.query("DELETE FROM catalog_meta WHERE key = $key").run({ key });
      return;
    }
    this.database
      .query("INSERT OR REPLACE INTO catalog_meta (key, value) VALUES ($key, $value)")
      .run({ key, value });
  }

  /** Runs `work` in one transaction: all of it happens, or nothing. */
  transaction<Result>(work: () => Result): Result {
    return guardRead(() => this.database.transaction(work).immediate());
  }

  /** Closes the file, marked as whole. */
  [Symbol.dispose](): void {
    try {
      this.set("open", undefined);
    } finally {
      this.database.close();
    }
  }
}

/** An error that tells the caller to build the catalog (or a table of it) again. */
export function damagedCatalog(what: string, cause?: unknown): AppError {
  return new AppError("damaged", `The local catalog is damaged: ${what}.`, {
    guidance: "It is a cache and is built again from the site; check the disk that holds it.",
    context: { catalog: true },
    cause,
  });
}

/** Turns SQLite's word for damaged pages into `damagedCatalog`; other errors pass. */
export function guardRead<Result>(read: () => Result): Result {
  try {
    return read();
  } catch (thrown) {
    if (thrown instanceof SQLiteError && isDamage(thrown)) {
      throw damagedCatalog(thrown.message, thrown);
    }
    throw thrown;
  }
}

class UnusableCatalog extends Error {
  override readonly name = "UnusableCatalog";
}

function openChecked(databases: Databases, path: string): Database {
  const database = databases.open(path);
  try {
    database.run(`PRAGMA cache_size = -${CACHE_KIB}`);
    database.run(`PRAGMA journal_size_limit = ${WAL_SIZE_BYTES_KEPT}`);
    prepare(database);
    return database;
  } catch (thrown) {
    database.close();
    throw thrown;
  }
}

function prepare(database: Database): void {
  const version = database
    .query<{ user_version: number }, []>("PRAGMA user_version")
    .get()?.user_version;
  const isNew =
    version === 0 && database.query("SELECT name FROM sqlite_schema LIMIT 1").get() === null;
  if (!isNew && version !== SCHEMA_VERSION) {
    throw new UnusableCatalog(`it has schema ${version}, and this Astacus uses ${SCHEMA_VERSION}`);
  }
  database.transaction(() => {
    database.run(`CREATE TABLE IF NOT EXISTS catalog_meta (
      key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID`);
    database.run(`PRAGMA user_version = ${SCHEMA_VERSION}`);
  })();
  const isLeftOpen =
    database.query("SELECT value FROM catalog_meta WHERE key = 'open'").get() !== null;
  if (isLeftOpen) checkPages(database);
  database.run("INSERT OR REPLACE INTO catalog_meta (key, value) VALUES ('open', '1')");
}

function checkPages(database: Database): void {
  const found = database
    .query<{ quick_check: string }, []>("PRAGMA quick_check(1)")
    .get()?.quick_check;
  if (found !== "ok") throw new UnusableCatalog(`its pages are damaged: ${found}`);
}

function whyUnusable(thrown: unknown): string | undefined {
  if (thrown instanceof UnusableCatalog) return thrown.message;
  if (thrown instanceof SQLiteError && isDamage(thrown)) return thrown.message;
  if (thrown instanceof AppError && thrown.kind === "damaged") return thrown.message;
  return undefined;
}

function isDamage(error: SQLiteError): boolean {
  const code = error.code ?? "";
  return code.startsWith("SQLITE_CORRUPT") || code.startsWith("SQLITE_NOTADB");
}

/** Where a catalog lies, for people. */
export function catalogLocation(catalog: Catalog): string {
  return textFromPath(catalog.path);
}
