/**
 * What a coordinator checks before it begins, over real members in a simulated cluster: everybody is
 * who he should be, sees one repository and one history, and speaks one protocol; a cluster in the
 * middle of a rolling upgrade is served.
 */
import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import { Repository } from "../../src/cas/log/repository.ts";
import type { OperationRecord } from "../../src/cluster/operations.ts";
import type { HelloAnswer, JsonValue } from "../../src/cluster/protocol.ts";
import { helloRequestSchema, PROTOCOL_VERSION } from "../../src/cluster/protocol.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import { changeFiles } from "../simulation/cluster-data.ts";
import { SimulatedCluster } from "../simulation/simulated-cluster.ts";
import { PRODUCT_ROOT } from "../simulation/simulated-node.ts";

describe("a backup is refused", () => {
  test("when another node answers at the address", async () => {
    const error = await refusalOf({ node: "x" });
    expect(error.message).toBe("At sim://b answers node x, not b.");
    expect(error.guidance).toContain("addresses");
  });

  test("when a node sees another repository, naming both places", async () => {
    const other = "e".repeat(32);
    const error = await refusalOf({ repository: other, location: "file:/elsewhere" });
    expect(error.message).toContain("Node b sees another repository");
    expect(error.message).toContain(`file:/elsewhere (repository ${other}`);
    expect(error.message).toContain("sim:store");
  });

  test("when a node has read another history, naming both places and the entry", async () => {
    const head = { sequence: 1, hash: "0".repeat(64) };
    const error = await refusalOf({ head, location: "file:/a-copy" });
    expect(error.message).toContain("file:/a-copy");
    expect(error.message).toContain("at entry 1 they differ");
  });

  test("when a node has read further than the log goes here", async () => {
    const head = { sequence: 1000, hash: "0".repeat(64) };
    expect((await refusalOf({ head })).message).toContain("at entry 1000 they differ");
  });

  test("when a node is configured for another product", async () => {
    const error = await refusalOf({ product: "m3" });
    expect(error.message).toBe("Node b is configured for product m3, this node for files.");
  });

  test("when a node answers in a form of another version", async () => {
    const error = await refusalOf({ colour: "green" } as Partial<HelloAnswer>);
    expect(error.message).toBe("Node b answered hello in a form we do not know.");
    expect(error.guidance).toContain("same one");
  });
});

describe("a node refuses a coordinator", () => {
  test("of another cluster, naming both", async () => {
    const error = await helloTo({ cluster: "other" });
    expect(error.message).toBe("Node b belongs to cluster simulated, not to other.");
  });

  test("of another protocol, naming both versions and numbers, whatever else it sends", async () => {
    const error = await helloTo({ protocol: PROTOCOL_VERSION - 1, version: "0.9", colour: "red" });
    expect(error).toMatchObject({
      kind: "refused",
      guidance: expect.stringContaining("one version"),
    });
    expect(error.message).toContain("Astacus 1.0.0) speaks protocol");
    expect(error.message).toContain("the coordinator (Astacus 0.9)");
  });

  test("that asks in a form that it does not know", async () => {
    const cluster = await open();
    const asked = ask(cluster, "lease", { operation: "not an id" });
    expect(asked).rejects.toMatchObject({ kind: "refused", context: { method: "lease" } });
  });
});

test("three nodes of three versions and one protocol back up, and the manifest says who ran what", async () => {
  const cluster = await open(3);
  const versions = ["1.0.0", "1.0.1", "1.1.0"];
  for (const [index, node] of cluster.nodes.entries()) {
    node.version = versions[index]!;
    await cluster.clock.run(cluster.restart(node));
  }
  const record = await backUp(cluster);
  expect(record).toMatchObject({ state: "done" });
  const detail = await cluster.clock.run(cluster.nodes[0]!.member.showBackup("wanted"));
  expect(detail.shares.map(({ version }) => version)).toEqual(versions);
});

test("a node whose repository has another site id never opens", async () => {
  const cluster = await open();
  const node = cluster.nodes[1]!;
  node.kill();
  const store = new MemorySite("store", new Map());
  const { clock, random } = cluster;
  const chunker = { rule: "astacus-cdc-1", averageSizeBytes: 8192 } as const;
  await clock.run(Repository.init(store, { doors: { clock, random }, chunker }));
  cluster.store.objects.clear();
  for (const [key, bytes] of store.objects) cluster.store.objects.set(key, bytes);
  expect(clock.run(node.start())).rejects.toMatchObject({ kind: "refused" });
});

test("the second attempt of a backup gets the leases though the first one's release was lost", async () => {
  const cluster = await open();
  const [, other] = cluster.nodes;
  let lost = 0;
  cluster.network.listen("sim://b", {
    life: other!.life,
    async handle(method, body, options) {
      if (method === "release" && lost === 0) {
        lost += 1;
        throw new AppError("unavailable", "the line broke");
      }
      if (method === "phase" && lost === 0) throw new AppError("timeout", "too slow");
      return await other!.member.handle(method, body, options);
    },
  });
  const record = await backUp(cluster);
  expect(record).toMatchObject({ state: "done", result: { attempts: 2 } });
  expect(lost).toBe(1);
});

test("a cancelled backup releases its nodes at once, and the next one runs", async () => {
  const cluster = await open();
  const node = cluster.nodes[0]!;
  const started = node.member.startBackup({ name: "unwanted" });
  cluster.clock.at(60, () => node.member.operations.cancel(started.id, "by hand"));
  expect(await cluster.end(node, started)).toMatchObject({ state: "cancelled" });
  const before = cluster.clock.monotonic();
  expect(await backUp(cluster)).toMatchObject({ state: "done" });
  expect(cluster.clock.monotonic() - before).toBeLessThan(10_000);
  expect((await cluster.listed()).map(({ name }) => name)).toEqual(["wanted"]);
});

test("a second backup on one coordinator is refused while the first one runs", async () => {
  const cluster = await open();
  const node = cluster.nodes[0]!;
  const started = node.member.startBackup({});
  expect(() => node.member.startBackup({})).toThrow(`operation ${started.id}`);
  await cluster.end(node, started);
});

/** How a backup fails when node b says hello with something changed. */
async function refusalOf(change: Partial<HelloAnswer>): Promise<AppError> {
  const cluster = await open();
  const other = cluster.nodes[1]!;
  cluster.network.listen("sim://b", {
    life: other.life,
    async handle(method, body, options) {
      const answer = await other.member.handle(method, body, options);
      return method === "hello" ? { ...(answer as object), ...change } : answer;
    },
  });
  const record = await backUp(cluster);
  expect(record).toMatchObject({ state: "failed", error: { kind: "refused" } });
  expect(await cluster.listed()).toEqual([]);
  return new AppError("refused", record.error!.message, { guidance: record.error!.guidance ?? "" });
}

async function helloTo(change: Record<string, JsonValue>): Promise<AppError> {
  const cluster = await open();
  const request = { protocol: PROTOCOL_VERSION, cluster: "simulated", version: "1.0.0" };
  expect(helloRequestSchema.safeParse({ ...request, ...change }).success).toBe(true);
  return await ask(cluster, "hello", { ...request, ...change }).then(
    () => expect.unreachable(),
    (thrown: AppError) => thrown,
  );
}

async function ask(cluster: SimulatedCluster, method: string, body: unknown): Promise<JsonValue> {
  const options = { signal: new AbortController().signal, emit: () => undefined };
  return await cluster.clock.run(cluster.nodes[1]!.member.handle(method, body, options));
}

async function backUp(cluster: SimulatedCluster): Promise<OperationRecord> {
  const node = cluster.nodes[0]!;
  return (await cluster.end(node, node.member.startBackup({ name: "wanted" })))!;
}

async function open(nodeCount = 2): Promise<SimulatedCluster> {
  const cluster = await SimulatedCluster.create({ seed: 3, nodeCount, product: "files" });
  for (const { files } of cluster.nodes) changeFiles(files, PRODUCT_ROOT, cluster.random);
  return cluster;
}
