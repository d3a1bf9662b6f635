/**
 * What a running m3dbnode says over its JSON API (`db.httpNodeListenAddress`): how it is, and which
 * series a shard holds in a block, asked as its peers ask when they copy a shard. That listing is in
 * pages, needs no index and reads no points. Everything here only reads. Service and messages:
 * node/service.go and rpc.thrift of M3 1.5.
 */
import { z } from "zod";
import type { Outside } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";

const REQUEST_TIMEOUT_MS = 30_000;

/** An element has an id and tags, a kilobyte at most as a rule. */
const PAGE_COUNT = 2_000;

/** Far above what any count here needs; a server that never ends its pages is none of M3's. */
const PAGES_MAX = 1_000;

const healthSchema = z.looseObject({ status: z.string(), bootstrapped: z.boolean() });

const pageSchema = z.looseObject({
  elements: z.array(z.looseObject({ id: z.string() })).nullish(),
  nextPageToken: z.string().nullish(),
});

const refusalSchema = z.looseObject({ error: z.looseObject({ message: z.string() }) });

/** A node, and what asks it. */
export type NodeApi = {
  readonly outside: Outside;
  /** `host:9002`. */
  readonly address: string;
  readonly signal: AbortSignal;
};

/** How a node is, in its own words. */
export type NodeHealth = { readonly status: string; readonly bootstrapped: boolean };

/** One block of one shard. */
export type BlockOfShard = {
  readonly namespace: string;
  readonly shard: number;
  readonly blockStartNs: bigint;
  readonly blockSizeNs: bigint;
};

/** Asks a node how it is; AppError `unavailable` or `timeout` if it does not say. */
export async function readHealth(api: NodeApi): Promise<NodeHealth> {
  return await ask(api, "health", healthSchema);
}

/**
 * How many series a node holds of a block, on disk or in memory; stops at `countMax`, so memory and
 * time are bounded by it.
 * @throws AppError `unavailable` if the node refuses: it does not own the shard, or is starting.
 */
export async function countSeries(
  api: NodeApi,
  block: BlockOfShard,
  countMax: number,
): Promise<number> {
  // A series that is both in memory and on disk comes twice.
  const ids = new Set<string>();
  let pageToken: string | undefined;
  for (let page = 0; page < PAGES_MAX && ids.size < countMax; page += 1) {
    const limit = Math.min(PAGE_COUNT, countMax);
    const body = encodeRequest(block, limit, pageToken);
    const { elements, nextPageToken } = await ask(
      api,
      "fetchblocksmetadatarawv2",
      pageSchema,
      body,
    );
    for (const { id } of elements ?? []) ids.add(id);
    if (nextPageToken === undefined || nextPageToken === null || nextPageToken === "") break;
    pageToken = nextPageToken;
  }
  return Math.min(ids.size, countMax);
}

/** By hand: nanoseconds are beyond the whole numbers of JSON.stringify. */
function encodeRequest(
  { namespace, shard, blockStartNs, blockSizeNs }: BlockOfShard,
  limit: number,
  pageToken: string | undefined,
): string {
  const name = JSON.stringify(Buffer.from(namespace).toString("base64"));
  const token = pageToken === undefined ? "" : `,"pageToken":${JSON.stringify(pageToken)}`;
  return (
    `{"nameSpace":${name},"shard":${shard},"rangeStart":${blockStartNs},` +
    `"rangeEnd":${blockStartNs + blockSizeNs},"limit":${limit}${token}}`
  );
}

async function ask<T>(
  { outside, address, signal }: NodeApi,
  method: string,
  schema: z.ZodType<T>,
  body?: string,
): Promise<T> {
  const response = await outside.fetch(`http://${address}/${method}`, {
    method: body === undefined ? "GET" : "POST",
    ...(body === undefined ? {} : { body, headers: { "content-type": "application/json" } }),
    timeoutMs: REQUEST_TIMEOUT_MS,
    signal,
  });
  const text = await response.text();
  const answer = parseJson(text);
  const parsed = schema.safeParse(answer);
  if (response.ok && parsed.success) return parsed.data;
  const refusal = refusalSchema.safeParse(answer);
  const why = refusal.success ? refusal.data.error.message : `status ${response.status}`;
  throw new AppError("unavailable", `${address} does not answer \`${method}\` as M3 does: ${why}`, {
    guidance:
      "Check that it is `db.httpNodeListenAddress` of an m3dbnode (product.httpPort, or " +
      "product.instances.NODE.http), and that it has started.",
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
