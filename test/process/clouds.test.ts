/**
 * The whole cycle of three real servers over Azure's emulator and over a server that speaks the API
 * of Google Cloud Storage, with little data; and what `site check` says of them. What is missing is
 * skipped by name; in CI that is a failure.
 */
import { afterAll, describe, expect, test } from "bun:test";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startAzurite } from "../../scripts/real/azurite.ts";
import { startGcsServer } from "../../scripts/real/gcs.ts";
import { ProcessCluster } from "../../scripts/scenario-cluster.ts";
import { runScenario } from "../../scripts/scenario-run.ts";

const TIMEOUT_MS = 180_000;
const FOLDER = fs.mkdtempSync(join(fs.realpathSync(tmpdir()), "astacus-clouds-"));
const azure = await startAzurite({ directory: join(FOLDER, "azure") });
const gcs = await startGcsServer({ directory: join(FOLDER, "gcs") });

afterAll(async () => {
  for (const server of [azure, gcs]) if (!("missing" in server)) await server.stop();
  fs.rmSync(FOLDER, { recursive: true, force: true });
});

/** What a cluster is told of a cloud. */
type Cloud = {
  readonly name: string;
  readonly site: (prefix: string) => string;
  readonly environment: Readonly<Record<string, string>>;
};

if ("missing" in azure) {
  test.skip(`three servers over Azure's emulator [needs ${azure.missing}]`, () => undefined);
} else {
  const { container, account, endpoint, accountKey } = azure;
  describe("three servers over Azure's emulator", () =>
    against({
      name: "azure",
      site: (prefix) =>
        `{name: main, type: azure, container: ${container}, prefix: ${prefix}, ` +
        `account: ${account}, endpoint: "${endpoint}", accountKey: {env: AZURE_TEST_KEY}}`,
      environment: { AZURE_TEST_KEY: accountKey },
    }));
}

if ("missing" in gcs) {
  test.skip(`three servers over a server like Google's [needs ${gcs.missing}]`, () => undefined);
} else {
  const { bucket, endpoint } = gcs;
  describe("three servers over a server like Google's", () =>
    against({
      name: "gcs",
      site: (prefix) =>
        `{name: main, type: gcs, bucket: ${bucket}, prefix: ${prefix}, anonymous: true, ` +
        `endpoint: "${endpoint}"}`,
      environment: {},
    }));
}

function against({ name, site, environment }: Cloud): void {
  test(
    "back up twice, lose a node, and are restored by three empty ones, byte for byte",
    async () => {
      const source = join(FOLDER, `${name}-source`);
      fillSource(source);
      const result = await runScenario({
        folder: join(FOLDER, `${name}-run`),
        sources: [source],
        site: site("cycle"),
        siteFolder: join(FOLDER, name),
        environment,
      });
      expect(result.differences).toEqual({
        "lost node": [],
        "empty nodes, changed": [],
        "empty nodes, first": [],
      });
      expect(result.comparedEntries).toBeGreaterThan(100);
      const [first, unchanged] = result.steps;
      expect(first).toMatchObject({ step: "first backup", requests: { list: 0 } });
      expect(unchanged).toMatchObject({ step: "unchanged backup", newBytes: 0 });
      for (const step of result.steps) expect(step.requests["list"]).toBe(0);
    },
    TIMEOUT_MS,
  );

  test(
    "pass `site check`",
    async () => {
      const folder = join(FOLDER, `${name}-check`);
      await using cluster = await ProcessCluster.make({
        folder,
        site: site("check"),
        environment,
        nodes: ["a"],
      });
      const config = ["-c", cluster.config];
      expect(await cluster.run(["site", "init", ...config])).toMatchObject({ code: 0 });
      const check = await cluster.run(["site", "check", ...config]);
      expect({ code: check.code, stderr: check.stderr }).toMatchObject({
        code: 0,
        stderr: expect.stringContaining("racing writers"),
      });
    },
    TIMEOUT_MS,
  );
}

if (!("missing" in azure)) {
  test(
    "a wrong key of Azure is said to be that, and never printed",
    async () => {
      const { container, account, endpoint } = azure;
      const key = Buffer.from("a wrong key of the tests").toString("base64");
      const folder = join(FOLDER, "wrong-key");
      const site =
        `{name: main, type: azure, container: ${container}, prefix: wrong, account: ${account}, ` +
        `endpoint: "${endpoint}", accountKey: {env: AZURE_TEST_KEY}}`;
      const environment = { AZURE_TEST_KEY: key };
      await using cluster = await ProcessCluster.make({ folder, site, environment, nodes: ["a"] });
      const init = await cluster.run(["site", "init", "-c", cluster.config]);
      expect(init.code).toBe(4);
      expect(init.stderr).toContain("accountKey");
      const check = await cluster.run(["config", "check", "-c", cluster.config, "--node", "a"]);
      expect(check.code).toBe(1);
      expect(check.stdout).toContain("BAD   site main");
      for (const text of [init.stdout, init.stderr, check.stdout, check.stderr]) {
        expect(text).not.toContain(key);
        expect(text).not.toContain("    at ");
      }
    },
    TIMEOUT_MS,
  );
}

/** Small files, equal ones, links, a large one. */
function fillSource(source: string): void {
  for (let group = 0; group < 3; group += 1) {
    const path = join(source, `group-${group}`);
    fs.mkdirSync(path, { recursive: true });
    for (let index = 0; index < 20; index += 1) {
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
