/**
 * Asks an M3 cluster for every point of a ledger: of the cluster as clients see it, and of each
 * replica alone. A single replica may rightly lack points that were acknowledged by a majority
 * without it; the cluster may not lack one.
 */
import { readLedger, SERIES_PREFIX } from "./ledger.ts";
import type { LedgerEntry } from "./ledger.ts";
import { fetchFromCluster, fetchFromNode } from "./m3-http.ts";
import type { FetchRange, Point } from "./m3-http.ts";
import type { M3Node, M3Realm } from "./m3-realm.ts";

const RANGE_MS = 600_000;
const SHOWN_COUNT = 5;
const ASK_COUNT_MAX = 6;

/** What is asked for. */
export type CheckOptions = {
  readonly ledgerFile: string;
  /** Only points acknowledged before this time; all unless given. */
  readonly beforeMs?: number;
  /** A ledger with fewer such points fails, since it would prove nothing. */
  readonly floor?: number;
  /** Each replica must have all of them too, as after writes at `all`. */
  readonly everyReplica?: boolean;
  /** Ask no node alone, only the cluster. */
  readonly clusterOnly?: boolean;
};

/** One way to look at the data: `cluster`, or a host id. */
export type CheckView = {
  readonly view: string;
  readonly presentCount: number;
  readonly missingCount: number;
  /** There with another value. */
  readonly wrongCount: number;
  /** There in the range of the ledger, and acknowledged later or never. */
  readonly otherCount: number;
  /** When the first and the last missing or wrong point were acknowledged. */
  readonly lackAcknowledgedMs: readonly [number, number] | undefined;
  /** A few, for people. */
  readonly examples: readonly string[];
  /** Why the node could not be asked. */
  readonly failure?: string;
};

/** What a check found. */
export type CheckResult = {
  readonly expectedCount: number;
  readonly floor: number;
  readonly views: readonly CheckView[];
  readonly isGood: boolean;
};

/** Compares every point; the cluster must answer, nodes that do not run are reported as such. */
export async function checkM3(realm: M3Realm, options: CheckOptions): Promise<CheckResult> {
  const { beforeMs = Number.POSITIVE_INFINITY, floor = 1 } = options;
  const all = readLedger(options.ledgerFile);
  const expected = all.filter(({ acknowledgedMs }) => acknowledgedMs < beforeMs);
  const up = (await realm.status()).filter(({ isBootstrapped }) => isBootstrapped);
  const [door] = up;
  const views = [await look("cluster", door && throughCluster(door.node), realm, expected)];
  for (const node of options.clusterOnly === true ? [] : realm.nodes) {
    const isUp = up.some((one) => one.node === node);
    views.push(await look(node.hostId, isUp ? fromNode(realm, node) : undefined, realm, expected));
  }
  const isComplete = ({ missingCount, wrongCount, failure }: CheckView) =>
    missingCount === 0 && wrongCount === 0 && failure === undefined;
  const demanded = options.everyReplica === true ? views : views.slice(0, 1);
  // A wrong value is wrong wherever it lies.
  const isGood =
    expected.length >= floor &&
    demanded.every(isComplete) &&
    views.every(({ wrongCount }) => wrongCount === 0);
  return { expectedCount: expected.length, floor, views, isGood };
}

type Fetch = (ranges: readonly FetchRange[]) => Promise<Point[][]>;

function throughCluster({ ports }: M3Node): Fetch {
  return async (ranges) => {
    const all: Point[][] = [];
    for (const range of ranges) {
      all.push(await patiently(() => fetchFromCluster(ports.clusterHttp, range)));
    }
    return all;
  };
}

/** M3 drops connections while it is short of CPU: what it does not answer is asked again. */
async function patiently<Result>(ask: () => Promise<Result>): Promise<Result> {
  for (let count = 1; ; count += 1) {
    try {
      return await ask();
    } catch (thrown) {
      if (count === ASK_COUNT_MAX) throw thrown;
      await Bun.sleep(count * 1000);
    }
  }
}

function fromNode(realm: M3Realm, { ports }: M3Node): Fetch {
  return async (ranges) => await fetchFromNode(realm.programs.fetchPoints, ports.node, ranges);
}

async function look(
  view: string,
  fetch: Fetch | undefined,
  realm: M3Realm,
  expected: readonly LedgerEntry[],
): Promise<CheckView> {
  const { namespace } = realm.settings;
  let failure = fetch === undefined ? "it is not bootstrapped" : undefined;
  let found = new Map<number, Map<number, number>>();
  try {
    if (fetch !== undefined) found = await readAll(fetch, namespace, expected);
  } catch (thrown) {
    failure = thrown instanceof Error ? thrown.message : String(thrown);
  }
  const valueOf = ({ series, timeMs }: LedgerEntry) => found.get(series)?.get(timeMs);
  const lacks = expected.filter((entry) => valueOf(entry) !== entry.value);
  const wrongCount = lacks.filter((entry) => valueOf(entry) !== undefined).length;
  const presentCount = expected.length - lacks.length;
  const foundCount = [...found.values()].reduce((sum, points) => sum + points.size, 0);
  const times = lacks.map(({ acknowledgedMs }) => acknowledgedMs).toSorted((a, b) => a - b);
  return {
    view,
    presentCount,
    missingCount: lacks.length - wrongCount,
    wrongCount,
    otherCount: foundCount - presentCount - wrongCount,
    lackAcknowledgedMs: times.length === 0 ? undefined : [times[0] ?? 0, times.at(-1) ?? 0],
    examples: lacks.slice(0, SHOWN_COUNT).map((entry) => {
      const time = new Date(entry.timeMs).toISOString();
      return `series ${entry.series} at ${time}: ${valueOf(entry) ?? "missing"}, not ${entry.value}`;
    }),
    ...(failure === undefined ? {} : { failure }),
  };
}

/** Values by series and time, over the range of the entries of each series. */
async function readAll(
  fetch: Fetch,
  namespace: string,
  expected: readonly LedgerEntry[],
): Promise<Map<number, Map<number, number>>> {
  const ranges: (FetchRange & { readonly series: number })[] = [];
  for (const [series, entries] of Map.groupBy(expected, (entry) => entry.series)) {
    const times = entries.map(({ timeMs }) => timeMs).toSorted((a, b) => a - b);
    const id = `${SERIES_PREFIX}${series}`;
    const endMs = (times.at(-1) ?? 0) + 1;
    for (let startMs = times[0] ?? 0; startMs < endMs; startMs += RANGE_MS) {
      ranges.push({ namespace, id, startMs, endMs: Math.min(endMs, startMs + RANGE_MS), series });
    }
  }
  const found = new Map<number, Map<number, number>>();
  const answers = await fetch(ranges);
  for (const [index, { series }] of ranges.entries()) {
    const points = found.get(series) ?? new Map<number, number>();
    for (const { timeMs, value } of answers[index] ?? []) points.set(timeMs, value);
    found.set(series, points);
  }
  return found;
}
