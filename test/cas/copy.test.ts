/** Copies of backups from one site to another: complete, resumable, merging, and never wrong. */
import { describe, expect, test } from "bun:test";
import { planCopy } from "../../src/cas/copy/copy-plan.ts";
import { localTransfer } from "../../src/cas/copy/transfer-pack.ts";
import { drawId } from "../../src/cas/format/ids.ts";
import { packKey } from "../../src/cas/format/pack.ts";
import { forgetBackups } from "../../src/cas/clean/backup-marks.ts";
import { listedBackups } from "../../src/cas/log/state.ts";
import { PLAIN_SEALER } from "../../src/cas/format/seal.ts";
import { Repository } from "../../src/cas/log/repository.ts";
import { FaultySite } from "../../src/sites/faulty-site.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import { choosePoints, CRASH_LOOP_MS_MAX, describeCount } from "../simulation/chosen-points.ts";
import { seededRandom } from "../sites/still-clock.ts";
import type { SmallNode } from "./small-backups.ts";
import { packsIn } from "./small-backups.ts";
import { KEEP_ALL } from "./small-world.ts";
import type { SmallWorld } from "./small-world.ts";
import { caught } from "./small-world.ts";
import { rejectionOf } from "./repository-world.ts";
import { checkSite, TwoSites } from "./two-sites.ts";

const LOCAL = { concurrency: 1, sealer: PLAIN_SEALER };
/** All of them by `bun run crash-points`. */
const CRASH_POINT_COUNT = 64;
const NUMBERS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

describe("a copy", () => {
  test("brings every backup, and the target alone gives them back", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const a = await world.open();
    const b = await sites.openOther();
    const ids = [await world.backup(a, NUMBERS), await world.backup(a, [2, 3, 20, 21])];
    const plan = await planCopy(a, b);
    const report = await sites.copy(a, b);
    expect(report.backups.map(({ id, state }) => [id, state])).toEqual(
      ids.map((id) => [id, "copied"]),
    );
    expect({ packs: plan.packs, bytes: plan.bytes }).toEqual({
      packs: report.packs,
      bytes: report.bytes,
    });
    expect(await sites.checkOther()).toBe(2);
    expect(b.repository.state.keeps.size).toBe(0);
    expect(packsIn(sites.other.objects)).toHaveLength(packsIn(world.site.objects).length);
  });

  test("that runs again finds everything there, and sends nothing", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const a = await world.open();
    const b = await sites.openOther();
    await world.backup(a, NUMBERS);
    await sites.copy(a, b);
    const before = sites.other.objects.size;
    const again = await sites.copy(a, b);
    expect(again).toMatchObject({ packs: 0, bytes: 0, backups: [{ state: "there" }] });
    expect(sites.other.objects.size).toBe(before);
    expect((await planCopy(a, b)).requests).toEqual({ get: 0, put: 0, head: 0 });
  });

  test("of chosen backups brings what these need, and no more", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const a = await world.open();
    const b = await sites.openOther();
    await world.backup(a, NUMBERS);
    const chosen = await world.backup(a, [40, 41]);
    const report = await sites.copy(a, b, { backups: [chosen] });
    expect(report.backups.map(({ id }) => id)).toEqual([chosen]);
    expect(packsIn(sites.other.objects).length).toBeLessThan(packsIn(world.site.objects).length);
    expect(await sites.checkOther()).toBe(1);
    const missing = await rejectionOf(sites.copy(a, b, { backups: [drawId(world.random)] }));
    expect(missing.kind).toBe("not-found");
  });

  test("merges into a target that has other backups of the cluster, both ways", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const a = await world.open();
    const b = await sites.openOther();
    await world.backup(a, NUMBERS);
    await world.backup(b, [5, 6, 30, 31]);
    await sites.copy(a, b);
    expect(await sites.checkOther()).toBe(2);
    await sites.copy(b, a);
    expect(await checkSite(world.site, world)).toBe(2);
    expect((await sites.copy(a, b)).packs).toBe(0);
  });

  test("uses what the target has retired, and sends again what it has deleted", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const a = await world.open();
    const b = await sites.openOther();
    const first = await world.backup(a, NUMBERS);
    await sites.copy(a, b);
    const second = await world.backup(a, [...NUMBERS, 50]);
    await forgetHere(sites, b, first);
    await world.cleanup(b);
    expect(b.repository.state.retired.size).toBeGreaterThan(0);
    const revived = await sites.copy(a, b, { backups: [second] });
    expect(revived.packs).toBeLessThan(packsIn(world.site.objects).length);
    expect(b.repository.state.retired.size).toBeLessThan(3);
    await forgetHere(sites, b, second);
    for (let count = 0; count < 3; count++) await world.cleanup(b, { sweep: true });
    expect(packsIn(sites.other.objects)).toEqual([]);
    const third = await world.backup(a, [...NUMBERS, 60]);
    await sites.copy(a, b, { backups: [third] });
    expect(await sites.checkOther()).toBe(1);
    for (let count = 0; count < 3; count++) await world.cleanup(b, { sweep: true });
    expect(await sites.checkOther()).toBe(1);
  });

  test("after a repack of the source names the new packs at the target, through all cleanups", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const a = await world.open();
    const b = await sites.openOther();
    await repackedBackup(world, a);
    const report = await sites.copy(a, b);
    expect(report.backups.every(({ state }) => state === "copied")).toBe(true);
    expect(b.repository.state.moves.size).toBe(0);
    for (let count = 0; count < 3; count++) await world.cleanup(b, { sweep: true });
    expect(await sites.checkOther()).toBe(1);
    const again = await sites.copy(b, a);
    expect(again.packs).toBe(0);
  });

  test("keeps what it has brought: a cleanup of the target while it sleeps takes nothing", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const a = await world.open();
    const b = await sites.openOther();
    const cleaner = await sites.openOther();
    await world.backup(a, NUMBERS);
    let cleaned = 0;
    const report = await sites.copy(a, b, {
      transfer: async (orders, signal) => {
        await world.cleanup(cleaner, { sweep: true });
        const local = localTransfer(world.site, sites.other, LOCAL);
        const arrived = await local(orders, signal);
        await world.cleanup(cleaner, { sweep: true });
        cleaned += 1;
        return arrived;
      },
    });
    expect(cleaned).toBeGreaterThan(1);
    expect(report.backups.map(({ state }) => state)).toEqual(["copied"]);
    expect(await sites.checkOther()).toBe(1);
  });

  test("of a backup that its site drops meanwhile ends, and leaves only garbage", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const a = await world.open();
    const b = await sites.openOther();
    const cleaner = await world.open();
    const id = await world.backup(a, NUMBERS);
    await world.backup(a, [90]);
    let isDropped = false;
    const report = await sites.copy(a, b, {
      transfer: async (orders, signal) => {
        if (!isDropped) {
          isDropped = true;
          await cleaner.repository.catchUp();
          await forgetHere(sites, cleaner, id);
          for (let count = 0; count < 3; count++) await world.cleanup(cleaner, { sweep: true });
        }
        return await localTransfer(world.site, sites.other, LOCAL)(orders, signal);
      },
    });
    expect(report.backups.map(({ state }) => state)).toEqual(["gone", "copied"]);
    expect(await sites.checkOther()).toBe(1);
    expect(b.repository.state.keeps.size).toBe(0);
  });

  test("by two at once sends each backup once into the log, and both end well", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const a = await world.open();
    const also = await world.open();
    await world.backup(a, NUMBERS);
    await world.backup(a, [2, 3, 30, 31, 32]);
    await also.repository.catchUp();
    const [b, c] = [await sites.openOther(), await sites.openOther()];
    const reports = await Promise.all([sites.copy(a, b), sites.copy(also, c)]);
    for (const { backups } of reports) {
      expect(backups.filter(({ state }) => state !== "copied" && state !== "there")).toEqual([]);
    }
    expect(await sites.checkOther()).toBe(2);
    await world.cleanup(b, { sweep: true });
    await world.cleanup(b, { sweep: true });
    expect(await sites.checkOther()).toBe(2);
  });

  test("finds packs that nodes have sent under an announced birth, without reading the source", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const a = await world.open();
    const b = await sites.openOther();
    await world.backup(a, NUMBERS);
    const birth = b.repository.state.sequence;
    for (const { id, birth: born } of a.repository.index.packs()) {
      await sites.other.put(packKey(id, birth), world.site.objects.get(packKey(id, born))!);
    }
    const puts = sites.other.requests.put;
    const report = await sites.copy(a, b, { sentUnder: birth, readBack: false });
    expect(report.packsFound).toBe(report.packs);
    expect(report.packs).toBeGreaterThan(2);
    // Segment, manifest, entry; and what keeps need.
    expect(sites.other.requests.put - puts).toBeLessThan(3 + 2 * report.packs);
    expect(packsIn(sites.other.objects)).toHaveLength(report.packs);
    expect(await sites.checkOther()).toBe(1);
  });
});

describe("nothing wrong is committed", () => {
  for (const fault of ["truncated", "flipped"] as const) {
    test(`from a source whose packs come ${fault}, and all else is copied`, async () => {
      using sites = await TwoSites.create();
      const { world } = sites;
      const a = await world.open();
      const b = await sites.openOther();
      await world.backup(a, NUMBERS);
      const good = await world.backup(a, [70, 71]);
      const bad = [...a.repository.index.packs()].find(({ kind }) => kind === "data")!;
      const faulty = new FaultySite(world.site, {
        random: seededRandom(3),
        clock: world.clock,
        fault: ({ kind, key }) => (kind === "get" && key.includes(bad.id) ? { fault } : undefined),
      });
      const source = await world.open(faulty);
      const report = await sites.copy(source, b);
      expect(report.backups.map(({ state }) => state)).toEqual(["failed", "copied"]);
      expect(report.backups[0]?.error?.kind).toBe("damaged");
      expect(report.backups[0]?.error?.message).toContain(bad.id);
      expect(listedBackups(b.repository.state).map(({ backup }) => backup)).toEqual([good]);
      expect(await sites.checkOther()).toBe(1);
      await sites.copy(a, b);
      expect(await sites.checkOther()).toBe(2);
    });
  }

  test("under a name that has other bytes: the log moves on, and another birth is taken", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const a = await world.open();
    const b = await sites.openOther();
    await world.backup(a, NUMBERS);
    const birth = b.repository.state.sequence;
    for (const { id } of a.repository.index.packs()) {
      await sites.other.put(packKey(id, birth), new Uint8Array([1, 2, 3]));
    }
    const report = await sites.copy(a, b, { sentUnder: birth });
    expect(report.backups.map(({ state }) => state)).toEqual(["copied"]);
    expect(await sites.checkOther()).toBe(1);
  });

  const kinds = ["pack", "index", "manifest"] as const;
  const faults = ["lost", "hidden", "late", "error-after", "duplicate"] as const;
  for (const { fault, of } of faults.flatMap((fault) => kinds.map((of) => ({ fault, of })))) {
    test(`where a put to ${of}/ ends as ${fault}: what is read back tells, and it is sent again`, async () => {
      using sites = await TwoSites.create();
      const { world } = sites;
      const a = await world.open();
      await world.backup(a, NUMBERS);
      let left = of === "manifest" ? 1 : 2;
      const target = new FaultySite(sites.other, {
        random: seededRandom(3),
        clock: world.clock,
        fault: ({ kind, key }) => {
          if (kind !== "put" || !key.startsWith(`${of}/`) || left === 0) return undefined;
          left -= 1;
          return fault === "hidden" || fault === "late" ? { fault, calls: 3 } : { fault };
        },
      });
      const b = await sites.openOther(target);
      for (let count = 0; count < 4; count++) {
        // What cannot be gone on from at once ends as it should, and is gone on from next time.
        const thrown = await caught(sites.copy(a, b));
        if (thrown !== undefined) expect(thrown).toMatchObject({ retryable: true });
      }
      expect(left).toBe(0);
      expect(await sites.checkOther()).toBe(1);
    });
  }

  test("between sites of two repositories, one site and itself, or two clusters", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const a = await world.open();
    await world.backup(a, NUMBERS);
    const strange = new MemorySite("strange");
    const chunker = { rule: "astacus-cdc-1", averageSizeBytes: 262_144 } as const;
    const doors = { clock: world.clock, random: seededRandom(9) };
    await Repository.init(strange, { doors, chunker });
    const stranger = await sites.openOther(strange);
    expect((await rejectionOf(sites.copy(a, stranger))).message).toContain(
      "sites of two repositories",
    );
    const self = await world.open();
    expect((await rejectionOf(sites.copy(a, self))).message).toContain("one and the same site");
    const b = await sites.openOther();
    const foreign = await world.store(b, [1, 2]);
    const draft = { ...foreign.draft, cluster: "another" };
    await world.commit(b, { ...foreign, draft });
    const refused = await rejectionOf(sites.copy(a, b));
    expect(refused.kind).toBe("refused");
    expect(refused.message).toContain("another");
    expect((await rejectionOf(planCopy(a, b))).kind).toBe("refused");
  });
});

test(
  "a crash anywhere in a copy, and the same once more, leaves every backup at the target",
  async () => {
    const started = performance.now();
    const calls = await countCopyCalls();
    const all = Array.from({ length: 2 * calls }, (_, index) => index);
    const points = choosePoints(all, CRASH_POINT_COUNT);
    for (const point of points) {
      await crashAt(point >> 1, point % 2 === 0 ? "error-before" : "error-after");
    }
    const seconds = ((performance.now() - started) / 1000).toFixed(0);
    const count = describeCount(points.length, points.length, all.length);
    console.log(`crash points of a copy: ${count} (calls: site ${calls}) in ${seconds} s`);
    expect(calls).toBeGreaterThan(60);
  },
  CRASH_LOOP_MS_MAX,
);

/** Two backups and a third that a repack has moved, so that a list is written anew. */
async function crashWorld(): Promise<{ sites: TwoSites; a: SmallNode }> {
  const sites = await TwoSites.create();
  const a = await sites.world.open();
  await repackedBackup(sites.world, a);
  await sites.world.backup(a, NUMBERS);
  return { sites, a };
}

async function countCopyCalls(): Promise<number> {
  const { sites, a } = await crashWorld();
  using _ = sites;
  let calls = 0;
  const { world } = sites;
  const fault = (): undefined => {
    calls += 1;
  };
  const target = new FaultySite(sites.other, { random: world.random, clock: world.clock, fault });
  const source = new FaultySite(world.site, { random: world.random, clock: world.clock, fault });
  const b = await sites.openOther(target);
  await sites.copy(await world.open(source), b);
  expect(await sites.checkOther()).toBe(2);
  void a;
  return calls;
}

async function crashAt(at: number, how: "error-before" | "error-after"): Promise<void> {
  const { sites } = await crashWorld();
  using _ = sites;
  const { world } = sites;
  let calls = 0;
  let isDead = false;
  const fault = (): { fault: "error-before" | "error-after"; error: Error } | undefined => {
    const isNow = calls === at;
    calls += 1;
    if (!isNow && !isDead) return undefined;
    const wasDead = isDead;
    isDead = true;
    return { fault: wasDead ? "error-before" : how, error: new Error("crash") };
  };
  const parts = { random: world.random, clock: world.clock, fault };
  let end: unknown;
  try {
    const b = await sites.openOther(new FaultySite(sites.other, parts));
    await sites.copy(await world.open(new FaultySite(world.site, parts)), b);
  } catch (thrown) {
    end = thrown;
  }
  expect(String(end)).toContain("crash");
  await sites.checkOther();
  const again = await sites.openOther();
  const report = await sites.copy(await world.open(), again);
  expect(report.backups.filter(({ state }) => !["copied", "there"].includes(state))).toEqual([]);
  expect(await sites.checkOther()).toBe(2);
}

/** A backup whose packs a repack of its site has moved. */
async function repackedBackup(world: SmallWorld, node: SmallNode): Promise<string> {
  const large = await world.backup(node, NUMBERS);
  const kept = await world.backup(node, [1, 7]);
  const operation = drawId(world.random);
  const how = { backups: [large], reason: "", scope: "site", operation } as const;
  await forgetBackups(node.repository, how);
  await world.cleanup(node);
  expect(node.repository.state.moves.has(kept)).toBe(true);
  for (let count = 0; count < 3; count++) {
    await world.cleanup(node, { policy: KEEP_ALL, sweep: true });
  }
  return kept;
}

async function forgetHere(sites: TwoSites, node: SmallNode, backup: string): Promise<void> {
  const operation = drawId(sites.world.random);
  const how = { backups: [backup], reason: "here", scope: "site", operation } as const;
  await forgetBackups(node.repository, how);
}
