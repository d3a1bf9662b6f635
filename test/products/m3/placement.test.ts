/**
 * Placements of M3: read, described, checked by M3's rules and rewritten for other nodes.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { AppError } from "../../../src/base/error.ts";
import { initializeFromPeers, mapPlacement } from "../../../src/products/m3/placement-map.ts";
import type { InstanceMapping } from "../../../src/products/m3/placement-map.ts";
import { mapAnyPlacement, readAnyPlacement } from "../../../src/products/m3/placement-staged.ts";
import {
  describePlacement,
  encodePlacement,
  instancesOf,
  listPlacementProblems,
  parsePlacement,
  showShards,
} from "../../../src/products/m3/placement.ts";
import type { PlacementDescription } from "../../../src/products/m3/placement.ts";
import { evenInstances, placementBytes, stagedBytes } from "./placement-wire.ts";
import type { WireInstance } from "./placement-wire.ts";

const ABC = evenInstances(["a", "b", "c"], 4, 2);
const PLAIN = placementBytes({ instances: ABC, replicaFactor: 2, shardCount: 4 });

/** What M3 1.5.0 wrote for three nodes on one machine, four shards, three replicas. */
const FROM_M3 = Buffer.from(
  "CmUKCm0zZGJfbm9kZTISVwoKbTNkYl9ub2RlMhIGZ3JvdXAyGghlbWJlZGRlZCBkKg8xMjcuMC4wLjE6MTYwNTAyAhAB" +
    "MgQIARABMgQIAhABMgQIAxABQgkxMjcuMC4wLjFIsn1SAApmCgptM2RiX25vZGUzElgKCm0zZGJfbm9kZTMSBmdyb3Vw" +
    "MxoIZW1iZWRkZWQgZCoPMTI3LjAuMC4xOjI4MTExMgIQATIECAEQATIECAIQATIECAMQAUIJMTI3LjAuMC4xSM/bAVIA" +
    "CmYKCm0zZGJfbm9kZTESWAoKbTNkYl9ub2RlMRIGZ3JvdXAxGghlbWJlZGRlZCBkKg8xMjcuMC4wLjE6MjY1NzIyAhAB" +
    "MgQIARABMgQIAhABMgQIAxABQgkxMjcuMC4wLjFIzM8BUgAQAxgEIAE=",
  "base64",
);

/** The staged placement that M3 1.5.0 wrote for two mirrored aggregators, named by their addresses. */
const STAGED_FROM_M3 = Buffer.from(
  "CooCCn4KC20zYWdnMTo2MDAwEm8KC20zYWdnMTo2MDAwEgJnMRoIZW1iZWRkZWQgZCoLbTNhZ2cxOjYwMDAyCiCAsOmw" +
    "vcqf9RgyDAgBIICw6bC9yp/1GDIMCAIggLDpsL3Kn/UYMgwIAyCAsOmwvcqf9Rg4AUIGbTNhZ2cxSPAuUgAKfgoLbTNh" +
    "Z2cyOjYwMDASbwoLbTNhZ2cyOjYwMDASAmcyGghlbWJlZGRlZCBkKgttM2FnZzI6NjAwMDIKIICw6bC9yp/1GDIMCAEg" +
    "gLDpsL3Kn/UYMgwIAiCAsOmwvcqf9RgyDAgDIICw6bC9yp/1GDgBQgZtM2FnZzJI8C5SABACGAQgATABOAE=",
  "base64",
);

/** Shard 1 moves from `a` to `d`, which has nothing else; all of it twice replicated. */
const MOVING: readonly WireInstance[] = [
  {
    id: "a",
    shards: [{ id: 0 }, { id: 1, state: 2, cutoffNanos: 77n }],
  },
  { id: "b", shards: [{ id: 0 }, { id: 1 }] },
  { id: "d", shards: [{ id: 1, state: 0, sourceId: "a" }] },
];
const MOVING_BYTES = placementBytes({ instances: MOVING, replicaFactor: 2, shardCount: 2 });

describe("reading", () => {
  test("describes what M3 wrote", () => {
    const described = describePlacement(parsePlacement(PLAIN));
    expect(described).toMatchObject({ replicaFactor: 2, shardCount: 4, isSharded: true });
    expect(described.instances.map(({ id }) => id)).toEqual(["a", "b", "c"]);
    expect(described.instances[0]).toEqual({
      id: "a",
      isolationGroup: "group-a",
      zone: "embedded",
      endpoint: "a.old:9000",
      hostname: "a.old",
      port: 9000,
      weight: 100,
      shardSetId: 0,
      shards: [0, 2, 3].map((id) => ({ id, state: "available", sourceId: "" })),
    });
  });

  test("refuses bytes that are no placement", () => {
    const cut = PLAIN.subarray(0, PLAIN.length - 3);
    expect(kindOf(() => parsePlacement(cut))).toBe("damaged");
    expect(kindOf(() => parsePlacement(new TextEncoder().encode("not protobuf")))).toBe("damaged");
  });

  test("refuses an instance that is there twice", () => {
    const instances = [...ABC, ...ABC.slice(0, 1)];
    const bytes = placementBytes({ instances, replicaFactor: 2, shardCount: 4 });
    expect(messageOf(() => parsePlacement(bytes))).toContain('instance "a" is there twice');
  });

  test("gives an even placement back byte for byte", () => {
    expect(Buffer.from(encodePlacement(parsePlacement(PLAIN))).equals(PLAIN)).toBe(true);
  });

  test("reads what a real M3 wrote, and gives it back byte for byte", () => {
    const placement = parsePlacement(new Uint8Array(FROM_M3));
    const described = describePlacement(placement);
    expect(listPlacementProblems(placement)).toEqual([]);
    expect(described).toMatchObject({ replicaFactor: 3, shardCount: 4, isMirrored: false });
    expect(described.instances.map(({ id, endpoint, port }) => [id, endpoint, port])).toEqual([
      ["m3db_node1", "127.0.0.1:26572", 26572],
      ["m3db_node2", "127.0.0.1:16050", 16050],
      ["m3db_node3", "127.0.0.1:28111", 28111],
    ]);
    expect(FROM_M3.equals(encodePlacement(placement))).toBe(true);
  });

  test("finds each break of M3's rules and names shards and instances", () => {
    const problems = (instances: readonly WireInstance[], shardCount = 2): string[] =>
      listPlacementProblems(
        parsePlacement(placementBytes({ instances, replicaFactor: 1, shardCount })),
      );
    const a = { id: "a", shards: [{ id: 0 }] };
    expect(problems([a])).toEqual(["shard 1: 0 owners in place of 1"]);
    expect(problems([{ id: "a", shards: [{ id: 0 }, { id: 1 }, { id: 5 }] }])).toEqual([
      "shard 5: beyond 2 shards",
    ]);
    expect(problems([a, { id: "b", shards: [{ id: 1 }, { id: 0, state: 2 }] }])).toEqual([
      "shard 0 leaves b and goes nowhere",
    ]);
    const comer = { id: 1, state: 0, sourceId: "z" } as const;
    expect(problems([{ id: "a", shards: [{ id: 0 }, comer] }])).toEqual([
      "shard 1 comes to a from z, which does not give it away",
    ]);
    expect(problems([{ ...a, endpoint: "" }], 1)).toEqual(["instance a has no endpoint"]);
    expect(problems([a, { id: "b", shards: [] }], 1)).toEqual(["instance b has no shards"]);
    expect(problems([a, { id: "b", shards: [{ id: 1 }] }])).toEqual([]);
  });

  test("shows shards as ranges", () => {
    expect(showShards([3, 1, 2, 2, 9])).toBe("shards 1-3 and 9");
    expect(showShards([7])).toBe("shard 7");
    expect(showShards([1, 3, 5])).toBe("shards 1, 3 and 5");
  });
});

describe("mapping to other nodes", () => {
  test("keeps every instance and its shards under any permutation of names", () => {
    const arbitrary = fc
      .tuple(fc.integer({ min: 2, max: 7 }), fc.integer({ min: 1, max: 24 }), fc.nat())
      .chain(([count, shardCount, factor]) => {
        const ids = Array.from({ length: count }, (_, index) => `node-${index}`);
        const names = [...ids, "new-1", "new-2"];
        return fc.record({
          ids: fc.constant(ids),
          shardCount: fc.constant(Math.max(shardCount, count)),
          replicaFactor: fc.constant((factor % count) + 1),
          targets: fc.shuffledSubarray(names, { minLength: count, maxLength: count }),
        });
      });
    fc.assert(
      fc.property(arbitrary, ({ ids, shardCount, replicaFactor, targets }) => {
        const instances = evenInstances(ids, shardCount, replicaFactor);
        const bytes = placementBytes({ instances, replicaFactor, shardCount, invented: "new" });
        const mappings = ids.map((from, index) => move(from, targets[index] ?? ""));
        const { placement } = mapPlacement(bytes, { instances: mappings });
        const shardsBefore = new Map(
          instances.map(({ id, shards }, index) => [targets[index] ?? id, shards.map((s) => s.id)]),
        );
        expect(shardsOf(placement)).toEqual(Object.fromEntries(shardsBefore));
        for (const instance of placement.instances) {
          expect(instance.endpoint).toBe(`${instance.id}.new:9000`);
        }
      }),
    );
  });

  test("is undone by the inverse permutation, to the byte", () => {
    const there = [move("a", "b"), move("b", "c"), move("c", "a")];
    const back = [move("b", "a", "old"), move("c", "b", "old"), move("a", "c", "old")];
    const mapped = mapPlacement(PLAIN, { instances: there });
    expect(shardsOf(mapped.placement)).toEqual({ b: [0, 2, 3], c: [0, 1, 3], a: [1, 2] });
    const again = mapPlacement(mapped.bytes, { instances: back }).bytes;
    expect(Buffer.from(again).equals(PLAIN)).toBe(true);
  });

  test("changes only what is given", () => {
    const { placement } = mapPlacement(PLAIN, { instances: [{ from: "a", to: { id: "z" } }] });
    const z = placement.instances.find(({ id }) => id === "z");
    expect(z).toMatchObject({ endpoint: "a.old:9000", isolationGroup: "group-a", port: 9000 });
    const to = { id: "a", isolationGroup: "g", zone: "y", port: 1, hostname: "h", endpoint: "h:1" };
    const all = mapPlacement(PLAIN, { instances: [{ from: "a", to }] }).placement.instances[0];
    expect(all).toMatchObject(to);
  });

  test("keeps fields that it does not know, at every level", () => {
    const options = {
      instances: ABC,
      replicaFactor: 2,
      shardCount: 4,
      invented: "from-the-future",
    };
    const bytes = placementBytes(options);
    const mapped = mapPlacement(bytes, { instances: [move("a", "b"), move("b", "a")] }).bytes;
    // One of the placement, and for each instance: itself, its metadata, its shards.
    const wanted = 1 + 3 * 2 + 8;
    expect(countOf(mapped, "from-the-future")).toBe(wanted);
    // Only the entries of the map, which are no messages of M3's own, lose theirs.
    expect(countOf(bytes, "from-the-future")).toBe(wanted + 3);
  });

  test("refuses an unknown instance, a double one and equal names", () => {
    const refused = (...instances: InstanceMapping[]): string =>
      messageOf(() => mapPlacement(PLAIN, { instances }));
    expect(refused(move("x", "y"))).toContain("no instance x");
    expect(refused(move("a", "y"), move("a", "z"))).toContain("mapped twice");
    expect(refused(move("a", "b"))).toContain('the id "b"');
    const sameEndpoint = { from: "a", to: { id: "n", endpoint: "b.old:9000" } };
    expect(refused(sameEndpoint)).toContain('the endpoint "b.old:9000"');
  });

  test("refuses to put the owners of a shard into one isolation group", () => {
    const groups = (...names: string[]): InstanceMapping[] =>
      ["a", "b", "c"].map((id, index) => ({
        from: id,
        to: { id, isolationGroup: names[index] ?? "" },
      }));
    expect(messageOf(() => mapPlacement(PLAIN, { instances: groups("x", "x", "y") }))).toContain(
      'isolation group "x" has two owners of shards 0 and 3',
    );
    // Fewer groups than replicas: M3 has no choice either.
    expect(mapPlacement(PLAIN, { instances: groups("x", "x", "x") }).notes).toEqual([]);
    expect(mapPlacement(PLAIN, { instances: groups("x", "y", "z") }).notes).toEqual([]);
  });

  test("refuses a placement that is not sound", () => {
    const instances = [{ id: "a", shards: [{ id: 0 }] }];
    const bytes = placementBytes({ instances, replicaFactor: 1, shardCount: 3 });
    expect(messageOf(() => mapPlacement(bytes, { instances: [] }))).toContain(
      "The backup's placement is not sound: shards 1-2: 0 owners in place of 1",
    );
  });
});

describe("shards on their way", () => {
  test("go back to the owner that has their data", () => {
    const mapped = mapPlacement(MOVING_BYTES, { instances: [move("a", "b"), move("b", "a")] });
    expect(shardsOf(mapped.placement)).toEqual({ b: [0, 1], a: [0, 1] });
    expect(mapped.placement.instances.flatMap(({ shards }) => shards)).toEqual(
      [0, 1, 0, 1].map((id) => ({ id, state: "available", sourceId: "" })),
    );
    expect(mapped.removed).toEqual(["d"]);
    expect(mapped.notes.join("; ")).toContain("shard 1: moving at the time of the backup");
    const left = instancesOf(parsePlacement(mapped.bytes)).flatMap(({ shards }) => shards);
    expect(left.map(({ cutoffNanos }) => cutoffNanos)).toEqual([0n, 0n, 0n, 0n]);
  });

  test("may be named in a mapping although they are left out", () => {
    const instances = [move("a", "a"), move("b", "b"), move("d", "x")];
    expect(mapPlacement(MOVING_BYTES, { instances }).removed).toEqual(["d"]);
  });

  test("are refused by name where that is asked", () => {
    const refused = messageOf(() =>
      mapPlacement(MOVING_BYTES, { instances: [], moving: "refuse" }),
    );
    expect(refused).toContain("shard 1 moved between instances");
  });

  test("that come from nobody are available only if one says so", () => {
    const instances = [{ id: "a", shards: [{ id: 0, state: 0 as const }, { id: 1 }] }];
    const bytes = placementBytes({ instances, replicaFactor: 1, shardCount: 2 });
    expect(messageOf(() => mapPlacement(bytes, { instances: [] }))).toContain(
      "shard 0 initialized and came from no other instance",
    );
    const { placement } = mapPlacement(bytes, { instances: [], unsourced: "available" });
    expect(placement.instances[0]?.shards[0]?.state).toBe("available");
  });
});

describe("instances without data", () => {
  test("fetch their shards from the other owners", () => {
    const { placement } = initializeFromPeers(PLAIN, { missing: ["b"] });
    const states = placement.instances.map(({ shards }) => [
      ...new Set(shards.map((s) => s.state)),
    ]);
    expect(states).toEqual([["available"], ["initializing"], ["available"]]);
  });

  test("are refused where they were a shard's only owners", () => {
    const missing = ["a", "b"];
    const refused = messageOf(() => initializeFromPeers(PLAIN, { missing }));
    expect(refused).toBe("Shards 0 and 3 have no other owner.");
    expect(kindOf(() => initializeFromPeers(PLAIN, { missing: ["x"] }))).toBe("refused");
  });
});

describe("placements beside the database's", () => {
  const moves = {
    key: "_sd.placement/e/m3aggregator",
    instances: [move("a", "b"), move("b", "a")],
    hosts: new Map([["a.old", "a.new"]]),
  };
  const agg = (id: string, host: string): WireInstance => {
    return { id, shards: [{ id: 0 }], endpoint: `${host}:6000`, hostname: host };
  };
  const aggregator = (instances: readonly WireInstance[]) =>
    placementBytes({ instances, replicaFactor: 2, shardCount: 1 });

  test("are told apart: plain, staged, compressed, something else", () => {
    expect(readAnyPlacement(PLAIN).kind).toBe("plain");
    expect(readAnyPlacement(stagedBytes([PLAIN, PLAIN]))).toMatchObject({ kind: "staged" });
    const compressed = readAnyPlacement(stagedBytes([PLAIN], { compressed: true }));
    expect(compressed.kind === "staged" && compressed.placements.length).toBe(1);
    expect(readAnyPlacement(new TextEncoder().encode("junk")).kind).toBe("other");
  });

  test("stay byte for byte where no moved instance or host stands in them", () => {
    const bytes = aggregator([agg("x", "x.old"), agg("y", "y.old")]);
    for (const value of [
      bytes,
      stagedBytes([bytes]),
      stagedBytes([bytes], { compressed: true }),
      new Uint8Array([255, 1, 2]),
      new Uint8Array(),
    ]) {
      expect(mapAnyPlacement(value, moves)).toBe(value);
    }
  });

  test("follow ids and hosts, and keep their own ports", () => {
    const bytes = aggregator([agg("a", "a.old"), agg("x", "a.old"), agg("b", "c.old")]);
    const wanted = [
      ["b", "a.new:6000", "a.new"],
      ["x", "a.new:6000", "a.new"],
      ["a", "a.new:6000", "a.new"],
    ];
    const distinct = aggregator([agg("a", "a.old")]);
    const staged = [stagedBytes([distinct]), stagedBytes([distinct], { compressed: true })];
    for (const value of [distinct, ...staged]) {
      const read = readAnyPlacement(mapAnyPlacement(value, moves));
      const placements = read.kind === "plain" ? [read.placement] : [];
      const all = read.kind === "staged" ? read.placements : placements;
      const [instance] = instancesOf(all[0]!);
      expect([instance?.id, instance?.endpoint, instance?.hostname]).toEqual(wanted[0]!);
    }
    expect(() => mapAnyPlacement(bytes, moves)).toThrow("Two instances would have the endpoint");
  });

  test("of a real m3aggregator follow their hosts, back and forth to the byte", () => {
    const hosts = (from: string, to: string) => {
      return { key: "/placement/e/m3aggregator", instances: [], hosts: new Map([[from, to]]) };
    };
    const bytes = new Uint8Array(STAGED_FROM_M3);
    const moved = mapAnyPlacement(bytes, hosts("m3agg2", "other"));
    const read = readAnyPlacement(moved);
    const placements = read.kind === "staged" ? read.placements : [];
    expect(placements.map((each) => instancesOf(each).map(({ id }) => id))).toEqual([
      ["m3agg1:6000", "other:6000"],
    ]);
    expect(describePlacement(placements[0]!)).toMatchObject({ isMirrored: true, shardCount: 4 });
    const back = mapAnyPlacement(moved, hosts("other", "m3agg2"));
    expect(STAGED_FROM_M3.equals(back)).toBe(true);
  });

  test("are refused where they cannot be read and name a moved instance", () => {
    const junk = new TextEncoder().encode("\u00ff a.old");
    expect(messageOf(() => mapAnyPlacement(junk, moves))).toContain("cannot be rewritten");
  });
});

function move(from: string, id: string, suffix = "new"): InstanceMapping {
  const hostname = `${id}.${suffix}`;
  const isolationGroup = `group-${id}`;
  return { from, to: { id, hostname, endpoint: `${hostname}:9000`, isolationGroup } };
}

function shardsOf(placement: PlacementDescription): Record<string, number[]> {
  return Object.fromEntries(
    placement.instances.map(({ id, shards }) => [id, shards.map((shard) => shard.id)]),
  );
}

function countOf(bytes: Uint8Array, text: string): number {
  return Buffer.from(bytes).toString("latin1").split(text).length - 1;
}

function messageOf(call: () => unknown): string {
  return errorOf(call).message;
}

function kindOf(call: () => unknown): string {
  return errorOf(call).kind;
}

function errorOf(call: () => unknown): AppError {
  try {
    call();
  } catch (thrown) {
    if (thrown instanceof AppError) return thrown;
    throw thrown;
  }
  throw new Error("nothing was thrown");
}
