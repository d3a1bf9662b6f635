/**
 * The simulator's clock: order, cancellation, and what it says when a world stands still.
 */
import { expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import { never, VirtualClock } from "./virtual-clock.ts";

test("sleepers wake in the order of their times, then of their falling asleep", async () => {
  const clock = new VirtualClock();
  const woken: string[] = [];
  const sleep = async (name: string, ms: number): Promise<void> => {
    await clock.sleep(ms);
    woken.push(`${name} ${clock.monotonic()}`);
  };
  const names = ["e 9", "a 1", "c 5", "b 1", "d 5", "f 9"];
  await clock.run(
    Promise.all(names.map((name) => sleep(name[0]!, Number(name.slice(2))))).then(() => undefined),
  );
  expect(woken).toEqual(["a 1", "b 1", "c 5", "d 5", "e 9", "f 9"]);
});

test("a day passes at once, and a jump moves the wall clock only", async () => {
  const clock = new VirtualClock();
  const before = clock.now();
  await clock.pass(86_400_000);
  expect(clock.now() - before).toBe(86_400_000);
  clock.jump(1000);
  expect([clock.now() - before, clock.monotonic()]).toEqual([86_401_000, 86_400_000]);
});

test("a sleep ends with the reason of its signal", async () => {
  const clock = new VirtualClock();
  const abort = new AbortController();
  const sleeping = clock.sleep(1000, abort.signal);
  clock.at(10, () => abort.abort(new AppError("cancelled", "enough")));
  expect(clock.run(sleeping)).rejects.toThrow("enough");
});

test("a world in which nobody can go on says so, and so does one that takes too long", async () => {
  const clock = new VirtualClock();
  expect(clock.run(never())).rejects.toThrow("Nobody in this world can go on.");
  expect(clock.run(clock.sleep(100), 50)).rejects.toThrow("did not end within 50 virtual ms");
});
