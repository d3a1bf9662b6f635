/** Scrubbing and repair as an operator meets them: configuration, metrics, routes. */
import { expect, test } from "bun:test";
import { Registry } from "prom-client";
import type { ReadFaultKind } from "../../src/cas/read/failover.ts";
import { runCli } from "../../src/cli/main.ts";
import { ReadFaults } from "../../src/cluster/read-faults.ts";
import { createApp } from "../../src/server/app.ts";
import { parseConfig } from "../../src/server/config.ts";
import type { Config } from "../../src/server/config.ts";
import { ConfigProblems } from "../../src/server/config-problems.ts";
import { addFaultMetrics } from "../../src/server/metrics-faults.ts";
import { createTestServer, TOKENS } from "./fake-node.ts";

const DAY_MS = 24 * 3_600_000;

function configOf(lines: string): Config {
  const text = `
cluster: c
product: {type: files, root: /data}
sites:
  - {name: disk, type: directory, path: /backup}
  - {name: other, type: directory, path: /other}
${lines}`;
  return parseConfig({
    text,
    fileName: "/etc/astacus/astacus.yaml",
    environment: {},
    readFile: () => "",
    hostName: "a",
  });
}

test("a site is read in thirty days, or by a number of bytes a day, or not at all", () => {
  expect(configOf("").scrub).toBeUndefined();
  expect(configOf("scrub: {}").scrub).toEqual({ pace: { cycleMs: 30 * DAY_MS } });
  expect(configOf("scrub: {cycle: 7d}").scrub).toEqual({ pace: { cycleMs: 7 * DAY_MS } });
  expect(configOf("scrub: {bytesPerDay: 1GiB, sites: [other]}").scrub).toEqual({
    pace: { bytesPerDay: 1024 ** 3 },
    sites: ["other"],
  });
  expect(configOf("").repair).toBe(true);
  expect(configOf("repair: false").repair).toBe(false);
});

test("two paces, and sites that are not there, are refused by name", () => {
  const problems = (lines: string): string => {
    try {
      configOf(lines);
    } catch (thrown) {
      if (thrown instanceof ConfigProblems) return thrown.message;
    }
    return "";
  };
  expect(problems("scrub: {cycle: 7d, bytesPerDay: 1GiB}")).toContain("two ways");
  expect(problems("scrub: {sites: [othr]}")).toContain('there is no site "othr"');
});

test("faults and scrubbing show as metrics by site, without ids", async () => {
  const registry = new Registry();
  const readFaults = new ReadFaults();
  const pack = "ab".repeat(32);
  for (const kind of ["missing", "slow", "slow"] satisfies ReadFaultKind[]) {
    readFaults.note("s1", { site: "disk", key: `pack/ab/${pack}-1`, pack, kind });
  }
  const figures = {
    site: "disk",
    bytesTotal: 500,
    position: 0.25,
    problems: 1,
    repaired: 1,
    lastCycle: {
      started: "2026-01-01T00:00:00.000Z",
      ended: "2026-01-02T00:00:00.000Z",
      packs: 3,
      bytes: 400,
      problems: 2,
    },
    provedAt: "2025-12-01T00:00:00.000Z",
  };
  addFaultMetrics({ scrub: () => [figures], readFaults: () => readFaults.counts }, registry);
  // A scrape does not count twice.
  await registry.metrics();
  const page = await registry.metrics();
  for (const line of [
    'astacus_read_faults_total{site="disk",kind="missing"} 1',
    'astacus_read_faults_total{site="disk",kind="slow"} 2',
    'astacus_scrub_bytes_total{site="disk"} 500',
    'astacus_scrub_position{site="disk"} 0.25',
    'astacus_scrub_problems{site="disk"} 3',
    'astacus_scrub_last_cycle_timestamp_seconds{site="disk"} 1767312000',
    'astacus_scrub_proved_timestamp_seconds{site="disk"} 1764547200',
  ]) {
    expect(page).toContain(line);
  }
  expect(page).not.toContain(pack);
  // Only what can be repaired is remembered, once.
  expect(readFaults.take()).toEqual([{ site: "s1", kind: "pack", id: pack }]);
  expect(readFaults.take()).toEqual([]);
});

test("reading everything and repairing are not for who may only read", async () => {
  const { ask, fake } = createTestServer({ tokens: true });
  for (const path of ["/v1/scrubs", "/v1/repairs"]) {
    const refused = await ask("POST", path, { token: TOKENS.read, body: {} });
    expect(refused.status).toBe(403);
    const taken = await ask("POST", path, { token: TOKENS.admin, body: {} });
    expect(taken.status).toBe(202);
  }
  const kinds = fake.operations.list().map(({ kind, request }) => ({ kind, request }));
  expect(kinds).toContainEqual({ kind: "scrub", request: {} });
  expect(kinds).toContainEqual({ kind: "verify", request: { deep: false, repair: true } });
});

test("a site that is not there is wrong usage, whether figures are wanted or a pass", async () => {
  const { context, fake } = createTestServer();
  const app = createApp(context);
  using server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: (request) => app.fetch(request, {}),
  });
  const said: string[] = [];
  const terminal = {
    print: (text: string) => void said.push(text),
    say: (text: string) => void said.push(text),
    isLive: false,
    canAsk: false,
    ask: () => Promise.resolve(false),
  };
  const scrub = async (...words: string[]): Promise<number> =>
    await runCli(["scrub", "--url", server.url.origin, ...words], terminal);
  expect(await scrub("--site", "disk")).toBe(0);
  expect(await scrub("--site", "nosuch")).toBe(1);
  expect(await scrub("--now", "--site", "disk", "nosuch")).toBe(1);
  expect(said.join("\n")).toContain("There is no site nosuch.");
  expect(fake.operations.list()).toEqual([]);
});
