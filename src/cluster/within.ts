/**
 * A bound on how long somebody is waited for, whether or not it looks at its signal.
 */
import type { Clock } from "../base/doors.ts";
import { AppError } from "../base/error.ts";

/** Who is waited for, and how long. */
export type Within = {
  readonly clock: Clock;
  readonly ms: number;
  /** The subject of the error. */
  readonly what: string;
  readonly signal?: AbortSignal | undefined;
};

/** What `work` answers, or AppError `timeout` after so many ms; `work` is then told by its signal. */
export async function within<T>(
  { clock, ms, what, signal }: Within,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  const late = new AbortController();
  const ended = new AbortController();
  const all = signal === undefined ? late.signal : AbortSignal.any([signal, late.signal]);
  const waiting = clock
    .sleep(ms, AbortSignal.any([ended.signal, ...(signal === undefined ? [] : [signal])]))
    .then(
      () => {
        late.abort(new AppError("timeout", `${what} did not answer within ${ms / 1000} s.`));
        throw late.signal.reason;
      },
      () => {
        if (signal?.aborted === true) throw signal.reason;
        return new Promise<never>(() => undefined);
      },
    );
  try {
    const working = work(all);
    working.catch(() => undefined); // who is late is not waited for
    return await Promise.race([working, waiting]);
  } catch (thrown) {
    throw late.signal.aborted ? late.signal.reason : thrown;
  } finally {
    ended.abort();
  }
}

/** The promise, or the signal's reason, whichever is first. */
export function raceAbort<T>(promise: Promise<T>, signal?: AbortSignal): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise<T>((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason as Error);
    const onAbort = (): void => reject(signal.reason as Error);
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
