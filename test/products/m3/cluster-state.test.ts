/**
 * The state of an M3 cluster against a real etcd: what is read and left out, how it is planned for
 * other nodes and environments, and that a write is whole, repeatable, refused when etcd moved, and
 * can be taken back.
 */
import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { fromBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { callEtcd } from "../../../scripts/real/etcd.ts";
import type { EtcdClient } from "../../../src/products/etcd/etcd-client.ts";
import { encodeBytes, encodeText } from "../../../src/products/etcd/etcd-messages.ts";
import {
  parseClusterStatePlan,
  planClusterState,
  readTargetState,
} from "../../../src/products/m3/cluster-state-plan.ts";
import type { PlanStateOptions } from "../../../src/products/m3/cluster-state-plan.ts";
import {
  listUndoRecords,
  undoClusterState,
  writeClusterState,
} from "../../../src/products/m3/cluster-state-write.ts";
import {
  parseClusterState,
  placementMoved,
  readClusterState,
  sameClusterState,
} from "../../../src/products/m3/cluster-state.ts";
import type { ClusterState } from "../../../src/products/m3/cluster-state.ts";
import { describePlacement, parsePlacement } from "../../../src/products/m3/placement.ts";
import { TopicSchema } from "../../../src/products/m3/proto/topic.pb.ts";
import { errorOf, openTestEtcd, putAll, readTexts } from "../etcd/real-etcd.ts";
import type { TestEtcd } from "../etcd/real-etcd.ts";
import { evenInstances, namespaceBytes, placementBytes, stagedBytes } from "./placement-wire.ts";
import type { WireInstance } from "./placement-wire.ts";

const DAY_NANOS = 86_400_000_000_000n;
const PROD = { environment: "prod", service: "m3db", zone: "embedded" };
const ABC = evenInstances(["a", "b", "c"], 6, 2);
const PLACEMENT = placementBytes({ instances: ABC, replicaFactor: 2, shardCount: 6 });
const AGGREGATOR = stagedBytes([
  placementBytes({
    instances: [{ id: "agg", shards: [{ id: 0 }], endpoint: "a.old:6000", hostname: "a.old" }],
    replicaFactor: 1,
    shardCount: 1,
  }),
]);
const NAMESPACES = namespaceBytes({
  metrics: { retentionNanos: 400n * DAY_NANOS, blockNanos: DAY_NANOS },
  default: { retentionNanos: 2n * DAY_NANOS, blockNanos: DAY_NANOS / 12n },
});

/** What M3 keeps of `prod`, all kinds of keys. */
const TAKEN: Readonly<Record<string, string | Uint8Array>> = {
  "/placement/prod/m3aggregator": AGGREGATOR,
  "/topic/prod/aggregated_metrics": topicBytes("prod"),
  "_kv/prod//namespaces": "",
  "_kv/prod//ruleset/default": "rules",
  "_kv/prod/m3db.client.bootstrap-consistency-level": "unstrict_majority",
  "_kv/prod/m3db.node.namespaces": NAMESPACES,
  "_sd.placement/prod/m3db": PLACEMENT,
};

/** What stands near it, and is none of it. */
const NOT_TAKEN: Readonly<Record<string, string | Uint8Array>> = {
  "_hb/prod/m3db/a": "beat",
  "_kv/prod/shardset/0/flush": "times",
  "_kv/prod2/m3db.node.namespaces": NAMESPACES,
  "_kv/prod/inner/m3db.node.namespaces": NAMESPACES,
  "_kv/prod/inner/m3db.query.limits": "limits",
  "_ld/prod/m3agg": "leader",
  "_sd.metadata/prod/m3db": "metadata",
  "_sd.placement/prod/inner/m3db": PLACEMENT,
  "_sd.placement/prod2/m3db": PLACEMENT,
};

const server = await openTestEtcd();
afterAll(async () => {
  if (!("missing" in server)) await server[Symbol.asyncDispose]();
});

if ("missing" in server) test.skip(`M3's cluster state [needs ${server.missing}]`, () => undefined);
else againstRealEtcd(server);

function againstRealEtcd({ etcd, client }: TestEtcd): void {
  beforeEach(async () => {
    await client.transact({
      writes: [{ delete: new Uint8Array([0]), rangeEnd: new Uint8Array([0]) }],
    });
    await putAll(client, { ...TAKEN, ...NOT_TAKEN });
  });

  describe("reading", () => {
    test("takes every key of the environment and nothing else", async () => {
      const state = await readClusterState(client, PROD);
      expect(state.keys.map(({ key }) => key)).toEqual(Object.keys(TAKEN));
      expect(state.leftOut).toContainEqual({
        key: "_kv/prod/shardset/0/flush",
        reason: "flush times of m3aggregator",
      });
      expect(state.leftOut).toContainEqual({
        key: "_kv/prod/inner/m3db.query.limits",
        reason: "belongs to the environment prod/inner",
      });
    });

    test("leaves out keys with a lease", async () => {
      const { ID: lease } = await callEtcd(etcd, "/v3/lease/grant", { TTL: "60" });
      const key = encodeBytes(encodeText("_kv/prod/leader"));
      await callEtcd(etcd, "/v3/kv/put", { key, value: key, lease });
      const state = await readClusterState(client, PROD);
      expect(state.keys.map(({ key }) => key)).toEqual(Object.keys(TAKEN));
      expect(state.leftOut).toContainEqual({ key: "_kv/prod/leader", reason: "ends with a lease" });
    });

    test("takes more namespaces of keys where they are named", async () => {
      await putAll(client, { "/rules/prod/x": "1", "/rules/prod2/x": "2" });
      const state = await readClusterState(client, { ...PROD, kvNamespaces: ["/rules"] });
      expect(state.keys.map(({ key }) => key).filter((key) => key.startsWith("/rules"))).toEqual([
        "/rules/prod/x",
      ]);
    });

    test("takes an environment whose name has a slash", async () => {
      const state = await readClusterState(client, { ...PROD, environment: "prod/inner" });
      expect(state.keys.map(({ key }) => key)).toEqual([
        "_kv/prod/inner/m3db.node.namespaces",
        "_kv/prod/inner/m3db.query.limits",
        "_sd.placement/prod/inner/m3db",
      ]);
    });

    test("describes placement and namespaces", async () => {
      const state = await readClusterState(client, PROD);
      expect(state.placement.instances.map(({ id }) => id)).toEqual(["a", "b", "c"]);
      expect(state.namespaces).toMatchObject([
        { name: "default", retentionMs: 172_800_000, blockSizeMs: 7_200_000, indexEnabled: true },
        { name: "metrics", retentionMs: 34_560_000_000, writesToCommitLog: true },
      ]);
    });

    test("survives JSON, as in a manifest", async () => {
      const state = await readClusterState(client, PROD);
      const again = parseClusterState(JSON.parse(JSON.stringify(state)));
      expect(again).toEqual(state);
      expect(() => parseClusterState({ ...state, keys: [] })).toThrow("lacks the key");
    });

    test("says which environments there are, if this is none", async () => {
      const error = await errorOf(readClusterState(client, { ...PROD, environment: "pro" }));
      expect(error).toMatchObject({ kind: "not-found" });
      expect(error.guidance).toContain("this etcd has prod, prod/inner, prod2");
    });

    test("says which services have a placement, if this has none", async () => {
      const error = await errorOf(readClusterState(client, { ...PROD, service: "m3" }));
      expect(error).toMatchObject({ kind: "not-found" });
      expect(error.guidance).toContain("there are m3db");
    });

    test("says that namespaces are missing, and that a placement cannot be read", async () => {
      const name = "_kv/prod/m3db.node.namespaces";
      await client.transact({ writes: [{ delete: encodeText(name) }] });
      expect(await errorOf(readClusterState(client, PROD))).toMatchObject({
        kind: "not-found",
        message: "Environment prod has no namespaces.",
      });
      await putAll(client, { [name]: NAMESPACES, "_sd.placement/prod/m3db": "\u0007junk" });
      expect(await errorOf(readClusterState(client, PROD))).toMatchObject({ kind: "damaged" });
    });
  });

  describe("comparing", () => {
    test("sees values and not revisions", async () => {
      const before = await readClusterState(client, PROD);
      await putAll(client, { "_kv/prod//ruleset/default": "rules" });
      const same = await readClusterState(client, PROD);
      expect(same.revision).not.toBe(before.revision);
      expect(sameClusterState(before, same)).toBe(true);
      await putAll(client, { "_kv/prod//ruleset/default": "other" });
      const changed = await readClusterState(client, PROD);
      expect(sameClusterState(before, changed)).toBe(false);
      expect(placementMoved(before, changed)).toBe(false);
      await putAll(client, { "_kv/prod//ruleset/default": "rules", "_kv/prod/new": "" });
      expect(sameClusterState(before, await readClusterState(client, PROD))).toBe(false);
    });

    test("sees that a shard's state moved", async () => {
      const before = await readClusterState(client, PROD);
      await putAll(client, { "_sd.placement/prod/m3db": movingPlacement() });
      const after = await readClusterState(client, PROD);
      expect([placementMoved(before, after), sameClusterState(before, after)]).toEqual([
        true,
        false,
      ]);
    });
  });

  describe("restoring", () => {
    test("writes everything in one transaction, and nothing when it runs again", async () => {
      const state = await readClusterState(client, PROD);
      const before = await readTexts(client, "_");
      await client.transact({ writes: [deleteAll("_kv/prod/"), deleteAll("_sd.placement/prod/")] });
      await client.transact({ writes: [deleteAll("/")] });
      const plan = await planFor(client, state, { instances: [] });
      const options = { operation: "op1" };
      const wanted = { changedCount: Object.keys(TAKEN).length, doneCount: 0, transactionCount: 1 };
      expect(await writeClusterState(client, plan, options)).toEqual(wanted);
      const after = await readClusterState(client, PROD);
      expect(sameClusterState(state, after)).toBe(true);
      expect(await writeClusterState(client, plan, options)).toMatchObject({ changedCount: 0 });
      expect((await readClusterState(client, PROD)).revision).toBe(after.revision);
      expect((await planFor(client, state, { instances: [] })).changes).toEqual([]);
      expect(Object.keys(before)).toContain("_kv/prod2/m3db.node.namespaces");
      expect(await readTexts(client, "_kv/prod2")).toEqual(pick(before, "_kv/prod2"));
    });

    test("deletes what the backup does not have, within the environment only", async () => {
      const state = await readClusterState(client, PROD);
      const extra = {
        "_kv/prod/new": "1",
        "/topic/prod/new": "2",
        "_kv/prod/shardset/7/flush": "3",
      };
      await putAll(client, extra);
      const kept = await planFor(client, state, { instances: [], extra: "keep" });
      expect(kept.changes).toEqual([]);
      const plan = await planFor(client, state, { instances: [] });
      expect(plan.changes.map(({ key, value }) => [key, value])).toEqual([
        ["/topic/prod/new", null],
        ["_kv/prod/new", null],
      ]);
      await writeClusterState(client, plan, { operation: "op" });
      const left = { ...(await readTexts(client, "_")), ...(await readTexts(client, "/")) };
      const wanted = [...Object.keys({ ...TAKEN, ...NOT_TAKEN }), "_kv/prod/shardset/7/flush"];
      expect(Object.keys(left).toSorted()).toEqual(wanted.toSorted());
    });

    test("renames the environment in keys and topics, and touches no other", async () => {
      const state = await readClusterState(client, PROD);
      const prod = await readTexts(client, "_kv/prod");
      const plan = await planFor(client, state, { instances: [], environment: "stage" });
      await writeClusterState(client, plan, { operation: "op" });
      const stage = await readClusterState(client, { ...PROD, environment: "stage" });
      expect(stage.keys.map(({ key }) => key)).toEqual(
        Object.keys(TAKEN).map((key) => key.replace("/prod/", "/stage/")),
      );
      const topic = stage.keys.find(({ key }) => key.startsWith("/topic"))?.value ?? "";
      const [consumer, other] = fromBinary(TopicSchema, bytesOf(topic)).consumers;
      expect([consumer?.service?.environment, other?.service?.environment]).toEqual([
        "stage",
        "elsewhere",
      ]);
      expect(await readTexts(client, "_kv/prod")).toEqual(prod);
      expect(sameClusterState(state, await readClusterState(client, PROD))).toBe(true);
    });

    test("maps the placement, and the aggregator's by its host", async () => {
      const state = await readClusterState(client, PROD);
      const to = (id: string) => ({ id, endpoint: `${id}.new:9000`, hostname: `${id}.new` });
      const instances = [
        { from: "a", to: to("b") },
        { from: "b", to: to("c") },
        { from: "c", to: to("a") },
      ];
      const plan = await planFor(client, state, { instances });
      expect(plan.changes.map(({ key, last }) => [key, last])).toEqual([
        ["/placement/prod/m3aggregator", false],
        ["_sd.placement/prod/m3db", true],
      ]);
      await writeClusterState(client, plan, { operation: "op" });
      const after = await readClusterState(client, PROD);
      expect(after.placement.instances.map(({ id, endpoint }) => [id, endpoint])).toEqual([
        ["a", "a.new:9000"],
        ["b", "b.new:9000"],
        ["c", "c.new:9000"],
      ]);
      const shards = (id: string, from: ClusterState) =>
        from.placement.instances.find((instance) => instance.id === id)?.shards;
      expect(shards("b", after)).toEqual(shards("a", state));
      const texts = await readTexts(client, "/placement/prod/");
      expect(texts["/placement/prod/m3aggregator"]).toContain("b.new:6000");
    });

    test("lets instances without data fetch theirs from the others", async () => {
      const state = await readClusterState(client, PROD);
      const plan = await planFor(client, state, { instances: [], missing: ["b"] });
      const [change] = plan.changes;
      const placement = describePlacement(parsePlacement(bytesOf(change?.value ?? "")));
      expect(placement.instances[1]?.shards[0]?.state).toBe("initializing");
      expect(plan.notes).toEqual(["b fetches its shards from the other owners"]);
    });

    test("writes other keys first and the placement last where one transaction is too small", async () => {
      const more = Object.fromEntries(
        Array.from({ length: 300 }, (_, index) => [`_kv/prod/rule-${1000 + index}`, `${index}`]),
      );
      await putAll(client, more);
      const state = await readClusterState(client, PROD);
      const plan = await planFor(client, state, { instances: [], environment: "stage" });
      const { transactionCount } = await writeClusterState(client, plan, { operation: "op" });
      expect(transactionCount).toBe(6);
      const stage = await client.readPrefix(encodeText("_kv/stage/"));
      const placement = await client.get(encodeText("_sd.placement/stage/m3db"));
      const namespaces = await client.get(encodeText("_kv/stage/m3db.node.namespaces"));
      expect(namespaces?.modRevision).toBe(placement!.modRevision);
      const others = stage.entries.filter(
        ({ modRevision }) => modRevision < placement!.modRevision,
      );
      expect(others.length).toBe(stage.entries.length - 1);
    });

    test("goes on where an earlier try stopped", async () => {
      const state = await readClusterState(client, PROD);
      const plan = await planFor(client, state, { instances: [], environment: "stage" });
      const limits = { operationCount: 2, sizeBytes: 1_000_000 };
      const half = { ...plan, changes: plan.changes.slice(0, 3) };
      await writeClusterState(client, half, { operation: "op", limits });
      const wanted = { changedCount: plan.changes.length - 3, doneCount: 3 };
      const rest = await writeClusterState(client, plan, { operation: "op", limits });
      expect(rest).toMatchObject(wanted);
      await undoClusterState(client, { environment: "stage", operation: "op" });
      expect(await readTexts(client, "_kv/stage/")).toEqual({});
    });

    test("is refused when a key changed between plan and write", async () => {
      const state = await readClusterState(client, PROD);
      await putAll(client, { "_kv/prod//ruleset/default": "newer" });
      const plan = await planFor(client, state, { instances: [] });
      await putAll(client, { "_kv/prod//ruleset/default": "newest" });
      const error = await errorOf(writeClusterState(client, plan, { operation: "op" }));
      expect(error).toMatchObject({ kind: "conflict", retryable: false });
      expect(error.message).toContain("_kv/prod//ruleset/default");
      expect((await readTexts(client, "_kv/prod//ruleset/"))["_kv/prod//ruleset/default"]).toBe(
        "newest",
      );
      expect(await listUndoRecords(client, { environment: "prod" })).toEqual([]);
    });

    test("can be planned as JSON", async () => {
      const state = await readClusterState(client, PROD);
      const plan = await planFor(client, state, { instances: [], environment: "stage" });
      expect(parseClusterStatePlan(JSON.parse(JSON.stringify(plan)))).toEqual(plan);
      expect(() => parseClusterStatePlan({ ...plan, changes: [1] })).toThrow("not as it was made");
    });
  });

  describe("taking back", () => {
    test("puts every key back, the deleted and the new ones too, and forgets the record", async () => {
      const state = await readClusterState(client, PROD);
      const changed = { "_kv/prod//ruleset/default": "changed", "_kv/prod/extra": "x" };
      await putAll(client, { ...changed, "_sd.placement/prod/m3db": movingPlacement() });
      await client.transact({ writes: [{ delete: encodeText("_kv/prod//namespaces") }] });
      const before = { ...(await readTexts(client, "_")), ...(await readTexts(client, "/")) };
      const plan = await planFor(client, state, { instances: [] });
      await writeClusterState(client, plan, { operation: "op" });
      expect(sameClusterState(state, await readClusterState(client, PROD))).toBe(true);
      expect(await listUndoRecords(client, { environment: "prod" })).toEqual(["op"]);
      const undone = await undoClusterState(client, { environment: "prod", operation: "op" });
      expect(undone).toEqual({ changedCount: 4, doneCount: 0, transactionCount: 1 });
      const after = { ...(await readTexts(client, "_")), ...(await readTexts(client, "/")) };
      expect(after).toEqual(before);
      expect(await readTexts(client, "astacus/")).toEqual({});
    });

    test("is refused where somebody changed a key since", async () => {
      const state = await readClusterState(client, PROD);
      await putAll(client, { "_kv/prod//ruleset/default": "changed" });
      const plan = await planFor(client, state, { instances: [] });
      await writeClusterState(client, plan, { operation: "op" });
      await putAll(client, { "_kv/prod//ruleset/default": "changed again" });
      const options = { environment: "prod", operation: "op" };
      expect(await errorOf(undoClusterState(client, options))).toMatchObject({ kind: "conflict" });
    });

    test("says that there is nothing to take back", async () => {
      const options = { environment: "prod", operation: "never" };
      expect(await errorOf(undoClusterState(client, options))).toMatchObject({ kind: "not-found" });
    });
  });
}

async function planFor(
  client: EtcdClient,
  state: ClusterState,
  options: Omit<PlanStateOptions, "target" | "environment"> & { readonly environment?: string },
) {
  const environment = options.environment ?? state.environment;
  const target = await readTargetState(client, { ...state, environment });
  return planClusterState(state, { ...options, environment, target });
}

function deleteAll(prefix: string) {
  const end = encodeText(prefix.slice(0, -1) + "0");
  return { delete: encodeText(prefix), rangeEnd: end };
}

function movingPlacement(): Uint8Array {
  const instances = ABC.map((instance): WireInstance => {
    if (instance.id !== "a") return instance;
    return { ...instance, shards: instance.shards.map(({ id }) => ({ id, state: 0 })) };
  });
  return placementBytes({ instances, replicaFactor: 2, shardCount: 6 });
}

function topicBytes(environment: string): Uint8Array {
  const writer = new BinaryWriter();
  writer.tag(1, WireType.LengthDelimited).string("aggregated_metrics");
  writer.tag(2, WireType.Varint).uint32(64);
  for (const name of [environment, "elsewhere"]) {
    const service = new BinaryWriter();
    service.tag(1, WireType.LengthDelimited).string("m3coordinator");
    service.tag(2, WireType.LengthDelimited).string(name);
    const consumer = new BinaryWriter();
    consumer.tag(1, WireType.LengthDelimited).bytes(service.finish());
    consumer.tag(2, WireType.Varint).uint32(1);
    writer.tag(3, WireType.LengthDelimited).bytes(consumer.finish());
  }
  return writer.finish();
}

function pick(values: Readonly<Record<string, string>>, prefix: string): Record<string, string> {
  return Object.fromEntries(Object.entries(values).filter(([key]) => key.startsWith(prefix)));
}

function bytesOf(base64: string): Uint8Array {
  return new Uint8Array(Buffer.from(base64, "base64"));
}
