/**
 * Operations that go on by themselves: a node that restarts while it works costs another attempt,
 * not another command.
 */
import { describe, expect, test } from "bun:test";
import { changeFiles, differences, readTree } from "./cluster-data.ts";
import { SimulatedCluster } from "./simulated-cluster.ts";
import { PRODUCT_ROOT } from "./simulated-node.ts";
import type { SimulatedNode } from "./simulated-node.ts";

describe("a node that restarts", () => {
  test("costs a restore another attempt, and no command", async () => {
    const cluster = await openCluster();
    const [coordinator, other] = cluster.nodes as [SimulatedNode, SimulatedNode];
    const backup = await cluster.end(coordinator, coordinator.member.startBackup({ name: "one" }));
    expect(backup?.error).toBeUndefined();
    const wanted = readTree(other.files, PRODUCT_ROOT);
    other.replace();
    await cluster.clock.run(other.start());

    const started = coordinator.member.startRestore({ backup: "one" });
    restartAt(cluster, other, "rename");
    const record = await cluster.end(coordinator, started);

    expect(record?.error).toBeUndefined();
    expect(record?.state).toBe("done");
    expect(differences(wanted, readTree(other.files, PRODUCT_ROOT))).toEqual([]);
  });

  test("costs a backup another attempt, and no command", async () => {
    const cluster = await openCluster();
    const [coordinator, other] = cluster.nodes as [SimulatedNode, SimulatedNode];

    const started = coordinator.member.startBackup({ name: "one" });
    restartAt(cluster, other, "open");
    const record = await cluster.end(coordinator, started);

    expect(record?.error).toBeUndefined();
    expect(record?.result).toMatchObject({ attempts: 2, complete: true });
  });
});

async function openCluster(): Promise<SimulatedCluster> {
  const cluster = await SimulatedCluster.create({ seed: 5, nodeCount: 2, product: "files" });
  for (const { files } of cluster.nodes) {
    for (let count = 3; count > 0; count -= 1) changeFiles(files, PRODUCT_ROOT, cluster.random);
  }
  return cluster;
}

/** The process dies at its next such call of its disk, and is started again a second later. */
function restartAt(cluster: SimulatedCluster, node: SimulatedNode, call: string): void {
  node.life.hook = (_, door, name) => {
    if (door !== "files" || !name.startsWith(call)) return;
    node.kill();
    cluster.clock.at(1000, () => void node.start());
  };
}
