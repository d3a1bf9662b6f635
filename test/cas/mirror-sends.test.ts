/** Packs to several sites from one read: a mirror may fail or be slow, and the backup does not care. */
import { expect, test } from "bun:test";
import { realClock } from "../../src/base/clock.ts";
import { AppError } from "../../src/base/error.ts";
import { realRandom } from "../../src/base/random.ts";
import { FaultySite } from "../../src/sites/faulty-site.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import type { Site } from "../../src/sites/site.ts";
import { Rig } from "./backup-rig.ts";
import { noise } from "./noise.ts";

const BIRTH = 7;

function mirrorOf(site: Pick<Site, "put" | "head">, name = "second") {
  return { name, site, birth: BIRTH };
}

/** Ids and bytes of the packs of a site. */
function packsOf(site: MemorySite): Map<string, string> {
  const packs = [...site.objects].filter(([key]) => key.startsWith("pack/"));
  return new Map(
    packs.map(([key, bytes]) => [key.slice(8, 72), Buffer.from(bytes).toString("hex")]),
  );
}

function fill(rig: Rig): void {
  for (let number = 0; number < 6; number += 1) rig.write(`f${number}`, noise(500_000, number));
}

test("every mirror gets the packs of the primary, byte for byte, under its own birth", async () => {
  await using rig = await Rig.open();
  fill(rig);
  const mirrors = [new MemorySite(), new MemorySite()];
  const { stored } = await rig.backup({
    mirrors: mirrors.map((site, index) => mirrorOf(site, `m${index}`)),
  });
  const sent = packsOf(rig.site);
  expect(sent.size).toBeGreaterThan(5);
  for (const mirror of mirrors) {
    expect(packsOf(mirror)).toEqual(sent);
    expect([...mirror.objects.keys()].every((key) => key.endsWith(`-${BIRTH}`))).toBe(true);
  }
  const bytes = [...sent.values()].reduce((sum, hex) => sum + hex.length / 2, 0);
  const expected = { packs: sent.size, bytes };
  expect(stored.mirrors).toEqual([
    { name: "m0", ...expected },
    { name: "m1", ...expected },
  ]);
});

test("buffers come back to workers only when no mirror reads them any more", async () => {
  await using rig = await Rig.open();
  fill(rig);
  const mirror = new MemorySite();
  const late: Pick<Site, "put" | "head"> = {
    async put(key, bytes) {
      // Reads the buffer only when the primary has long acknowledged it.
      await realClock.sleep(30);
      return await mirror.put(key, bytes);
    },
    head: async (key) => await mirror.head(key),
  };
  await rig.backup({ mirrors: [mirrorOf(late)], settings: { workers: 1 } });
  expect(packsOf(mirror)).toEqual(packsOf(rig.site));
});

test("a mirror that fails in the middle is left out, and the backup is whole", async () => {
  await using rig = await Rig.open();
  fill(rig);
  const mirror = new MemorySite();
  let puts = 0;
  const faulty = new FaultySite(mirror, {
    random: realRandom,
    clock: realClock,
    fault: ({ kind }) => {
      if (kind !== "put") return undefined;
      puts += 1;
      return puts > 3 ? { fault: "error-before" } : undefined;
    },
  });
  const { stored } = await rig.backup({
    mirrors: [mirrorOf(faulty)],
    settings: { uploadsMax: 1 },
  });
  expect(stored.mirrors).toMatchObject([{ name: "second", packs: 3 }]);
  expect(stored.mirrors[0]?.failed).toBeString();
  expect(packsOf(mirror).size).toBe(3);
  expect(puts).toBe(4);
  const found = await rig.read(stored.volumes[0]!.listing);
  for (const [path, bytes] of rig.contents()) expect(found.get(path)?.bytes).toEqual(bytes);
});

test("a mirror that does not answer holds the backup up for as long as its patience, once", async () => {
  await using rig = await Rig.open();
  fill(rig);
  let puts = 0;
  const signals: (AbortSignal | undefined)[] = [];
  const silent: Pick<Site, "put" | "head"> = {
    async put(_key, _bytes, call) {
      puts += 1;
      signals.push(call?.signal);
      return await new Promise<never>(() => undefined);
    },
    head: async () => undefined,
  };
  const good = new MemorySite();
  const { stored } = await rig.backup({
    mirrors: [mirrorOf(silent), mirrorOf(good, "third")],
    settings: { uploadsMax: 1, mirrorPatienceMs: 50 },
  });
  expect(puts).toBe(1);
  expect(signals[0]?.aborted).toBe(true);
  expect(stored.mirrors).toMatchObject([
    { name: "second", packs: 0, failed: "It did not take a pack within 0.05 s." },
    { name: "third" },
  ]);
  expect(stored.mirrors[1]?.failed).toBeUndefined();
  expect(packsOf(good)).toEqual(packsOf(rig.site));
});

test("a primary that fails ends the backup though a mirror says nothing", async () => {
  await using rig = await Rig.open();
  fill(rig);
  const { site } = rig;
  rig.door = new FaultySite(site, {
    random: realRandom,
    clock: realClock,
    fault: ({ kind, key }) =>
      kind === "put" && key.startsWith("pack/") ? { fault: "error-before" } : undefined,
  });
  const silent: Pick<Site, "put" | "head"> = {
    put: async () => await new Promise<never>(() => undefined),
    head: async () => undefined,
  };
  const failure = await rig
    .backup({ mirrors: [mirrorOf(silent)], settings: { mirrorPatienceMs: 3_600_000 } })
    .catch((thrown: unknown) => thrown);
  expect(failure).toBeInstanceOf(AppError);
});

test("a pack that is on a mirror with another length is no pack that was sent", async () => {
  await using rig = await Rig.open();
  rig.write("a", noise(100_000, 1));
  const mirror = new MemorySite();
  const taken: Pick<Site, "put" | "head"> = {
    put: async () => "exists",
    head: async () => ({ sizeBytes: 5 }),
  };
  const { stored } = await rig.backup({ mirrors: [mirrorOf(taken), mirrorOf(mirror, "third")] });
  expect(stored.mirrors[0]).toMatchObject({ packs: 0 });
  expect(stored.mirrors[0]?.failed).toContain("other bytes");
  expect(stored.mirrors[1]).toMatchObject({ packs: packsOf(mirror).size });
});
