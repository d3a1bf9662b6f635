/**
 * The real SQLite door: files, their companions, and what a crash leaves.
 */
import { expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync, unlinkSync, writeFileSync, copyFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { realDatabases } from "../../src/base/databases.ts";
import { AppError } from "../../src/base/error.ts";
import { pathFromText } from "../../src/base/path.ts";

test("opens in WAL mode with strict parameters, and keeps what was written", () => {
  using place = newPlace();
  const path = pathFromText(`${place.root}/käse.db`);
  using database = realDatabases.open(path);
  expect(database.query("PRAGMA journal_mode").get()).toEqual({ journal_mode: "wal" });
  expect(database.query("PRAGMA synchronous").get()).toEqual({ synchronous: 1 });
  database.run("CREATE TABLE things (name TEXT)");
  database.query("INSERT INTO things (name) VALUES ($name)").run({ name: "a" });
  expect(() => database.query("SELECT $name").get({ other: 1 })).toThrow();
  using again = realDatabases.open(path);
  expect(again.query("SELECT name FROM things").all()).toEqual([{ name: "a" }]);
  expect(readdirSync(place.root)).toContain("käse.db");
});

test("remove takes the journals along, and what is absent is fine", () => {
  using place = newPlace();
  const path = `${place.root}/a.db`;
  const database = realDatabases.open(path);
  database.run("CREATE TABLE things (name TEXT)");
  expect(readdirSync(place.root).length).toBe(3);
  realDatabases.remove(path);
  database.close();
  realDatabases.remove(path);
  expect(readdirSync(place.root)).toEqual([]);
});

test("a journal whose file is gone is not replayed into a new one", () => {
  using place = newPlace();
  const path = `${place.root}/a.db`;
  const database = realDatabases.open(path);
  database.run("CREATE TABLE things (name TEXT)");
  copyFileSync(`${path}-wal`, `${place.root}/b.db-wal`);
  unlinkSync(path);
  database.close();
  using other = realDatabases.open(`${place.root}/b.db`);
  expect(other.query("SELECT name FROM sqlite_schema").all()).toEqual([]);
});

test("says what is wrong with a file that cannot be opened", () => {
  using place = newPlace();
  writeFileSync(
    `${place.root}/text.db`,
    "this is not a database, whatever its name says\n".repeat(50),
  );
  expect(failureOf(`${place.root}/text.db`)).toBe("damaged");
  expect(failureOf(`${place.root}/none/a.db`)).toBe("permission");
  expect(failureOf(`${place.root}/not-\xff-text.db`)).toBe("config");
});

function failureOf(path: string): string {
  try {
    realDatabases.open(path).close();
    return "opened";
  } catch (thrown) {
    return thrown instanceof AppError ? thrown.kind : String(thrown);
  }
}

function newPlace(): Disposable & { readonly root: string } {
  const root = mkdtempSync(`${tmpdir()}/astacus-databases-`);
  return { root, [Symbol.dispose]: () => rmSync(root, { recursive: true }) };
}
