/**
 * Credentials that come and go, as the SDK gets them: a web identity whose token lies in a file, and a
 * container's role, from the STS of a real MinIO; and those that end in the middle of an operation.
 */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "bun:test";
import type { RealS3 } from "../../scripts/real/s3.ts";
import { until } from "../../scripts/real/server-process.ts";
import { realClock } from "../../src/base/clock.ts";
import { realRandom } from "../../src/base/random.ts";
import { retryingSite } from "../../src/sites/retrying-site.ts";
import { openS3Site } from "../../src/sites/s3-site.ts";
import type { Site } from "../../src/sites/site.ts";
import { keysOf, text, thrownBy } from "./contract.ts";
import { CLIENT_ID, startIdentityProvider } from "./identity-provider.ts";
import { realServers } from "./s3-real.ts";

const TIMEOUT_MS = 60_000;
const FOLDER = mkdtempSync(join(tmpdir(), "astacus-credentials-"));
const provider = await startIdentityProvider();
afterAll(async () => {
  await provider[Symbol.asyncDispose]();
  rmSync(FOLDER, { recursive: true });
});

/** MinIO names the role of a provider by its client. */
const ROLE = `arn:minio:iam:::role/${createHash("sha1").update(CLIENT_ID).digest("base64url")}`;

const environment = {
  MINIO_IDENTITY_OPENID_CONFIG_URL: provider.configUrl,
  MINIO_IDENTITY_OPENID_CLIENT_ID: CLIENT_ID,
  MINIO_IDENTITY_OPENID_ROLE_POLICY: "readwrite",
};

const VARIABLES = [
  "AWS_ACCESS_KEY_ID",
  "AWS_SECRET_ACCESS_KEY",
  "AWS_SESSION_TOKEN",
  "AWS_PROFILE",
  "AWS_ROLE_ARN",
  "AWS_WEB_IDENTITY_TOKEN_FILE",
  "AWS_ENDPOINT_URL_STS",
  "AWS_CONTAINER_CREDENTIALS_FULL_URI",
  "AWS_CONFIG_FILE",
  "AWS_SHARED_CREDENTIALS_FILE",
  "AWS_EC2_METADATA_DISABLED",
] as const;

const before = new Map(VARIABLES.map((name) => [name, process.env[name]]));

/** Nothing of the machine that runs the test, and these. */
function setEnvironment(values: Partial<Record<(typeof VARIABLES)[number], string>>): void {
  const none = { AWS_CONFIG_FILE: join(FOLDER, "none"), AWS_EC2_METADATA_DISABLED: "true" };
  const all = { ...none, AWS_SHARED_CREDENTIALS_FILE: join(FOLDER, "none"), ...values };
  for (const name of VARIABLES) {
    const value = (all as Partial<Record<string, string>>)[name];
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
}

afterEach(() => {
  for (const [name, value] of before) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
});

for (const real of await realServers(["MinIO"], { environment })) {
  describe("a site of MinIO", () => {
    test(
      "is opened with a web identity, whose token is read again as it changes",
      async () => {
        const file = join(FOLDER, "token");
        setEnvironment({
          AWS_ROLE_ARN: ROLE,
          AWS_WEB_IDENTITY_TOKEN_FILE: file,
          AWS_ENDPOINT_URL_STS: real.endpoint,
        });
        await using site = await openByEnvironment(real, "web");
        writeFileSync(file, await provider.token(2));
        await site.put("0", text("x"));
        const endMs = Date.now() + 3_000;
        writeFileSync(file, await provider.token(3600));
        let count = 1;
        await until("the first credentials have ended", 20_000, async () => {
          expect(await site.put(`${count}`, text("x"))).toBe("created");
          count += 1;
          return Date.now() > endMs;
        });
        expect((await keysOf(site, "")).length).toBe(count);
      },
      TIMEOUT_MS,
    );

    test(
      "goes on when a role's credentials end sooner than was said, in the middle of all requests",
      async () => {
        let given = 0;
        const role = Bun.serve({
          hostname: "127.0.0.1",
          port: 0,
          fetch: async () => {
            given += 1;
            const credentials = await assumeRole(real, given === 1 ? 2 : 3600);
            const Expiration = new Date(Date.now() + 7_200_000).toISOString();
            return Response.json({ ...credentials, Expiration });
          },
        });
        setEnvironment({ AWS_CONTAINER_CREDENTIALS_FULL_URI: `${role.url.origin}/credentials` });
        await using site = await openByEnvironment(real, "container");
        const keys: string[] = [];
        // All kinds of requests at once, so that many fail with the same old credentials.
        await until("the first credentials have ended", 30_000, async () => {
          const round = Array.from({ length: 6 }, (_, index) => `k/${keys.length + index}`);
          keys.push(...round);
          await Promise.all(
            round.map(async (key) => {
              await site.put(key, text(key));
              expect((await site.head(key))?.sizeBytes).toBe(key.length);
              expect(await site.get(key)).toEqual(text(key));
            }),
          );
          return given === 2;
        });
        expect(given).toBe(2);
        expect((await keysOf(site, "k/")).length).toBe(keys.length);
        await role.stop(true);
      },
      TIMEOUT_MS,
    );

    test("says what is wrong where a role gives what the store does not know", async () => {
      let given = 0;
      const role = Bun.serve({
        hostname: "127.0.0.1",
        port: 0,
        fetch: () => {
          given += 1;
          const Expiration = new Date(Date.now() + 7_200_000).toISOString();
          const keys = { AccessKeyId: `nobody-${given}`, SecretAccessKey: "x", Token: "t" };
          return Response.json({ ...keys, Expiration });
        },
      });
      setEnvironment({ AWS_CONTAINER_CREDENTIALS_FULL_URI: `${role.url.origin}/credentials` });
      await using site = await openByEnvironment(real, "nobody");
      expect(await thrownBy(site.put("a", text("x")))).toMatchObject({
        kind: "permission",
        retryable: false,
      });
      expect(given).toBe(2);
      await role.stop(true);
    });

    test("asks for credentials where there are none", async () => {
      setEnvironment({});
      await using site = await openByEnvironment(real, "none");
      const error = await thrownBy(site.get("a"));
      expect(error).toMatchObject({ kind: "config", retryable: false });
      expect(error).toHaveProperty("guidance", expect.stringContaining("role"));
    });
  });
}

async function openByEnvironment(real: RealS3, prefix: string): Promise<Site> {
  const { endpoint, bucket } = real;
  const place = { name: "real", endpoint, bucket, prefix, forcePathStyle: true };
  const doors = { clock: realClock, random: realRandom };
  return retryingSite(await openS3Site(place), { ...doors, baseMs: 20, maxMs: 100 });
}

/** Credentials of MinIO's STS that end after so many seconds. */
async function assumeRole(real: RealS3, seconds: number): Promise<Record<string, string>> {
  const form = new URLSearchParams({
    Action: "AssumeRoleWithWebIdentity",
    Version: "2011-06-15",
    RoleArn: ROLE,
    WebIdentityToken: await provider.token(seconds),
  });
  const answer = await fetch(real.endpoint, { method: "POST", body: form });
  const xml = await answer.text();
  const pick = (name: string): string =>
    new RegExp(`<${name}>(.*?)</${name}>`).exec(xml)?.[1] ?? "";
  return {
    AccessKeyId: pick("AccessKeyId"),
    SecretAccessKey: pick("SecretAccessKey"),
    Token: pick("SessionToken"),
  };
}
