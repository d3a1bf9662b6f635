/**
 * Keeps what passes to a site below a number of bytes per second, in each direction by itself, and
 * below a number of requests at once. The limits are of one node, and may change with the hour of
 * the day, in UTC, so that all nodes of a cluster agree on the hour whatever their time zones.
 *
 * A direction is a bucket that holds a debt in bytes: a transfer waits until what went before it is
 * paid, and then goes at the speed of the line. So over any span no more than `rate × span` and one
 * object for each request at once passes. Who came first goes first; who gives up pays nothing.
 */
import type { Clock } from "../base/doors.ts";
import { Semaphore } from "../base/semaphore.ts";
import { cancelledBy } from "./object-key.ts";
import { aroundCopies, extrasOf } from "./site.ts";
import type { ObjectRow, Site, SiteCall } from "./site.ts";

/** Bytes per second of each direction; one that is left out is not limited. */
export type Rates = {
  readonly uploadBytesPerSecond?: number;
  readonly downloadBytesPerSecond?: number;
};

/** Other rates for a part of the day: from one minute of the day (UTC) to before another. */
export type HourlyRates = Rates & { readonly fromMinute: number; readonly toMinute: number };

/** Everything that can be limited. */
export type SiteLimits = Rates & {
  /** The first that holds now replaces both rates; `to` before `from` passes midnight. */
  readonly hours?: readonly HourlyRates[];
  readonly requestsAtOnce?: number;
};

const MINUTE_MS = 60_000;
const DAY_MINUTES = 1440;

/** A debt is looked at again this often, since the rate may have changed with the hour. */
const LOOK_AGAIN_MS = 10_000;

/**
 * Wraps a site and holds it to limits. It belongs below the retries, so that what is sent twice is
 * counted twice, and above the store's own deadlines, which must not run while a transfer waits.
 *
 * @example
 * const slow = limitedSite(site, { clock, limits: { uploadBytesPerSecond: 50_000_000 } });
 */
export function limitedSite(
  site: Site,
  options: { readonly clock: Clock; readonly limits: SiteLimits },
): Site {
  const { clock, limits } = options;
  const up = new RateBucket(clock, () => ratesAt(limits, clock.now()).uploadBytesPerSecond);
  const down = new RateBucket(clock, () => ratesAt(limits, clock.now()).downloadBytesPerSecond);
  const permits = new Semaphore(limits.requestsAtOnce ?? Number.MAX_SAFE_INTEGER);
  const run = async <T>(call: SiteCall | undefined, work: () => Promise<T>): Promise<T> => {
    using _permit = await told(call, async () => await permits.acquire(call?.signal));
    return await work();
  };
  return {
    ...extrasOf(site),
    // Rates are those of this node's line, which a copy within the store does not use.
    ...aroundCopies(site, async (_, call, copy) => await run(call, async () => await copy())),
    name: site.name,
    location: site.location,
    async get(key, call) {
      const expected = call?.length ?? 0;
      await told(call, async () => await down.pass(expected, call?.signal));
      let sizeBytes = 0;
      try {
        const bytes = await run(call, async () => await site.get(key, call));
        sizeBytes = bytes?.length ?? 0;
        return bytes;
      } finally {
        // A whole object tells its size when it is there: those who come after it pay.
        down.owe(sizeBytes - expected);
      }
    },
    async put(key, bytes, call) {
      await told(call, async () => await up.pass(bytes.length, call?.signal));
      return await run(call, async () => await site.put(key, bytes, call));
    },
    head: async (key, call) => await run(call, async () => await site.head(key, call)),
    delete: async (keys, call) => await run(call, async () => await site.delete(keys, call)),
    list: (prefix, call) => listWithin(site, prefix, call, run),
    [Symbol.asyncDispose]: async () => await site[Symbol.asyncDispose](),
  };
}

/** What holds at a time of day; pure. */
export function ratesAt(limits: SiteLimits, nowMs: number): Rates {
  const minute = Math.floor(nowMs / MINUTE_MS) % DAY_MINUTES;
  return limits.hours?.find((hours) => isWithin(hours, minute)) ?? limits;
}

/**
 * How long so many bytes take in one direction, from a time on, in ms; 0 where nothing limits them.
 * Pure: for plans.
 */
export function transferTimeMs(
  limits: SiteLimits,
  direction: "upload" | "download",
  how: { readonly bytes: number; readonly nowMs: number },
): number {
  let rest = how.bytes;
  let passedMs = 0;
  while (rest > 0) {
    const atMs = how.nowMs + passedMs;
    const rates = ratesAt(limits, atMs);
    const rate = direction === "upload" ? rates.uploadBytesPerSecond : rates.downloadBytesPerSecond;
    if (rate === undefined) return passedMs;
    // A rate holds for the rest of this minute at least.
    const spanMs = limits.hours === undefined ? Infinity : MINUTE_MS - (atMs % MINUTE_MS);
    const neededMs = (rest / rate) * 1000;
    if (neededMs <= spanMs) return passedMs + neededMs;
    rest -= (rate * spanMs) / 1000;
    passedMs += spanMs;
    if (passedMs > TIME_MS_MAX) return passedMs + (rest / rate) * 1000;
  }
  return passedMs;
}

/** Beyond this nobody asks which hour it is. */
const TIME_MS_MAX = 14 * DAY_MINUTES * MINUTE_MS;

function isWithin(hours: HourlyRates, minute: number): boolean {
  const { fromMinute, toMinute } = hours;
  return fromMinute < toMinute
    ? minute >= fromMinute && minute < toMinute
    : minute >= fromMinute || minute < toMinute;
}

/** The bytes of one direction that are not paid yet. */
class RateBucket {
  readonly #clock: Clock;
  readonly #rate: () => number | undefined;
  /** One at a time waits for the debt; the others stand behind it, in order. */
  readonly #turn = new Semaphore(1);
  #owedBytes = 0;
  #paidAtMs: number;

  constructor(clock: Clock, rate: () => number | undefined) {
    this.#clock = clock;
    this.#rate = rate;
    this.#paidAtMs = clock.monotonic();
  }

  /** Returns when so many bytes may go. */
  async pass(sizeBytes: number, signal: AbortSignal | undefined): Promise<void> {
    using _turn = await this.#turn.acquire(signal);
    for (;;) {
      const waitMs = this.#pay();
      if (waitMs <= 0) break;
      await this.#clock.sleep(Math.min(Math.ceil(waitMs), LOOK_AGAIN_MS), signal);
    }
    this.#owedBytes += sizeBytes;
  }

  /** Corrects what was paid too little, or too much. */
  owe(sizeBytes: number): void {
    this.#pay();
    this.#owedBytes += sizeBytes;
  }

  /** Takes what the time since the last look has paid; how many ms are left to pay. */
  #pay(): number {
    const nowMs = this.#clock.monotonic();
    const rate = this.#rate();
    if (rate === undefined) this.#owedBytes = 0;
    else {
      const paid = ((nowMs - this.#paidAtMs) / 1000) * rate;
      // What was not used is not saved up: a quiet night is no right to a loud minute.
      this.#owedBytes = Math.max(0, this.#owedBytes - paid);
    }
    this.#paidAtMs = nowMs;
    // Below a byte it is a rounding, not a debt.
    return rate === undefined || this.#owedBytes < 1 ? 0 : (this.#owedBytes / rate) * 1000;
  }
}

/** Rows come in pages: each step may be a request, and none is held between two steps. */
async function* listWithin(
  site: Site,
  prefix: string,
  call: (SiteCall & { readonly after?: string }) | undefined,
  run: <T>(call: SiteCall | undefined, work: () => Promise<T>) => Promise<T>,
): AsyncIterable<ObjectRow> {
  const rows = site.list(prefix, call)[Symbol.asyncIterator]();
  try {
    for (;;) {
      const row = await run(call, async () => await rows.next());
      if (row.done === true) return;
      yield row.value;
    }
  } finally {
    await rows.return?.();
  }
}

/** A wait that is broken off rejects with the signal's reason, whatever that is; callers get ours. */
async function told<T>(call: SiteCall | undefined, wait: () => Promise<T>): Promise<T> {
  try {
    return await wait();
  } catch (thrown) {
    if (call?.signal?.aborted === true) throw cancelledBy(call.signal);
    throw thrown;
  }
}
