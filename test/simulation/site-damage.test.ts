/**
 * Damage at the primary while a mirror is good, over real members in a simulated world: a restore is
 * byte for byte right, what was bad is repaired under a new birth, and a deep look finds nothing then.
 */
import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import { makeFolders, removeFolder } from "../../src/base/folders.ts";
import type { BackupResult } from "../../src/cluster/backup-operation.ts";
import type { OperationRecord } from "../../src/cluster/operations.ts";
import type { RestoreResult } from "../../src/cluster/restore-operation.ts";
import type { ScrubReport } from "../../src/cluster/scrub.ts";
import type { VerifyRequest, VerifyResult } from "../../src/cluster/verify-operation.ts";
import { openOffline } from "../../src/cluster/offline.ts";
import { changeFiles, differences, readTree } from "./cluster-data.ts";
import type { Shade } from "./shaded-site.ts";
import { SimulatedCluster } from "./simulated-cluster.ts";
import { MemoryFileSystem } from "./memory-file-system.ts";
import type { SimulatedNode } from "./simulated-node.ts";
import { PRODUCT_ROOT } from "./simulated-node.ts";
import { databasesOf, ProcessLife } from "./simulated-process.ts";
import type { SimulatedStore } from "./simulated-store.ts";

const SHADES: Readonly<Record<string, Shade>> = {
  lost: { kind: "hidden" },
  torn: { kind: "torn" },
  flipped: { kind: "flipped", bit: 12_345 },
};

describe("a restore goes on at the mirror and mends the primary where objects are", () => {
  for (const [name, shade] of Object.entries(SHADES)) {
    test(name, async () => {
      const { cluster, trees } = await backedUp();
      const count = shadeAll(cluster.store, shade);
      await wipe(cluster);
      const result = await restore(cluster);
      expectTrees(cluster, trees);
      expect(result.faults).toBeGreaterThan(0);
      expect(result.repairs).toMatchObject([{ site: "store", sound: 0, left: [] }]);
      const repaired = result.repairs[0]?.repaired ?? 0;
      expect(repaired).toBe(result.faults);
      // A restore meets what it needs; lists and whatever it did not read are found by a verification.
      expect(repaired).toBeLessThanOrEqual(count);
      const verified = await verify(cluster, { deep: true, repair: true });
      expect(verified).toMatchObject({ ok: true, problems: [] });
      expect(await verify(cluster, { deep: true })).toMatchObject({ ok: true, site: "store" });
      // It stands on its own again, whatever becomes of the mirror.
      cluster.stores.get("east")!.isDown = true;
      await wipe(cluster);
      expect(await restore(cluster)).toMatchObject({ faults: 0, repairs: [] });
      expectTrees(cluster, trees);
    });
  }

  test("not to be read, which is no damage", async () => {
    for (const kind of ["failing", "silent"] as const) {
      const { cluster, trees } = await backedUp();
      shadeAll(cluster.store, { kind });
      await wipe(cluster);
      expect(await restore(cluster)).toMatchObject({ faults: 0, repairs: [] });
      expectTrees(cluster, trees);
      const counts = cluster.nodes.map(({ member }) => member.sites.faults.counts.get("store"));
      const what = kind === "failing" ? "unavailable" : "slow";
      expect(counts.some((one) => (one?.[what] ?? 0) > 0)).toBe(true);
      cluster.store.shades.clear();
      expect(await verify(cluster, { deep: true })).toMatchObject({ ok: true });
    }
  });
});

describe("a mirror in the middle of a backup", () => {
  for (const trouble of ["fails", "falls silent"] as const) {
    test(`that ${trouble} costs it packs and the backup nothing but patience`, async () => {
      const { cluster } = await backedUp();
      const east = cluster.stores.get("east")!;
      for (let count = 0; count < 6; count += 1) change(cluster);
      await cluster.clock.pass(5_000);
      const startMs = cluster.clock.monotonic();
      let puts = 0;
      east.beforePut = (key, signal) => {
        if (!key.startsWith("pack/")) return undefined;
        puts += 1;
        if (puts < 3) return undefined;
        if (trouble === "falls silent") {
          // As a client with a deadline of its own.
          return cluster.clock.sleep(120_000, signal).then(() => {
            throw new AppError("timeout", "east does not answer");
          });
        }
        throw new AppError("permission", "east takes no more");
      };
      const record = await run(cluster, (node) => node.member.startBackup({ name: "two" }));
      expect(record.error).toBeUndefined();
      expect(puts).toBeGreaterThan(2);
      const { mirrors } = record.result as unknown as BackupResult;
      expect(mirrors).toMatchObject([{ site: "east", state: "lagging" }]);
      const tookMs = cluster.clock.monotonic() - startMs;
      // Each node waits once for a pack; the copy afterwards waits as any call to a site does.
      if (trouble === "fails") expect(tookMs).toBeLessThan(60_000);
      east.beforePut = undefined;
      const trees = treesOf(cluster);
      cluster.store.isDown = false;
      const synced = await run(cluster, (node) => node.member.startSync());
      expect(synced).toMatchObject({ result: { mirrors: [{ state: "acknowledged" }] } });
      cluster.store.isDown = true;
      await wipe(cluster);
      await restore(cluster, "two");
      expectTrees(cluster, trees);
    });
  }
});

test("a verification looks at its site alone, and repairs only if asked", async () => {
  const { cluster } = await backedUp();
  const count = shadeAll(cluster.store, { kind: "hidden" });
  const bad = await verify(cluster, { deep: true });
  expect(bad.ok).toBe(false);
  expect(bad.repairs).toBeUndefined();
  expect(await verify(cluster, { deep: true, site: "east" })).toMatchObject({
    ok: true,
    site: "east",
  });
  const mended = await verify(cluster, { deep: true, repair: true });
  expect(mended.ok).toBe(true);
  const { repairs = [] } = mended;
  expect(repairs.every(({ site, left }) => site === "store" && left.length === 0)).toBe(true);
  expect(repairs.reduce((sum, { repaired }) => sum + repaired, 0)).toBe(count);
});

test("what no site has whole stays, is said, and is never restored wrongly", async () => {
  const { cluster } = await backedUp();
  for (const store of cluster.stores.values()) shadeAll(store, SHADES["flipped"]!);
  change(cluster);
  const record = await run(cluster, (node) => node.member.startRestore({ backup: "one" }));
  expect(record).toMatchObject({ state: "failed", error: { kind: "damaged" } });
  const report = await verify(cluster, { deep: true, repair: true });
  expect(report.ok).toBe(false);
  expect(report.repairs?.[0]?.left.length).toBeGreaterThan(0);
  expect(report.repairs?.[0]?.left[0]?.why).toContain("no other site");
});

for (const shade of [SHADES["lost"]!, SHADES["flipped"]!]) {
  test(`packs that no site has whole (${shade.kind}) are sent again by every node`, async () => {
    const { cluster } = await backedUp([]);
    const packs = [...cluster.store.objects.keys()].filter((key) => key.startsWith("pack/"));
    for (const key of packs) cluster.store.shades.set(key, shade);
    const report = await verify(cluster, { deep: true });
    expect(report).toMatchObject({ ok: false, distrusted: packs.length });
    const trees = treesOf(cluster);
    const other = cluster.nodes[1]!;
    const again = await cluster.end(other, other.member.startBackup({ name: "two" }));
    expect(again?.error).toBeUndefined();
    expect(again?.result).toMatchObject({ complete: true });
    expect(await verify(cluster, { deep: true, backup: "two" })).toMatchObject({ ok: true });
    await wipe(cluster);
    await restore(cluster, "two");
    expectTrees(cluster, trees);
    // What is right when it is read again is relied on again.
    cluster.store.shades.clear();
    expect((await verify(cluster, { deep: true })).ok).toBe(true);
    const { site } = await cluster.clock.run(cluster.nodes[0]!.member.sites.readable());
    expect(site.catalog.database.query("SELECT id FROM distrusted_pack").all()).toEqual([]);
  });
}

test.each(["pack/", "manifest/", "index/"])(
  "scrubbing mends a damaged %p of a mirror",
  async (of) => {
    const { cluster } = await backedUp();
    const east = cluster.stores.get("east")!;
    const key = [...east.objects.keys()].find((one) => one.startsWith(of))!;
    east.shades.set(key, SHADES["flipped"]!);
    const { ok, sites } = await scrub(cluster);
    expect(ok).toBe(false);
    expect(sites).toMatchObject([
      { site: "store", ok: true },
      { site: "east", ok: false, problems: [{ object: key }], repaired: 1 },
    ]);
    expect(await scrub(cluster)).toMatchObject({ ok: true });
    const [row] = await cluster.clock.run(cluster.nodes[0]!.member.listBackups());
    expect(row?.provedAt).toBeString();
  },
);

test("a backup goes on where the lists of the last one are damaged, and they are read elsewhere", async () => {
  const { cluster } = await backedUp();
  shadeAll(cluster.store, { kind: "hidden" });
  change(cluster);
  const record = await run(cluster, (node) => node.member.startBackup({ name: "two" }));
  expect(record.error).toBeUndefined();
  const verified = await verify(cluster, { deep: true, repair: true });
  expect(verified).toMatchObject({ ok: true });
  const trees = treesOf(cluster);
  await wipe(cluster);
  await restore(cluster, "two");
  expectTrees(cluster, trees);
});

test("a reader without a server goes on at the other sites of its file", async () => {
  const { cluster, trees } = await backedUp();
  const [store, east] = [cluster.store, cluster.stores.get("east")!];
  for (const shade of [...Object.values(SHADES), { kind: "failing" }] as Shade[]) {
    shadeAll(store, shade);
    const files = new MemoryFileSystem({ clock: cluster.clock });
    const read = async (): Promise<void> => {
      using reader = await openOffline({
        site: await store.open(),
        others: [{ name: "east", open: () => east.open() }],
        doors: {
          clock: cluster.clock,
          random: cluster.random,
          files,
          databases: databasesOf(new Map(), new ProcessLife()),
        },
        tempFolder: "/t",
        cluster: "simulated",
        retention: { minimum: 1 },
        concurrency: 4,
      });
      await reader.restoreTo({ target: "/r", ownerPolicy: "recorded" });
      expect(reader.faults.counts.get("store")).toBeDefined();
      if (shade.kind === "failing") return;
      expect(await reader.verify({ deep: true })).toMatchObject({ ok: false });
    };
    await cluster.clock.run(read());
    for (const [name, tree] of trees) {
      expect(differences(tree, readTree(files, `/r/${name}/root`))).toEqual([]);
    }
  }
});

type Trees = ReadonlyMap<string, ReturnType<typeof readTree>>;

async function backedUp(
  mirrors: readonly string[] = ["east"],
): Promise<{ cluster: SimulatedCluster; trees: Trees }> {
  const options = { seed: 7, nodeCount: 2, product: "files", mirrors } as const;
  const cluster = await SimulatedCluster.create(options);
  for (let count = 0; count < 4; count += 1) change(cluster);
  await cluster.clock.pass(5_000);
  const record = await run(cluster, (node) => node.member.startBackup({ name: "one" }));
  expect(record.error).toBeUndefined();
  const result = record.result as unknown as BackupResult;
  expect(result.mirrors.map(({ state }) => state)).toEqual(mirrors.map(() => "acknowledged"));
  return { cluster, trees: treesOf(cluster) };
}

/** Harms all packs and manifests of a store; how many they are. */
function shadeAll(store: SimulatedStore, shade: Shade): number {
  const keys = [...store.objects.keys()].filter((key) => /^(pack|manifest)\//.test(key));
  for (const key of keys) store.shades.set(key, shade);
  return keys.length;
}

function change(cluster: SimulatedCluster): void {
  for (const { files } of cluster.nodes) changeFiles(files, PRODUCT_ROOT, cluster.random);
}

/** Nothing is left of the data. */
async function wipe(cluster: SimulatedCluster): Promise<void> {
  for (const { files } of cluster.nodes) {
    await removeFolder(files, PRODUCT_ROOT, async () => undefined);
    makeFolders(files, PRODUCT_ROOT);
  }
}

function treesOf(cluster: SimulatedCluster): Trees {
  return new Map(cluster.nodes.map(({ name, files }) => [name, readTree(files, PRODUCT_ROOT)]));
}

function expectTrees(cluster: SimulatedCluster, trees: Trees): void {
  for (const [name, tree] of treesOf(cluster)) {
    expect(tree.size).toBeGreaterThan(0);
    expect(differences(trees.get(name)!, tree)).toEqual([]);
  }
}

async function run(
  cluster: SimulatedCluster,
  begin: (node: SimulatedNode) => OperationRecord,
): Promise<OperationRecord> {
  const node = cluster.nodes[0]!;
  return (await cluster.end(node, begin(node)))!;
}

async function restore(cluster: SimulatedCluster, backup = "one"): Promise<RestoreResult> {
  const record = await run(cluster, (node) => node.member.startRestore({ backup }));
  expect(record.error).toBeUndefined();
  return record.result as unknown as RestoreResult;
}

async function verify(cluster: SimulatedCluster, request: VerifyRequest): Promise<VerifyResult> {
  const record = await run(cluster, (node) => node.member.startVerify(request));
  expect(record.error).toBeUndefined();
  return record.result as unknown as VerifyResult;
}

async function scrub(cluster: SimulatedCluster): Promise<{ ok: boolean; sites: ScrubReport[] }> {
  const record = await run(cluster, (node) => node.member.startScrub());
  expect(record.error).toBeUndefined();
  return record.result as unknown as { ok: boolean; sites: ScrubReport[] };
}
