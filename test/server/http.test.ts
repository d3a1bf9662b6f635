/**
 * The routes of /v1 over a scripted node: what they take, what they answer, how they fail.
 */
import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import { Secret } from "../../src/base/secret.ts";
import { realClock } from "../../src/base/clock.ts";
import * as schemas from "../../src/server/answer-schemas.ts";
import { createHttpNetwork } from "../../src/server/http-network.ts";
import { listen } from "../../src/server/listen.ts";
import { renderOpenApi } from "../../src/server/openapi.ts";
import { createApp } from "../../src/server/app.ts";
import { ROUTES } from "../../src/server/routes.ts";
import type { OperationRecord } from "../../src/cluster/operations.ts";
import { BACKUP, createTestServer, TOKENS } from "./fake-node.ts";

const bodyOf = async (response: Response): Promise<unknown> => await response.json();

describe("answers have the shape that is documented", () => {
  test("of backups", async () => {
    const { ask } = createTestServer();
    const all = schemas.backupsSchema.parse(await bodyOf(await ask("GET", "/v1/backups")));
    expect(all.backups.map((backup) => backup.name)).toEqual(["nightly"]);
    schemas.backupDetailSchema.parse(await bodyOf(await ask("GET", "/v1/backups/nightly")));
  });

  test("of an operation that was started, and of its end", async () => {
    const { ask, fake } = createTestServer();
    const answer = await ask("POST", "/v1/backups", { body: { name: "mine" } });
    expect(answer.status).toBe(202);
    const record = schemas.operationSchema.parse(await bodyOf(answer));
    expect(record.kind).toBe("backup");
    expect(fake.calls).toEqual([{ method: "backup", request: { name: "mine" } }]);
    await fake.operations.wait(record.id);
    const ended = schemas.operationSchema.parse(
      await bodyOf(await ask("GET", `/v1/operations/${record.id}`)),
    );
    expect(ended.state).toBe("done");
  });

  test("of status and plans", async () => {
    const { ask } = createTestServer();
    schemas.statusSchema.parse(await bodyOf(await ask("GET", "/v1/status")));
    const plan = await ask("POST", "/v1/restores/plan", { body: { backup: "nightly" } });
    schemas.restorePlanSchema.parse(await bodyOf(plan));
  });

  test("of errors", async () => {
    const { ask } = createTestServer();
    const answer = await ask("GET", "/v1/backups/nothing");
    expect(answer.status).toBe(404);
    const error = schemas.errorAnswerSchema.parse(await bodyOf(answer));
    expect(error).toMatchObject({ code: "not-found", message: "There is no backup nothing." });
  });
});

describe("requests are checked before anything happens", () => {
  test("an unknown field names itself", async () => {
    const { ask, fake } = createTestServer();
    const answer = await ask("POST", "/v1/backups", { body: { nane: "x" } });
    expect(answer.status).toBe(400);
    expect(await bodyOf(answer)).toMatchObject({ code: "invalid-request" });
    expect(fake.calls).toEqual([]);
  });

  test("what is not JSON is told so", async () => {
    const { ask } = createTestServer();
    const answer = await ask("POST", "/v1/backups", { text: "{nane" });
    expect(answer.status).toBe(400);
  });

  test("a body beyond the limit is refused with 413", async () => {
    const { ask, context } = createTestServer();
    const large = "x".repeat(context.config().limits.requestBodyBytes);
    const answer = await ask("POST", "/v1/backups", { body: { name: large } });
    expect(answer.status).toBe(413);
  });

  test("an empty body is as good as {}", async () => {
    const { ask } = createTestServer();
    expect((await ask("POST", "/v1/backups")).status).toBe(202);
  });

  test("retention of a cleanup replaces single rules of the configuration", async () => {
    const { ask, fake } = createTestServer();
    await ask("POST", "/v1/cleanups", { body: { dryRun: true, retention: { minimum: 0 } } });
    expect(fake.calls).toEqual([
      { method: "cleanup", request: { dryRun: true, retention: { minimum: 0, keepDays: 3 } } },
    ]);
  });

  test("a verification is of the database or of every byte, not of both", async () => {
    const { ask, fake } = createTestServer();
    const both = { deep: true, database: true };
    expect((await ask("POST", "/v1/verifications", { body: both })).status).toBe(400);
    expect(fake.calls).toEqual([]);
    await ask("POST", "/v1/verifications", { body: { database: true, backup: "x" } });
    expect(fake.calls).toEqual([
      { method: "verify", request: { backup: "x", deep: false, database: true } },
    ]);
  });

  test("an unknown path names the nearest, a wrong method the right ones", async () => {
    const { ask } = createTestServer();
    expect(await bodyOf(await ask("GET", "/v1/backup"))).toMatchObject({
      guidance: "Did you mean /v1/backups?",
    });
    expect((await ask("GET", "/v1/cleanups")).status).toBe(405);
  });
});

describe("an operation", () => {
  test("streams its events as NDJSON until its end", async () => {
    const { ask, fake } = createTestServer();
    const gate = Promise.withResolvers<void>();
    fake.work = async (context) => {
      await gate.promise;
      context.progress({ phase: "store", bytes: 5 });
      context.say("half way");
      return { well: true };
    };
    const { id } = (await bodyOf(await ask("POST", "/v1/backups"))) as OperationRecord;
    const stream = await ask("GET", `/v1/operations/${id}/events`);
    expect(stream.headers.get("content-type")).toBe("application/x-ndjson");
    gate.resolve();
    const lines = (await stream.text()).trim().split("\n").map(parse);
    expect(lines.map((line) => line["type"])).toEqual(["progress", "progress", "message", "end"]);
    expect(lines.at(-1)).toMatchObject({ record: { id, state: "done", result: { well: true } } });
  });

  test("streams server-sent events where they are asked for", async () => {
    const { ask, fake } = createTestServer();
    const { id } = (await bodyOf(await ask("POST", "/v1/backups"))) as OperationRecord;
    await fake.operations.wait(id);
    const headers = { accept: "text/event-stream" };
    const stream = await ask("GET", `/v1/operations/${id}/events`, { headers });
    expect(stream.headers.get("content-type")).toBe("text/event-stream");
    expect(await stream.text()).toStartWith(`event: end\ndata: {"type":"end"`);
  });

  for (const [method, suffix] of [
    ["POST", "/cancel"],
    ["DELETE", ""],
  ] as const) {
    test(`is cancelled by ${method}, once`, async () => {
      const { ask, fake } = createTestServer();
      fake.work = async ({ signal }) => await untilAborted(signal);
      const { id } = (await bodyOf(await ask("POST", "/v1/backups"))) as OperationRecord;
      const path = `/v1/operations/${id}${suffix}`;
      expect((await ask(method, path, { body: { reason: "a test" } })).status).toBe(202);
      expect(await fake.operations.wait(id)).toMatchObject({ state: "cancelled" });
      expect((await ask(method, path)).status).toBe(409);
    });
  }

  test("that nobody knows is 404", async () => {
    const { ask } = createTestServer();
    expect((await ask("GET", `/v1/operations/${"0".repeat(32)}`)).status).toBe(404);
  });

  test("is refused with the reason of the node", async () => {
    const { ask, fake } = createTestServer();
    fake.refusal = new AppError("conflict", "A backup is running.", {
      context: { reason: "lease-held" },
    });
    const answer = await ask("POST", "/v1/backups");
    expect(answer.status).toBe(409);
    expect(await bodyOf(answer)).toMatchObject({ code: "lease-held" });
  });
});

describe("marks", () => {
  for (const [method, path, kind] of [
    ["DELETE", "/v1/backups/nightly", "delete"],
    ["POST", "/v1/backups/nightly/pin", "pin"],
    ["POST", "/v1/backups/nightly/unpin", "unpin"],
    ["POST", "/v1/backups/2026-01-01T00%3A00%3A00Z/undelete", "undelete"],
  ] as const) {
    test(`${method} ${path} starts ${kind}`, async () => {
      const { ask, fake } = createTestServer();
      expect((await ask(method, path, { body: { reason: "why not" } })).status).toBe(202);
      const name = kind === "undelete" ? "2026-01-01T00:00:00Z" : "nightly";
      expect(fake.calls).toEqual([
        { method: kind, request: { backups: [name], reason: "why not" } },
      ]);
    });
  }
});

test("the API is described by OpenAPI, with every route and its checks", () => {
  const document = renderOpenApi(ROUTES, "1.2.3");
  const paths = document["paths"] as Record<string, Record<string, Record<string, unknown>>>;
  const described = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  );
  const registered = ROUTES.map(
    (route) => `${route.method} ${route.path.replaceAll(/:(\w+)/g, "{$1}")}`,
  );
  expect(described.toSorted()).toEqual(registered.toSorted());
  expect(JSON.stringify(paths["/v1/cleanups"]?.["post"]?.["requestBody"])).toContain("dryRun");
});

describe("calls between nodes", () => {
  const withServer = async (
    tokens: boolean,
    work: (url: string, fake: ReturnType<typeof createTestServer>["fake"]) => Promise<void>,
  ): Promise<void> => {
    const { context, fake } = createTestServer({ tokens });
    const app = createApp(context);
    const place = { host: "127.0.0.1", port: 0, tls: undefined };
    const listener = listen(place, (request, bindings) => app.fetch(request, bindings));
    try {
      await work(listener.url, fake);
    } finally {
      await listener.stop(true);
    }
  };
  const network = (token?: string) =>
    createHttpNetwork({
      fetch,
      clock: realClock,
      token: () => (token === undefined ? undefined : new Secret(token)),
    });

  test("bring events, then the result", async () => {
    await withServer(true, async (url, fake) => {
      fake.handle = async (method, body, { emit }) => {
        emit({ files: 1 });
        emit({ files: 2 });
        return { method, body: body as string };
      };
      const events: unknown[] = [];
      const result = await network(TOKENS.node).call(
        url,
        "phase",
        { a: 1 },
        {
          timeoutMs: 5000,
          onEvent: (event) => events.push(event),
        },
      );
      expect(result).toEqual({ method: "phase", body: { a: 1 } });
      expect(events).toEqual([{ files: 1 }, { files: 2 }]);
    });
  });

  test("bring errors as they were thrown", async () => {
    await withServer(false, async (url, fake) => {
      fake.handle = async () => {
        throw new AppError("conflict", "Held.", { context: { reason: "lease-held" } });
      };
      const call = network().call(url, "lease", {}, { timeoutMs: 5000 });
      expect(call).rejects.toMatchObject({
        kind: "conflict",
        message: "Held.",
        retryable: false,
        context: { reason: "lease-held" },
      });
      await call.catch(() => undefined);
    });
  });

  test("are refused without the node's token", async () => {
    await withServer(true, async (url, fake) => {
      for (const token of [undefined, TOKENS.read, "something-else-0123456789"]) {
        const thrown: unknown = await network(token)
          .call(url, "hello", {}, { timeoutMs: 5000 })
          .catch((error: unknown) => error);
        expect(thrown).toMatchObject({ kind: "permission", retryable: false });
      }
      expect(fake.calls).toEqual([]);
    });
  });

  test("end when their time is over, and when the caller gives up", async () => {
    await withServer(false, async (url, fake) => {
      fake.handle = async (_, __, { signal }) => await untilAborted(signal);
      const late: unknown = await network()
        .call(url, "phase", {}, { timeoutMs: 50 })
        .catch((error: unknown) => error);
      expect(late).toMatchObject({ kind: "timeout", retryable: true });
      const abort = new AbortController();
      const call = network().call(url, "phase", {}, { timeoutMs: 5000, signal: abort.signal });
      abort.abort(new AppError("cancelled", "Enough."));
      expect(await call.catch((error: unknown) => error)).toMatchObject({ kind: "cancelled" });
    });
  });

  test("to where nothing listens are unavailable, and may be repeated", async () => {
    const call = network().call("http://127.0.0.1:9", "hello", {}, { timeoutMs: 5000 });
    expect(await call.catch((error: unknown) => error)).toMatchObject({
      kind: "unavailable",
      retryable: true,
    });
  });

  test("that fall silent are broken off", async () => {
    const server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      idleTimeout: 0,
      fetch: () =>
        new Response(new ReadableStream({ start: (c) => c.enqueue('{"beat":true}\n') }), {
          headers: { "content-type": "application/x-ndjson" },
        }),
    });
    try {
      // Time runs a thousand times as fast as on the wall.
      const clock = {
        ...realClock,
        sleep: (ms: number, signal?: AbortSignal) => realClock.sleep(ms / 1000, signal),
      };
      const fast = createHttpNetwork({ fetch, clock, token: () => undefined });
      const call = fast.call(server.url.origin, "phase", {}, { timeoutMs: 10_000_000 });
      expect(await call.catch((error: unknown) => error)).toMatchObject({
        kind: "unavailable",
        retryable: true,
        message: expect.stringContaining("said nothing"),
      });
    } finally {
      await server.stop(true);
    }
  });
});

test("the fixture is a backup as the schema has it", () => {
  expect(schemas.backupSummarySchema.parse(BACKUP)).toEqual(BACKUP);
});

async function untilAborted(signal: AbortSignal): Promise<never> {
  const { promise, resolve } = Promise.withResolvers<void>();
  signal.addEventListener("abort", () => resolve());
  await promise;
  throw signal.reason;
}

function parse(line: string): Record<string, unknown> {
  return JSON.parse(line) as Record<string, unknown>;
}
