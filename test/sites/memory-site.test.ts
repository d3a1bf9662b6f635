/**
 * The site in memory and the wrappers around any site, held to the same contract.
 */
import { describe, expect, test } from "bun:test";
import { realClock } from "../../src/base/clock.ts";
import { AppError } from "../../src/base/error.ts";
import { realRandom } from "../../src/base/random.ts";
import { countRequests } from "../../src/sites/counting-site.ts";
import { FaultySite, type Fault } from "../../src/sites/faulty-site.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import { probeCreateIfAbsent, raceCreateIfAbsent } from "../../src/sites/probe.ts";
import { retryingSite } from "../../src/sites/retrying-site.ts";
import type { Site } from "../../src/sites/site.ts";
import { keysOf, siteContract, text, thrownBy } from "./contract.ts";
import { LOCK_PERIOD_MS, lockContract } from "./lock-contract.ts";
import { seededRandom, StillClock } from "./still-clock.ts";

const WRAPPERS: Readonly<Record<string, (site: Site) => Site>> = {
  "a site in memory": (site) => site,
  "a faulty site without faults": (site) =>
    new FaultySite(site, { random: realRandom, clock: new StillClock() }),
  "a counting site": countRequests,
  "a retrying site": (site) => retryingSite(site, { clock: new StillClock(), random: realRandom }),
  "a retrying site on one that often fails": (site) =>
    retryingSite(
      new FaultySite(site, {
        random: seededRandom(7),
        clock: new StillClock(),
        rates: { "error-before": 0.2, storm: 0.02, slow: 0.1 },
        callsMax: 3,
      }),
      { clock: new StillClock(), random: seededRandom(8), attempts: 40 },
    ),
};

for (const [name, wrap] of Object.entries(WRAPPERS)) {
  const objects = new Map<string, Uint8Array>();
  const open = (): Site => wrap(new MemorySite("memory", objects, undefined, new Map()));
  siteContract(
    name,
    async () => {
      const site = open();
      return {
        site,
        reopen: async () => open(),
        [Symbol.asyncDispose]: async () => await site[Symbol.asyncDispose](),
      };
    },
    { copies: true },
  );
}

lockContract("a site in memory", async () => {
  const lock = { mode: "governance", periodMs: LOCK_PERIOD_MS, clock: realClock } as const;
  return countRequests(new MemorySite("locked", new Map<string, Uint8Array>(), lock, new Map()));
});

describe("a site in memory", () => {
  test("counts requests by kind", async () => {
    const site = new MemorySite();
    await site.put("a", text("x"));
    await site.put("a", text("x"));
    await site.get("a");
    await site.head("a");
    await site.delete(["a", "b"]);
    await keysOf(site, "");
    expect(site.requests).toEqual({ get: 1, put: 2, head: 1, delete: 1, list: 1 });
  });
});

describe("a counting site", () => {
  test("counts pages as stores charge for them, and bytes that really moved", async () => {
    const site = countRequests(new MemorySite());
    for (let index = 0; index < 1001; index += 1) await site.put(`k/${index}`, text("xy"));
    expect(await site.put("k/0", text("taken"))).toBe("exists");
    await site.get("k/0", { offset: 1 });
    const keys = await keysOf(site, "");
    await site.delete(keys);
    expect(site.requests).toEqual({ get: 1, put: 1002, head: 0, delete: 2, list: 2 });
    expect(site.bytesWritten).toBe(2002);
    expect(site.bytesRead).toBe(1);
  });
});

describe("a retrying site", () => {
  test("tries again what may pass, with growing waits, and gives up after its attempts", async () => {
    const { site, memory, clock } = retrying(() => ({ fault: "error-before" }));
    const error = await thrownBy(site.get("a"));
    expect(error).toHaveProperty("kind", "unavailable");
    expect(clock.sleptMs).toHaveLength(3);
    expect(memory.requests.get).toBe(0);
  });

  test("does not try again what will not pass", async () => {
    const denied = new AppError("permission", "no");
    const { site, clock } = retrying(() => ({ fault: "error-before", error: denied }));
    expect(await thrownBy(site.put("a", text("x")))).toBe(denied);
    expect(clock.sleptMs).toEqual([]);
  });

  test("answers exists where its own first try had landed", async () => {
    const { site } = retrying(({ index }) => (index === 0 ? { fault: "error-after" } : undefined));
    expect(await site.put("a", text("x"))).toBe("exists");
    expect(await site.get("a")).toEqual(text("x"));
  });

  test("goes on with a broken listing after the last row that was seen", async () => {
    const { site, memory } = retrying(({ index }) =>
      index < 3 ? { fault: "error-after" } : undefined,
    );
    for (const key of ["a", "b", "c", "d", "e"]) memory.objects.set(key, text(key));
    expect(await keysOf(site, "", { after: "a" })).toEqual(["b", "c", "d", "e"]);
  });
});

describe("the probes", () => {
  test("refuse a site that overwrites", async () => {
    const site = new MemorySite();
    site.put = async (key, bytes) => {
      site.objects.set(key, bytes.slice());
      return "created";
    };
    for (const probe of [probeCreateIfAbsent, raceCreateIfAbsent]) {
      const error = await thrownBy(probe(site, realRandom));
      expect(error).toHaveProperty("kind", "refused");
      expect([...site.objects.keys()]).toEqual([]);
    }
  });

  test("refuse a site that loses what it has acknowledged", async () => {
    const site = faulty(({ kind }) => (kind === "put" ? { fault: "lost" } : undefined)).site;
    expect(await thrownBy(probeCreateIfAbsent(site, realRandom))).toHaveProperty("kind", "refused");
    expect(await thrownBy(raceCreateIfAbsent(site, realRandom))).toHaveProperty("kind", "refused");
  });

  test("accept a site whose winner never heard that it won, after another race", async () => {
    const { site } = faulty(({ index }) => (index === 0 ? { fault: "error-after" } : undefined));
    await raceCreateIfAbsent(site, realRandom);
    expect(site.injected).toHaveLength(1);
  });

  test("accept credentials that may not remove", async () => {
    const denied = new AppError("permission", "no");
    const { site } = faulty(({ kind }) =>
      kind === "delete" ? { fault: "error-before", error: denied } : undefined,
    );
    await probeCreateIfAbsent(site, realRandom);
    expect(site.injected).toHaveLength(1);
  });
});

type Hook = (call: { kind: string; key: string; index: number }) => Fault | undefined;

function faulty(fault: Hook): { site: FaultySite; memory: MemorySite } {
  const memory = new MemorySite();
  const options = { random: seededRandom(1), clock: new StillClock(), fault };
  return { site: new FaultySite(memory, options), memory };
}

function retrying(fault: Hook): { site: Site; memory: MemorySite; clock: StillClock } {
  const { site, memory } = faulty(fault);
  const clock = new StillClock();
  const options = { clock, random: seededRandom(2), attempts: 4 };
  return { site: retryingSite(site, options), memory, clock };
}
