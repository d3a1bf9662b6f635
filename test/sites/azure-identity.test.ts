/**
 * Tokens for Azure: from stubs of the three places that give them, and shown to the vendor's
 * emulator, which checks who they are for, from whom, and how long they hold (not their signature).
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startAzurite } from "../../scripts/real/azurite.ts";
import { openAzureIdentity } from "../../src/sites/azure-identity.ts";
import { openAzureSite } from "../../src/sites/azure-site.ts";
import { HttpExchange } from "../../src/sites/http-exchange.ts";
import { keysOf, text, thrownBy } from "./contract.ts";

const DIRECTORY = await mkdtemp(join(tmpdir(), "astacus-azure-identity-"));
const server = await startAzurite({ directory: DIRECTORY, tls: true });

type Answer = (request: Request, body: string) => Response;
let answer: Answer = () => new Response();
const asked: { readonly url: string; readonly headers: Headers }[] = [];
const stub = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  fetch: async (request) => {
    asked.push({ url: request.url, headers: new Headers(request.headers) });
    return answer(request, await request.text());
  },
});
afterAll(async () => {
  await stub.stop(true);
  if (!("missing" in server)) await server.stop();
  await rm(DIRECTORY, { recursive: true });
});

const exchange = new HttpExchange({ timeoutMs: 5_000 });
const METADATA = { AZURE_POD_IDENTITY_AUTHORITY_HOST: stub.url.origin };
const SCOPE = "https://storage.azure.com/.default";

describe("the identity of a machine", () => {
  test("is asked for at the metadata server once, until its token must be renewed", async () => {
    asked.length = 0;
    answer = () => Response.json({ access_token: "token-1", expires_on: secondsFromNow(3600) });
    const tokens = openAzureIdentity({ name: "z", clientId: "c" }, exchange, METADATA);
    const both = await Promise.all([tokens.getToken(SCOPE), tokens.getToken(SCOPE)]);
    expect(both.map(({ token }) => token)).toEqual(["token-1", "token-1"]);
    await tokens.getToken(SCOPE);
    expect(asked).toHaveLength(1);
    const { searchParams, pathname } = new URL(asked[0]!.url);
    expect(pathname).toBe("/metadata/identity/oauth2/token");
    expect(searchParams.get("resource")).toBe("https://storage.azure.com/");
    expect(searchParams.get("client_id")).toBe("c");
    expect(asked[0]!.headers.get("metadata")).toBe("true");
  });

  test("is asked for again before its token ends", async () => {
    asked.length = 0;
    answer = () => Response.json({ access_token: "short", expires_in: 200 });
    const tokens = openAzureIdentity({ name: "z" }, exchange, METADATA);
    await tokens.getToken(SCOPE);
    await tokens.getToken(SCOPE);
    expect(asked).toHaveLength(2);
  });

  test("of a pod exchanges the token of its file, and of an app comes from its endpoint", async () => {
    const tokenFile = join(DIRECTORY, "pod-token");
    await writeFile(tokenFile, "pod's token\n");
    const bodies: URLSearchParams[] = [];
    answer = (_, body) => {
      bodies.push(new URLSearchParams(body));
      return Response.json({ access_token: "token-2", expires_in: 3600 });
    };
    const pod = openAzureIdentity({ name: "z" }, exchange, {
      AZURE_FEDERATED_TOKEN_FILE: tokenFile,
      AZURE_CLIENT_ID: "client",
      AZURE_TENANT_ID: "tenant",
      AZURE_AUTHORITY_HOST: `${stub.url.origin}/`,
    });
    expect(await pod.getToken(SCOPE)).toHaveProperty("token", "token-2");
    expect(new URL(asked.at(-1)!.url).pathname).toBe("/tenant/oauth2/v2.0/token");
    expect(bodies[0]?.get("client_assertion")).toBe("pod's token");
    expect(bodies[0]?.get("client_id")).toBe("client");
    const app = openAzureIdentity({ name: "z" }, exchange, {
      IDENTITY_ENDPOINT: `${stub.url.origin}/msi/token`,
      IDENTITY_HEADER: "proof",
    });
    expect(await app.getToken(SCOPE)).toHaveProperty("token", "token-2");
    expect(asked.at(-1)!.headers.get("x-identity-header")).toBe("proof");
  });

  test("that is not there is an error that says so, and whether it may come", async () => {
    const tokens = openAzureIdentity({ name: "z" }, exchange, METADATA);
    for (const [status, kind] of [
      [400, "permission"],
      [403, "permission"],
      [429, "unavailable"],
      [503, "unavailable"],
    ] as const) {
      answer = () => Response.json({ error: "invalid_request" }, { status });
      expect(await thrownBy(tokens.getToken(SCOPE))).toHaveProperty("kind", kind);
    }
    answer = () => new Response("no JSON");
    expect(await thrownBy(tokens.getToken(SCOPE))).toHaveProperty("kind", "permission");
  });
});

if ("missing" in server) {
  test.skip(`Azure's emulator over TLS [needs ${server.missing}]`, () => undefined);
} else {
  const { container, account, endpoint, caFile = "" } = server;
  test("a site works by it over TLS, batches included, and says when it is refused", async () => {
    process.env["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = stub.url.origin;
    try {
      const address = { name: "z", container, account, endpoint, caFile };
      const open = async () => await openAzureSite({ ...address, identity: "machine" });
      answer = () =>
        Response.json({ access_token: tokenFor("https://storage.azure.com"), expires_in: 3600 });
      await using site = await open();
      expect(await site.put("by-token", text("1"))).toBe("created");
      expect(await site.put("by-token", text("2"))).toBe("exists");
      expect(await site.get("by-token")).toEqual(text("1"));
      expect(await site.copying!.copyFrom(site.copying!.place, "by-token", "copy")).toBe("created");
      expect(await site.get("copy")).toEqual(text("1"));
      expect(await keysOf(site, "")).toEqual(["by-token", "copy"]);
      await site.delete(["by-token", "copy", "never"]);
      expect(await site.head("by-token")).toBeUndefined();
      answer = () =>
        Response.json({ access_token: tokenFor("https://elsewhere"), expires_in: 3600 });
      await using wrong = await open();
      expect(await thrownBy(wrong.get("a"))).toHaveProperty("kind", "permission");
      answer = () => new Response("no identity", { status: 400 });
      await using none = await open();
      expect(await thrownBy(none.get("a"))).toHaveProperty("kind", "permission");
    } finally {
      delete process.env["AZURE_POD_IDENTITY_AUTHORITY_HOST"];
    }
  });

  test("an authority that is not known is said to be that", async () => {
    const { accountKey } = server;
    await using site = await openAzureSite({ name: "z", container, account, endpoint, accountKey });
    expect(await thrownBy(site.get("a"))).toMatchObject({ kind: "config", retryable: false });
  });
}

/** A token as the emulator wants it; its signature is nobody's. */
function tokenFor(audience: string): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const now = Math.floor(Date.now() / 1000);
  const claims = {
    aud: audience,
    iss: "https://sts.windows.net/00000000-0000-0000-0000-000000000000/",
    iat: now - 60,
    nbf: now - 60,
    exp: now + 3600,
  };
  return `${part({ alg: "RS256", typ: "JWT" })}.${part(claims)}.${Buffer.from("none").toString("base64url")}`;
}

function secondsFromNow(seconds: number): string {
  return String(Math.floor(Date.now() / 1000) + seconds);
}
