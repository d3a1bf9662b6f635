/**
 * Retries: only what says so, with pauses that grow.
 */
import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import { retry } from "../../src/base/retry.ts";
import type { RetryOptions } from "../../src/base/retry.ts";

const busy = new AppError("unavailable", "busy");

describe("retry", () => {
  test("tries again what is retryable, waiting longer each time up to the cap", async () => {
    const { waits, options } = fakes({ attempts: 6, baseMs: 100, maxMs: 500 });
    const result = await retry(async (attempt) => {
      if (attempt < 6) throw busy;
      return attempt;
    }, options);
    expect(result).toBe(6);
    expect(waits).toEqual([50, 100, 200, 250, 250]);
  });

  test("gives the last error when the attempts are used up", async () => {
    const { waits, options } = fakes({ attempts: 3 });
    let count = 0;
    const failing = retry(async () => {
      count += 1;
      throw new AppError("unavailable", `busy ${count}`);
    }, options);
    expect(await failing.catch(String)).toBe("AppError: busy 3");
    expect(waits.length).toBe(2);
  });

  test("does not try again what cannot get better", async () => {
    for (const error of [new AppError("damaged", "rotten"), new Error("a bug")]) {
      const { waits, options } = fakes({ attempts: 3 });
      const failing = retry(() => Promise.reject(error), options);
      expect(await failing.catch((thrown: unknown) => thrown)).toBe(error);
      expect(waits).toEqual([]);
    }
  });

  test("stops with the reason of the signal", async () => {
    const controller = new AbortController();
    const { options } = fakes({ attempts: 9, signal: controller.signal });
    let count = 0;
    const failing = retry(async () => {
      count += 1;
      controller.abort(new Error("stop now"));
      throw busy;
    }, options);
    expect(await failing.catch(String)).toBe("Error: stop now");
    expect(count).toBe(1);
  });
});

function fakes(changes: Partial<RetryOptions>): { waits: number[]; options: RetryOptions } {
  const waits: number[] = [];
  const clock = {
    now: () => 0,
    monotonic: () => 0,
    async sleep(ms: number, signal?: AbortSignal) {
      waits.push(ms);
      signal?.throwIfAborted();
    },
  };
  const random = { bytes: (size: number) => new Uint8Array(size), fraction: () => 0.5 };
  return { waits, options: { clock, random, attempts: 3, baseMs: 100, maxMs: 1000, ...changes } };
}
