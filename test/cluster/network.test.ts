/**
 * Patience with nodes: what may pass is waited out, what may not is thrown at once, and silence is
 * counted from the last sign of life.
 */
import { expect, test } from "bun:test";
import { z } from "zod";
import type { Network } from "../../src/base/doors.ts";
import { AppError } from "../../src/base/error.ts";
import { callNode } from "../../src/cluster/network.ts";
import { VirtualClock } from "../simulation/virtual-clock.ts";

const NODE = { name: "b", address: "https://b:5515", zone: "" };
const SILENT = new AppError("unavailable", "connection refused");

test("a node that is back within the patience has answered", async () => {
  const world = open(async (count) => {
    if (count < 5) throw SILENT;
    return { ok: true };
  });
  expect(await world.call()).toEqual({ ok: true });
  expect(world.count()).toBe(5);
});

test("a node that stays silent is given up after the patience, with its name and address", async () => {
  const world = open(() => Promise.reject(SILENT));
  const error = await world.call().catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({
    kind: "unavailable",
    context: { reason: "node-silent", node: "b" },
  });
  expect((error as AppError).message).toContain("Node b (https://b:5515) did not answer for");
  expect(world.clock.monotonic()).toBeGreaterThanOrEqual(60_000);
  expect(world.clock.monotonic()).toBeLessThan(70_000);
});

test("a refusal is not repeated", async () => {
  const world = open(() => Promise.reject(new AppError("conflict", "busy")));
  expect(world.call()).rejects.toThrow("busy");
  expect(world.count()).toBe(1);
});

test("an answer of another form is refused by name", async () => {
  const world = open(async () => ({ ok: "yes" }));
  expect(world.call()).rejects.toThrow("Node b answered hello in a form we do not know.");
});

test("events count as signs of life", async () => {
  const world = open(async (count, options) => {
    if (count > 3) return { ok: true };
    for (let beat = 0; beat < 5; beat += 1) {
      await world.clock.sleep(15_000);
      options.onEvent?.({ files: beat });
    }
    throw SILENT;
  });
  expect(await world.call()).toEqual({ ok: true });
  expect(world.events).toBe(15);
});

test("a long call without events that breaks once is not taken for silence", async () => {
  const world = open(async (count) => {
    if (count === 2) return { ok: true };
    await world.clock.sleep(3_600_000);
    throw SILENT;
  });
  expect(await world.call()).toEqual({ ok: true });
});

test("a cancelled call ends at once with the reason", async () => {
  const abort = new AbortController();
  const world = open(() => Promise.reject(SILENT), abort.signal);
  world.clock.at(10_000, () => abort.abort(new AppError("cancelled", "enough")));
  expect(world.call()).rejects.toThrow("enough");
  expect(world.clock.monotonic()).toBeLessThan(20_000);
});

function open(
  answer: (count: number, options: Parameters<Network["call"]>[3]) => Promise<unknown>,
  signal = new AbortController().signal,
) {
  const clock = new VirtualClock();
  let count = 0;
  const world = {
    clock,
    events: 0,
    count: () => count,
    call: async () => {
      const network: Network = {
        call: (_address, _method, _body, options) => {
          count += 1;
          return answer(count, options);
        },
      };
      const call = { method: "hello", body: {}, answer: z.strictObject({ ok: z.literal(true) }) };
      const onEvent = (): void => {
        world.events += 1;
      };
      const how = { timeoutMs: 30_000, patienceMs: 60_000, signal, onEvent };
      return await clock.run(callNode({ network, clock }, NODE, call, how));
    },
  };
  return world;
}
