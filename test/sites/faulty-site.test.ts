/**
 * The faulty site does what it says, no more, and the same again from the same seed.
 */
import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import { FaultySite, type Fault, type FaultName } from "../../src/sites/faulty-site.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import { keysOf, text, thrownBy } from "./contract.ts";
import { seededRandom, StillClock } from "./still-clock.ts";

describe("a fault that was asked for", () => {
  test("before the effect leaves nothing behind", async () => {
    const { site, memory } = faultyAt(0, { fault: "error-before" });
    expect(await thrownBy(site.put("a", text("x")))).toHaveProperty("kind", "unavailable");
    expect(memory.objects.size).toBe(0);
  });

  test("after the effect loses only the acknowledgement", async () => {
    const { site } = faultyAt(0, { fault: "error-after" });
    expect(await thrownBy(site.put("a", text("x")))).toHaveProperty("retryable", true);
    expect(await site.get("a")).toEqual(text("x"));
  });

  test("may be an error of the test's own, such as a crash", async () => {
    const crash = new Error("crash");
    const { site } = faultyAt(0, { fault: "error-after", error: crash });
    expect(await thrownBy(site.put("a", text("x")))).toBe(crash);
  });

  test("a late put lands before the call with that distance, if nobody was faster", async () => {
    const { site } = faultyAt(0, { fault: "late", calls: 2 });
    const buffer = text("late");
    expect(await thrownBy(site.put("a", buffer))).toHaveProperty("kind", "timeout");
    buffer.fill(0);
    expect(await site.get("a")).toBeUndefined();
    expect(await site.get("a")).toEqual(text("late"));
    const other = faultyAt(0, { fault: "late", calls: 2 }).site;
    await thrownBy(other.put("a", text("late")));
    expect(await other.put("a", text("faster"))).toBe("created");
    expect(await other.get("a")).toEqual(text("faster"));
    expect(other.pendingCount).toBe(0);
  });

  test("a late removal wakes up later", async () => {
    const { site } = faultyAt(1, { fault: "late", calls: 100 });
    await site.put("a", text("x"));
    await thrownBy(site.delete(["a"]));
    expect(await site.get("a")).toEqual(text("x"));
    await site.settle();
    expect(await site.get("a")).toBeUndefined();
  });

  test("a duplicated put hears of its own first copy", async () => {
    const { site } = faultyAt(0, { fault: "duplicate" });
    expect(await site.put("a", text("x"))).toBe("exists");
  });

  test("a lost put was acknowledged", async () => {
    const { site } = faultyAt(0, { fault: "lost" });
    expect(await site.put("a", text("x"))).toBe("created");
    expect(await site.get("a")).toBeUndefined();
  });

  test("a hidden object appears after some looks", async () => {
    const { site } = faultyAt(0, { fault: "hidden", calls: 2 });
    expect(await site.put("a", text("x"))).toBe("created");
    expect(await site.get("a")).toBeUndefined();
    expect(await site.head("a")).toBeUndefined();
    expect(await site.get("a")).toEqual(text("x"));
  });

  test("a stale listing misses what was put lately", async () => {
    const { site } = faultyAt(3, { fault: "stale", calls: 2 });
    for (const key of ["a", "b", "c"]) await site.put(key, text(key));
    expect(await keysOf(site, "")).toEqual(["a"]);
    expect(await keysOf(site, "")).toEqual(["a", "b", "c"]);
  });

  test("a truncated or flipped read differs from what is stored, once", async () => {
    for (const fault of ["truncated", "flipped"] as const) {
      const { site } = faultyAt(1, { fault });
      await site.put("a", text("0123"));
      const bad = (await site.get("a"))!;
      expect(bad).not.toEqual(text("0123"));
      expect(bad.length).toBe(fault === "flipped" ? 4 : 2);
      expect(await site.get("a")).toEqual(text("0123"));
    }
  });

  test("a storm refuses this call and those after it", async () => {
    const { site, memory } = faultyAt(0, { fault: "storm", calls: 2 });
    for (let index = 0; index < 3; index += 1) {
      expect(await thrownBy(site.put("a", text("x")))).toHaveProperty("context.status", 503);
    }
    expect(memory.requests.put).toBe(0);
    expect(await site.put("a", text("x"))).toBe("created");
  });

  test("a cut listing ends early, without a word", async () => {
    const { site } = faultyAt(4, { fault: "cut" });
    for (const key of ["a", "b", "c", "d"]) await site.put(key, text(key));
    expect(await keysOf(site, "")).toEqual(["a", "b"]);
    expect(await keysOf(site, "")).toEqual(["a", "b", "c", "d"]);
  });

  test("a bucket that is full takes nothing for a while, and gives and removes", async () => {
    const { site } = faultyAt(1, { fault: "full", calls: 3 });
    await site.put("a", text("x"));
    expect(await thrownBy(site.put("b", text("x")))).toHaveProperty("kind", "no-space");
    expect(await site.get("a")).toEqual(text("x"));
    await site.delete(["a"]);
    const error = await thrownBy(site.put("b", text("x")));
    expect(error).toHaveProperty("retryable", false);
    expect(await site.put("b", text("x"))).toBe("created");
  });

  test("credentials that have ended are refused, and it may be tried again", async () => {
    const { site, memory } = faultyAt(0, { fault: "expired", calls: 1 });
    for (const call of [
      async () => await site.put("a", text("x")),
      async () => await site.get("a"),
    ]) {
      const error = await thrownBy(call());
      expect(error).toMatchObject({ kind: "permission", retryable: true });
    }
    expect(memory.requests).toMatchObject({ put: 0, get: 0 });
    expect(await site.put("a", text("x"))).toBe("created");
  });

  test("a slow call waits by the clock that it was given", async () => {
    const { site, clock } = faultyAt(0, { fault: "slow", delayMs: 1234 });
    expect(await site.put("a", text("x"))).toBe("created");
    expect(clock.sleptMs).toEqual([1234]);
  });

  test("is recorded with its call", async () => {
    const { site } = faultyAt(1, { fault: "error-before" });
    await site.put("a", text("x"));
    await thrownBy(site.head("b"));
    expect(site.injected).toEqual([{ kind: "head", key: "b", index: 1, fault: "error-before" }]);
  });

  test("that cannot happen to a call is a bug of the test", async () => {
    const { site } = faultyAt(0, { fault: "lost" });
    expect(await thrownBy(site.get("a"))).not.toBeInstanceOf(AppError);
  });
});

describe("drawn faults", () => {
  const rates: Partial<Record<FaultName, number>> = {
    "error-before": 0.05,
    "error-after": 0.05,
    late: 0.05,
    duplicate: 0.05,
    hidden: 0.05,
    stale: 0.1,
    truncated: 0.05,
    flipped: 0.05,
    storm: 0.01,
    slow: 0.05,
    lost: 0.02,
  };

  test("are the same from the same seed, and others from another", async () => {
    const first = await wander(11, rates);
    expect(await wander(11, rates)).toEqual(first);
    expect(await wander(12, rates)).not.toEqual(first);
    expect(new Set(first.map(({ fault }) => fault)).size).toBe(Object.keys(rates).length);
  });

  test("end when the site is told to be calm", async () => {
    const memory = new MemorySite();
    const options = { random: seededRandom(3), clock: new StillClock(), rates: { storm: 1 } };
    const site = new FaultySite(memory, options);
    await thrownBy(site.put("a", text("x")));
    site.setCalm(true);
    expect(await site.put("a", text("x"))).toBe("created");
    site.setCalm(false);
    await thrownBy(site.get("a"));
  });
});

async function wander(
  seed: number,
  rates: Partial<Record<FaultName, number>>,
): Promise<FaultySite["injected"]> {
  const random = seededRandom(seed);
  const site = new FaultySite(new MemorySite(), { random, clock: new StillClock(), rates });
  for (let step = 0; step < 800; step += 1) {
    const key = `k/${step % 37}`;
    try {
      if (step % 5 === 4) await keysOf(site, "k/");
      else if (step % 5 === 3) await site.delete([key]);
      else if (step % 5 === 2) await site.head(key);
      else if (step % 5 === 1) await site.get(`k/${(step - 1) % 37}`);
      else await site.put(key, text(`body ${step}`));
    } catch (thrown) {
      if (!(thrown instanceof AppError)) throw thrown;
    }
  }
  return site.injected;
}

function faultyAt(
  index: number,
  fault: Fault,
): { site: FaultySite; memory: MemorySite; clock: StillClock } {
  const memory = new MemorySite();
  const clock = new StillClock();
  const site = new FaultySite(memory, {
    random: seededRandom(1),
    clock,
    fault: (call) => (call.index === index ? fault : undefined),
  });
  return { site, memory, clock };
}
