/**
 * An encrypted cluster in a simulated world: nodes without an identity back up, clean up, fill mirrors
 * and go on after they died; whoever has the identity restores from any site alone.
 */
import { describe, expect, test } from "bun:test";
import type { BackupResult } from "../../src/cluster/backup-operation.ts";
import type { OperationRecord } from "../../src/cluster/operations.ts";
import { ENCRYPTION, READER, STRANGER } from "../cas/encryption-keys.ts";
import { changeFiles, differences, readTree } from "./cluster-data.ts";
import { SimulatedCluster } from "./simulated-cluster.ts";
import type { SimulatedNode } from "./simulated-node.ts";
import { PRODUCT_ROOT } from "./simulated-node.ts";

describe("nodes of an encrypted cluster", () => {
  test("back up to the primary and a mirror, each of which restores alone", async () => {
    const cluster = await open();
    const { mirrors } = await backUp(cluster, "one");
    expect(mirrors.map(({ state }) => state)).toEqual(["acknowledged"]);
    change(cluster);
    await backUp(cluster, "two");
    expect((await backUp(cluster, "three")).readBytes).toBe(0);
    for (const site of [undefined, "east"]) await expectRestores(cluster, "three", site);
  });

  test("fill a mirror that was away from what they cannot open", async () => {
    const cluster = await open();
    cluster.stores.get("east")!.isDown = true;
    await backUp(cluster, "one");
    cluster.stores.get("east")!.isDown = false;
    await cluster.clock.pass(60_000);
    expect((await run(cluster, (node) => node.member.startSync())).error).toBeUndefined();
    await expectRestores(cluster, "one", "east");
  });

  test("forget, clean up and repack, and what is left restores", async () => {
    const cluster = await open();
    for (const name of ["one", "two", "three", "four"]) {
      change(cluster);
      await backUp(cluster, name);
    }
    for (const hours of [0, 2, 4]) {
      await cluster.clock.pass(hours * 3_600_000);
      const cleanup = { retention: { maximum: 1, minimum: 1 } };
      const record = await run(cluster, (node) => node.member.startCleanup(cleanup));
      expect(record.error).toBeUndefined();
    }
    await expectRestores(cluster, "four", undefined);
    const record = await run(cluster, (node) => node.member.startVerify({ deep: true }));
    expect(record).toMatchObject({ state: "done", result: { ok: true } });
  });

  test("go on after one died in the middle of a backup", async () => {
    const cluster = await open();
    const [node, other] = cluster.nodes as [SimulatedNode, SimulatedNode];
    const begun = node.member.startBackup({ name: "dead" });
    await cluster.clock.pass(40);
    other.kill();
    await cluster.end(node, begun);
    await cluster.clock.run(cluster.restart(other));
    await cluster.clock.pass(200_000);
    await backUp(cluster, "one");
    await expectRestores(cluster, "one", undefined);
  });

  test("restore with an identity that is given, and with no other", async () => {
    const cluster = await open();
    await backUp(cluster, "one");
    const wanted = cluster.nodes.map(({ files }) => readTree(files, PRODUCT_ROOT));
    change(cluster);
    for (const identities of [[], [STRANGER.identity]]) {
      const record = await run(cluster, (node) => node.member.startRestore({ identities }));
      expect(record).toMatchObject({ state: "failed", error: { kind: "permission" } });
    }
    const identities = [READER.identity];
    const record = await run(cluster, (node) => node.member.startRestore({ identities }));
    expect(record.error).toBeUndefined();
    expect(JSON.stringify(record)).not.toContain(READER.identity);
    for (const [index, node] of cluster.nodes.entries()) {
      // What came after the backup stays beside it.
      const found = differences(wanted[index]!, readTree(node.files, PRODUCT_ROOT));
      expect(found.filter((line) => !line.includes(": nothing became "))).toEqual([]);
    }
  });
});

async function open(): Promise<SimulatedCluster> {
  const cluster = await SimulatedCluster.create({
    seed: 5,
    nodeCount: 2,
    product: "files",
    mirrors: ["east"],
    encryption: { ...ENCRYPTION, identities: [READER.identity] },
  });
  for (let count = 0; count < 4; count += 1) change(cluster);
  await cluster.clock.pass(5_000);
  return cluster;
}

function change(cluster: SimulatedCluster): void {
  for (const { files } of cluster.nodes) changeFiles(files, PRODUCT_ROOT, cluster.random);
}

async function run(
  cluster: SimulatedCluster,
  begin: (node: SimulatedNode) => OperationRecord,
): Promise<OperationRecord> {
  const node = cluster.nodes[0]!;
  return (await cluster.end(node, begin(node)))!;
}

async function backUp(cluster: SimulatedCluster, name: string): Promise<BackupResult> {
  // A stat that was taken right after a change proves nothing.
  await cluster.clock.pass(5_000);
  const record = await run(cluster, (node) => node.member.startBackup({ name }));
  expect(record.error).toBeUndefined();
  return record.result as unknown as BackupResult;
}

async function expectRestores(
  cluster: SimulatedCluster,
  name: string,
  site: string | undefined,
): Promise<void> {
  const store = site === undefined ? cluster.store : cluster.stores.get(site)!;
  const files = await cluster.restoreAside(name, {}, store);
  for (const node of cluster.nodes) {
    const wanted = readTree(node.files, PRODUCT_ROOT);
    expect(wanted.size).toBeGreaterThan(0);
    expect(differences(wanted, readTree(files, `/r/${node.name}/root`))).toEqual([]);
  }
}
