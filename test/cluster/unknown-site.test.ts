/** A name that no site has is told in one way, so that all commands end with one code (1, `not-found`). */
import { expect, test } from "bun:test";
import { runLoss } from "../../src/cluster/lose-site.ts";
import { planMigration } from "../../src/cluster/migrate-plan.ts";
import { runRetirement } from "../../src/cluster/migrate-retire.ts";
import { promoteSite } from "../../src/cluster/promote-operation.ts";
import { exitCodeOf } from "../../src/cli/exit-code.ts";
import { rejectionOf } from "../cas/repository-world.ts";
import { contextOf, partsOf, SiteNodes } from "./site-nodes.ts";

test("an unknown site is not found, whatever it was to be used for", async () => {
  await using sites = await SiteNodes.create(2);
  const node = sites.node("a");
  await node.roles();
  const [parts, context] = [partsOf(node), contextOf("operation")];
  const { signal } = context;
  const errors = [
    await rejectionOf(promoteSite(parts, context, "nosuch")),
    await rejectionOf(runRetirement(parts, context, { site: "nosuch" })),
    await rejectionOf(runLoss(parts, context, "nosuch")),
    await rejectionOf(planMigration(parts, { from: "s0", to: "nosuch" }, signal)),
    await rejectionOf(planMigration(parts, { from: "nosuch", to: "s0" }, signal)),
    await rejectionOf(node.repository("nosuch")),
    await rejectionOf((async () => node.mustName("nosuch"))()),
  ];
  for (const error of errors) {
    expect([error.kind, exitCodeOf(error)]).toEqual(["not-found", 1]);
    expect(error.message).toContain("nosuch");
  }
});
