/** The index of chunks: what is found, what has gone, and what a damaged row must never do. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { AppError } from "../../src/base/error.ts";
import type { Catalog } from "../../src/cas/catalog/catalog.ts";
import { ChunkIndex } from "../../src/cas/catalog/catalog-index.ts";
import { decodeSegment } from "../../src/cas/format/index-segment.ts";
import { World } from "./repository-world.ts";
import { chunkId, makeSegment, packId } from "./segment-builder.ts";
import type { BuiltSegment } from "./segment-builder.ts";

function apply(index: ChunkIndex, { ref, bytes }: BuiltSegment): void {
  index.applySegments([{ ref, segment: decodeSegment(bytes, ref.id) }]);
}

describe("the index", () => {
  test("finds every chunk of a segment in its place, and nothing else", () => {
    using world = new World();
    const index = new ChunkIndex(world.openCatalog());
    const built = makeSegment(["p", "q"], 3, 4, 150);
    expect(index.isEmpty).toBe(true);
    apply(index, built);
    expect(index.isEmpty).toBe(false);
    expect(index.find(chunkId("p", 7))).toEqual([
      {
        pack: packId("p"),
        birth: 3,
        frame: 0,
        offset: 70,
        length: 10,
        frameOffset: 0,
        storedLength: 1500,
        rawLength: 1500,
        codec: 0,
      },
    ]);
    for (const id of built.chunks) expect(index.find(id)).toHaveLength(1);
    expect(index.find(chunkId("p", 150))).toEqual([]);
    const asked = [chunkId("p", 150), ...built.chunks, chunkId("p", 7), chunkId("p", 7)];
    expect(index.findMany(asked)).toEqual(asked.map((id) => index.find(id)));
    expect(index.findMany([])).toEqual([]);
    expect(index.countChunks()).toBe(300);
    const [pack] = built.packs;
    expect(index.findPack(pack!.id)).toEqual({ ...pack!, segment: built.ref.id });
    expect(index.findPack(packId("other"))).toBeUndefined();
  });

  test("knows unknown chunks without SQLite after some, and never denies a known one", () => {
    using world = new World();
    const index = new ChunkIndex(world.openCatalog());
    const built = makeSegment(["p", "q"], 3, 4, 150);
    apply(index, built);
    const unknown = Array.from({ length: 400 }, (_, number) => chunkId("unknown", number));
    const passed = (): number => unknown.filter((id) => index.mayHave(id)).length;
    expect(passed()).toBe(unknown.length);
    for (const id of unknown.slice(0, 8)) expect(index.find(id)).toEqual([]);
    expect(passed()).toBeLessThan(20);
    for (const id of built.chunks) expect(index.mayHave(id)).toBe(true);
    const later = makeSegment(["later"], 4, 4, 150);
    apply(index, later);
    for (const id of unknown.slice(0, 64)) index.find(id);
    expect(passed()).toBeLessThan(20);
    for (const id of [...built.chunks, ...later.chunks]) expect(index.mayHave(id)).toBe(true);
    index.clear();
    expect(index.mayHave(built.chunks[0]!)).toBe(false);
  });

  test("makes no filter of a damaged table, and denies nothing", () => {
    using world = new World();
    const catalog = world.openCatalog();
    const index = new ChunkIndex(catalog);
    const built = makeSegment(["p", "q"], 3, 4, 150);
    apply(index, built);
    catalog.database.run(
      "UPDATE index_chunk SET id = substr(id, 2) WHERE id = (SELECT id FROM index_chunk LIMIT 1 OFFSET 150)",
    );
    const ask = (): void => {
      for (let number = 0; number < 8; number += 1) index.find(chunkId("unknown", number));
    };
    expect(ask).toThrow("The local catalog is damaged");
    for (const id of built.chunks) expect(index.mayHave(id)).toBe(true);
  });

  test("enters a segment once", () => {
    using world = new World();
    const index = new ChunkIndex(world.openCatalog());
    const built = makeSegment(["p"], 1);
    apply(index, built);
    apply(index, built);
    expect([index.hasSegment(built.ref.id), index.countChunks()]).toEqual([true, 1]);
  });

  test("is the same whether segments come together or one by one", () => {
    using world = new World();
    using other = new World();
    const [together, alone] = [world.openCatalog(), other.openCatalog()];
    const built = [
      makeSegment(["p", "q"], 1, 1, 90),
      makeSegment(["q", "r"], 1, 2, 300),
      makeSegment(["s"], 1),
      makeSegment(["deleted"], 1),
    ];
    const found = built.map(({ ref, bytes }) => ({ ref, segment: decodeSegment(bytes, ref.id) }));
    const isDeleted = (pack: string): boolean => pack === packId("deleted");
    new ChunkIndex(together).applySegments(found, isDeleted);
    const index = new ChunkIndex(alone);
    for (const one of found) index.applySegments([one], isDeleted);
    for (const table of ["segment", "pack", "mention", "chunk"]) {
      const rows = [together, alone].map(({ database }) =>
        database.query(`SELECT * FROM index_${table} ORDER BY 1, 2`).all(),
      );
      expect(rows[0]!.length).toBeGreaterThan(2);
      expect(rows[0]).toEqual(rows[1]);
    }
    expect(index.countChunks()).toBe(2 * 90 + 300 + 1);
  });

  test("keeps a pack as long as any segment mentions it", () => {
    using world = new World();
    const index = new ChunkIndex(world.openCatalog());
    const [one, both] = [makeSegment(["p"], 1), makeSegment(["p", "q"], 1)];
    apply(index, one);
    apply(index, both);
    index.removeSegments([one.ref.id]);
    expect(index.find(chunkId("p", 0))).toHaveLength(1);
    expect(index.findPack(packId("p"))?.segment).toBe(both.ref.id);
    index.removeSegments([both.ref.id]);
    expect(index.find(chunkId("p", 0))).toEqual([]);
    expect([...index.packs()]).toEqual([]);
  });

  test("never gives the chunks of a pack that has gone to one that came later", () => {
    using world = new World();
    const index = new ChunkIndex(world.openCatalog());
    const last = makeSegment(["p"], 1);
    apply(index, last);
    index.removeSegments([last.ref.id]);
    apply(index, makeSegment(["q"], 1));
    expect(index.find(chunkId("p", 0))).toEqual([]);
  });

  test("of two births of a pack believes the lower, in whatever order they came", () => {
    for (const births of [
      [3, 5],
      [5, 3],
    ]) {
      using world = new World();
      const index = new ChunkIndex(world.openCatalog());
      for (const birth of births) apply(index, makeSegment(["p"], birth));
      expect(index.find(chunkId("p", 0)).map(({ birth }) => birth)).toEqual([3]);
      expect(index.findPack(packId("p"))?.birth).toBe(3);
      index.removePacks([packId("p")], () => 4);
      expect(index.find(chunkId("p", 0)).map(({ birth }) => birth)).toEqual([5]);
    }
  });

  test("leaves packs out that are deleted", () => {
    using world = new World();
    const index = new ChunkIndex(world.openCatalog());
    const { ref, bytes } = makeSegment(["p", "q"], 1);
    const segment = decodeSegment(bytes, ref.id);
    index.applySegments([{ ref, segment }], (pack) => pack === packId("p"));
    expect(index.findPack(packId("p"))).toBeUndefined();
    expect(index.find(chunkId("p", 0))).toEqual([]);
    expect(index.find(chunkId("q", 0))).toHaveLength(1);
  });

  test("holds what a model of segments, packs and deletions says", () => {
    const names = ["p", "q", "r", "s"];
    const step = fc.record({
      what: fc.constantFrom("apply", "apply", "drop", "delete"),
      packs: fc.uniqueArray(fc.constantFrom(...names), { minLength: 1, maxLength: 3 }),
    });
    using world = new World();
    const catalog = world.openCatalog();
    fc.assert(
      fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
        const index = new ChunkIndex(catalog);
        index.clear();
        const model = new Map<string, Set<string>>();
        for (const { what, packs } of steps) {
          const built = makeSegment(packs, 1);
          if (what === "apply") {
            apply(index, built);
            if (!model.has(built.ref.id)) model.set(built.ref.id, new Set(packs));
          } else if (what === "drop") {
            index.removeSegments([built.ref.id]);
            model.delete(built.ref.id);
          } else {
            index.removePacks(packs.map(packId));
            for (const mentioned of model.values())
              for (const pack of packs) mentioned.delete(pack);
          }
        }
        const live = names.filter((name) => [...model.values()].some((packs) => packs.has(name)));
        const found = names.filter((name) => index.find(chunkId(name, 0)).length === 1);
        expect(found).toEqual(live);
        expect([...index.packs()].map(({ id }) => id).toSorted()).toEqual(
          live.map(packId).toSorted(),
        );
        expect(index.countChunks()).toBe(live.length);
      }),
      { numRuns: 60 },
    );
  });

  test("sweeps dead rows when they are many, and loses no live one", () => {
    using world = new World();
    const catalog = world.openCatalog();
    const index = new ChunkIndex(catalog);
    const [dead, live] = [makeSegment(["p"], 1, 1, 100_000), makeSegment(["q"], 1)];
    apply(index, dead);
    apply(index, live);
    index.removePacks([packId("p")]);
    expect(rowCount(catalog)).toBe(1);
    expect(index.find(chunkId("q", 0))).toHaveLength(1);
  });

  test("notices every changed column of a row, and says that the catalog is at fault", () => {
    const damages = [
      "UPDATE index_chunk SET start = start + 1",
      "UPDATE index_chunk SET length = length - 1",
      "UPDATE index_chunk SET frame = frame + 1",
      "UPDATE index_chunk SET checksum = checksum + 1",
      "UPDATE index_pack SET birth = birth + 1",
      "UPDATE index_pack SET value = substr(value, 2)",
      // The rows of two packs change places.
      "UPDATE index_pack SET number = -number; UPDATE index_pack SET number = 3 + number",
    ];
    for (const damage of damages) {
      using world = new World();
      const catalog = world.openCatalog();
      apply(new ChunkIndex(catalog), makeSegment(["p", "q"], 1));
      catalog.database.run(damage);
      const error = errorOf(() => new ChunkIndex(catalog).find(chunkId("p", 0)));
      expect([damage, error.kind, error.context["catalog"]]).toEqual([damage, "damaged", true]);
    }
  });

  test("lists packs of one segment, and all of them over more than one page", () => {
    using world = new World();
    const index = new ChunkIndex(world.openCatalog());
    const many = makeSegment(
      Array.from({ length: 450 }, (_, number) => `pack ${number}`),
      1,
    );
    const few = makeSegment(["pack 1", "other"], 1);
    apply(index, many);
    apply(index, few);
    expect([...index.packs()]).toHaveLength(451);
    expect([...index.packs({ segment: few.ref.id })].map(({ id }) => id).toSorted()).toEqual(
      few.packs.map(({ id }) => id),
    );
  });
});

function rowCount(catalog: Catalog): number {
  const row = catalog.database
    .query<{ count: number }, []>("SELECT count(*) AS count FROM index_chunk")
    .get();
  return row?.count ?? -1;
}

function errorOf(action: () => unknown): AppError {
  try {
    action();
  } catch (thrown) {
    if (thrown instanceof AppError) return thrown;
    throw thrown;
  }
  throw new Error("nothing was thrown");
}
