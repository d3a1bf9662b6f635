/**
 * The Azure site against the vendor's own emulator (scripts/real/azurite.ts), and against a stub
 * for the answers that a healthy service does not give.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startAzurite, type RealAzure } from "../../scripts/real/azurite.ts";
import { AppError } from "../../src/base/error.ts";
import { sha256Hex } from "../../src/base/hex.ts";
import { realRandom } from "../../src/base/random.ts";
import { openAzureSite, type AzureSiteOptions } from "../../src/sites/azure-site.ts";
import { raceCreateIfAbsent } from "../../src/sites/probe.ts";
import type { Site } from "../../src/sites/site.ts";
import { keysOf, siteContract, text, thrownBy } from "./contract.ts";
import { batchAnswer, errorAnswer, listAnswer, md5Of } from "./azure-answers.ts";

const SLOW_MS = 60_000;
const DIRECTORY = await mkdtemp(join(tmpdir(), "astacus-azure-"));
const server = await startAzurite({ directory: DIRECTORY });
afterAll(async () => {
  if (!("missing" in server)) await server.stop();
  await rm(DIRECTORY, { recursive: true });
});

if ("missing" in server) {
  test.skip(`Azure's emulator [needs ${server.missing}]`, () => undefined);
} else {
  againstEmulator(server);
}

function againstEmulator(real: RealAzure): void {
  siteContract(
    "an Azure site on the vendor's emulator",
    async () => {
      const open = async (): Promise<Site> => await openReal(real, { prefix: "contract" });
      const site = await open();
      return {
        site,
        reopen: open,
        [Symbol.asyncDispose]: async () => await site[Symbol.asyncDispose](),
      };
    },
    { copies: true },
  );

  describe("an Azure site on the vendor's emulator", () => {
    test("says permission for a wrong key", async () => {
      const accountKey = Buffer.from("a wrong key").toString("base64");
      await using site = await openReal(real, { accountKey });
      for (const call of allCalls(site)) {
        const error = await thrownBy(call());
        expect(error).toHaveProperty("kind", "permission");
        expect(error).toHaveProperty("retryable", false);
      }
    });

    test("names a container that is missing, whatever is asked", async () => {
      await using site = await openReal(real, { container: "no-such-container" });
      for (const call of allCalls(site)) {
        const error = await thrownBy(call());
        expect(error).toHaveProperty("kind", "not-found");
        expect(error).toHaveProperty("message", expect.stringContaining("no-such-container"));
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

    test("has altered bytes refused by the service", async () => {
      await using proxy = alteringProxy(real);
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

    test("says of a private container that it is sound", async () => {
      await using site = await openReal(real, {});
      const findings = await site.inspect!();
      expect(findings.map(({ level }) => level)).toEqual(["ok", "ok"]);
    });

    test("keeps to its prefix", async () => {
      await using one = await openReal(real, { prefix: "one" });
      await using other = await openReal(real, { prefix: "/one-more/" });
      await one.put("a", text("1"));
      expect(await other.put("a", text("2"))).toBe("created");
      expect(await keysOf(one, "")).toEqual(["a"]);
      expect(await other.get("a")).toEqual(text("2"));
      expect(other.location).toBe(`azure://${real.account}/${real.container}/one-more`);
    });

    test("works by a connection string and by a shared access signature", async () => {
      const { account, accountKey, endpoint, container } = real;
      const connectionString =
        `DefaultEndpointsProtocol=http;AccountName=${account};AccountKey=${accountKey};` +
        `BlobEndpoint=${endpoint};`;
      await using byString = await openAzureSite({ name: "string", container, connectionString });
      expect(await byString.put("by-string", text("1"))).toBe("created");
      const sasToken = await signatureOf(real, "racwdl");
      await using bySas = await openAzureSite({ name: "sas", container, endpoint, sasToken });
      expect(await bySas.get("by-string")).toEqual(text("1"));
      expect(await bySas.put("by-sas", text("2"))).toBe("created");
      expect(await bySas.put("by-sas", text("3"))).toBe("exists");
      await bySas.delete(["by-string", "by-sas", "never"]);
      expect(await byString.head("by-sas")).toBeUndefined();
    });

    test("copies by signatures that it makes of a key, and by those of the configuration", async () => {
      const { endpoint, container } = real;
      const sasToken = await signatureOf(real, "racwdl");
      const sas = { name: "sas", container, endpoint, sasToken };
      await using byKey = await openReal(real, { prefix: "copies", accessTier: "Cool" });
      await using bySas = await openAzureSite({ ...sas, prefix: "copies-by-sas" });
      await byKey.put("a", text("of the key"));
      await bySas.put("b", text("of the signature"));
      expect(await byKey.copying!.copyFrom(bySas.copying!.place, "b", "c")).toBe("created");
      expect(await bySas.copying!.copyFrom(byKey.copying!.place, "a", "d")).toBe("created");
      expect(await byKey.get("c")).toEqual(text("of the signature"));
      expect(await bySas.get("d")).toEqual(text("of the key"));
      // Our checksum does not go with it: nobody has looked at these bytes.
      expect(await byKey.head("c")).toEqual({ sizeBytes: 16, isCopy: true });
      expect(await tierOf(real, "copies/c")).toBe("Cool");
      await using weak = await openAzureSite({ ...sas, sasToken: await signatureOf(real, "r") });
      expect(await weak.copying!.copyFrom(byKey.copying!.place, "a", "e")).toBe("impossible");
    });

    test("shows no signature of a source where a copy fails", async () => {
      await using source = await openReal(real, {});
      const { account, accountKey, container } = real;
      using stub = Bun.serve({
        port: 0,
        hostname: "127.0.0.1",
        fetch: () =>
          new Response("", { status: 503, headers: { "x-ms-error-code": "ServerBusy" } }),
      });
      const endpoint = `${stub.url.origin}/${account}`;
      const address = { account, accountKey, container, endpoint };
      await using site = await openAzureSite({ name: "stub", ...address });
      const { addressOf } = source.copying!.place;
      const from = { ...site.copying!.place, addressOf };
      const error = await thrownBy(site.copying!.copyFrom(from, "a", "b"));
      expect(error).toMatchObject({ kind: "unavailable", retryable: true });
      expect(addressOf("a")).toContain("sig=");
      expect(Bun.inspect(error)).not.toContain("sig=");
      expect(JSON.stringify(error)).not.toContain("sig=");
    });

    test("says what a signature lacks and never shows it", async () => {
      const { endpoint, container } = real;
      const sasToken = await signatureOf(real, "r");
      await using site = await openAzureSite({ name: "sas", container, endpoint, sasToken });
      const error = await thrownBy(site.put("by-weak-sas", text("x")));
      expect(error).toHaveProperty("kind", "permission");
      expect(Bun.inspect(error)).not.toContain(new URLSearchParams(sasToken).get("sig")!);
      expect(Bun.inspect(error)).not.toContain(encodeURIComponent(sasToken.split("sig=")[1]!));
    });

    test("puts new objects into the tier that is asked for", async () => {
      await using site = await openReal(real, { accessTier: "Cool" });
      await site.put("tier/a", text("x"));
      expect(await tierOf(real, "tier/a")).toBe("Cool");
    });

    test(
      "removes more keys than a batch may name",
      async () => {
        await using site = await openReal(real, { prefix: "batch" });
        const keys = Array.from({ length: 300 }, (_, index) => `k/${index}`);
        for (let start = 0; start < keys.length; start += 20) {
          const part = keys.slice(start, start + 20);
          await Promise.all(part.map(async (key) => await site.put(key, text("x"))));
        }
        await site.delete(["k/absent", ...keys]);
        expect(await keysOf(site, "")).toEqual([]);
      },
      SLOW_MS,
    );
  });
}

type Answer = (request: Request, body: Uint8Array) => Response | Promise<Response>;

describe("an Azure site", () => {
  let answer: Answer = () => new Response();
  const stub = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: async (request) => await answer(request, await request.bytes()),
  });
  afterAll(async () => await stub.stop(true));
  const options: AzureSiteOptions = {
    name: "stub",
    container: "container",
    account: "account",
    endpoint: stub.url.origin,
    accountKey: Buffer.from("key").toString("base64"),
  };
  let site: Site;
  beforeAll(async () => {
    site = await openAzureSite(options);
  });

  test("turns answers into errors that say what to do and whether to try again", async () => {
    const cases: [status: number, code: string, kind: string, retryable: boolean][] = [
      [503, "ServerBusy", "unavailable", true],
      [500, "InternalError", "unavailable", true],
      [500, "OperationTimedOut", "timeout", true],
      [502, "", "unavailable", true],
      [429, "", "unavailable", true],
      [400, "Md5Mismatch", "damaged", true],
      [403, "AuthenticationFailed", "permission", false],
      [403, "AuthorizationPermissionMismatch", "permission", false],
      [403, "", "permission", false],
      [404, "ContainerNotFound", "not-found", false],
      [404, "", "config", false],
      [409, "ContainerBeingDeleted", "not-found", false],
      [400, "Unheard", "refused", false],
    ];
    for (const [status, code, kind, retryable] of cases) {
      answer = () => errorAnswer(status, code);
      for (const call of [
        async () => await site.put("a", text("x")),
        async () => await site.get("a"),
      ]) {
        const error = await thrownBy(call());
        expect(error).toBeInstanceOf(AppError);
        const { kind: foundKind, retryable: foundRetryable } = error as AppError;
        expect([status, code, foundKind, foundRetryable]).toEqual([status, code, kind, retryable]);
      }
    }
  });

  test("sends each request once, and its put with condition and checksum", async () => {
    const seen: Request[] = [];
    answer = (request) => {
      seen.push(request);
      return errorAnswer(503, "ServerBusy");
    };
    await thrownBy(site.put("a", text("x")));
    await thrownBy(site.get("a"));
    expect(seen.map(({ method }) => method)).toEqual(["PUT", "GET"]);
    const { headers } = seen[0]!;
    expect(headers.get("if-none-match")).toBe("*");
    expect(headers.get("content-md5")).toBe(md5Of("x"));
    expect(headers.get("x-ms-meta-sha256")).toBe(sha256Hex(text("x")));
    expect(headers.get("content-length")).toBe("1");
    expect(headers.get("x-ms-access-tier")).toBeNull();
  });

  test("takes every way to say that a key is taken for that", async () => {
    const ways: [status: number, code: string][] = [
      [409, "BlobAlreadyExists"],
      [412, "ConditionNotMet"],
      [403, "UnauthorizedBlobOverwrite"],
      [409, "BlobImmutableDueToPolicy"],
    ];
    for (const [status, code] of ways) {
      answer = () => errorAnswer(status, code);
      expect(await site.put("a", text("x"))).toBe("exists");
    }
  });

  test("takes no 404 for an absent object but that of the object", async () => {
    answer = () => errorAnswer(404, "BlobNotFound");
    expect(await site.get("a")).toBeUndefined();
    expect(await site.head("a")).toBeUndefined();
    for (const code of ["", "ContainerNotFound", "ResourceNotFound"]) {
      answer = () => errorAnswer(404, code);
      expect(await thrownBy(site.get("a"))).toHaveProperty("retryable", false);
      expect(await thrownBy(site.head("a"))).toHaveProperty("retryable", false);
    }
  });

  test("fails a removal if a single key of it failed, naming the key", async () => {
    answer = (request, body) => {
      const parts = Buffer.from(body).toString().split("Content-ID: ").length - 1;
      expect(parts).toBe(2);
      return batchAnswer([
        [404, "BlobNotFound"],
        [409, "BlobImmutableDueToPolicy"],
      ]);
    };
    const error = await thrownBy(site.delete(["gone", "log/1"]));
    expect(error).toHaveProperty("kind", "refused");
    expect(error).toHaveProperty("context.key", "log/1");
    answer = () => batchAnswer([[403, "AuthorizationFailure"]]);
    expect(await thrownBy(site.delete(["a", "b"]))).toHaveProperty("kind", "permission");
    answer = () => batchAnswer([[404, "BlobNotFound"]]);
    expect(await thrownBy(site.delete(["a", "b"]))).toHaveProperty("retryable", true);
  });

  test("refuses a store that lists out of order, and one that lists a key twice", async () => {
    for (const keys of [
      ["b", "a"],
      ["a", "a"],
    ]) {
      answer = () => listAnswer(keys);
      expect(await thrownBy(keysOf(site, ""))).toHaveProperty("kind", "refused");
    }
  });

  test("follows the marks of a long listing, and passes over what comes before", async () => {
    const asked: (string | null)[] = [];
    answer = (request) => {
      const marker = new URL(request.url).searchParams.get("marker");
      asked.push(marker);
      return marker === null ? listAnswer(["a", "b"], "next page") : listAnswer(["c", "d"]);
    };
    expect(await keysOf(site, "", { after: "a" })).toEqual(["b", "c", "d"]);
    expect(asked).toEqual([null, "next page"]);
  });

  test("cuts the range out itself where a server sends the whole", async () => {
    answer = () => new Response("0123456789", { headers: { etag: '"1"' } });
    expect(await site.get("a", { offset: 2, length: 3 })).toEqual(text("234"));
  });

  test("notices a body that breaks off, and a server that is gone", async () => {
    const raw = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        data(socket) {
          socket.end('HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 100\r\n\r\nonly this');
        },
      },
    });
    await using broken = await openAzureSite({
      ...options,
      endpoint: `http://127.0.0.1:${raw.port}`,
    });
    expect(await thrownBy(broken.get("a"))).toMatchObject({ kind: "unavailable", retryable: true });
    raw.stop(true);
    expect(await thrownBy(broken.get("a"))).toMatchObject({ kind: "unavailable", retryable: true });
  });

  test("tells settings that endanger backups from those that it may not read", async () => {
    const levelsOf = async (headers: Record<string, string>, status = 200) => {
      answer = () => new Response(null, { status, headers });
      return (await site.inspect!()).map(({ level }) => level);
    };
    expect(await levelsOf({})).toEqual(["ok", "ok"]);
    expect(await levelsOf({ "x-ms-is-hns-enabled": "true" })).toEqual(["bad", "ok"]);
    expect(await levelsOf({ "x-ms-blob-public-access": "blob" })).toEqual(["ok", "bad"]);
    expect(await levelsOf({ "x-ms-has-legal-hold": "true" })).toEqual(["ok", "warning"]);
    expect(await levelsOf({}, 403)).toEqual(["warning", "warning"]);
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
      await using cut = await openAzureSite({
        ...options,
        endpoint: `http://127.0.0.1:${raw.port}`,
      });
      for (const call of [
        async () => await cut.put("a", text("x")),
        async () => await cut.get("a"),
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
    await using hasty = await openAzureSite({ ...options, requestTimeoutMs: 20 });
    expect(await thrownBy(hasty.get("a"))).toHaveProperty("kind", "timeout");
    const stop = new AbortController();
    const call = thrownBy(site.put("a", text("x"), { signal: stop.signal }));
    await arrived.promise;
    stop.abort();
    expect(await call).toHaveProperty("kind", "cancelled");
  });

  test("refuses credentials that are none, half or two, and never repeats them", async () => {
    const { accountKey: _, ...bare } = options;
    const wrong: AzureSiteOptions[] = [
      bare,
      { ...options, sasToken: "sig=secret-of-tests" },
      { ...bare, connectionString: "secret-of-tests" },
      { name: "stub", container: "container", accountKey: "a2V5" },
      { name: "stub", container: "container", sasToken: "sig=secret-of-tests" },
      { ...options, prefix: "a/../b" },
      { ...options, caFile: join(DIRECTORY, "absent.pem") },
    ];
    for (const one of wrong) {
      const error = await thrownBy(openAzureSite(one));
      expect(error).toHaveProperty("kind", "config");
      expect(Bun.inspect(error)).not.toContain("secret-of-tests");
    }
  });
});

async function openReal(real: RealAzure, change: Partial<AzureSiteOptions>): Promise<Site> {
  const { endpoint, account, accountKey, container } = real;
  const address = { endpoint, account, accountKey, container };
  return await openAzureSite({ name: "real", ...address, ...change });
}

function allCalls(site: Site): (() => Promise<unknown>)[] {
  return [
    async () => await site.get("a"),
    async () => await site.head("a"),
    async () => await site.put("a", text("x")),
    async () => await site.delete(["a"]),
    async () => await site.delete(["a", "b"]),
    async () => await keysOf(site, ""),
  ];
}

async function signatureOf(real: RealAzure, permissions: string): Promise<string> {
  const { ContainerSASPermissions, generateBlobSASQueryParameters, StorageSharedKeyCredential } =
    await import("@azure/storage-blob");
  const credential = new StorageSharedKeyCredential(real.account, real.accountKey);
  const how = {
    containerName: real.container,
    permissions: ContainerSASPermissions.parse(permissions),
    expiresOn: new Date(Date.now() + 600_000),
  };
  return generateBlobSASQueryParameters(how, credential).toString();
}

async function tierOf(real: RealAzure, name: string): Promise<string | undefined> {
  const { BlobServiceClient, StorageSharedKeyCredential } = await import("@azure/storage-blob");
  const credential = new StorageSharedKeyCredential(real.account, real.accountKey);
  const service = new BlobServiceClient(real.endpoint, credential);
  const blob = service.getContainerClient(real.container).getBlobClient(name);
  return (await blob.getProperties()).accessTier;
}

/** Flips a bit of each body that is put. */
function alteringProxy(real: RealAzure) {
  let count = 0;
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: async (request) => {
      const body = await request.bytes();
      if (request.method === "PUT") {
        count += 1;
        body[0]! ^= 1;
      }
      const { method, headers } = request;
      const { pathname, search } = new URL(request.url);
      const target = `${new URL(real.endpoint).origin}${pathname}${search}`;
      return await fetch(target, { method, headers, body });
    },
  });
  return {
    origin: server.url.origin,
    alteredCount: () => count,
    [Symbol.asyncDispose]: async () => await server.stop(true),
  };
}
