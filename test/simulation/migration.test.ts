/**
 * Migrations in the simulator: forward and back, with backups meanwhile, with two coordinators, with
 * nodes that are down or do not know the new site, and with a crash at every call to a door.
 */
import { describe, expect, test } from "bun:test";
import type { MigrateRequest } from "../../src/cluster/migrate-plan.ts";
import type { OperationRecord } from "../../src/cluster/operations.ts";
import { changeFiles, differences, readTree } from "./cluster-data.ts";
import { countCalls, crashAt, crashPoints } from "./crash-points.ts";
import type { CrashScenario } from "./crash-points.ts";
import { SimulatedCluster } from "./simulated-cluster.ts";
import type { SimulatedNode } from "./simulated-node.ts";
import { PRODUCT_ROOT } from "./simulated-node.ts";

/** The store that a simulated cluster begins with. */
const OLD = "store";
const NEW = "new";
const FORWARD: MigrateRequest = { from: OLD, to: NEW };
const BACK: MigrateRequest = { ...FORWARD, undo: true };

/** For how long a scenario's crash points are tried; it prints how far it came. */
const SCENARIO_MS = Number(process.env["ASTACUS_CRASH_MS"] ?? 6000);
const POINT_COUNT_MAX = 600;

type Tree = ReturnType<typeof readTree>;

/** A cluster, what each of its backups holds, and a site that is new. */
class World {
  readonly cluster: SimulatedCluster;
  /** By backup and node. */
  readonly wanted = new Map<string, Map<string, Tree>>();

  constructor(cluster: SimulatedCluster) {
    this.cluster = cluster;
  }

  static async create(nodeCount: number, seed = 1): Promise<World> {
    const world = new World(await SimulatedCluster.create({ seed, nodeCount, product: "files" }));
    return world;
  }

  get nodes(): SimulatedNode[] {
    return this.cluster.nodes;
  }

  change(): void {
    for (const node of this.nodes) changeFiles(node.files, PRODUCT_ROOT, this.cluster.random);
  }

  /** Remembers what the nodes hold as what backups of this name bring back. */
  remember(name: string): void {
    const trees = this.nodes.map(
      (node) => [node.name, readTree(node.files, PRODUCT_ROOT)] as const,
    );
    this.wanted.set(name, new Map(trees));
  }

  async backUp(name: string, node = this.nodes[0]!): Promise<void> {
    this.change();
    this.remember(name);
    await this.done(node, node.member.startBackup({ name }));
  }

  async done(node: SimulatedNode, started: OperationRecord): Promise<OperationRecord> {
    const record = await this.cluster.end(node, started);
    if (record?.state !== "done") {
      throw new Error(`${started.kind}: ${JSON.stringify(record?.error)}`);
    }
    return record;
  }

  async migrate(request: MigrateRequest, node = this.nodes[0]!): Promise<OperationRecord> {
    return await this.done(node, node.member.startMigration(request));
  }

  async addNew(): Promise<void> {
    await this.cluster.addSite(NEW);
    for (const node of this.nodes) await this.cluster.clock.run(this.cluster.restart(node));
  }

  async listedAt(store: string): Promise<string[]> {
    const listed = await this.cluster.read(
      async (reader) => reader.listBackups({ forgotten: false }),
      undefined,
      this.cluster.stores.get(store),
    );
    return listed.map(({ name }) => name);
  }

  /** These backups, and no other, are at a site, and each restores from it alone. */
  async expectAt(store: string, names: readonly string[]): Promise<void> {
    const site = this.cluster.stores.get(store)!;
    expect(await this.listedAt(store)).toEqual([...names]);
    for (const name of names) {
      const disk = await this.cluster.restoreAside(name, {}, site);
      for (const [node, tree] of this.wanted.get(name)!) {
        expect(differences(tree, readTree(disk, `/r/${node}/root`))).toEqual([]);
      }
    }
  }

  async primary(node = this.nodes[0]!): Promise<string> {
    const { name } = await this.cluster.clock.run(node.member.sites.primary());
    return name;
  }
}

describe("a migration", () => {
  test("brings every backup to the new site, which is the primary then; undo goes back", async () => {
    const world = await World.create(2);
    for (const name of ["one", "two"]) await world.backUp(name);
    await world.addNew();
    const { result } = await world.migrate(FORWARD);
    expect(result).toMatchObject({ switched: true, copied: ["one", "two"] });
    expect(await world.primary(world.nodes[1])).toBe(NEW);
    await world.expectAt(NEW, ["one", "two"]);
    await world.backUp("three");
    await world.expectAt(NEW, ["one", "two", "three"]);
    const back = await world.migrate(BACK);
    expect(back.result).toMatchObject({ switched: true });
    expect(await world.primary(world.nodes[1])).toBe(OLD);
    await world.expectAt(OLD, ["one", "two", "three"]);
    await world.backUp("four");
    await world.expectAt(OLD, ["one", "two", "three", "four"]);
  });

  test("plans what it then does, and writes nothing for it", async () => {
    const world = await World.create(1);
    for (const name of ["one", "two"]) await world.backUp(name);
    await world.addNew();
    const { member } = world.nodes[0]!;
    const { signal } = new AbortController();
    const plan = await world.cluster.clock.run(member.planMigration(FORWARD, signal));
    expect(plan).toMatchObject({ copies: 2, present: 0, switches: true, refusals: [] });
    expect(await world.listedAt(NEW)).toEqual([]);
    const { result } = await world.migrate(FORWARD);
    expect(result).toMatchObject({ packs: plan.packs, bytes: plan.bytes });
    const after = await world.cluster.clock.run(member.planMigration(FORWARD, signal));
    expect(after).toMatchObject({ copies: 0, present: 2, packs: 0, isSwitched: true });
  });

  test("of chosen backups brings these, and what is made meanwhile or later", async () => {
    const world = await World.create(1);
    for (const name of ["one", "two", "three"]) await world.backUp(name);
    await world.addNew();
    await world.migrate({ ...FORWARD, backups: ["two"] });
    await world.expectAt(NEW, ["two"]);
    await world.backUp("four");
    await world.expectAt(NEW, ["two", "four"]);
  });

  test("without a switch leaves the primary where it is", async () => {
    const world = await World.create(1);
    await world.backUp("one");
    await world.addNew();
    const { result } = await world.migrate({ ...FORWARD, noSwitch: true });
    expect(result).toMatchObject({ switched: false });
    expect(await world.primary()).toBe(OLD);
    await world.expectAt(NEW, ["one"]);
  });

  test("loses no backup that runs at the same time, whoever coordinates it", async () => {
    for (const seed of [1, 2, 3]) {
      const world = await World.create(2, seed);
      for (const name of ["one", "two"]) await world.backUp(name);
      await world.addNew();
      const [a, b] = world.nodes as [SimulatedNode, SimulatedNode];
      world.change();
      world.remember("meanwhile");
      const migrating = a.member.startMigration(FORWARD);
      const backing = b.member.startBackup({ name: "meanwhile" });
      await world.done(a, migrating);
      const backup = await world.cluster.end(b, backing);
      // A backup that met the switch may be refused; listed it is on the new site, or nowhere.
      const isThere = backup?.state === "done";
      await world.expectAt(NEW, ["one", "two", ...(isThere ? ["meanwhile"] : [])]);
      await world.backUp("after");
      await world.expectAt(NEW, ["one", "two", ...(isThere ? ["meanwhile"] : []), "after"]);
    }
  });

  test("may be run by two coordinators at once", async () => {
    for (const seed of [1, 2, 3]) {
      const world = await World.create(2, seed);
      for (const name of ["one", "two"]) await world.backUp(name);
      await world.addNew();
      const [a, b] = world.nodes as [SimulatedNode, SimulatedNode];
      const first = a.member.startMigration(FORWARD);
      const second = b.member.startMigration(FORWARD);
      await world.done(a, first);
      await world.done(b, second);
      await world.expectAt(NEW, ["one", "two"]);
      expect([await world.primary(a), await world.primary(b)]).toEqual([NEW, NEW]);
    }
  });

  test("spreads the packs over the nodes, and goes on when one of them dies", async () => {
    const world = await World.create(3);
    for (const name of ["one", "two", "three"]) await world.backUp(name);
    await world.addNew();
    const [a, b] = world.nodes as [SimulatedNode, SimulatedNode];
    let asked = 0;
    b.life.hook = (point, door) => {
      // The node answers for a while, and then its process is gone.
      if (door === "site" && point === "before" && (asked += 1) === 20) b.kill();
    };
    const { result } = await world.migrate(FORWARD, a);
    expect(b.isUp).toBe(false);
    expect(result).toMatchObject({ switched: true });
    await world.expectAt(NEW, ["one", "two", "three"]);
  });

  test("is refused before anything is written where a node does not know the new site", async () => {
    const world = await World.create(2);
    await world.backUp("one");
    world.nodes[1]!.siteNames = [OLD];
    await world.addNew();
    const [a] = world.nodes as [SimulatedNode];
    const record = await world.cluster.end(a, a.member.startMigration(FORWARD));
    expect(record).toMatchObject({ state: "failed", error: { kind: "refused" } });
    expect(record?.error?.message).toContain("b lacks site");
    expect(await world.listedAt(NEW)).toEqual([]);
  });

  test("leaves a node whose configuration is stale unable to write, and says why", async () => {
    const world = await World.create(2);
    await world.backUp("one");
    world.nodes[1]!.siteNames = [OLD];
    await world.addNew();
    const [a, b] = world.nodes as [SimulatedNode, SimulatedNode];
    b.kill();
    await world.migrate(FORWARD, a);
    await world.cluster.clock.run(world.cluster.restart(b));
    const backup = await world.cluster.end(b, b.member.startBackup({ name: "stale" }));
    expect(backup).toMatchObject({ state: "failed", error: { kind: "refused" } });
    expect(backup?.error?.message).toContain("lacks site new");
    await world.expectAt(NEW, ["one"]);
  });
});

describe("the end of a site", () => {
  const migrated = async (): Promise<World> => {
    const world = await World.create(1);
    for (const name of ["one", "two"]) await world.backUp(name);
    await world.addNew();
    await world.migrate(FORWARD);
    return world;
  };

  test("is entered when all that it holds was read elsewhere, and nothing reaches it any more", async () => {
    const world = await migrated();
    const [node] = world.nodes as [SimulatedNode];
    const { result } = await world.done(node, node.member.startRetirement({ site: OLD }));
    expect(result).toMatchObject({ backups: 2, copied: [] });
    await world.backUp("three");
    await world.expectAt(NEW, ["one", "two", "three"]);
    await world.expectAt(OLD, ["one", "two"]);
    const now = await world.cluster.clock.run(node.member.sites.roles());
    expect(now.roles?.sites.map(({ name }) => name)).toEqual([NEW]);
    // Once more changes nothing.
    await world.done(node, node.member.startRetirement({ site: OLD }));
  });

  test("is refused, naming what is only there", async () => {
    const world = await World.create(1);
    for (const name of ["one", "two"]) await world.backUp(name);
    await world.addNew();
    await world.migrate({ ...FORWARD, backups: ["two"] });
    const [node] = world.nodes as [SimulatedNode];
    const record = await world.cluster.end(node, node.member.startRetirement({ site: OLD }));
    expect(record?.error).toMatchObject({ kind: "refused" });
    expect(record?.error?.message).toContain("one (it is not listed");
    expect(record?.error?.message).toContain("Nothing was changed");
  });

  test("is refused where a pack has rotted on the site that should have it", async () => {
    const world = await migrated();
    const [node] = world.nodes as [SimulatedNode];
    const store = world.cluster.stores.get(NEW)!;
    const site = await store.open();
    for await (const { key } of site.list("pack/")) {
      store.shades.set(key, { kind: "flipped", bit: 900 });
      break;
    }
    const record = await world.cluster.end(node, node.member.startRetirement({ site: OLD }));
    expect(record?.error).toMatchObject({ kind: "refused", context: { reason: "not-proved" } });
  });

  test("is refused for the primary", async () => {
    const world = await migrated();
    const [node] = world.nodes as [SimulatedNode];
    const record = await world.cluster.end(node, node.member.startRetirement({ site: NEW }));
    expect(record?.error?.message).toContain("is the primary");
  });
});

describe("a crash at any point of a migration", () => {
  const forward = async (world: World): Promise<void> => {
    for (const name of ["one", "two"]) await world.backUp(name);
    await world.addNew();
  };
  const back = async (world: World): Promise<void> => {
    await forward(world);
    await world.migrate(FORWARD);
    // The old site lags, as one that was down would.
    world.cluster.stores.get(OLD)!.isDown = true;
    await world.backUp("three");
    world.cluster.stores.get(OLD)!.isDown = false;
    await world.cluster.clock.pass(30_000);
  };
  const scenarios: readonly (readonly [string, CrashScenario])[] = [
    ["alone", scenario({ nodeCount: 1, victim: 0, request: FORWARD, prepare: forward })],
    [
      "of its coordinator",
      scenario({ nodeCount: 2, victim: 0, request: FORWARD, prepare: forward }),
    ],
    ["of another node", scenario({ nodeCount: 2, victim: 1, request: FORWARD, prepare: forward })],
    ["that goes back", scenario({ nodeCount: 1, victim: 0, request: BACK, prepare: back })],
  ];
  for (const [name, one] of scenarios) {
    test(
      `${name} costs nothing but the same command once more`,
      async () => {
        const { calls, byDoor } = await countCalls(one);
        const points = crashPoints(calls, POINT_COUNT_MAX);
        const started = performance.now();
        let tried = 0;
        for (const point of spread(points)) {
          if (performance.now() - started > SCENARIO_MS) break;
          try {
            await crashAt(one, point);
          } catch (thrown) {
            throw new Error(`${point.point} call ${point.call}: ${String(thrown)}`, {
              cause: thrown,
            });
          }
          tried += 1;
        }
        const doors = Object.entries(byDoor).map(([door, count]) => `${door} ${count}`);
        console.log(
          `crash points of a migration ${name}: ${tried}/${points.length} of ${2 * calls} (${doors.join(", ")})`,
        );
        expect(tried).toBeGreaterThan(0);
      },
      10 * SCENARIO_MS + 60_000,
    );
  }
});

function scenario(how: {
  readonly nodeCount: number;
  readonly victim: number;
  readonly request: MigrateRequest;
  readonly prepare: (world: World) => Promise<void>;
}): CrashScenario {
  const worlds = new WeakMap<SimulatedCluster, World>();
  const isBack = how.request.undo === true;
  return {
    product: "files",
    nodeCount: how.nodeCount,
    victim: how.victim,
    async prepare({ cluster }) {
      const world = new World(cluster);
      worlds.set(cluster, world);
      await how.prepare(world);
    },
    command: (node) => node.member.startMigration(how.request),
    async check({ cluster }) {
      const world = worlds.get(cluster)!;
      expect(await world.primary()).toBe(isBack ? OLD : NEW);
      await world.expectAt(isBack ? OLD : NEW, [...world.wanted.keys()]);
    },
  };
}

/** So that a run that is cut short has still looked everywhere; the same order each time. */
function spread<T>(items: readonly T[]): T[] {
  const stride = 97;
  if (items.length % stride === 0) return [...items];
  return items.map((_, index) => items[(index * stride) % items.length]!);
}
