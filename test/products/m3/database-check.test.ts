/**
 * The check of a running M3: what counts as less than the backup, and how a node is asked, by a server
 * that answers as m3dbnode does. The real one is asked by the scenarios.
 */
import { expect, test } from "bun:test";
import { AppError } from "../../../src/base/error.ts";
import { realOutside } from "../../../src/base/outside.ts";
import { addressOf } from "../../../src/products/m3/database-check.ts";
import { checkNamespaces, checkShards } from "../../../src/products/m3/database-state.ts";
import type { NamespaceDescription } from "../../../src/products/m3/cluster-state.ts";
import { m3ConfigSchema } from "../../../src/products/m3/m3-config.ts";
import { countSeries, readHealth } from "../../../src/products/m3/node-api.ts";
import { describePlacement, parsePlacement } from "../../../src/products/m3/placement.ts";
import type { PlacementDescription } from "../../../src/products/m3/placement.ts";
import { compareSample, planSamples } from "../../../src/products/m3/series-compare.ts";
import type { FoundCount, WantedCount } from "../../../src/products/m3/series-compare.ts";
import { evenInstances, placementBytes } from "./placement-wire.ts";

const HOUR_MS = 3_600_000;
const BLOCK = { namespace: "default", blockStartMs: 1_795_386_930_000, blockSizeMs: 30_000 };
const NAMESPACE: NamespaceDescription = {
  name: "default",
  retentionMs: 48 * HOUR_MS,
  blockSizeMs: 2 * HOUR_MS,
  bufferPastMs: 1,
  bufferFutureMs: 1,
  writesToCommitLog: true,
  snapshotEnabled: true,
  coldWritesEnabled: true,
  indexEnabled: true,
  indexBlockSizeMs: 2 * HOUR_MS,
};

test("each shard counts once, and blocks that M3 may have deleted are left out", () => {
  const startMs = 100 * HOUR_MS;
  const sample = (ms: number, counts: Record<string, number>) => ({
    namespace: "default",
    blockStartNs: String(BigInt(ms) * 1_000_000n),
    counts,
  });
  const captures = {
    a: { series: [sample(startMs, { 0: 5, 1: 7 }), sample(10 * HOUR_MS, { 0: 9 })], tries: 1 },
    b: { series: [sample(startMs, { 0: 6 })] },
    old: { tries: 1 },
  };
  const blind = { ...NAMESPACE, name: "blind", indexEnabled: false };
  const fresh = { ...NAMESPACE, name: "fresh" };
  const plan = (nowMs: number) =>
    planSamples(captures, { namespaces: [NAMESPACE, blind, fresh], nowMs });
  expect(plan(110 * HOUR_MS)).toEqual([
    {
      name: "default",
      wanted: [
        {
          namespace: "default",
          blockStartMs: startMs,
          blockSizeMs: 2 * HOUR_MS,
          seriesCount: 13,
          shardCount: 2,
          countMax: 13,
        },
      ],
    },
    { name: "blind", wanted: [], note: "it has no index to ask" },
    { name: "fresh", wanted: [], note: "the backup counted no block of it" },
  ]);
  expect(plan(200 * HOUR_MS)[0]?.note).toContain("beyond retention");
  const options = { namespaces: [NAMESPACE], nowMs: 0 };
  expect(() => planSamples({ a: { series: "many" } }, options)).toThrow("not as Astacus writes it");
});

test("fewer series are told with block and both numbers, silence is no consent", () => {
  const wanted: WantedCount = { ...BLOCK, seriesCount: 10, shardCount: 4, countMax: 10 };
  const compare = (...found: FoundCount["found"][]) =>
    compareSample(
      { name: "default", wanted: [wanted] },
      found.map((one) => ({ ...wanted, found: one })),
    );
  expect(compare(10, 10)).toMatchObject({ ok: true, what: "series of default" });
  const low = compare(10, 9);
  expect(low.ok).toBe(false);
  expect(low.message).toContain(
    "fewer than in the backup: 9 in the block of 2026-11-22T22:35:30Z, in the backup 10 in 4 shards",
  );
  expect(compare(10, new AppError("unavailable", "gone fishing"))).toMatchObject({
    ok: false,
    message: "gone fishing",
  });
  const many = { ...wanted, seriesCount: 90_000, countMax: 20_000 };
  const enough = compareSample({ name: "default", wanted: [many] }, [{ ...many, found: 20_000 }]);
  expect(enough.ok).toBe(true);
  expect(enough.message).toContain("at least 20000 in the block");
  expect(compareSample({ name: "x", wanted: [], note: "it has no index to ask" }, [])).toEqual({
    what: "series of x",
    ok: true,
    message: "not counted: it has no index to ask",
  });
});

test("a namespace that is gone or has another shape is wrong, a new one is not", () => {
  const check = (now: readonly NamespaceDescription[]) => checkNamespaces([NAMESPACE], now)[0];
  expect(check([NAMESPACE, { ...NAMESPACE, name: "new" }])?.ok).toBe(true);
  expect(check([])).toMatchObject({ ok: false, message: "is not there" });
  expect(check([{ ...NAMESPACE, retentionMs: HOUR_MS }])).toMatchObject({
    ok: false,
    message: "retention 1h, in the backup 2d",
  });
});

test("a shard that is not available on all its replicas is named", () => {
  const instances = evenInstances(["a", "b"], 4, 2);
  const placement = (list: typeof instances, shardCount = 4): PlacementDescription =>
    describePlacement(
      parsePlacement(placementBytes({ instances: list, replicaFactor: 2, shardCount })),
    );
  const sound = placement(instances);
  expect(checkShards(sound, sound).ok).toBe(true);
  const [first, second] = instances;
  const waiting = {
    ...second!,
    shards: second!.shards.map((one) => ({ ...one, state: 0 as const })),
  };
  expect(checkShards(sound, placement([first!, waiting]))).toMatchObject({
    ok: false,
    message: "shards 0-3: available on 1 of 2",
  });
  expect(checkShards(sound, placement(instances, 8)).ok).toBe(false);
});

test("an instance is asked at the host of its endpoint, at its own ports or the common ones", () => {
  const config = m3ConfigSchema.parse({
    type: "m3",
    root: "/m3",
    etcd: { endpoints: ["http://e:2379"] },
    instances: { n1: { id: "a", httpPorts: { node: 1, cluster: 2 } }, b: {} },
  });
  const instances = evenInstances(["a", "b"], 1, 2);
  const [a, b] = describePlacement(
    parsePlacement(placementBytes({ instances, replicaFactor: 2, shardCount: 1 })),
  ).instances;
  expect(addressOf(config, { ...a!, endpoint: "far:9000" }, "node")).toBe("far:1");
  expect(addressOf(config, { ...a!, endpoint: "far:9000" }, "cluster")).toBe("far:2");
  expect(addressOf(config, { ...b!, endpoint: "[::1]:9000" }, "node")).toBe("[::1]:9002");
  expect(addressOf(config, b!, "cluster")).toEndWith(":9003");
});

/** Answers as m3dbnode does on both of its JSON ports. */
function startNode(ids: readonly string[]) {
  const requests: unknown[] = [];
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    async fetch(request) {
      if (request.url.endsWith("/health")) {
        return Response.json({ ok: true, status: "up", bootstrapped: true });
      }
      const query = (await request.json()) as { nameSpace: string; limit: number };
      requests.push(query);
      if (query.nameSpace !== "default") {
        const message = "unknown namespace";
        return Response.json({ error: { message, data: {} } }, { status: 400 });
      }
      const found = ids.slice(0, query.limit);
      const results = found.map((id) => ({ id, tags: [], datapoints: null }));
      return Response.json({ results: ids.length === 0 ? null : results, exhaustive: true });
    },
  });
  const api = {
    outside: realOutside,
    address: `127.0.0.1:${server.port}`,
    signal: new AbortController().signal,
  };
  return { api, requests, [Symbol.asyncDispose]: async () => await server.stop(true) };
}

test("series of a block are counted once, and no further than is asked for", async () => {
  await using node = startNode(["one", "two", "two", "three"]);
  expect(await countSeries(node.api, BLOCK, 20)).toBe(3);
  expect(node.requests[0]).toMatchObject({
    nameSpace: "default",
    rangeStart: 1_795_386_930_000,
    rangeEnd: 1_795_386_960_000,
    noData: true,
    limit: 20,
  });
  expect(await countSeries(node.api, BLOCK, 2)).toBe(2);
  await using empty = startNode([]);
  expect(await countSeries(empty.api, BLOCK, 20)).toBe(0);
});

test("health is read, and a refusal comes with M3's words", async () => {
  await using node = startNode([]);
  expect(await readHealth(node.api)).toMatchObject({ status: "up", bootstrapped: true });
  const thrown = await countSeries(node.api, { ...BLOCK, namespace: "nope" }, 5).catch(
    (error: unknown) => error,
  );
  expect(thrown).toMatchObject({ kind: "unavailable" });
  expect(String(thrown)).toContain("unknown namespace");
});
