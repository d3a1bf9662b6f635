/**
 * Every crash point of a backup, a restore and a cleanup: the process of one node dies at each of its
 * calls to disk, site, database and network, before and after the effect. The same command given once
 * more succeeds, and what is listed restores.
 */
import { describe, expect, test } from "bun:test";
import { CRASH_LOOP_MS_MAX } from "./chosen-points.ts";
import { differences, readTree } from "./cluster-data.ts";
import { tryCrashPoints } from "./crash-points.ts";
import type { CrashScenario, CrashWorld } from "./crash-points.ts";
import { PRODUCT_ROOT } from "./simulated-node.ts";
import type { SimulatedProduct } from "./simulated-node.ts";

/** Of each loop; all of them by `bun run crash-points`. */
const POINT_COUNT = 16;

describe("a crash at any point", () => {
  const scenarios: readonly (readonly [string, CrashScenario])[] = [
    ["of a backup alone", backup("files", 1, 0)],
    ["of a backup's coordinator", backup("scripted", 2, 0)],
    ["of a backup's other node", backup("scripted", 2, 1)],
    ["of a restore alone", restore("files", 1, 0)],
    ["of a restore's coordinator", restore("scripted", 2, 0)],
    ["of a restore's other node", restore("scripted", 2, 1)],
    ["of a cleanup", cleanup()],
  ];
  for (const [name, scenario] of scenarios) {
    test(
      `${name} costs nothing but the same command once more`,
      () => tryCrashPoints(name, scenario, POINT_COUNT),
      CRASH_LOOP_MS_MAX,
    );
  }
});

function backup(product: SimulatedProduct, nodeCount: number, victim: number): CrashScenario {
  return {
    product,
    nodeCount,
    victim,
    prepare: async () => undefined,
    command: (node) => node.member.startBackup({ name: "wanted" }),
    check: async (world) => {
      const listed = await world.cluster.listed();
      expect(listed.map(({ complete }) => complete)).not.toContain(false);
      expect(listed.length).toBeGreaterThan(0);
      for (const { id } of listed) await checkBackup(world, id);
    },
  };
}

function restore(product: SimulatedProduct, nodeCount: number, victim: number): CrashScenario {
  return {
    product,
    nodeCount,
    victim,
    async prepare(world) {
      await backUp(world, "wanted");
      for (const node of world.cluster.nodes) {
        node.replace();
        await world.cluster.clock.run(node.start());
      }
    },
    command: (node) => node.member.startRestore({ backup: "wanted" }),
    async check(world) {
      const [found] = await world.cluster.listed();
      const disk = await world.cluster.restoreAside(found!.id);
      for (const { name, files } of world.cluster.nodes) {
        const wanted = product === "files" ? `/r/${name}/root` : `/r/${name}`;
        const there = readTree(files, PRODUCT_ROOT);
        const placed = [...there].filter(([path]) => isBackedUp(path));
        const held = [...readTree(disk, wanted)].filter(([path]) => isBackedUp(path));
        expect(differences(new Map(held), new Map(placed))).toEqual([]);
      }
    },
  };
}

/** One backup of three stays; the second cleanup deletes what the first one retired. */
function cleanup(): CrashScenario {
  const request = { retention: { minimum: 1, maximum: 1 }, undoWindowMs: 0, sweep: true };
  return {
    product: "files",
    nodeCount: 1,
    victim: 0,
    async prepare(world) {
      for (const name of ["one", "two", "three"]) {
        const handle = world.victim.files.open(`${PRODUCT_ROOT}/${name}`, "create");
        world.victim.files.write(handle, new Uint8Array(9000).fill(name.length), 0);
        world.victim.files.close(handle);
        await backUp(world, name);
        world.victim.files.unlink(`${PRODUCT_ROOT}/${name}`);
      }
      const first = world.victim.member.startCleanup(request);
      expect((await world.cluster.end(world.victim, first))?.state).toBe("done");
    },
    command: (node) => node.member.startCleanup(request),
    async check(world) {
      const listed = await world.cluster.listed();
      expect(listed.map(({ name }) => name)).toEqual(["three"]);
      const disk = await world.cluster.restoreAside(listed[0]!.id);
      expect(disk.lstat("/r/a/root/three")?.sizeBytes).toBe(9000);
      const verify = world.victim.member.startVerify({ deep: true });
      const record = await world.cluster.end(world.victim, verify);
      expect(record?.result).toMatchObject({ ok: true });
    },
  };
}

async function backUp(world: CrashWorld, name: string): Promise<void> {
  const started = world.coordinator.member.startBackup({ name });
  const record = await world.cluster.end(world.coordinator, started);
  expect(record?.error).toBeUndefined();
}

/** The backup holds what lies on the nodes, who have not changed it since. */
async function checkBackup(world: CrashWorld, id: string): Promise<void> {
  const disk = await world.cluster.restoreAside(id);
  for (const { name, files } of world.cluster.nodes) {
    const isToy = world.cluster.product === "scripted";
    const tree = readTree(disk, isToy ? `/r/${name}` : `/r/${name}/root`);
    const found = new Map([...tree].filter(([path]) => isBackedUp(path)));
    const there = [...readTree(files, PRODUCT_ROOT)];
    const wanted = there.filter(([path]) => isBackedUp(path));
    expect(differences(new Map(wanted), found)).toEqual([]);
  }
}

/** The toy's marker and registry are not in a backup, and neither are the roots of volumes. */
function isBackedUp(path: string): boolean {
  return !/^(registry|running|logs$|snapshots$|filesets$)/.test(path);
}
