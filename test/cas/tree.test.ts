/** Trees: any sequence comes back, neighbours share nodes, and damage is told from data. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { fromHex, sha256, toHex } from "../../src/base/hex.ts";
import { ByteReader, ByteWriter } from "../../src/cas/format/bytes.ts";
import {
  type ChunkFetch,
  listTreeNodes,
  readTree,
  type ReadTreeOptions,
  type TreeRoot,
  TreeWriter,
} from "../../src/cas/format/tree.ts";
import { expectDamagedAsync, messageOf } from "./expect-damaged.ts";
import vectors from "./format-vectors.json";

type Entry = { key: string; record: Uint8Array };

/** A tree in a map of its nodes. */
class Stored {
  readonly nodes = new Map<string, Uint8Array>();
  readonly fetched: string[] = [];
  root!: TreeRoot;

  static of(entries: Iterable<Entry>, targetSizeBytes?: number): Stored {
    const stored = new Stored();
    const tree = new TreeWriter(
      (bytes) => {
        const id = sha256(bytes);
        stored.nodes.set(toHex(id), bytes);
        return id;
      },
      targetSizeBytes === undefined ? {} : { targetSizeBytes },
    );
    for (const { key, record } of entries) tree.add(key, record);
    stored.root = tree.finish();
    return stored;
  }

  readonly fetch: ChunkFetch = async (id) => {
    this.fetched.push(toHex(id));
    const bytes = this.nodes.get(toHex(id));
    if (bytes === undefined) throw new Error(`no node ${toHex(id)}`);
    return bytes;
  };

  async read(options: ReadTreeOptions = {}): Promise<Uint8Array[]> {
    const records: Uint8Array[] = [];
    for await (const leaf of readTree(this.root, this.fetch, options)) records.push(...leaf);
    return records;
  }

  async list(skip?: (key: string) => boolean): Promise<{ id: string; level: number }[]> {
    const found: { id: string; level: number }[] = [];
    const options = skip === undefined ? {} : { skip };
    for await (const { id, level } of listTreeNodes(this.root, this.fetch, options)) {
      found.push({ id: toHex(id), level });
    }
    return found;
  }
}

/** A record that begins with its key, as a file's does with its path. */
function entryOf(key: string, extraSizeBytes = 0): Entry {
  const writer = new ByteWriter();
  writer.text(key);
  writer.raw(sha256(Buffer.from(key, "latin1")).subarray(0, extraSizeBytes % 33));
  return { key, record: writer.finish() };
}

function keyOf(record: Uint8Array): string {
  return new ByteReader(record, "a record").text();
}

const keys = fc
  .uniqueArray(
    fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes).toString("latin1")),
    { maxLength: 400 },
  )
  .map((given) => given.toSorted());

/** Paths that look like those of a database, in order. */
function paths(count: number): string[] {
  return Array.from(
    { length: count },
    (_, index) =>
      `data/metrics/${String(index).padStart(8, "0")}/fileset-16700000${index % 1000}-0-data.db`,
  );
}

describe("TreeWriter and readTree", () => {
  test("any records under any keys come back in order, however small the nodes", async () => {
    await fc.assert(
      fc.asyncProperty(keys, fc.integer({ min: 16, max: 2000 }), async (given, targetSizeBytes) => {
        const entries = given.map((key, index) => entryOf(key, index));
        const tree = Stored.of(entries, targetSizeBytes);
        expect(tree.root.count).toBe(entries.length);
        expect(tree.root.length).toBe(tree.nodes.get(tree.root.id)?.length as number);
        expect(await tree.read({ keyOf })).toEqual(entries.map(({ record }) => record));
      }),
      { numRuns: 100 },
    );
  });

  test("records need no order unless it is asked for", async () => {
    const entries = ["b", "a", "a", "c"].map((key) => entryOf(key));
    const tree = Stored.of(entries, 16);
    expect(await tree.read()).toEqual(entries.map(({ record }) => record));
    await expectDamagedAsync(() => tree.read({ keyOf }));
  });

  test("an empty tree is one leaf without records", async () => {
    const tree = Stored.of([]);
    expect(tree.root).toEqual({ id: toHex(sha256(Uint8Array.of(0))), length: 1, count: 0 });
    expect(await tree.read()).toEqual([]);
    expect(await tree.list()).toEqual([{ id: tree.root.id, level: 0 }]);
  });

  test("the same records make the same tree", () => {
    const entries = paths(5000).map((key) => entryOf(key, 20));
    expect(Stored.of(entries).root).toEqual(Stored.of(entries).root);
  });

  test("reading from a key starts exactly there and skips what is before", async () => {
    await fc.assert(
      fc.asyncProperty(
        keys,
        fc.string({ unit: "binary-ascii", maxLength: 3 }),
        async (given, from) => {
          const entries = given.map((key) => entryOf(key));
          const tree = Stored.of(entries, 64);
          const expected = entries.filter(({ key }) => key >= from).map(({ record }) => record);
          expect(await tree.read({ from, keyOf })).toEqual(expected);
          const loose = await tree.read({ from });
          expect(loose.slice(loose.length - expected.length)).toEqual(expected);
        },
      ),
    );
    const many = Stored.of(paths(20_000).map((key) => entryOf(key, 20)));
    await many.read({ from: paths(20_000)[19_000] as string, keyOf });
    expect(many.fetched.length).toBeLessThan(many.nodes.size / 2);
  });

  test("200,000 records pass within bounded memory and time", async () => {
    let largest = 0;
    let nodeCount = 0;
    let storedBytes = 0;
    const nodes = new Map<string, Uint8Array>();
    const tree = new TreeWriter((bytes) => {
      const id = sha256(bytes);
      nodes.set(toHex(id), bytes);
      largest = Math.max(largest, bytes.length);
      storedBytes += bytes.length;
      nodeCount += 1;
      return id;
    });
    const extra = new Uint8Array(60);
    let before = "";
    for (const path of paths(200_000)) {
      const writer = new ByteWriter(200);
      writer.text(path);
      writer.raw(extra);
      tree.add(path, writer.finish());
    }
    const root = tree.finish();
    let count = 0;
    const fetch: ChunkFetch = async (id) => nodes.get(toHex(id)) as Uint8Array;
    for await (const records of readTree(root, fetch, { keyOf })) {
      count += records.length;
      const last = keyOf(records.at(-1) as Uint8Array);
      expect(last > before).toBe(true);
      before = last;
    }
    expect(count).toBe(200_000);
    expect(largest).toBeLessThanOrEqual(256 * 1024 + 200);
    expect(storedBytes / nodeCount).toBeGreaterThan(32 * 1024);
    expect(storedBytes / nodeCount).toBeLessThan(128 * 1024);
  }, 20_000);
});

describe("neighbouring trees", () => {
  const before = paths(20_000);
  const old = Stored.of(before.map((key) => entryOf(key, 20)));
  const depth = 2;

  /** New nodes of a tree beside the old one. */
  function newNodes(changed: readonly string[]): number {
    const tree = Stored.of(changed.map((key) => entryOf(key, 20)));
    return [...tree.nodes.keys()].filter((id) => !old.nodes.has(id)).length;
  }

  test("the tree under test has leaves below one root", async () => {
    const levels = (await old.list()).map(({ level }) => level);
    expect(levels.filter((level) => level === 1).length).toBe(1);
    expect(levels.filter((level) => level === 0).length).toBeGreaterThan(20);
  });

  test("a record inserted or removed anywhere makes at most depth + 2 new nodes", () => {
    fc.assert(
      fc.property(fc.nat({ max: before.length - 1 }), fc.boolean(), (at, isInsert) => {
        const changed = isInsert
          ? before.toSpliced(at, 0, `${before[at]?.slice(0, -1)}a`).toSorted()
          : before.toSpliced(at, 1);
        const count = newNodes(changed);
        expect(count).toBeGreaterThanOrEqual(1);
        expect(count).toBeLessThanOrEqual(depth + 2);
      }),
      { numRuns: 25, seed: 1 },
    );
  }, 30_000);

  test("records appended at the end leave all but the last nodes as they were", () => {
    expect(newNodes([...before, "z1", "z2"])).toBeLessThanOrEqual(depth + 1);
  });

  test("a tree of unlike records shares nothing by accident", () => {
    expect(newNodes(before.map((path) => `x${path}`))).toBeGreaterThan(20);
  });
});

describe("listTreeNodes", () => {
  const tree = Stored.of(
    paths(3000).map((key) => entryOf(key, 20)),
    2000,
  );

  test("names every node once, parents first, and fetches no leaf", async () => {
    tree.fetched.length = 0;
    const found = await tree.list();
    expect(found.map(({ id }) => id).toSorted()).toEqual([...tree.nodes.keys()].toSorted());
    expect(found[0]?.id).toBe(tree.root.id);
    expect(found[0]?.level).toBeGreaterThanOrEqual(2);
    const inner = found.filter(({ level }) => level > 0).map(({ id }) => id);
    expect(tree.fetched.toSorted()).toEqual(inner.toSorted());
  });

  test("a skipped node goes with everything below it", async () => {
    const all = await tree.list();
    const inner = all.find(({ level, id }) => level === 1 && id !== tree.root.id);
    if (inner === undefined) throw new Error("the tree is too flat");
    const skipped = Buffer.from(inner.id, "hex").toString("latin1");
    const rest = await tree.list((key) => key === skipped);
    expect(rest.length).toBeLessThan(all.length - 2);
    expect(rest.some(({ id }) => id === inner.id)).toBe(false);
    expect(await tree.list(() => true)).toEqual([]);
  });
});

describe("damaged trees", () => {
  const build = (): Stored =>
    Stored.of(
      paths(300).map((key) => entryOf(key, 9)),
      1000,
    );

  test("every truncated node is damage or is told by its length", async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), fc.nat(), async (which, cut) => {
        const tree = build();
        const id = [...tree.nodes.keys()][which % tree.nodes.size] as string;
        const bytes = tree.nodes.get(id) as Uint8Array;
        tree.nodes.set(id, bytes.subarray(0, cut % bytes.length));
        await expectDamagedAsync(() => tree.read());
      }),
    );
  });

  test("a node of another level, count or first key is damage", async () => {
    const tree = build();
    const levels = await tree.list();
    const leaves = levels.filter(({ level }) => level === 0).map(({ id }) => id);
    const swapped = build();
    swapped.nodes.set(leaves[1] as string, tree.nodes.get(leaves[2] as string) as Uint8Array);
    await expectDamagedAsync(() => swapped.read({ keyOf }));

    const lifted = build();
    const leaf = Uint8Array.from(lifted.nodes.get(leaves[0] as string) as Uint8Array);
    leaf[0] = 1;
    lifted.nodes.set(leaves[0] as string, leaf);
    await expectDamagedAsync(() => lifted.read());

    const counted = build();
    counted.root = { ...counted.root, count: counted.root.count + 1 };
    await expectDamagedAsync(() => counted.read());
    const single = Stored.of([entryOf("a")]);
    single.root = { ...single.root, count: 2 };
    await expectDamagedAsync(() => single.read());
  });

  test("an error of the store is passed on, not turned into damage", async () => {
    const tree = build();
    tree.nodes.delete([...tree.nodes.keys()][3] as string);
    expect(await messageOf(tree.read())).toContain("no node");
  });

  test("a reader that leaves early or is cancelled ends", async () => {
    const tree = build();
    for await (const _ of readTree(tree.root, tree.fetch)) break;
    const controller = new AbortController();
    controller.abort();
    expect(await messageOf(tree.read({ signal: controller.signal }))).toContain("abort");
  });

  test("a record that fits no frame is refused", () => {
    const tree = new TreeWriter((bytes) => sha256(bytes));
    expect(() => tree.add("a", new Uint8Array(3 << 20))).toThrow("too large");
  });
});

test("a tree of version 0 is read and written as ever", async () => {
  const { root, nodes, entries } = vectors.tree;
  const given = entries.map(({ key, record }) => ({ key, record: fromHex(record) }));
  const tree = Stored.of(given, vectors.tree.targetSizeBytes);
  expect(tree.root).toEqual(root);
  expect(Object.fromEntries([...tree.nodes].map(([id, bytes]) => [id, toHex(bytes)]))).toEqual(
    nodes,
  );
  expect(await tree.read()).toEqual(given.map(({ record }) => record));
});
