/** Scrubbing: every pack is read within the budget, from where it stopped, and what is wrong shows. */
import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { realDatabases } from "../../src/base/databases.ts";
import { realRandom } from "../../src/base/random.ts";
import { Catalog } from "../../src/cas/catalog/catalog.ts";
import { Repository } from "../../src/cas/log/repository.ts";
import { isOfShare, packOfKey, scrubStep } from "../../src/cas/read/scrub.ts";
import { ScrubJournal, scrubAnswerSchema } from "../../src/cluster/scrub-journal.ts";
import { Scrubber } from "../../src/cluster/scrub.ts";
import type { ScrubberOptions, ScrubEvent } from "../../src/cluster/scrub.ts";
import type { Site } from "../../src/sites/site.ts";
import { Rig } from "../cas/backup-rig.ts";
import { ENCRYPTION } from "../cas/encryption-keys.ts";
import { noise } from "../cas/noise.ts";
import type { SmallNode } from "../cas/small-backups.ts";
import { SmallWorld } from "../cas/small-world.ts";
import { VirtualClock } from "../simulation/virtual-clock.ts";

const DAY_MS = 24 * 3_600_000;
const HOUR_MS = 3_600_000;
const CYCLE_MS = 2 * DAY_MS;
const { signal } = new AbortController();

/** A site with one backup of many packs, and what was read of it. */
class World implements AsyncDisposable {
  readonly clock = new VirtualClock();
  readonly events: ScrubEvent[] = [];
  /** Keys of packs in the order in which they were read, with their sizes. */
  readonly reads: { key: string; sizeBytes: number; atMs: number }[] = [];
  readonly journals = new Map<string, ScrubJournal>();
  readonly scrubbers = new Map<string, Scrubber>();
  readonly rig: Rig;
  readonly repository: Repository;
  readonly #catalog: Catalog;
  isBusy = false;

  private constructor(rig: Rig, catalog: Catalog, repository: Repository) {
    this.rig = rig;
    this.#catalog = catalog;
    this.repository = repository;
  }

  static async create(): Promise<World> {
    const rig = await Rig.open();
    for (let number = 0; number < 8; number += 1) rig.write(`f${number}`, noise(400_000, number));
    await rig.backup({ settings: { packSizeBytes: 150_000 } });
    const catalog = Catalog.open(realDatabases, ":memory:");
    const held: { world?: World } = {};
    const { site } = rig;
    const door: Site = {
      name: "first",
      location: site.location,
      get: async (key, call) => {
        const bytes = await site.get(key, call);
        if (key.startsWith("pack/")) held.world?.noteRead(key, bytes);
        return bytes;
      },
      put: (...given) => site.put(...given),
      head: (...given) => site.head(...given),
      delete: (...given) => site.delete(...given),
      list: (...given) => site.list(...given),
      [Symbol.asyncDispose]: async () => undefined,
    };
    const doors = { clock: rig.clock, random: realRandom };
    const repository = await Repository.open({ site: door, catalog, doors, node: "a" });
    const world = new World(rig, catalog, repository);
    held.world = world;
    return world;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#catalog[Symbol.dispose]();
    await this.rig[Symbol.asyncDispose]();
  }

  get site() {
    return { name: "first", id: this.repository.header.site, repository: this.repository };
  }

  /** The first backup. */
  get backup(): { id: string; sequence: number } {
    return this.backupAt(0);
  }

  backupAt(index: number): { id: string; sequence: number } {
    const { backup: id, sequence } = [...this.repository.state.backups.values()].at(index)!;
    return { id, sequence };
  }

  get packKeys(): string[] {
    return [...this.rig.site.objects.keys()].filter((key) => key.startsWith("pack/")).toSorted();
  }

  get packBytes(): number {
    return this.packKeys.reduce((sum, key) => sum + this.rig.site.objects.get(key)!.length, 0);
  }

  noteRead(key: string, bytes: Uint8Array | undefined): void {
    this.reads.push({ key, sizeBytes: bytes?.length ?? 0, atMs: this.clock.monotonic() });
  }

  flip(key: string): void {
    const bytes = this.rig.site.objects.get(key) as Uint8Array;
    bytes[Math.floor(bytes.length / 3)]! ^= 4;
  }

  /** A process: another one over the same journal goes on. */
  scrubber(options: Partial<ScrubberOptions> = {}): Scrubber {
    const node = options.node ?? "a";
    const journal =
      this.journals.get(node) ?? new ScrubJournal(new Database(":memory:", { strict: true }));
    this.journals.set(node, journal);
    const scrubber = new Scrubber({
      clock: this.clock,
      journal,
      node,
      nodes: ["a"],
      settings: { pace: { cycleMs: CYCLE_MS } },
      sites: async () => [this.site],
      isBusy: () => this.isBusy,
      repair: async () => 0,
      ask: async (name) => scrubAnswerSchema.parse(this.scrubbers.get(name)?.answer()),
      stepSizeBytes: 1,
      onEvent: (event) => this.events.push(event),
      ...options,
    });
    this.scrubbers.set(node, scrubber);
    return scrubber;
  }

  /** Lets scrubbers run for so long. */
  async pass(ms: number, scrubbers: readonly Scrubber[]): Promise<void> {
    const stop = new AbortController();
    const running = scrubbers.map((scrubber) => scrubber.run(stop.signal));
    await this.clock.run(this.clock.sleep(ms), ms + 1);
    stop.abort();
    await this.clock.run(Promise.all(running));
  }
}

test("a cycle reads each pack once, spread over its time, and proves what was there before", async () => {
  await using world = await World.create();
  const scrubber = world.scrubber();
  expect(scrubber.prover(world.site.id)(world.backup)).toBeUndefined();
  const startMs = world.clock.now();
  await world.pass(CYCLE_MS + HOUR_MS, [scrubber]);
  const keys = world.reads.map(({ key }) => key);
  const cycle = keys.slice(0, world.packKeys.length);
  expect(cycle).toEqual(world.packKeys);
  const half = world.reads.filter(({ atMs }) => atMs < CYCLE_MS / 2).length;
  expect(half).toBeGreaterThan(cycle.length / 4);
  expect(half).toBeLessThan((cycle.length * 3) / 4);
  expect(scrubber.prover(world.site.id)(world.backup)).toBe(startMs);
  expect(scrubber.figures()).toMatchObject([
    {
      site: "first",
      lastCycle: { packs: cycle.length, bytes: world.packBytes, problems: 0 },
      provedAt: new Date(startMs).toISOString(),
    },
  ]);
  // A backup that came later was not there to be read.
  world.rig.write("later", noise(100_000, 99));
  await world.rig.backup();
  await world.repository.catchUp();
  const later = world.backupAt(-1);
  expect(scrubber.prover(world.site.id)(later)).toBeUndefined();
});

test("no day reads more than its bytes, whatever restarts", async () => {
  await using world = await World.create();
  const bytesPerDay = Math.ceil(world.packBytes / 5);
  const settings = { pace: { bytesPerDay } };
  for (let restart = 0; restart < 40; restart += 1) {
    await world.pass(6 * HOUR_MS, [world.scrubber({ settings })]);
  }
  const packBytesMax = Math.max(...world.reads.map(({ sizeBytes }) => sizeBytes));
  for (let day = 0; day < 10; day += 1) {
    const ofDay = world.reads.filter(({ atMs }) => Math.floor(atMs / DAY_MS) === day);
    const bytes = ofDay.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    expect(bytes).toBeLessThanOrEqual(bytesPerDay + packBytesMax);
    if (day < 4) expect(bytes).toBeGreaterThan(bytesPerDay / 2);
  }
  // Two cycles fit into ten days, and a third has not ended.
  const counts = world.packKeys.map((key) => world.reads.filter((one) => one.key === key).length);
  expect(Math.min(...counts)).toBeGreaterThanOrEqual(1);
  expect(Math.max(...counts)).toBeLessThanOrEqual(3);
});

test("a flipped byte in any pack is found, at its cursor, after any restart", async () => {
  await using world = await World.create();
  for (const key of world.packKeys) {
    const bytes = world.rig.site.objects.get(key)!;
    world.rig.site.objects.set(key, bytes.slice());
    world.flip(key);
    const found: string[] = [];
    let after: string | undefined = "";
    while (after !== undefined) {
      const step: Awaited<ReturnType<typeof scrubStep>> = await scrubStep({
        repository: world.repository,
        after,
        share: { rank: 0, count: 1 },
        sizeBytes: 300_000,
      });
      found.push(...step.problems.map(({ object }) => object));
      ({ after } = step);
    }
    expect(found).toEqual([key]);
    world.rig.site.objects.set(key, bytes);
  }
});

test("a restart goes on behind the last pack that was read", async () => {
  await using world = await World.create();
  for (let restart = 0; restart < 200; restart += 1) {
    if (world.reads.length >= world.packKeys.length) break;
    await world.pass(2 * HOUR_MS, [world.scrubber()]);
  }
  expect(world.reads.map(({ key }) => key)).toEqual(world.packKeys);
});

test("several nodes read each pack once together, and prove it only together", async () => {
  await using world = await World.create();
  const nodes = ["a", "b", "c"];
  const share = (node: string) => world.scrubber({ node, nodes });
  const [a, b, c] = [share("a"), share("b"), share("c")];
  await world.pass(CYCLE_MS + HOUR_MS, [a, b]);
  expect(new Set(world.reads.map(({ key }) => key)).size).toBeLessThan(world.packKeys.length);
  expect(a.prover(world.site.id)(world.backup)).toBeUndefined();
  const cycles = world.reads.length;
  await world.pass(CYCLE_MS + 3 * HOUR_MS, [a, b, c]);
  const byShare = Map.groupBy(world.packKeys, (key) =>
    [0, 1, 2].find((rank) => isOfShare(packOfKey(key)!, { rank, count: 3 })),
  );
  expect(byShare.size).toBe(3);
  expect(new Set(world.reads.slice(cycles).map(({ key }) => key)).size).toBe(world.packKeys.length);
  const proved = a.prover(world.site.id)(world.backup);
  expect(proved).toBeNumber();
  expect(b.prover(world.site.id)(world.backup)).toBe(proved);
});

test("nothing is read beside a backup, or where nothing is configured", async () => {
  await using world = await World.create();
  world.isBusy = true;
  await world.pass(DAY_MS, [world.scrubber()]);
  expect(world.reads).toEqual([]);
  world.isBusy = false;
  await world.pass(DAY_MS, [world.scrubber({ settings: undefined })]);
  expect(world.reads).toEqual([]);
  await world.pass(DAY_MS, [world.scrubber()]);
  expect(world.reads.length).toBeGreaterThan(0);
});

test("what is wrong is told and given to repair, and the cycle proves nothing", async () => {
  await using world = await World.create();
  const [first, second] = world.packKeys as [string, string];
  world.flip(first);
  world.rig.site.objects.delete(second);
  const repaired: string[] = [];
  const scrubber = world.scrubber({
    repair: async (_site, problems) => {
      repaired.push(...problems.map(({ object, fault }) => `${fault} ${object}`));
      return problems.length;
    },
  });
  await world.pass(CYCLE_MS + HOUR_MS, [scrubber]);
  expect(repaired.slice(0, 2)).toEqual([`damaged ${first}`, `missing ${second}`]);
  expect(world.events.map(({ kind }) => kind)).toEqual(repaired.map(() => "problems"));
  expect(scrubber.figures()[0]?.lastCycle?.problems).toBe(2);
  expect(scrubber.prover(world.site.id)(world.backup)).toBeUndefined();
});

test("a pass by hand reads all at once, beside the rolling one, and is proof by itself", async () => {
  await using world = await World.create();
  const scrubber = world.scrubber({ settings: undefined });
  const startMs = world.clock.now();
  const [report] = await scrubber.pass({ sites: ["first"], signal });
  expect(report).toMatchObject({ site: "first", ok: true, bytes: world.packBytes, problems: [] });
  expect(world.reads.map(({ key }) => key)).toEqual(world.packKeys);
  expect(scrubber.prover(world.site.id)(world.backup)).toBe(startMs);
  expect(await scrubber.pass({ sites: ["other"], signal })).toEqual([]);
  world.flip(world.packKeys[3]!);
  await world.clock.pass(DAY_MS);
  const [second] = await scrubber.pass({ signal });
  expect(second).toMatchObject({ ok: false, problemCount: 1 });
  // What was proved then was right then.
  expect(scrubber.prover(world.site.id)(world.backup)).toBe(startMs);
  await world.clock.pass(DAY_MS);
  scrubber.noteVerified(world.site.id, world.backup.id);
  expect(scrubber.prover(world.site.id)(world.backup)).toBe(world.clock.now());
});

test("what a verification finds wrong is proved by nothing that came before, at any node", async () => {
  await using world = await World.create();
  const [a, b] = ["a", "b"].map((node) =>
    world.scrubber({ settings: undefined, node, nodes: ["a", "b"] }),
  );
  const provedAt = (scrubber = a!): number | undefined =>
    scrubber.prover(world.site.id)(world.backup);
  await a!.pass({ signal });
  a!.noteVerified(world.site.id, world.backup.id);
  expect(provedAt()).toBeDefined();
  await world.clock.pass(DAY_MS);
  a!.noteDamaged(world.site.id, world.backup.id);
  expect(provedAt()).toBeUndefined();
  const told = scrubAnswerSchema.parse(structuredClone(a!.answer()));
  expect(told.damaged).toEqual([
    { site: world.site.id, backup: world.backup.id, atMs: world.clock.now() },
  ]);
  b!.noteVerified(world.site.id, world.backup.id);
  world.journals.get("b")!.setPeer("a", told);
  expect(provedAt(b)).toBeUndefined();
  await world.clock.pass(DAY_MS);
  await a!.pass({ signal });
  expect(provedAt()).toBe(world.clock.now());
});

test("a site that does not answer is tried again, from the same place", async () => {
  await using world = await World.create();
  const error = new Error("no site");
  let isDown = true;
  const scrubber = world.scrubber({
    sites: async () => {
      if (isDown) throw error;
      return [world.site];
    },
  });
  await world.pass(HOUR_MS, [scrubber]);
  expect(world.events.length).toBeGreaterThan(0);
  expect(world.events.every(({ kind }) => kind === "failed")).toBe(true);
  isDown = false;
  await world.pass(CYCLE_MS + HOUR_MS, [scrubber]);
  expect(scrubber.figures()[0]?.lastCycle).toMatchObject({ packs: world.packKeys.length });
});

test("a wall clock that is set back by a year stops nothing", async () => {
  await using world = await World.create();
  const scrubber = world.scrubber();
  await world.pass(DAY_MS, [scrubber]);
  world.clock.jump(-365 * DAY_MS);
  await world.pass(3 * DAY_MS, [scrubber]);
  expect(new Set(world.reads.map(({ key }) => key)).size).toBe(world.packKeys.length);
});

test("while nothing is due, no site is asked more often than once an hour", async () => {
  await using world = await World.create();
  let asked = 0;
  const scrubber = world.scrubber({
    sites: async () => {
      asked += 1;
      return [world.site];
    },
    stepSizeBytes: 1 << 30,
  });
  await world.pass(DAY_MS - HOUR_MS, [scrubber]);
  expect(scrubber.figures()[0]?.lastCycle?.packs).toBe(world.packKeys.length);
  expect(asked).toBeGreaterThan(1);
  expect(asked).toBeLessThanOrEqual(24);
});

test("what leads to packs is read too: without a manifest, segment, entry or key nothing is proved", async () => {
  for (const lost of ["manifest/", "index/", "log/000000000001", "key/", "astacus-repository"]) {
    using world = await SmallWorld.create({ encryption: ENCRYPTION });
    const known = await world.open();
    const fresh = await world.open();
    const id = await world.backup(known, [1, 2, 3, 4, 5]);
    // Who lacks the last entry that it knew goes no further at all.
    if (lost.startsWith("log/")) await fresh.repository.catchUp();
    const { objects } = world.site;
    const keys = [...objects.keys()].filter((key) => key.startsWith(lost));
    const sound = keys.map((key) => [key, objects.get(key)!] as const);
    expect(keys).not.toEqual([]);
    const scrub = async ({ repository }: SmallNode) => {
      const { scrubber, site } = scrubberOf(repository);
      const [report] = await scrubber.pass({ signal });
      const { sequence } = repository.state.backups.get(id)!;
      return { report: report!, provedMs: scrubber.prover(site)({ id, sequence }) };
    };
    for (const key of keys) objects.delete(key);
    for (const node of [known, fresh]) {
      const { report, provedMs } = await scrub(node);
      expect(report).toMatchObject({ ok: false, problemCount: keys.length });
      expect(report.problems.map(({ object }) => object).toSorted()).toEqual(keys.toSorted());
      expect(provedMs).toBeUndefined();
    }
    for (const [key, bytes] of sound) objects.set(key, bytes);
    for (const node of [known, fresh]) {
      const { report, provedMs } = await scrub(node);
      expect(report).toMatchObject({ ok: true, problems: [] });
      expect(provedMs).toBeNumber();
    }
  }
});

test("a share is not clean either where its node cannot read a segment", async () => {
  using world = await SmallWorld.create();
  const known = await world.open();
  const fresh = await world.open();
  await world.backup(known, [1, 2, 3]);
  const { objects } = world.site;
  for (const key of objects.keys()) if (key.startsWith("index/")) objects.delete(key);
  // The first share looks at the site; the second one of a node that lacks rows notices by itself.
  const problemsOf = async (node: string, { repository }: SmallNode) => {
    const { scrubber } = scrubberOf(repository, { node, nodes: ["a", "b"] });
    await scrubber.turn(signal);
    return scrubber.figures()[0]?.lastCycle?.problems;
  };
  expect(await problemsOf("a", known)).toBeGreaterThan(0);
  expect(await problemsOf("b", fresh)).toBeGreaterThan(0);
  expect(await problemsOf("b", known)).toBe(0);
});

/** A scrubber of one site, and the site's id. */
function scrubberOf(repository: Repository, options: Partial<ScrubberOptions> = {}) {
  const site = repository.header.site;
  const scrubber = new Scrubber({
    clock: new VirtualClock(),
    journal: new ScrubJournal(new Database(":memory:", { strict: true })),
    node: "a",
    nodes: ["a"],
    settings: { pace: { cycleMs: CYCLE_MS } },
    sites: async () => [{ name: "first", id: site, repository, opener: repository.openerFor() }],
    isBusy: () => false,
    repair: async () => 0,
    ask: async () => ({ sites: [], verified: [], damaged: [] }),
    ...options,
  });
  return { scrubber, site };
}
