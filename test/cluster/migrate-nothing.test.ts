/** A migration whose choice leaves nothing to copy: refused before anything is written. */
import { expect, test } from "bun:test";
import { runMigration } from "../../src/cluster/migrate-operation.ts";
import type { MigrateRequest } from "../../src/cluster/migrate-plan.ts";
import { planMigration } from "../../src/cluster/migrate-plan.ts";
import { rejectionOf } from "../cas/repository-world.ts";
import { openNode } from "../cas/small-backups.ts";
import { contextOf, partsOf, SiteNodes } from "./site-nodes.ts";

/** Two sites with one backup on the first, and what a request comes to. */
async function sitesWithOne() {
  const sites = await SiteNodes.create(2);
  const { world, stores } = sites;
  using writer = await openNode(stores[0]!, world, { node: "w" });
  const id = await world.backup(writer, [1, 2, 3]);
  const node = sites.node("a");
  await node.roles();
  const parts = partsOf(node);
  const context = contextOf("migration");
  const plan = (more: Partial<MigrateRequest>) =>
    planMigration(parts, { from: "s0", to: "s1", ...more }, context.signal);
  const run = (more: Partial<MigrateRequest>) =>
    runMigration(parts, context, { from: "s0", to: "s1", ...more });
  return { sites, node, id, plan, run };
}

test.each([{}, { noSwitch: true }])("a date in the future is refused (%o)", async (more) => {
  const { sites, node, plan, run } = await sitesWithOne();
  await using _ = sites;
  const since = new Date(Date.UTC(2030, 0, 1)).toISOString();
  const { refusals, copies } = await plan({ since, ...more });
  expect(copies).toBe(0);
  expect(refusals).toEqual([
    `0 backups: of those chosen s0 has none that ended at ${since} or later.`,
  ]);
  const puts = sites.stores[1]!.requests.put;
  const error = await rejectionOf(run({ since, ...more }));
  expect(error).toMatchObject({ kind: "refused", context: { reason: "plan-refused" } });
  expect(error.guidance).toContain("--since");
  expect(sites.stores[1]!.requests.put).toBe(puts);
  expect((await node.primary()).name).toBe("s0");
});

test("a name that no backup has is not found", async () => {
  const { sites, plan } = await sitesWithOne();
  await using _ = sites;
  const error = await rejectionOf(plan({ backups: ["nosuch"] }));
  expect(error.kind).toBe("not-found");
});

test("a choice that has all that it wants goes on, and a repository without backups may move", async () => {
  const { sites, id, plan } = await sitesWithOne();
  await using _ = sites;
  expect((await plan({ backups: [id] })).refusals).toEqual([]);
  await using empty = await SiteNodes.create(2);
  const node = empty.node("a");
  await node.roles();
  const { signal } = contextOf("plan");
  const moved = await planMigration(partsOf(node), { from: "s0", to: "s1" }, signal);
  expect(moved).toMatchObject({ switches: true, refusals: [] });
});
