/** Reading that goes on at the next site: whatever the first one does, a restore is byte for byte right. */
import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import { sha256, toHex } from "../../src/base/hex.ts";
import { ChunkSource } from "../../src/cas/read/chunk-source.ts";
import { Failover, REST_MS } from "../../src/cas/read/failover.ts";
import type { ReadFault, ReadFaultKind } from "../../src/cas/read/failover.ts";
import type { ChunkRef } from "../../src/cas/format/listing.ts";
import { openWorkerLanes } from "../../src/cas/read/restore-lanes.ts";
import { runVolumeRestore } from "../../src/cas/read/restore.ts";
import { FaultySite } from "../../src/sites/faulty-site.ts";
import type { Fault } from "../../src/sites/faulty-site.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import type { Site } from "../../src/sites/site.ts";
import { VirtualClock } from "../simulation/virtual-clock.ts";
import { seededRandom } from "../sites/still-clock.ts";
import { noise } from "./noise.ts";
import type { RepositoryBuilder, TestFile } from "./repository-builder.ts";
import {
  disk,
  everyKind,
  failureOf,
  optionsOf,
  OUR_GID,
  OUR_UID,
  prepare,
} from "./restore-setup.ts";
import { shapeExpected, shapeOf } from "./tree-shape.ts";

const SIZES = { chunkSizeBytes: 16 << 10, packSizeBytes: 128 << 10, frameSizeBytes: 32 << 10 };
/** Births at the mirror are others. */
const LATER = 1000;

function someFiles(): TestFile[] {
  const large = [1, 2, 3].map((number) => ({
    path: `large-${number}`,
    content: noise(300_000, number),
  }));
  return [...everyKind(), ...large]
    .map((file) => ({ ...file, uid: OUR_UID, gid: OUR_GID }))
    .toSorted((one, other) => (one.path < other.path ? -1 : 1));
}

/** How the builder cuts a file. */
function chunksOf(bytes: Uint8Array): ChunkRef[] {
  const size = SIZES.chunkSizeBytes;
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) => {
    const part = bytes.subarray(index * size, (index + 1) * size);
    return { id: sha256(part), length: part.length };
  });
}

/** What the mirror is asked for, by key. */
type Mirror = { readonly site: MemorySite; readonly asked: string[]; readonly source: ChunkSource };

/** The same packs at another site, under later births. */
function mirrorOf(builder: RepositoryBuilder): Mirror {
  const site = new MemorySite();
  for (const [key, bytes] of (builder.site as MemorySite).objects) {
    const birth = Number(key.slice(key.lastIndexOf("-") + 1));
    const later = key.startsWith("pack/") ? key.replace(/[0-9]+$/, String(birth + LATER)) : key;
    site.objects.set(later, bytes.slice());
  }
  const { index, state } = builder.repository;
  const asked: string[] = [];
  const source = new ChunkSource({
    site: {
      name: "mirror",
      get: async (key, call) => {
        asked.push(key);
        return await site.get(key, call);
      },
    },
    index: {
      find: (id) => index.find(id).map((place) => ({ ...place, birth: place.birth + LATER })),
      findPack: (id) => {
        const pack = index.findPack(id);
        return pack && { ...pack, birth: pack.birth + LATER };
      },
    },
    state: () => state,
    concurrency: 4,
    cacheBytes: 1 << 20,
  });
  return { site, asked, source };
}

function faulty(site: Site, clock: VirtualClock, fault: (key: string) => Fault | undefined): Site {
  const random = seededRandom(5);
  return new FaultySite(site, {
    random,
    clock,
    fault: ({ kind, key }) => (kind === "get" && key.startsWith("pack/") ? fault(key) : undefined),
  });
}

/** Makes the primary wrong in one way, for all packs or for every second one. */
const HARMS: Record<
  string,
  { readonly kind: ReadFaultKind; readonly harm: (site: MemorySite, clock: VirtualClock) => Site }
> = {
  "lost packs": {
    kind: "missing",
    harm: (site) => {
      for (const key of packKeys(site)) site.objects.delete(key);
      return site;
    },
  },
  "packs with a wrong byte": {
    kind: "damaged",
    harm: (site) => {
      for (const key of packKeys(site)) {
        const bytes = site.objects.get(key) as Uint8Array;
        for (let at = 20; at < bytes.length; at += 1000) bytes[at]! ^= 1;
      }
      return site;
    },
  },
  "packs that are cut": {
    kind: "damaged",
    harm: (site, clock) => faulty(site, clock, () => ({ fault: "truncated" })),
  },
  "reads that fail": {
    kind: "unavailable",
    harm: (site, clock) => faulty(site, clock, () => ({ fault: "error-before" })),
  },
  "reads that take an hour": {
    kind: "slow",
    harm: (site, clock) => faulty(site, clock, () => ({ fault: "slow", delayMs: 3_600_000 })),
  },
};

function packKeys(site: MemorySite): string[] {
  return [...site.objects.keys()].filter((key) => key.startsWith("pack/"));
}

describe("a restore goes on at the next site over", () => {
  for (const [name, { kind, harm }] of Object.entries(HARMS)) {
    test(name, async () => {
      using at = disk("memory");
      using prepared = await prepare(someFiles(), SIZES);
      const { builder } = prepared;
      const mirror = mirrorOf(builder);
      const clock = new VirtualClock();
      const site = harm(builder.site as MemorySite, clock);
      const faults: ReadFault[] = [];
      const source = builder.source({
        site,
        failover: { next: async () => mirror.source, clock },
        onFault: (fault) => faults.push(fault),
      });
      const target = `${at.root}/t`;
      await clock.run(
        runVolumeRestore(optionsOf({ ...prepared, source }, { files: at.files, target })),
        120_000,
      );
      expect(shapeOf(at.files, target)).toEqual(shapeExpected(someFiles()));
      expect(new Set(faults.map((fault) => fault.kind))).toEqual(new Set([kind]));
      expect(faults.every((fault) => fault.site === builder.site.name)).toBe(true);
      const isOfObject = kind === "missing" || kind === "damaged";
      if (isOfObject) expect(faults.every(({ key, pack }) => key.includes(pack!))).toBe(true);
    });
  }

  test("a range that a worker found to be damaged", async () => {
    using at = disk("real");
    using prepared = await prepare(someFiles(), SIZES);
    const { builder } = prepared;
    const mirror = mirrorOf(builder);
    const clock = new VirtualClock();
    HARMS["packs with a wrong byte"]!.harm(builder.site as MemorySite, clock);
    const source = builder.source({ failover: { next: async () => mirror.source, clock } });
    const target = `${at.root}/t`;
    const options = { files: at.files, target, openLanes: openWorkerLanes };
    await runVolumeRestore(optionsOf({ ...prepared, source }, options));
    expect(shapeOf(at.files, target)).toEqual(shapeExpected(someFiles()));
  });

  test("chunks that the index of the first does not know", async () => {
    using at = disk("memory");
    using prepared = await prepare(someFiles(), SIZES);
    const { builder } = prepared;
    const mirror = mirrorOf(builder);
    const clock = new VirtualClock();
    const source = builder.source({
      index: { find: () => [] },
      failover: { next: async () => mirror.source, clock },
    });
    const target = `${at.root}/t`;
    await runVolumeRestore(optionsOf({ ...prepared, source }, { files: at.files, target }));
    expect(shapeOf(at.files, target)).toEqual(shapeExpected(someFiles()));
  });
});

test("a dead site costs one wait, not one a read, and is asked again after a rest", async () => {
  using prepared = await prepare(someFiles(), SIZES);
  const { builder } = prepared;
  const mirror = mirrorOf(builder);
  const clock = new VirtualClock();
  let asked = 0;
  let isDead = true;
  const site = faulty(builder.site, clock, () => {
    asked += 1;
    return isDead ? { fault: "slow", delayMs: 3_600_000 } : undefined;
  });
  const source = builder.source({
    site,
    cacheBytes: 0,
    failover: { next: async () => mirror.source, clock, slowMs: 20_000 },
  });
  const chunks = [1, 2, 3].flatMap((number) => chunksOf(noise(300_000, number)));
  const readAll = async (): Promise<void> => {
    for (const { id, length } of chunks) await source.fetch(id, length);
  };
  await clock.run(readAll());
  expect(chunks.length).toBeGreaterThan(10);
  expect(asked).toBe(1);
  expect(clock.monotonic()).toBe(20_000);
  isDead = false;
  await clock.pass(REST_MS);
  mirror.asked.length = 0;
  await clock.run(readAll());
  expect(asked).toBeGreaterThan(1);
  expect(mirror.asked).toEqual([]);
});

describe("failover", () => {
  const missing = new AppError("damaged", "first", { context: { missing: true } });
  const ask = <T>(here: () => Promise<T>, there: () => Promise<T>, silent: string[] = []) => ({
    here,
    there,
    onSilent: (kind: string) => silent.push(kind),
  });
  const fail = (reason: Error): Promise<never> => Promise.reject(reason);
  /** Time that never comes. */
  const never = {
    now: () => 0,
    monotonic: () => 0,
    sleep: async () => await new Promise<void>(() => undefined),
  };

  test("says what was wrong at the first site when no site has it", async () => {
    const second = new AppError("unavailable", "second");
    for (const next of [async () => 1, async () => undefined, async () => await fail(second)]) {
      const failover = new Failover<number>({ next, clock: never });
      const error = await failureOf(() =>
        failover.read(
          ask(
            () => fail(missing),
            () => fail(second),
          ),
        ),
      );
      expect(error).toBe(missing);
    }
  });

  test("opens the next site once for all reads, and again only after a rest", async () => {
    let opened = 0;
    let nowMs = 0;
    const time = { ...never, monotonic: () => nowMs };
    const found: number[] = [];
    const next = async (): Promise<number | undefined> => {
      opened += 1;
      return found[0];
    };
    const failover = new Failover<number>({ next, clock: time });
    const read = async (): Promise<unknown> =>
      await failover
        .read(
          ask(
            () => fail(missing),
            async () => 7,
          ),
        )
        .catch((error: unknown) => error);
    expect(await Promise.all([read(), read(), read()])).toEqual([missing, missing, missing]);
    expect(await read()).toBe(missing);
    expect(opened).toBe(1);
    nowMs = REST_MS;
    found.push(1);
    expect(await Promise.all([read(), read()])).toEqual([7, 7]);
    expect(await read()).toBe(7);
    expect(opened).toBe(2);
  });

  test("does not hide what no other site can help with", async () => {
    const failover = new Failover<number>({ next: async () => 1, clock: never });
    const context = { catalog: true };
    for (const error of [
      new AppError("damaged", "the catalog", { context }),
      new AppError("cancelled", "no"),
      new AppError("internal", "a defect"),
    ]) {
      expect(
        await failureOf(() =>
          failover.read(
            ask(
              () => fail(error),
              async () => 7,
            ),
          ),
        ),
      ).toBe(error);
    }
  });

  test("takes whoever is first once the first site is slow, and ends the other", async () => {
    for (const faster of ["here", "there"] as const) {
      const time = new VirtualClock();
      const failover = new Failover<number>({ next: async () => 1, clock: time, slowMs: 1000 });
      const ended: string[] = [];
      const silent: string[] = [];
      const answer = (name: string) => async (signal: AbortSignal | undefined) => {
        signal?.addEventListener("abort", () => ended.push(name));
        await time.sleep(name === faster ? 2000 : 9000);
        return name;
      };
      const found = await time.run(
        failover.read({
          here: answer("here"),
          there: async (_next, signal) => await answer("there")(signal),
          onSilent: (kind) => silent.push(kind),
        }),
      );
      expect(found).toBe(faster);
      expect(silent).toEqual(["slow"]);
      expect(ended).toContain(faster === "here" ? "there" : "here");
    }
  });

  test("ends at once when the caller does", async () => {
    const time = new VirtualClock();
    const failover = new Failover<number>({ next: async () => 1, clock: time });
    const stop = new AbortController();
    const reading = failover.read(
      {
        here: async (signal) => await time.sleep(50_000, signal),
        there: async () => undefined,
        onSilent: () => undefined,
      },
      stop.signal,
    );
    const failure = failureOf(() => reading);
    stop.abort(new AppError("cancelled", "enough"));
    expect((await time.run(failure)).message).toBe("enough");
  });
});

test("a chunk is believed by its id, whichever site it came from", async () => {
  using prepared = await prepare(someFiles(), SIZES);
  const { builder } = prepared;
  const mirror = mirrorOf(builder);
  const clock = new VirtualClock();
  for (const site of [builder.site as MemorySite, mirror.site]) {
    HARMS["packs with a wrong byte"]!.harm(site, clock);
  }
  const source = builder.source({ failover: { next: async () => mirror.source, clock } });
  const { id, length } = chunksOf(noise(300_000, 1))[0]!;
  const error = await failureOf(() => source.fetch(id, length));
  expect(error.kind).toBe("damaged");
  expect(error.message).toContain(toHex(id));
});
