/**
 * A repository in a bucket with object lock, through the command line and a real server: it is
 * certified, backed up to, cleaned up as far as locks allow, healed when somebody deletes its objects,
 * and restored. Without a Go toolchain it is skipped by name; in CI that is a failure.
 */
import { DeleteObjectsCommand, ListObjectsV2Command } from "@aws-sdk/client-s3";
import { afterAll, describe, expect, test } from "bun:test";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startMinio } from "../../scripts/real/minio.ts";
import { clientOf } from "../../scripts/real/s3.ts";
import type { RealS3 } from "../../scripts/real/s3.ts";
import { ProcessCluster } from "../../scripts/scenario-cluster.ts";

const TIMEOUT_MS = 120_000;
const FOLDER = fs.mkdtempSync(join(fs.realpathSync(tmpdir()), "astacus-s3-lock-"));
const server = await startMinio({ directory: join(FOLDER, "s3") });

afterAll(async () => {
  if (!("missing" in server)) await server.stop();
  fs.rmSync(FOLDER, { recursive: true, force: true });
});

if ("missing" in server) {
  test.skip(`a repository under object lock [needs ${server.missing}]`, () => undefined);
} else {
  describe("a repository under object lock", () => against(server));
}

function against(real: RealS3): void {
  const site =
    `{name: main, type: s3, bucket: ${real.lockedBucket}, prefix: locked, ` +
    `endpoint: "${real.endpoint}", lock: {mode: compliance, period: 1d}, ` +
    "accessKeyId: {env: S3_TEST_ID}, secretAccessKey: {env: S3_TEST_KEY}}";
  const environment = { S3_TEST_ID: real.accessKeyId, S3_TEST_KEY: real.secretAccessKey };

  test(
    "is certified, cleaned up as far as locks allow, and outlives a deletion of all it has",
    async () => {
      const folder = join(FOLDER, "cluster");
      await using cluster = await ProcessCluster.make({ folder, site, environment, nodes: ["a"] });
      const config = ["-c", cluster.config];
      const check = await cluster.run(["site", "check", ...config]);
      expect(check).toMatchObject({ code: 0 });
      expect(check.stderr).toContain("ok  lock");
      expect(await cluster.run(["site", "init", ...config])).toMatchObject({ code: 0 });
      fs.writeFileSync(join(cluster.root("a"), "file"), "what must stay\n".repeat(1000));
      await cluster.startAll();
      for (const name of ["first", "second", "third"]) {
        fs.writeFileSync(join(cluster.root("a"), name), crypto.getRandomValues(Buffer.alloc(9000)));
        expect(await cluster.cli(["backup", "--name", name])).toMatchObject({ code: 0 });
        fs.rmSync(join(cluster.root("a"), name));
      }
      expect(await cluster.cli(["delete", "first"])).toMatchObject({ code: 0 });
      const cleanup = await cluster.cli(["cleanup"]);
      expect(cleanup).toMatchObject({ code: 0 });
      expect(cleanup.stdout).toContain("locked until");
      type Sites = { readonly sites: readonly { readonly lock?: { readonly until?: string } }[] };
      const { sites } = await cluster.json<Sites>(["site", "list"]);
      expect(Date.parse(sites[0]?.lock?.until ?? "")).toBeGreaterThan(Date.now());

      const before = await keys(real);
      expect(before.length).toBeGreaterThan(8);
      await removeAll(real, before);
      expect(await keys(real)).toEqual([]);

      expect(await cluster.cli(["verify", "--deep", "third"])).toMatchObject({ code: 0 });
      expect(await cluster.cli(["backup", "--name", "after"])).toMatchObject({ code: 0 });
      const target = join(folder, "restored");
      const restored = await cluster.run([
        "restore",
        "--backup",
        "third",
        "--to",
        target,
        ...config,
      ]);
      expect(restored).toMatchObject({ code: 0 });
      const found = fs.readdirSync(target, { recursive: true, encoding: "utf8" });
      expect(found.some((path) => path.endsWith("third"))).toBe(true);
    },
    TIMEOUT_MS,
  );
}

async function keys(real: RealS3): Promise<string[]> {
  const client = clientOf(real);
  const command = new ListObjectsV2Command({ Bucket: real.lockedBucket, Prefix: "locked/" });
  const { Contents = [] } = await client.send(command);
  client.destroy();
  return Contents.map(({ Key = "" }) => Key);
}

/** What somebody with the key to the bucket can do: a marker over each object. */
async function removeAll(real: RealS3, all: readonly string[]): Promise<void> {
  const client = clientOf(real);
  const Delete = { Objects: all.map((Key) => ({ Key })) };
  await client.send(new DeleteObjectsCommand({ Bucket: real.lockedBucket, Delete }));
  client.destroy();
}
