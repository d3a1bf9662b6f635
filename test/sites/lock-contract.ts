/**
 * What every kind of site that can lock promises besides (SiteLock in src/sites/site.ts), as one suite.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { until } from "../../scripts/real/server-process.ts";
import { AppError } from "../../src/base/error.ts";
import { realRandom } from "../../src/base/random.ts";
import { proveLock } from "../../src/sites/certify.ts";
import { guardedSite } from "../../src/sites/guarded-site.ts";
import { retryingSite } from "../../src/sites/retrying-site.ts";
import { realClock } from "../../src/base/clock.ts";
import type { Site } from "../../src/sites/site.ts";
import { keysOf, text, thrownBy } from "./contract.ts";

/** Opened sites of one store have locks of this period. */
export const LOCK_PERIOD_MS = 3_600_000;

const SLOW_MS = 60_000;

/** Runs the suite against one kind; `open` gives a site of an empty store that locks. */
export function lockContract(name: string, open: () => Promise<Site>): void {
  describe(`the locks of ${name}`, () => {
    let site: Site;
    beforeAll(async () => {
      // As operations use it: the wrappers must hand locks on.
      site = retryingSite(await open(), { clock: realClock, random: realRandom });
    }, SLOW_MS);
    afterAll(async () => await site[Symbol.asyncDispose]());
    const locked = async (key: string): Promise<number | undefined> =>
      await site.lock!.lockedUntil(key);

    test("what is created is locked to the end of the period after next", async () => {
      expect(site.lock).toMatchObject({ periodMs: LOCK_PERIOD_MS });
      const before = site.lock!.endMs();
      await site.put("lock/a", text("a"));
      expect([before, site.lock!.endMs()]).toContain((await locked("lock/a"))!);
      expect(before - site.lock!.nowMs()).toBeGreaterThan(2 * LOCK_PERIOD_MS - 60_000);
      expect(before - site.lock!.nowMs()).toBeLessThanOrEqual(3 * LOCK_PERIOD_MS);
    });

    test("what is locked stays, its remover is told until when, and the rest goes", async () => {
      await site.put("lock/b", text("b"));
      await site.put("lock/c", text("c"), { lockUntilMs: 0 });
      const told: [string, number][] = [];
      const onLocked = (key: string, untilMs: number): unknown => told.push([key, untilMs]);
      await site.delete(["lock/b", "lock/c", "lock/never"], { onLocked });
      expect(told).toEqual([["lock/b", (await locked("lock/b"))!]]);
      expect(await site.get("lock/b")).toEqual(text("b"));
      expect(await keysOf(site, "lock/c")).toEqual([]);
      expect(await site.get("lock/c")).toBeUndefined();
    });

    test("the store itself refuses a removal by force, and says so to who does not listen", async () => {
      await site.put("lock/d", text("d"));
      for (const evenLocked of [true, false]) {
        const error = await thrownBy(site.delete(["lock/d"], { evenLocked }));
        expect(error).toBeInstanceOf(AppError);
        expect(error).toHaveProperty("kind", "refused");
      }
      expect(await site.get("lock/d")).toEqual(text("d"));
    });

    test("a lock is made longer, and never shorter", async () => {
      await site.put("lock/e", text("e"));
      const end = (await locked("lock/e"))!;
      await site.lock!.lockUntil("lock/e", end + LOCK_PERIOD_MS);
      expect(await locked("lock/e")).toBe(end + LOCK_PERIOD_MS);
      expect(await thrownBy(site.lock!.lockUntil("lock/e", end))).toBeInstanceOf(AppError);
      expect(await locked("lock/e")).toBe(end + LOCK_PERIOD_MS);
    });

    test("a copy by the store is locked as what is sent, and stays", async () => {
      const guarded = guardedSite(site, realRandom);
      await site.put("pack/lock-from", text("f"), { lockUntilMs: 0 });
      const before = site.lock!.endMs();
      const place = site.copying!.place;
      expect(await guarded.copying!.copyFrom(place, "pack/lock-from", "pack/lock-to")).toBe(
        "created",
      );
      expect([before, site.lock!.endMs()]).toContain((await locked("pack/lock-to"))!);
      let isKept = false;
      await site.delete(["pack/lock-to"], { onLocked: () => (isKept = true) });
      expect(isKept).toBe(true);
      expect(await site.get("pack/lock-to")).toEqual(text("f"));
      expect(await keysOf(site, "probe/")).toEqual(await keysOf(site, "probe/canary-"));
    });

    test("what has no lock, or is absent, has no end of one", async () => {
      await site.put("lock/f", text("f"), { lockUntilMs: 0 });
      expect(await locked("lock/f")).toBeUndefined();
      expect(await locked("lock/absent")).toBeUndefined();
    });

    test("a probe is never locked", async () => {
      await site.put("probe/lock", text("x"));
      expect(await locked("probe/lock")).toBeUndefined();
      await site.delete(["probe/lock"]);
      expect(await site.get("probe/lock")).toBeUndefined();
    });

    test(
      "after the end of its lock an object can be removed",
      async () => {
        const untilMs = Math.ceil(site.lock!.nowMs() / 1000) * 1000 + 2000;
        await site.put("lock/g", text("g"), { lockUntilMs: untilMs });
        await until("the lock ends", 20_000, async () => {
          let isKept = false;
          await site.delete(["lock/g"], { onLocked: () => (isKept = true) });
          return !isKept;
        });
        expect(site.lock!.nowMs()).toBeGreaterThan(untilMs - 1000);
        expect(await site.get("lock/g")).toBeUndefined();
      },
      SLOW_MS,
    );

    test("a canary proves that locks hold", async () => {
      await proveLock(site, realRandom);
      expect((await keysOf(site, "probe/canary-")).length).toBe(1);
    });
  });
}
