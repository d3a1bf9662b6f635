/** Repairs from another site, proofs that nothing is lacking, roles, and the end of a log. */
import { describe, expect, test } from "bun:test";
import { closeLog } from "../../src/cas/copy/close-log.ts";
import type { CommitHow } from "../../src/cas/copy/roles.ts";
import { bestRoles, commitRoles } from "../../src/cas/copy/roles.ts";
import { proveCopy } from "../../src/cas/copy/prove-copy.ts";
import { repairObjects, repairPacks } from "../../src/cas/copy/repair-objects.ts";
import type { CopySide } from "../../src/cas/copy/copy-side.ts";
import type { IndexedPack } from "../../src/cas/catalog/catalog-index.ts";
import { drawId, manifestKey } from "../../src/cas/format/ids.ts";
import { packKey } from "../../src/cas/format/pack.ts";
import { dropPin, forgetBackups, pinBackup } from "../../src/cas/clean/backup-marks.ts";
import type { EntryBodies } from "../../src/cas/log/entry.ts";
import type { MemorySite } from "../../src/sites/memory-site.ts";
import type { Site } from "../../src/sites/site.ts";
import { verifySite } from "../../src/cas/read/verify-site.ts";
import { rejectionOf } from "./repository-world.ts";
import type { SmallNode } from "./small-backups.ts";
import { openSource, packsIn } from "./small-backups.ts";
import { caught } from "./small-world.ts";
import { checkSite, TwoSites } from "./two-sites.ts";

const NUMBERS = [1, 2, 3, 4, 5, 6, 7, 8, 9];

describe("a repair", () => {
  test("brings a pack under a new birth, where everybody finds it, and the bad one becomes garbage", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const { a, b } = await copied(sites);
    const damaged = dataPack(b);
    const bad = packKey(damaged.id, damaged.birth);
    flip(sites.other, bad);
    expect(await caught(sites.checkOther())).toBeDefined();
    const report = await repairPacks(b, [a], [damaged.id], how(sites));
    expect(report).toEqual({ repaired: [damaged.id], sound: [], left: [] });
    expect(b.repository.index.findPack(damaged.id)?.birth).toBeGreaterThan(damaged.birth);
    expect(await sites.checkOther()).toBe(1);
    // Who was away, and who rebuilds the index, find it too.
    const later = await sites.openOther();
    const good = packKey(damaged.id, later.repository.index.findPack(damaged.id)!.birth);
    await later.repository.rebuildIndex();
    expect(later.repository.index.findPack(damaged.id)?.birth).toBe(
      b.repository.index.findPack(damaged.id)?.birth,
    );
    await forgetOne(sites, b);
    for (let count = 0; count < 4; count++) await world.cleanup(b, { sweep: true });
    expect(sites.other.objects.has(bad)).toBe(false);
    expect(sites.other.objects.has(good)).toBe(true);
    expect(await sites.checkOther()).toBe(1);
  });

  test("of a missing pack survives merges, and its delete takes the new birth", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const { a, b, id } = await copied(sites);
    const lost = dataPack(b);
    sites.other.objects.delete(packKey(lost.id, lost.birth));
    await repairPacks(b, [a], [lost.id], how(sites));
    for (let count = 0; count < 12; count++) await world.backup(b, [100 + count]);
    const merged = await world.cleanup(b, { sweep: true });
    expect(merged.merges.length).toBeGreaterThan(0);
    expect(await sites.checkOther()).toBe(13);
    await forgetBackups(b.repository, { backups: [id], reason: "", scope: "site", ...how(sites) });
    for (let count = 0; count < 4; count++) await world.cleanup(b, { sweep: true });
    expect(b.repository.state.repairs.size).toBe(0);
    expect(packsIn(sites.other.objects).filter((key) => key.includes(lost.id))).toEqual([]);
    await sites.copy(a, b, { backups: [id], override: true });
    expect(await sites.checkOther()).toBe(13);
    for (let count = 0; count < 3; count++) await world.cleanup(b, { sweep: true });
    expect(await sites.checkOther()).toBe(13);
  });

  test("leaves what is right, and says what nobody has", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const { a, b } = await copied(sites);
    const [first, second] = b.repository.index.packs();
    flip(sites.other, packKey(second!.id, second!.birth));
    flip(world.site, packKey(second!.id, a.repository.index.findPack(second!.id)!.birth));
    const unknown = "0".repeat(64);
    const before = b.repository.state.sequence;
    const report = await repairPacks(b, [a], [first!.id, second!.id, unknown], how(sites));
    expect(report.repaired).toEqual([]);
    expect(report.sound).toEqual([first!.id]);
    expect(report.left.map(({ id }) => id)).toEqual([second!.id, unknown]);
    expect(b.repository.state.sequence).toBe(before);
  });

  test("of a manifest names the good one", async () => {
    using sites = await TwoSites.create();
    const { a, b, id } = await copied(sites);
    const { manifest } = b.repository.state.backups.get(id)!;
    sites.other.objects.delete(manifestKey(manifest.id, manifest.birth));
    expect(await caught(sites.checkOther())).toBeDefined();
    const report = await repairObjects(b, [a], [{ kind: "manifest", id: manifest.id }], how(sites));
    expect(report.repaired).toEqual([manifest.id]);
    expect(await sites.checkOther()).toBe(1);
  });

  test("of a segment writes it again from the rows of a node that knows it", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const { a, b } = await copied(sites);
    for (let count = 0; count < 12; count++) await world.backup(b, [100 + count, 7]);
    await world.cleanup(b, { sweep: true });
    await world.backup(b, [200, 8]);
    const stranger = await sites.openOther();
    // A pack that was repaired stands in its segment as it did.
    const moved = dataPack(b);
    flip(sites.other, packKey(moved.id, moved.birth));
    await repairPacks(b, [a], [moved.id], how(sites));
    const lost = [...sites.other.objects.keys()].filter((key) => key.startsWith("index/"));
    const targets = [...b.repository.state.segments.keys()].map(
      (id) => ({ kind: "index", id }) as const,
    );
    expect(targets.length).toBeGreaterThan(1);
    for (const key of lost) sites.other.objects.delete(key);
    await stranger.repository.rebuildIndex();
    const vain = await repairObjects(stranger, [a], targets, how(sites));
    expect(vain.repaired).toEqual([]);
    expect(vain.left[0]?.why).toContain("another node");
    const report = await repairObjects(b, [a], targets, how(sites));
    expect(report).toEqual({ repaired: targets.map(({ id }) => id), sound: [], left: [] });
    expect(await sites.checkOther()).toBe(14);
    expect(await verifySite(b.repository, { manifests: true })).toEqual([]);
    expect((await repairObjects(b, [a], targets, how(sites))).sound).toHaveLength(targets.length);
    await forgetOne(sites, b);
    for (let count = 0; count < 4; count++) await world.cleanup(b, { sweep: true });
    expect(await sites.checkOther()).toBe(14);
  });

  test("by two at once changes a birth once", async () => {
    using sites = await TwoSites.create();
    const { a, b } = await copied(sites);
    const c = await sites.openOther();
    const lost = dataPack(b);
    sites.other.objects.delete(packKey(lost.id, lost.birth));
    const reports = await Promise.all(
      [b, c].map((to) => repairPacks(to, [a], [lost.id], how(sites))),
    );
    expect(reports.flatMap(({ repaired }) => repaired)).toEqual([lost.id]);
    expect(await sites.checkOther()).toBe(1);
  });
});

describe("a proof", () => {
  test("holds for a whole copy, and names what is not listed, pinned, lost or damaged", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const { a, b, id } = await copied(sites);
    const whole = await proveCopy(a, b, { deep: true });
    expect(whole).toMatchObject({ backups: 1, unproved: [] });
    expect(whole.packs).toBe(packsIn(sites.other.objects).length);
    const fresh = await world.backup(a, [55]);
    expect((await proveCopy(a, b, { deep: false })).unproved.map((row) => row.id)).toEqual([fresh]);
    await world.forget(a, fresh);
    const pin = { pin: "audit", backup: fresh, reason: "", ...how(sites) };
    await pinBackup(a.repository, () => openSource(a.repository), pin);
    expect((await proveCopy(a, b, { deep: false })).unproved.map((row) => row.id)).toEqual([fresh]);
    await dropPin(a.repository, { pin: "audit", ...how(sites) });
    const damaged = dataPack(b);
    const key = packKey(damaged.id, damaged.birth);
    const bytes = sites.other.objects.get(key)!;
    flip(sites.other, key);
    expect((await proveCopy(a, b, { deep: false })).unproved).toEqual([]);
    expect((await proveCopy(a, b, { deep: true })).unproved).toMatchObject([{ id }]);
    sites.other.objects.delete(key);
    expect((await proveCopy(a, b, { deep: false })).unproved[0]?.why).toContain(damaged.id);
    sites.other.objects.set(key, bytes);
    expect((await proveCopy(a, b, { deep: true })).unproved).toEqual([]);
  });
});

describe("a proof believes the site, not the node:", () => {
  test("a lost or damaged segment, log entry or header unproves every backup", async () => {
    using sites = await TwoSites.create();
    const { a, b, id } = await copied(sites);
    const second = await sites.world.backup(a, [21, 22]);
    await sites.copy(a, b);
    const { objects } = sites.other;
    for (const prefix of ["index/", "log/", "astacus-repository"]) {
      const key = [...objects.keys()].find((name) => name.startsWith(prefix))!;
      const bytes = objects.get(key)!;
      for (const spoil of [() => objects.delete(key), () => flip(sites.other, key)]) {
        spoil();
        const { unproved } = await proveCopy(a, b, { deep: false });
        expect(unproved.map((row) => row.id)).toEqual([id, second]);
        for (const { why } of unproved) expect(why).toMatch(/memory:other: .+\.$/);
        objects.set(key, bytes);
      }
      expect((await proveCopy(a, b, { deep: true })).unproved).toEqual([]);
    }
  });

  test("a segment that came while packs were read, and was lost, unproves them", async () => {
    using sites = await TwoSites.create();
    const { a } = await copied(sites);
    const c = await sites.openOther();
    let isMoved = false;
    const b = await sites.openOther(
      watched(sites.other, async (key) => {
        if (!key.startsWith("pack/") || isMoved) return;
        isMoved = true;
        const known = new Set(sites.other.objects.keys());
        await sites.world.backup(c, [31, 32]);
        await b.repository.catchUp();
        const fresh = [...sites.other.objects.keys()].find(
          (name) => name.startsWith("index/") && !known.has(name),
        );
        sites.other.objects.delete(fresh!);
      }),
    );
    const { unproved } = await proveCopy(a, b, { deep: true });
    expect(isMoved).toBe(true);
    expect(unproved[0]?.why).toContain("index/");
  });

  test("a pack that is repaired while it is looked at counts as it is then", async () => {
    using sites = await TwoSites.create();
    const { a, b: c } = await copied(sites);
    const damaged = dataPack(c);
    const bad = packKey(damaged.id, damaged.birth);
    let isRepaired = false;
    const b = await sites.openOther(
      watched(sites.other, async (key) => {
        if (key !== bad || isRepaired) return;
        isRepaired = true;
        await repairPacks(c, [a], [damaged.id], how(sites));
      }),
    );
    flip(sites.other, bad);
    expect((await proveCopy(a, b, { deep: true })).unproved).toEqual([]);
    expect(isRepaired).toBe(true);
  });
});

describe("roles", () => {
  test("go to whoever has worse ones, once, and the best of all sites win", async () => {
    using sites = await TwoSites.create();
    const { a, b } = await copied(sites);
    const one = rolesOf(1, a, b);
    expect((await commitRoles(a.repository, one, how(sites))).outcome).toBe("won");
    expect((await commitRoles(a.repository, one, how(sites))).outcome).toBe("nothing");
    const two = rolesOf(2, b, a);
    await commitRoles(b.repository, two, how(sites));
    const states = [a.repository.state, b.repository.state];
    expect(bestRoles(states)?.primary).toBe(b.repository.header.site);
    expect(bestRoles([])).toBeUndefined();
    expect((await commitRoles(b.repository, one, how(sites))).outcome).toBe("nothing");
    expect((await commitRoles(a.repository, two, how(sites))).outcome).toBe("won");
  });
});

describe("a closed site", () => {
  test("takes nothing more and names its successor, keeps everything, and can be copied from", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const { a, b } = await copied(sites);
    const late = await world.backup(a, [77]);
    const waiting = await world.open();
    await commitRoles(a.repository, rolesOf(1, b, a), how(sites));
    const closing = { successor: b.repository.header.site, reason: "moved", ...how(sites) };
    await closeLog(a.repository, closing);
    expect((await closeLog(waiting.repository, closing)).reason).toBe("moved");
    const refused = await rejectionOf(world.backup(waiting, [78]));
    expect(refused).toMatchObject({ kind: "refused", context: { reason: "closed" } });
    expect(refused.message).toContain("memory:other");
    const objects = new Set(world.site.objects.keys());
    await rejectionOf(world.cleanup(a, { sweep: true }));
    expect(new Set(world.site.objects.keys())).toEqual(objects);
    const report = await sites.copy(a, b);
    expect(report.backups.find(({ id }) => id === late)?.state).toBe("copied");
    expect((await proveCopy(a, b, { deep: true })).unproved).toEqual([]);
    expect(await checkSite(world.site, world)).toBe(2);
    const other = { ...closing, successor: "f".repeat(32) };
    expect((await rejectionOf(closeLog(a.repository, other))).kind).toBe("refused");
    await world.backup(b, [99]);
    expect((await rejectionOf(sites.copy(b, a))).context["reason"]).toBe("closed");
  });
});

/** A backup at both sites. */
async function copied(sites: TwoSites): Promise<{ a: SmallNode; b: SmallNode; id: string }> {
  const a = await sites.world.open();
  const b = await sites.openOther();
  const id = await sites.world.backup(a, NUMBERS);
  await sites.copy(a, b);
  return { a, b, id };
}

/** Something for a cleanup to do, so that the floor rises. */
async function forgetOne(sites: TwoSites, node: SmallNode): Promise<void> {
  const id = await sites.world.backup(node, [200, 201]);
  await forgetBackups(node.repository, { backups: [id], reason: "", scope: "site", ...how(sites) });
}

function how(sites: TwoSites): CommitHow {
  return { operation: drawId(sites.world.random) };
}

function dataPack(node: SmallNode): IndexedPack {
  return [...node.repository.index.packs()].find(({ kind }) => kind === "data")!;
}

function flip(site: MemorySite, key: string): void {
  const bytes = Uint8Array.from(site.objects.get(key)!);
  bytes[3]! ^= 1;
  site.objects.set(key, bytes);
}

function rolesOf(epoch: number, primary: CopySide, ...mirrors: CopySide[]): EntryBodies["role"] {
  const row = ({ repository }: CopySide, role: "primary" | "mirror") => ({
    site: repository.header.site,
    name: repository.site.name,
    location: repository.site.location,
    role,
  });
  return {
    epoch,
    primary: primary.repository.header.site,
    sites: [row(primary, "primary"), ...mirrors.map((side) => row(side, "mirror"))],
    reason: "test",
  };
}

/** The same site, of which somebody hears each `get` first. */
function watched(site: MemorySite, onGet: (key: string) => Promise<void>): Site {
  return {
    name: site.name,
    location: site.location,
    get: async (key, call) => {
      await onGet(key);
      return await site.get(key, call);
    },
    put: (...given) => site.put(...given),
    head: (...given) => site.head(...given),
    delete: (...given) => site.delete(...given),
    list: (...given) => site.list(...given),
    [Symbol.asyncDispose]: async () => undefined,
  };
}
