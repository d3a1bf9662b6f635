/**
 * Cleanup as a whole: what it forgets, retires, deletes and removes, what must wait, and that it may
 * be stopped before or after any of its requests.
 */
import { describe, expect, test } from "bun:test";
import { planCleanup } from "../../src/cas/clean/cleanup.ts";
import { drawId } from "../../src/cas/format/ids.ts";
import { RemovalBatches } from "../../src/cas/clean/removal-batches.ts";
import { DAY_MS } from "../../src/base/units.ts";
import type { FaultCall } from "../../src/sites/faulty-site.ts";
import { FaultySite } from "../../src/sites/faulty-site.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import { openNode, packsIn } from "./small-backups.ts";
import { caught, SmallWorld } from "./small-world.ts";

describe("what is forgotten", () => {
  test("is retired at once and deleted by the run after the next", async () => {
    using world = await SmallWorld.create();
    const node = await world.open();
    await world.backup(node, [1, 2, 3]);
    await world.backup(node, [7, 8]);
    const policy = { minimum: 1, keepLast: 1 };
    const before = packsIn(world.site.objects).length;
    const first = await world.cleanup(node, { policy });
    expect(first.forgotten.length).toBe(1);
    expect(first.retired.packs).toBeGreaterThan(0);
    expect(first.deleted.packs).toBe(0);
    const second = await world.cleanup(node, { policy });
    expect(second.deleted.packs).toBe(0);
    expect(second.waits.length).toBeGreaterThan(0);
    const third = await world.cleanup(node, { policy });
    expect(third.deleted.packs).toBe(first.retired.packs);
    expect([...second.deleted.backups, ...third.deleted.backups].length).toBe(1);
    expect(third.alarms).toEqual([]);
    expect(packsIn(world.site.objects).length).toBe(before - third.deleted.packs);
    expect(await world.check()).toBe(1);
  });

  test("stays for the undo window, counted from the newest complete backup", async () => {
    using world = await SmallWorld.create();
    const node = await world.open();
    await world.backup(node, [1, 2, 3]);
    await world.backup(node, [3, 4]);
    const options = { policy: { minimum: 1, keepLast: 1 }, undoWindowMs: DAY_MS };
    for (const _ of [1, 2, 3, 4]) {
      const report = await world.cleanup(node, options);
      expect(report.deleted.packs).toBe(0);
      // Time alone does not end it: without a newer backup nothing ages.
      await world.clock.sleep(DAY_MS);
    }
    await world.clock.sleep(DAY_MS);
    await world.backup(node, [3, 4]);
    expect((await world.cleanup(node, options)).deleted.packs).toBeGreaterThan(0);
    expect(await world.check()).toBe(1);
  });

  test("is what the plan says, and planning changes nothing", async () => {
    using world = await SmallWorld.create();
    const node = await world.open();
    await world.backup(node, [1, 2, 3]);
    await world.backup(node, [3, 4]);
    const options = world.cleanupOptions(node, { policy: { minimum: 1, keepLast: 1 } });
    const { sequence } = node.repository.state;
    const objects = [...world.site.objects.keys()];
    const plan = await planCleanup(options);
    expect(node.repository.state.sequence).toBe(sequence);
    expect([...world.site.objects.keys()]).toEqual(objects);
    const report = await world.cleanup(node, { policy: options.policy });
    expect(plan.forgotten).toEqual(report.forgotten);
    expect(plan.retired).toEqual(report.retired);
    expect(plan.isDryRun).toBe(true);
  });
});

describe("a cleanup", () => {
  test("of an idle repository commits nothing once all is done", async () => {
    using world = await SmallWorld.create();
    const node = await world.open();
    await world.backup(node, [1, 2, 3]);
    for (const _ of [1, 2, 3]) await world.cleanup(node);
    const { sequence } = node.repository.state;
    await world.cleanup(node);
    expect(node.repository.state.sequence).toBe(sequence);
  });

  test("never lowers the floor nor lets it pass the log", async () => {
    using world = await SmallWorld.create();
    const node = await world.open();
    const floors: number[] = [];
    for (const number of [1, 2, 3, 4, 5]) {
      await world.backup(node, [number]);
      const undoWindowMs = number % 2 === 0 ? DAY_MS : 0;
      await world.cleanup(node, { policy: { minimum: 1, keepLast: 1 }, undoWindowMs });
      floors.push(node.repository.state.floor);
      expect(node.repository.state.floor).toBeLessThanOrEqual(node.repository.state.sequence);
    }
    expect(floors).toEqual(floors.toSorted((one, other) => one - other));
    const operation = drawId(world.random);
    const body = { packs: [], backups: [], floor: node.repository.state.floor - 1 };
    const lower = node.repository.commit(() => ({ kind: "delete", body }), { operation });
    expect(await caught(lower)).toMatchObject({ kind: "refused" });
  });

  test("drops keeps of operations that ended or fell silent", async () => {
    using world = await SmallWorld.create();
    const node = await world.open();
    const [ended, silent, alive] = [1, 2, 3].map(() => drawId(world.random));
    await world.store(node, [1], { operation: ended!, isKept: true });
    await world.store(node, [2], { operation: silent!, isKept: true });
    await world.clock.sleep(1000);
    await world.store(node, [3], { operation: alive!, isKept: true });
    const endedOperations = new Set([ended!]);
    const report = await world.cleanup(node, { endedOperations, keepSilentMs: 500 });
    expect(report.dropped.map(({ name }) => name).toSorted()).toEqual([ended!, silent!].toSorted());
    expect([...node.repository.state.keeps.keys()]).toEqual([alive!]);
    expect(report.retired.packs).toBeGreaterThan(0);
  });

  test("forgets nothing while a clock is wrong, and says so", async () => {
    using world = await SmallWorld.create();
    const node = await world.open();
    await world.backup(node, [1]);
    await world.backup(node, [2]);
    const policy = { minimum: 1, keepLast: 1 };
    const now = world.clock.now();
    const ahead = await world.cleanup(node, { policy, now, siteTime: now - 2 * DAY_MS });
    const behind = await world.cleanup(node, { policy, now: now - 2 * DAY_MS });
    expect([ahead.forgotten.length, behind.forgotten.length]).toEqual([0, 0]);
    expect(ahead.waits.join()).toContain("clock");
    expect(behind.waits.join()).toContain("clock");
  });

  test("leaves everything alone while a list cannot be read, and raises an alarm", async () => {
    using world = await SmallWorld.create();
    const node = await world.open();
    const first = await world.backup(node, [1, 2, 3]);
    const second = await world.backup(node, [7, 8]);
    await world.forget(node, first);
    const listPacks = world.backups.get(second)?.draft.listPacks ?? [];
    for (const key of packsIn(world.site.objects)) {
      if (listPacks.some((pack) => key.includes(pack))) world.site.objects.delete(key);
    }
    const report = await world.cleanup(node);
    expect(report.retired.packs).toBe(0);
    expect(report.alarms.length).toBeGreaterThan(0);
  });
});

test("a removal that wakes up late hits nothing", async () => {
  using world = await SmallWorld.create();
  const node = await world.open();
  const first = await world.backup(node, [1, 2, 3]);
  await world.backup(node, [9]);
  await world.forget(node, first);
  const zombie = packsIn(world.site.objects);
  for (const _ of [1, 2, 3]) await world.cleanup(node);
  const gone = zombie.filter((key) => !world.site.objects.has(key));
  expect(gone.length).toBeGreaterThan(0);
  await world.backup(node, [1, 2, 3]);
  const late = new RemovalBatches(world.site, undefined);
  for (const key of gone) await late.add(key);
  await late.finish();
  expect(await world.check()).toBe(2);
});

test("a cleanup may be stopped before or after any of its requests", async () => {
  const { objects, world } = await worldToClean();
  using _ = world;
  const calls = await listCalls(world, objects);
  let [points, expected] = [0, 0];
  for (const [index, kind] of calls.entries()) {
    // A read that is done changes nothing: to die after it is to die before the next request.
    const isWrite = kind === "put" || kind === "delete";
    for (const fault of isWrite ? (["error-before", "error-after"] as const) : BEFORE) {
      expected += 1;
      world.site.objects.clear();
      for (const [key, bytes] of objects) world.site.objects.set(key, bytes);
      await dieAt(world, index, fault);
      if (isWrite) expect(await world.check()).toBeGreaterThan(0);
      using next = await openNode(world.site, world, { encryption: world.encryption });
      for (const __ of isWrite ? [1, 2, 3] : [1]) {
        const { alarms } = await world.cleanup(next, { policy: POLICY, sweep: true });
        expect(alarms).toEqual([]);
      }
      expect(await world.check()).toBe(1);
      points += 1;
    }
  }
  console.log(`crash points of a cleanup: ${points}/${expected}, of ${calls.length} requests`);
  expect(points).toBe(expected);
}, 120_000);

const BEFORE = ["error-before"] as const;
const POLICY = { minimum: 1, keepLast: 1 };

/** A site where a cleanup has something to do in each of its steps. */
async function worldToClean(): Promise<{
  objects: ReadonlyMap<string, Uint8Array>;
  world: SmallWorld;
}> {
  const world = await SmallWorld.create();
  const node = await world.open();
  await world.backup(node, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  await world.backup(node, [11, 12]);
  for (const _ of [1, 2]) await world.cleanup(node, { policy: POLICY });
  await world.backup(node, [2, 13]);
  await world.store(node, [14]);
  await world.backup(node, [2, 13, 15]);
  return { objects: new Map(world.site.objects), world };
}

async function listCalls(
  world: SmallWorld,
  objects: ReadonlyMap<string, Uint8Array>,
): Promise<string[]> {
  const kinds: string[] = [];
  const fault = ({ kind }: FaultCall): undefined => void kinds.push(kind);
  const { clock, random } = world;
  const copy = new MemorySite("copy", new Map(objects));
  await cleanThrough(world, new FaultySite(copy, { clock, random, fault }));
  return kinds;
}

/** Runs a cleanup that ends at a request, and to which nothing answers from then on. */
async function dieAt(
  world: SmallWorld,
  index: number,
  fault: "error-before" | "error-after",
): Promise<void> {
  const error = new Error("crash");
  const { clock, random } = world;
  const site = new FaultySite(world.site, {
    clock,
    random,
    fault: (call) => {
      if (call.index < index) return undefined;
      return { fault: call.index === index ? fault : "error-before", error };
    },
  });
  const end: unknown = await cleanThrough(world, site).then(
    () => "not at all",
    (thrown: unknown) => thrown,
  );
  expect(String(end)).toContain("crash");
}

async function cleanThrough(world: SmallWorld, site: FaultySite): Promise<void> {
  using node = await openNode(site, world, { encryption: world.encryption });
  const report = await world.cleanup(node, { policy: POLICY, sweep: true });
  expect(report.retired.packs + report.garbage.objects).toBeGreaterThan(0);
}
