/**
 * Settings of S3 sites against real servers: addresses with the bucket in the host, TLS with an
 * authority of its own, encryption and storage classes of the store.
 */
import { HeadObjectCommand } from "@aws-sdk/client-s3";
import { describe, expect, test } from "bun:test";
import { clientOf } from "../../scripts/real/s3.ts";
import type { RealS3 } from "../../scripts/real/s3.ts";
import { realRandom } from "../../src/base/random.ts";
import { listCertificationSteps } from "../../src/sites/certify.ts";
import type { Site } from "../../src/sites/site.ts";
import { keysOf, text, thrownBy } from "./contract.ts";
import { meddleWith } from "./meddler.ts";
import { openReal, realServers } from "./s3-real.ts";

const DOMAIN = "s3.test";

for (const real of await realServers(["versitygw", "MinIO"], { domain: DOMAIN })) {
  const make = real.make.split(" ")[0] ?? "";

  describe(`${make} with the bucket in the host`, () => {
    for (const transport of ["node", "fetch"] as const) {
      test(`holds a site over ${transport}`, async () => {
        await using line = await meddleWith(real);
        const hosts = new Set<string>();
        const paths: string[] = [];
        line.meddle = ({ headers, path }) => {
          hosts.add(headers.host ?? "");
          paths.push(path);
          return undefined;
        };
        const { port } = new URL(real.endpoint);
        const endpoint = `http://${DOMAIN}:${port}`;
        // Nobody resolves the name: the line serves as the proxy that does.
        await using site = await openReal(real, {
          endpoint,
          transport,
          proxy: line.real.endpoint,
          forcePathStyle: false,
          prefix: `virtual-${transport}`,
        });
        await certify(site);
        await site.put("log/1", text("x"));
        expect(await keysOf(site, "")).toEqual(["log/1"]);
        expect(paths.filter((path) => path.includes(real.bucket))).toEqual([]);
        expect([...hosts]).toEqual([`${real.bucket}.${DOMAIN}:${port}`]);
      });
    }
  });
}

for (const real of await realServers(["versitygw", "MinIO"], { tls: true })) {
  const make = real.make.split(" ")[0] ?? "";

  describe(`${make} over TLS`, () => {
    for (const transport of ["node", "fetch"] as const) {
      test(`is trusted by the file of its authority only, over ${transport}`, async () => {
        await using site = await openReal(real, { transport, prefix: `tls-${transport}` });
        await certify(site);
        const { caFile: _, ...stranger } = real;
        await using distrusting = await openReal(stranger, { transport });
        const error = await thrownBy(distrusting.get("a"));
        expect(error).toHaveProperty("kind", "config");
        expect(error).toHaveProperty("guidance", expect.stringContaining("caFile"));
      });
    }
  });
}

for (const real of await realServers(["MinIO"])) {
  describe("MinIO keeps objects", () => {
    test("encrypted as it is told, and gives them back", async () => {
      const ways = [
        { sse: "AES256" },
        { sse: "aws:kms" },
        { sse: "aws:kms", kmsKeyId: "astacus-test" },
      ] as const;
      for (const [index, way] of ways.entries()) {
        await using site = await openReal(real, { prefix: `sse-${index}`, ...way });
        await site.put("log/1", text("secret"));
        expect(await site.get("log/1")).toEqual(text("secret"));
        expect(await headOf(real, `sse-${index}/log/1`)).toMatchObject({
          ServerSideEncryption: way.sse,
        });
      }
    });

    test("in a class for data and another for all else", async () => {
      const storageClass = { data: "REDUCED_REDUNDANCY" };
      await using site = await openReal(real, { prefix: "class", storageClass });
      await site.put("pack/ab/1", text("data"));
      await site.put("index/1", text("metadata"));
      expect((await headOf(real, "class/pack/ab/1")).StorageClass).toBe("REDUCED_REDUNDANCY");
      expect((await headOf(real, "class/index/1")).StorageClass).toBeUndefined();
    });
  });
}

async function headOf(real: RealS3, Key: string) {
  const client = clientOf(real);
  const head = await client.send(new HeadObjectCommand({ Bucket: real.bucket, Key }));
  client.destroy();
  return head;
}

async function certify(site: Site): Promise<void> {
  for (const step of listCertificationSteps(site, realRandom)) await step.run();
}
