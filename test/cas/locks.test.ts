/**
 * A site that locks what it creates: cleanups renew the locks of what lives, once a period, leave what
 * is still locked, and take it when its lock has ended.
 */
import { expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import { DAY_MS } from "../../src/base/units.ts";
import { planCleanup } from "../../src/cas/clean/cleanup.ts";
import { isLockEnding, readLockStanding } from "../../src/cas/clean/lock-standing.ts";
import { renewedStanding } from "../../src/cas/clean/lock-standing.ts";
import { HEADER_KEY } from "../../src/cas/format/header.ts";
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
  expect(await readLockStanding(counted)).toEqual({ ...before!, untilMs, headerMs: untilMs });
});

/** Objects below markers that somebody laid over them: not listed, and found again by who reads them. */
function hideable(site: ReturnType<typeof countRequests>): {
  readonly hidden: Set<string>;
  readonly marked: Site;
} {
  const hidden = new Set<string>();
  const lock = site.lock!;
  const marked: Site = {
    ...site,
    head: async (key, options) => {
      hidden.delete(key);
      return await site.head(key, options);
    },
    async *list(prefix, options) {
      for await (const row of site.list(prefix, options)) if (!hidden.has(row.key)) yield row;
    },
    lock: {
      ...lock,
      lockedUntil: async (key, options) =>
        hidden.has(key) ? undefined : await lock.lockedUntil(key, options),
      lockUntil: async (key, untilMs, options) => {
        if (hidden.has(key)) throw new AppError("refused", "MethodNotAllowed");
        await lock.lockUntil(key, untilMs, options);
      },
    },
  };
  return { hidden, marked };
}

test("a header that somebody has hidden is found again, and renewed", async () => {
  const { world, site, counted } = await lockedWorld();
  using _ = world;
  const { hidden, marked } = hideable(counted);
  const node = await world.open(marked);
  await world.backup(node, [1, 2, 3]);
  hidden.add(HEADER_KEY);
  const { locks, alarms } = await world.cleanup(node);
  expect(alarms).toEqual([]);
  expect(site.locks.get(HEADER_KEY)).toBe(locks!.untilMs);
  expect((await world.cleanup(node)).locks).toBeUndefined();
});

test("a header that is not there is an alarm, spoils nothing else, and is tried again", async () => {
  const { world, site, counted } = await lockedWorld();
  using _ = world;
  const node = await world.open(counted);
  await world.backup(node, [1, 2, 3]);
  const bytes = site.objects.get(HEADER_KEY)!;
  site.objects.delete(HEADER_KEY);
  const report = await world.cleanup(node);
  expect(report.alarms.join()).toContain(`${HEADER_KEY} was not locked`);
  for (const key of packsIn(site.objects)) {
    expect(site.locks.get(key)).toBe(report.locks!.untilMs);
  }
  site.objects.set(HEADER_KEY, bytes);
  expect((await world.cleanup(node)).alarms).toEqual([]);
  expect(site.locks.get(HEADER_KEY)).toBe(report.locks!.untilMs);
});

test("live packs that a LIST lacks are found again and renewed; an absent one is an alarm", async () => {
  const { world, site, counted } = await lockedWorld();
  using _ = world;
  const { hidden, marked } = hideable(counted);
  const node = await world.open(marked);
  for (let one = 0; one < 5; one += 1) await world.backup(node, [one * 3, one * 3 + 1, 90 + one]);
  await world.cleanup(node);
  const packs = packsIn(site.objects).toSorted();
  expect(packs.length).toBeGreaterThan(4);
  for (const some of [packs, packs.slice(0, 1), packs.slice(-2), packs.slice(1, 3)]) {
    await world.clock.sleep(PERIOD_MS);
    for (const key of some) hidden.add(key);
    const { alarms, locks } = await world.cleanup(node);
    expect(alarms).toEqual([]);
    expect([...hidden]).toEqual([]);
    for (const key of packs) expect([key, site.locks.get(key)]).toEqual([key, locks!.untilMs]);
  }
  await world.clock.sleep(PERIOD_MS);
  const [lost, ...rest] = packs;
  site.objects.delete(lost!);
  const { alarms, locks } = await world.cleanup(node);
  // If it is one with lists of packs, more is said of it.
  const unlocked = alarms.filter((alarm) => alarm.includes("was not locked"));
  expect(unlocked).toEqual([expect.stringContaining(lost!)]);
  for (const key of rest) expect(site.locks.get(key)).toBe(locks!.untilMs);
});

test("a period of another length is a new one: the next cleanup renews, and shows what holds", async () => {
  const { world, site, node: first } = await lockedWorld();
  using _ = world;
  await world.backup(first, [1, 2, 3]);
  await world.cleanup(first);
  const open = async (periodMs: number): Promise<{ next: MemorySite; node: SmallNode }> => {
    const lock = { mode: "compliance", periodMs, clock: world.clock } as const;
    const next = new MemorySite("locked", site.objects, lock);
    for (const [key, untilMs] of site.locks) next.locks.set(key, untilMs);
    const node = await world.open(next);
    const noted = first.repository.catalog.get("locks-renewed");
    node.repository.catalog.set("locks-renewed", noted);
    return { next, node };
  };
  const { node: long } = await open(90 * DAY_MS);
  expect((await world.cleanup(long)).locks?.renewed).toBeGreaterThan(3);

  const { next, node } = await open(DAY_MS);
  const before = (await readLockStanding(site))!;
  const nowMs = world.clock.now();
  const had = new Set(packsIn(site.objects));
  await world.backup(node, [11, 12, 13]);
  const fresh = packsIn(site.objects).filter((key) => !had.has(key));
  const heard = (await readLockStanding(next, {}, before))!;
  expect(next.locks.get(HEADER_KEY)).toBe(before.untilMs);
  expect(fresh.map((key) => next.locks.get(key))).toEqual(fresh.map(() => heard.untilMs));
  expect(heard).toMatchObject({ untilMs: lockEndMs(nowMs, DAY_MS), headerMs: before.untilMs });

  // Cleanups have stopped, and nobody is told that the header's own end holds, near as it may be.
  for (const days of [2.5, 80]) {
    await world.clock.sleep(days * DAY_MS);
    const later = (await readLockStanding(next, {}, heard))!;
    expect(later).toEqual(heard);
    expect(isLockEnding(later, world.clock.now())).toBe(true);
  }
  const { locks } = await world.cleanup(node);
  const renewed = renewedStanding(next.lock!, locks!.untilMs, heard);
  expect(await readLockStanding(next, {}, renewed)).toMatchObject({ untilMs: locks!.untilMs });
  for (const key of fresh) expect(next.locks.get(key)).toBe(locks!.untilMs);
});
