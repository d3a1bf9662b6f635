/**
 * What a running m3dbnode says over its two JSON APIs: how the node is (`db.httpNodeListenAddress`),
 * and which series the cluster has in a block (`db.httpClusterListenAddress`), by name of the
 * namespace and from all replicas. Everything here only reads. Messages: rpc.thrift of M3 1.5.
 *
 * @NOTE What a node alone holds cannot be asked so: the node's API of M3 1.5.0 panics where a method
 * begins a trace, until the contexts of its pool have all been used once.
 */
import { z } from "zod";
import type { Outside } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";

/** M3 gives a request a minute. */
const REQUEST_TIMEOUT_MS = 70_000;

const healthSchema = z.looseObject({ status: z.string(), bootstrapped: z.boolean() });

const queryResultSchema = z.looseObject({
  results: z.array(z.looseObject({ id: z.string() })).nullish(),
});

const refusalSchema = z.looseObject({ error: z.looseObject({ message: z.string() }) });

/** One of M3's APIs, and what asks it. */
export type NodeApi = {
  readonly outside: Outside;
  /** `host:9002`. */
  readonly address: string;
  readonly signal: AbortSignal;
};

/** How a node is, in its own words. */
export type NodeHealth = { readonly status: string; readonly bootstrapped: boolean };

/** One block of a namespace. */
export type BlockOfNamespace = {
  readonly namespace: string;
  readonly blockStartMs: number;
  readonly blockSizeMs: number;
};

/** Asks a node how it is; AppError `unavailable` or `timeout` if it does not say. */
export async function readHealth(api: NodeApi): Promise<NodeHealth> {
  return await ask(api, "health", healthSchema);
}

/**
 * How many series the cluster's index has in a block, over all replicas that answer; at most
 * `countMax`, by which M3's work and our memory are bounded.
 */
export async function countSeries(
  api: NodeApi,
  { namespace, blockStartMs, blockSizeMs }: BlockOfNamespace,
  countMax: number,
): Promise<number> {
  const { results } = await ask(api, "query", queryResultSchema, {
    nameSpace: namespace,
    query: { all: {} },
    rangeStart: blockStartMs,
    rangeEnd: blockStartMs + blockSizeMs,
    rangeType: "UNIX_MILLISECONDS",
    limit: countMax,
    noData: true,
    clusterOptions: { readConsistency: "UNSTRICT_ALL" },
  });
  return Math.min(new Set((results ?? []).map(({ id }) => id)).size, countMax);
}

async function ask<T>(
  { outside, address, signal }: NodeApi,
  method: string,
  schema: z.ZodType<T>,
  body?: unknown,
): Promise<T> {
  const headers = { "content-type": "application/json" };
  const response = await outside.fetch(`http://${address}/${method}`, {
    ...(body === undefined ? {} : { method: "POST", headers, body: JSON.stringify(body) }),
    timeoutMs: REQUEST_TIMEOUT_MS,
    signal,
  });
  const answer = parseJson(await response.text());
  const parsed = schema.safeParse(answer);
  if (response.ok && parsed.success) return parsed.data;
  const refusal = refusalSchema.safeParse(answer);
  const why = refusal.success ? refusal.data.error.message : `status ${response.status}`;
  throw new AppError("unavailable", `${address} does not answer \`${method}\` as M3 does: ${why}`, {
    guidance:
      "Check that m3dbnode has started there, and that product.httpPorts are those of its " +
      "`httpNodeListenAddress` and `httpClusterListenAddress`.",
    context: { address, method },
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
