/**
 * A migration as an operator does it, with real servers and the command line: what each command says,
 * what it costs, and that the last site alone is enough in the end.
 */
import { expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import { ProcessCluster, until } from "../../scripts/scenario-cluster.ts";
import { compareTrees, recordTree } from "../../scripts/tree-comparison.ts";
import type { MigrationPlan } from "../../src/cluster/migrate-plan.ts";
import type { OperationRecord } from "../../src/cluster/operations.ts";
import type { ClusterStatus } from "../../src/cluster/status.ts";
import { temporaryFolder } from "../cas/temporary-folder.ts";

const PRICES =
  "{currency: EUR, storagePerGBMonth: 1000, putPer1000: 5, getPer1000: 0.4, egressPerGB: 0.09}";

test("a repository moves to another site by the command line, and back, and the old site is retired", async () => {
  using folder = temporaryFolder();
  const old = `{name: old, type: directory, path: "${folder.path}/s1"}`;
  const more = `{name: new, type: directory, path: "${folder.path}/s2", prices: ${PRICES}}`;
  await using cluster = await ProcessCluster.make({
    folder: join(folder.path, "cluster"),
    site: old,
    nodes: ["amber", "birch"],
  });
  expect(await cluster.run(["site", "init", "-c", cluster.config])).toMatchObject({ code: 0 });
  await cluster.startAll();
  for (const name of cluster.names) {
    fs.writeFileSync(join(cluster.root(name), "file"), `of ${name}\n`.repeat(10_000));
  }
  await cluster.json(["backup", "--name", "one"]);
  fs.writeFileSync(cluster.config, cluster.configText({ site: `${old}\n  - ${more}` }));
  for (const name of cluster.names) {
    expect(await cluster.cli(["reload"], name)).toMatchObject({ code: 0 });
  }
  // The new settings hold as soon as nothing runs.
  const args = ["migrate", "--from", "old", "--to", "new"];
  for (;;) {
    const early = await cluster.cli([...args, "--plan"]);
    expect(early.code).not.toBe(0);
    if (early.stderr.includes("astacus site init new")) break;
  }
  for (const name of cluster.names) await cluster.untilReady(name);
  expect(await cluster.run(["site", "init", "new", "-c", cluster.config])).toMatchObject({
    code: 0,
  });

  const plan = await cluster.json<MigrationPlan>([...args, "--plan"]);
  expect(plan).toMatchObject({ copies: 1, switches: true, refusals: [] });
  expect(plan.storagePerMonth?.amount).toBeGreaterThan(0);
  const unasked = await cluster.cli(args);
  expect(unasked).toMatchObject({ code: 4 });
  expect(unasked.stderr).toContain("--yes");
  const done = await cluster.json<OperationRecord>([...args, "--yes"]);
  expect(done.result).toMatchObject({ switched: true, copied: ["one"], packs: plan.packs });
  expect(done.usage?.find(({ site }) => site === "new")?.cost?.currency).toBe("EUR");

  // Nothing changed: a handful of requests for each site and node, and no LIST.
  await cluster.json(["backup", "--name", "two"], "birch");
  const again = await cluster.json<OperationRecord>(["backup", "--name", "three"], "birch");
  expect(again.usage?.map(({ site }) => site).toSorted()).toEqual(["new", "old"]);
  for (const { requests } of again.usage ?? []) {
    expect(requests).toMatchObject({ list: 0, delete: 0 });
    expect(requests.put).toBeLessThanOrEqual(2);
    expect(requests.get + requests.head).toBeLessThan(80);
  }
  // Another node than the coordinator may have looked at a mirror a moment before.
  let sites: NonNullable<ClusterStatus["sites"]> = [];
  await until("the first node has seen the mirror's third backup", async () => {
    ({ sites = [] } = await cluster.json<ClusterStatus>(["status"]));
    return sites.every(({ backups }) => backups === 3);
  });
  expect(sites.map(({ name, role, backups }) => [name, role, backups])).toEqual([
    ["old", "mirror", 3],
    ["new", "primary", 3],
  ]);
  expect(sites[1]?.storagePerMonth?.amount).toBeGreaterThan(0);

  const back = await cluster.json<OperationRecord>([...args, "--undo", "--yes"]);
  expect(back.result).toMatchObject({ switched: true, to: { name: "old" } });
  await cluster.json([...args, "--yes"]);
  expect(await cluster.cli(["site", "retire", "new", "--yes"])).toMatchObject({ code: 4 });
  const retired = await cluster.cli(["site", "retire", "old", "--yes"]);
  expect(retired).toMatchObject({ code: 0 });
  expect(retired.stdout).toContain("3 backups");

  fs.rmSync(join(folder.path, "s1"), { recursive: true });
  const config = cluster.writeConfig("alone.conf", { site: more });
  const target = join(folder.path, "restored");
  for (const backup of ["one", "two", "three"]) {
    const restore = ["restore", "--backup", backup, "--to", target, "--yes", "-c", config];
    expect(await cluster.run(restore)).toMatchObject({ code: 0 });
    for (const name of cluster.names) {
      const [was, is] = [cluster.root(name), join(target, name, "root")];
      expect(compareTrees(recordTree(was).record, recordTree(is).record)).toEqual([]);
    }
    fs.rmSync(target, { recursive: true });
  }
}, 120_000);
