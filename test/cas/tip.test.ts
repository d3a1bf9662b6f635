/** Finding the end of a log: requests, gaps, and what others do between two requests. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { entryHash } from "../../src/cas/log/entry.ts";
import { logCopyKey, logKey } from "../../src/cas/format/ids.ts";
import { findFirstTip, findTip, putLogCopy, readEntries } from "../../src/cas/log/tip.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import type { Site } from "../../src/sites/site.ts";
import { LogBuilder } from "./log-builder.ts";
import { interceptSite, rejectionOf } from "./repository-world.ts";

const LOG = new LogBuilder();
LOG.padTo(600);

function siteOf(length: number, without: readonly number[] = []): MemorySite {
  const site = new MemorySite();
  for (const [index, bytes] of LOG.entries.slice(0, length).entries()) {
    if (!without.includes(index + 1)) site.objects.set(logKey(index + 1), bytes);
  }
  return site;
}

async function readAll(site: Site, from: number, to: number): Promise<Uint8Array[]> {
  const entries: Uint8Array[] = [];
  for await (const batch of readEntries(site, { from, to })) {
    entries.push(...batch.map(({ bytes }) => bytes));
  }
  return entries;
}

describe("the tip", () => {
  test("is the last entry, from wherever the search starts", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 600 }),
        fc.integer({ min: 0, max: 600 }),
        fc.integer({ min: 1, max: 7 }),
        async (length, known, probeCount) => {
          const site = siteOf(length);
          const start = Math.min(known, length);
          expect((await findTip(site, start, { probeCount })).sequence).toBe(length);
          expect((await findFirstTip(site)).sequence).toBe(length);
          expect(site.requests.list).toBe(0);
        },
      ),
      { numRuns: 60 },
    );
  });

  test("costs three requests at once when there is nothing new", async () => {
    const site = siteOf(10);
    const asked: string[] = [];
    let answers = 0;
    const watched = interceptSite(site, {
      async get(key) {
        expect(answers).toBe(0);
        asked.push(key);
        const bytes = await site.get(key);
        await new Promise((resolve) => setImmediate(resolve));
        answers += 1;
        return bytes;
      },
    });
    expect((await findTip(watched, 10)).sequence).toBe(10);
    expect(asked).toEqual([11, 12, 14].map(logKey));
    expect(site.requests).toMatchObject({ head: 0, list: 0, put: 0 });
  });

  test("costs two rounds of requests when one entry is new", async () => {
    const site = siteOf(11);
    expect((await findTip(site, 10)).sequence).toBe(11);
    expect(site.requests.get).toBeLessThanOrEqual(7);
  });

  test("of an empty log is 0, found by asking for the powers of two", async () => {
    const site = siteOf(0);
    expect((await findFirstTip(site)).sequence).toBe(0);
    expect(site.requests).toMatchObject({ head: 40, get: 0, list: 0 });
  });

  test("is seen past one lost entry wherever it lies behind what is known", async () => {
    for (let lost = 11; lost < 20; lost += 1) {
      expect((await findTip(siteOf(20, [lost]), 10)).sequence).toBe(20);
    }
  });

  test("is read twice, so that bytes hurt on the way are not believed", async () => {
    const site = siteOf(12);
    let hurt = 1;
    const flaky = interceptSite(site, {
      async get(key) {
        const bytes = await site.get(key);
        if (key !== logKey(12) || bytes === undefined || hurt === 0) return bytes;
        hurt -= 1;
        bytes[20]! ^= 1;
        return bytes;
      },
    });
    const tip = await findTip(flaky, 11);
    expect(tip.found.get(12)).toEqual(LOG.entries[11]);
  });
});

describe("reading entries", () => {
  test("returns all of them in order, over more than one batch", async () => {
    expect(await readAll(siteOf(600), 1, 600)).toEqual(LOG.entries);
    expect(await readAll(siteOf(600), 257, 400)).toEqual(LOG.entries.slice(256, 400));
  });

  test("asks again for a slot that was filled between two requests", async () => {
    const site = siteOf(20, [15]);
    let asked = 0;
    const racing = interceptSite(site, {
      async get(key) {
        const bytes = await site.get(key);
        if (key === logKey(15)) {
          asked += 1;
          site.objects.set(key, LOG.entries[14]!);
        }
        return bytes;
      },
    });
    expect(await readAll(racing, 11, 20)).toEqual(LOG.entries.slice(10, 20));
    expect(asked).toBe(2);
  });

  test("stops at an entry that is lost, and says under which name it can be put back", async () => {
    const error = await rejectionOf(readAll(siteOf(20, [15]), 11, 20));
    expect(error.kind).toBe("damaged");
    expect(error.message).toContain(logKey(15));
    expect(error.guidance).toContain(logCopyKey(entryHash(LOG.entries[14]!)));
  });

  test("takes lost entries from their copies, one after the other", async () => {
    const site = siteOf(20, [14, 15]);
    for (const lost of [14, 15]) await putLogCopy(site, LOG.entries[lost - 1]!);
    expect(await readAll(site, 11, 20)).toEqual(LOG.entries.slice(10, 20));
  });

  test("takes no copy whose bytes are not what the next entry says", async () => {
    const site = siteOf(20, [15]);
    site.objects.set(logCopyKey(entryHash(LOG.entries[14]!)), LOG.entries[13]!);
    expect((await rejectionOf(readAll(site, 11, 20))).kind).toBe("damaged");
  });

  test("reads again what was hurt on the way, also at the end of a batch", async () => {
    for (const hurt of [3, 256, 257, 300]) {
      const site = siteOf(600);
      let left = 1;
      const flaky = interceptSite(site, {
        async get(key) {
          const bytes = await site.get(key);
          if (key !== logKey(hurt) || bytes === undefined || left === 0) return bytes;
          left -= 1;
          bytes[bytes.length - 3]! ^= 1;
          return bytes;
        },
      });
      expect(await readAll(flaky, 1, 600)).toEqual(LOG.entries);
      expect(left).toBe(0);
    }
  });
});
