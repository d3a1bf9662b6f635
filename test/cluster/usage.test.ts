/** What operations cost: counted while they run, summed over nodes, priced, and journaled. */
import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import type { OperationContext } from "../../src/cluster/operations.ts";
import { Operations } from "../../src/cluster/operations.ts";
import { countRequests } from "../../src/sites/counting-site.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import { StillClock, seededRandom } from "../sites/still-clock.ts";

const PRICES = {
  currency: "EUR",
  storagePerGBMonth: 1,
  putPer1000: 1000,
  getPer1000: 100,
  deletePer1000: 0,
  egressPerGB: 0,
};

function journal(database = new Database(":memory:", { strict: true })) {
  const [near, far] = [countRequests(new MemorySite("near")), countRequests(new MemorySite("far"))];
  const operations = new Operations({
    database,
    clock: new StillClock(),
    random: seededRandom(1),
    coordinator: "a",
    sites: () => [
      { name: "near", usage: () => near },
      { name: "far", usage: () => far, prices: PRICES },
      { name: "never opened", usage: () => undefined },
    ],
  });
  return { operations, near, far, database };
}

const requests = (change: object) => ({ get: 0, put: 0, head: 0, delete: 0, list: 0, ...change });

test("an operation's record says what passed to each site while it ran, and what it cost", async () => {
  const { operations, near, far } = journal();
  await near.put("before", new Uint8Array(5));
  const { id } = operations.start("backup", {}, async () => {
    await far.put("a", new Uint8Array(7));
    await far.get("a");
    return {};
  });
  expect((await operations.wait(id)).usage).toEqual([
    {
      site: "far",
      requests: requests({ put: 1, get: 1 }),
      bytesRead: 7,
      bytesWritten: 7,
      cost: { amount: 1.1, currency: "EUR" },
    },
  ]);
});

test("what other nodes asked for it is added by site, and priced with the rest", async () => {
  const { operations, far } = journal();
  const elsewhere = (put: number) => [
    { site: "far", requests: requests({ put }), bytesRead: 0, bytesWritten: 10 },
  ];
  const work = async (context: OperationContext) => {
    await far.head("a");
    context.spent(elsewhere(2));
    context.spent(elsewhere(3));
    return {};
  };
  const { id } = operations.start("backup", {}, work);
  const { usage } = await operations.wait(id);
  expect(usage).toHaveLength(1);
  expect(usage?.[0]).toMatchObject({ requests: requests({ put: 5, head: 1 }), bytesWritten: 20 });
  expect(usage?.[0]?.cost?.amount).toBeCloseTo(5.1, 9);
});

test("an operation that fails has cost what it cost, and a restart does not forget it", async () => {
  const { operations, near, database } = journal();
  const { id } = operations.start("verify", {}, async () => {
    await near.get("a");
    throw new AppError("damaged", "bad");
  });
  const { usage } = await operations.wait(id);
  expect(usage).toEqual([
    { site: "near", requests: requests({ get: 1 }), bytesRead: 0, bytesWritten: 0 },
  ]);
  expect(journal(database).operations.get(id)?.usage).toEqual(usage);
});

test("a journal of before is read, and counts from now on", async () => {
  const database = new Database(":memory:", { strict: true });
  database.run(
    `CREATE TABLE operation (
       id TEXT PRIMARY KEY, kind TEXT NOT NULL, state TEXT NOT NULL, coordinator TEXT NOT NULL,
       started TEXT NOT NULL, ended TEXT, request TEXT NOT NULL, result TEXT, error TEXT) STRICT`,
  );
  database.run(
    `INSERT INTO operation VALUES ('old', 'backup', 'done', 'a', '2026-01-01', '2026-01-01', '{}',
       '{}', NULL)`,
  );
  const { operations, near } = journal(database);
  expect(operations.get("old")).toMatchObject({ state: "done" });
  const { id } = operations.start("backup", {}, async () => {
    await near.get("a");
    return {};
  });
  expect((await operations.wait(id)).usage).toHaveLength(1);
});
