/**
 * Who may do what: with tokens by role, without them this machine only.
 */
import { describe, expect, test } from "bun:test";
import { ROUTES } from "../../src/server/routes.ts";
import { createTestServer, TOKENS } from "./fake-node.ts";

const pathOf = (route: (typeof ROUTES)[number]): string =>
  route.path.replaceAll(/:id/g, "0".repeat(32)).replaceAll(/:\w+/g, "nightly");

describe("with tokens", () => {
  test("every route but those for health refuses a request without one", async () => {
    const { ask, fake } = createTestServer({ tokens: true });
    const open: string[] = [];
    for (const route of ROUTES) {
      const answer = await ask(route.method, pathOf(route));
      if (answer.status !== 401) open.push(route.path);
      else expect(answer.headers.get("www-authenticate")).toBe("Bearer");
    }
    expect(open).toEqual(["/healthz", "/readyz"]);
    expect(fake.calls).toEqual([]);
  });

  test("the original's routes refuse it, too", async () => {
    const { ask, fake } = createTestServer({ tokens: true });
    for (const [method, path] of [
      ["GET", "/"],
      ["POST", "/backup"],
      ["POST", "/restore"],
      ["POST", "/cleanup"],
      ["GET", "/list"],
      ["GET", "/busy"],
      ["POST", "/config/reload"],
      ["GET", "/config/status"],
      ["GET", "/backup/1"],
      ["POST", "/lock"],
      ["POST", "/node/clear"],
    ] as const) {
      expect((await ask(method, path)).status).toBe(401);
    }
    expect(fake.calls).toEqual([]);
  });

  test("one that nobody gave out is refused", async () => {
    const { ask } = createTestServer({ tokens: true });
    for (const token of [
      "x",
      `${TOKENS.admin}x`,
      TOKENS.admin.slice(1),
      TOKENS.admin.toUpperCase(),
    ]) {
      const answer = await ask("GET", "/v1/backups", { token });
      expect(answer.status).toBe(401);
      expect(await answer.json()).toMatchObject({ code: "token-unknown" });
    }
  });

  test("each role may do what is its own, and no more", async () => {
    const roles = { admin: ["admin", "read"], read: ["read"], node: ["node"] } as const;
    for (const [role, allowed] of Object.entries(roles)) {
      for (const route of ROUTES.filter((each) => each.access !== "open")) {
        const { ask } = createTestServer({ tokens: true });
        const token = TOKENS[role as keyof typeof TOKENS];
        const { status } = await ask(route.method, pathOf(route), { token });
        const isAllowed = (allowed as readonly string[]).includes(route.access);
        expect({ role, path: route.path, refused: status === 403 }).toEqual({
          role,
          path: route.path,
          refused: !isAllowed,
        });
      }
    }
  });

  test("a foreign Host is no matter: the token decides", async () => {
    const { ask } = createTestServer({ tokens: true });
    const headers = { host: "db1.example.com:5515" };
    expect((await ask("GET", "/v1/backups", { token: TOKENS.read, headers })).status).toBe(200);
  });
});

describe("without tokens", () => {
  test("every name of this machine is served", async () => {
    const { ask } = createTestServer();
    for (const host of ["localhost:5515", "127.0.0.1:5515", "[::1]:5515", "localhost"]) {
      expect((await ask("GET", "/v1/backups", { headers: { host } })).status).toBe(200);
    }
  });

  test("a foreign Host is refused on every route", async () => {
    const { ask } = createTestServer();
    const hosts = [
      "evil.example",
      "localhost.evil.example",
      "10.0.0.1:5515",
      "127.0.0.1.nip.io",
      "",
    ];
    for (const host of hosts) {
      for (const [method, path] of [
        ["GET", "/v1/backups"],
        ["GET", "/healthz"],
        ["POST", "/backup"],
        ["GET", "/openapi.json"],
        ["GET", "/nothing"],
      ] as const) {
        const answer = await ask(method, path, { headers: { host } });
        expect({ host, path, status: answer.status }).toEqual({ host, path, status: 403 });
      }
    }
  });

  test("a foreign Origin is refused, our own is not", async () => {
    const { ask, fake } = createTestServer();
    for (const origin of ["https://evil.example", "null", "http://localhost:3000"]) {
      const answer = await ask("POST", "/backup", { headers: { origin } });
      expect({ origin, status: answer.status }).toEqual({ origin, status: 403 });
    }
    expect(fake.calls).toEqual([]);
    const headers = { origin: "http://localhost:5515" };
    expect((await ask("GET", "/v1/backups", { headers })).status).toBe(200);
  });
});
