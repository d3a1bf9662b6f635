/** A verification of the database: the product is asked about one backup, and its lines decide. */
import { expect, test } from "bun:test";
import type { OperationRecord } from "../../src/cluster/operations.ts";
import { createFilesProduct } from "../../src/products/files.ts";
import type { BackupContent, Product, ProductCheck } from "../../src/products/product.ts";
import { ProductCluster } from "./product-cluster.ts";

type Ask = NonNullable<Product["checkDatabase"]>;

/** A cluster of plain files, with a database behind them where there is one to ask. */
async function open(checkDatabase?: Ask): Promise<ProductCluster> {
  const cluster = await ProductCluster.open(["a", "b"], (_node, root) => ({
    ...createFilesProduct({ type: "files", root, volume: "data", unreadable: "fail" }),
    ...(checkDatabase === undefined ? {} : { checkDatabase }),
  }));
  for (const node of ["a", "b"]) cluster.write(node, "file", `of ${node}`);
  return cluster;
}

async function backUp(cluster: ProductCluster, name: string): Promise<void> {
  const record = await cluster.end(cluster.member("a").startBackup({ name }));
  expect(record.error).toBeUndefined();
}

async function verify(cluster: ProductCluster, backup?: string): Promise<OperationRecord> {
  const request = { deep: false, database: true, ...(backup === undefined ? {} : { backup }) };
  return await cluster.end(cluster.member("b").startVerify(request));
}

test("the product is asked about the newest backup, or the one that is named", async () => {
  const asked: BackupContent[] = [];
  const lines: ProductCheck[] = [{ what: "a shard", ok: true, message: "is there" }];
  await using cluster = await open((_context, backup) => {
    asked.push(backup);
    return Promise.resolve(lines);
  });
  await backUp(cluster, "one");
  await backUp(cluster, "two");
  expect((await verify(cluster)).result).toMatchObject({
    ok: true,
    backup: { name: "two" },
    checks: lines,
  });
  expect(asked.map(({ nodes }) => nodes.toSorted())).toEqual([["a", "b"]]);
  expect((await verify(cluster, "one")).result).toMatchObject({ backup: { name: "one" } });
  lines.push({ what: "another", ok: false, message: "is not" });
  const bad = await verify(cluster);
  expect(bad.state).toBe("done");
  expect(bad.result).toMatchObject({ ok: false });
});

test("without a backup, or a database to ask, it is refused", async () => {
  await using cluster = await open(() => Promise.resolve([]));
  expect((await verify(cluster)).error).toMatchObject({ kind: "not-found" });
  await using files = await open();
  await backUp(files, "one");
  expect((await verify(files)).error).toMatchObject({
    kind: "refused",
    message: "The product files has no database to ask.",
  });
});
