/** A node inside a server: what whoever asks for a reload is told, and when. */
import { expect, test } from "bun:test";
import { realClock } from "../../src/base/clock.ts";
import { AppError } from "../../src/base/error.ts";
import type { OpenNode } from "../../src/server/compose.ts";
import type { Config } from "../../src/server/config.ts";
import { silentLog } from "../../src/server/log.ts";
import { NodeRuntime } from "../../src/server/node-runtime.ts";
import { createConfig } from "./fake-node.ts";

const LONG_MS = 60_000;

/** A node of which a runtime asks only whether something runs. */
function nodeWith(
  running: { readonly kind: string; readonly id: string }[],
  config: Config,
): OpenNode {
  const member = {
    config: { cluster: config.cluster },
    operations: { running: () => running },
    sites: { current: { name: "disk" } },
    repository: { site: { location: "file:/backup" }, state: { sequence: 1 } },
    handle: () => Promise.reject(new Error("nobody has leased it")),
  };
  return { member, [Symbol.asyncDispose]: async () => {} } as unknown as OpenNode;
}

function runtimeOf(open: (config: Config) => Promise<OpenNode>, config: Config): NodeRuntime {
  return new NodeRuntime(config, { clock: realClock, log: silentLog, version: "0", open });
}

test("a reload is answered when the node is open with the new configuration", async () => {
  const [first, second] = [createConfig(), createConfig()];
  const opened: Config[] = [];
  const gate = Promise.withResolvers<void>();
  await using runtime = runtimeOf(async (config) => {
    if (config === second) await gate.promise;
    opened.push(config);
    return nodeWith([], config);
  }, first);
  expect(await runtime.whenApplied(LONG_MS)).toEqual({ node: "open" });
  runtime.apply(second);
  let isAnswered = false;
  const waiting = runtime.whenApplied(LONG_MS).finally(() => (isAnswered = true));
  while (runtime.node !== undefined) await Bun.sleep(5);
  expect(isAnswered).toBe(false);
  gate.resolve();
  expect(await waiting).toEqual({ node: "open" });
  expect(opened).toEqual([first, second]);
  expect(runtime.readiness).toEqual({ ready: true });
});

test("a reload says what keeps the node: what runs, what fails, or that it takes long", async () => {
  const configs = [createConfig(), createConfig(), createConfig(), createConfig()] as const;
  const running = [{ kind: "backup", id: "ab" }];
  const stuck = Promise.withResolvers<OpenNode>();
  await using runtime = runtimeOf(async (config) => {
    if (config === configs[2]) {
      throw new AppError("refused", "There is no repository.", { guidance: "Make one." });
    }
    return config === configs[3] ? await stuck.promise : nodeWith(running, config);
  }, configs[0]);
  expect(await runtime.whenApplied(LONG_MS)).toEqual({ node: "open" });
  runtime.apply(configs[1]);
  const busy = await runtime.whenApplied(LONG_MS);
  expect(busy).toEqual({ node: "busy", reason: "A backup runs (operation ab)." });
  running.length = 0;
  runtime.apply(configs[2]);
  const failed = await runtime.whenApplied(LONG_MS);
  expect(failed).toEqual({
    node: "failed",
    reason: "There is no repository.",
    guidance: "Make one.",
  });
  runtime.apply(configs[3]);
  expect(await runtime.whenApplied(1)).toMatchObject({ node: "opening" });
  stuck.resolve(nodeWith([], configs[3]));
  expect(await runtime.whenApplied(LONG_MS)).toEqual({ node: "open" });
});
