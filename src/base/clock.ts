/**
 * Door 1, the real one: the clocks and timers of the machine. A sleep of any length is right,
 * although timers hold 31 bits of milliseconds and fire at once beyond that.
 */
import type { Clock } from "./doors.ts";

const TIMER_MS_MAX = 2 ** 31 - 1;

/** The clock of this machine. */
export const realClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep,
};

async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  const end = performance.now() + ms;
  let restMs = ms;
  do {
    await sleepOnce(Math.min(restMs, TIMER_MS_MAX), signal);
    restMs = ms > TIMER_MS_MAX ? end - performance.now() : 0;
  } while (restMs > 0);
}

function sleepOnce(ms: number, signal: AbortSignal | undefined): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  if (signal?.aborted === true) {
    reject(signal.reason);
    return promise;
  }
  const onAbort = (): void => {
    clearTimeout(timer);
    reject(signal?.reason);
  };
  const timer = setTimeout(() => {
    signal?.removeEventListener("abort", onAbort);
    resolve();
  }, ms);
  signal?.addEventListener("abort", onAbort, { once: true });
  return promise;
}
