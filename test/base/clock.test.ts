/**
 * The real clock: sleeps that are right, long and cancelled.
 */
import { describe, expect, test } from "bun:test";
import { realClock } from "../../src/base/clock.ts";
import { realRandom } from "../../src/base/random.ts";

describe("realClock", () => {
  test("a sleep lasts at least as long as was asked", async () => {
    const start = realClock.monotonic();
    await realClock.sleep(5);
    // Timers may round down by less than a millisecond.
    expect(realClock.monotonic() - start).toBeGreaterThan(4);
  });

  test("an aborted sleep rejects with the reason, at once or in the middle", async () => {
    const controller = new AbortController();
    const sleeping = realClock.sleep(60_000, controller.signal);
    controller.abort(new Error("wake up"));
    expect(await sleeping.catch(String)).toBe("Error: wake up");
    expect(await realClock.sleep(60_000, controller.signal).catch(String)).toBe("Error: wake up");
  });

  test("a sleep of months does not end at once", async () => {
    const controller = new AbortController();
    const sleeping = realClock.sleep(2 ** 33, controller.signal).then(
      () => "slept",
      () => "aborted",
    );
    await realClock.sleep(5);
    controller.abort();
    expect(await sleeping).toBe("aborted");
  });
});

describe("realRandom", () => {
  test("gives as many bytes as asked, and never the same", () => {
    expect(realRandom.bytes(0).byteLength).toBe(0);
    expect(realRandom.bytes(100_000).byteLength).toBe(100_000);
    expect(realRandom.bytes(16)).not.toEqual(realRandom.bytes(16));
  });

  test("fractions lie in [0, 1) and on both sides of the middle", () => {
    const fractions = Array.from({ length: 200 }, () => realRandom.fraction());
    expect(Math.min(...fractions)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...fractions)).toBeLessThan(1);
    expect(Math.min(...fractions)).toBeLessThan(0.5);
    expect(Math.max(...fractions)).toBeGreaterThan(0.5);
  });
});
