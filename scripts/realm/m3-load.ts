/**
 * A steady known load on an M3 cluster, and the ledger of what was acknowledged. Each point says
 * which it is: its value is its number times a thousand plus the number of its series, so that a point
 * in the wrong place is seen. What was not acknowledged may be in the database or not, and is not in
 * the ledger.
 */
import { LedgerWriter, readLedger, SERIES_PREFIX } from "./ledger.ts";
import { writePoint } from "./m3-http.ts";
import type { M3Realm } from "./m3-realm.ts";

const VALUES_PER_NUMBER = 1000;

/** How much to write, and where it is noted. */
export type LoadOptions = {
  readonly ledgerFile: string;
  /** At most 1000. */
  readonly seriesCount?: number;
  /** Between two points of the same series. */
  readonly intervalMs?: number;
  /** Until this time has passed; without it until the signal. */
  readonly seconds?: number;
  readonly signal?: AbortSignal;
};

/** What a load did. */
export type LoadResult = {
  readonly acknowledgedCount: number;
  /** Points that no node acknowledged. */
  readonly refusedCount: number;
  readonly lastRefusal: string | undefined;
};

/**
 * Writes points at the realm's write consistency, all through one node as long as it takes them (each
 * node that is used so needs 200 MB more), then through the next. Goes on with the numbers of a
 * ledger that exists.
 */
export async function loadM3(realm: M3Realm, options: LoadOptions): Promise<LoadResult> {
  const { seriesCount = 10, intervalMs = 100, seconds = Number.POSITIVE_INFINITY } = options;
  if (seriesCount > VALUES_PER_NUMBER) throw new Error(`at most ${VALUES_PER_NUMBER} series`);
  const last = readLedger(options.ledgerFile).at(-1)?.value ?? -1;
  using ledger = new LedgerWriter(options.ledgerFile);
  let number = Math.floor(last / VALUES_PER_NUMBER) + 1;
  let acknowledgedCount = 0;
  let refusedCount = 0;
  let lastRefusal: string | undefined;
  const door = { index: 0 };
  const writeOne = async (series: number, timeMs: number, current: number) => {
    const point = { timeMs, value: current * VALUES_PER_NUMBER + series };
    const refusal = await writeToAny(realm, series, point, door);
    if (refusal === undefined) {
      ledger.append({ acknowledgedMs: Date.now(), series, ...point });
      acknowledgedCount += 1;
    } else {
      refusedCount += 1;
      lastRefusal = refusal;
    }
  };
  const startedMs = performance.now();
  const all = Array.from({ length: seriesCount }, (_, series) => series);
  for (let dueMs = startedMs; dueMs - startedMs < seconds * 1000; dueMs += intervalMs) {
    await Bun.sleep(Math.max(0, dueMs - performance.now()));
    if (options.signal?.aborted === true) break;
    const timeMs = Date.now();
    const current = number;
    await Promise.all(all.map(async (series) => await writeOne(series, timeMs, current)));
    number += 1;
    // A cluster that stood still is not flooded afterwards.
    if (performance.now() > dueMs + intervalMs) dueMs = performance.now() - intervalMs;
  }
  return { acknowledgedCount, refusedCount, lastRefusal };
}

/** Tries each node once, from the door on, which moves; what the last one said if none took it. */
async function writeToAny(
  realm: M3Realm,
  series: number,
  point: { readonly timeMs: number; readonly value: number },
  door: { index: number },
): Promise<string | undefined> {
  const { namespace } = realm.settings;
  const id = `${SERIES_PREFIX}${series}`;
  const tags = { __name__: "realm_ledger", series: String(series) };
  const first = door.index;
  let refusal = "";
  for (let turn = 0; turn < realm.nodes.length; turn += 1) {
    const index = (first + turn) % realm.nodes.length;
    try {
      await writePoint(realm.node(index + 1).ports.clusterHttp, { namespace, id, tags }, point);
      door.index = index;
      return undefined;
    } catch (thrown) {
      refusal = thrown instanceof Error ? thrown.message : String(thrown);
    }
  }
  return refusal;
}
