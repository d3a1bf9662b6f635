/**
 * A migration between two buckets of one real S3 server, seen from the line to it: the server copies
 * packs by itself, none is sent, and the new bucket alone gives everything back.
 */
import { afterAll, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startS3Server } from "../../scripts/real/s3.ts";
import type { RealS3 } from "../../scripts/real/s3.ts";
import { ProcessCluster, until } from "../../scripts/scenario-cluster.ts";
import { compareTrees, recordTree } from "../../scripts/tree-comparison.ts";
import type { MigrationPlan } from "../../src/cluster/migrate-plan.ts";
import type { OperationRecord } from "../../src/cluster/operations.ts";
import type { Passing } from "../sites/meddler.ts";
import { meddleWith } from "../sites/meddler.ts";

const FOLDER = fs.mkdtempSync(join(fs.realpathSync(tmpdir()), "astacus-within-"));
const FILE_SIZE_BYTES = 3_000_000;
const server = await startS3Server({ directory: join(FOLDER, "s3") });

afterAll(async () => {
  if (!("missing" in server)) await server.stop();
  fs.rmSync(FOLDER, { recursive: true, force: true });
});

if ("missing" in server) {
  test.skip(`a migration within a store [needs go: ${server.missing}]`, () => undefined);
} else {
  test("between two buckets of one server sends no pack, and reads each once", async () => {
    await migrateWithin(server);
  }, 120_000);
}

async function migrateWithin(real: RealS3): Promise<void> {
  await using line = await meddleWith(real);
  const passed: Passing[] = [];
  line.meddle = (passing) => {
    passed.push(passing);
    return undefined;
  };
  const site = (name: string, bucket: string): string =>
    `{name: ${name}, type: s3, bucket: ${bucket}, prefix: ${name}, endpoint: "${line.real.endpoint}", ` +
    "accessKeyId: {env: S3_TEST_ID}, secretAccessKey: {env: S3_TEST_KEY}}";
  const [old, fresh] = [site("old", real.bucket), site("new", real.lockedBucket)];
  await using cluster = await ProcessCluster.make({
    folder: join(FOLDER, "cluster"),
    site: old,
    environment: { S3_TEST_ID: real.accessKeyId, S3_TEST_KEY: real.secretAccessKey },
    nodes: ["amber", "birch"],
  });
  expect(await cluster.run(["site", "init", "-c", cluster.config])).toMatchObject({ code: 0 });
  await cluster.startAll();
  for (const name of cluster.names) {
    fs.writeFileSync(join(cluster.root(name), "file"), randomBytes(FILE_SIZE_BYTES));
  }
  await cluster.json(["backup", "--name", "one"]);
  await addSite(cluster, { old, fresh });
  const args = ["migrate", "--from", "old", "--to", "new"];
  const plan = await cluster.json<MigrationPlan>([...args, "--plan"]);
  expect(plan).toMatchObject({ isWithinStore: true, refusals: [] });
  expect(plan.usage.map(({ bytesRead, bytesWritten }) => [bytesRead, bytesWritten])).toEqual([
    [0, 0],
    [plan.bytes, 0],
  ]);
  expect((await cluster.cli([...args, "--plan"])).stdout).toContain("their store itself");

  passed.length = 0;
  const done = await cluster.json<OperationRecord>([...args, "--yes"]);
  expect(done.result).toMatchObject({ switched: true, copied: ["one"], packs: plan.packs });
  const newPacks = passed.filter(({ path }) => path.startsWith(`${real.lockedBucket}/new/pack/`));
  const puts = newPacks.filter(({ method }) => method === "PUT");
  const isCopy = ({ headers }: Passing): boolean => headers["x-amz-copy-source"] !== undefined;
  expect(puts.length).toBeGreaterThan(0);
  // Lists are rewritten for the new log, in packs of their own, which are small.
  const sent = puts.filter((put) => !isCopy(put));
  const sentBytes = sent.reduce((sum, { headers }) => sum + Number(headers["content-length"]), 0);
  expect(sentBytes).toBeLessThan(plan.bytes / 100);
  expect(puts.filter(isCopy)).toHaveLength(plan.packs);
  const usage = done.usage?.find((one) => one.site === "new");
  expect(usage?.bytesWritten).toBeLessThan(plan.bytes / 10);
  expect(plan.bytes).toBeGreaterThan(2 * FILE_SIZE_BYTES);

  // What the old bucket has is not needed any more.
  fs.rmSync(join(FOLDER, "s3", "root", real.bucket, "old"), { recursive: true });
  const config = cluster.writeConfig("alone.conf", { site: fresh });
  const target = join(FOLDER, "restored");
  const restore = ["restore", "--backup", "one", "--to", target, "--yes", "-c", config];
  expect(await cluster.run(restore)).toMatchObject({ code: 0 });
  for (const name of cluster.names) {
    const [was, is] = [cluster.root(name), join(target, name, "root")];
    expect(compareTrees(recordTree(was).record, recordTree(is).record)).toEqual([]);
  }
}

/** Makes the new site a part of the repository, and waits until all nodes know it. */
async function addSite(
  cluster: ProcessCluster,
  { old, fresh }: { readonly old: string; readonly fresh: string },
): Promise<void> {
  fs.writeFileSync(cluster.config, cluster.configText({ site: `${old}\n  - ${fresh}` }));
  for (const name of cluster.names) {
    expect(await cluster.cli(["reload"], name)).toMatchObject({ code: 0 });
  }
  // The new settings hold as soon as nothing runs.
  await until("the new site is known", async () => {
    const { stderr } = await cluster.cli(["migrate", "--from", "old", "--to", "new", "--plan"]);
    return stderr.includes("astacus site init new");
  });
  for (const name of cluster.names) await cluster.untilReady(name);
  expect(await cluster.run(["site", "init", "new", "-c", cluster.config])).toMatchObject({
    code: 0,
  });
}
