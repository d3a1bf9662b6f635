/**
 * Tokens for Google Cloud Storage: of service accounts, federated identities and the machine, from
 * stubs of the addresses that give them.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openGcsCredentials } from "../../src/sites/gcs-credentials.ts";
import { openGcsSite, type GcsSiteOptions } from "../../src/sites/gcs-site.ts";
import type { HttpAnswer, HttpRequest } from "../../src/sites/http-exchange.ts";
import { text, thrownBy } from "./contract.ts";

const DIRECTORY = await mkdtemp(join(tmpdir(), "astacus-gcs-credentials-"));

let answer: (request: Request) => Response = () => new Response();
const stub = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: (request) => answer(request) });
afterAll(async () => {
  await stub.stop(true);
  await rm(DIRECTORY, { recursive: true });
});

const bare: GcsSiteOptions = { name: "stub", bucket: "bucket", endpoint: stub.url.origin };

describe("a GCS site's credentials", () => {
  test("shows a service account's token, which is fetched once", async () => {
    const asked: string[] = [];
    const exchange = {
      send: async (request: HttpRequest): Promise<HttpAnswer> => {
        asked.push(request.url);
        return tokenAnswer("token-1");
      },
    };
    const key = serviceAccountKey();
    const credentialsFile = join(DIRECTORY, "key.json");
    await writeFile(credentialsFile, key);
    for (const account of [{ credentials: key }, { credentialsFile }]) {
      const headers = await openGcsCredentials({ name: "stub", ...account }, exchange);
      for (const name of ["a", "b"]) {
        const proof = await headers(`https://storage.googleapis.com/${name}`);
        expect(proof).toEqual({ authorization: "Bearer token-1" });
      }
    }
    expect(asked).toEqual(Array.from({ length: 2 }, () => "https://oauth2.googleapis.com/token"));
  });

  test("shows the token that a federated identity is exchanged for", async () => {
    const seen: (string | null)[] = [];
    answer = (request) => {
      seen.push(request.headers.get("authorization"));
      if (new URL(request.url).pathname !== "/exchange") return new Response("x");
      const issued_token_type = "urn:ietf:params:oauth:token-type:access_token";
      const token = { access_token: "token-2", token_type: "Bearer", expires_in: 3600 };
      return Response.json({ ...token, issued_token_type });
    };
    const tokenFile = join(DIRECTORY, "identity-token");
    await writeFile(tokenFile, "who I am");
    const credentials = JSON.stringify({
      type: "external_account",
      audience:
        "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
      subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
      token_url: `${stub.url.origin}/exchange`,
      credential_source: { file: tokenFile },
    });
    await using federated = await openGcsSite({ ...bare, credentials });
    expect(await federated.get("a")).toEqual(text("x"));
    expect(seen.at(-1)).toBe("Bearer token-2");
  });

  // The library looks in other places first, and waits for some.
  test("asks the machine's metadata server where no credentials are named", async () => {
    answer = (request) => {
      const { pathname } = new URL(request.url);
      const headers = { "metadata-flavor": "Google" };
      if (pathname.endsWith("/token")) {
        const token = { access_token: "token-3", token_type: "Bearer", expires_in: 3600 };
        return Response.json(token, { headers });
      }
      const proof = request.headers.get("authorization") ?? "nothing";
      return new Response(proof, { headers });
    };
    process.env["GCE_METADATA_HOST"] = stub.url.host;
    try {
      await using machine = await openGcsSite(bare);
      expect(await machine.get("a")).toEqual(text("Bearer token-3"));
    } finally {
      delete process.env["GCE_METADATA_HOST"];
    }
  }, 30_000);

  test("says why it has no token, and whether one may come later", async () => {
    let status = 400;
    let askedCount = 0;
    const exchange = {
      send: async (): Promise<HttpAnswer> => {
        askedCount += 1;
        if (status === 0) throw Object.assign(new Error("no route"), { code: "ENOTFOUND" });
        const bytes = text(JSON.stringify({ error: "invalid_grant" }));
        return { status, headers: new Headers({ "content-type": "application/json" }), bytes };
      },
    };
    const account = { name: "stub", credentials: serviceAccountKey() };
    const headers = await openGcsCredentials(account, exchange);
    const refused = await thrownBy(headers("https://storage.googleapis.com/"));
    expect(refused).toMatchObject({ kind: "permission", retryable: false });
    expect(Bun.inspect(refused)).not.toContain("PRIVATE KEY");
    for (const passing of [503, 429, 0]) {
      status = passing;
      const error = await thrownBy(headers("https://storage.googleapis.com/"));
      expect(error).toMatchObject({ kind: "unavailable", retryable: true });
    }
    // Once each: retrying-site.ts waits and asks again.
    expect(askedCount).toBe(4);
  });
});

function serviceAccountKey(): string {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  return JSON.stringify({
    type: "service_account",
    private_key: privateKey.export({ type: "pkcs8", format: "pem" }),
    client_email: "test@test.iam.gserviceaccount.com",
  });
}

function tokenAnswer(token: string): HttpAnswer {
  const body = { access_token: token, token_type: "Bearer", expires_in: 3600 };
  const headers = new Headers({ "content-type": "application/json" });
  return { status: 200, headers, bytes: text(JSON.stringify(body)) };
}
