/**
 * Crash points of one operation: notes every call that one node's process makes through its doors,
 * then runs the same world again and again, each time with a crash at another point: after each call
 * that may change something, before the first of them, and before each that begins while others are
 * under way. Everywhere else a crash leaves what it leaves at one of these, since the process has only
 * read meanwhile. It is started again, and the same command given once more, or another one.
 */
import type { Random } from "../../src/base/doors.ts";
import type { OperationRecord } from "../../src/cluster/operations.ts";
import { seededRandom } from "../sites/still-clock.ts";
import { choosePoints, describeCount } from "./chosen-points.ts";
import { changeFiles } from "./cluster-data.ts";
import { SimulatedCluster } from "./simulated-cluster.ts";
import type { SimulatedProduct } from "./simulated-node.ts";
import { PRODUCT_ROOT } from "./simulated-node.ts";
import type { SimulatedNode } from "./simulated-node.ts";
import type { StoreKind } from "./simulated-store.ts";

/** What crashes, and where. */
export type CrashScenario = {
  readonly product: SimulatedProduct;
  readonly nodeCount: number;
  /** The node whose process crashes; the first one coordinates. */
  readonly victim: number;
  /** Of the first site; objects unless told. */
  readonly store?: StoreKind;
  readonly mirrors?: readonly string[];
  /**
   * What happens to the victim; a kill unless told. With the power goes what was not synced: on its
   * disk, in its databases, and in all directories that are sites.
   */
  readonly fate?: "kill" | "power cut";
  /** True for a machine that comes back only after `afterwards`. */
  readonly staysDown?: boolean;
  /** Brings the world to the point where the operation begins. */
  readonly prepare: (world: CrashWorld) => Promise<void>;
  readonly command: (node: SimulatedNode) => OperationRecord;
  /**
   * What is done after the crash, with the record of the operation if its coordinator lives. Unless
   * told, the same command once more where it did not end well, and then it must.
   */
  readonly afterwards?: (world: CrashWorld, first: OperationRecord | undefined) => Promise<void>;
  /** What must hold then. */
  readonly check: (world: CrashWorld) => Promise<void>;
};

/** A world with one process that may be told to crash. */
export type CrashWorld = {
  readonly cluster: SimulatedCluster;
  readonly coordinator: SimulatedNode;
  readonly victim: SimulatedNode;
};

/** Calls that change nothing; all others may. */
const READS =
  /^(get|head|list|lstat|stat|statfs|read|readdir|readDirectory|readLink|readXattrs|open-r|dataRanges|isLocked|space)( |$)/;

/** Where to crash: at the call of this number, before or after its effect. */
export type CrashPoint = { readonly call: number; readonly point: "before" | "after" };

type Seen = {
  readonly points: readonly CrashPoint[];
  readonly calls: number;
  /** Calls that may change something. */
  readonly byDoor: Readonly<Record<string, number>>;
};

const FAILURES_SHOWN = 10;

/**
 * Tries the crash points of a scenario, `usual` of them unless the switch in chosen-points.ts says
 * more, and prints how many. Throws at the end, naming the points after which something did not hold.
 */
export async function tryCrashPoints(
  name: string,
  scenario: CrashScenario,
  usual: number,
): Promise<void> {
  const started = performance.now();
  const { points: all, calls, byDoor } = await listPoints(scenario);
  const points = choosePoints(all, usual);
  const failures: string[] = [];
  for (const point of points) {
    try {
      await crashAt(scenario, point);
    } catch (thrown) {
      const trace = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
      failures.push(`${point.point} call ${point.call}: ${trace}`);
    }
  }
  const doors = Object.entries(byDoor).map(([door, count]) => `${door} ${count}`);
  const seconds = ((performance.now() - started) / 1000).toFixed(0);
  const count = describeCount(points.length - failures.length, points.length, all.length);
  const at = `${doors.join(", ")} of ${calls} calls`;
  console.log(`crash points ${name}: ${count} (${at}) in ${seconds} s`);
  if (failures.length === 0 && points.length > 0) return;
  const shown = failures.slice(0, FAILURES_SHOWN).join("\n");
  throw new Error(`${failures.length} of ${points.length} crash points ${name}:\n${shown}`);
}

/** What the victim calls while the operation runs undisturbed. */
async function listPoints(scenario: CrashScenario): Promise<Seen> {
  const world = await openWorld(scenario);
  const { life } = world.victim;
  const byDoor: Record<string, number> = {};
  const points: CrashPoint[] = [];
  const before = life.callCount;
  const underWay = new Set<number>();
  life.hook = (point, door, name, number) => {
    if (READS.test(name)) return;
    const call = number - before;
    if (point === "after") {
      underWay.delete(call);
      points.push({ call, point });
      return;
    }
    if (underWay.size > 0 || points.length === 0) points.push({ call, point });
    underWay.add(call);
    byDoor[door] = (byDoor[door] ?? 0) + 1;
  };
  const started = scenario.command(world.coordinator);
  const record = await world.cluster.end(world.coordinator, started);
  const calls = life.callCount - before;
  if (record?.state !== "done") throw new Error(`undisturbed: ${JSON.stringify(record?.error)}`);
  life.hook = undefined;
  await scenario.afterwards?.(world, record);
  await scenario.check(world);
  return { points, calls, byDoor };
}

/** Crashes at one point, starts again, goes on as the scenario says; throws what does not hold. */
async function crashAt(scenario: CrashScenario, at: CrashPoint): Promise<void> {
  const world = await openWorld(scenario);
  const { cluster, coordinator, victim } = world;
  const { life } = victim;
  const before = life.callCount;
  let isHit = false;
  life.hook = (point, _, __, number) => {
    if (number - before !== at.call || point !== at.point) return;
    isHit = true;
    crash(scenario, world);
  };
  const started = scenario.command(coordinator);
  const first = await cluster.end(coordinator, started);
  life.hook = undefined;
  if (!isHit) throw new Error("the operation never came there");
  if (scenario.staysDown !== true) await cluster.clock.run(cluster.restart(victim));
  await (scenario.afterwards ?? onceMore(scenario))(world, first);
  if (!victim.isUp) await cluster.clock.run(cluster.restart(victim));
  await scenario.check(world);
  await cluster.heal();
}

function crash({ fate }: CrashScenario, { cluster, victim }: CrashWorld): void {
  if (fate !== "power cut") return victim.kill();
  victim.cutPower(LEAST_LUCK);
  for (const store of cluster.stores.values()) store.cutPower(undefined);
}

/** The databases are as they were when the process started. */
const LEAST_LUCK: Random = Object.assign(seededRandom(1), { fraction: () => 0 });

function onceMore({ command }: CrashScenario): Required<CrashScenario>["afterwards"] {
  return async ({ cluster, coordinator }, first) => {
    if (first?.state === "done") return;
    const again = await cluster.end(coordinator, command(coordinator));
    if (again?.state === "done") return;
    throw new Error(`the same command once more: ${JSON.stringify(again?.error)}`);
  };
}

async function openWorld(scenario: CrashScenario): Promise<CrashWorld> {
  const { product, nodeCount, store = "objects", mirrors = [] } = scenario;
  const cluster = await SimulatedCluster.create({ seed: 1, nodeCount, product, store, mirrors });
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
  // What programs have written before is not what a power cut is to take.
  for (const { files } of cluster.nodes) files.syncAll();
  return world;
}
