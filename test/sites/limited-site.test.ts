/**
 * A site that is held to a rate, under virtual time: what passes in a span, in which order, and what
 * happens to those who give up.
 */
import { describe, expect, test } from "bun:test";
import { limitedSite, ratesAt, transferTimeMs } from "../../src/sites/limited-site.ts";
import type { SiteLimits } from "../../src/sites/limited-site.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import { VirtualClock } from "../simulation/virtual-clock.ts";
import { keysOf, siteContract, thrownBy } from "./contract.ts";
import { StillClock } from "./still-clock.ts";

siteContract("a limited site", async () => {
  const objects = new Map<string, Uint8Array>();
  const limits = {
    uploadBytesPerSecond: 1_000_000,
    downloadBytesPerSecond: 1_000_000,
    requestsAtOnce: 2,
  };
  const wrap = () =>
    limitedSite(new MemorySite("memory", objects), { clock: new StillClock(), limits });
  const site = wrap();
  return {
    site,
    reopen: async () => wrap(),
    [Symbol.asyncDispose]: async () => await site[Symbol.asyncDispose](),
  };
});

const KILOBYTE = new Uint8Array(1000);

function limited(limits: SiteLimits) {
  const clock = new VirtualClock();
  const below = new MemorySite();
  return { clock, below, site: limitedSite(below, { clock, limits }) };
}

/** Virtual ms until all of it has ended. */
async function timeOf(clock: VirtualClock, work: () => Promise<unknown>): Promise<number> {
  const began = clock.monotonic();
  await clock.run(work());
  return Math.round(clock.monotonic() - began);
}

describe("a limited site", () => {
  test("lets the first object go at once, and the others at the rate", async () => {
    const { clock, site } = limited({ uploadBytesPerSecond: 1000 });
    expect(await timeOf(clock, () => site.put("a", KILOBYTE))).toBe(0);
    const nine = Array.from({ length: 9 }, (_, index) => `b${index}`);
    expect(await timeOf(clock, () => Promise.all(nine.map((key) => site.put(key, KILOBYTE))))).toBe(
      9000,
    );
  });

  test("limits each direction by itself", async () => {
    const { clock, site } = limited({ uploadBytesPerSecond: 1000 });
    await clock.run(site.put("a", KILOBYTE));
    const reads = () => Promise.all(Array.from({ length: 50 }, () => site.get("a")));
    expect(await timeOf(clock, reads)).toBe(0);
  });

  test("has those pay who come after an object of unknown size", async () => {
    const { clock, site, below } = limited({ downloadBytesPerSecond: 1000 });
    await below.put("a", KILOBYTE);
    const reads = async () => {
      for (let count = 0; count < 5; count += 1) await site.get("a");
    };
    expect(await timeOf(clock, reads)).toBe(4000);
  });

  test("counts of a range only the bytes that there were", async () => {
    const { clock, site, below } = limited({ downloadBytesPerSecond: 1000 });
    await below.put("a", KILOBYTE);
    const reads = async () => {
      await site.get("a", { offset: 500, length: 100_000 });
      await site.get("a");
    };
    expect(await timeOf(clock, reads)).toBe(500);
  });

  test("does not save up what was not used", async () => {
    const { clock, site } = limited({ uploadBytesPerSecond: 1000 });
    await clock.pass(3_600_000);
    const puts = () => Promise.all(["a", "b", "c"].map((key) => site.put(key, KILOBYTE)));
    expect(await timeOf(clock, puts)).toBe(2000);
  });

  test("serves those who wait in the order in which they came", async () => {
    const { clock, site } = limited({ uploadBytesPerSecond: 1000 });
    const order: string[] = [];
    const keys = ["a", "b", "c", "d"];
    await clock.run(
      Promise.all(
        keys.map(async (key) => {
          await site.put(key, KILOBYTE);
          order.push(key);
        }),
      ),
    );
    expect(order).toEqual(keys);
  });

  test("charges nothing to one who gives up, and does not hold up the rest", async () => {
    const { clock, site, below } = limited({ uploadBytesPerSecond: 1000 });
    const abort = new AbortController();
    await clock.run(site.put("a", KILOBYTE));
    const given = thrownBy(site.put("b", KILOBYTE, { signal: abort.signal }));
    const kept = site.put("c", KILOBYTE);
    abort.abort();
    const took = await timeOf(clock, () => Promise.all([given, kept]));
    expect(took).toBe(1000);
    expect(await given).toMatchObject({ kind: "cancelled" });
    expect([...below.objects.keys()]).toEqual(["a", "c"]);
  });

  test("takes the rate of the hour, also for one who waits as it begins", async () => {
    // The virtual clock begins at 18:00 UTC.
    const { clock, site } = limited({
      uploadBytesPerSecond: 1000,
      hours: [{ fromMinute: 18 * 60, toMinute: 18 * 60 + 1, uploadBytesPerSecond: 10 }],
    });
    await clock.run(site.put("a", KILOBYTE));
    // 60 s at 10 bytes a second pay 600 bytes; the rest goes at 1000.
    const took = await timeOf(clock, () => site.put("b", KILOBYTE));
    expect(took).toBeGreaterThanOrEqual(60_000);
    expect(took).toBeLessThanOrEqual(61_000);
  });

  test("has no more requests under way than it may", async () => {
    const { clock, below } = limited({});
    let under = 0;
    let most = 0;
    const counted = new Proxy(below, {
      get: (target, key) =>
        key === "head"
          ? async () => {
              most = Math.max(most, ++under);
              await clock.sleep(10);
              under -= 1;
              return undefined;
            }
          : (Reflect.get(target, key) as unknown),
    });
    const site = limitedSite(counted, { clock, limits: { requestsAtOnce: 3 } });
    const took = await timeOf(clock, () =>
      Promise.all(Array.from({ length: 9 }, () => site.head("a"))),
    );
    expect({ most, took }).toEqual({ most: 3, took: 30 });
  });

  test("does not hold a request while a listing is looked at", async () => {
    const { clock, site, below } = limited({ requestsAtOnce: 1 });
    await below.put("a", KILOBYTE);
    await below.put("b", KILOBYTE);
    const seen: (number | undefined)[] = [];
    await clock.run(
      (async () => {
        for await (const row of site.list("")) seen.push((await site.head(row.key))?.sizeBytes);
      })(),
    );
    expect(seen).toEqual([1000, 1000]);
    expect(await keysOf(site, "")).toEqual(["a", "b"]);
  });
});

describe("rates by the hour", () => {
  const day = { fromMinute: 8 * 60, toMinute: 18 * 60, uploadBytesPerSecond: 1 };
  const night = { fromMinute: 22 * 60, toMinute: 6 * 60, uploadBytesPerSecond: 2 };
  const limits = { uploadBytesPerSecond: 3, hours: [day, night] };
  const rateAt = (hour: number, minute = 0) =>
    ratesAt(limits, Date.UTC(2026, 1, 1, hour, minute)).uploadBytesPerSecond;

  test("hold from the first minute to before the last, also over midnight", () => {
    expect([rateAt(7, 59), rateAt(8), rateAt(17, 59), rateAt(18)]).toEqual([3, 1, 1, 3]);
    expect([rateAt(21, 59), rateAt(22), rateAt(0), rateAt(5, 59), rateAt(6)]).toEqual([
      3, 2, 2, 2, 3,
    ]);
  });

  test("give a plan its time, hour by hour", () => {
    const nowMs = Date.UTC(2026, 1, 1, 17, 59, 50);
    // Ten seconds at 1, the rest at 3.
    expect(transferTimeMs(limits, "upload", { bytes: 40, nowMs })).toBe(20_000);
    expect(transferTimeMs(limits, "download", { bytes: 40, nowMs })).toBe(0);
    expect(transferTimeMs({ uploadBytesPerSecond: 4 }, "upload", { bytes: 8, nowMs })).toBe(2000);
  });
});
