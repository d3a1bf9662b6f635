/**
 * Object lock and versions on real S3 servers: the contract of locks, removal of versions, and delete
 * markers that somebody lays over what a repository needs.
 */
import {
  DeleteObjectCommand,
  ListObjectVersionsCommand,
  PutBucketLifecycleConfigurationCommand,
} from "@aws-sdk/client-s3";
import { describe, expect, test } from "bun:test";
import { clientOf } from "../../scripts/real/s3.ts";
import type { RealS3 } from "../../scripts/real/s3.ts";
import { realRandom } from "../../src/base/random.ts";
import { listCertificationSteps } from "../../src/sites/certify.ts";
import { countRequests } from "../../src/sites/counting-site.ts";
import type { S3SiteOptions } from "../../src/sites/s3-options.ts";
import type { Site } from "../../src/sites/site.ts";
import { keysOf, text, thrownBy } from "./contract.ts";
import { LOCK_PERIOD_MS, lockContract } from "./lock-contract.ts";
import { openReal, realServers } from "./s3-real.ts";

for (const real of await realServers()) againstServer(real);

function againstServer(real: RealS3): void {
  const make = real.make.split(" ")[0] ?? "";
  const bucket = real.lockedBucket;

  async function openLocked(options: Partial<S3SiteOptions>): Promise<Site> {
    const lock = { mode: "governance", periodMs: LOCK_PERIOD_MS } as const;
    return await openReal(real, { bucket, lock, ...options });
  }

  for (const mode of ["governance", "compliance"] as const) {
    lockContract(`${make} in ${mode} mode`, async () => {
      return await openLocked({ prefix: mode, lock: { mode, periodMs: LOCK_PERIOD_MS } });
    });
  }

  /** Ids of versions, markers included, of a key. */
  async function countVersions(key: string): Promise<{ versions: number; markers: number }> {
    const client = clientOf(real);
    const command = new ListObjectVersionsCommand({ Bucket: bucket, Prefix: key });
    const { Versions = [], DeleteMarkers = [] } = await client.send(command);
    client.destroy();
    return { versions: Versions.length, markers: DeleteMarkers.length };
  }

  async function layMarker(key: string): Promise<void> {
    const client = clientOf(real);
    await client.send(new DeleteObjectCommand({ Bucket: bucket, Key: key }));
    client.destroy();
  }

  describe(`a bucket of ${make} with versions`, () => {
    test("what is removed leaves neither version nor marker behind", async () => {
      await using plain = await openReal(real, { bucket, prefix: "plain" });
      await plain.put("a", text("a"));
      await plain.put("b", text("b"));
      await plain.delete(["a", "b", "absent"]);
      expect(await countVersions("plain/")).toEqual({ versions: 0, markers: 0 });
      expect(await plain.put("a", text("again"))).toBe("created");
      expect(await plain.get("a")).toEqual(text("again"));
    });

    test("who opens it anew and only removes finds the versions too", async () => {
      await using writer = await openReal(real, { bucket, prefix: "anew" });
      await writer.put("a", text("a"));
      await using remover = await openReal(real, { bucket, prefix: "anew" });
      await remover.delete(["a"]);
      expect(await countVersions("anew/")).toEqual({ versions: 0, markers: 0 });
    });

    test("removal takes what lies under a marker with it", async () => {
      await using plain = await openReal(real, { bucket, prefix: "under" });
      await plain.put("a", text("a"));
      await layMarker("under/a");
      await plain.delete(["a"]);
      expect(await countVersions("under/")).toEqual({ versions: 0, markers: 0 });
    });

    test("an object under a marker is read, whole, in part and by its head, and comes back", async () => {
      await using site = countRequests(await openLocked({ prefix: "hidden" }));
      const reads: [string, (key: string) => Promise<unknown>, unknown][] = [
        ["log/1", async (key) => await site.get(key), text("hello")],
        ["log/2", async (key) => await site.get(key, { offset: 1, length: 2 }), text("el")],
        ["log/3", async (key) => (await site.head(key))?.sizeBytes, 5],
      ];
      for (const [key, read, expected] of reads) {
        await site.put(key, text("hello"));
        await layMarker(`hidden/${key}`);
        expect(await keysOf(site, key)).toEqual([]);
        expect(await read(key)).toEqual(expected);
        expect(await keysOf(site, key)).toEqual([key]);
        expect(await countVersions(`hidden/${key}`)).toEqual({ versions: 1, markers: 0 });
      }
      expect([...site.healed!]).toEqual(["log/1", "log/2", "log/3"]);
    });

    test("an entry of the log under a marker is not written a second time", async () => {
      await using site = await openLocked({ prefix: "fork" });
      await site.put("log/000000000002", text("first"));
      await layMarker("fork/log/000000000002");
      expect(await site.put("log/000000000002", text("second"))).toBe("exists");
      expect(await site.get("log/000000000002")).toEqual(text("first"));
    });

    test("passes certification with a lock, and a bucket without object lock does not", async () => {
      await using site = await openLocked({ prefix: "certify" });
      for (const step of listCertificationSteps(site, realRandom)) await step.run();
      await using unable = await openLocked({ prefix: "certify", bucket: real.bucket });
      const error = await thrownBy(certify(unable));
      expect(error).toHaveProperty("kind", "refused");
    });

    test("is refused while a rule would remove what it holds", async () => {
      const client = clientOf(real);
      const rule = (ID: string, prefix: string, Days: number) => ({
        ID,
        Status: "Enabled" as const,
        Filter: { Prefix: prefix },
        Expiration: { Days },
      });
      await using site = await openLocked({ prefix: "ruled" });
      const Rules = [rule("others", "elsewhere/", 1), rule("old", "ruled/pack/", 30)];
      try {
        await client.send(
          new PutBucketLifecycleConfigurationCommand({
            Bucket: bucket,
            LifecycleConfiguration: { Rules },
          }),
        );
      } catch (thrown) {
        // versitygw knows no such rules: then nothing is to be found.
        expect(make).toBe("versitygw");
        expect(thrown).toHaveProperty("name", "NotImplemented");
        await certify(site);
        return;
      } finally {
        client.destroy();
      }
      const error = await thrownBy(certify(site));
      expect(error).toHaveProperty("kind", "refused");
      expect(error).toHaveProperty("message", expect.stringContaining("rule old"));
      expect(error).toHaveProperty("message", expect.not.stringContaining("others"));
    });
  });
}

async function certify(site: Site): Promise<void> {
  for (const step of listCertificationSteps(site, realRandom)) await step.run();
}
