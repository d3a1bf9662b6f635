/** What a node says of the locks of its sites, and what it asks to know it. */
import { describe, expect, test } from "bun:test";
import { DAY_MS } from "../../src/base/units.ts";
import type { Clock } from "../../src/base/doors.ts";
import { HEADER_KEY } from "../../src/cas/format/header.ts";
import { planTargetLocks } from "../../src/cluster/migrate-locks.ts";
import { planMigration } from "../../src/cluster/migrate-plan.ts";
import { lockWarning } from "../../src/cluster/site-locks.ts";
import type { SiteSet } from "../../src/cluster/site-set.ts";
import { statusOfSites } from "../../src/cluster/site-status.ts";
import type { SiteStatus } from "../../src/cluster/site-status.ts";
import { countRequests } from "../../src/sites/counting-site.ts";
import { lockEndMs } from "../../src/sites/lock-period.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import type { Site } from "../../src/sites/site.ts";
import { openNode } from "../cas/small-backups.ts";
import { partsOf, SiteNodes } from "./site-nodes.ts";

const PERIOD_MS = 30 * DAY_MS;

/** The same objects behind a site that locks. */
function locking(site: MemorySite, clock: SiteNodes["world"]["clock"]): MemorySite {
  const lock = { mode: "compliance", periodMs: PERIOD_MS, clock } as const;
  return new MemorySite(site.name, site.objects, lock);
}

/** The world's time, in which nobody is too late. */
function endlessly({ world: { clock } }: SiteNodes): Clock {
  return {
    now: () => clock.now(),
    monotonic: () => clock.monotonic(),
    sleep: async (_ms, signal) => {
      const { promise, reject } = Promise.withResolvers<void>();
      signal?.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
      await promise;
    },
  };
}

function statusesOf(node: SiteSet, nowMs: number): SiteStatus[] {
  return statusOfSites({
    now: node.last ?? { roles: undefined, sites: [] },
    stateOf: (view) => node.stateOf(view),
    locksOf: (id) => node.locks.of(id),
    retention: {},
    nowMs,
  });
}

describe("a site that locks", () => {
  test("says until when it does, by one HEAD that is not repeated, and warns within a period", async () => {
    await using sites = await SiteNodes.create(1);
    const { world, stores } = sites;
    const { clock } = world;
    const store = locking(stores[0]!, clock);
    using writer = await openNode(store, world, { node: "w" });
    await world.backup(writer, [1, 2, 3]);
    await world.cleanup(writer);
    const untilMs = lockEndMs(clock.now(), PERIOD_MS);
    const counted = countRequests(store);
    const node = sites.node("a", { wrap: () => counted, clock: endlessly(sites) });
    await node.look();
    const heads = counted.requests.head;
    const before = { ...counted.requests };
    await node.look();
    expect(counted.requests.head).toBe(heads);
    expect(counted.requests.list).toBe(before.list);
    const [status] = statusesOf(node, clock.now());
    expect(status?.lock).toEqual({
      mode: "compliance",
      until: new Date(untilMs).toISOString(),
      ending: false,
    });
    expect(lockWarning(status!, clock.now())).toBeUndefined();

    await clock.sleep(untilMs - clock.now() - PERIOD_MS + 1);
    await node.look();
    const [late] = statusesOf(node, clock.now());
    expect(late?.lock).toMatchObject({ ending: true });
    expect(late?.lock?.packs).toBeGreaterThan(0);
    expect(lockWarning(late!, clock.now())).toMatch(
      /^The locks of \d+ packs at site s0 end on .* UTC: run `astacus cleanup`\.$/,
    );
    expect(lockWarning(late!, untilMs + 1)).toContain("ended on");
    expect(lockWarning({ ...late!, role: "archive" }, clock.now())).toBeUndefined();

    // Another node cleans up, and this one hears of it.
    await world.cleanup(writer);
    await clock.sleep(60_000);
    await node.look();
    const [renewed] = statusesOf(node, clock.now());
    expect(renewed?.lock?.ending).toBe(false);

    // Under a marker it has no lock to tell of; what is below it has.
    store.locks.delete(HEADER_KEY);
    await clock.sleep(DAY_MS);
    await node.look();
    expect(statusesOf(node, clock.now())[0]?.lock).toEqual(renewed?.lock);
  });

  test("whose first objects have no lock yet is not taken for a locked one", async () => {
    await using sites = await SiteNodes.create(1);
    const { clock } = sites.world;
    const node = sites.node("a", { wrap: (site) => locking(site, clock), clock: endlessly(sites) });
    await node.look();
    const [status] = statusesOf(node, clock.now());
    expect(status?.lock).toMatchObject({ mode: "compliance", ending: true });
    expect(lockWarning(status!, clock.now())).toContain("has not yet: run `astacus cleanup`");
  });

  test("shows no end that a shorter period has made false, until it is renewed", async () => {
    await using sites = await SiteNodes.create(1);
    const { world, stores } = sites;
    const { clock } = world;
    const store = locking(stores[0]!, clock);
    using writer = await openNode(store, world, { node: "w" });
    await world.backup(writer, [1, 2, 3]);
    await world.cleanup(writer);
    const lock = { mode: "compliance", periodMs: DAY_MS, clock } as const;
    const short = new MemorySite(store.name, store.objects, lock);
    for (const [key, untilMs] of store.locks) short.locks.set(key, untilMs);
    const node = sites.node("a", { wrap: () => short, clock: endlessly(sites) });
    await node.look();
    const until = new Date(lockEndMs(clock.now(), DAY_MS)).toISOString();
    expect(statusesOf(node, clock.now())[0]?.lock).toMatchObject({ until, ending: false });
    await clock.sleep(10 * DAY_MS);
    await node.look();
    const [late] = statusesOf(node, clock.now());
    expect(late?.lock).toMatchObject({ until, ending: true });
    expect(lockWarning(late!, clock.now())).toContain("ended on");
    const open = node.last!.sites[0]!.open!;
    node.locks.note(open, lockEndMs(clock.now(), DAY_MS));
    await clock.sleep(60_000);
    await node.look();
    expect(statusesOf(node, clock.now())[0]?.lock?.ending).toBe(false);
  });

  test("has no end to show under a legal hold, and none to warn of", async () => {
    await using sites = await SiteNodes.create(1);
    const { clock } = sites.world;
    const store = locking(sites.stores[0]!, clock);
    store.locks.set(HEADER_KEY, Number.POSITIVE_INFINITY);
    const node = sites.node("a", { wrap: () => store, clock: endlessly(sites) });
    for (let look = 0; look < 2; look += 1) {
      await node.look();
      const [status] = statusesOf(node, clock.now());
      expect(status?.lock).toEqual({ mode: "compliance", ending: false });
      expect(lockWarning(status!, clock.now())).toBeUndefined();
      await clock.sleep(DAY_MS);
    }
  });

  test("is not waited for longer than who looks waits for a site that had failed", async () => {
    await using sites = await SiteNodes.create(2);
    const { clock } = sites.world;
    const asked = Promise.withResolvers<void>();
    const bounds: number[] = [];
    const own: Clock = {
      ...endlessly(sites),
      sleep: async (ms, signal) => {
        bounds.push(ms);
        const ended = Promise.withResolvers<void>();
        signal?.addEventListener("abort", () => ended.reject(signal.reason as Error));
        await Promise.race([asked.promise, ended.promise]);
      },
    };
    let bound: number | undefined;
    const wrap = (site: MemorySite): Site => {
      if (site.name !== "s1") return site;
      const counted = countRequests(locking(site, clock));
      const lockedUntil = async (): Promise<undefined> => {
        bound = bounds.at(-1);
        asked.resolve();
        return await new Promise<undefined>(() => undefined);
      };
      return { ...counted, lock: { ...counted.lock!, lockedUntil } };
    };
    const node = sites.node("a", { wrap, clock: own });
    sites.down.add("s1");
    await node.look();
    sites.down.delete("s1");
    await node.look(undefined, { maxAgeMs: 1, asksAgain: true });
    expect(bound).toBeUndefined();
    await clock.sleep(10);
    await node.look(undefined, { maxAgeMs: 1, asksAgain: true });
    expect(bound).toBeGreaterThan(0);
    expect(bound).toBeLessThanOrEqual(1000);
    expect(node.last!.sites[1]!.error).toBeUndefined();
  });

  test("is remembered while it is away, and one that never locked says nothing", async () => {
    await using sites = await SiteNodes.create(2);
    const { clock } = sites.world;
    const wrap = (site: MemorySite) => (site.name === "s1" ? locking(site, clock) : site);
    const node = sites.node("a", { wrap, clock: endlessly(sites) });
    await node.look();
    sites.down.add("s1");
    await node.look();
    const [first, second] = statusesOf(node, clock.now());
    expect(first?.lock).toBeUndefined();
    expect(second).toMatchObject({ reachable: false, lock: { mode: "compliance" } });
  });

  test("tells a migration until when it keeps what it gets, and what renewals ask of it", async () => {
    await using sites = await SiteNodes.create(2);
    const { world, stores } = sites;
    using writer = await openNode(stores[0]!, world, { node: "w" });
    await world.backup(writer, [1, 2, 3]);
    const wrap = (site: MemorySite) => (site.name === "s1" ? locking(site, world.clock) : site);
    const node = sites.node("a", { wrap, clock: endlessly(sites) });
    const signal = new AbortController().signal;
    const plan = await planMigration(partsOf(node), { from: "s0", to: "s1" }, signal);
    expect(plan.locks).toMatchObject({
      mode: "compliance",
      periodMs: PERIOD_MS,
      until: new Date(lockEndMs(world.clock.now(), PERIOD_MS)).toISOString(),
    });
    const { requests } = plan.locks!.renewal;
    expect(requests.head).toBeGreaterThan(plan.packs);
    expect(requests.put).toBe(requests.head);
    const back = await planMigration(partsOf(node), { from: "s1", to: "s0" }, signal);
    expect(back.locks).toBeUndefined();
    const prices = {
      currency: "EUR",
      storagePerGBMonth: 0,
      putPer1000: 5,
      getPer1000: 1,
      deletePer1000: 0,
      egressPerGB: 0,
    };
    const copy = { ...plan, packs: 1000, requests: { get: 0, put: 0, head: 0 } };
    const target = await node.repository("s1");
    const priced = planTargetLocks(target, copy, { name: "s1", prices });
    expect(priced?.renewal.cost?.amount).toBeGreaterThan(6);
  });
});
