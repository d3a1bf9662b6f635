/**
 * What walks of the simulator have found, each as a short history of its own, named for what went
 * wrong and with the seed that showed it.
 */
import { describe, expect, test } from "bun:test";
import { differences, readTree } from "./cluster-data.ts";
import { seededRandom } from "../sites/still-clock.ts";
import { listKeys } from "./walk-damage.ts";
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

  test("a rotten list of chunks ended a backup that could have read the file again", async () => {
    const { cluster, node } = await openAlone();
    // More chunks than a record holds: the list is a tree of its own.
    writeFile(node, "long", 10_000_000);
    await cluster.heal();
    await mustEnd(cluster, node, "one");
    let last = "one";
    const failures: (string | undefined)[] = [];
    for (const [index, key] of (await listPacks(cluster)).entries()) {
      // Nobody vouches for the file any more: its list is looked up.
      const gone = node.member.startMark("delete", { backups: [last] });
      expect((await cluster.end(node, gone))?.state).toBe("done");
      cluster.store.shades.set(key, { kind: "torn" });
      const name = `with ${key}`;
      const record = await cluster.end(node, node.member.startBackup({ name }));
      failures.push(record?.error?.message);
      await cluster.heal();
      last = `after ${index}`;
      await mustEnd(cluster, node, last);
      if (record?.state !== "done") continue;
      const also = node.member.startMark("delete", { backups: [name] });
      await cluster.end(node, also);
    }
    expect(failures.filter((message) => message === undefined).length).toBeGreaterThan(2);
    // A rotten pack list is another matter: whoever needs it cannot be listed.
    expect(failures.filter((message) => message?.includes(", store: ") === true)).toEqual([]);

    const wanted = readTree(node.files, PRODUCT_ROOT);
    const { id } = (await cluster.listed()).at(-1)!;
    expect(differences(wanted, readTree(await cluster.restoreAside(id), "/r/a/root"))).toEqual([]);
  });

  test("a status failed as a whole where the site did not answer", async () => {
    const { cluster, node } = await openAlone();
    await mustEnd(cluster, node, "one");
    cluster.siteRates = { storm: 1 };
    // What the site said a moment ago would do.
    await cluster.clock.pass(60_000);
    const { signal } = new AbortController();
    const status = await cluster.clock.run(node.member.status(signal));
    expect(status.siteError).toContain("overloaded");
    expect(status).toMatchObject({ backups: 1, lastComplete: { name: "one" } });
  });
});

async function openAlone(): Promise<{
  readonly cluster: SimulatedCluster;
  readonly node: SimulatedNode;
}> {
  const cluster = await SimulatedCluster.create({ seed: 1, nodeCount: 1, product: "files" });
  return { cluster, node: cluster.nodes[0]! };
}

async function listPacks(cluster: SimulatedCluster): Promise<string[]> {
  return (await listKeys(cluster)).filter((key) => key.startsWith("pack/"));
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
  node.files.write(handle, content(sizeBytes), 0);
  node.files.close(handle);
}

/** The same few chunks again and again. */
function content(sizeBytes: number): Uint8Array {
  const block = seededRandom(7).bytes(Math.min(sizeBytes, 100_000));
  const bytes = new Uint8Array(sizeBytes);
  for (let offset = 0; offset < sizeBytes; offset += block.length) {
    bytes.set(block.subarray(0, sizeBytes - offset), offset);
  }
  return bytes;
}
