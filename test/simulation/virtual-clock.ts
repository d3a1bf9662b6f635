/**
 * Time for simulations: it stands still while anybody can go on, and then jumps to the next thing
 * that somebody waits for. Nobody waits in real time, and the order of two sleepers that wake at
 * once is the order in which they fell asleep, so a run depends on nothing but its seed.
 */
import type { Clock } from "../../src/base/doors.ts";

type Sleeper = { readonly at: number; readonly order: number; readonly wake: () => void };

/** Virtual time 0 in wall-clock terms. */
const START_MS = Date.UTC(2026, 10, 22, 18);

/** Of a millisecond each, when nobody in this world has anything to do. */
const OUTSIDE_WAIT_COUNT_MAX = 500;

/** The clock of a whole simulated world. */
export class VirtualClock implements Clock {
  #monotonicMs = 0;
  #wallOffsetMs = 0;
  #order = 0;
  /**
   * After so many steps a real millisecond passes, in worlds where the runtime's own threads work
   * (keys are wrapped there): else time would run away while somebody waits for them.
   */
  outsideEvery = Number.POSITIVE_INFINITY;
  /** A binary heap: the next one is the first. */
  readonly #sleepers: Sleeper[] = [];

  now(): number {
    return START_MS + Math.floor(this.#monotonicMs) + this.#wallOffsetMs;
  }

  monotonic(): number {
    return this.#monotonicMs;
  }

  /** The wall clock jumps; durations go on as before. */
  jump(ms: number): void {
    this.#wallOffsetMs += ms;
  }

  /** Time passes while the whole process stands still: whoever should have woken up wakes up late. */
  stall(ms: number): void {
    this.#monotonicMs += ms;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      if (signal?.aborted === true) return reject(signal.reason as Error);
      const onAbort = (): void => reject(signal?.reason as Error);
      signal?.addEventListener("abort", onAbort, { once: true });
      this.at(ms, () => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      });
    });
  }

  /** Calls `wake` when that much time has passed. */
  at(ms: number, wake: () => void): void {
    const at = this.#monotonicMs + Math.max(0, ms);
    this.#push({ at, order: this.#order, wake });
    this.#order += 1;
  }

  /**
   * Lets the world go on until the promise settles. Throws if it does not within `limitMs` of
   * virtual time, or if nobody can go on.
   */
  async run<T>(promise: Promise<T>, limitMs = 24 * 3_600_000): Promise<T> {
    let isSettled = false;
    const settled = (): void => {
      isSettled = true;
    };
    promise.then(settled, settled);
    const limit = this.#monotonicMs + limitMs;
    await idle();
    for (let waits = 0, steps = 0; ; steps += 1) {
      if (isSettled) return await promise;
      if (steps % this.outsideEvery === this.outsideEvery - 1) await Bun.sleep(1);
      const next = this.#sleepers[0];
      if (next === undefined && waits < OUTSIDE_WAIT_COUNT_MAX) {
        // The runtime's own threads (keys are wrapped there) are not of this world.
        waits += 1;
        await Bun.sleep(1);
        continue;
      }
      if (next === undefined) throw new Error("Nobody in this world can go on.");
      waits = 0;
      if (next.at > limit) throw new Error(`Something did not end within ${limitMs} virtual ms.`);
      await this.step();
    }
  }

  /** Wakes the next sleeper and waits for what it does; false if nobody sleeps. */
  async step(): Promise<boolean> {
    const next = this.#pop();
    if (next === undefined) return false;
    this.#monotonicMs = Math.max(this.#monotonicMs, next.at);
    next.wake();
    await idle();
    return true;
  }

  /** Lets that much time pass. */
  async pass(ms: number): Promise<void> {
    await this.run(this.sleep(ms));
  }

  #push(sleeper: Sleeper): void {
    const heap = this.#sleepers;
    let index = heap.push(sleeper) - 1;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (!isBefore(heap[index]!, heap[parent]!)) break;
      [heap[index], heap[parent]] = [heap[parent]!, heap[index]!];
      index = parent;
    }
  }

  #pop(): Sleeper | undefined {
    const heap = this.#sleepers;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || heap.length === 0) return first;
    heap[0] = last;
    for (let index = 0; ;) {
      const left = 2 * index + 1;
      if (left >= heap.length) return first;
      const right = left + 1;
      const child = right < heap.length && isBefore(heap[right]!, heap[left]!) ? right : left;
      if (!isBefore(heap[child]!, heap[index]!)) return first;
      [heap[index], heap[child]] = [heap[child]!, heap[index]!];
      index = child;
    }
  }
}

/** Resolves when every promise that can go on without time has gone on. */
export function idle(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

/** For what belongs to a process that died: nobody hears of it again. */
export function never<T>(): Promise<T> {
  return new Promise<T>(() => undefined);
}

function isBefore(one: Sleeper, other: Sleeper): boolean {
  return one.at === other.at ? one.order < other.order : one.at < other.at;
}
