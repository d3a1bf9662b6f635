/**
 * Keeps the process near the memory it may use. The engine's collector is lazy in proportion to the
 * machine's memory, not to what a server beside a database should take: with 24 GB of it a backup of
 * many small files grew by 300 MiB of garbage. So where the process is large and still growing, each
 * thread collects its own heap; where it is not, nothing is done.
 */
import { gcAndSweep } from "bun:jsc";
import { realClock } from "./clock.ts";

/** Collections begin here: what is promised is 256 MiB, and something is always on its way. */
const RESIDENT_BYTES_MAX = 190 * 1024 * 1024;
/** Between two looks at the size of the process, which cost some 20 µs each. */
const INTERVAL_MS = 50;
/** A thread whose heap is small: a collection takes 3 ms. */
const GROWTH_BYTES = 16 * 1024 * 1024;
/** The main thread: it takes 30 ms. */
const GROWTH_BYTES_MAIN = 12 * 1024 * 1024;
/** A large process that does not grow is looked at anyway, less and less often while it helps little. */
const WAIT_MS_MIN = 1_000;
const WAIT_MS_MAX = 16_000;
const HELPFUL_BYTES = 4 * 1024 * 1024;

/** Of one thread. */
export class MemoryGuard {
  #nextMs = 0;
  /** The least that the process had since the last collection: what was freed goes back late. */
  #leastBytes = Infinity;
  #waitMs = WAIT_MS_MIN;
  #dueMs = 0;

  /** Collects this thread's garbage if the process is large and has grown; else costs microseconds. */
  check(): void {
    const nowMs = realClock.monotonic();
    if (nowMs < this.#nextMs) return;
    this.#nextMs = nowMs + INTERVAL_MS;
    const bytes = process.memoryUsage.rss();
    this.#leastBytes = Math.min(this.#leastBytes, bytes);
    if (bytes < RESIDENT_BYTES_MAX) return;
    const growthBytes = Bun.isMainThread ? GROWTH_BYTES_MAIN : GROWTH_BYTES;
    const hasGrown = bytes >= this.#leastBytes + growthBytes;
    if (!hasGrown && nowMs < this.#dueMs) return;
    this.#collect(bytes, hasGrown);
  }

  #collect(bytes: number, hasGrown: boolean): void {
    // Not `Bun.gc`: that throws compiled code away as well, a third of the time of a backup.
    gcAndSweep();
    this.#leastBytes = process.memoryUsage.rss();
    const isHelpful = hasGrown || bytes - this.#leastBytes >= HELPFUL_BYTES;
    this.#waitMs = isHelpful ? WAIT_MS_MIN : Math.min(2 * this.#waitMs, WAIT_MS_MAX);
    this.#dueMs = realClock.monotonic() + this.#waitMs;
  }
}

/** Of the thread, while it is guarded. */
let guarding: MemoryGuard | undefined;

/** Checks this thread now and then, until the signal. */
export async function guardMemory(signal: AbortSignal): Promise<void> {
  const guard = new MemoryGuard();
  guarding = guard;
  while (!signal.aborted) {
    guard.check();
    await realClock.sleep(INTERVAL_MS, signal).catch(() => undefined);
  }
  if (guarding === guard) guarding = undefined;
}

/** For work that holds the thread for seconds: checks it, if it is guarded. */
export function checkMemory(): void {
  guarding?.check();
}
