/**
 * The life of a cluster with two and three sites, over real members in a simulated world: mirrors get
 * every backup, one that was away catches up, a promotion loses nothing or says what, and who does not
 * know the primary writes nowhere.
 */
import { describe, expect, test } from "bun:test";
import type { RetentionPolicy } from "../../src/cas/clean/retention.ts";
import type { BackupResult } from "../../src/cluster/backup-operation.ts";
import type { MirrorReport } from "../../src/cluster/mirror-operation.ts";
import type { OperationRecord } from "../../src/cluster/operations.ts";
import type { PromoteResult } from "../../src/cluster/promote-operation.ts";
import { changeFiles, differences, readTree } from "./cluster-data.ts";
import { SimulatedCluster } from "./simulated-cluster.ts";
import type { SimulatedNode } from "./simulated-node.ts";
import { PRODUCT_ROOT } from "./simulated-node.ts";

const DAY_MS = 86_400_000;

describe("mirrors", () => {
  test("get every backup, and it restores from each of them alone", async () => {
    const cluster = await open(["east", "west"]);
    const { mirrors } = await backUp(cluster, "one");
    expect(mirrors.map(({ site, state }) => [site, state])).toEqual([
      ["east", "acknowledged"],
      ["west", "acknowledged"],
    ]);
    for (const name of ["east", "west"]) await expectRestores(cluster, "one", name);
  });

  test("are sent packs by the nodes, so that after the commit few are copied", async () => {
    const cluster = await open(["east"]);
    const { mirrors } = await backUp(cluster, "one");
    expect(mirrors[0]!.packs).toBeGreaterThan(0);
    expect(mirrors[0]!.packsSent).toBe(mirrors[0]!.packs);
  });

  test("that are down for a week stop no backup, show their lag, and catch up", async () => {
    const cluster = await open(["east"]);
    await backUp(cluster, "one");
    cluster.stores.get("east")!.isDown = true;
    let report: MirrorReport | undefined;
    for (const name of ["two", "three", "four"]) {
      for (let day = 0; day < 2; day += 1) await cluster.clock.pass(DAY_MS - 1);
      change(cluster);
      report = (await backUp(cluster, name)).mirrors[0];
    }
    expect(report).toMatchObject({ state: "lagging", lag: { backups: 3 } });
    expect(report?.lag.bytes).toBeGreaterThan(0);
    expect(report?.error?.message).toContain("east");
    cluster.stores.get("east")!.isDown = false;
    change(cluster);
    const { mirrors } = await backUp(cluster, "five");
    expect(mirrors[0]).toMatchObject({ state: "acknowledged", copied: 4, lag: { backups: 0 } });
    for (const name of ["two", "three", "four", "five"]) {
      expect((await listedAt(cluster, "east")).includes(name)).toBe(true);
    }
    await expectRestores(cluster, "five", "east");
  });

  test("are brought up to date by sync alone", async () => {
    const cluster = await open(["east"]);
    cluster.stores.get("east")!.isDown = true;
    await backUp(cluster, "one");
    cluster.stores.get("east")!.isDown = false;
    await cluster.clock.pass(60_000);
    const record = await run(cluster, (node) => node.member.startSync());
    expect(record).toMatchObject({
      state: "done",
      result: { mirrors: [{ site: "east", state: "acknowledged", copied: 1 }] },
    });
    await expectRestores(cluster, "one", "east");
  });
});

describe("when the primary is gone", () => {
  test("a backup fails and names it, and what was backed up is read from the mirror", async () => {
    const cluster = await open(["east"]);
    await backUp(cluster, "one");
    cluster.store.isDown = true;
    const record = await run(cluster, (node) => node.member.startBackup({ name: "two" }));
    expect(record).toMatchObject({ state: "failed", error: { kind: "unavailable" } });
    expect(record.error?.message).toContain("store");
    const [row] = await cluster.clock.run(cluster.nodes[0]!.member.listBackups());
    expect(row).toMatchObject({ name: "one", site: "east" });
    const restored = await run(cluster, (node) => node.member.startRestore({ backup: "one" }));
    expect(restored.state).toBe("done");
  });

  test("before anybody has spoken, no mirror takes its place by itself", async () => {
    const cluster = await open(["east", "west"]);
    cluster.store.isDown = true;
    const record = await run(cluster, (node) => node.member.startBackup({ name: "one" }));
    expect(record).toMatchObject({ state: "failed", error: { kind: "unavailable" } });
    cluster.store.isDown = false;
    await cluster.clock.pass(60_000);
    expect((await backUp(cluster, "two")).mirrors).toMatchObject([
      { site: "east", state: "acknowledged" },
      { site: "west", state: "acknowledged" },
    ]);
    const { sites } = await cluster.clock.run(
      cluster.nodes[0]!.member.status(new AbortController().signal),
    );
    expect(sites?.map(({ name, role }) => [name, role])).toEqual([
      ["store", "primary"],
      ["east", "mirror"],
      ["west", "mirror"],
    ]);
  });

  test("a node that starts then serves the mirror", async () => {
    const cluster = await open(["east"]);
    await backUp(cluster, "one");
    cluster.store.isDown = true;
    const [node] = cluster.nodes;
    await cluster.clock.run(cluster.restart(node!));
    const rows = await cluster.clock.run(node!.member.listBackups());
    expect(rows.map(({ name }) => name)).toEqual(["one"]);
  });

  test("promoting a mirror that has everything loses nothing, and backups go on there", async () => {
    const cluster = await open(["east"]);
    await backUp(cluster, "one");
    cluster.store.isDown = true;
    const result = await promote(cluster, "east");
    expect(result).toMatchObject({ site: "east", former: "store", isKnown: true, missing: [] });
    const again = await backUp(cluster, "two");
    // Nothing has changed since, and the stat cache came along.
    expect(again.readBytes).toBe(0);
    await expectRestores(cluster, "two", "east");
  });

  test("promoting a mirror that lags says exactly which backups are not there", async () => {
    const cluster = await open(["east"]);
    await backUp(cluster, "one");
    cluster.stores.get("east")!.isDown = true;
    change(cluster);
    await backUp(cluster, "two");
    change(cluster);
    await backUp(cluster, "three");
    cluster.stores.get("east")!.isDown = false;
    cluster.store.isDown = true;
    for (const node of cluster.nodes) await cluster.clock.run(cluster.restart(node));
    const result = await promote(cluster, "east");
    expect(result.isKnown).toBe(true);
    expect(result.missing.map(({ name, at }) => [name, at])).toEqual([
      ["two", []],
      ["three", []],
    ]);
    change(cluster);
    await backUp(cluster, "four");
    await expectRestores(cluster, "four", "east");
  });

  test("it comes back as a mirror, and gives what only it had", async () => {
    const cluster = await open(["east"]);
    cluster.stores.get("east")!.isDown = true;
    await backUp(cluster, "one");
    cluster.stores.get("east")!.isDown = false;
    cluster.store.isDown = true;
    await promote(cluster, "east");
    change(cluster);
    await backUp(cluster, "two");
    expect(await listedAt(cluster, "east")).toEqual(["two"]);
    cluster.store.isDown = false;
    await cluster.clock.pass(60_000);
    const record = await run(cluster, (node) => node.member.startSync());
    expect(record).toMatchObject({
      result: { mirrors: [{ site: "store", state: "acknowledged", copied: 1 }] },
    });
    expect((await listedAt(cluster, "east")).toSorted()).toEqual(["one", "two"]);
    expect((await listedAt(cluster, "store")).toSorted()).toEqual(["one", "two"]);
  });
});

describe("a node whose configuration does not name the primary", () => {
  test("coordinates no backup, and says which site it lacks", async () => {
    const cluster = await open(["east"]);
    await backUp(cluster, "one");
    const [node] = cluster.nodes;
    await promote(cluster, "east");
    node!.siteNames = ["store"];
    await cluster.clock.run(cluster.restart(node!));
    const record = await run(cluster, (one) => one.member.startBackup({ name: "two" }));
    expect(record).toMatchObject({ state: "failed", error: { kind: "refused" } });
    expect(record.error?.message).toContain("node a lacks site east");
    expect(await listedAt(cluster, "store")).toEqual(["one"]);
  });

  test("takes no part in a backup, which says which node and which site", async () => {
    const cluster = await open(["east"]);
    await backUp(cluster, "one");
    await promote(cluster, "east");
    const other = cluster.nodes[1]!;
    other.siteNames = ["store"];
    await cluster.clock.run(cluster.restart(other));
    const record = await run(cluster, (one) => one.member.startBackup({ name: "two" }));
    expect(record).toMatchObject({ state: "failed", error: { kind: "refused" } });
    expect(record.error?.message).toContain("node b lacks site east");
  });
});

test("after a switch and back, nothing is read that has not changed", async () => {
  const cluster = await open(["east"]);
  await backUp(cluster, "one");
  expect((await promote(cluster, "east")).missing).toEqual([]);
  expect((await backUp(cluster, "two")).readBytes).toBe(0);
  change(cluster);
  expect((await backUp(cluster, "three")).readBytes).toBeGreaterThan(0);
  await promote(cluster, "store");
  expect((await backUp(cluster, "four")).readBytes).toBe(0);
  for (const site of ["store", "east"]) await expectRestores(cluster, "four", site);
});

test("a site of another repository is refused by name and stops nobody else", async () => {
  const cluster = await open(["east"]);
  const foreign = await SimulatedCluster.create({ seed: 9, nodeCount: 1, product: "files" });
  cluster.stores.set("west", foreign.store);
  for (const node of cluster.nodes) await cluster.clock.run(cluster.restart(node));
  const { mirrors } = await backUp(cluster, "one");
  expect(mirrors).toMatchObject([
    { site: "east", state: "acknowledged" },
    { site: "west", state: "lagging", error: { kind: "refused" } },
  ]);
});

describe("each site keeps by its own retention", () => {
  test("and what only a mirror has left is listed, shown and restored from there", async () => {
    const cluster = await open(["east"], { store: { minimum: 1, keepLast: 1 } });
    await backUp(cluster, "one");
    const tree = readTree(cluster.nodes[0]!.files, PRODUCT_ROOT);
    for (const name of ["two", "three"]) {
      change(cluster);
      await backUp(cluster, name);
    }
    const record = await run(cluster, (node) => node.member.startCleanup());
    expect(record).toMatchObject({
      state: "done",
      result: {
        sites: [
          { site: "store", report: { forgotten: [{ name: "one" }, { name: "two" }] } },
          { site: "east", report: { forgotten: [] } },
        ],
      },
    });
    const { member } = cluster.nodes[0]!;
    const rows = await cluster.clock.run(member.listBackups());
    expect(rows.map(({ name, site, sites }) => ({ name, site, sites }))).toEqual([
      { name: "one", site: "east", sites: { store: "-", east: "acknowledged" } },
      { name: "two", site: "east", sites: { store: "-", east: "acknowledged" } },
      { name: "three", site: "store", sites: { store: "acknowledged", east: "acknowledged" } },
    ]);
    expect(await cluster.clock.run(member.showBackup("one"))).toMatchObject({ site: "east" });
    const restored = await run(cluster, (node) => node.member.startRestore({ backup: "one" }));
    expect(restored.error).toBeUndefined();
    // A restore of plain files leaves what was made since.
    const now = readTree(cluster.nodes[0]!.files, PRODUCT_ROOT);
    const found = new Map([...now].filter(([path]) => tree.has(path)));
    expect(differences(tree, found)).toEqual([]);
  });

  test("and a mirror gets only what it would keep", async () => {
    const cluster = await open(["east"], { east: { minimum: 1, keepLast: 1 } });
    await backUp(cluster, "one");
    cluster.stores.get("east")!.isDown = true;
    for (const name of ["two", "three", "four"]) {
      change(cluster);
      await backUp(cluster, name);
    }
    cluster.stores.get("east")!.isDown = false;
    change(cluster);
    const { mirrors } = await backUp(cluster, "five");
    expect(mirrors[0]).toMatchObject({ state: "acknowledged", copied: 1 });
    expect(await listedAt(cluster, "east")).toEqual(["one", "five"]);
    const rows = await cluster.clock.run(cluster.nodes[0]!.member.listBackups());
    expect(rows.map(({ name, sites }) => [name, sites["east"]])).toEqual([
      ["one", "acknowledged"],
      ["two", "-"],
      ["three", "-"],
      ["four", "-"],
      ["five", "acknowledged"],
    ]);
  });

  test("and a changed configuration counts from the moment on that it is entered", async () => {
    const retentions: Record<string, RetentionPolicy> = { store: { keepLast: 9 } };
    const cluster = await open(["east"], retentions);
    for (const name of ["one", "two"]) {
      change(cluster);
      await backUp(cluster, name);
    }
    retentions["store"] = { minimum: 1, keepLast: 1 };
    for (const node of cluster.nodes) await cluster.clock.run(cluster.restart(node));
    await run(cluster, (node) => node.member.startCleanup());
    expect(await listedAt(cluster, "store")).toEqual(["one", "two"]);
    const update = await run(cluster, (node) => node.member.startUpdateSites());
    expect(update).toMatchObject({ state: "done", result: { changed: ["store"] } });
    await run(cluster, (node) => node.member.startCleanup());
    expect(await listedAt(cluster, "store")).toEqual(["two"]);
    const again = await run(cluster, (node) => node.member.startUpdateSites());
    expect(again.result).toEqual({ changed: [] });
  });

  test("and nothing is forgotten that a mirror wants and does not have, or cannot be asked for", async () => {
    const cluster = await open(["east"], { store: { minimum: 1, keepLast: 1 } });
    await backUp(cluster, "one");
    cluster.stores.get("east")!.isDown = true;
    for (const name of ["two", "three"]) {
      change(cluster);
      await backUp(cluster, name);
    }
    const record = await run(cluster, (node) => node.member.startCleanup());
    expect(record.result).toMatchObject({
      forgotten: [],
      waits: expect.arrayContaining([
        "backup two is not forgotten yet: site east wants it and does not answer",
      ]),
      sites: [{ site: "store" }, { site: "east", error: expect.anything() }],
    });
    cluster.stores.get("east")!.isDown = false;
    await cluster.clock.pass(60_000);
    const early = await run(cluster, (node) => node.member.startCleanup({ dryRun: true }));
    expect((early.result as { waits: string[] }).waits).toContain(
      "backup two is not forgotten yet: site east is still to get it",
    );
    await run(cluster, (node) => node.member.startSync());
    await run(cluster, (node) => node.member.startCleanup());
    expect(await listedAt(cluster, "store")).toEqual(["three"]);
    expect(await listedAt(cluster, "east")).toEqual(["one", "two", "three"]);
  });
});

test("a list says what each site has of each backup", async () => {
  const cluster = await open(["east"]);
  await backUp(cluster, "one");
  cluster.stores.get("east")!.isDown = true;
  change(cluster);
  await backUp(cluster, "two");
  const { member } = cluster.nodes[0]!;
  const rows = await cluster.clock.run(member.listBackups());
  expect(rows.map(({ name, sites }) => [name, sites])).toEqual([
    ["one", { store: "acknowledged", east: "acknowledged" }],
    ["two", { store: "acknowledged", east: "lagging" }],
  ]);
  const status = await cluster.clock.run(member.status(new AbortController().signal));
  expect(status.sites).toMatchObject([
    { name: "store", role: "primary", reachable: true, backups: 2 },
    { name: "east", role: "mirror", reachable: false, backups: 1, lag: { backups: 1 } },
  ]);
  const verified = await run(cluster, (node) => {
    return node.member.startVerify({ backup: "two", deep: true });
  });
  expect(verified.state).toBe("done");
  const [, two] = await cluster.clock.run(member.listBackups());
  expect(two?.sites).toEqual({ store: "verified", east: "lagging" });
});

test("a mark reaches every site that answers, and a forgotten backup the others later", async () => {
  const cluster = await open(["east", "west"]);
  await backUp(cluster, "one");
  change(cluster);
  await backUp(cluster, "two");
  cluster.stores.get("west")!.isDown = true;
  const forget = await run(cluster, (node) =>
    node.member.startMark("delete", { backups: ["one"] }),
  );
  expect(forget).toMatchObject({
    state: "done",
    result: { sites: [{ site: "east" }, { site: "west", error: expect.anything() }] },
  });
  expect(await listedAt(cluster, "store")).toEqual(["two"]);
  expect(await listedAt(cluster, "east")).toEqual(["two"]);
  cluster.stores.get("west")!.isDown = false;
  expect(await listedAt(cluster, "west")).toEqual(["one", "two"]);
  await cluster.clock.pass(60_000);
  await run(cluster, (node) => node.member.startSync());
  expect(await listedAt(cluster, "west")).toEqual(["two"]);
  await run(cluster, (node) => node.member.startMark("undelete", { backups: ["one"] }));
  for (const site of ["store", "east", "west"]) {
    expect((await listedAt(cluster, site)).toSorted()).toEqual(["one", "two"]);
  }
});

test("an undelete while a mirror is away wins there later, and not the forget that it still has", async () => {
  const cluster = await open(["east", "west"]);
  await backUp(cluster, "one");
  change(cluster);
  await backUp(cluster, "two");
  await run(cluster, (node) => node.member.startMark("delete", { backups: ["one"] }));
  cluster.stores.get("west")!.isDown = true;
  await run(cluster, (node) => node.member.startMark("undelete", { backups: ["one"] }));
  cluster.stores.get("west")!.isDown = false;
  expect(await listedAt(cluster, "west")).toEqual(["two"]);
  await cluster.clock.pass(60_000);
  await run(cluster, (node) => node.member.startSync());
  for (const site of ["store", "east", "west"]) {
    expect((await listedAt(cluster, site)).toSorted()).toEqual(["one", "two"]);
  }
});

test("a backup that runs while the roles change is on every site afterwards", async () => {
  const cluster = await open(["east"]);
  await backUp(cluster, "one");
  change(cluster);
  await cluster.clock.pass(5_000);
  const [node, other] = cluster.nodes;
  const started = node!.member.startBackup({ name: "two" });
  let promotion: OperationRecord | undefined;
  cluster.clock.at(60, () => {
    promotion = other!.member.startPromote({ site: "east" });
  });
  expect(await cluster.end(node!, started)).toMatchObject({ state: "done" });
  expect(await cluster.end(other!, promotion!)).toMatchObject({ state: "done" });
  change(cluster);
  await backUp(cluster, "three");
  for (const site of ["store", "east"]) {
    expect((await listedAt(cluster, site)).toSorted()).toEqual(["one", "three", "two"]);
  }
  await expectRestores(cluster, "three", "store");
});

async function open(
  mirrors: readonly string[],
  retentions: Readonly<Record<string, RetentionPolicy>> = {},
): Promise<SimulatedCluster> {
  const cluster = await SimulatedCluster.create({
    seed: 5,
    nodeCount: 2,
    product: "files",
    mirrors,
    retentions,
  });
  for (let count = 0; count < 4; count += 1) change(cluster);
  await cluster.clock.pass(5_000);
  return cluster;
}

function change(cluster: SimulatedCluster): void {
  for (const { files } of cluster.nodes) changeFiles(files, PRODUCT_ROOT, cluster.random);
}

async function run(
  cluster: SimulatedCluster,
  begin: (node: SimulatedNode) => OperationRecord,
): Promise<OperationRecord> {
  const node = cluster.nodes[0]!;
  return (await cluster.end(node, begin(node)))!;
}

async function backUp(cluster: SimulatedCluster, name: string): Promise<BackupResult> {
  // A stat that was taken right after a change proves nothing.
  await cluster.clock.pass(5_000);
  const record = await run(cluster, (node) => node.member.startBackup({ name }));
  expect(record.error).toBeUndefined();
  return record.result as unknown as BackupResult;
}

async function promote(cluster: SimulatedCluster, site: string): Promise<PromoteResult> {
  const record = await run(cluster, (node) => node.member.startPromote({ site }));
  expect(record.error).toBeUndefined();
  return record.result as unknown as PromoteResult;
}

async function listedAt(cluster: SimulatedCluster, site: string): Promise<string[]> {
  const store = cluster.stores.get(site)!;
  const rows = await cluster.read(
    async (reader) => reader.listBackups({ forgotten: false }),
    undefined,
    store,
  );
  return rows.map(({ name }) => name);
}

/** The newest backup gives back what lies on the nodes now, read from one site by itself. */
async function expectRestores(
  cluster: SimulatedCluster,
  name: string,
  site: string,
): Promise<void> {
  const files = await cluster.restoreAside(name, {}, cluster.stores.get(site));
  for (const node of cluster.nodes) {
    const wanted = readTree(node.files, PRODUCT_ROOT);
    expect(wanted.size).toBeGreaterThan(0);
    expect(differences(wanted, readTree(files, `/r/${node.name}/root`))).toEqual([]);
  }
}
