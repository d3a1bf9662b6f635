/** The toy's own checksums through a whole backup: what its disk has damaged is named, and stays so. */
import { expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import { realFileSystem } from "../../src/base/file-system.ts";
import type { VerifyReport } from "../../src/cas/read/verify.ts";
import type { BackupResult } from "../../src/cluster/backup-operation.ts";
import { createScriptedProduct } from "../../src/products/scripted.ts";
import { writeRegistry } from "../../src/products/scripted-registry.ts";
import { ProductCluster } from "../cluster/product-cluster.ts";
import { ToyDatabase } from "./toy-database.ts";

/** One toy with one fileset, whose files changed long ago. */
async function openToy(): Promise<ProductCluster> {
  const cluster = await ProductCluster.open(["a"], (_node, root) =>
    createScriptedProduct({ type: "scripted", root, settings: {} }),
  );
  const root = cluster.rootOf("a");
  const toy = new ToyDatabase(realFileSystem, root).start();
  for (const text of ["one", "two", "three"]) toy.append(text);
  toy.flush();
  const registry = { revision: 1, members: { a: { shards: [0] } } };
  writeRegistry(realFileSystem, join(root, "registry.json"), registry, { node: "a" });
  for (const name of fs.readdirSync(join(root, "filesets"))) age(join(root, "filesets", name));
  return cluster;
}

function age(path: string): void {
  const seconds = Math.floor(Date.now() / 1000) - 100;
  fs.utimesSync(path, seconds, seconds);
}

/** Flips a bit where nobody notices: size and times stay as they were. */
function damage(cluster: ProductCluster): string {
  const folder = join(cluster.rootOf("a"), "filesets");
  const name = fs.readdirSync(folder).find((one) => one.endsWith(".data"))!;
  const bytes = fs.readFileSync(join(folder, name));
  bytes[0]! ^= 1;
  fs.writeFileSync(join(folder, name), bytes);
  age(join(folder, name));
  return name;
}

async function backup(cluster: ProductCluster): Promise<BackupResult> {
  const record = await cluster.end(cluster.member("a").startBackup());
  expect(record.error).toBeUndefined();
  return record.result as unknown as BackupResult;
}

async function verify(cluster: ProductCluster, backup: string): Promise<VerifyReport> {
  const record = await cluster.end(cluster.member("a").startVerify({ backup, deep: true }));
  expect(record.error).toBeUndefined();
  return record.result as unknown as VerifyReport;
}

test("a sound toy is complete, proved, and not linked twice", async () => {
  await using cluster = await openToy();
  const first = await backup(cluster);
  expect(first).toMatchObject({ complete: true, problems: [] });
  expect(await verify(cluster, first.backup)).toMatchObject({ ok: true, sharesProved: 1 });
  const links: string[] = [];
  const { link } = realFileSystem;
  realFileSystem.link = (existing, created) => {
    links.push(existing);
    link.call(realFileSystem, existing, created);
  };
  try {
    expect(await backup(cluster)).toMatchObject({ complete: true });
  } finally {
    Reflect.deleteProperty(realFileSystem, "link");
  }
  expect(links.filter((path) => path.includes("/filesets/"))).toEqual([]);
  expect(links.some((path) => path.includes("/logs/"))).toBe(true);
});

test("a damaged file makes each backup incomplete that holds it, and no deep verification passes", async () => {
  await using cluster = await openToy();
  const name = damage(cluster);
  for (let count = 2; count > 0; count -= 1) {
    const result = await backup(cluster);
    expect(result).toMatchObject({ complete: false, degraded: false, problemCount: 1 });
    expect(result.problems[0]).toContain(`${name}: Its Adler-32 is `);
    const report = await verify(cluster, result.backup);
    expect(report).toMatchObject({ ok: false, problemCount: 1 });
    expect(report.problems[0]?.files).toEqual([`a/filesets/${name}`]);
  }
});
