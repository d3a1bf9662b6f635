/**
 * Door 6, the real one: SQLite files in WAL mode. Power loss may take the last transactions
 * (synchronous=NORMAL) and never the file's consistency; what must not be lost is in the log of a
 * site, not here.
 */
import { Database, SQLiteError } from "bun:sqlite";
import type { Databases } from "./doors.ts";
import { AppError, databaseMeaning } from "./error.ts";
import { realFileSystem } from "./file-system.ts";
import { textFromPath, pathFromText } from "./path.ts";

/** How long a statement waits for another writer. */
const BUSY_TIMEOUT_MS = 10_000;

/** The SQLite files of this machine. */
export const realDatabases: Databases = {
  open: openDatabase,
  remove(path) {
    // The file first: a journal beside no file is dropped by SQLite, a file that lost its journal
    // would be taken for a good one of some time ago.
    for (const suffix of ["", "-wal", "-shm"]) {
      if (realFileSystem.lstat(path + suffix) !== undefined) realFileSystem.unlink(path + suffix);
    }
  },
};

function openDatabase(path: string): Database {
  const text = textFromPath(path);
  if (pathFromText(text) !== path) {
    throw new AppError("config", `The database path ${text} is not valid UTF-8.`, {
      guidance: "Choose a state directory whose path is valid UTF-8.",
      context: { path: text },
    });
  }
  let database: Database | undefined;
  try {
    database = new Database(text, { create: true, readwrite: true, strict: true });
    database.run(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
    database.run("PRAGMA journal_mode = WAL");
    database.run("PRAGMA synchronous = NORMAL");
    return database;
  } catch (thrown) {
    database?.close();
    throw openError(text, thrown);
  }
}

function openError(path: string, thrown: unknown): unknown {
  if (!(thrown instanceof SQLiteError)) return thrown;
  const code = thrown.code ?? "SQLITE_ERROR";
  const [kind, guidance] = databaseMeaning(code) ?? [
    "unavailable",
    "Check the disk that holds the file.",
  ];
  return new AppError(kind, `Cannot open the database ${path}: ${thrown.message} (${code}).`, {
    guidance,
    context: { path, code },
    cause: thrown,
  });
}
