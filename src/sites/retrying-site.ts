/**
 * The one place where calls to a site are tried again. Only errors that say `retryable` are, with
 * jitter and a cap, so nothing above and nothing below this wrapper needs a loop of its own.
 *
 * A retried `put` answers `exists` when its own first try had landed and only the answer was lost.
 * That is not told apart here, since only the caller knows what it wrote: content-addressed objects
 * are compared by `head` (size, checksum) and else by `get`; a log slot is read and compared byte
 * for byte (ours: won; another's: lost). After a `put` that still fails the outcome is unknown. The
 * same is true of a copy that the store makes.
 */
import type { Clock, Random } from "../base/doors.ts";
import { AppError } from "../base/error.ts";
import { retry } from "../base/retry.ts";
import { cancelledBy } from "./object-key.ts";
import { aroundCopies, extrasOf } from "./site.ts";
import type { ObjectRow, Site, SiteCall, SiteLock } from "./site.ts";

/** How often and how long a call is tried. */
export type RetryingSiteOptions = {
  readonly clock: Clock;
  readonly random: Random;
  /** Tries in all, the first one included. */
  readonly attempts?: number;
  readonly baseMs?: number;
  readonly maxMs?: number;
};

type Again = <T>(call: SiteCall | undefined, work: () => Promise<T>) => Promise<T>;

const ATTEMPTS = 6;
const BASE_MS = 200;
const MAX_MS = 10_000;

/**
 * Wraps a site so that passing trouble (503, lost connections, timeouts) is waited out.
 *
 * @example
 * const site = retryingSite(await openS3Site(options), { clock, random });
 */
export function retryingSite(site: Site, options: RetryingSiteOptions): Site {
  const again: Again = async (call, work) => {
    try {
      return await retry(work, {
        clock: options.clock,
        random: options.random,
        attempts: options.attempts ?? ATTEMPTS,
        baseMs: options.baseMs ?? BASE_MS,
        maxMs: options.maxMs ?? MAX_MS,
        ...(call?.signal === undefined ? {} : { signal: call.signal }),
      });
    } catch (thrown) {
      // A wait that is broken off rejects with the signal's reason, whatever that is.
      if (call?.signal !== undefined && thrown === call.signal.reason) {
        throw cancelledBy(call.signal);
      }
      throw thrown;
    }
  };
  return {
    ...extrasOf(site),
    ...aroundCopies(site, async (_, call, copy) => await again(call, async () => await copy())),
    ...(site.lock === undefined ? {} : { lock: lockAgain(site.lock, again) }),
    name: site.name,
    location: site.location,
    get: async (key, call) => await again(call, async () => await site.get(key, call)),
    put: async (key, bytes, call) =>
      await again(call, async () => await site.put(key, bytes, call)),
    head: async (key, call) => await again(call, async () => await site.head(key, call)),
    delete: async (keys, call) => await again(call, async () => await site.delete(keys, call)),
    list: (prefix, call) => listAgain(site, prefix, call ?? {}, again),
    [Symbol.asyncDispose]: async () => await site[Symbol.asyncDispose](),
  };
}

function lockAgain(lock: SiteLock, again: Again): SiteLock {
  return {
    ...lock,
    lockedUntil: async (key, call) =>
      await again(call, async () => await lock.lockedUntil(key, call)),
    lockUntil: async (key, untilMs, call) =>
      await again(call, async () => await lock.lockUntil(key, untilMs, call)),
  };
}

/** A listing that breaks in the middle goes on after the last row that was seen. */
async function* listAgain(
  site: Site,
  prefix: string,
  call: SiteCall & { readonly after?: string },
  again: Again,
): AsyncIterable<ObjectRow> {
  let after = call.after;
  let rows: AsyncIterator<ObjectRow> | undefined;
  const next = async (): Promise<IteratorResult<ObjectRow>> => {
    const open = after === undefined ? call : { ...call, after };
    rows ??= site.list(prefix, open)[Symbol.asyncIterator]();
    try {
      return await rows.next();
    } catch (thrown) {
      rows = undefined;
      throw thrown;
    }
  };
  try {
    for (;;) {
      const row = await again(call, next);
      if (row.done === true) return;
      if (after !== undefined && row.value.key <= after) {
        throw new AppError("damaged", `${site.location} lists its keys out of order.`, {
          context: { site: site.name, key: row.value.key },
        });
      }
      after = row.value.key;
      yield row.value;
    }
  } finally {
    await rows?.return?.();
  }
}
