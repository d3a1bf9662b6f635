/**
 * An OpenID provider for tests: a discovery page, one key, and tokens that end when one likes. What a
 * cluster's own provider does for the web identity of a machine.
 */

/** A provider that runs. */
export type IdentityProvider = AsyncDisposable & {
  readonly configUrl: string;
  /** A token for the test's client that ends after so many seconds. */
  token(seconds: number): Promise<string>;
};

/** The client's name, as the server that trusts the provider is told. */
export const CLIENT_ID = "astacus-test-client";

const ALGORITHM = { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" } as const;

/** Starts a provider on loopback. */
export async function startIdentityProvider(): Promise<IdentityProvider> {
  const pair = await crypto.subtle.generateKey(
    { ...ALGORITHM, modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]) },
    true,
    ["sign", "verify"],
  );
  const { kty, n, e } = await crypto.subtle.exportKey("jwk", pair.publicKey);
  const key = { kty, n, e, kid: "test", alg: "RS256", use: "sig" };
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: ({ url }): Response => {
      const { origin: issuer, pathname } = new URL(url);
      if (pathname === "/keys") return Response.json({ keys: [key] });
      return Response.json({
        issuer,
        jwks_uri: `${issuer}/keys`,
        authorization_endpoint: `${issuer}/authorize`,
        token_endpoint: `${issuer}/token`,
        response_types_supported: ["id_token"],
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: ["RS256"],
      });
    },
  });
  const issuer = server.url.origin;
  return {
    configUrl: `${issuer}/.well-known/openid-configuration`,
    async token(seconds) {
      const now = Math.floor(Date.now() / 1000);
      const claims = { iss: issuer, sub: "node-a", aud: CLIENT_ID, azp: CLIENT_ID };
      const times = { iat: now, exp: now + seconds, policy: "readwrite" };
      const head = encode({ alg: "RS256", typ: "JWT", kid: "test" });
      const signed = `${head}.${encode({ ...claims, ...times })}`;
      const bytes = new TextEncoder().encode(signed);
      const signature = await crypto.subtle.sign(ALGORITHM, pair.privateKey, bytes);
      return `${signed}.${Buffer.from(signature).toString("base64url")}`;
    },
    async [Symbol.asyncDispose]() {
      await server.stop(true);
    },
  };
}

function encode(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}
