/**
 * What every kind of site promises (src/sites/site.ts), as one suite that each kind must pass.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { sha256Hex } from "../../src/base/hex.ts";
import { AppError } from "../../src/base/error.ts";
import { realRandom } from "../../src/base/random.ts";
import { guardedSite } from "../../src/sites/guarded-site.ts";
import { probeCreateIfAbsent, raceCreateIfAbsent } from "../../src/sites/probe.ts";
import type { Site, SiteCall, SiteCopying } from "../../src/sites/site.ts";

/** One opened site of an empty store, and how to open the same store again. */
export type OpenedSite = {
  readonly site: Site;
  reopen(): Promise<Site>;
  [Symbol.asyncDispose](): Promise<void>;
};

const SLOW_MS = 60_000;

/** What a kind can, besides what all can. */
export type KindOfSite = {
  /** Its store copies objects by itself, and keeps the condition. */
  readonly copies?: boolean;
};

/** Runs the contract against one kind; all its tests share one store, each under its own prefix. */
export function siteContract(
  name: string,
  open: () => Promise<OpenedSite>,
  { copies = false }: KindOfSite = {},
): void {
  describe(`the contract of ${name}`, () => {
    let opened: OpenedSite;
    let site: Site;
    beforeAll(async () => {
      opened = await open();
      site = opened.site;
    }, SLOW_MS);
    afterAll(async () => await opened[Symbol.asyncDispose]());

    creating(() => site);
    reading(() => site);
    listing(() => site);
    removing(() => site);
    copying(() => site, copies);

    test("what was put is there after opening the store again", async () => {
      await site.put("reopen/a", text("kept"));
      await using again = await opened.reopen();
      expect(await again.get("reopen/a")).toEqual(text("kept"));
      expect(await again.put("reopen/a", text("other"))).toBe("exists");
    });
  });
}

function creating(site: () => Site): void {
  test("the first put creates and the second leaves the bytes alone", async () => {
    expect(await site().put("create/a", text("one"))).toBe("created");
    expect(await site().put("create/a", text("two"))).toBe("exists");
    expect(await site().get("create/a")).toEqual(text("one"));
  });

  test("of twenty racing writers exactly one creates, and its bytes stay", async () => {
    const bodies = Array.from({ length: 20 }, (_, index) => text(`writer ${index}`));
    const outcomes = await Promise.all(
      bodies.map(async (body) => await putAgain(site(), "race/slot", body)),
    );
    expect(outcomes.filter((outcome) => outcome === "created")).toHaveLength(1);
    expect(await site().get("race/slot")).toEqual(bodies[outcomes.indexOf("created")]);
  });

  test("both probes accept it and clean up", async () => {
    await probeCreateIfAbsent(site(), realRandom);
    await raceCreateIfAbsent(site(), realRandom, 8);
    expect(await keysOf(site(), "probe/")).toEqual([]);
  });

  test("an empty object is an object", async () => {
    expect(await site().put("empty/a", new Uint8Array())).toBe("created");
    expect(await site().get("empty/a")).toEqual(new Uint8Array());
    expect((await site().head("empty/a"))?.sizeBytes).toBe(0);
    expect(await site().get("empty/a", { offset: 0, length: 10 })).toEqual(new Uint8Array());
    expect(await site().put("empty/a", text("x"))).toBe("exists");
  });

  test(
    "an object of 32 MiB comes back byte for byte",
    async () => {
      const bytes = realRandom.bytes(32 * 1024 * 1024);
      const hash = sha256Hex(bytes);
      expect(await site().put("big/a", bytes, { sha256: hash })).toBe("created");
      expect((await site().head("big/a"))?.sizeBytes).toBe(bytes.length);
      const found = await site().get("big/a");
      expect(found?.length).toBe(bytes.length);
      expect(sha256Hex(found!)).toBe(hash);
      const part = await site().get("big/a", { offset: 17_000_001, length: 4096 });
      expect(part).toEqual(bytes.slice(17_000_001, 17_004_097));
    },
    SLOW_MS,
  );

  test("a view into a larger buffer stores only what it shows", async () => {
    const buffer = text("0123456789");
    await site().put("view/a", buffer.subarray(3, 6));
    expect(await site().get("view/a")).toEqual(text("345"));
  });

  test("bytes in memory that threads share are stored as others are", async () => {
    const shared = new Uint8Array(new SharedArrayBuffer(3 * 1024 * 1024)).subarray(5);
    shared.set(realRandom.bytes(65_536), 2 * 1024 * 1024);
    const hash = sha256Hex(shared);
    expect(await site().put("shared/a", shared)).toBe("created");
    expect(await site().put("shared/b", shared, { sha256: hash })).toBe("created");
    expect(sha256Hex((await site().get("shared/a"))!)).toBe(hash);
    expect(sha256Hex((await site().get("shared/b"))!)).toBe(hash);
  });

  test("a buffer may be used again after its put, and after a get", async () => {
    const buffer = text("before");
    await site().put("reuse/a", buffer);
    buffer.fill(0);
    const found = await site().get("reuse/a");
    expect(found).toEqual(text("before"));
    // A Buffer's slices are views: who keeps one and frees the rest has lost it.
    expect(found).not.toBeInstanceOf(Buffer);
    found!.fill(0);
    expect(await site().get("reuse/a")).toEqual(text("before"));
  });

  test("a cancelled put fails as such and creates nothing", async () => {
    const error = await thrownBy(site().put("cancel/a", text("x"), { signal: aborted() }));
    expect(error).toBeInstanceOf(AppError);
    expect(error).toHaveProperty("kind", "cancelled");
    expect(await site().get("cancel/a")).toBeUndefined();
  });
}

function reading(site: () => Site): void {
  test("an object that is absent is undefined, and no error", async () => {
    expect(await site().get("absent/a")).toBeUndefined();
    expect(await site().get("absent/a", { offset: 1, length: 1 })).toBeUndefined();
    expect(await site().get("absent/a", { length: 0 })).toBeUndefined();
    expect(await site().head("absent/a")).toBeUndefined();
  });

  test("a range is cut at the end of the object", async () => {
    await site().put("range/a", text("0123456789"));
    const range = async (offset?: number, length?: number): Promise<string | undefined> => {
      const part = {
        ...(offset === undefined ? {} : { offset }),
        ...(length === undefined ? {} : { length }),
      };
      const bytes = await site().get("range/a", part);
      return bytes === undefined ? undefined : Buffer.from(bytes).toString();
    };
    expect(await range(3, 4)).toBe("3456");
    expect(await range(0, 10)).toBe("0123456789");
    expect(await range(undefined, 2)).toBe("01");
    expect(await range(8)).toBe("89");
    expect(await range(8, 100)).toBe("89");
    expect(await range(10, 5)).toBe("");
    expect(await range(100)).toBe("");
    expect(await range(4, 0)).toBe("");
  });

  test("head tells the size, and no checksum but the right one", async () => {
    const bytes = text("what is measured");
    await site().put("head/a", bytes);
    const head = await site().head("head/a");
    expect(head?.sizeBytes).toBe(bytes.length);
    expect([undefined, sha256Hex(bytes)]).toContain(head?.sha256);
  });

  test("a cancelled read fails as such", async () => {
    await site().put("cancel-read/a", text("x"));
    const signal = aborted();
    for (const call of [
      async () => await site().get("cancel-read/a", { signal }),
      async () => await site().head("cancel-read/a", { signal }),
      async () => await site().delete(["cancel-read/a"], { signal }),
      async () => await keysOf(site(), "cancel-read/", { signal }),
    ]) {
      expect(await thrownBy(call())).toHaveProperty("kind", "cancelled");
    }
    expect(await site().get("cancel-read/a")).toEqual(text("x"));
  });

  test("a key that leaves its place is refused", async () => {
    for (const key of ["../a", "a/../b", "/a", "a//b", "a/", "", "a b", ".tmp/a", "a/.b", "é"]) {
      expect(await thrownBy(site().get(key))).toBeInstanceOf(Error);
      expect(await thrownBy(site().put(key, text("x")))).toBeInstanceOf(Error);
      expect(await thrownBy(site().delete([key]))).toBeInstanceOf(Error);
    }
    expect((await keysOf(site(), "")).filter((key) => !/^[a-z-]+\/./.test(key))).toEqual([]);
  });
}

function listing(site: () => Site): void {
  test("a listing is in byte order of whole keys, and of its prefix only", async () => {
    const keys = ["A", "a-b", "a.b", "a/b/c", "a/b-c", "a/b.c/d", "a/c", "a0", "aa", "b"];
    for (const key of keys) await site().put(`order/${key}`, text(key));
    await site().put("order-not/x", text("x"));
    const sorted = keys.map((key) => `order/${key}`).toSorted();
    expect(await keysOf(site(), "order/")).toEqual(sorted);
    expect(await keysOf(site(), "order/a/b")).toEqual([
      "order/a/b-c",
      "order/a/b.c/d",
      "order/a/b/c",
    ]);
    expect(await keysOf(site(), "order/zzz")).toEqual([]);
    expect(await keysOf(site(), "nothing/at/all/")).toEqual([]);
    for (const [index, after] of sorted.entries()) {
      expect(await keysOf(site(), "order/", { after })).toEqual(sorted.slice(index + 1));
    }
    expect(await keysOf(site(), "order/", { after: "order/a/" })).toEqual(
      sorted.filter((key) => key > "order/a/"),
    );
  });

  test("a listing tells sizes", async () => {
    await site().put("sizes/a", new Uint8Array(3));
    await site().put("sizes/b", new Uint8Array(70_000));
    const rows = [];
    for await (const row of site().list("sizes/")) rows.push(row);
    expect(rows).toEqual([
      { key: "sizes/a", sizeBytes: 3 },
      { key: "sizes/b", sizeBytes: 70_000 },
    ]);
  });

  test(
    "a listing of 1050 keys is complete, and can be left early",
    async () => {
      const keys = Array.from({ length: 1050 }, (_, i) => `many/${String(i).padStart(6, "0")}`);
      for (let start = 0; start < keys.length; start += 10) {
        const batch = keys.slice(start, start + 10);
        await Promise.all(batch.map(async (key) => await site().put(key, text("x"))));
      }
      expect(await keysOf(site(), "many/")).toEqual(keys);
      expect(await keysOf(site(), "many/", { after: keys[1_000]! })).toEqual(keys.slice(1_001));
      for await (const row of site().list("many/")) {
        expect(row.key).toBe(keys[0]!);
        break;
      }
      await site().delete(keys);
      expect(await keysOf(site(), "many/")).toEqual([]);
    },
    SLOW_MS,
  );

  test("nothing is listed that was not put", async () => {
    await site().put("pack/ab/0123-1", text("x"));
    const known =
      /^(create|race|empty|big|view|shared|reuse|reopen|cancel-read|range|head|order|order-not|sizes|many|delete|pack)\//;
    expect((await keysOf(site(), "")).filter((key) => !known.test(key))).toEqual([]);
    expect(await keysOf(site(), "")).toContain("pack/ab/0123-1");
  });
}

function removing(site: () => Site): void {
  test("what was removed is absent and may be created again", async () => {
    await site().put("delete/a", text("one"));
    await site().put("delete/b", text("two"));
    await site().delete(["delete/a"]);
    expect(await site().get("delete/a")).toBeUndefined();
    expect(await site().head("delete/a")).toBeUndefined();
    expect(await keysOf(site(), "delete/")).toEqual(["delete/b"]);
    expect(await site().put("delete/a", text("three"))).toBe("created");
    expect(await site().get("delete/a")).toEqual(text("three"));
  });

  test("removing what is absent, or nothing at all, is fine", async () => {
    await site().put("delete/c", text("x"));
    await site().delete(["delete/never", "delete/c", "delete/none/at/all"]);
    await site().delete(["delete/c"]);
    await site().delete([]);
    expect(await site().get("delete/c")).toBeUndefined();
  });
}

/** Requirements "by the store" are those of kinds that copy; the others must say that they do not. */
function copying(site: () => Site, copies: boolean): void {
  // As operations use it, with the way that was proved.
  let proved: SiteCopying | undefined;
  const copy = async (fromKey: string, toKey: string, call?: SiteCall): Promise<string> => {
    proved ??= guardedSite(site(), realRandom).copying!;
    return await proved.copyFrom(site().copying!.place, fromKey, toKey, call);
  };
  if (!copies) {
    test("a copy that is not safe by the store is not made", async () => {
      await site().put("copy/a", text("one"));
      const place = site().copying?.place;
      const guarded = guardedSite(site(), realRandom).copying;
      if (place === undefined) expect(guarded).toBeUndefined();
      else expect(await guarded?.copyFrom(place, "copy/a", "copy/b")).toBe("impossible");
      expect(await site().head("copy/b")).toBeUndefined();
    });
    return;
  }

  test(
    "a copy by the store is whole, tells that it is one, and is as good as its source",
    async () => {
      const bytes = realRandom.bytes(16 * 1024 * 1024);
      const hash = sha256Hex(bytes);
      await site().put("pack/copied-from", bytes, { sha256: hash });
      expect(await copy("pack/copied-from", "pack/copied-to")).toBe("created");
      expect(sha256Hex((await site().get("pack/copied-to"))!)).toBe(hash);
      const head = await site().head("pack/copied-to");
      expect(head).toMatchObject({ sizeBytes: bytes.length, isCopy: true });
      expect([undefined, hash]).toContain(head?.sha256);
      expect((await site().head("pack/copied-from"))?.isCopy).toBeUndefined();
    },
    SLOW_MS,
  );

  test("a copy by the store overwrites nothing, neither another object nor a copy", async () => {
    await site().put("copy/from", text("one"));
    await site().put("copy/other", text("two"));
    await site().put("copy/taken", text("three"));
    expect(await copy("copy/from", "copy/taken")).toBe("exists");
    expect(await site().get("copy/taken")).toEqual(text("three"));
    expect(await copy("copy/from", "copy/to")).toBe("created");
    expect(await copy("copy/other", "copy/to")).toBe("exists");
    expect(await site().get("copy/to")).toEqual(text("one"));
    expect(await site().put("copy/to", text("four"))).toBe("exists");
  });

  test("a copy by the store of what is absent is told, and creates nothing", async () => {
    expect(await copy("copy/never", "copy/nothing")).toBe("absent");
    expect(await site().head("copy/nothing")).toBeUndefined();
  });

  test("of ten racing copies by the store exactly one creates", async () => {
    const names = Array.from({ length: 10 }, (_, index) => `copy/racer-${index}`);
    for (const name of names) await site().put(name, text(name));
    const outcomes = await Promise.all(
      names.map(async (name) => await again(async () => await copy(name, "copy/race"))),
    );
    expect(outcomes.filter((outcome) => outcome === "created")).toHaveLength(1);
    expect(await site().get("copy/race")).toEqual(text(names[outcomes.indexOf("created")]!));
  });

  test("a cancelled copy by the store fails as such and creates nothing", async () => {
    await site().put("copy/cancelled-from", text("x"));
    const error = await thrownBy(copy("copy/cancelled-from", "copy/c", { signal: aborted() }));
    expect(error).toHaveProperty("kind", "cancelled");
    expect(await site().head("copy/c")).toBeUndefined();
  });
}

/** All keys of a prefix. */
export async function keysOf(
  site: Site,
  prefix: string,
  options: SiteCall & { readonly after?: string } = {},
): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of site.list(prefix, options)) keys.push(key);
  return keys;
}

/** What a promise was rejected with; fails if it was not. */
export async function thrownBy(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (thrown) {
    return thrown;
  }
  throw new TypeError("expected an error, and none was thrown");
}

/** ASCII as bytes. */
export function text(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}

async function putAgain(site: Site, key: string, body: Uint8Array): Promise<"created" | "exists"> {
  return await again(async () => await site.put(key, body));
}

/** A real server may ask racing writers to come again: that is no outcome yet. */
async function again<T>(work: () => Promise<T>): Promise<T> {
  for (let tryCount = 1; ; tryCount += 1) {
    try {
      return await work();
    } catch (thrown) {
      if (!(thrown instanceof AppError && thrown.retryable) || tryCount >= 10) throw thrown;
    }
  }
}

function aborted(): AbortSignal {
  return AbortSignal.abort();
}
