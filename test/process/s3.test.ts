/**
 * The whole cycle of three real servers over a real S3 server, with little data: what scripts/scenario.ts
 * does with much. And what a wrong bucket and wrong credentials say. Without a Go toolchain it is
 * skipped by name; in CI that is a failure.
 */
import { afterAll, describe, expect, test } from "bun:test";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startS3Server } from "../../scripts/real/s3.ts";
import type { RealS3 } from "../../scripts/real/s3.ts";
import { ProcessCluster } from "../../scripts/scenario-cluster.ts";
import { runScenario } from "../../scripts/scenario-run.ts";

const TIMEOUT_MS = 120_000;
const FOLDER = fs.mkdtempSync(join(fs.realpathSync(tmpdir()), "astacus-s3-process-"));
const server = await startS3Server({ directory: join(FOLDER, "s3") });

afterAll(async () => {
  if (!("missing" in server)) await server.stop();
  fs.rmSync(FOLDER, { recursive: true, force: true });
});

if ("missing" in server) {
  test.skip(`three servers over a real S3 server [needs go: ${server.missing}]`, () => undefined);
} else {
  describe("three servers over a real S3 server", () => against(server));
}

function siteOf(real: RealS3, change: { readonly bucket?: string; readonly prefix?: string } = {}) {
  const { bucket = real.bucket, prefix = "test" } = change;
  return (
    `{name: main, type: s3, bucket: ${bucket}, prefix: ${prefix}, endpoint: "${real.endpoint}", ` +
    "accessKeyId: {env: S3_TEST_ID}, secretAccessKey: {env: S3_TEST_KEY}}"
  );
}

function environmentOf(real: RealS3): Record<string, string> {
  return { S3_TEST_ID: real.accessKeyId, S3_TEST_KEY: real.secretAccessKey };
}

function against(real: RealS3): void {
  test(
    "back up, lose a node, and are restored by three empty ones, byte for byte and without a LIST",
    async () => {
      const source = join(FOLDER, "source");
      fillSource(source);
      const result = await runScenario({
        folder: FOLDER,
        sources: [source],
        site: siteOf(real),
        siteFolder: join(FOLDER, "s3"),
        environment: environmentOf(real),
      });
      expect(result.differences).toEqual({
        "lost node": [],
        "empty nodes, changed": [],
        "empty nodes, first": [],
      });
      expect(result.comparedEntries).toBeGreaterThan(500);
      const [first, unchanged] = result.steps;
      expect(first).toMatchObject({ step: "first backup", requests: { list: 0 } });
      expect(first?.readBytes).toBeGreaterThan(0);
      expect(unchanged).toMatchObject({
        step: "unchanged backup",
        requests: { list: 0, delete: 0, put: 2 },
        readBytes: 0,
        newBytes: 0,
        storedBytes: 0,
      });
      for (const step of result.steps) expect(step.requests["list"]).toBe(0);
    },
    TIMEOUT_MS,
  );

  test(
    "say which bucket is not there, and work when it is",
    async () => {
      const folder = join(FOLDER, "no-bucket");
      const site = siteOf(real, { bucket: "nowhere-at-all" });
      const environment = environmentOf(real);
      await using cluster = await ProcessCluster.make({ folder, site, environment, nodes: ["a"] });
      const config = ["-c", cluster.config];
      for (const command of [["site", "init"], ["site", "check"], ["list"]]) {
        const { code, stderr } = await cluster.run([...command, ...config]);
        expect({ command, code }).toEqual({ command, code: 1 });
        expect(stderr).toContain("nowhere-at-all");
        expect(stderr).not.toContain("    at ");
      }
      fs.writeFileSync(cluster.config, cluster.configText({ site: siteOf(real, { prefix: "b" }) }));
      expect(await cluster.run(["site", "init", ...config])).toMatchObject({ code: 0 });
      await cluster.startAll();
      expect(await cluster.cli(["backup"])).toMatchObject({ code: 0 });
    },
    TIMEOUT_MS,
  );

  test(
    "say that credentials are wrong, and never print them",
    async () => {
      const folder = join(FOLDER, "wrong-key");
      const environment = { ...environmentOf(real), S3_TEST_KEY: "a-wrong-key-of-the-tests" };
      const site = siteOf(real);
      await using cluster = await ProcessCluster.make({ folder, site, environment, nodes: ["a"] });
      const init = await cluster.run(["site", "init", "-c", cluster.config]);
      expect(init.code).toBe(4);
      expect(init.stderr).toMatch(/accessKeyId|credentials/i);
      expect(init.stderr).not.toContain("    at ");
      const check = await cluster.run(["config", "check", "-c", cluster.config, "--node", "a"]);
      expect(check.code).toBe(1);
      expect(check.stdout).toContain("BAD   site main");
      for (const text of [init.stdout, init.stderr, check.stdout, check.stderr]) {
        expect(text).not.toContain(environment.S3_TEST_KEY);
      }
    },
    TIMEOUT_MS,
  );
}

/** Small files, a large one, equal ones, links. */
function fillSource(source: string): void {
  for (let group = 0; group < 6; group += 1) {
    const path = join(source, `group-${group}`);
    fs.mkdirSync(path, { recursive: true });
    for (let index = 0; index < 60; index += 1) {
      fs.writeFileSync(join(path, `file-${index}`), `${group} ${index}\n`.repeat(index * 10));
    }
    fs.writeFileSync(join(path, "equal"), "the same in each group\n".repeat(10_000));
    fs.symlinkSync("file-1", join(path, "link"));
  }
  const noise = new Uint8Array(65_536);
  for (let part = 0; part < 40; part += 1) {
    fs.appendFileSync(join(source, "group-0/large"), crypto.getRandomValues(noise));
  }
}
