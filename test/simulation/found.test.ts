/**
 * What walks of the simulator have found, each as a short history of its own, named for what went
 * wrong and with the seed that showed it.
 */
import { describe, expect, test } from "bun:test";
import { differences, readTree } from "./cluster-data.ts";
import { SimulatedCluster } from "./simulated-cluster.ts";
import { PRODUCT_ROOT } from "./simulated-node.ts";
import type { SimulatedNode } from "./simulated-node.ts";

describe("found by a walk", () => {
  test("an attribute of a file that a restore had kept was in no later backup (seed 90)", async () => {
    const { cluster, node } = await openAlone();
    writeFile(node, "kept", 9000);
    await mustEnd(cluster, node, "one");
    node.files.setXattr(`${PRODUCT_ROOT}/kept`, "user.kind", Uint8Array.of(1, 2));
    // Its ctime is settled when the restore enters it.
    await cluster.heal();
    const restore = node.member.startRestore({ backup: "one" });
    expect((await cluster.end(node, restore))?.state).toBe("done");
    await cluster.heal();

    for (const name of ["two", "three"]) {
      await mustEnd(cluster, node, name);
      const wanted = readTree(node.files, PRODUCT_ROOT);
      const { id } = (await cluster.listed()).at(-1)!;
      const found = readTree(await cluster.restoreAside(id), "/r/a/root");
      expect(differences(wanted, found)).toEqual([]);
      await cluster.heal();
    }
  });
});

async function openAlone(): Promise<{
  readonly cluster: SimulatedCluster;
  readonly node: SimulatedNode;
}> {
  const cluster = await SimulatedCluster.create({ seed: 1, nodeCount: 1, product: "files" });
  return { cluster, node: cluster.nodes[0]! };
}

async function mustEnd(
  cluster: SimulatedCluster,
  node: SimulatedNode,
  name: string,
): Promise<unknown> {
  const record = await cluster.end(node, node.member.startBackup({ name }));
  expect(record?.error).toBeUndefined();
  return record?.result;
}

function writeFile(node: SimulatedNode, name: string, sizeBytes: number): void {
  const handle = node.files.open(`${PRODUCT_ROOT}/${name}`, "create");
  node.files.write(handle, new Uint8Array(sizeBytes).fill(7), 0);
  node.files.close(handle);
}
