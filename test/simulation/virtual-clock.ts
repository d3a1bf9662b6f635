/**
 * Virtual time: sleepers are woken one at a time, the earliest first, and everything that a sleeper
 * does until it sleeps again happens at one moment. One seed of the sleeps gives one history.
 */
import type { Clock } from "../../src/base/doors.ts";

const EPOCH_MS = Date.UTC(2026, 10, 22, 18);

type Sleeper = { readonly dueMs: number; readonly order: number; readonly wake: () => void };

/** A clock that somebody drives with `step`. */
export class VirtualClock implements Clock {
  #nowMs = EPOCH_MS;
  #order = 0;
  readonly #sleepers: Sleeper[] = [];

  now(): number {
    return this.#nowMs;
  }

  monotonic(): number {
    return this.#nowMs;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#order += 1;
    this.#sleepers.push({ dueMs: this.#nowMs + ms, order: this.#order, wake: resolve });
    return promise;
  }

  /** Wakes the next sleeper and waits for what it does; false if nobody sleeps. */
  async step(): Promise<boolean> {
    const next = this.#sleepers.reduce<Sleeper | undefined>(
      (first, one) => (first === undefined || isBefore(one, first) ? one : first),
      undefined,
    );
    if (next === undefined) return false;
    this.#sleepers.splice(this.#sleepers.indexOf(next), 1);
    this.#nowMs = next.dueMs;
    next.wake();
    await new Promise((resolve) => void setImmediate(resolve));
    return true;
  }
}

function isBefore(one: Sleeper, other: Sleeper): boolean {
  return one.dueMs < other.dueMs || (one.dueMs === other.dueMs && one.order < other.order);
}
