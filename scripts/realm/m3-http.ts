/**
 * Requests to M3 over its JSON APIs: the coordinator's, which makes placements and namespaces, a
 * node's, which says how it does, and the cluster's (served by every node), which reads and writes at
 * the configured consistency. And to a single node for its own points. Times are in milliseconds.
 */

const REQUEST_MS_MAX = 15_000;

/** One value of one series. */
export type Point = { readonly timeMs: number; readonly value: number };

/** A range of one series; `endMs` is not part of it. */
export type FetchRange = {
  readonly namespace: string;
  readonly id: string;
  readonly startMs: number;
  readonly endMs: number;
};

/** Reads a series through a node's cluster port, at the configured consistency. */
export async function fetchFromCluster(port: number, range: FetchRange): Promise<Point[]> {
  const answer = await post<{ datapoints: { timestamp: number; value: number }[] | null }>(
    port,
    "/fetch",
    {
      nameSpace: range.namespace,
      id: range.id,
      rangeStart: range.startMs,
      rangeEnd: range.endMs,
      rangeType: "UNIX_MILLISECONDS",
      resultTimeType: "UNIX_MILLISECONDS",
    },
  );
  return (answer.datapoints ?? []).map(({ timestamp, value }) => ({ timeMs: timestamp, value }));
}

/**
 * Reads what one node has itself, in the order of the ranges. M3's JSON API cannot do this: version
 * 1.5.0 panics when it should read a block from the disk for it.
 */
export async function fetchFromNode(
  fetchPoints: string,
  nodePort: number,
  ranges: readonly FetchRange[],
): Promise<Point[][]> {
  const child = Bun.spawn([fetchPoints, "-address", `127.0.0.1:${nodePort}`], {
    stdin: new Blob(ranges.map((range) => `${JSON.stringify(range)}\n`)),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [output, talk] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  if ((await child.exited) !== 0) throw new Error(`fetch_points: ${talk.trim()}`);
  const lines = output.split("\n").slice(0, -1);
  if (lines.length !== ranges.length) throw new Error("fetch_points did not answer all ranges");
  return lines.map((line) => {
    const answer = JSON.parse(line) as { points: [number, number][]; error?: string };
    if (answer.error !== undefined) throw new Error(answer.error);
    return answer.points.map(([timeMs, value]) => ({ timeMs, value }));
  });
}

/** Writes one point; returns when it is acknowledged. */
export async function writePoint(
  port: number,
  series: {
    readonly namespace: string;
    readonly id: string;
    readonly tags: Readonly<Record<string, string>>;
  },
  point: Point,
): Promise<void> {
  await post(port, "/writetagged", {
    nameSpace: series.namespace,
    id: series.id,
    tags: Object.entries(series.tags).map(([name, value]) => ({ name, value })),
    datapoint: {
      timestamp: point.timeMs,
      timestampTimeType: "UNIX_MILLISECONDS",
      value: point.value,
    },
  });
}

/** What `/health` of a node says; undefined if it does not answer. */
export async function getHealth(
  nodeHttpPort: number,
): Promise<{ readonly status: string; readonly bootstrapped: boolean } | undefined> {
  try {
    const url = `http://127.0.0.1:${nodeHttpPort}/health`;
    const response = await fetch(url, { signal: AbortSignal.timeout(2_000) });
    if (!response.ok) return undefined;
    const { status, bootstrapped } = (await response.json()) as Record<string, unknown>;
    return { status: String(status), bootstrapped: bootstrapped === true };
  } catch {
    return undefined;
  }
}

/** Whether anything answers there. */
export async function hasAnswer(url: string): Promise<boolean> {
  try {
    return (await fetch(url, { signal: AbortSignal.timeout(2_000) })).ok;
  } catch {
    return false;
  }
}

/** Sends JSON and reads JSON; throws with M3's own words if it is refused. */
export async function post<T>(port: number, path: string, body: unknown): Promise<T> {
  return await ask<T>(port, path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

/** Reads JSON; throws with M3's own words if it is refused. */
export async function get<T>(port: number, path: string): Promise<T> {
  return await ask<T>(port, path, {});
}

async function ask<T>(port: number, path: string, init: RequestInit): Promise<T> {
  const url = `http://127.0.0.1:${port}${path}`;
  const response = await fetch(url, { ...init, signal: AbortSignal.timeout(REQUEST_MS_MAX) });
  const text = await response.text();
  if (!response.ok) throw new Error(`M3: ${path}: ${response.status} ${text.slice(0, 500)}`);
  return JSON.parse(text) as T;
}
