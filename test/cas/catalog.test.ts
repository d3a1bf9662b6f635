/** The catalog's file: a cache that is made anew whenever something is wrong with it. */
import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { realDatabases } from "../../src/base/databases.ts";
import { Catalog } from "../../src/cas/catalog/catalog.ts";
import { World } from "./repository-world.ts";

describe("a catalog", () => {
  test("keeps small values over a restart", () => {
    using world = new World();
    const path = world.newPath();
    {
      using catalog = Catalog.open(realDatabases, path);
      catalog.set("a", "1");
      catalog.set("b", "2");
      catalog.set("a", "3");
      catalog.set("b", undefined);
    }
    using catalog = Catalog.open(realDatabases, path);
    expect([catalog.get("a"), catalog.get("b")]).toEqual(["3", undefined]);
    expect(catalog.rebuilt).toBeUndefined();
  });

  test("of another schema is made anew, and says why", () => {
    using world = new World();
    const path = world.newPath();
    {
      using catalog = Catalog.open(realDatabases, path);
      catalog.set("a", "1");
      catalog.database.run("PRAGMA user_version = 99");
    }
    using catalog = Catalog.open(realDatabases, path);
    expect(catalog.rebuilt).toContain("schema 99");
    expect(catalog.get("a")).toBeUndefined();
  });

  test("that is no database is made anew", () => {
    using world = new World();
    const path = world.newPath();
    writeFileSync(path, "this is not a database, but long enough to be taken for one ".repeat(100));
    using catalog = Catalog.open(realDatabases, path);
    expect(catalog.rebuilt).toBeDefined();
    catalog.set("a", "1");
    expect(catalog.get("a")).toBe("1");
  });

  test("with a damaged page is made anew if it was not closed", () => {
    using world = new World();
    const path = world.newPath();
    {
      using catalog = Catalog.open(realDatabases, path);
      catalog.database.run("CREATE TABLE filler (value TEXT) STRICT");
      for (let index = 0; index < 500; index += 1) {
        catalog.database.run("INSERT INTO filler VALUES (?)", ["x".repeat(100)]);
      }
    }
    {
      // What a crash leaves: the mark of an open file.
      using database = realDatabases.open(path);
      database.run("INSERT INTO catalog_meta VALUES ('open', '1')");
      database.run("PRAGMA wal_checkpoint(TRUNCATE)");
    }
    const bytes = readFileSync(path);
    bytes.fill(0xff, bytes.length - 4096);
    writeFileSync(path, bytes);
    using catalog = Catalog.open(realDatabases, path);
    expect(catalog.rebuilt).toContain("damaged");
  });

  test("that was not closed and is whole is kept", () => {
    using world = new World();
    const path = world.newPath();
    {
      using catalog = Catalog.open(realDatabases, path);
      catalog.set("a", "1");
    }
    {
      using database = realDatabases.open(path);
      database.run("INSERT INTO catalog_meta VALUES ('open', '1')");
    }
    using catalog = Catalog.open(realDatabases, path);
    expect(catalog.rebuilt).toBeUndefined();
    expect(catalog.get("a")).toBe("1");
  });

  test("undoes a transaction that throws", () => {
    using world = new World();
    const catalog = world.openCatalog();
    const fail = (): void => {
      catalog.set("a", "1");
      throw new Error("stop");
    };
    expect(() => catalog.transaction(fail)).toThrow("stop");
    expect(catalog.get("a")).toBeUndefined();
  });
});
