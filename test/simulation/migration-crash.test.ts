/**
 * Every crash point of a migration, forward and back: the process of one node dies, or the power of
 * its machine fails, at each of its calls to disk, site, database and network. Then an operator gives
 * the same command again, or another one: no acknowledged backup is lost, and what is primary then
 * gives back all of them by itself.
 */
import { describe, expect, test } from "bun:test";
import type { MigrateRequest } from "../../src/cluster/migrate-plan.ts";
import { CRASH_LOOP_MS_MAX } from "./chosen-points.ts";
import { tryCrashPoints } from "./crash-points.ts";
import type { CrashScenario } from "./crash-points.ts";
import { BACK, FORWARD, MigrationWorld, NEW, OLD } from "./migration-world.ts";
import type { SimulatedCluster } from "./simulated-cluster.ts";

/** Of each loop; all of them by `bun run crash-points`. */
const POINT_COUNT = 12;

/** What an operator does after the crash; what ends well has changed the primary as it says. */
type Afterwards = (world: MigrationWorld, request: MigrateRequest) => Promise<void>;

type Loop = Pick<CrashScenario, "fate" | "staysDown"> & {
  readonly request: MigrateRequest;
  readonly nodeCount?: number;
  readonly victim?: number;
  /** Of both sites. */
  readonly store?: "directory";
  readonly afterwards?: Afterwards;
  /** Where the primary is at the end: at the target of the request, unless told. */
  readonly primary?: string;
  /** What must hold of backups then: the primary has all, unless told. */
  readonly check?: (world: MigrationWorld) => Promise<void>;
};

const CHOSEN: MigrateRequest = { ...FORWARD, backups: ["two"] };

const LOOPS: readonly (readonly [string, Loop])[] = [
  ["alone, then the same once more", { request: FORWARD }],
  ["of its coordinator, then the same once more", { request: FORWARD, nodeCount: 2 }],
  ["of another node, then the same once more", { request: FORWARD, nodeCount: 2, victim: 1 }],
  [
    "of its coordinator for good, then the same by another node",
    { request: FORWARD, nodeCount: 2, staysDown: true, afterwards: byAnother },
  ],
  [
    "between directories by a power cut, then the same once more",
    { request: FORWARD, fate: "power cut", store: "directory" },
  ],
  ["alone, then back", { request: FORWARD, afterwards: back, primary: OLD }],
  ["alone, then a backup and the same once more", { request: FORWARD, afterwards: backUpFirst }],
  ["of chosen backups, then the same once more", { request: CHOSEN, check: checkChosen }],
  [
    "of chosen backups, then a backup and the same once more",
    { request: CHOSEN, afterwards: backUpMeanwhile, check: checkChosen },
  ],
  ["that goes back, then the same once more", { request: BACK }],
  [
    "that goes back between directories, by a power cut, then the same once more",
    { request: BACK, fate: "power cut", store: "directory" },
  ],
  ["that goes back, then forward again", { request: BACK, afterwards: forward, primary: NEW }],
  [
    "that goes back, then a backup and the same once more",
    { request: BACK, afterwards: backUpFirst },
  ],
  [
    "that goes back, of its coordinator for good, then the same by another node",
    { request: BACK, nodeCount: 2, staysDown: true, afterwards: byAnother },
  ],
];

describe("a crash at any point of a migration", () => {
  for (const [name, loop] of LOOPS) {
    test(
      `${name}: nothing is lost`,
      () => tryCrashPoints(`of a migration ${name}`, scenarioOf(loop), POINT_COUNT),
      CRASH_LOOP_MS_MAX,
    );
  }
});

function scenarioOf(loop: Loop): CrashScenario {
  const { request, nodeCount = 1, victim = 0, store = "objects", afterwards = onceMore } = loop;
  const worlds = new WeakMap<SimulatedCluster, MigrationWorld>();
  const { primary = request.undo === true ? OLD : NEW } = loop;
  return {
    ...loop,
    product: "files",
    nodeCount,
    victim,
    async prepare({ cluster }) {
      const world = new MigrationWorld(cluster);
      worlds.set(cluster, world);
      for (const name of ["one", "two"]) await world.backUp(name);
      await world.addNew(store);
      if (request.undo === true) await migrateAndLag(world);
    },
    command: (node) => node.member.startMigration(request),
    async afterwards({ cluster }) {
      const world = worlds.get(cluster)!;
      await afterwards(world, request);
    },
    async check({ cluster }) {
      const world = worlds.get(cluster)!;
      expect(await world.primary()).toBe(primary);
      await (loop.check?.(world) ?? world.expectAllAt(primary));
    },
  };
}

/** The old site lags then, as one that was down would. */
async function migrateAndLag(world: MigrationWorld): Promise<void> {
  await world.migrate(FORWARD);
  world.cluster.stores.get(OLD)!.isDown = true;
  await world.backUp("three");
  world.cluster.stores.get(OLD)!.isDown = false;
  await world.cluster.clock.pass(30_000);
}

async function onceMore(world: MigrationWorld, request: MigrateRequest): Promise<void> {
  await world.migrate(request);
}

async function byAnother(world: MigrationWorld, request: MigrateRequest): Promise<void> {
  await world.migrate(request, world.nodes[1]);
  await world.expectAllAt(await world.primary(world.nodes[1]));
}

async function back(world: MigrationWorld): Promise<void> {
  await world.migrate(BACK);
}

async function forward(world: MigrationWorld): Promise<void> {
  await world.migrate(FORWARD);
}

async function backUpFirst(world: MigrationWorld, request: MigrateRequest): Promise<void> {
  await world.backUp("after");
  await world.expectAllAt(await world.primary());
  await world.migrate(request);
}

async function backUpMeanwhile(world: MigrationWorld, request: MigrateRequest): Promise<void> {
  await world.backUp("after");
  await world.migrate(request);
  expect(await world.listedAt(NEW)).toContain("after");
}

/** What was chosen is at the new site, what was not is still at the old one, and all of it is whole. */
async function checkChosen(world: MigrationWorld): Promise<void> {
  const [atOld, atNew] = [await world.listedAt(OLD), await world.listedAt(NEW)];
  expect(atNew).toContain("two");
  expect([...new Set([...atOld, ...atNew])].toSorted()).toEqual(world.acknowledged.toSorted());
  await world.expectAt(OLD, atOld);
  await world.expectAt(NEW, atNew);
}
