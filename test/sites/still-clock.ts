/**
 * Time and chance for tests of sites: a clock whose sleeps end at once and are written down, and a
 * generator of which one seed gives one sequence.
 */
import type { Clock, Random } from "../../src/base/doors.ts";

/** A clock that moves only by sleeping. */
export class StillClock implements Clock {
  readonly sleptMs: number[] = [];
  #nowMs = 0;

  now(): number {
    return this.#nowMs;
  }

  monotonic(): number {
    return this.#nowMs;
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    this.sleptMs.push(ms);
    this.#nowMs += ms;
  }
}

/** Chance from a seed (a 32-bit multiplicative generator; good enough to draw faults). */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
  return {
    bytes: (size) => Uint8Array.from({ length: size }, () => next() & 0xff),
    fraction: () => next() / 2 ** 32,
  };
}
