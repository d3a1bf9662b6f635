/**
 * The two ways in which an S3 store copies by itself, against real servers: which is taken, what a
 * failed copy leaves, and from where nothing is copied. That a store keeps the condition of CopyObject,
 * as AWS does and none of these, is played by the line to it.
 */
import { ListMultipartUploadsCommand } from "@aws-sdk/client-s3";
import { describe, expect, test } from "bun:test";
import { clientOf } from "../../scripts/real/s3.ts";
import type { RealS3 } from "../../scripts/real/s3.ts";
import { sha256Hex } from "../../src/base/hex.ts";
import { realRandom } from "../../src/base/random.ts";
import { findCopyWay } from "../../src/sites/probe.ts";
import { canCopyWithin } from "../../src/sites/site.ts";
import { keysOf, text, thrownBy } from "./contract.ts";
import type { Passing } from "./meddler.ts";
import { meddleWith } from "./meddler.ts";
import { openReal, realServers } from "./s3-real.ts";

for (const real of await realServers()) againstRealServer(real);

function againstRealServer(real: RealS3): void {
  describe(`copies by ${real.make.split(" ")[0]}`, () => {
    test("are parts of uploads, since it ignores the condition of CopyObject", async () => {
      await using site = await openReal(real, { prefix: "ways" });
      expect(await findCopyWay(site, realRandom)).toEqual({ name: "UploadPartCopy", requests: 3 });
      expect(await keysOf(site, "probe/")).toEqual([]);
    });

    test("are one request each where the condition is kept, with the checksum of what was read", async () => {
      await using line = await meddleWith(real);
      const taken = new Set<string>();
      const copies: Passing[] = [];
      line.meddle = (passing) => {
        const { method, path, headers } = passing;
        if (method !== "PUT") return undefined;
        if (headers["x-amz-copy-source"] !== undefined) copies.push(passing);
        const isRefused = taken.has(path) && headers["if-none-match"] === "*";
        taken.add(path);
        return isRefused ? { act: "answer", status: 412, code: "PreconditionFailed" } : undefined;
      };
      await using from = await openReal(line.real, { prefix: "one/from" });
      await using to = await openReal(line.real, { prefix: "one/to", bucket: real.lockedBucket });
      expect(await findCopyWay(to, realRandom)).toEqual({ name: "CopyObject", requests: 1 });
      await from.put("a", text("one"));
      await from.put("b", text("two"));
      copies.length = 0;
      const { place } = from.copying!;
      expect(await to.copying!.copyFrom(place, "a", "c")).toBe("created");
      expect(await to.copying!.copyFrom(place, "b", "c")).toBe("exists");
      expect(await to.copying!.copyFrom(place, "never", "d")).toBe("absent");
      expect(copies).toHaveLength(3);
      expect(await to.get("c")).toEqual(text("one"));
      const sha256 = sha256Hex(text("one"));
      expect(await to.head("c")).toEqual({ sizeBytes: 3, sha256, isCopy: true });
    });

    test("leave no upload behind that was refused, absent or broken off", async () => {
      await using line = await meddleWith(real);
      await using site = await openReal(line.real, { prefix: "left" });
      await site.put("a", text("one"));
      await site.put("b", text("two"));
      const { place } = site.copying!;
      const call = { way: "UploadPartCopy" };
      expect(await site.copying!.copyFrom(place, "a", "b", call)).toBe("exists");
      expect(await site.copying!.copyFrom(place, "never", "c", call)).toBe("absent");
      line.meddle = ({ headers }) =>
        headers["x-amz-copy-source"] === undefined
          ? undefined
          : { act: "answer", status: 503, code: "SlowDown" };
      const error = await thrownBy(site.copying!.copyFrom(place, "a", "d", call));
      expect(error).toMatchObject({ kind: "unavailable", retryable: true });
      const client = clientOf(real);
      const { Uploads = [] } = await client.send(
        new ListMultipartUploadsCommand({ Bucket: real.bucket, Prefix: "left/" }),
      );
      client.destroy();
      expect(Uploads).toEqual([]);
      expect(await site.get("b")).toEqual(text("two"));
    });

    test("are asked to be kept as what is sent: in its class, and encrypted by the store", async () => {
      await using line = await meddleWith(real);
      const asked: (string | undefined)[][] = [];
      line.meddle = ({ method, url, headers }) => {
        const isCreation = method === "PUT" ? !url.includes("partNumber") : url.includes("uploads");
        const kept = ["x-amz-storage-class", "x-amz-server-side-encryption"];
        if (isCreation) asked.push(kept.map((name) => headers[name] as string | undefined));
        return undefined;
      };
      // Only one of them has a key for it.
      const sse = real.make.startsWith("MinIO") ? ({ sse: "AES256" } as const) : {};
      const storageClass = { data: "STANDARD" };
      await using site = await openReal(line.real, { prefix: "kept", storageClass, ...sse });
      await site.put("pack/a", text("one"));
      const { place, ways } = site.copying!;
      for (const { name } of ways) {
        const how = await site.copying!.copyFrom(place, "pack/a", `pack/${name}`, { way: name });
        expect(how).toBe("created");
      }
      expect(asked).toEqual(Array.from({ length: 3 }, () => ["STANDARD", sse.sse]));
      expect(await site.get("pack/UploadPartCopy")).toEqual(text("one"));
    });

    test("are not tried between other endpoints or credentials, and refusals are told as such", async () => {
      await using site = await openReal(real, { prefix: "apart" });
      await using stranger = await openReal(real, { accessKeyId: "nobody" });
      await using elsewhere = await openReal(real, { endpoint: "http://127.0.0.1:1" });
      await using weak = await openReal(real, { unsafeCreate: "single-writer" });
      for (const other of [stranger, elsewhere, weak]) {
        expect([canCopyWithin(other, site), canCopyWithin(site, other)]).toEqual([false, false]);
      }
      await using sibling = await openReal(real, { bucket: real.lockedBucket });
      expect([canCopyWithin(sibling, site), canCopyWithin(site, sibling)]).toEqual([true, true]);
      await using missing = await openReal(real, { bucket: "no-such-bucket" });
      await site.put("a", text("one"));
      const { place } = site.copying!;
      expect(await missing.copying!.copyFrom(place, "a", "b")).toBe("impossible");
      // A log's entries must never be made by who cannot see what lies under a marker.
      expect(await sibling.copying!.copyFrom(place, "log/1", "log/1")).toBe("impossible");
    });
  });
}
