/**
 * The realm itself: a real M3 cluster keeps what it has acknowledged although a node is killed. What
 * the tests of backups rest on: the load, the ledger, the comparison, and the files that show what M3
 * has done. Without a Go toolchain it is skipped by name; in CI that is a failure.
 */
import { afterAll, expect, test } from "bun:test";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { callEtcd, startEtcd } from "../../scripts/real/etcd.ts";
import { checkM3 } from "../../scripts/realm/m3-check.ts";
import { loadM3 } from "../../scripts/realm/m3-load.ts";
import { M3Realm } from "../../scripts/realm/m3-realm.ts";

const TIMEOUT_MS = 240_000;
const POINTS_MIN = 500;
const FOLDER = fs.mkdtempSync(join(fs.realpathSync(tmpdir()), "astacus-m3-realm-"));
const realm = await M3Realm.create({
  folder: join(FOLDER, "m3"),
  settings: {
    blockSeconds: 15,
    retentionSeconds: 300,
    bufferPastSeconds: 2,
    bufferFutureSeconds: 2,
  },
});

afterAll(async () => {
  if (!("missing" in realm)) await realm[Symbol.asyncDispose]();
  fs.rmSync(FOLDER, { recursive: true, force: true });
});

if ("missing" in realm) {
  test.skip(`a real M3 cluster [needs go: ${realm.missing}]`, () => undefined);
} else {
  test(
    "an M3 cluster has every acknowledged point after a node was killed, and says which it has not",
    async () => await loseANode(realm),
    TIMEOUT_MS,
  );
  test("an etcd with users and certificates refuses who shows neither", guardedEtcd, TIMEOUT_MS);
}

async function loseANode(cluster: M3Realm): Promise<void> {
  const ledgerFile = join(FOLDER, "ledger");
  await cluster.up();
  const stop = new AbortController();
  const load = loadM3(cluster, { ledgerFile, signal: stop.signal });
  const before = cluster.files(2);
  await cluster.untilFiles(2, "a new snapshot, and a block that is flushed", (files) => {
    const newest = files.snapshots.at(-1) ?? -1;
    return newest > (before.snapshots.at(-1) ?? -1) && files.filledFilesetCount > 0;
  });
  const killedMs = Date.now();
  await cluster.killNode(2);
  expect(cluster.files(2).filledFilesetCount).toBeGreaterThan(0);
  cluster.startNode(2);
  await cluster.untilBootstrapped(2);
  stop.abort();
  const { acknowledgedCount, lastRefusal } = await load;
  expect(lastRefusal).toBeUndefined();

  const all = await checkM3(cluster, { ledgerFile, floor: POINTS_MIN });
  expect(all).toMatchObject({ expectedCount: acknowledgedCount, isGood: true });
  const [whole, first, killed, third] = all.views;
  for (const view of [whole, first, third]) {
    expect(view).toMatchObject({ presentCount: acknowledgedCount, missingCount: 0 });
  }
  // It slept while the others were written to, so a comparison that finds nothing there is blind.
  expect(killed?.missingCount).toBeGreaterThan(0);
  const beforeMs = killedMs - 2 * cluster.commitLogFlushIntervalMs;
  const old = await checkM3(cluster, { ledgerFile, beforeMs, everyReplica: true });
  expect(old.views.flatMap(({ examples }) => examples)).toEqual([]);
  expect(old.isGood).toBe(true);

  const forged = join(FOLDER, "forged");
  const lines = fs.readFileSync(ledgerFile, "utf8").split("\n");
  fs.writeFileSync(forged, lines.with(7, `${lines[7]}1`).join("\n"));
  const wrong = await checkM3(cluster, { ledgerFile: forged, clusterOnly: true });
  expect(wrong.views[0]).toMatchObject({ wrongCount: 1, missingCount: 0 });
  expect(wrong.isGood).toBe(false);
  const few = await checkM3(cluster, { ledgerFile, floor: 1_000_000, clusterOnly: true });
  expect(few.isGood).toBe(false);
}

async function guardedEtcd(): Promise<void> {
  const directory = join(FOLDER, "etcd");
  const etcd = await startEtcd({ directory, tls: true, users: { root: "one", reader: "two" } });
  if ("missing" in etcd) throw new Error(`missing: ${etcd.missing}`);
  try {
    const login = { name: "reader", password: "two" };
    const { tls: _, ...bare } = etcd;
    const { token } = await callEtcd(etcd, "/v3/auth/authenticate", login);
    expect(token).toBeString();
    const key = { key: btoa("some"), value: btoa("thing") };
    const refusal = async (how: typeof bare) =>
      await callEtcd(how, "/v3/kv/put", key).then(
        () => "none",
        (thrown: unknown) => String(thrown),
      );
    expect(await refusal(etcd)).toContain("user name is empty");
    expect(await refusal(bare)).toMatch(/certificate|closed|refused/i);
  } finally {
    await etcd.stop();
  }
}
