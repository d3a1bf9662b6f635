/** Globs of a restore that match nothing, on all nodes or on some. */
import { expect, test } from "bun:test";
import { SimulatedCluster } from "../simulation/simulated-cluster.ts";
import { PRODUCT_ROOT } from "../simulation/simulated-node.ts";
import type { SimulatedNode } from "../simulation/simulated-node.ts";

async function backedUp(): Promise<SimulatedCluster> {
  const cluster = await SimulatedCluster.create({ seed: 2, nodeCount: 2, product: "files" });
  const [a, b] = cluster.nodes as [SimulatedNode, SimulatedNode];
  write(a, "only-here");
  write(b, "only-there");
  await cluster.heal();
  const record = await cluster.end(a, a.member.startBackup({ name: "one" }));
  expect(record?.state).toBe("done");
  return cluster;
}

function write({ files }: SimulatedNode, name: string): void {
  const handle = files.open(`${PRODUCT_ROOT}/${name}`, "create");
  files.write(handle, Uint8Array.of(1, 2, 3), 0);
  files.close(handle);
}

test("a restore whose globs match nothing on any node is refused, and its plan says why", async () => {
  const cluster = await backedUp();
  const [node] = cluster.nodes as [SimulatedNode];
  const { signal } = new AbortController();
  const request = { backup: "one", paths: ["nothing/*", "*.none"] };
  const plan = await cluster.clock.run(node.member.planRestore(request, signal));
  const why = "nothing in the backup matches `nothing/*`, `*.none`";
  expect(plan.refusals).toEqual([expect.stringContaining(why)]);
  const record = await cluster.end(node, node.member.startRestore(request));
  expect(record?.state).toBe("failed");
  expect(record?.error).toMatchObject({ kind: "refused" });
  expect(record?.error?.message).toContain(why);
  const aside = { backup: "one", target: "/r", ownerPolicy: "none", paths: ["nothing/*"] } as const;
  const offline = await cluster.read((reader) => reader.planRestoreTo(aside));
  expect(offline.refusals).toEqual([expect.stringContaining("`nothing/*`")]);
});

test("one node that has a match is enough", async () => {
  const cluster = await backedUp();
  const [node] = cluster.nodes as [SimulatedNode];
  const { signal } = new AbortController();
  const request = { backup: "one", paths: ["only-there"] };
  const plan = await cluster.clock.run(node.member.planRestore(request, signal));
  expect(plan.refusals).toEqual([]);
  const record = await cluster.end(node, node.member.startRestore(request));
  expect(record?.state).toBe("done");
  const aside = { ...request, target: "/r", ownerPolicy: "none" } as const;
  const offline = await cluster.read((reader) => reader.planRestoreTo(aside));
  expect(offline.refusals).toEqual([]);
});
