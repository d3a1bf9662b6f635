/** Which points of a loop are tried where not all are. */
import { expect, test } from "bun:test";
import { spreadEvenly } from "./chosen-points.ts";

const ALL = Array.from({ length: 101 }, (_, index) => index);

test("the first, the last, and evenly between are chosen, each once", () => {
  expect(spreadEvenly(ALL, 5)).toEqual([0, 25, 50, 75, 100]);
  for (const count of [2, 3, 60, 100]) {
    const chosen = spreadEvenly(ALL, count);
    expect(new Set(chosen).size).toBe(count);
    expect([chosen[0], chosen.at(-1)]).toEqual([0, 100]);
  }
});

test("all are chosen where no more are there than wanted, and one where one is", () => {
  expect(spreadEvenly(ALL, 101)).toEqual(ALL);
  expect(spreadEvenly(ALL, 500)).toEqual(ALL);
  expect(spreadEvenly([], 5)).toEqual([]);
  expect(spreadEvenly(ALL, 1)).toEqual([0]);
});
