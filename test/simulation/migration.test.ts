/**
 * Migrations in the simulator: forward and back, with backups meanwhile, with two coordinators, with
 * nodes that are down or do not know the new site.
 */
import { describe, expect, test } from "bun:test";
import { BACK, FORWARD, MigrationWorld, NEW, OLD } from "./migration-world.ts";
import type { SimulatedNode } from "./simulated-node.ts";

describe("a migration", () => {
  test("brings every backup to the new site, which is the primary then; undo goes back", async () => {
    const world = await MigrationWorld.create(2);
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
    const world = await MigrationWorld.create(1);
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
    const world = await MigrationWorld.create(1);
    for (const name of ["one", "two", "three"]) await world.backUp(name);
    await world.addNew();
    await world.migrate({ ...FORWARD, backups: ["two"] });
    await world.expectAt(NEW, ["two"]);
    await world.backUp("four");
    await world.expectAt(NEW, ["two", "four"]);
  });

  test("that is undone before it began leaves the primary where it is", async () => {
    const world = await MigrationWorld.create(1);
    await world.backUp("one");
    await world.addNew();
    await world.migrate(BACK);
    expect(await world.primary()).toBe(OLD);
    await world.migrate(FORWARD);
    await world.expectAt(NEW, ["one"]);
  });

  test("without a switch leaves the primary where it is", async () => {
    const world = await MigrationWorld.create(1);
    await world.backUp("one");
    await world.addNew();
    const { result } = await world.migrate({ ...FORWARD, noSwitch: true });
    expect(result).toMatchObject({ switched: false });
    expect(await world.primary()).toBe(OLD);
    await world.expectAt(NEW, ["one"]);
  });

  test("loses no backup that runs at the same time, whoever coordinates it", async () => {
    for (const seed of [1, 2, 3]) {
      const world = await MigrationWorld.create(2, seed);
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
      const world = await MigrationWorld.create(2, seed);
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
    const world = await MigrationWorld.create(3);
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
    const world = await MigrationWorld.create(2);
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
    const world = await MigrationWorld.create(2);
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
  const migrated = async (): Promise<MigrationWorld> => {
    const world = await MigrationWorld.create(1);
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
    const world = await MigrationWorld.create(1);
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
