/**
 * Bad days with real S3 servers: what goes wrong on the line (meddler.ts), and a backup that is made and
 * read back all the same, byte for byte. And a store that is none: it overwrites what it should not.
 */
import { describe, expect, setSystemTime, test } from "bun:test";
import type { RealS3 } from "../../scripts/real/s3.ts";
import { realClock } from "../../src/base/clock.ts";
import { realRandom } from "../../src/base/random.ts";
import { Repository } from "../../src/cas/log/repository.ts";
import { listCertificationSteps } from "../../src/sites/certify.ts";
import { guardedSite } from "../../src/sites/guarded-site.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import { raceCreateIfAbsent } from "../../src/sites/probe.ts";
import { retryingSite } from "../../src/sites/retrying-site.ts";
import type { Site } from "../../src/sites/site.ts";
import { Rig } from "../cas/backup-rig.ts";
import { text, thrownBy } from "./contract.ts";
import type { Meddler, Meddling, Passing } from "./meddler.ts";
import { meddleWith } from "./meddler.ts";
import { openReal, realServers } from "./s3-real.ts";
import { seededRandom } from "./still-clock.ts";

const DOORS = { clock: realClock, random: realRandom };
const TIMEOUT_MS = 60_000;

for (const real of await realServers()) againstServer(real);

function againstServer(real: RealS3): void {
  const make = real.make.split(" ")[0] ?? "";

  describe(`a backup to ${make} is made and read back`, () => {
    const isPut = ({ method, path }: Passing): boolean =>
      method === "PUT" && !/\/probe\//.test(path);
    const isRead = ({ method, url }: Passing): boolean => method === "GET" && /x-id=/.test(url);
    const each = (count: number, which: (passing: Passing) => boolean, meddling: Meddling) => {
      let seen = 0;
      return (passing: Passing): Meddling | undefined => {
        if (!which(passing)) return undefined;
        seen += 1;
        return seen % count === 0 ? meddling : undefined;
      };
    };
    const days: Record<string, Meddler["meddle"]> = {
      "through connections cut in the middle of an upload": each(3, isPut, {
        act: "cut-upload",
        afterBytes: 50,
      }),
      "through connections cut after the last byte, before the answer": each(3, isPut, {
        act: "cut-answer",
      }),
      "through answers that end halfway": each(4, isRead, { act: "cut-body" }),
      "through a storm of 503": ({ index }) =>
        isDrawn(index, 0.4) ? { act: "answer", status: 503, code: "SlowDown" } : undefined,
      "through a server that throttles": ({ index }) =>
        isDrawn(index, 0.3) ? { act: "answer", status: 429, code: "TooManyRequests" } : undefined,
      "through conflicts of conditional writes": each(2, isPut, {
        act: "answer",
        status: 409,
        code: "ConditionalRequestConflict",
      }),
      "on a slow line": each(4, () => true, { act: "delay", ms: 30 }),
    };
    for (const [day, meddle] of Object.entries(days)) {
      test(
        day,
        async () => {
          await using meddler = await meddleWith(real);
          await using site = await openThrough(meddler, day.replaceAll(/[^a-z0-9]+/g, "-"));
          meddler.meddle = meddle;
          await backUpAndReadBack(site);
          expect([...meddler.done.values()].reduce((sum, count) => sum + count, 0)).toBeGreaterThan(
            2,
          );
        },
        TIMEOUT_MS,
      );
    }

    test(
      "and altered bytes of the right length are never believed",
      async () => {
        await using meddler = await meddleWith(real);
        await using site = await openThrough(meddler, "altered");
        await using rig = await newRig(site);
        const { stored } = await rig.backup();
        let altered = 0;
        meddler.meddle = ({ method, path }) => {
          if (method !== "GET" || !path.includes("/pack/") || altered > 0) return undefined;
          altered += 1;
          return { act: "alter" };
        };
        // With a single site there is no other to take it from: it is said, and the next read is good.
        const error = await thrownBy(rig.read(stored.volumes[0]!.listing, site));
        expect(error).toHaveProperty("kind", "damaged");
        expect(altered).toBe(1);
        const found = await rig.read(stored.volumes[0]!.listing, site);
        for (const [path, bytes] of rig.contents()) expect(found.get(path)?.bytes).toEqual(bytes);
      },
      TIMEOUT_MS,
    );

    test(
      "after the bucket was full for a while",
      async () => {
        await using meddler = await meddleWith(real);
        await using site = await openThrough(meddler, "full");
        await using rig = await newRig(site);
        const first = await rig.backup();
        rig.write("new", crypto.getRandomValues(new Uint8Array(300_000)));
        meddler.meddle = (passing) =>
          isPut(passing) ? { act: "answer", status: 507, code: "XMinioStorageFull" } : undefined;
        const before = meddler.requestCount;
        expect(await thrownBy(rig.backup())).toMatchObject({ kind: "no-space", retryable: false });
        // It is no use to ask again.
        expect(meddler.requestCount - before).toBeLessThan(20);
        meddler.meddle = () => undefined;
        const found = await rig.read(first.stored.volumes[0]!.listing, site);
        expect(found.get("large")?.bytes).toEqual(rig.contents().get("large"));
        const { stored } = await rig.backup();
        const again = await rig.read(stored.volumes[0]!.listing, site);
        expect(again.get("new")?.bytes).toEqual(rig.contents().get("new"));
      },
      TIMEOUT_MS,
    );

    test(
      "by a machine whose clock is an hour off",
      async () => {
        await using site = retrying(await openReal(real, { prefix: "clock" }));
        setSystemTime(new Date(Date.now() + 3_600_000));
        try {
          await backUpAndReadBack(site);
          const clock = (await site.inspect!()).find(({ what }) => /clock/.test(what));
          expect(clock?.level).toBe("warning");
          expect(clock?.what).toMatch(/36\d\d s ahead|3599 s ahead|359\d s ahead/);
        } finally {
          setSystemTime();
        }
      },
      TIMEOUT_MS,
    );
  });

  describe(`a store like ${make} that overwrites`, () => {
    const ignore = ({ method, headers }: Passing): Meddling | undefined =>
      method === "PUT" && headers["if-none-match"] === "*" ? { act: "overwrite" } : undefined;

    test("does not pass certification, and is not written to", async () => {
      await using meddler = await meddleWith(real);
      meddler.meddle = ignore;
      await using site = await openReal(meddler.real, { prefix: "ignoring" });
      const [first, race] = listCertificationSteps(site, realRandom);
      for (const step of [first!, race!]) {
        const error = await thrownBy(step.run());
        expect(error).toHaveProperty("kind", "refused");
        expect(error).toHaveProperty("guidance", expect.stringContaining("unsafeCreate"));
      }
      await using guarded = guardedSite(site, realRandom);
      expect(await thrownBy(guarded.put("log/1", text("x")))).toHaveProperty("kind", "refused");
      expect(await site.get("log/1")).toBeUndefined();
    });

    test("takes a backup of a single writer who asked for that by name", async () => {
      await using meddler = await meddleWith(real);
      meddler.meddle = ignore;
      const options = { prefix: "single", unsafeCreate: "single-writer" } as const;
      await using site = retrying(guardedSite(await openReal(meddler.real, options), realRandom));
      for (const step of listCertificationSteps(site, realRandom)) await step.run();
      expect(site.weakness).toContain("unsafeCreate");
      await backUpAndReadBack(site);
      expect(meddler.done.size).toBe(0);
      // Two at once are not told apart: that is the weakness.
      expect(await thrownBy(raceCreateIfAbsent(site, realRandom))).toHaveProperty(
        "kind",
        "refused",
      );
    });
  });
}

async function openThrough(meddler: Meddler, prefix: string): Promise<Site> {
  return retrying(await openReal(meddler.real, { prefix }));
}

/** As operations do, but in less time. */
function retrying(site: Site): Site {
  return retryingSite(site, { ...DOORS, attempts: 20, baseMs: 2, maxMs: 20 });
}

async function newRig(site: Site): Promise<Rig> {
  await Repository.init(site, {
    doors: DOORS,
    chunker: { rule: "astacus-cdc-1", averageSizeBytes: 65_536 },
  });
  const rig = new Rig({ site: new MemorySite(), door: site });
  for (let index = 0; index < 20; index += 1) rig.write(`small/${index}`, `${index}\n`.repeat(50));
  rig.write("large", crypto.getRandomValues(new Uint8Array(65_536)));
  rig.write(
    "larger",
    new Uint8Array(900_000).map((_, index) => (index * index) >>> 7),
  );
  return rig;
}

async function backUpAndReadBack(site: Site): Promise<void> {
  await using rig = await newRig(site);
  const first = await rig.backup();
  rig.append("small/3", "more\n");
  const second = await rig.backup();
  expect(second.sequence).toBeGreaterThan(first.sequence);
  const found = await rig.read(second.stored.volumes[0]!.listing, site);
  const contents = rig.contents();
  expect(contents.size).toBe(22);
  for (const [path, bytes] of contents)
    expect([path, found.get(path)?.bytes]).toEqual([path, bytes]);
}

/** True for that share of the numbers, in no order; always the same ones. */
function isDrawn(index: number, share: number): boolean {
  return seededRandom(index).fraction() < share;
}
