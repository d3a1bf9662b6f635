/**
 * The real outside: commands with deadlines and bounded output, fetch with timeouts.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { realClock } from "../../src/base/clock.ts";
import { AppError } from "../../src/base/error.ts";
import { realOutside } from "../../src/base/outside.ts";

/** Long enough for a slow machine; no test waits for it. */
const LONG_MS = 30_000;

describe("run", () => {
  test("gives exit code, output and errors, and hands the input over", async () => {
    const input = new TextEncoder().encode("given");
    const script = "cat; echo bad >&2; exit 3";
    const result = await realOutside.run(["sh", "-c", script], { timeoutMs: LONG_MS, input });
    expect(result.exitCode).toBe(3);
    expect(text(result.stdout)).toBe("given");
    expect(text(result.stderr)).toBe("bad\n");
  });

  test("ends a command that takes too long", async () => {
    expect(await kindOf(realOutside.run(["sleep", "1000"], { timeoutMs: 20 }))).toBe("timeout");
  });

  test("ends the children of a command with it", async () => {
    const root = mkdtempSync(`${tmpdir()}/astacus-outside-`);
    try {
      const script = `sleep 1000 & echo $! > ${root}/pid; mv ${root}/pid ${root}/child; wait`;
      const controller = new AbortController();
      const { signal } = controller;
      const running = realOutside.run(["sh", "-c", script], { timeoutMs: LONG_MS, signal });
      while (!existsSync(`${root}/child`)) await realClock.sleep(1);
      controller.abort(new AppError("cancelled", "enough"));
      expect(await kindOf(running)).toBe("cancelled");
      const child = Number(readFileSync(`${root}/child`, "utf8"));
      while (isAlive(child)) await realClock.sleep(1);
    } finally {
      rmSync(root, { recursive: true });
    }
  });

  test("ends a command with the reason of the signal", async () => {
    const controller = new AbortController();
    const { signal } = controller;
    const running = realOutside.run(["sleep", "1000"], { timeoutMs: LONG_MS, signal });
    controller.abort(new AppError("cancelled", "enough"));
    expect(await kindOf(running)).toBe("cancelled");
    expect(await kindOf(realOutside.run(["true"], { timeoutMs: LONG_MS, signal }))).toBe(
      "cancelled",
    );
  });

  test("says that a command is not there", async () => {
    const running = realOutside.run(["/nowhere/astacus-test"], { timeoutMs: LONG_MS });
    expect(await kindOf(running)).toBe("not-found");
  });

  test("refuses endless output", async () => {
    const script = "head -c 70000000 /dev/zero; sleep 1000";
    expect(await kindOf(realOutside.run(["sh", "-c", script], { timeoutMs: LONG_MS }))).toBe(
      "refused",
    );
  });
});

describe("fetch", () => {
  test("gives status, headers and body", async () => {
    using server = serve(() => new Response("hello", { status: 418, headers: { "x-a": "b" } }));
    const response = await realOutside.fetch(server.url, { timeoutMs: LONG_MS });
    expect(response.status).toBe(418);
    expect(response.headers.get("x-a")).toBe("b");
    expect(await response.text()).toBe("hello");
  });

  test("gives up on a server that does not answer", async () => {
    using server = serve(() => Promise.withResolvers<Response>().promise);
    expect(await kindOf(realOutside.fetch(server.url, { timeoutMs: 20 }))).toBe("timeout");
  });

  test("gives up on a body that does not end", async () => {
    using server = serve(() => new Response(silentAfter("begin")));
    const body = realOutside
      .fetch(server.url, { timeoutMs: 200 })
      .then((response) => response.text());
    expect(await kindOf(body)).toBe("timeout");
  });

  test("says that nobody listens, without the secrets of the address", async () => {
    const server = serve(() => new Response());
    const { port } = server;
    server[Symbol.dispose]();
    const url = `http://user:secret@127.0.0.1:${port}/path?token=secret`;
    const error = await realOutside.fetch(url, { timeoutMs: LONG_MS }).catch((thrown) => thrown);
    expect(error).toBeInstanceOf(AppError);
    expect(error.kind).toBe("unavailable");
    expect(JSON.stringify(error)).not.toContain("secret");
    expect(error.message).toContain("/path");
  });

  test("ends with the reason of the signal", async () => {
    using server = serve(() => Promise.withResolvers<Response>().promise);
    const controller = new AbortController();
    const { signal } = controller;
    const running = realOutside.fetch(server.url, { timeoutMs: LONG_MS, signal });
    controller.abort(new AppError("cancelled", "enough"));
    expect(await kindOf(running)).toBe("cancelled");
  });
});

type TestServer = Disposable & { readonly url: string; readonly port: number };

function serve(answer: () => Response | Promise<Response>): TestServer {
  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: answer });
  return {
    url: server.url.href,
    port: server.port ?? 0,
    [Symbol.dispose]: () => void server.stop(true),
  };
}

function silentAfter(beginning: string): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start: (controller) => controller.enqueue(new TextEncoder().encode(beginning)),
  });
}

/** False for a process that ended, also while nobody has asked for its exit code. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

async function kindOf(running: Promise<unknown>): Promise<string> {
  try {
    await running;
    return "done";
  } catch (thrown) {
    return thrown instanceof AppError ? thrown.kind : String(thrown);
  }
}

function text(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
