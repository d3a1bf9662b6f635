/**
 * Bad days of real servers, one each: what is said, with which exit code, and that the same command
 * works when the cause is gone. Disks that fill and other users have files of their own; typos,
 * ports, tokens, SIGTERM and Ctrl-C are in manners.test.ts and cluster.test.ts.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ProcessCluster, until } from "../../scripts/scenario-cluster.ts";
import type { CliEnd, ProcessClusterOptions } from "../../scripts/scenario-cluster.ts";

const TIMEOUT_MS = 60_000;

let folder = "";
beforeEach(() => {
  folder = fs.mkdtempSync(join(fs.realpathSync(tmpdir()), "astacus-bad-day-"));
});
afterEach(() => fs.rmSync(folder, { recursive: true, force: true }));

function siteAt(path: string): string {
  return `{name: main, type: directory, path: "${join(folder, path)}"}`;
}

/** A cluster with a file on each node and a repository; nothing runs yet. */
async function made(options: Partial<ProcessClusterOptions> = {}): Promise<ProcessCluster> {
  const cluster = await ProcessCluster.make({
    folder,
    site: siteAt("site"),
    nodes: ["a", "b"],
    ...options,
  });
  for (const name of cluster.names) fs.writeFileSync(join(cluster.root(name), "own"), `of ${name}`);
  const init = await cluster.run(["site", "init", "-c", cluster.config]);
  expect(init).toMatchObject({ code: 0 });
  return cluster;
}

/** A command that failed in words: the code, all that must be said, and no stack. */
function expectTold(end: CliEnd, code: number, ...words: readonly string[]): void {
  expect({ code: end.code, stderr: end.stderr }).toEqual({ code, stderr: end.stderr });
  for (const word of words) expect(end.stderr).toContain(word);
  expect(end.stderr).not.toContain("    at ");
  expect(end.stderr).not.toContain("defect");
}

async function untilListens(cluster: ProcessCluster, name: string): Promise<void> {
  await until(`${name} says why it is not ready`, async () => {
    const answer = await fetch(`${cluster.url(name)}/readyz`).catch(() => undefined);
    const body = (await answer?.json()) as { message?: string } | undefined;
    return body?.message !== undefined && body.message !== "The node is starting.";
  });
}

describe("a root", () => {
  test(
    "that is not there fails the backup with its path; a restore makes it",
    async () => {
      await using cluster = await made();
      await cluster.startAll();
      expect(await cluster.cli(["backup", "--name", "good"])).toMatchObject({ code: 0 });
      fs.rmSync(cluster.root("b"), { recursive: true });
      const backup = await cluster.cli(["backup"]);
      expectTold(backup, 1, `The root ${cluster.root("b")} does not exist`, "product.root");
      expect(await cluster.cli(["restore", "--yes"])).toMatchObject({ code: 0 });
      expect(fs.readFileSync(join(cluster.root("b"), "own"), "utf8")).toBe("of b");
      expect(await cluster.cli(["backup"])).toMatchObject({ code: 0 });
    },
    TIMEOUT_MS,
  );

  test(
    "that is a file is refused by the restore, and stays",
    async () => {
      await using cluster = await made();
      await cluster.startAll();
      expect(await cluster.cli(["backup"])).toMatchObject({ code: 0 });
      fs.rmSync(cluster.root("b"), { recursive: true });
      fs.writeFileSync(cluster.root("b"), "a file");
      expectTold(await cluster.cli(["restore", "--yes"]), 4, "is in the way", cluster.root("b"));
      expect(fs.readFileSync(cluster.root("b"), "utf8")).toBe("a file");
    },
    TIMEOUT_MS,
  );
});

describe("a site directory", () => {
  test(
    "whose disk is not mounted is neither made nor taken for empty",
    async () => {
      const site = siteAt("mnt/site");
      const path = join(folder, "mnt");
      fs.mkdirSync(path);
      await using cluster = await made({ site, nodes: ["a"] });
      await cluster.startAll();
      expect(await cluster.cli(["backup", "--name", "before"])).toMatchObject({ code: 0 });
      const away = join(folder, "away");
      fs.renameSync(path, away);
      expectTold(await cluster.run(["site", "init", "-c", cluster.config]), 1, "Mount the disk");
      fs.mkdirSync(path);
      expectTold(await cluster.cli(["backup"]), 1, "is not there", "Is the disk mounted?");
      await cluster.stop("a");
      cluster.start("a");
      await untilListens(cluster, "a");
      expectTold(await cluster.cli(["backup"]), 3, "not ready", "Is the disk mounted?");
      expect(fs.readdirSync(path)).toEqual([]);
      fs.rmdirSync(path);
      fs.renameSync(away, path);
      await cluster.untilReady("a");
      expect(await cluster.cli(["backup", "--name", "after"])).toMatchObject({ code: 0 });
      const { stdout } = await cluster.cli(["list"]);
      expect(stdout).toContain("before");
      expect(stdout).toContain("after");
    },
    TIMEOUT_MS,
  );

  test(
    "of another repository is refused, naming both",
    async () => {
      await using cluster = await made();
      const other = cluster.writeConfig("other.conf", { site: siteAt("other") });
      await cluster.run(["site", "init", "-c", other]);
      cluster.start("a");
      cluster.start("b", { config: other });
      for (const name of cluster.names) await cluster.untilReady(name);
      const both = [join(folder, "site"), join(folder, "other")];
      expectTold(await cluster.cli(["backup"]), 4, "node b lacks site main", ...both);
      // Its catalog knows the other one: even with the right file it does not mix them.
      await cluster.stop("b");
      cluster.start("b");
      await untilListens(cluster, "b");
      expectTold(await cluster.cli(["list"], "b"), 3, "this node knows repository", "remove the");
    },
    TIMEOUT_MS,
  );

  test(
    "that is a copy with another history is refused, naming both",
    async () => {
      await using cluster = await made();
      fs.cpSync(join(folder, "site"), join(folder, "copy"), { recursive: true });
      const copy = cluster.writeConfig("copy.conf", { site: siteAt("copy") });
      expect(await aloneBackup(cluster, "a", cluster.config)).toMatchObject({ code: 0 });
      expect(await aloneBackup(cluster, "b", copy)).toMatchObject({ code: 0 });
      cluster.start("a");
      cluster.start("b", { config: copy });
      for (const name of cluster.names) await cluster.untilReady(name);
      const both = [join(folder, "site"), join(folder, "copy")];
      expectTold(await cluster.cli(["backup"]), 4, "another history", ...both);
    },
    TIMEOUT_MS,
  );

  test(
    "that is a copy with the same history lists no backup that lacks a node's data",
    async () => {
      await using cluster = await made();
      fs.cpSync(join(folder, "site"), join(folder, "copy"), { recursive: true });
      const copy = cluster.writeConfig("copy.conf", { site: siteAt("copy") });
      cluster.start("a");
      cluster.start("b", { config: copy });
      for (const name of cluster.names) await cluster.untilReady(name);
      const backup = await cluster.cli(["backup"]);
      expectTold(backup, 1, `is not at file:${join(folder, "site")}`, "Do all nodes see one");
      const { backups } = await cluster.json<{ backups: unknown[] }>(["list"]);
      expect(backups).toEqual([]);
      await cluster.stop("b");
      fs.rmSync(join(folder, "data/b"), { recursive: true });
      cluster.start("b");
      await cluster.untilReady("b");
      expect(await cluster.cli(["backup"])).toMatchObject({ code: 0 });
      expect(await cluster.cli(["verify", "--deep"])).toMatchObject({ code: 0 });
    },
    TIMEOUT_MS,
  );

  test(
    "in a newer format is left alone by every command",
    async () => {
      await using cluster = await made({ nodes: ["a"] });
      const path = join(folder, "site/astacus-repository");
      const header = JSON.parse(fs.readFileSync(path, "utf8")) as object;
      fs.rmSync(path);
      fs.writeFileSync(path, JSON.stringify({ ...header, version: 99 }));
      const before = fs.readdirSync(join(folder, "site"), { recursive: true });
      cluster.start("a");
      await untilListens(cluster, "a");
      expectTold(await cluster.cli(["backup"]), 3, "format version 99", "Upgrade Astacus");
      const config = ["-c", cluster.config];
      expectTold(await cluster.run(["list", ...config]), 4, "format version 99");
      expectTold(await cluster.run(["site", "init", ...config]), 4, "format version 99");
      expect(fs.readdirSync(join(folder, "site"), { recursive: true })).toEqual(before);
    },
    TIMEOUT_MS,
  );
});

/** A backup by one node, as a cluster of its own. */
async function aloneBackup(cluster: ProcessCluster, name: string, config: string): Promise<CliEnd> {
  const text = fs.readFileSync(config, "utf8");
  const alone = join(folder, `alone-${name}.conf`);
  const others = cluster.names.filter((each) => each !== name);
  const kept = text
    .split("\n")
    .filter((line) => !others.some((each) => line.includes(`name: ${each},`)));
  fs.writeFileSync(alone, kept.join("\n"));
  cluster.start(name, { config: alone });
  await cluster.untilReady(name);
  const end = await cluster.cli(["backup"], name);
  await cluster.stop(name);
  return end;
}

describe("a node", () => {
  test(
    "of another cluster is refused, naming both",
    async () => {
      await using cluster = await made();
      cluster.start("a");
      cluster.start("b", { config: cluster.writeConfig("c.conf", { cluster: "elsewhere" }) });
      for (const name of cluster.names) await cluster.untilReady(name);
      const told = "Node b belongs to cluster elsewhere, not to scenario";
      expectTold(await cluster.cli(["backup"]), 4, told);
    },
    TIMEOUT_MS,
  );
});

describe("an address", () => {
  test("where another program answers is told as that, and not as a defect", async () => {
    await using cluster = await made({ nodes: ["a"] });
    const pages = [
      () => new Response("<html>"),
      () => new Response("<html>", { status: 404 }),
      () => Response.json({ error: "what?" }, { status: 500 }),
    ];
    for (const page of pages) {
      const other = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: page });
      const end = await cluster.run(["list", "-u", other.url.origin]);
      expectTold(end, 1, other.url.origin, "not as Astacus does", "another program");
      await other.stop(true);
    }
  });
});

describe("two coordinators", () => {
  test(
    "at once: one backup is made, the other is told of it and works afterwards",
    async () => {
      await using cluster = await made();
      await cluster.startAll();
      // A frozen node keeps the first one where it is.
      process.kill(cluster.pid("b"), "SIGSTOP");
      const first = cluster.spawn(["backup", "--name", "first", "-u", cluster.url("a")]);
      await until("the first one runs", async () => {
        const page = await cluster.get<{ operations: { state: string }[] }>("/v1/operations", "a");
        return page.operations.some(({ state }) => state === "running");
      });
      const same = await fetch(`${cluster.url("a")}/v1/backups`, { method: "POST", body: "{}" });
      expect(same.status).toBe(409);
      expect(await same.json()).toMatchObject({ code: "lease-held", kind: "conflict" });
      expectTold(await cluster.cli(["backup"], "a"), 1, "A backup is running", "astacus cancel");
      process.kill(cluster.pid("b"), "SIGCONT");
      const [one, other] = await Promise.all([first.end, cluster.cli(["backup"], "b")]);
      expect(one).toMatchObject({ code: 0 });
      if (other.code !== 0) expectTold(other, 1, "is busy with a backup");
      expect(await cluster.cli(["backup", "--name", "third"], "b")).toMatchObject({ code: 0 });
    },
    TIMEOUT_MS,
  );

  test(
    "cancel stops one that waits for a frozen node, and frees the others",
    async () => {
      await using cluster = await made();
      await cluster.startAll();
      process.kill(cluster.pid("b"), "SIGSTOP");
      const command = cluster.spawn(["backup", "-u", cluster.url("a")]);
      let id = "";
      await until("it runs", async () => {
        const page = await cluster.get<{ operations: { id: string }[] }>("/v1/operations", "a");
        id = page.operations[0]?.id ?? "";
        return id !== "";
      });
      expect(await cluster.cli(["cancel", id.slice(0, 8)])).toMatchObject({ code: 0 });
      expectTold(await command.end, 130, "cancelled");
      expectTold(await cluster.cli(["cancel", id]), 1, "has ended");
      expectTold(await cluster.cli(["cancel", "ffff"]), 1, "No running operation begins with ffff");
      process.kill(cluster.pid("b"), "SIGCONT");
      expect(await cluster.cli(["backup"])).toMatchObject({ code: 0 });
    },
    TIMEOUT_MS,
  );
});

describe("files that do not hold still", () => {
  test(
    "grow, shrink, come and go while they are read: each is stored whole, or told",
    async () => {
      await using cluster = await made({ nodes: ["a"] });
      const root = cluster.root("a");
      for (let index = 0; index < 60; index += 1) {
        fs.writeFileSync(join(root, `still-${index}`), `still ${index}\n`.repeat(500));
      }
      const writer = Bun.spawn([process.execPath, "-e", RESTLESS, root], { stdin: "ignore" });
      try {
        await until("the writer works", () => fs.existsSync(join(root, "log")));
        await cluster.startAll();
        for (const name of ["one", "two"]) {
          const end = await cluster.cli(["backup", "--name", name, "--json"]);
          expect([0, 5]).toContain(end.code);
          const { result } = JSON.parse(end.stdout) as { result: { problems: string[] } };
          for (const problem of result.problems) expect(problem).toMatch(/changed|vanished/);
          const target = join(folder, `out-${name}`);
          const what = ["--backup", name, "--incomplete", "-c", cluster.config];
          const restored = await cluster.run(["restore", "--to", target, ...what]);
          expect(restored).toMatchObject({ code: 0 });
          for (let index = 0; index < 60; index += 1) {
            const found = fs.readFileSync(join(target, `a/root/still-${index}`), "utf8");
            expect(found).toBe(`still ${index}\n`.repeat(500));
          }
          // What was appended before the read is there, in order and without a hole.
          const lines = fs.readFileSync(join(target, "a/root/log"), "utf8").split("\n");
          expect(lines.slice(0, -1)).toEqual(
            Array.from({ length: lines.length - 1 }, (_, index) => `line ${index}`),
          );
        }
      } finally {
        writer.kill("SIGKILL");
        await writer.exited;
      }
    },
    TIMEOUT_MS,
  );
});

/** Appends to one file, rewrites another, and has a third come and go. */
const RESTLESS = `
  const fs = require("node:fs");
  const root = process.argv.at(-1);
  for (let count = 0; ; count += 1) {
    fs.appendFileSync(root + "/log", "line " + count + "\\n");
    fs.writeFileSync(root + "/size", "x".repeat((count * 7919) % 300000));
    if (count % 2 === 0) fs.writeFileSync(root + "/guest", "here\\n");
    else fs.rmSync(root + "/guest");
  }
`;
