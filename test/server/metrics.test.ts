/**
 * Metrics: what a monitor reads, and that no label holds an id.
 */
import { expect, test } from "bun:test";
import type { OperationRecord } from "../../src/cluster/operations.ts";
import { createTestServer, SITE, TOKENS } from "./fake-node.ts";

const RECORD: OperationRecord = {
  id: "12".repeat(16),
  kind: "backup",
  state: "done",
  coordinator: "a",
  started: "2026-01-01T00:00:00.000Z",
  ended: "2026-01-01T00:00:42.000Z",
  request: {},
  result: {
    totals: { files: 10, bytes: 1000, newBytes: 100, storedBytes: 50 },
    readBytes: 200,
    problemCount: 1,
  },
};

test("the newest complete backup has a time and an age", async () => {
  const { metrics } = createTestServer();
  const page = await metrics.render();
  expect(page).toContain("astacus_last_complete_backup_timestamp_seconds 1767225660");
  expect(page).toContain("astacus_last_complete_backup_age_seconds 3540");
});

test("a site that locks says until when, and whether that is near", async () => {
  const { metrics, fake } = createTestServer();
  expect(await metrics.render()).not.toContain("astacus_site_locked_until_timestamp_seconds{");
  fake.site = {
    ...SITE,
    lock: { mode: "compliance", until: "2026-12-24T00:00:00Z", ending: true },
  };
  const page = await metrics.render();
  const of = '{site="disk",role="primary"}';
  expect(page).toContain(`astacus_site_locked_until_timestamp_seconds${of} 1798070400`);
  expect(page).toContain(`astacus_site_locks_ending${of} 1`);
  fake.site = { ...SITE, lock: { mode: "compliance", ending: true } };
  expect(await metrics.render()).toContain(`astacus_site_locked_until_timestamp_seconds${of} 0`);
  // A legal hold has no end; 0 would be none at all.
  fake.site = { ...SITE, lock: { mode: "compliance", ending: false } };
  expect(await metrics.render()).not.toContain("astacus_site_locked_until_timestamp_seconds{");
});

test("operations are counted by kind and state, failures by kind of error", async () => {
  const { metrics } = createTestServer();
  metrics.count(RECORD);
  metrics.count({
    ...RECORD,
    kind: "restore",
    state: "failed",
    error: { kind: "no-space", message: "Full.", retryable: false },
  });
  const page = await metrics.render();
  for (const line of [
    'astacus_operations_total{kind="backup",state="done"} 1',
    'astacus_operation_failures_total{kind="restore",error="no-space"} 1',
    'astacus_operation_duration_seconds_sum{kind="backup",state="done"} 42',
    'astacus_backup_total{what="newBytes"} 100',
    'astacus_backup_total{what="readBytes"} 200',
    'astacus_last_backup{what="problems"} 1',
    'astacus_operations_running{kind="backup"} 0',
    'astacus_site_requests{site="disk",kind="get"} 3',
    'astacus_site_bytes{site="disk",direction="written"} 20',
    "astacus_ready 1",
  ]) {
    expect(page).toContain(line);
  }
  expect(page).not.toContain(RECORD.id);
});

test("the page is served as text, to whoever may read", async () => {
  const { ask } = createTestServer({ tokens: true });
  const answer = await ask("GET", "/metrics", { token: TOKENS.read });
  expect(answer.status).toBe(200);
  expect(answer.headers.get("content-type")).toStartWith("text/plain; version=0.0.4");
  expect(await answer.text()).toContain("# TYPE astacus_last_complete_backup_age_seconds gauge");
});
