/**
 * Listings that are stale or cut: a cleanup that believes one removes too little, never too much, and
 * the next one takes the rest.
 */
import { expect, test } from "bun:test";
import type { Fault } from "../../src/sites/faulty-site.ts";
import { FaultySite } from "../../src/sites/faulty-site.ts";
import { packsIn } from "./small-backups.ts";
import { SmallWorld } from "./small-world.ts";

const FAULTS: readonly Fault[] = [{ fault: "cut" }, { fault: "stale", calls: 1_000_000 }];

test.each(FAULTS)("a sweep through listings that are $fault loses nothing", async (fault) => {
  using world = await SmallWorld.create();
  let isBad = true;
  const { random, clock } = world;
  const site = new FaultySite(world.site, {
    random,
    clock,
    fault: ({ kind }) => (kind === "list" && isBad ? fault : undefined),
  });
  const node = await world.open(site);
  await world.backup(node, [1, 2, 3]);
  await world.backup(node, [3, 4]);
  // Sent by somebody who never committed: garbage that only a listing shows.
  await world.store(node, [20, 21, 22, 23], { isKept: false });
  await world.backup(node, [3, 5]);
  for (let run = 0; run < 4; run += 1) {
    const report = await world.cleanup(node, { sweep: true });
    expect(report.alarms).toEqual([]);
    expect(await world.check()).toBe(3);
  }
  expect(site.injected.length).toBeGreaterThan(3);
  const left = packsIn(world.site.objects).length;
  isBad = false;
  await world.cleanup(node, { sweep: true });
  expect(await world.check()).toBe(3);
  expect(packsIn(world.site.objects).length).toBeLessThan(left);
});
