/**
 * The S3 site against real servers of two makes (s3-real.ts), and against a stub for the answers that
 * a healthy server does not give.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { RealS3 } from "../../scripts/real/s3.ts";
import { AppError } from "../../src/base/error.ts";
import { sha256Hex } from "../../src/base/hex.ts";
import { realRandom } from "../../src/base/random.ts";
import { isDirect } from "../../src/sites/fetch-handler.ts";
import { raceCreateIfAbsent } from "../../src/sites/probe.ts";
import type { S3SiteOptions } from "../../src/sites/s3-options.ts";
import { openS3Site } from "../../src/sites/s3-site.ts";
import type { Site } from "../../src/sites/site.ts";
import { keysOf, siteContract, text, thrownBy } from "./contract.ts";
import { openReal, realServers } from "./s3-real.ts";

const DIRECTORY = await mkdtemp(join(tmpdir(), "astacus-s3-"));
afterAll(async () => await rm(DIRECTORY, { recursive: true }));

for (const real of await realServers()) againstRealServer(real);

function againstRealServer(real: RealS3): void {
  const make = real.make.split(" ")[0] ?? "";
  // The other transport is ours alone: one server tells enough of it.
  for (const transport of make === "MinIO" ? (["node"] as const) : (["node", "fetch"] as const)) {
    siteContract(
      `an S3 site on ${make} over ${transport}`,
      async () => {
        const options = { prefix: `contract/${transport}`, transport };
        const open = async (): Promise<Site> => await openReal(real, options);
        const site = await open();
        return {
          site,
          reopen: open,
          [Symbol.asyncDispose]: async () => await site[Symbol.asyncDispose](),
        };
      },
      { copies: true },
    );
  }

  describe(`an S3 site on ${make}`, () => {
    test("says permission for wrong credentials", async () => {
      const wrong = [{ secretAccessKey: "wrong" }, { accessKeyId: "nobody" }];
      for (const options of wrong) {
        await using site = await openReal(real, options);
        for (const call of allCalls(site)) {
          const error = await thrownBy(call());
          expect(error).toHaveProperty("kind", "permission");
          expect(error).toHaveProperty("retryable", false);
        }
      }
    });

    test("names a bucket that is missing, whatever is asked", async () => {
      await using site = await openReal(real, { bucket: "no-such-bucket" });
      for (const call of allCalls(site)) {
        const error = await thrownBy(call());
        expect(error).toHaveProperty("kind", "not-found");
        expect(error).toHaveProperty("message", expect.stringContaining("no-such-bucket"));
      }
    });

    test("has altered bytes refused by the server", async () => {
      await using site = await openReal(real, {});
      const wrong = sha256Hex(text("what was meant"));
      const error = await thrownBy(site.put("altered", text("what came"), { sha256: wrong }));
      expect(error).toHaveProperty("kind", "damaged");
      expect(error).toHaveProperty("retryable", true);
      expect(await site.get("altered")).toBeUndefined();
    });

    test("tells the checksum that the server keeps", async () => {
      await using site = await openReal(real, {});
      await site.put("checksum", text("x"));
      expect(await site.head("checksum")).toEqual({ sizeBytes: 1, sha256: sha256Hex(text("x")) });
    });

    test("creates once when twenty race, from several processes' worth of clients", async () => {
      const sites = await Promise.all(
        Array.from({ length: 4 }, async () => await openReal(real, {})),
      );
      await Promise.all(sites.map(async (site) => await raceCreateIfAbsent(site, realRandom, 20)));
      const outcomes = await Promise.allSettled(
        Array.from(
          { length: 20 },
          async (_, index) => await sites[index % 4]!.put("race-of-clients", text(`${index}`)),
        ),
      );
      const winners = outcomes.flatMap((outcome, index) =>
        outcome.status === "fulfilled" && outcome.value === "created" ? [`${index}`] : [],
      );
      expect(winners).toHaveLength(1);
      expect(await sites[0]!.get("race-of-clients")).toEqual(text(winners[0]!));
      for (const site of sites) await site[Symbol.asyncDispose]();
    });

    test("keeps to its prefix", async () => {
      await using one = await openReal(real, { prefix: "one" });
      await using other = await openReal(real, { prefix: "/one-more/" });
      await one.put("a", text("1"));
      expect(await other.put("a", text("2"))).toBe("created");
      expect(await keysOf(one, "")).toEqual(["a"]);
      expect(await other.get("a")).toEqual(text("2"));
      expect(other.location).toBe(`s3://${real.bucket}/one-more`);
    });
  });
}

type Answer = (request: Request, body: Uint8Array) => Response | Promise<Response>;

describe("an S3 site", () => {
  let answer: Answer = () => new Response();
  const stub = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: async (request) => await answer(request, await request.bytes()),
  });
  afterAll(async () => await stub.stop(true));
  const address = { name: "stub", bucket: "bucket", endpoint: stub.url.origin };
  const options: S3SiteOptions = {
    ...address,
    forcePathStyle: true,
    accessKeyId: "id",
    secretAccessKey: "secret",
  };
  let site: Site;
  beforeAll(async () => {
    site = await openS3Site(options);
  });
  afterAll(async () => await site[Symbol.asyncDispose]());

  test("turns answers into errors that say what to do and whether to try again", async () => {
    const cases: [status: number, code: string, kind: string, retryable: boolean][] = [
      [409, "ConditionalRequestConflict", "unavailable", true],
      [503, "SlowDown", "unavailable", true],
      [500, "InternalError", "unavailable", true],
      [502, "", "unavailable", true],
      [429, "TooManyRequests", "unavailable", true],
      [400, "RequestTimeout", "timeout", true],
      [400, "BadDigest", "damaged", true],
      [403, "AccessDenied", "permission", false],
      [403, "RequestTimeTooSkewed", "permission", true],
      [403, "SignatureDoesNotMatch", "permission", false],
      [403, "InvalidAccessKeyId", "permission", false],
      [404, "NoSuchBucket", "not-found", false],
      [301, "PermanentRedirect", "config", false],
      [501, "NotImplemented", "refused", false],
      [507, "XMinioStorageFull", "no-space", false],
      [400, "Unheard", "refused", false],
    ];
    for (const [status, code, kind, retryable] of cases) {
      answer = () => errorAnswer(status, code);
      const error = await thrownBy(site.put("a", text("x")));
      expect(error).toBeInstanceOf(AppError);
      const { kind: foundKind, retryable: foundRetryable } = error as AppError;
      expect([status, code, foundKind, foundRetryable]).toEqual([status, code, kind, retryable]);
    }
    answer = () => errorAnswer(403, "RequestTimeTooSkewed");
    expect(await thrownBy(site.get("a"))).toHaveProperty(
      "guidance",
      expect.stringContaining("clock"),
    );
  });

  test("sends each request once, and its put with condition and checksum", async () => {
    const seen: Request[] = [];
    answer = (request) => {
      seen.push(request);
      return errorAnswer(503, "SlowDown");
    };
    await thrownBy(site.put("a", text("x")));
    expect(seen).toHaveLength(1);
    const { headers } = seen[0]!;
    expect(headers.get("if-none-match")).toBe("*");
    expect(headers.get("x-amz-content-sha256")).toBe(sha256Hex(text("x")));
    expect(Buffer.from(headers.get("x-amz-checksum-sha256")!, "base64").toString("hex")).toBe(
      sha256Hex(text("x")),
    );
    expect(headers.get("content-length")).toBe("1");
    expect(headers.get("x-amz-checksum-crc32")).toBeNull();
    expect(headers.get("content-encoding")).toBeNull();
  });

  test("fails a removal if a single key of it failed", async () => {
    answer = () =>
      new Response(
        "<DeleteResult><Error><Key>gone</Key><Code>NoSuchKey</Code></Error>" +
          "<Error><Key>log/1</Key><Code>AccessDenied</Code><Message>locked</Message></Error>" +
          "</DeleteResult>",
      );
    const error = await thrownBy(site.delete(["gone", "log/1"]));
    expect(error).toHaveProperty("kind", "permission");
    expect(error).toHaveProperty("context.key", "log/1");
  });

  test("removes a thousand keys a request", async () => {
    const sizes: number[] = [];
    answer = (_, body) => {
      sizes.push(Buffer.from(body).toString().split("<Object>").length - 1);
      return new Response("<DeleteResult></DeleteResult>");
    };
    await site.delete(Array.from({ length: 2001 }, (_, index) => `k/${index}`));
    expect(sizes).toEqual([1000, 1000, 1]);
  });

  test("refuses a store that lists out of order", async () => {
    answer = () =>
      new Response(
        "<ListBucketResult><Contents><Key>b</Key><Size>1</Size></Contents>" +
          "<Contents><Key>a</Key><Size>1</Size></Contents></ListBucketResult>",
      );
    expect(await thrownBy(keysOf(site, ""))).toHaveProperty("kind", "refused");
  });

  test("takes no 404 for an absent object but that of the object", async () => {
    answer = () => errorAnswer(404, "NoSuchKey");
    expect(await site.get("a")).toBeUndefined();
    for (const code of ["", "NoSuchBucket", "XAdminUserNotFound"]) {
      answer = ({ method }) =>
        method === "HEAD" ? new Response(null, { status: 404 }) : errorAnswer(404, code);
      expect(await thrownBy(site.get("a"))).toHaveProperty("retryable", false);
      expect(await thrownBy(site.head("a"))).toHaveProperty("retryable", false);
    }
  });

  test("cuts the range out itself where a server sends the whole", async () => {
    answer = () => new Response("0123456789");
    expect(await site.get("a", { offset: 2, length: 3 })).toEqual(text("234"));
  });

  test("notices a body that breaks off", async () => {
    const raw = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        data(socket) {
          socket.end("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
        },
      },
    });
    await using broken = await openS3Site({ ...options, endpoint: `http://127.0.0.1:${raw.port}` });
    const error = await thrownBy(broken.get("a"));
    raw.stop(true);
    expect(error).toHaveProperty("kind", "unavailable");
    expect(error).toHaveProperty("retryable", true);
  });

  test("says unavailable where nobody listens, naming what refused", async () => {
    const closed = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: { data: () => undefined },
    });
    const endpoint = `http://127.0.0.1:${closed.port}`;
    closed.stop(true);
    await using nobody = await openS3Site({ ...options, endpoint });
    expect(await thrownBy(nobody.get("a"))).toHaveProperty("kind", "unavailable");
  });

  test("gives a request up at its deadline, and at a cancel in its middle", async () => {
    const arrived = Promise.withResolvers<void>();
    answer = async () => {
      arrived.resolve();
      return await new Promise<Response>(() => undefined);
    };
    await using hasty = await openS3Site({ ...options, requestTimeoutMs: 20 });
    expect(await thrownBy(hasty.get("a"))).toHaveProperty("kind", "timeout");
    const stop = new AbortController();
    const call = thrownBy(site.put("a", text("x"), { signal: stop.signal }));
    await arrived.promise;
    stop.abort();
    expect(await call).toHaveProperty("kind", "cancelled");
  });

  test("has no more requests under way than it may", async () => {
    let underWay = 0;
    let most = 0;
    let gate = Promise.withResolvers<void>();
    answer = async () => {
      underWay += 1;
      most = Math.max(most, underWay);
      if (underWay === 3) gate.resolve();
      await gate.promise;
      underWay -= 1;
      if (underWay === 0) gate = Promise.withResolvers<void>();
      return new Response("x");
    };
    await using narrow = await openS3Site({ ...options, concurrency: 3 });
    await Promise.all(Array.from({ length: 9 }, async (_, index) => await narrow.get(`k${index}`)));
    expect(most).toBe(3);
  });

  test("goes through a proxy, except to the hosts that are named", async () => {
    const asked: string[] = [];
    const proxy = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: (request) => {
        asked.push(request.url);
        return new Response("from the proxy");
      },
    });
    answer = () => new Response("direct");
    const far = { ...options, endpoint: "http://s3.invalid", proxy: proxy.url.origin };
    await using through = await openS3Site(far);
    expect(await through.get("a")).toEqual(text("from the proxy"));
    expect(asked).toEqual(["http://s3.invalid/bucket/a?x-id=GetObject"]);
    const near = { ...options, proxy: proxy.url.origin, noProxy: "127.0.0.1" };
    await using past = await openS3Site(near);
    expect(await past.get("a")).toEqual(text("direct"));
    await proxy.stop(true);
  });

  test("knows the forms of NO_PROXY", () => {
    const list = "localhost, .example.com,*.other.net,10.0.0.1:9000";
    const direct = (host: string, port?: number): boolean => isDirect(host, port, list);
    expect(direct("localhost", 80)).toBe(true);
    expect(direct("s3.Example.com")).toBe(true);
    expect(direct("example.com")).toBe(true);
    expect(direct("a.other.net")).toBe(true);
    expect(direct("10.0.0.1", 9000)).toBe(true);
    expect(direct("10.0.0.1", 80)).toBe(false);
    expect(direct("badexample.com")).toBe(false);
    expect(isDirect("any", 1, "*")).toBe(true);
    expect(isDirect("any", 1, "")).toBe(false);
  });

  test("refuses half of its credentials, a wrong prefix and a caFile that is not there", async () => {
    const half = openS3Site({ ...address, accessKeyId: "id" });
    expect(await thrownBy(half)).toHaveProperty("kind", "config");
    const prefix = openS3Site({ ...options, prefix: "a/../b" });
    expect(await thrownBy(prefix)).toHaveProperty("kind", "config");
    const file = openS3Site({ ...options, caFile: join(DIRECTORY, "absent.pem") });
    expect(await thrownBy(file)).toHaveProperty("kind", "config");
  });
});

function errorAnswer(status: number, code: string): Response {
  if (code === "") return new Response("<html>oops</html>", { status });
  const body = `<Error><Code>${code}</Code><Message>words</Message></Error>`;
  return new Response(body, { status, headers: { "content-type": "application/xml" } });
}

function allCalls(site: Site): (() => Promise<unknown>)[] {
  return [
    async () => await site.get("a"),
    async () => await site.head("a"),
    async () => await site.put("a", text("x")),
    async () => await site.delete(["a"]),
    async () => await keysOf(site, ""),
  ];
}
