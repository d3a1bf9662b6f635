/**
 * An encrypted cluster as its operator meets it: keys, backups by nodes that can read nothing, restores
 * with an identity, rotation, and what happens when a key is lost.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import { ProcessCluster } from "./process-cluster.ts";

setDefaultTimeout(120_000);

const NODES = ["a", "b"];
const CONTENT = "Zwetschgenmus-content\n".repeat(10_000);

let cluster: ProcessCluster;

beforeAll(async () => {
  cluster = await ProcessCluster.create({ nodes: NODES });
  await must("key", "node-init", path("node.key"));
  const recipient = (await must("key", "generate", path("identity"))).stdout.trim();
  configure([recipient]);
  for (const node of NODES) fs.writeFileSync(join(cluster.root(node), "file"), `${node}${CONTENT}`);
  await must("site", "init", "--encrypt", "-c", cluster.config);
  await cluster.start(...NODES);
});

afterAll(async () => {
  await cluster[Symbol.asyncDispose]();
});

describe("an encrypted cluster", () => {
  test("backs up with nodes that open nothing, the second time without reading", async () => {
    await must("backup", "--name", "first", "-u", url());
    // A file that has just changed is read once more.
    await cluster.until("a backup that reads nothing", async () => {
      const { stdout } = await must("backup", "--name", "second", "--json", "-u", url());
      const { result } = JSON.parse(stdout) as { result: { readBytes: number; totals: object } };
      expect(result.totals).toMatchObject({ newBytes: 0 });
      return result.readBytes === 0;
    });
    const shown = JSON.parse((await must("show", "first", "--json", "-u", url())).stdout) as object;
    expect(shown).toMatchObject({ closed: true, files: 2, shares: [] });
  });

  test("restores through its servers with the identity, and not without", async () => {
    for (const node of NODES) fs.writeFileSync(join(cluster.root(node), "file"), "lost");
    const without = await cluster.run(["restore", "--yes", "-u", url()]);
    expect(without.code).not.toBe(0);
    expect(without.stderr).toContain("--identity");
    await must("restore", "--yes", "-u", url(), "--identity", path("identity"));
    for (const node of NODES) {
      expect(fs.readFileSync(join(cluster.root(node), "file"), "utf8")).toBe(`${node}${CONTENT}`);
    }
    // Nothing of it is left on a node.
    const secret = /AGE-SECRET-KEY-1[0-9A-Z]+/.exec(fs.readFileSync(path("identity"), "utf8"))![0];
    for (const node of NODES) {
      for (const name of fs.readdirSync(join(cluster.folder, "data", node))) {
        const file = join(cluster.folder, "data", node, name);
        if (!fs.statSync(file).isFile()) continue;
        expect(fs.readFileSync(file).includes(secret)).toBe(false);
      }
    }
  });

  test("restores straight from the site with the identity; says whose is needed without", async () => {
    const into = path("restored");
    const without = await cluster.run(["restore", "--to", into, "--yes", "-c", cluster.config]);
    expect(without.code).not.toBe(0);
    expect(without.stderr).toContain("age1");
    await must("restore", "--to", into, "-c", cluster.config, "--identity", path("identity"));
    const found = fs.readdirSync(into, { recursive: true, encoding: "utf8" });
    const files = found.filter((name) => name.endsWith("file")).toSorted();
    expect(files.map((name) => fs.readFileSync(join(into, name), "utf8"))).toEqual(
      NODES.map((node) => `${node}${CONTENT}`),
    );
  });

  test("is verified without an identity as far as that shows, and deeply with one", async () => {
    const closed = await must("verify", "--deep", "--json", "-c", cluster.config);
    const report = JSON.parse(closed.stdout) as { ok: boolean; backups: { closed?: boolean }[] };
    expect(report.ok).toBe(true);
    expect(report.backups.every(({ closed: isClosed }) => isClosed === true)).toBe(true);
    const open = ["verify", "--deep", "--json", "-c", cluster.config, "--identity"];
    const opened = JSON.parse((await must(...open, path("identity"))).stdout) as object;
    expect(opened).toMatchObject({ ok: true });
    expect(opened).not.toHaveProperty("closedFrames");
  });

  test("says what a machine can do, and rotates to another recipient", async () => {
    const check = async (...more: string[]): Promise<object> => {
      const end = await cluster.run(["key", "check", "--json", "-c", cluster.config, ...more]);
      return { code: end.code, ...(JSON.parse(end.stdout) as object) };
    };
    expect(await check()).toMatchObject({
      code: 0,
      canBackUp: true,
      canRestore: false,
    });
    const next = (await must("key", "generate", path("next"))).stdout.trim();
    expect(await check("--identity", path("identity"))).toMatchObject({ canRestore: true });
    expect(await check("--identity", path("next"))).toMatchObject({ code: 1, canRestore: false });
    configure([next]);
    await must("key", "rotate", "-c", cluster.config, "--identity", path("identity"));
    expect(await check("--identity", path("next"))).toMatchObject({
      code: 0,
      canRestore: true,
      canRestoreNew: true,
    });
    const into = path("after-rotation");
    await must("restore", "--to", into, "-c", cluster.config, "--identity", path("next"));
  });

  test("cannot be found with other node keys", async () => {
    fs.renameSync(path("node.key"), path("kept.key"));
    await must("key", "node-init", path("node.key"));
    const lost = await cluster.run(["list", "-c", cluster.config]);
    fs.rmSync(path("node.key"));
    fs.renameSync(path("kept.key"), path("node.key"));
    expect(lost.code).not.toBe(0);
    expect(lost.stderr).toContain("not those of the repository");
  });

  test("never overwrites a key", async () => {
    const again = await cluster.run(["key", "generate", path("identity")]);
    expect(again.code).not.toBe(0);
  });
});

function configure(recipients: readonly string[]): void {
  const text = fs.readFileSync(cluster.config, "utf8").replace(/\nencryption: .*\n/, "\n");
  const section = `encryption: {nodeKey: {file: node.key}, recipients: [${recipients.join(", ")}]}`;
  fs.writeFileSync(cluster.config, `${text}${section}\n`);
}

function path(name: string): string {
  return join(cluster.folder, name);
}

function url(): string {
  return cluster.urls["a"]!;
}

async function must(...words: string[]): ReturnType<ProcessCluster["run"]> {
  const outcome = await cluster.run(words);
  if (outcome.code !== 0) throw new Error(`${words.join(" ")}: ${outcome.stderr}`);
  return outcome;
}
