/**
 * Which share goes to which node: total, by name first, then by zone, whatever the order in which
 * anybody lists the nodes.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { MapNode } from "../../src/cluster/node-map.ts";
import { checkPairs, mapNodes } from "../../src/cluster/node-map.ts";

const nodes = (max: number) =>
  fc.uniqueArray(
    fc.record({
      name: fc.constantFrom("a", "b", "c", "d", "e", "f", "g", "h", "i", "j"),
      zone: fc.constantFrom("", "z1", "z2"),
    }),
    { selector: ({ name }) => name, minLength: 1, maxLength: max },
  );

const worlds = fc
  .tuple(nodes(6), nodes(10))
  .filter(([backup, cluster]) => cluster.length >= backup.length);

describe("mapNodes", () => {
  test("gives every share a place, and no place two shares", () => {
    fc.assert(
      fc.property(worlds, ([backup, cluster]) => {
        const pairs = mapNodes(backup, cluster);
        expect(pairs.map(({ from }) => from)).toEqual(names(backup));
        expect(new Set(pairs.map(({ to }) => to)).size).toBe(backup.length);
        for (const { to } of pairs) expect(names(cluster)).toContain(to);
      }),
    );
  });

  test("leaves a node that is there by name where it is", () => {
    fc.assert(
      fc.property(worlds, ([backup, cluster]) => {
        for (const { from, to } of mapNodes(backup, cluster)) {
          if (names(cluster).includes(from)) expect(to).toBe(from);
        }
      }),
    );
  });

  test("crosses zones only when no node of the share's zone is free", () => {
    fc.assert(
      fc.property(worlds, ([backup, cluster]) => {
        const pairs = mapNodes(backup, cluster);
        const zoneOf = (list: readonly MapNode[], name: string): string =>
          list.find((node) => node.name === name)?.zone ?? "";
        const taken = new Set(pairs.map(({ to }) => to));
        for (const { from, to } of pairs) {
          const zone = zoneOf(backup, from);
          const isMoved = from !== to && zone !== "" && zoneOf(cluster, to) !== zone;
          if (!isMoved) continue;
          const free = cluster.filter((node) => !taken.has(node.name) && node.zone === zone);
          expect(free).toEqual([]);
        }
      }),
    );
  });

  test("does not depend on the order of either list", () => {
    fc.assert(
      fc.property(worlds, fc.func(fc.integer()), ([backup, cluster], order) => {
        const shuffled = (list: readonly MapNode[]): MapNode[] =>
          list.toSorted((one, other) => order(one.name) - order(other.name));
        expect(mapNodes(shuffled(backup), shuffled(cluster))).toEqual(mapNodes(backup, cluster));
      }),
    );
  });

  test("refuses a cluster that is too small, with both figures", () => {
    const three = [node("a"), node("b"), node("c")];
    expect(() => mapNodes(three, [node("a"), node("x")])).toThrow(
      "The backup has 3 nodes, this cluster has 2.",
    );
  });
});

describe("checkPairs", () => {
  const backup = [node("a"), node("b")];
  const cluster = [node("x"), node("y")];

  test("takes pairs that exist", () => {
    const pairs = [{ from: "a", to: "y" }];
    expect(checkPairs(pairs, backup, cluster)).toEqual(pairs);
  });

  test("names what does not exist, and what there is", () => {
    expect(() => checkPairs([{ from: "c", to: "x" }], backup, cluster)).toThrow("no node c");
    expect(() => checkPairs([{ from: "a", to: "z" }], backup, cluster)).toThrow("no node z");
  });

  test("refuses two shares on one node", () => {
    const pairs = [
      { from: "a", to: "x" },
      { from: "b", to: "x" },
    ];
    expect(() => checkPairs(pairs, backup, cluster)).toThrow("two shares");
  });
});

function node(name: string): MapNode {
  return { name, zone: "" };
}

function names(list: readonly MapNode[]): string[] {
  return list.map(({ name }) => name).toSorted();
}
