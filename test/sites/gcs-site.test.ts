/**
 * The site in Google Cloud Storage against a server that speaks its JSON API (scripts/real/gcs.ts),
 * and against a stub for tokens and for the answers that a healthy service does not give. Without a
 * Go toolchain the real tests are skipped by name; in CI that is a failure.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startGcsServer, type RealGcs } from "../../scripts/real/gcs.ts";
import { realClock } from "../../src/base/clock.ts";
import { AppError } from "../../src/base/error.ts";
import { sha256Hex } from "../../src/base/hex.ts";
import { realRandom } from "../../src/base/random.ts";
import { openGcsSite, type GcsSiteOptions } from "../../src/sites/gcs-site.ts";
import { guardedSite } from "../../src/sites/guarded-site.ts";
import { probeCreateIfAbsent, raceCreateIfAbsent } from "../../src/sites/probe.ts";
import { openS3Site } from "../../src/sites/s3-site.ts";
import type { Site } from "../../src/sites/site.ts";
import { keysOf, siteContract, text, thrownBy } from "./contract.ts";

const DIRECTORY = await mkdtemp(join(tmpdir(), "astacus-gcs-"));
const server = await startGcsServer({ directory: DIRECTORY });
afterAll(async () => {
  if (!("missing" in server)) await server.stop();
  await rm(DIRECTORY, { recursive: true });
});

if ("missing" in server) {
  test.skip(`a server like Google's [needs ${server.missing}]`, () => undefined);
} else {
  againstServer(server);
}

function againstServer(real: RealGcs): void {
  siteContract("a GCS site on fake-gcs-server", async () => {
    const open = async (): Promise<Site> => await openReal(real, { prefix: "contract" });
    const site = await open();
    return {
      site,
      reopen: open,
      [Symbol.asyncDispose]: async () => await site[Symbol.asyncDispose](),
    };
  });

  describe("a GCS site on fake-gcs-server", () => {
    test("the server overwrites without the condition, so the condition is what is tested", async () => {
      await using site = await openReal(real, {});
      await site.put("bare/a", text("1"));
      const query = "uploadType=media&name=bare%2Fa";
      const address = `${real.endpoint}/upload/storage/v1/b/${real.bucket}/o?${query}`;
      expect((await fetch(address, { method: "POST", body: "2" })).status).toBe(200);
      expect(await site.get("bare/a")).toEqual(text("2"));
      expect(await site.put("bare/a", text("3"))).toBe("exists");
      expect(await site.get("bare/a")).toEqual(text("2"));
    });

    test("through an S3 front that overwrites, as Google's does, the same bucket is refused", async () => {
      await using front = overwritingFront(real);
      const address = { bucket: real.bucket, endpoint: front.origin, forcePathStyle: true };
      const key = { accessKeyId: "id", secretAccessKey: "secret" };
      await using site = await openS3Site({ name: "s3", clock: realClock, ...address, ...key });
      const error = await thrownBy(probeCreateIfAbsent(site, realRandom));
      expect(error).toHaveProperty("kind", "refused");
      expect(front.conditions()).toEqual(["*", "*"]);
    });

    test("copies by rewrites where the condition is kept, in the class that is configured", async () => {
      await using front = conditionalFront(real);
      await using from = await openReal(real, { endpoint: front.origin, prefix: "rewrite/from" });
      await using to = await openReal(real, {
        endpoint: front.origin,
        prefix: "rewrite/to",
        storageClass: "NEARLINE",
      });
      const guarded = guardedSite(to, realRandom);
      const copy = async (fromKey: string, toKey: string): Promise<string> =>
        await guarded.copying!.copyFrom(from.copying!.place, fromKey, toKey);
      await from.put("a", text("one"));
      await from.put("b", text("two"));
      expect(await copy("a", "c")).toBe("created");
      expect(await copy("b", "c")).toBe("exists");
      expect(await copy("never", "d")).toBe("absent");
      expect(await to.get("c")).toEqual(text("one"));
      // Our checksum does not go with it: nobody has looked at these bytes.
      expect(await to.head("c")).toEqual({ sizeBytes: 3, isCopy: true });
      expect(await to.head("d")).toBeUndefined();
      expect(front.classes()).toContain("NEARLINE");
    });

    test("copies nothing by a server that ignores the condition of rewrites, as this one does", async () => {
      await using site = await openReal(real, { prefix: "careless" });
      const guarded = guardedSite(site, realRandom);
      await site.put("a", text("one"));
      await site.put("b", text("two"));
      expect(await site.copying!.copyFrom(site.copying!.place, "a", "b")).toBe("created");
      expect(await guarded.copying!.copyFrom(site.copying!.place, "a", "c")).toBe("impossible");
      expect(await site.head("c")).toBeUndefined();
      expect(await keysOf(site, "probe/")).toEqual([]);
    });

    test("names a bucket that is missing, whatever is read", async () => {
      await using site = await openReal(real, { bucket: "no-such-bucket" });
      const calls = [
        async () => await site.get("a"),
        async () => await site.head("a"),
        async () => await site.delete(["a"]),
        async () => await keysOf(site, ""),
      ];
      for (const call of calls) {
        const error = await thrownBy(call());
        expect(error).toHaveProperty("kind", "not-found");
        expect(error).toHaveProperty("message", expect.stringContaining("no-such-bucket"));
      }
    });

    test("tells the checksum of what was sent, and sends nothing under a wrong one", async () => {
      await using site = await openReal(real, {});
      await site.put("checksum", text("x"));
      expect(await site.head("checksum")).toEqual({ sizeBytes: 1, sha256: sha256Hex(text("x")) });
      const wrong = sha256Hex(text("what was meant"));
      const error = await thrownBy(site.put("altered", text("what came"), { sha256: wrong }));
      expect(error).toMatchObject({ kind: "damaged", retryable: true });
      expect(await site.get("altered")).toBeUndefined();
    });

    test("has altered bytes refused by the server", async () => {
      await using proxy = alteringProxy(real, "what was meant", "what WAS meant");
      await using site = await openReal(real, { proxy: proxy.origin });
      const error = await thrownBy(site.put("altered-on-the-way", text("what was meant")));
      expect(proxy.alteredCount()).toBe(1);
      expect(error).toMatchObject({ kind: "damaged", retryable: true });
      await using direct = await openReal(real, {});
      expect(await direct.get("altered-on-the-way")).toBeUndefined();
    });

    test("creates once when twenty race, from several processes' worth of clients", async () => {
      const sites = await Promise.all(
        Array.from({ length: 4 }, async () => await openReal(real, {})),
      );
      await Promise.all(sites.map(async (site) => await raceCreateIfAbsent(site, realRandom, 20)));
      for (const site of sites) await site[Symbol.asyncDispose]();
    });

    test("says of a bucket without rules that it is sound", async () => {
      await using site = await openReal(real, {});
      expect((await site.inspect!()).map(({ level }) => level)).toEqual(["ok", "ok"]);
    });

    test("keeps to its prefix, and puts new objects into the class that is asked for", async () => {
      await using one = await openReal(real, { prefix: "one" });
      await using other = await openReal(real, { prefix: "/one-more/", storageClass: "COLDLINE" });
      await one.put("a", text("1"));
      expect(await other.put("a", text("2"))).toBe("created");
      expect(await keysOf(one, "")).toEqual(["a"]);
      expect(await other.get("a")).toEqual(text("2"));
      expect(other.location).toBe(`gs://${real.bucket}/one-more`);
      const about = await fetch(`${real.endpoint}/storage/v1/b/${real.bucket}/o/one-more%2Fa`);
      expect(await about.json()).toHaveProperty("storageClass", "COLDLINE");
    });
  });
}

type Answer = (request: Request, body: Uint8Array) => Response | Promise<Response>;

describe("a GCS site", () => {
  let answer: Answer = () => new Response();
  const stub = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: async (request) => await answer(request, await request.bytes()),
  });
  afterAll(async () => await stub.stop(true));
  const options: GcsSiteOptions = {
    name: "stub",
    bucket: "bucket",
    endpoint: stub.url.origin,
    anonymous: true,
  };
  let site: Site;
  beforeAll(async () => {
    site = await openGcsSite(options);
  });

  test("turns answers into errors that say what to do and whether to try again", async () => {
    const cases: [status: number, reason: string, kind: string, retryable: boolean][] = [
      [503, "backendError", "unavailable", true],
      [500, "internalError", "unavailable", true],
      [502, "", "unavailable", true],
      [429, "rateLimitExceeded", "unavailable", true],
      [403, "userRateLimitExceeded", "unavailable", true],
      [409, "conflict", "unavailable", true],
      [408, "", "timeout", true],
      [401, "authError", "permission", false],
      [401, "required", "permission", false],
      [403, "forbidden", "permission", false],
      [403, "", "permission", false],
      [403, "retentionPolicyNotMet", "refused", false],
      [404, "notFound", "not-found", false],
      [404, "", "config", false],
      [400, "invalid", "refused", false],
    ];
    for (const [status, reason, kind, retryable] of cases) {
      answer = () => errorAnswer(status, reason);
      const error = await thrownBy(site.put("a", text("x")));
      expect(error).toBeInstanceOf(AppError);
      const { kind: foundKind, retryable: foundRetryable } = error as AppError;
      expect([status, reason, foundKind, foundRetryable]).toEqual([
        status,
        reason,
        kind,
        retryable,
      ]);
    }
  });

  test("sends each request once, and its put with condition and checksums", async () => {
    const seen: { readonly request: Request; readonly body: string }[] = [];
    answer = (request, body) => {
      seen.push({ request, body: Buffer.from(body).toString() });
      return errorAnswer(503, "backendError");
    };
    await thrownBy(site.put("a b".replace(" ", "-"), text("body")));
    await thrownBy(site.get("a"));
    await thrownBy(keysOf(site, ""));
    expect(seen).toHaveLength(3);
    const [{ request, body }] = seen as [(typeof seen)[0]];
    expect(new URL(request.url).searchParams.get("ifGenerationMatch")).toBe("0");
    expect(body).toContain(`"md5Hash":"${md5Of("body")}"`);
    expect(body).toContain(`"sha256":"${sha256Hex(text("body"))}"`);
  });

  test("takes no 404 for an absent object unless the bucket is there", async () => {
    const absent = () => new Response("No such object: bucket/a", { status: 404 });
    answer = absent;
    expect(await site.get("a")).toBeUndefined();
    expect(await site.head("a")).toBeUndefined();
    await site.delete(["a"]);
    answer = (request) =>
      request.url.includes("maxResults=1") ? Response.json({}) : errorAnswer(404, "notFound");
    expect(await site.get("a")).toBeUndefined();
    for (const reason of ["notFound", ""]) {
      answer = () => errorAnswer(404, reason);
      for (const call of [async () => await site.get("a"), async () => await site.head("a")]) {
        expect(await thrownBy(call())).toHaveProperty("retryable", false);
      }
    }
  });

  test("fails a removal if a single key of it failed, naming the key", async () => {
    answer = (request) =>
      request.url.includes("locked")
        ? errorAnswer(403, "retentionPolicyNotMet")
        : new Response(null, { status: 204 });
    const error = await thrownBy(site.delete(["gone", "locked", "other"]));
    expect(error).toMatchObject({ kind: "refused", context: { key: "locked" } });
  });

  test("follows the tokens of a long listing from where it shall begin", async () => {
    const asked: string[] = [];
    answer = (request) => {
      const { searchParams } = new URL(request.url);
      const token = searchParams.get("pageToken");
      asked.push(`${searchParams.get("startOffset")} ${token}`);
      return token === null ? listAnswer(["a", "b"], "next page") : listAnswer(["c"]);
    };
    expect(await keysOf(site, "", { after: "a" })).toEqual(["b", "c"]);
    expect(asked).toEqual(["a null", "a next page"]);
  });

  test("refuses a store that lists out of order, and what does not answer in JSON", async () => {
    for (const keys of [
      ["b", "a"],
      ["a", "a"],
    ]) {
      answer = () => listAnswer(keys);
      expect(await thrownBy(keysOf(site, ""))).toHaveProperty("kind", "refused");
    }
    answer = () => new Response("<html>");
    expect(await thrownBy(keysOf(site, ""))).toHaveProperty("kind", "config");
    expect(await thrownBy(site.head("a"))).toHaveProperty("kind", "config");
  });

  test("cuts the range out itself where a server sends the whole", async () => {
    answer = () => new Response("0123456789");
    expect(await site.get("a", { offset: 2, length: 3 })).toEqual(text("234"));
  });

  test("tells settings that endanger backups from those that it may not read", async () => {
    await using prefixed = await openGcsSite({ ...options, prefix: "ours" });
    const levelsOf = async (bucket: object) => {
      answer = () => Response.json(bucket);
      return (await prefixed.inspect!()).map(({ level }) => level);
    };
    const rule = (condition: object, action: object = { type: "Delete" }) => ({
      lifecycle: { rule: [{ action, condition }] },
    });
    const move = { type: "SetStorageClass", storageClass: "COLDLINE" };
    expect(await levelsOf({})).toEqual(["ok", "ok"]);
    expect(await levelsOf(rule({ age: 30 }))).toEqual(["bad", "ok"]);
    expect(await levelsOf(rule({ matchesPrefix: ["ours/pack/"] }))).toEqual(["bad", "ok"]);
    expect(await levelsOf(rule({ matchesPrefix: ["theirs/"] }))).toEqual(["ok", "ok"]);
    expect(await levelsOf(rule({ isLive: false }))).toEqual(["ok", "ok"]);
    expect(await levelsOf(rule({ age: 30 }, move))).toEqual(["warning", "ok"]);
    expect(await levelsOf({ retentionPolicy: { retentionPeriod: "864000" } })).toEqual([
      "ok",
      "warning",
      "ok",
    ]);
    answer = () => errorAnswer(403, "forbidden");
    expect((await prefixed.inspect!()).map(({ level }) => level)).toEqual(["warning"]);
  });

  test("takes a connection that is cut before or within the answer for passing trouble", async () => {
    const cuts = [
      "",
      "HTTP/1.1 200 OK\r\nConte",
      "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
    ];
    for (const answered of cuts) {
      const raw = Bun.listen({
        hostname: "127.0.0.1",
        port: 0,
        socket: {
          data(socket) {
            socket.end(answered);
          },
        },
      });
      await using cut = await openGcsSite({ ...options, endpoint: `http://127.0.0.1:${raw.port}` });
      for (const call of [
        async () => await cut.put("a", text("x")),
        async () => await cut.get("a"),
        async () => await cut.head("a"),
        async () => await keysOf(cut, ""),
      ]) {
        const error = await thrownBy(call());
        expect(error).toMatchObject({ kind: "unavailable", retryable: true });
      }
      raw.stop(true);
    }
  });

  test("gives a request up at its deadline, and at a cancel in its middle", async () => {
    const arrived = Promise.withResolvers<void>();
    answer = async () => {
      arrived.resolve();
      return await new Promise<Response>(() => undefined);
    };
    await using hasty = await openGcsSite({ ...options, requestTimeoutMs: 20 });
    expect(await thrownBy(hasty.get("a"))).toHaveProperty("kind", "timeout");
    const stop = new AbortController();
    const call = thrownBy(site.put("a", text("x"), { signal: stop.signal }));
    await arrived.promise;
    stop.abort();
    expect(await call).toHaveProperty("kind", "cancelled");
  });

  test("refuses credentials that are wrong or too many, and never repeats them", async () => {
    const wrong: GcsSiteOptions[] = [
      { ...options, credentials: "{}" },
      { name: "stub", bucket: "bucket", credentials: "secret-of-tests" },
      { name: "stub", bucket: "bucket", credentials: '{"type": "secret-of-tests"}' },
      { name: "stub", bucket: "bucket", credentials: "{}", credentialsFile: "key.json" },
      { name: "stub", bucket: "bucket", credentialsFile: join(DIRECTORY, "absent.json") },
      { ...options, prefix: "a/../b" },
      { ...options, caFile: join(DIRECTORY, "absent.pem") },
    ];
    for (const one of wrong) {
      const error = await thrownBy(openGcsSite(one));
      expect(error).toHaveProperty("kind", "config");
      expect(Bun.inspect(error)).not.toContain("secret-of-tests");
    }
  });
});

async function openReal(real: RealGcs, change: Partial<GcsSiteOptions>): Promise<Site> {
  const { endpoint, bucket } = real;
  return await openGcsSite({ name: "real", endpoint, bucket, anonymous: true, ...change });
}

/** Replaces words in what is uploaded, same length. */
function alteringProxy(real: RealGcs, before: string, after: string) {
  let count = 0;
  const proxy = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: async (request) => {
      const { method, headers } = request;
      const sent = Buffer.from(await request.bytes());
      const at = sent.indexOf(before);
      if (method === "POST" && at >= 0) {
        count += 1;
        sent.write(after, at);
      }
      const { pathname, search } = new URL(request.url);
      return await fetch(`${real.endpoint}${pathname}${search}`, { method, headers, body: sent });
    },
  });
  return {
    origin: proxy.url.origin,
    alteredCount: () => count,
    [Symbol.asyncDispose]: async () => await proxy.stop(true),
  };
}

/** Keeps the condition of rewrites, as Google does and this server does not. */
function conditionalFront(real: RealGcs) {
  const classes: unknown[] = [];
  const front = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: async (request) => {
      const { pathname, search, searchParams } = new URL(request.url);
      const { method, headers } = request;
      const sent = method === "GET" ? null : await request.bytes();
      const target = /\/rewriteTo(\/b\/.*)$/.exec(pathname)?.[1];
      if (target !== undefined) {
        expect(searchParams.get("ifGenerationMatch")).toBe("0");
        const there = await fetch(`${real.endpoint}/storage/v1${target}`);
        await there.arrayBuffer();
        if (there.ok) return errorAnswer(412, "conditionNotMet");
        const about = JSON.parse(Buffer.from(sent ?? []).toString()) as { storageClass?: string };
        classes.push(about.storageClass);
      }
      return await fetch(`${real.endpoint}${pathname}${search}`, { method, headers, body: sent });
    },
  });
  return {
    origin: front.url.origin,
    classes: () => classes,
    [Symbol.asyncDispose]: async () => await front.stop(true),
  };
}

/** Takes PUT and GET as S3 has them, the condition included, and overwrites. */
function overwritingFront(real: RealGcs) {
  const conditions: (string | null)[] = [];
  const front = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: async (request) => {
      const [, bucket, ...rest] = new URL(request.url).pathname.split("/");
      const name = encodeURIComponent(rest.join("/"));
      if (request.method !== "PUT") {
        return await fetch(`${real.endpoint}/storage/v1/b/${bucket}/o/${name}?alt=media`);
      }
      conditions.push(request.headers.get("if-none-match"));
      const address = `${real.endpoint}/upload/storage/v1/b/${bucket}/o?uploadType=media&name=${name}`;
      const { status } = await fetch(address, { method: "POST", body: await request.bytes() });
      return new Response(null, { status });
    },
  });
  return {
    origin: front.url.origin,
    conditions: () => conditions,
    [Symbol.asyncDispose]: async () => await front.stop(true),
  };
}

function errorAnswer(status: number, reason: string): Response {
  if (reason === "") return new Response("<html>oops</html>", { status });
  const error = { code: status, message: "words", errors: [{ reason, message: "words" }] };
  return Response.json({ error }, { status });
}

function listAnswer(keys: readonly string[], nextPageToken?: string): Response {
  const items = keys.map((name) => ({ name, size: "1" }));
  return Response.json({ items, ...(nextPageToken === undefined ? {} : { nextPageToken }) });
}

function md5Of(value: string): string {
  return new Bun.CryptoHasher("md5").update(value).digest("base64");
}
