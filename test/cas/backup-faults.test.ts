/** The write path when files, the catalog, the site or other nodes do not hold still. */
import { expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import type { FileSystem } from "../../src/base/doors.ts";
import { AppError } from "../../src/base/error.ts";
import { realFileSystem } from "../../src/base/file-system.ts";
import { realRandom } from "../../src/base/random.ts";
import { DistrustedPacks } from "../../src/cas/catalog/distrusted-packs.ts";
import { idKey } from "../../src/cas/format/bytes.ts";
import type { ClaimPlace, Claims } from "../../src/cas/write/claims.ts";
import { drawId } from "../../src/cas/format/ids.ts";
import { openPack } from "../../src/cas/format/pack.ts";
import type { MemorySite } from "../../src/sites/memory-site.ts";
import type { Site } from "../../src/sites/site.ts";
import { commit, openSource, Rig, RiggedFiles } from "./backup-rig.ts";
import { noise } from "./noise.ts";

/** All chunks of data packs in a site, repeated ones too. */
function storedChunks(site: MemorySite): string[] {
  return [...site.objects].flatMap(([key, bytes]) => {
    if (!key.startsWith("pack/")) return [];
    const directory = openPack(bytes, key.slice(8, 72), key);
    if (directory.kind !== "data") return [];
    return directory.frames.flatMap(({ chunks }) => chunks.map(({ id }) => idKey(id)));
  });
}

async function expectSame(rig: Rig, root: Parameters<Rig["read"]>[0]): Promise<void> {
  const found = await rig.read(root);
  for (const [path, bytes] of rig.contents()) {
    expect(found.get(path)?.bytes?.equals(bytes), path).toBe(true);
  }
}

/** A disk on which something happens when a path is opened for the nth time. */
function onOpen(happens: (path: string, count: number) => void): FileSystem {
  const counts = new Map<string, number>();
  return new RiggedFiles({
    open(path, how) {
      const count = (counts.get(path) ?? 0) + 1;
      counts.set(path, count);
      happens(path, count);
      return realFileSystem.open(path, how);
    },
  }).door;
}

test("a file that vanishes before it is read is a problem, and the rest is stored", async () => {
  await using rig = await Rig.open();
  for (const name of ["a", "b", "c"]) rig.write(name, noise(1000, name.charCodeAt(0)));
  const files = onOpen((path) => {
    if (path.endsWith("/b")) fs.rmSync(path, { force: true });
  });
  const { stored } = await rig.backup({ files });
  expect(stored.problems.map(({ path, kind }) => `${path} ${kind}`)).toEqual(["b vanished"]);
  expect([...(await rig.read(stored.volumes[0]!.listing)).keys()]).toEqual(["a", "c"]);
});

/** Appends to a file in the middle of its first reads. */
function growing(rig: Rig, path: string, times: number): FileSystem {
  const full = join(rig.root, path);
  let count = 0;
  return new RiggedFiles({
    read(handle, target, position) {
      const read = realFileSystem.read(handle, target, position);
      if (count < times) fs.appendFileSync(full, `more ${count}`);
      count += 1;
      return read;
    },
  }).door;
}

test("a file that changes while it is read is read again", async () => {
  await using rig = await Rig.open();
  rig.write("a", noise(100_000, 1));
  const { stored } = await rig.backup({ files: growing(rig, "a", 1) });
  expect(stored.problems).toEqual([]);
  await expectSame(rig, stored.volumes[0]!.listing);
});

test("a file that does not stop changing is stored as it was last read, with a problem", async () => {
  await using rig = await Rig.open();
  rig.write("a", noise(100_000, 1));
  const { stored } = await rig.backup({ files: growing(rig, "a", Infinity) });
  expect(stored.problems.map(({ path, kind }) => `${path} ${kind}`)).toEqual(["a changed"]);
  const record = (await rig.read(stored.volumes[0]!.listing)).get("a");
  const now = fs.readFileSync(join(rig.root, "a"));
  expect(record?.bytes?.equals(now.subarray(0, record.bytes.length))).toBe(true);
  expect(record).toMatchObject({ sizeBytes: record?.bytes?.length });
  const files = new RiggedFiles();
  await rig.backup({ files: files.door });
  expect(files.readBytes).toBe(now.length);
});

test("a file that shrinks or grows between walk and read is stored as it is read", async () => {
  await using rig = await Rig.open();
  rig.write("grows", noise(1000, 1));
  rig.write("shrinks", noise(2_000_000, 2));
  const files = onOpen((path, count) => {
    if (count > 1) return;
    if (path.endsWith("grows")) fs.appendFileSync(path, noise(2_000_000, 3));
    if (path.endsWith("shrinks")) fs.truncateSync(path, 70_000);
  });
  const { stored } = await rig.backup({ files });
  expect(stored.problems).toEqual([]);
  await expectSame(rig, stored.volumes[0]!.listing);
});

test("a log that shrank below its captured size is a problem", async () => {
  await using rig = await Rig.open();
  rig.write("log", noise(100_000, 1));
  const files = onOpen((path) => fs.truncateSync(path, 50_000));
  const { stored } = await rig.backup({ files, volume: { nature: () => "append-only" } });
  expect(stored.problems.map(({ kind }) => kind)).toEqual(["changed"]);
  await expectSame(rig, stored.volumes[0]!.listing);
});

test("an unreadable file is a problem, or the end of the backup, as the volume says", async () => {
  await using rig = await Rig.open();
  for (const name of ["a", "b"]) rig.write(name, name);
  const files = onOpen((path) => {
    if (path.endsWith("/a")) throw new AppError("permission", "No.");
  });
  const { stored } = await rig.backup({ files });
  expect(stored.problems).toEqual([{ path: "a", kind: "unreadable", message: "No." }]);
  const failed = rig.backup({ files, volume: { onUnreadable: "fail" } });
  expect(await failed.catch((error: unknown) => error)).toMatchObject({ message: "a: No." });
});

test("if the first path of a link set cannot be read, the next one is the file", async () => {
  await using rig = await Rig.open();
  rig.write("a", noise(1000, 1));
  for (const name of ["b", "c"]) fs.linkSync(join(rig.root, "a"), join(rig.root, name));
  const files = onOpen((path) => {
    if (path.endsWith("/a")) throw new AppError("not-found", "Gone.");
  });
  const { stored } = await rig.backup({ files });
  const found = await rig.read(stored.volumes[0]!.listing);
  expect([...found.keys()]).toEqual(["b", "c"]);
  expect(found.get("b")?.bytes?.length).toBe(1000);
  expect(found.get("c")).toMatchObject({ type: "hardlink", target: "b" });
});

test("a damaged or exchanged row of the stat cache is no row", async () => {
  await using rig = await Rig.open();
  for (const name of ["a", "b", "c"]) rig.write(name, noise(1000, name.charCodeAt(0)));
  await rig.backup();
  const { database } = rig.catalog;
  const value = (path: string) =>
    database
      .query<{ value: Uint8Array }, [string]>("SELECT value FROM stat_row WHERE path = ?")
      .get(path)!.value;
  const set = (path: string, bytes: Uint8Array) =>
    database.run("UPDATE stat_row SET value = ? WHERE path = ?", [bytes, path]);
  const [a, b] = [value("a").slice(), value("b").slice()];
  set("a", b);
  a[60]! ^= 1;
  set("b", a);
  const files = new RiggedFiles();
  const { stored } = await rig.backup({ files: files.door });
  expect(files.readBytes).toBe(2000);
  expect(stored.totals).toMatchObject({ unchangedFiles: 1, newChunks: 0 });
  await expectSame(rig, stored.volumes[0]!.listing);
});

/** A site that fails at its nth call: before it does anything, or after. */
type FailingSite = { calls: number; readonly site: Site };

function failAt(site: MemorySite, callNumber: number, when: "before" | "after"): FailingSite {
  const guard =
    <Args extends unknown[], Result>(call: (...args: Args) => Promise<Result>) =>
    async (...args: Args): Promise<Result> => {
      failing.calls += 1;
      const isTurn = failing.calls === callNumber;
      if (isTurn && when === "before") throw new AppError("unavailable", "The call failed.");
      const result = await call(...args);
      if (isTurn) throw new AppError("unavailable", "The answer was lost.");
      return result;
    };
  const replaced = {
    get: guard(site.get.bind(site)),
    put: guard(site.put.bind(site)),
    head: guard(site.head.bind(site)),
  };
  const failing = { calls: 0, site: Object.assign(Object.create(site) as Site, replaced) };
  return failing;
}

function fillSmall(rig: Rig): void {
  rig.write("big", noise(1_500_000, 1));
  for (let index = 0; index < 5; index++) rig.write(`small/${index}`, noise(300, index));
}

test("after a failure the next backup reuses what was acknowledged: nothing is sent twice", async () => {
  await using rig = await Rig.open();
  fillSmall(rig);
  const failing = failAt(rig.site, 8, "before");
  rig.door = failing.site;
  const failed = await rig.backup().catch((error: unknown) => error);
  expect(failed).toMatchObject({ message: "The call failed." });
  rig.door = rig.site;
  await rig.backup();
  const sent = storedChunks(rig.site);
  expect(sent.length).toBeGreaterThan(10);
  expect(new Set(sent).size).toBe(sent.length);
});

test("an aborted backup ends, and leaves what the next one needs", async () => {
  for (const workers of [0, 2]) {
    await using rig = await Rig.open();
    for (let index = 0; index < 10; index++) rig.write(`${index}`, noise(400_000, index));
    const aborter = new AbortController();
    let count = 0;
    const send = rig.site.put.bind(rig.site);
    rig.door = Object.assign(Object.create(rig.site) as Site, {
      get: rig.site.get.bind(rig.site),
      head: rig.site.head.bind(rig.site),
      put: (...args: Parameters<Site["put"]>) => {
        count += 1;
        if (count === 3) aborter.abort(new AppError("cancelled", "Enough."));
        return send(...args);
      },
    });
    const failed = rig.backup({ signal: aborter.signal, settings: { workers } });
    expect(await failed.catch((error: unknown) => error)).toMatchObject({ message: "Enough." });
    rig.door = rig.site;
    const { stored } = await rig.backup({ settings: { workers } });
    await expectSame(rig, stored.volumes[0]!.listing);
    const sent = storedChunks(rig.site);
    expect(new Set(sent).size).toBe(sent.length);
  }
});

test("whichever call of the site fails, the next backup is whole", async () => {
  let points = 0;
  for (const when of ["before", "after"] as const) {
    for (let callNumber = 1, isReached = true; isReached; callNumber++) {
      await using rig = await Rig.open();
      rig.write("big", noise(300_000, 1));
      const failing = failAt(rig.site, callNumber, when);
      rig.door = failing.site;
      await rig
        .backup({ settings: { keepEveryBytes: 100_000, packSizeBytes: 100_000 } })
        .catch((error: unknown) => {
          expect(error).toBeInstanceOf(AppError);
        });
      isReached = failing.calls >= callNumber;
      rig.door = rig.site;
      const { stored } = await rig.backup();
      await expectSame(rig, stored.volumes[0]!.listing);
      points += 1;
    }
  }
  console.log(`${points} failures of the site were survived`);
}, 60_000);

const KEEPS = [{ keepEveryBytes: 1_000_000 }, { keepEveryChunks: 5 }];

test.each(KEEPS)(
  "a long backup keeps what it has sent, and names the rest: %j",
  async (settings) => {
    await using rig = await Rig.open();
    rig.write("big", noise(5_000_000, 1));
    const { stored, sequence } = await rig.backup({ settings });
    const repository = await rig.openRepository();
    const entries = [...rig.site.objects].filter(([key]) => key.startsWith("log/"));
    const kinds = entries.map(([, bytes]) => JSON.parse(Buffer.from(bytes).toString()).kind);
    expect(kinds).toEqual([
      "note",
      ...Array.from({ length: sequence - 2 }, () => "keep"),
      "backup",
    ]);
    expect(kinds).toContain("keep");
    expect(repository.state.keeps.size).toBe(0);
    const packCount = stored.segments.reduce((sum, { packs }) => sum + packs, 0);
    const packs = [...rig.site.objects.keys()].filter((key) => key.startsWith("pack/"));
    expect(packCount).toBeLessThan(packs.length);
    await expectSame(rig, stored.volumes[0]!.listing);
  },
);

test("packs that a cleanup has passed are not named, and are sent again by the next attempt", async () => {
  await using rig = await Rig.open();
  fillSmall(rig);
  const beforeSettle = async (): Promise<void> => {
    const other = await rig.openRepository();
    const floor = other.state.sequence;
    await other.commit(() => ({ kind: "delete", body: { packs: [], backups: [], floor } }), {
      operation: drawId(realRandom),
    });
  };
  const failed = await rig.backup({ beforeSettle }).catch((error: unknown) => error);
  expect(failed).toMatchObject({ kind: "conflict", context: { reason: "packs-gone" } });
  const { stored } = await rig.backup();
  expect(stored.totals.newBytes).toBe(1_501_500);
  await expectSame(rig, stored.volumes[0]!.listing);
});

/** Claims of several nodes, as a coordinator keeps them. */
class SharedClaims {
  readonly owners = new Map<string, string>();
  readonly places = new Map<string, ClaimPlace>();
  readonly dead = new Set<string>();

  of(node: string): Claims {
    return {
      claim: async (ids) =>
        ids.map((id) => {
          const owner = this.owners.get(idKey(id)) ?? node;
          this.owners.set(idKey(id), owner);
          return owner === node;
        }),
      settle: async (places) => {
        for (const { id, ...place } of places) this.places.set(idKey(id), place);
      },
      resolve: async (ids) =>
        ids.map((id) => {
          const key = idKey(id);
          const place = this.places.get(key);
          if (place !== undefined) return place;
          if (!this.dead.has(this.owners.get(key) ?? "")) return "wait";
          this.owners.set(key, node);
          return "yours";
        }),
    };
  }
}

/** Two nodes of one repository with the same file. */
async function openPair(): Promise<{ a: Rig; b: Rig } & AsyncDisposable> {
  const a = await Rig.open({ node: "a" });
  const b = await Rig.open({ node: "b", site: a.site });
  for (const rig of [a, b]) rig.write("same", noise(1_000_000, 7));
  b.write("own", noise(200_000, 8));
  return {
    a,
    b,
    async [Symbol.asyncDispose]() {
      await b[Symbol.asyncDispose]();
      await a[Symbol.asyncDispose]();
    },
  };
}

test("a chunk that two nodes have is sent by the one that claimed it, and both list its pack", async () => {
  await using pair = await openPair();
  const { a, b } = pair;
  const claims = new SharedClaims();
  const operation = drawId(realRandom);
  const [ra, rb] = [await a.openRepository(), await b.openRepository()];
  const fromA = await a.store(ra, { operation, claims: claims.of("a") });
  const fromB = await b.store(rb, { operation, claims: claims.of("b") });
  expect(fromA.stored.totals.newBytes).toBe(1_000_000);
  expect(fromB.stored.totals.newBytes).toBe(200_000);
  const nodes = [fromA, fromB].map(({ stored }, index) => ({ node: "ab"[index]!, stored }));
  const id = drawId(realRandom);
  await commit(ra, openSource(ra), { id, operation, complete: true, nodes });
  await expectSame(b, fromB.stored.volumes[0]!.listing);
  for (const { backup } of [fromA, fromB]) backup.committed(id);
  const again = await b.backup();
  expect(again.stored.list).toEqual(fromB.stored.list);
  expect(again.stored.totals.readBytes).toBe(0);
});

test("chunks of a node that died are read again and sent by who has them", async () => {
  await using pair = await openPair();
  const claims = new SharedClaims();
  const repository = await pair.a.openRepository();
  const operation = drawId(realRandom);
  const settle = () => Promise.reject(new AppError("timeout", "No answer."));
  const failed = pair.a.store(repository, { operation, claims: { ...claims.of("a"), settle } });
  expect(await failed.catch((error: unknown) => error)).toMatchObject({ kind: "timeout" });
  claims.dead.add("a");
  const { stored } = await pair.b.backup({ claims: claims.of("b") });
  expect(stored.totals.newBytes).toBe(1_200_000);
  await expectSame(pair.b, stored.volumes[0]!.listing);
});

test("a chunk that nobody sent and that cannot be read again ends the backup", async () => {
  await using pair = await openPair();
  const { b } = pair;
  const claims = new SharedClaims();
  claims.dead.add("a");
  const all = { ...claims.of("b"), claim: async (ids: Uint8Array[]) => ids.map(() => false) };
  const beforeSettle = (): void => b.write("same", noise(1_000_000, 9));
  const failed = await b
    .backup({ claims: { ...all, resolve: async (ids) => ids.map(() => "yours") }, beforeSettle })
    .catch((error: unknown) => error);
  expect(failed).toMatchObject({ kind: "incomplete", retryable: true });
});

test.each(["altered", "gone"])(
  "chunks of a distrusted pack that is %s are sent again, though no file has changed",
  async (fault) => {
    await using rig = await Rig.open();
    for (const name of ["a", "b"]) rig.write(name, noise(300_000, name.charCodeAt(0)));
    const first = await rig.backup();
    const packs = [...rig.site.objects.keys()].filter((key) => key.startsWith("pack/"));
    for (const key of packs) {
      if (fault === "gone") rig.site.objects.delete(key);
      else rig.site.objects.set(key, noise(rig.site.objects.get(key)!.length, 7));
    }
    const distrusted = packs.map((key) => {
      const [, id, birth] = /([0-9a-f]{64})-([0-9]+)$/.exec(key)!;
      return { id: id!, birth: Number(birth) };
    });
    const table = new DistrustedPacks(rig.catalog);
    table.add(distrusted);
    const again = await rig.backup();
    expect(again.stored.totals.newBytes).toBe(600_000);
    expect(again.stored.list.id).not.toBe(first.stored.list.id);
    await expectSame(rig, again.stored.volumes[0]!.listing);
    // The good packs are found from now on, beside the bad ones.
    const third = await rig.backup();
    expect(third.stored.totals).toMatchObject({ newBytes: 0, readBytes: 0 });
    await expectSame(rig, third.stored.volumes[0]!.listing);
    const { state } = await rig.openRepository();
    expect(table.list(state)).toHaveLength(packs.length);
    const repairs = new Map(distrusted.map(({ id, birth }) => [id, birth + 1]));
    expect(table.list({ ...state, repairs })).toEqual([]);
  },
);
