/**
 * Crash points of one operation: counts every call that one node's process makes through its doors,
 * then runs the same world again and again, each time with a crash at another call, before or after
 * its effect. The process is started again and the same command given once more.
 */
import type { OperationRecord } from "../../src/cluster/operations.ts";
import { changeFiles } from "./cluster-data.ts";
import { SimulatedCluster } from "./simulated-cluster.ts";
import type { SimulatedProduct } from "./simulated-node.ts";
import { PRODUCT_ROOT } from "./simulated-node.ts";
import type { SimulatedNode } from "./simulated-node.ts";
import type { DoorName } from "./simulated-process.ts";

/** What crashes, and where. */
export type CrashScenario = {
  readonly product: SimulatedProduct;
  readonly nodeCount: number;
  /** The node whose process crashes; the first one coordinates. */
  readonly victim: number;
  /** Brings the world to the point where the operation begins. */
  readonly prepare: (world: CrashWorld) => Promise<void>;
  readonly command: (node: SimulatedNode) => OperationRecord;
  /** What must hold when the command has been given once more. */
  readonly check: (world: CrashWorld) => Promise<void>;
};

/** A world with one process that may be told to crash. */
export type CrashWorld = {
  readonly cluster: SimulatedCluster;
  readonly coordinator: SimulatedNode;
  readonly victim: SimulatedNode;
};

/** The calls of an operation, by door. */
export type CrashCount = {
  readonly calls: number;
  readonly byDoor: Readonly<Record<string, number>>;
};

/** Where to crash: at the call of this number, before or after its effect. */
export type CrashPoint = { readonly call: number; readonly point: "before" | "after" };

/** How many calls the victim makes while the operation runs undisturbed. */
export async function countCalls(scenario: CrashScenario): Promise<CrashCount> {
  const world = await openWorld(scenario);
  const byDoor: Record<string, number> = {};
  let calls = 0;
  world.victim.life.hook = (point, door: DoorName) => {
    if (point === "after") return;
    calls += 1;
    byDoor[door] = (byDoor[door] ?? 0) + 1;
  };
  const started = scenario.command(world.coordinator);
  const record = await world.cluster.end(world.coordinator, started);
  if (record?.state !== "done") throw new Error(`undisturbed: ${JSON.stringify(record?.error)}`);
  world.victim.life.hook = undefined;
  await scenario.check(world);
  return { calls, byDoor };
}

/** Crashes at one point, starts again, gives the command once more; throws what does not hold. */
export async function crashAt(scenario: CrashScenario, at: CrashPoint): Promise<void> {
  const world = await openWorld(scenario);
  const { cluster, coordinator, victim } = world;
  let calls = 0;
  victim.life.hook = (point) => {
    if (point === "before") calls += 1;
    if (calls === at.call && point === at.point) victim.kill();
  };
  const started = scenario.command(coordinator);
  const first = await cluster.end(coordinator, started);
  if (victim.isUp) victim.life.hook = undefined;
  if (!victim.isUp) await cluster.clock.run(cluster.restart(victim));
  if (first?.state !== "done") {
    const again = await cluster.end(coordinator, scenario.command(coordinator));
    if (again?.state !== "done") {
      throw new Error(`the same command once more: ${JSON.stringify(again?.error)}`);
    }
  }
  await scenario.check(world);
  await cluster.heal();
}

/** All points of so many calls, thinned out evenly to at most `countMax`. */
export function crashPoints(calls: number, countMax: number): CrashPoint[] {
  const all = Array.from({ length: calls }, (_, index) => index + 1).flatMap((call) => [
    { call, point: "before" } as const,
    { call, point: "after" } as const,
  ]);
  if (all.length <= countMax) return all;
  const stride = all.length / countMax;
  return Array.from({ length: countMax }, (_, index) => all[Math.floor(index * stride)]!);
}

async function openWorld(scenario: CrashScenario): Promise<CrashWorld> {
  const { product, nodeCount } = scenario;
  const cluster = await SimulatedCluster.create({ seed: 1, nodeCount, product });
  for (const node of cluster.nodes) {
    const toy = cluster.toys.get(node.name);
    if (toy === undefined) changeFiles(node.files, PRODUCT_ROOT, cluster.random);
    toy?.append("first");
    toy?.snapshot();
    toy?.append("second");
  }
  const world = {
    cluster,
    coordinator: cluster.nodes[0]!,
    victim: cluster.nodes[scenario.victim]!,
  };
  await scenario.prepare(world);
  return world;
}
