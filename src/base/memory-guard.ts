/**
 * Keeps the process near the memory it may use. The engine's collector is lazy in proportion to the
 * machine's memory, not to what a server beside a database should take: with 24 GB of it a backup of
 * many small files grew by 300 MiB of garbage. So where the process has become large, each thread
 * collects its own heap; where it has not, nothing is done.
 */
import { realClock } from "./clock.ts";

/** Collections begin here: what is promised is 256 MiB, and something is always on its way. */
const RESIDENT_BYTES_MAX = 190 * 1024 * 1024;
const INTERVAL_MS = 400;
/** A collection that did not help enough may not help soon. */
const INTERVAL_LARGE_MS = 1_500;

/** Of one thread. */
export class MemoryGuard {
  #nextMs = 0;

  /** Collects this thread's garbage if the process is large; costs microseconds otherwise. */
  check(): void {
    const nowMs = realClock.monotonic();
    if (nowMs < this.#nextMs) return;
    this.#nextMs = nowMs + INTERVAL_MS;
    if (process.memoryUsage.rss() < RESIDENT_BYTES_MAX) return;
    Bun.gc(true);
    const isStillLarge = process.memoryUsage.rss() >= RESIDENT_BYTES_MAX;
    this.#nextMs = realClock.monotonic() + (isStillLarge ? INTERVAL_LARGE_MS : INTERVAL_MS);
  }
}

/** Checks this thread now and then, until the signal. */
export async function guardMemory(signal: AbortSignal): Promise<void> {
  const guard = new MemoryGuard();
  while (!signal.aborted) {
    guard.check();
    await realClock.sleep(INTERVAL_MS, signal).catch(() => undefined);
  }
}
