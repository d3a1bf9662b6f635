/** Reading chunks back: always verified, with few requests, and around damage where that is possible. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { AppError } from "../../src/base/error.ts";
import { sha256, toHex } from "../../src/base/hex.ts";
import type { ChunkPlace } from "../../src/cas/catalog/catalog-index.ts";
import { ChunkSource, type ChunkSourceOptions } from "../../src/cas/read/chunk-source.ts";
import type { ChunkRef } from "../../src/cas/format/listing.ts";
import { PackBuilder } from "../../src/cas/format/pack-builder.ts";
import { packKey, type SealedPack } from "../../src/cas/format/pack.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import { expectDamagedAsync, messageOf } from "./expect-damaged.ts";
import { noise } from "./noise.ts";

const BIRTH = 4;

function refOf(bytes: Uint8Array): ChunkRef {
  return { id: sha256(bytes), length: bytes.length };
}

/** A chunk of text, different for each number. */
function chunkOf(number: number, sizeBytes = 3000): Uint8Array {
  return new Uint8Array(Buffer.alloc(sizeBytes, `chunk number ${number} says it again `));
}

/** A site with packs, and what an index would say of them. */
class Store {
  readonly site = new MemorySite();
  readonly places = new Map<string, ChunkPlace[]>();
  readonly retired = new Set<string>();
  readonly deleted = new Set<string>();
  readonly ranges: { key: string; offset: number; length: number }[] = [];
  receivedBytes = 0;

  /** Packs the chunks into one pack; its id as hex. */
  async pack(chunks: readonly Uint8Array[], frameSizeBytes = 10_000): Promise<SealedPack> {
    const builder = new PackBuilder({
      kind: "data",
      packSizeBytes: 40 << 20,
      frameSizeBytes,
      compression: { level: 1 },
      salt: () => new Uint8Array(16).fill(this.site.objects.size),
    });
    for (const bytes of chunks) builder.add(sha256(bytes), bytes);
    const sealed = builder.finish();
    if (sealed === undefined) throw new Error("no pack");
    await this.site.put(packKey(sealed.id, BIRTH), sealed.bytes);
    for (const [number, frame] of sealed.directory.frames.entries()) {
      const { offset: frameOffset, storedLength, rawLength, codec } = frame;
      for (const { id, offset, length } of frame.chunks) {
        const place = { pack: sealed.id, birth: BIRTH, frame: number, offset, length };
        const known = this.places.get(toHex(id)) ?? [];
        const full = { ...place, frameOffset, storedLength, rawLength, codec };
        this.places.set(toHex(id), [...known, full]);
      }
    }
    return sealed;
  }

  /** Spoils a byte of each frame. */
  spoil(pack: SealedPack): void {
    const bytes = this.site.objects.get(packKey(pack.id, BIRTH)) as Uint8Array;
    for (const { offset, storedLength } of pack.directory.frames) {
      const at = offset + (storedLength >> 1);
      bytes[at] = (bytes[at] ?? 0) ^ 1;
    }
  }

  lose(pack: SealedPack): void {
    this.site.objects.delete(packKey(pack.id, BIRTH));
  }

  source(options: Partial<ChunkSourceOptions> = {}): ChunkSource {
    return new ChunkSource({
      site: {
        get: async (key, range) => {
          this.ranges.push({ key, offset: range?.offset ?? -1, length: range?.length ?? -1 });
          return await this.site.get(key, range);
        },
      },
      index: { find: (id) => this.places.get(toHex(id)) ?? [] },
      state: () => ({
        retired: new Map([...this.retired].map((pack) => [pack, { sequence: 8, time: "" }])),
        deleted: new Map([...this.deleted].map((pack) => [pack, { sequence: 9, floor: BIRTH }])),
      }),
      concurrency: 3,
      cacheBytes: 1 << 20,
      onBytes: (sizeBytes) => {
        this.receivedBytes += sizeBytes;
      },
      ...options,
    });
  }
}

async function fetchMany(source: ChunkSource, refs: readonly ChunkRef[]): Promise<Uint8Array[]> {
  const found: Uint8Array[] = [];
  await source.fetchMany(refs, (index, bytes) => {
    expect(found[index]).toBeUndefined();
    found[index] = bytes.slice();
  });
  return found;
}

describe("fetch", () => {
  test("gives the bytes of any chunk, in a buffer of its own", async () => {
    const store = new Store();
    const chunks = [chunkOf(1), noise(30_000, 2), chunkOf(3), noise(20, 4)];
    await store.pack(chunks);
    const source = store.source();
    for (const bytes of chunks) {
      const { id, length } = refOf(bytes);
      const found = await source.fetch(id, length);
      expect(found).toEqual(bytes);
      found.fill(0);
      expect(await source.fetch(id, length)).toEqual(bytes);
    }
  });

  test("asks for a frame once, however many chunks are taken from it", async () => {
    const store = new Store();
    const chunks = [1, 2, 3].map((number) => chunkOf(number, 1000));
    const pack = await store.pack(chunks);
    const source = store.source();
    await Promise.all(chunks.map((bytes) => source.fetch(refOf(bytes).id, bytes.length)));
    await source.fetch(refOf(chunkOf(1, 1000)).id, 1000);
    expect(store.ranges.length).toBe(1);
    expect(store.receivedBytes).toBe(pack.directory.frames[0]?.storedLength as number);
  });

  test("keeps no more than the cache may hold", async () => {
    const store = new Store();
    const chunks = [1, 2, 3].map((number) => chunkOf(number, 10_000));
    await store.pack(chunks);
    const source = store.source({ cacheBytes: 20_000 });
    const fetch = async (bytes: Uint8Array): Promise<unknown> =>
      await source.fetch(refOf(bytes).id, bytes.length);
    for (const bytes of chunks) await fetch(bytes);
    expect(store.ranges.length).toBe(3);
    await fetch(chunkOf(3, 10_000));
    await fetch(chunkOf(2, 10_000));
    expect(store.ranges.length).toBe(3);
    await fetch(chunkOf(1, 10_000));
    expect(store.ranges.length).toBe(4);
  });

  test("goes around a damaged and a missing pack when another one holds the chunk", async () => {
    for (const harm of ["spoil", "lose"] as const) {
      for (const bytes of [chunkOf(1), noise(20_000, 1)]) {
        const store = new Store();
        store[harm](await store.pack([bytes]));
        await store.pack([bytes, chunkOf(2)]);
        expect(await store.source().fetch(sha256(bytes), bytes.length)).toEqual(bytes);
        expect(await fetchMany(store.source(), [refOf(bytes)])).toEqual([bytes]);
      }
    }
  });

  test("names pack, frame and chunk when no pack has it whole", async () => {
    for (const harm of ["spoil", "lose"] as const) {
      const store = new Store();
      const bytes = chunkOf(1);
      const pack = await store.pack([bytes]);
      store[harm](pack);
      const source = store.source();
      const error = await expectDamagedAsync(() => source.fetch(sha256(bytes), bytes.length));
      expect(error.context).toMatchObject({
        pack: packKey(pack.id, BIRTH),
        frame: 0,
        chunk: toHex(sha256(bytes)),
      });
      expect(error.context["missing"] === true).toBe(harm === "lose");
      await expectDamagedAsync(() => fetchMany(source, [refOf(bytes)]));
    }
  });

  test("a chunk that is in no pack, or has another length, is damage", async () => {
    const store = new Store();
    await store.pack([chunkOf(1)]);
    const source = store.source();
    await expectDamagedAsync(() => source.fetch(sha256(chunkOf(2)), 3000));
    await expectDamagedAsync(() => source.fetch(sha256(chunkOf(1)), 2999));
    expect(store.ranges).toEqual([]);
  });

  test("prefers live packs to retired ones, and those to deleted ones", async () => {
    const store = new Store();
    const bytes = chunkOf(1);
    const packs = [await store.pack([bytes]), await store.pack([bytes]), await store.pack([bytes])];
    const [deleted, retired, live] = packs.map(({ id }) => id) as [string, string, string];
    store.deleted.add(deleted);
    store.retired.add(retired);
    await store.source().fetch(sha256(bytes), bytes.length);
    expect(store.ranges.map(({ key }) => key)).toEqual([packKey(live, BIRTH)]);
    store.lose(packs[2] as SealedPack);
    await store.source().fetch(sha256(bytes), bytes.length);
    expect(store.ranges.map(({ key }) => key).slice(1)).toEqual([
      packKey(live, BIRTH),
      packKey(retired, BIRTH),
    ]);
  });

  test("passes on that the site does not answer", async () => {
    const store = new Store();
    await store.pack([chunkOf(1)]);
    const get = async (): Promise<never> => {
      throw new AppError("unavailable", "The site is away.");
    };
    const source = store.source({ site: { get } });
    expect(await messageOf(source.fetch(sha256(chunkOf(1)), 3000))).toContain("away");
    expect(await messageOf(fetchMany(source, [refOf(chunkOf(1))]))).toContain("away");
  });

  test("does not fail because another reader of the frame was cancelled", async () => {
    const store = new Store();
    await store.pack([chunkOf(1, 100), chunkOf(2, 100)]);
    const controller = new AbortController();
    const { promise: started, resolve: start } = Promise.withResolvers<void>();
    let requestCount = 0;
    const get: ChunkSourceOptions["site"]["get"] = async (key, options) => {
      requestCount += 1;
      if (requestCount > 1) return await store.site.get(key, options);
      start();
      return await new Promise((_, reject) => {
        options?.signal?.addEventListener("abort", () => reject(options.signal?.reason as Error));
      });
    };
    const source = store.source({ site: { get } });
    const first = source.fetch(sha256(chunkOf(1, 100)), 100, controller.signal);
    await started;
    const second = source.fetch(sha256(chunkOf(2, 100)), 100);
    controller.abort();
    expect(await messageOf(first)).toContain("abort");
    expect(await second).toEqual(chunkOf(2, 100));
  });
});

describe("fetchMany", () => {
  test("gives every ref its bytes, once, whatever is asked in whatever order", async () => {
    const store = new Store();
    const chunks = [
      ...Array.from({ length: 30 }, (_, index) => chunkOf(index, 100 + 331 * index)),
      ...Array.from({ length: 10 }, (_, index) => noise(16_000 + 997 * index, index)),
    ];
    await store.pack(chunks.slice(0, 20));
    await store.pack(chunks.slice(15));
    const source = store.source({ cacheBytes: 40_000 });
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat({ max: chunks.length - 1 })), async (picks) => {
        const wanted = picks.map((pick) => chunks[pick] as Uint8Array);
        const found = await fetchMany(source, wanted.map(refOf));
        expect(found.length).toBe(wanted.length);
        for (const [index, bytes] of wanted.entries()) {
          expect(Buffer.compare(found[index] as Uint8Array, bytes)).toBe(0);
        }
      }),
    );
  });

  test("reads neighbours with one request, and not what lies far between", async () => {
    const store = new Store();
    const chunks = Array.from({ length: 40 }, (_, index) => noise(100_000, index + 1));
    await store.pack(chunks);
    const refs = [0, 1, 2, 4, 30, 31].map((index) => refOf(chunks[index] as Uint8Array));
    await fetchMany(store.source(), refs.toReversed());
    const ranges = store.ranges.map(({ offset, length }) => [offset, length]);
    expect(ranges.toSorted(([one], [other]) => (one ?? 0) - (other ?? 0))).toEqual([
      [0, 500_000],
      [3_000_000, 200_000],
    ]);
  });

  test("no request asks for more than 2 MiB, and no more run than allowed", async () => {
    const store = new Store();
    const chunks = Array.from({ length: 25 }, (_, index) => noise(1_000_000, index + 1));
    await store.pack(chunks);
    let running = 0;
    let most = 0;
    const get: ChunkSourceOptions["site"]["get"] = async (key, options) => {
      running += 1;
      most = Math.max(most, running);
      expect(options?.length).toBeLessThanOrEqual(8 << 20);
      const bytes = await store.site.get(key, options);
      running -= 1;
      return bytes;
    };
    await fetchMany(store.source({ site: { get }, concurrency: 2 }), chunks.map(refOf));
    expect(most).toBe(2);
  });

  test("waits for its taker, and stops when it throws", async () => {
    const store = new Store();
    await store.pack([chunkOf(1), chunkOf(2)]);
    const source = store.source({ concurrency: 1 });
    const refs = [refOf(chunkOf(1)), refOf(chunkOf(2))];
    const events: string[] = [];
    await source.fetchMany(refs, async (index) => {
      events.push(`start ${index}`);
      await Promise.resolve();
      events.push(`end ${index}`);
    });
    expect(events).toEqual(["start 0", "end 0", "start 1", "end 1"]);
    const failing = source.fetchMany(refs, () => {
      throw new Error("disk full");
    });
    expect(await messageOf(failing)).toContain("disk full");
  });

  test("a frame that was only partly wanted is there for the next call", async () => {
    const store = new Store();
    await store.pack([chunkOf(1, 1000), chunkOf(2, 1000)]);
    const source = store.source();
    await fetchMany(source, [refOf(chunkOf(1, 1000))]);
    await fetchMany(source, [refOf(chunkOf(2, 1000))]);
    expect(store.ranges.length).toBe(1);
  });

  test("nothing wanted is no request", async () => {
    const store = new Store();
    expect(await fetchMany(store.source(), [])).toEqual([]);
    expect(store.ranges).toEqual([]);
  });
});
