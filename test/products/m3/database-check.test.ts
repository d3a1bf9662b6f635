/**
 * The check of a running M3: what counts as less than the backup, and how a node is asked, by a server
 * that answers as m3dbnode does. The real one is asked by the scenarios.
 */
import { expect, test } from "bun:test";
import { realOutside } from "../../../src/base/outside.ts";
import { addressOf } from "../../../src/products/m3/database-check.ts";
import { checkNamespaces, checkShards } from "../../../src/products/m3/database-state.ts";
import type { NamespaceDescription } from "../../../src/products/m3/cluster-state.ts";
import { m3ConfigSchema } from "../../../src/products/m3/m3-config.ts";
import { countSeries, readHealth } from "../../../src/products/m3/node-api.ts";
import { describePlacement, parsePlacement } from "../../../src/products/m3/placement.ts";
import type { PlacementDescription } from "../../../src/products/m3/placement.ts";
import { compareSamples, isLower, planSamples } from "../../../src/products/m3/series-compare.ts";
import type { WantedCount } from "../../../src/products/m3/series-compare.ts";
import { evenInstances, placementBytes } from "./placement-wire.ts";

const HOUR_MS = 3_600_000;
const BLOCK = {
  namespace: "default",
  shard: 3,
  blockStartNs: 1_795_386_930_000_000_000n,
  blockSizeNs: 30_000_000_000n,
};
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

test("a count is lower only if it is so whatever silent owners have, and whoever has which share", () => {
  const wanted = { counts: [10, 10, 9], countMax: 10 };
  const found = (counts: number[], ownerCount = 3) => ({ counts, ownerCount });
  expect(isLower(wanted, found([9, 10, 10]))).toBe(false);
  expect(isLower(wanted, found([12, 10, 10]))).toBe(false);
  expect(isLower(wanted, found([10, 9, 9]))).toBe(true);
  expect(isLower(wanted, found([10, 10, 0]))).toBe(true);
  expect(isLower(wanted, found([10, 10], 2))).toBe(true);
  expect(isLower(wanted, found([10, 9]))).toBe(false);
  expect(isLower(wanted, found([9, 9]))).toBe(true);
  expect(isLower(wanted, found([9]))).toBe(false);
  expect(isLower({ counts: [50_000], countMax: 20_000 }, found([20_000], 1))).toBe(false);
});

test("copies of one block come together, and blocks that M3 may have deleted are left out", () => {
  const newMs = 100 * HOUR_MS;
  const sample = (startMs: number, counts: Record<string, number>) => ({
    namespace: "default",
    blockStartNs: String(BigInt(startMs) * 1_000_000n),
    counts,
  });
  const captures = {
    a: { series: [sample(newMs, { 0: 5, 1: 7 }), sample(10 * HOUR_MS, { 0: 9 })], tries: 1 },
    b: { series: [sample(newMs, { 0: 6 })] },
    old: { tries: 1 },
  };
  const gone = { ...NAMESPACE, name: "gone" };
  const options = { namespaces: [NAMESPACE, gone], nowMs: 110 * HOUR_MS };
  const { samples, notes } = planSamples(captures, options);
  const place = { namespace: "default", blockStartNs: BigInt(newMs) * 1_000_000n };
  expect(samples).toEqual([
    { ...place, shard: 0, blockSizeNs: 7_200_000_000_000n, counts: [6, 5], countMax: 6 },
    { ...place, shard: 1, blockSizeNs: 7_200_000_000_000n, counts: [7], countMax: 7 },
  ]);
  expect([...notes.keys()]).toEqual(["gone"]);
  const later = planSamples(captures, { ...options, nowMs: 200 * HOUR_MS });
  expect(later.samples).toEqual([]);
  expect(later.notes.get("default")).toContain("beyond retention");
  expect(() => planSamples({ a: { series: "many" } }, options)).toThrow("not as Astacus writes it");
});

test("fewer series are told with their place and both numbers, silence is no consent", () => {
  const wanted: WantedCount = { ...BLOCK, counts: [10, 10], countMax: 10 };
  const ask = (counts: number[]) =>
    compareSamples([wanted], new Map([[wanted, { counts, ownerCount: 2 }]]), new Map())[0];
  expect(ask([10, 11])).toMatchObject({ ok: true, what: "series of default" });
  const low = ask([4, 10]);
  expect(low?.ok).toBe(false);
  expect(low?.message).toContain("shard 3, block 2026-11-22T22:35:30Z: 10, 4 in place of 10, 10");
  expect(ask([])?.ok).toBe(false);
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

test("an instance is asked at its own address, else at its host with the common port", () => {
  const config = m3ConfigSchema.parse({
    type: "m3",
    root: "/m3",
    etcd: { endpoints: ["http://e:2379"] },
    instances: { n1: { id: "a", http: "elsewhere:1" }, b: {} },
  });
  const [a, b] = describePlacement(
    parsePlacement(
      placementBytes({
        instances: evenInstances(["a", "b"], 1, 2),
        replicaFactor: 2,
        shardCount: 1,
      }),
    ),
  ).instances;
  expect(addressOf(config, a!)).toBe("elsewhere:1");
  expect(addressOf(config, { ...b!, endpoint: "[::1]:9000" })).toBe("[::1]:9002");
});

/** Answers as m3dbnode: first what is in memory, then what is on disk, in pages. */
function startNode(memory: readonly string[], disk: readonly string[]) {
  const requests: string[] = [];
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    async fetch(request) {
      if (request.url.endsWith("/health")) {
        return Response.json({ ok: true, status: "up", bootstrapped: true });
      }
      const text = await request.text();
      requests.push(text);
      const { shard, limit, pageToken } = JSON.parse(text) as Record<string, number & string>;
      if (shard === 99) {
        const message = "not responsible for shard 99";
        return Response.json({ error: { message, data: {} } }, { status: 500 });
      }
      if (pageToken === undefined) {
        return Response.json({ elements: memory.map((id) => ({ id })), nextPageToken: "0" });
      }
      const end = Number(pageToken) + limit!;
      const elements = disk.slice(Number(pageToken), end).map((id) => ({ id, start: 1 }));
      return Response.json(
        end < disk.length ? { elements, nextPageToken: String(end) } : { elements },
      );
    },
  });
  const api = {
    outside: realOutside,
    address: `127.0.0.1:${server.port}`,
    signal: new AbortController().signal,
  };
  return { api, requests, [Symbol.asyncDispose]: async () => await server.stop(true) };
}

test("series are counted once over all pages, and no further than is asked for", async () => {
  const ids = Array.from({ length: 5_000 }, (_, index) => `series ${index}`);
  await using node = startNode(["series 1", "only in memory"], ids);
  expect(await countSeries(node.api, BLOCK, 20_000)).toBe(5_001);
  expect(node.requests).toHaveLength(4);
  const [first] = node.requests;
  expect(first).toContain('"rangeStart":1795386930000000000,"rangeEnd":1795386960000000000,');
  expect(JSON.parse(first!)).toMatchObject({ nameSpace: btoa("default"), shard: 3 });
  expect(await countSeries(node.api, BLOCK, 10)).toBe(10);
  expect(node.requests).toHaveLength(6);
});

test("health is read, and a refusal comes with M3's words", async () => {
  await using node = startNode([], []);
  expect(await readHealth(node.api)).toMatchObject({ status: "up", bootstrapped: true });
  const thrown = await countSeries(node.api, { ...BLOCK, shard: 99 }, 5).catch(
    (error: unknown) => error,
  );
  expect(thrown).toMatchObject({ kind: "unavailable" });
  expect(String(thrown)).toContain("not responsible for shard 99");
});
