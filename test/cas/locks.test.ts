/**
 * A site that locks what it creates: cleanups renew the locks of what lives, once a period, leave what
 * is still locked, and take it when its lock has ended.
 */
import { expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import { DAY_MS } from "../../src/base/units.ts";
import { planCleanup } from "../../src/cas/clean/cleanup.ts";
import { readLockStanding } from "../../src/cas/clean/lock-standing.ts";
import { countRequests } from "../../src/sites/counting-site.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import { lockEndMs } from "../../src/sites/lock-period.ts";
import type { Site } from "../../src/sites/site.ts";
import type { SmallNode } from "./small-backups.ts";
import { packsIn } from "./small-backups.ts";
import { caught, SmallWorld } from "./small-world.ts";

const PERIOD_MS = 30 * DAY_MS;
const POLICY = { policy: { minimum: 1, keepLast: 1 } };

/** A world whose site locks, with its clock at the beginning of a period. */
async function lockedWorld(): Promise<{
  readonly world: SmallWorld;
  readonly site: MemorySite;
  readonly counted: ReturnType<typeof countRequests>;
  readonly node: SmallNode;
}> {
  const world = await SmallWorld.create();
  const lock = { mode: "compliance", periodMs: PERIOD_MS, clock: world.clock } as const;
  const site = new MemorySite("locked", world.site.objects, lock);
  for (const key of site.objects.keys())
    site.locks.set(key, lockEndMs(world.clock.now(), PERIOD_MS));
  await world.clock.sleep(PERIOD_MS - (world.clock.now() % PERIOD_MS));
  const counted = countRequests(site);
  return { world, site, counted, node: await world.open(counted) };
}

test("what lives is locked for a period at least, while cleanups run", async () => {
  const { world, site, node } = await lockedWorld();
  using _ = world;
  const id = await world.backup(node, [1, 2, 3]);
  for (let month = 0; month < 6; month += 1) {
    await world.cleanup(node);
    const { untilMs = 0 } = (await readLockStanding(site)) ?? {};
    expect(untilMs - world.clock.now()).toBeGreaterThan(PERIOD_MS);
    for (const key of site.objects.keys()) {
      // Older checkpoints and the like are left to the ends of their locks.
      if (!/^(pack|index|manifest|log)\//.test(key)) continue;
      expect([key, (site.locks.get(key) ?? 0) >= untilMs]).toEqual([key, true]);
    }
    await world.clock.sleep(PERIOD_MS);
  }
  expect(world.backups.has(id)).toBe(true);
  expect(await world.check()).toBe(1);
});

test("a renewal happens once a period, and is told with its cost in the plan", async () => {
  const { world, counted, node } = await lockedWorld();
  using _ = world;
  await world.backup(node, [1, 2, 3]);
  await world.cleanup(node);
  expect((await world.cleanup(node)).locks).toBeUndefined();
  await world.clock.sleep(PERIOD_MS);
  const plan = await planCleanup(world.cleanupOptions(node));
  expect(plan.locks!.objects).toBeGreaterThan(3);
  expect(plan.locks!.untilMs).toBe(lockEndMs(world.clock.now(), PERIOD_MS));
  const { objects } = plan.locks!;
  expect(plan.locks!.requests).toEqual({ list: 1, head: objects, put: objects });
  const before = { ...counted.requests };
  const { locks } = await world.cleanup(node);
  expect(locks).toEqual({ ...plan.locks!, renewed: locks!.renewed });
  expect(locks!.renewed).toBe(plan.locks!.objects);
  expect(counted.requests.put - before.put).toBe(locks!.renewed);
  expect((await world.cleanup(node)).locks).toBeUndefined();
});

test("what a cleanup may not remove yet is said with its time, and goes after that", async () => {
  const { world, site, node } = await lockedWorld();
  using _ = world;
  await world.backup(node, [1, 2, 3]);
  await world.backup(node, [7, 8]);
  const packs = packsIn(site.objects).length;
  let deleted = 0;
  for (let run = 0; run < 3; run += 1) {
    const report = await world.cleanup(node, POLICY);
    deleted += report.deleted.packs;
    expect(report.alarms).toEqual([]);
    if (report.deleted.packs > 0) expect(report.waits.join()).toContain("stay locked");
  }
  expect(deleted).toBeGreaterThan(0);
  expect(packsIn(site.objects)).toHaveLength(packs);
  // Nobody renews it, so the third period is its last.
  for (let month = 0; month < 2; month += 1) {
    await world.clock.sleep(PERIOD_MS);
    await world.cleanup(node, { ...POLICY, sweep: true });
  }
  expect(packsIn(site.objects)).toHaveLength(packs);
  await world.clock.sleep(PERIOD_MS);
  const last = await world.cleanup(node, { ...POLICY, sweep: true });
  expect(last.waits.join()).not.toContain("stay locked");
  expect(packsIn(site.objects)).toHaveLength(packs - deleted);
  expect(await world.check()).toBe(1);
});

test("a renewal that breaks off goes on, and asks only about what it had renewed", async () => {
  const { world, counted } = await lockedWorld();
  using _ = world;
  let left = Infinity;
  const { lock } = counted;
  const cut: Site = {
    ...counted,
    lock: {
      ...lock!,
      lockUntil: async (key, untilMs, options) => {
        left -= 1;
        if (left < 0) throw new AppError("unavailable", "the line is cut");
        await lock!.lockUntil(key, untilMs, options);
      },
    },
  };
  const node = await world.open(cut);
  await world.backup(node, [1, 2, 3]);
  await world.cleanup(node);
  await world.clock.sleep(PERIOD_MS);
  const { objects } = (await planCleanup(world.cleanupOptions(node))).locks!;
  left = 2;
  const before = await readLockStanding(counted);
  expect(await caught(world.cleanup(node))).toBeInstanceOf(AppError);
  // The header is the last one, so that it promises nothing for what was not reached.
  expect(await readLockStanding(counted)).toEqual(before);
  left = Infinity;
  expect((await world.cleanup(node)).locks).toMatchObject({ objects, renewed: objects - 2 });
  const untilMs = lockEndMs(world.clock.now(), PERIOD_MS);
  expect(await readLockStanding(counted)).toEqual({ ...before!, untilMs });
});
