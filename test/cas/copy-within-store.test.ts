/** Copies between two sites of one store, which makes them by itself: checked, counted, never over anything. */
import { describe, expect, test } from "bun:test";
import { planCopy } from "../../src/cas/copy/copy-plan.ts";
import { packKey } from "../../src/cas/format/pack.ts";
import { listedBackups } from "../../src/cas/log/state.ts";
import { FaultySite } from "../../src/sites/faulty-site.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import type { MemoryStore } from "../../src/sites/memory-site.ts";
import type { CopyOutcome, PutCall, Site } from "../../src/sites/site.ts";
import { seededRandom } from "../sites/still-clock.ts";
import type { SmallNode } from "./small-backups.ts";
import { packsIn } from "./small-backups.ts";
import { caught } from "./small-world.ts";
import { TwoSites } from "./two-sites.ts";

/** All packs are born under the number that the log has at the beginning. */
const NO_KEEPS = { keepEveryBytes: 1e12 };
const NUMBERS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

/** Remembers which objects were sent and read whole. */
class WatchedSite extends MemorySite {
  readonly sent: string[] = [];
  readonly readWhole: string[] = [];

  override async get(key: string, options: Parameters<Site["get"]>[1] = {}) {
    if (options.length === undefined) this.readWhole.push(key);
    return await super.get(key, options);
  }

  override async put(key: string, bytes: Uint8Array, options: PutCall = {}) {
    this.sent.push(key);
    return await super.put(key, bytes, options);
  }
}

/** A world with a backup whose two sites lie in one store. */
async function oneStore(sites: TwoSites) {
  const store: MemoryStore = new Map();
  const from = new WatchedSite("from", sites.world.site.objects, undefined, store);
  const to = new WatchedSite("to", sites.other.objects, undefined, store);
  const a = await sites.world.open(from);
  const b = await sites.openOther(to);
  return { from, to, a, b };
}

function packsOf(keys: readonly string[]): string[] {
  return keys.filter((key) => key.startsWith("pack/"));
}

/** Damages a pack of data where only a look at its frames shows it; gives its id and the way back. */
function damageOne(sites: TwoSites, node: SmallNode): { id: string; mend: () => void } {
  const bad = [...node.repository.index.packs()].find(({ kind }) => kind === "data")!;
  const { objects } = sites.world.site;
  const key = packKey(bad.id, bad.birth);
  const good = objects.get(key)!;
  const bytes = good.slice();
  bytes[20]! ^= 1;
  objects.set(key, bytes);
  return { id: bad.id, mend: () => void objects.set(key, good) };
}

describe("between two sites of one store", () => {
  for (const readBack of [true, false]) {
    test(`packs are copied by it and read once${readBack ? "" : ", also unless asked for"}`, async () => {
      using sites = await TwoSites.create();
      const { from, to, a, b } = await oneStore(sites);
      await sites.world.backup(a, NUMBERS);
      const plan = await planCopy(a, b, { readBack });
      from.readWhole.length = 0;
      const report = await sites.copy(a, b, { readBack });
      expect(report.backups.map(({ state }) => state)).toEqual(["copied"]);
      expect(report).toMatchObject({ packs: plan.packs, packsFound: 0 });
      expect(report.packs).toBeGreaterThan(2);
      expect(packsOf(to.sent)).toEqual([]);
      expect(packsOf(from.readWhole)).toEqual([]);
      expect(packsOf(to.readWhole)).toHaveLength(report.packs);
      expect(packsIn(to.objects)).toHaveLength(report.packs);
      expect(await sites.checkOther()).toBe(1);
    });
  }

  test("the plan counts one read of each copy, and nothing that is sent", async () => {
    using sites = await TwoSites.create();
    const { a, b } = await oneStore(sites);
    const [c, d] = [await sites.world.open(), await sites.openOther()];
    await sites.world.backup(a, NUMBERS);
    const within = await planCopy(a, b);
    const across = await planCopy(c, d);
    expect([within.isWithinStore, across.isWithinStore]).toEqual([true, false]);
    expect(within).toMatchObject({ packs: across.packs, bytes: across.bytes });
    expect(across.requests.get - within.requests.get).toBe(within.packs);
    expect(within.requests.put).toBe(across.requests.put);
  });

  test("a damaged source is an error as ever, and the copy of it never counts as brought", async () => {
    using sites = await TwoSites.create();
    const { a, b, to } = await oneStore(sites);
    await sites.world.backup(a, NUMBERS);
    const good = await sites.world.backup(a, [70, 71]);
    const { id, mend } = damageOne(sites, a);
    const birth = b.repository.state.sequence;
    const first = await sites.copy(a, b, NO_KEEPS);
    expect(first.backups.map(({ state }) => state)).toEqual(["failed", "copied"]);
    expect(first.backups[0]?.error).toMatchObject({ kind: "damaged" });
    expect(first.backups[0]?.error?.message).toContain(id);
    // The bad copy lies where nodes could have sent the pack, and has the right directory.
    expect(to.objects.has(packKey(id, birth))).toBe(true);
    const second = await sites.copy(a, b, { ...NO_KEEPS, sentUnder: birth, readBack: false });
    expect(second.backups.map(({ state }) => state)).toContain("failed");
    expect(listedBackups(b.repository.state).map(({ backup }) => backup)).toEqual([good]);
    mend();
    await sites.copy(a, b, { sentUnder: birth, readBack: false });
    expect(await sites.checkOther()).toBe(2);
  });

  test("a bad copy is not taken by who makes no copies himself", async () => {
    using sites = await TwoSites.create();
    const { a, b } = await oneStore(sites);
    await sites.world.backup(a, NUMBERS);
    damageOne(sites, a);
    const birth = b.repository.state.sequence;
    await sites.copy(a, b, NO_KEEPS);
    const other = await sites.openOther(new MemorySite("to", sites.other.objects));
    const options = { ...NO_KEEPS, sentUnder: birth, readBack: false };
    const report = await sites.copy(a, other, options);
    expect(report.backups.map(({ state }) => state)).toEqual(["failed"]);
    expect(listedBackups(other.repository.state)).toEqual([]);
  });

  test("a damaged source overwrites no good object of its name", async () => {
    using sites = await TwoSites.create();
    const { a, b, to } = await oneStore(sites);
    await sites.world.backup(a, NUMBERS);
    const pack = [...a.repository.index.packs()].find(({ kind }) => kind === "data")!;
    const key = packKey(pack.id, b.repository.state.sequence);
    const good = sites.world.site.objects.get(packKey(pack.id, pack.birth))!;
    await sites.other.put(key, good);
    damageOne(sites, a);
    const report = await sites.copy(a, b, NO_KEEPS);
    expect(report.backups.map(({ state }) => state)).toEqual(["copied"]);
    expect(report.packsFound).toBe(1);
    expect(to.objects.get(key)).toEqual(good);
    expect(await sites.checkOther()).toBe(1);
  });

  test("packs that nodes have sent there are found by their directories", async () => {
    using sites = await TwoSites.create();
    const { a, b, to } = await oneStore(sites);
    await sites.world.backup(a, NUMBERS);
    const birth = b.repository.state.sequence;
    for (const { id, birth: born } of a.repository.index.packs()) {
      await sites.other.put(packKey(id, birth), sites.world.site.objects.get(packKey(id, born))!);
    }
    const report = await sites.copy(a, b, { sentUnder: birth, readBack: false });
    expect(report.packsFound).toBe(report.packs);
    expect(packsOf(to.readWhole)).toEqual([]);
    expect(await sites.checkOther()).toBe(1);
  });

  for (const outcome of ["impossible", "absent"] as const satisfies readonly CopyOutcome[]) {
    test(`where a copy is ${outcome}, packs are read and sent`, async () => {
      using sites = await TwoSites.create();
      const { from, to } = await oneStore(sites);
      const copying = { ...to.copying!, copyFrom: async () => outcome };
      const a = await sites.world.open(from);
      const b = await sites.openOther(Object.assign(to, { copying }));
      await sites.world.backup(a, NUMBERS);
      const report = await sites.copy(a, b);
      expect(packsOf(to.sent)).toHaveLength(report.packs);
      expect(await sites.checkOther()).toBe(1);
    });
  }

  for (const fault of ["lost", "hidden", "late", "error-after", "duplicate"] as const) {
    test(`where a copy ends as ${fault}, what is read tells, and it is brought again`, async () => {
      using sites = await TwoSites.create();
      const { a, to } = await oneStore(sites);
      await sites.world.backup(a, NUMBERS);
      let left = 2;
      const target = new FaultySite(to, {
        random: seededRandom(3),
        clock: sites.world.clock,
        fault: ({ kind, key }) => {
          if (kind !== "put" || !key.startsWith("pack/") || left === 0) return undefined;
          left -= 1;
          return fault === "hidden" || fault === "late" ? { fault, calls: 3 } : { fault };
        },
      });
      const b = await sites.openOther(target);
      for (let count = 0; count < 4; count++) {
        const thrown = await caught(sites.copy(a, b));
        if (thrown !== undefined) expect(thrown).toMatchObject({ retryable: true });
      }
      expect(left).toBe(0);
      expect(await sites.checkOther()).toBe(1);
    });
  }

  for (const how of ["error-before", "error-after"] as const) {
    test(`a crash at any copy, ${how === "error-before" ? "before" : "after"} its effect, and the same once more brings all`, async () => {
      let copies = 0;
      for (let at = 0; at === 0 || at < copies; at += 1) {
        using sites = await TwoSites.create();
        const { a, to } = await oneStore(sites);
        await sites.world.backup(a, NUMBERS);
        copies = [...a.repository.index.packs()].length;
        const target = crashingAt(to, { at, how, world: sites.world });
        const end = await caught(sites.copy(a, await sites.openOther(target), { concurrency: 1 }));
        expect(String(end)).toContain("crash");
        expect(await sites.checkOther()).toBe(0);
        await sites.copy(a, await sites.openOther(to));
        expect(packsOf(to.sent)).toEqual([]);
        expect(await sites.checkOther()).toBe(1);
      }
      expect(copies).toBeGreaterThan(2);
    });
  }
});

/** A site that dies at the copy of one pack. */
function crashingAt(
  site: Site,
  {
    at,
    how,
    world,
  }: {
    readonly at: number;
    readonly how: "error-before" | "error-after";
    readonly world: TwoSites["world"];
  },
): Site {
  let calls = 0;
  let isDead = false;
  return new FaultySite(site, {
    random: seededRandom(1),
    clock: world.clock,
    fault: ({ kind, key }) => {
      const error = new Error("crash");
      if (isDead) return { fault: "error-before", error };
      if (kind !== "put" || !key.startsWith("pack/")) return undefined;
      isDead = calls === at;
      calls += 1;
      return isDead ? { fault: how, error } : undefined;
    },
  });
}
