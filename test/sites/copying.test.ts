/** Copies that a store makes by itself, through all that is put around a site. */
import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import { realRandom } from "../../src/base/random.ts";
import { countRequests } from "../../src/sites/counting-site.ts";
import { FaultySite } from "../../src/sites/faulty-site.ts";
import type { Fault } from "../../src/sites/faulty-site.ts";
import { guardedSite } from "../../src/sites/guarded-site.ts";
import { limitedSite } from "../../src/sites/limited-site.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import type { MemoryStore } from "../../src/sites/memory-site.ts";
import { retryingSite } from "../../src/sites/retrying-site.ts";
import { canCopyWithin } from "../../src/sites/site.ts";
import type { CopyOutcome, Site, SiteCall, SiteCopying } from "../../src/sites/site.ts";
import { keysOf, text, thrownBy } from "./contract.ts";
import { seededRandom, StillClock } from "./still-clock.ts";

/** Two sites of one store. */
function pair(): { from: MemorySite; to: MemorySite } {
  const store: MemoryStore = new Map();
  return {
    from: new MemorySite("from", undefined, undefined, store),
    to: new MemorySite("to", undefined, undefined, store),
  };
}

/** The same site, whose store copies in another manner. */
function copiedBy(
  site: MemorySite,
  copyFrom: (...call: Parameters<SiteCopying["copyFrom"]>) => Promise<CopyOutcome>,
): MemorySite {
  return Object.assign(site, { copying: { ...site.copying!, copyFrom } });
}

describe("a guarded site", () => {
  test("copies after it has proved that nothing is overwritten, and leaves no probe", async () => {
    const { from, to } = pair();
    const site = guardedSite(to, realRandom);
    await from.put("a", text("bytes"));
    expect(await site.copying!.copyFrom(from.copying!.place, "a", "b")).toBe("created");
    expect(await site.copying!.copyFrom(from.copying!.place, "a", "b")).toBe("exists");
    expect(await site.get("b")).toEqual(text("bytes"));
    expect(await keysOf(to, "probe/")).toEqual([]);
  });

  test("copies nothing in a store that overwrites, and says so from then on", async () => {
    const { from, to } = pair();
    const site = guardedSite(
      copiedBy(to, async (source, fromKey, toKey) => {
        const objects = source.root === "to" ? to.objects : from.objects;
        to.objects.set(toKey, objects.get(fromKey)!);
        return "created";
      }),
      realRandom,
    );
    await from.put("a", text("other"));
    await to.put("b", text("good"));
    expect(canCopyWithin(from, site)).toBe(true);
    expect(await site.copying!.copyFrom(from.copying!.place, "a", "b")).toBe("impossible");
    expect(await site.get("b")).toEqual(text("good"));
    expect(canCopyWithin(from, site)).toBe(false);
    expect(site.copying!.ways).toEqual([]);
    expect(await keysOf(to, "probe/")).toEqual([]);
  });

  test("takes the first way that keeps the condition", async () => {
    const { from, to } = pair();
    const { copyFrom, ...rest } = to.copying!;
    const ways = ["careless", "unknown", "careful"].map((name) => ({ name, requests: 1 }));
    const copying: SiteCopying = {
      ...rest,
      ways,
      copyFrom: async (source, fromKey, toKey, call = {}) => {
        if (call.way === "careful") return await copyFrom(source, fromKey, toKey);
        if (call.way === "unknown") throw new AppError("refused", "What is that?");
        to.objects.delete(toKey);
        return await copyFrom(source, fromKey, toKey);
      },
    };
    const site = guardedSite(Object.assign(to, { copying }), realRandom);
    await from.put("a", text("bytes"));
    await to.put("b", text("good"));
    expect(await site.copying!.copyFrom(from.copying!.place, "a", "b")).toBe("exists");
    expect(site.copying!.ways.map(({ name }) => name)).toEqual(["careful"]);
    expect(await to.get("b")).toEqual(text("good"));
  });

  test("copies nothing in a store that drops the mark of copies", async () => {
    class Unmarking extends MemorySite {
      override async head(key: string, options: SiteCall = {}) {
        const head = await super.head(key, options);
        return head === undefined ? undefined : { sizeBytes: head.sizeBytes };
      }
    }
    const store: MemoryStore = new Map();
    const from = new MemorySite("from", undefined, undefined, store);
    const site = guardedSite(new Unmarking("to", undefined, undefined, store), realRandom);
    await from.put("a", text("bytes"));
    expect(await site.copying!.copyFrom(from.copying!.place, "a", "b")).toBe("impossible");
    expect(await site.get("b")).toBeUndefined();
  });

  test("does not ask again for a source that was refused", async () => {
    const { from, to } = pair();
    const { copyFrom } = to.copying!;
    let asked = 0;
    const site = guardedSite(
      copiedBy(to, async (source, ...rest) => {
        if (source.root !== "from") return await copyFrom(source, ...rest);
        asked += 1;
        return "impossible";
      }),
      realRandom,
    );
    for (const key of ["a", "b"]) {
      expect(await site.copying!.copyFrom(from.copying!.place, key, key)).toBe("impossible");
    }
    expect(asked).toBe(1);
    expect(canCopyWithin(from, site)).toBe(false);
  });
});

describe("wrappers hand copies on", () => {
  test("and a site without them has none", () => {
    const bare = new MemorySite();
    const doors = { clock: new StillClock(), random: realRandom };
    const wrapped: readonly Site[] = [
      countRequests(bare),
      guardedSite(bare, realRandom),
      limitedSite(bare, { ...doors, limits: {} }),
      retryingSite(bare, doors),
      new FaultySite(bare, doors),
    ];
    for (const site of wrapped) expect(site.copying).toBeUndefined();
  });

  test("counted as PUTs, with no bytes written", async () => {
    const { from, to } = pair();
    const site = countRequests(to);
    await from.put("a", text("bytes"));
    await site.copying!.copyFrom(from.copying!.place, "a", "b");
    await site.copying!.copyFrom(from.copying!.place, "a", "b");
    expect(site).toMatchObject({ copies: 1, bytesWritten: 0 });
    expect(site.requests.put).toBe(2);
  });

  test("below the number of requests at once, and past the rates of the line", async () => {
    const { from, to } = pair();
    const clock = new StillClock();
    let running = 0;
    let most = 0;
    const slow = copiedBy(to, async () => {
      running += 1;
      most = Math.max(most, running);
      await Promise.resolve();
      running -= 1;
      return "created";
    });
    const limits = { requestsAtOnce: 2, uploadBytesPerSecond: 1, downloadBytesPerSecond: 1 };
    const site = limitedSite(slow, { clock, limits });
    const keys = ["a", "b", "c", "d", "e"];
    await Promise.all(
      keys.map(async (key) => await site.copying!.copyFrom(from.copying!.place, key, key)),
    );
    expect(most).toBe(2);
  });

  test("tried again where trouble passes, and told as there when the first try had landed", async () => {
    const { from, to } = pair();
    const faults: Fault[] = [{ fault: "error-before" }, { fault: "error-after" }];
    const doors = { clock: new StillClock(), random: seededRandom(1) };
    const faulty = new FaultySite(to, {
      ...doors,
      fault: ({ kind }) => (kind === "put" ? faults.shift() : undefined),
    });
    const site = retryingSite(faulty, doors);
    await from.put("a", text("bytes"));
    expect(await site.copying!.copyFrom(from.copying!.place, "a", "b")).toBe("exists");
    expect(faulty.injected.map(({ fault }) => fault)).toEqual(["error-before", "error-after"]);
    expect(await site.get("b")).toEqual(text("bytes"));
  });

  test("given up when the caller gives up", async () => {
    const { from, to } = pair();
    const signal = AbortSignal.abort();
    const site = retryingSite(to, { clock: new StillClock(), random: realRandom });
    const error = await thrownBy(site.copying!.copyFrom(from.copying!.place, "a", "b", { signal }));
    expect(error).toHaveProperty("kind", "cancelled");
  });
});
