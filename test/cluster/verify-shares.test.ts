/** The product's part of a deep verification. */
import { expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import { ChunkSource } from "../../src/cas/read/chunk-source.ts";
import type { VerifyReport } from "../../src/cas/read/verify.ts";
import { verifyRepository } from "../../src/cas/read/verify.ts";
import { verifyShares } from "../../src/cluster/verify-shares.ts";
import { createFilesProduct } from "../../src/products/files.ts";
import type { ShareVerifier } from "../../src/products/share-verifier.ts";
import { noise } from "../cas/noise.ts";
import { ProductCluster } from "./product-cluster.ts";

/** Each file's name is its Adler-32. */
const byName: ShareVerifier = async function* byName({ volumes }) {
  for (const volume of volumes) {
    for await (const file of volume.files()) {
      const bytes = Buffer.concat(await Array.fromAsync(file.read({})));
      if (file.path === `${Bun.hash.adler32(bytes)}`) continue;
      yield { path: file.path, kind: "damaged", message: "is not what its name says" };
    }
  }
};

async function open(): Promise<ProductCluster> {
  const cluster = await ProductCluster.open(["a", "b"], (_node, root) =>
    createFilesProduct({ type: "files", root, volume: "data", unreadable: "fail" }),
  );
  for (const [index, node] of ["a", "b"].entries()) {
    const bytes = noise(100_000, index);
    cluster.write(node, `${Bun.hash.adler32(bytes)}`, bytes);
  }
  cluster.write("b", "12345", "not that");
  const record = await cluster.end(cluster.member("a").startBackup({ name: "one" }));
  expect(record.error).toBeUndefined();
  return cluster;
}

async function verify(
  cluster: ProductCluster,
  options: { deep?: boolean; verifier?: ShareVerifier } = {},
): Promise<VerifyReport> {
  const { repository } = cluster.member("a");
  const { site, index } = repository;
  const state = () => repository.state;
  const source = new ChunkSource({ site, index, state, concurrency: 4, cacheBytes: 1_000_000 });
  const { deep = true, verifier } = options;
  const report = await verifyRepository({ repository, source, deep });
  const [backup] = repository.state.backups.values();
  return await verifyShares(report, { repository, source, backup, verifierOf: () => verifier });
}

test("what the product finds joins the report, by node and file", async () => {
  await using cluster = await open();
  const report = await verify(cluster, { verifier: byName });
  expect(report).toMatchObject({ ok: false, problemCount: 1, sharesProved: 2 });
  expect(report.problems).toEqual([
    {
      object: "b: 12345",
      fault: "content",
      message: "is not what its name says",
      backups: ["one"],
      files: ["b/12345"],
      fileCount: 1,
    },
  ]);
  expect(report.backups.map(({ ok }) => ok)).toEqual([false]);
});

test("the product is asked after the chunks were proved, and only by a deep verification", async () => {
  await using cluster = await open();
  let askedCount = 0;
  // oxlint-disable-next-line require-yield
  const verifier: ShareVerifier = async function* nothing({ node, state }) {
    askedCount += 1;
    expect(["a", "b"]).toContain(node);
    expect(state).toEqual({});
  };
  expect(await verify(cluster, { verifier, deep: false })).not.toHaveProperty("sharesProved");
  expect(askedCount).toBe(0);
  expect(await verify(cluster, { verifier })).toMatchObject({ ok: true, sharesProved: 2 });
  expect(askedCount).toBe(2);
  const pack = (await Array.fromAsync(cluster.site.list("pack/")))[0]!;
  await cluster.site.delete([pack.key]);
  expect((await verify(cluster, { verifier })).ok).toBe(false);
  expect(askedCount).toBe(2);
});

test("what cannot be read of a share is a problem; what breaks is an error", async () => {
  await using cluster = await open();
  const failing = (kind: "damaged" | "unavailable"): ShareVerifier =>
    // oxlint-disable-next-line require-yield
    async function* failing() {
      throw new AppError(kind, "a bad day");
    };
  const report = await verify(cluster, { verifier: failing("damaged") });
  expect(report.problems.map(({ object }) => object)).toEqual(["node a", "node b"]);
  const thrown = await verify(cluster, { verifier: failing("unavailable") }).catch(
    (error: unknown) => error,
  );
  expect(thrown).toMatchObject({ kind: "unavailable" });
});

test("a product without a verifier changes nothing", async () => {
  await using cluster = await open();
  expect(await verify(cluster)).toMatchObject({ ok: true, problemCount: 0 });
  const record = await cluster.end(cluster.member("a").startVerify({ deep: true }));
  expect(record.error).toBeUndefined();
  expect(record.result).toMatchObject({ ok: true, deep: true });
});
