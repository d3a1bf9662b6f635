/** Sites that come back: who is asked again, and who is spared. */
import { expect, test } from "bun:test";
import type { Clock } from "../../src/base/doors.ts";
import { AppError } from "../../src/base/error.ts";
import { LOOK_OF_A_PERSON } from "../../src/cluster/backup-reader.ts";
import type { SiteSet } from "../../src/cluster/site-set.ts";
import type { MemorySite } from "../../src/sites/memory-site.ts";
import type { Site } from "../../src/sites/site.ts";
import { interceptSite } from "../cas/repository-world.ts";
import { SiteNodes } from "./site-nodes.ts";

const FOR_A_PROGRAM = { maxAgeMs: 1_000 };

/** Time that passes when a test says so; a wait that it reaches is over. */
class SetClock implements Clock {
  #nowMs = Date.UTC(2026, 10, 22, 18);
  #waiting: { readonly atMs: number; readonly resolve: () => void }[] = [];

  readonly now = (): number => this.#nowMs;
  readonly monotonic = (): number => this.#nowMs;

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiting.push({ atMs: this.#nowMs + ms, resolve });
    signal?.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
    await promise;
  }

  pass(ms: number): void {
    this.#nowMs += ms;
    for (const { resolve } of this.#waiting.filter(({ atMs }) => atMs <= this.#nowMs)) resolve();
    this.#waiting = this.#waiting.filter(({ atMs }) => atMs > this.#nowMs);
  }
}

/** A node of two sites, whose second one is up, refuses, or says nothing at all. */
async function twoSites() {
  const sites = await SiteNodes.create(2);
  const clock = new SetClock();
  const second = { is: "up" as "up" | "down" | "silent", asked: 0 };
  const wrap = (site: MemorySite): Site => {
    if (site.name !== "s1") return site;
    return interceptSite(site, {
      get: async (key, options = {}) => {
        second.asked += 1;
        if (second.is === "down") throw new AppError("unavailable", "s1 is down.");
        if (second.is === "up") return await site.get(key, options);
        const { promise, reject } = Promise.withResolvers<never>();
        const { signal } = options;
        signal?.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
        return await promise;
      },
    });
  };
  return { sites, clock, second, node: sites.node("a", { wrap, clock }) };
}

function errorOf(node: SiteSet): string | undefined {
  return node.last?.sites.find(({ name }) => name === "s1")?.error?.message;
}

test("a person's command finds a site that has come back, a program's look waits its time", async () => {
  const { sites, clock, second, node } = await twoSites();
  await using _ = sites;
  await node.look();
  second.is = "down";
  await node.look();
  expect(errorOf(node)).toBe("s1 is down.");
  second.is = "up";
  clock.pass(1_000);
  await node.look(undefined, FOR_A_PROGRAM);
  expect(errorOf(node)).toBe("s1 is down.");
  // At once: what the program has seen says nothing of now.
  await node.look(undefined, LOOK_OF_A_PERSON);
  expect(errorOf(node)).toBeUndefined();
});

test("a site that stays away is asked once a second at most", async () => {
  const { sites, clock, second, node } = await twoSites();
  await using _ = sites;
  await node.look();
  second.is = "down";
  await node.look();
  const before = second.asked;
  for (let count = 0; count < 5; count += 1) await node.look(undefined, LOOK_OF_A_PERSON);
  expect(second.asked).toBe(before);
  clock.pass(1_000);
  await node.look(undefined, LOOK_OF_A_PERSON);
  const once = second.asked;
  expect(once).toBeGreaterThan(before);
  for (let count = 0; count < 5; count += 1) await node.look(undefined, LOOK_OF_A_PERSON);
  expect(second.asked).toBe(once);
});

test("a silent site holds a command up for a second, and is given its time again after a while", async () => {
  const { sites, clock, second, node } = await twoSites();
  await using _ = sites;
  await node.look();
  second.is = "down";
  await node.look();
  second.is = "silent";
  clock.pass(1_000);
  const looking = node.look(undefined, LOOK_OF_A_PERSON);
  const before = second.asked;
  while (second.asked === before) await Bun.sleep(1);
  clock.pass(1_000);
  await looking;
  expect(errorOf(node)).toBe("s1 is down.");
  // A site that is only slow is not kept away by short tries.
  clock.pass(15_000);
  const patient = node.look(undefined, LOOK_OF_A_PERSON);
  const after = second.asked;
  while (second.asked === after) await Bun.sleep(1);
  clock.pass(5_000);
  await patient;
  expect(errorOf(node)).toBe("Site s1 did not answer within 5 s.");
});
