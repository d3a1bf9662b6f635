/**
 * Claims: exactly one node is told to send a chunk, nobody is told a place that is not acknowledged,
 * and nobody waits for a node from which nothing more comes.
 */
import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import fc from "fast-check";
import { ClaimTable } from "../../src/cluster/claims.ts";

const PLACE = { pack: "p".repeat(64), birth: 3, frame: 1, frameCount: 2 };

test("the first claimant sends, and may ask again; the others refer", () => {
  using table = open();
  expect(table.claim("a", ids(1, 2))).toEqual([true, true]);
  expect(table.claim("b", ids(1, 2, 3))).toEqual([false, false, true]);
  expect(table.claim("a", ids(1, 3))).toEqual([true, false]);
});

test("a settled chunk is nobody's to send, and everybody learns where it lies", () => {
  using table = open();
  table.claim("a", ids(1));
  table.settle("a", [{ ...PLACE, id: id(1) }]);
  expect(table.claim("a", ids(1))).toEqual([false]);
  expect(table.resolve("b", ids(1))).toEqual([PLACE]);
  table.settle("b", [{ ...PLACE, frame: 0, id: id(1) }]);
  expect(table.resolve("c", ids(1))).toEqual([PLACE]);
});

test("who still stores is waited for", () => {
  using table = open();
  table.claim("a", ids(1));
  expect(table.resolve("b", ids(1))).toEqual(["wait"]);
});

test("what an owner lost on the way goes to the first who asks", () => {
  using table = open();
  table.claim("a", ids(1));
  table.resolve("a", []); // it has settled what it had
  expect(table.resolve("b", ids(1))).toEqual(["yours"]);
  expect(table.resolve("c", ids(1))).toEqual(["wait"]);
  table.settle("b", [{ ...PLACE, id: id(1) }]);
  expect(table.resolve("c", ids(1))).toEqual([PLACE]);
});

test("what a node lost while it stored is not waited for because it was handed something else", () => {
  using table = open();
  table.claim("a", ids(1));
  table.claim("b", ids(2));
  table.resolve("a", []);
  table.resolve("b", []);
  expect(table.resolve("b", ids(1))).toEqual(["yours"]);
  expect(table.resolve("c", ids(2))).toEqual(["yours"]);
});

test("the claims of a node that failed go to who asks next, before and after the barrier", () => {
  using table = open();
  table.claim("a", ids(1, 2));
  table.ended("a");
  expect(table.claim("b", ids(1))).toEqual([true]);
  expect(table.resolve("c", ids(2))).toEqual(["yours"]);
});

test("two nodes that were handed each other's chunks do not wait for each other", () => {
  using table = open();
  table.claim("a", ids(1));
  table.claim("b", ids(2));
  expect(table.resolve("a", ids(2))).toEqual(["wait"]); // b still stores
  expect(table.resolve("b", ids(1))).toEqual(["yours"]);
  expect(table.resolve("a", ids(2))).toEqual(["yours"]);
});

test("whatever happens, every chunk is settled when all nodes have ended, and sent once if none failed", () => {
  fc.assert(
    fc.property(
      fc.array(fc.array(fc.integer({ min: 0, max: 20 }), { maxLength: 12 }), {
        minLength: 1,
        maxLength: 5,
      }),
      fc.array(fc.boolean(), { minLength: 5, maxLength: 5 }),
      fc.infiniteStream(fc.nat()),
      (wanted, fails, dice) => {
        using table = open();
        const sent = simulate(table, wanted, fails, () => dice.next().value ?? 0);
        const alive = wanted.filter((_, node) => fails[node] !== true).flat();
        for (const chunk of alive) expect(table.resolve("z", ids(chunk))[0]).toHaveProperty("pack");
        if (!fails.slice(0, wanted.length).includes(true)) {
          expect(sent.toSorted((a, b) => a - b)).toEqual(
            [...new Set(wanted.flat())].toSorted((a, b) => a - b),
          );
        }
      },
    ),
    { numRuns: 150 },
  );
});

/** Nodes in any order of steps; the chunks that were sent. */
function simulate(
  table: ClaimTable,
  wanted: readonly (readonly number[])[],
  fails: readonly boolean[],
  dice: () => number,
): number[] {
  const sent: number[] = [];
  const send = (node: string, chunk: number): void => {
    sent.push(chunk);
    table.settle(node, [{ ...PLACE, id: id(chunk) }]);
  };
  const nodes = wanted.map((chunks, index) => {
    const name = `n${index}`;
    const unique = [...new Set(chunks)];
    function* work(): Generator<undefined, void, undefined> {
      const answers = table.claim(name, ids(...unique));
      yield;
      if (fails[index] === true) return table.ended(name);
      for (const [at, chunk] of unique.entries()) {
        if (answers[at] === true) send(name, chunk);
        yield;
      }
      let open = unique.filter((_, at) => answers[at] !== true);
      while (open.length > 0) {
        const places = table.resolve(name, ids(...open));
        const rest: number[] = [];
        for (const [at, chunk] of open.entries()) {
          if (places[at] === "yours") send(name, chunk);
          else if (places[at] === "wait") rest.push(chunk);
        }
        open = rest;
        yield;
      }
      table.ended(name);
    }
    return work();
  });
  for (let left = 100_000; nodes.length > 0 && left > 0; left -= 1) {
    const index = dice() % nodes.length;
    if (nodes[index]!.next().done === true) nodes.splice(index, 1);
  }
  expect(nodes).toHaveLength(0);
  return sent;
}

function open(): ClaimTable {
  return new ClaimTable(new Database(":memory:", { strict: true }));
}

function ids(...numbers: number[]): Uint8Array[] {
  return numbers.map(id);
}

function id(number: number): Uint8Array {
  return new Uint8Array(32).fill(number);
}
