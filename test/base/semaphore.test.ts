/**
 * Bounded concurrency: permits, order, failure and cancellation.
 */
import { describe, expect, test } from "bun:test";
import { forEachConcurrent, mapConcurrent, Semaphore } from "../../src/base/semaphore.ts";

describe("Semaphore", () => {
  test("serves waiters in order, one for each permit that goes back", async () => {
    const semaphore = new Semaphore(1);
    const order: string[] = [];
    const first = await semaphore.acquire();
    const others = ["a", "b"].map((name) =>
      semaphore.run(() => {
        order.push(name);
      }),
    );
    expect(order).toEqual([]);
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    await Promise.all(others);
    expect(order).toEqual(["a", "b"]);
  });

  test("a permit that is disposed of twice goes back once", async () => {
    const semaphore = new Semaphore(1);
    const first = await semaphore.acquire();
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    using _second = await semaphore.acquire();
    const third = semaphore.acquire(AbortSignal.abort(new Error("no permit")));
    expect(await third.catch(String)).toBe("Error: no permit");
    const waiting = new AbortController();
    const fourth = semaphore.acquire(waiting.signal);
    waiting.abort(new Error("still none"));
    expect(await fourth.catch(String)).toBe("Error: still none");
  });

  test("a waiter that gave up takes no permit", async () => {
    const semaphore = new Semaphore(1);
    const first = await semaphore.acquire();
    const controller = new AbortController();
    const waiter = semaphore.acquire(controller.signal);
    controller.abort(new Error("gave up"));
    expect(await waiter.catch(String)).toBe("Error: gave up");
    first[Symbol.dispose]();
    using permit = await semaphore.acquire();
    expect(permit).toBeDefined();
  });

  test("a permit goes back when the work fails", async () => {
    const semaphore = new Semaphore(1);
    const failing = semaphore.run(() => Promise.reject(new Error("bad")));
    expect(await failing.catch(String)).toBe("Error: bad");
    expect(await semaphore.run(() => 7)).toBe(7);
  });
});

describe("mapConcurrent", () => {
  test("yields in order of completion", async () => {
    const gates = [0, 1, 2].map(() => Promise.withResolvers<void>());
    const results = mapConcurrent(gates.keys(), 3, async (index) => {
      await gates[index]?.promise;
      return index;
    });
    const seen: number[] = [];
    for (const index of [2, 0, 1]) {
      const next = results.next();
      gates[index]?.resolve();
      const { value } = await next;
      if (value !== undefined) seen.push(value);
    }
    expect(seen).toEqual([2, 0, 1]);
    expect((await results.next()).done).toBe(true);
  });

  test("never has more at work or waiting to be taken than it may, and skips nothing", async () => {
    let open = 0;
    let openMax = 0;
    const seen: number[] = [];
    const work = async (item: number): Promise<number> => {
      open += 1;
      openMax = Math.max(openMax, open);
      for (let step = 0; step < item % 5; step += 1) await Promise.resolve();
      return item;
    };
    for await (const item of mapConcurrent(countTo(100), 7, work)) {
      open -= 1;
      seen.push(item);
    }
    expect(openMax).toBe(7);
    expect(seen.toSorted((left, right) => left - right)).toEqual([...countTo(100)]);
  });

  test("takes an asynchronous source as well", async () => {
    async function* source(): AsyncGenerator<number> {
      for (const item of countTo(10)) {
        await Promise.resolve();
        yield item;
      }
    }
    const seen: number[] = [];
    await forEachConcurrent(source(), 3, async (item) => seen.push(item));
    expect(seen).toEqual([...countTo(10)]);
  });

  test("throws the first error after the others have ended, and told them to", async () => {
    let isEnded = false;
    const failing = forEachConcurrent([0, 1], 2, async (item, signal) => {
      if (item === 1) throw new Error("bad item");
      await aborted(signal);
      await Promise.resolve();
      isEnded = true;
    });
    expect(await failing.catch(String)).toBe("Error: bad item");
    expect(isEnded).toBe(true);
  });

  test("an error of the source is thrown, and the work before it ends", async () => {
    const ended: number[] = [];
    function* source(): Generator<number> {
      yield 1;
      throw new Error("bad source");
    }
    const failing = forEachConcurrent(source(), 4, async (item) => ended.push(item));
    expect(await failing.catch(String)).toBe("Error: bad source");
    expect(ended).toEqual([1]);
  });

  test("a consumer that leaves early ends work and source", async () => {
    let isSourceEnded = false;
    let abortedCount = 0;
    function* source(): Generator<number> {
      try {
        yield* countTo(100);
      } finally {
        isSourceEnded = true;
      }
    }
    const work = async (item: number, signal: AbortSignal): Promise<number> => {
      if (item === 0) return item;
      await aborted(signal);
      abortedCount += 1;
      return item;
    };
    for await (const item of mapConcurrent(source(), 4, work)) {
      expect(item).toBe(0);
      break;
    }
    expect(isSourceEnded).toBe(true);
    expect(abortedCount).toBe(3);
  });

  test("an aborted signal ends it with the reason, also while the source owes an item", async () => {
    const controller = new AbortController();
    async function* silent(): AsyncGenerator<number> {
      yield await Promise.withResolvers<number>().promise;
    }
    const running = forEachConcurrent(silent(), 2, async () => undefined, controller.signal);
    controller.abort(new Error("stop now"));
    expect(await running.catch(String)).toBe("Error: stop now");
  });
});

function* countTo(count: number): Generator<number> {
  for (let item = 0; item < count; item += 1) yield item;
}

function aborted(signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  if (signal.aborted) resolve();
  signal.addEventListener("abort", () => resolve(), { once: true });
  return promise;
}
