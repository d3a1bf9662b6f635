/**
 * The one place where things are tried again. Only an AppError that says `retryable` is; waits grow
 * exponentially up to a cap, with full jitter so that many nodes do not come back in step.
 */
import assert from "node:assert/strict";
import type { Clock, Random } from "./doors.ts";
import { AppError } from "./error.ts";

/** How often and how patiently to try. */
export type RetryOptions = {
  readonly clock: Clock;
  readonly random: Random;
  /** Tries in all, the first one included. */
  readonly attempts: number;
  /** The longest wait before the second try; doubles from there. */
  readonly baseMs: number;
  /** No wait is longer. */
  readonly maxMs: number;
  readonly signal?: AbortSignal;
};

/** Calls `fn` until it succeeds, fails for good, or has used its attempts; throws its last error. */
export async function retry<Result>(
  fn: (attempt: number) => Promise<Result>,
  options: RetryOptions,
): Promise<Result> {
  assert(options.attempts >= 1);
  for (let attempt = 1; ; attempt += 1) {
    options.signal?.throwIfAborted();
    try {
      return await fn(attempt);
    } catch (thrown) {
      const mayRetry = thrown instanceof AppError && thrown.retryable;
      if (!mayRetry || attempt >= options.attempts) throw thrown;
    }
    await options.clock.sleep(jitteredWaitMs(attempt, options), options.signal);
  }
}

function jitteredWaitMs(attempt: number, options: RetryOptions): number {
  const longestMs = Math.min(options.maxMs, options.baseMs * 2 ** (attempt - 1));
  return options.random.fraction() * longestMs;
}
