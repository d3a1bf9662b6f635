/**
 * Servers that may not do everything: files that they cannot read, roots that they cannot write to,
 * links that the system refuses. Run as root, the servers run as another user; run as anybody else,
 * modes alone shut the files. Captures by link are tried with the toy database.
 */
import { afterEach, beforeEach, expect, test } from "bun:test";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ProcessCluster } from "../../scripts/scenario-cluster.ts";
import type { ProcessClusterOptions, RunAs } from "../../scripts/scenario-cluster.ts";

const TIMEOUT_MS = 60_000;
const NOBODY: RunAs = { uid: 65_534, gid: 65_534 };
const SHARED_MEMORY = "/dev/shm";

const isRoot = process.getuid?.() === 0;
const canBeAnother = isRoot && Bun.which("setpriv") !== null;
const isProtected = readOr("/proc/sys/fs/protected_hardlinks", "0").trim() === "1";

let folder = "";
beforeEach(() => {
  folder = fs.mkdtempSync(join(fs.realpathSync(tmpdir()), "astacus-bad-user-"));
  fs.chmodSync(folder, 0o755);
});
afterEach(() => fs.rmSync(folder, { recursive: true, force: true }));

/** A cluster of one whose server is nobody, if we can be so; `own` folders belong to it. */
async function made(options: Partial<ProcessClusterOptions> = {}): Promise<ProcessCluster> {
  const own = ["data", "backup"].map((name) => join(folder, name));
  for (const path of own) fs.mkdirSync(path);
  const cluster = await ProcessCluster.make({
    folder,
    site: `{name: main, type: directory, path: "${folder}/backup"}`,
    nodes: ["a"],
    ...(canBeAnother ? { runAs: NOBODY } : {}),
    ...options,
  });
  if (canBeAnother) for (const path of own) fs.chownSync(path, NOBODY.uid, NOBODY.gid);
  expect(await cluster.run(["site", "init", "-c", cluster.config])).toMatchObject({ code: 0 });
  return cluster;
}

function readOr(path: string, otherwise: string): string {
  return fs.existsSync(path) ? fs.readFileSync(path, "utf8") : otherwise;
}

/** A toy database with one log and nothing else. */
function makeToy(root: string): void {
  for (const group of ["logs", "snapshots", "filesets"]) {
    fs.mkdirSync(join(root, group), { recursive: true });
  }
  fs.writeFileSync(join(root, "logs/0001.log"), "one record\n");
  const registry = { revision: 1, members: { a: { shards: [1] } } };
  fs.writeFileSync(join(root, "registry.json"), JSON.stringify(registry));
}

test.skipIf(isRoot && !canBeAnother)(
  "files that cannot be read are counted and named, and the backup is incomplete [needs setpriv]",
  async () => {
    await using cluster = await made();
    const root = cluster.root("a");
    fs.writeFileSync(join(root, "open"), "anybody may read this");
    fs.writeFileSync(join(root, "shut"), "nobody may", { mode: 0o000 });
    fs.mkdirSync(join(root, "folder"));
    fs.writeFileSync(join(root, "folder/inside"), "nor this");
    fs.chmodSync(join(root, "folder"), 0o000);
    await cluster.startAll();

    const backup = await cluster.cli(["backup", "--name", "partly"]);
    expect(backup.code).toBe(5);
    expect(backup.stdout).toContain("incomplete, 2 problems");
    expect(backup.stdout).toMatch(/a: shut: .*\(EACCES\)/);
    expect(backup.stdout).toMatch(/a: folder: .*\(EACCES\)/);
    const show = await cluster.json<{ problems: { kind: string }[] }>(["show", "partly"]);
    expect(show.problems.map(({ kind }) => kind)).toEqual(["unreadable", "unreadable"]);
    // It is not taken for a whole one.
    const restore = await cluster.cli(["restore", "--yes"]);
    expect(restore.code).toBe(1);
    expect(restore.stderr).toContain("There is no complete backup yet");
    const target = join(folder, "data/out");
    const to = ["restore", "--to", target, "--backup", "partly", "--incomplete"];
    expect(await cluster.run([...to, "-c", cluster.config])).toMatchObject({ code: 0 });
    expect(fs.readdirSync(join(target, "a/root")).toSorted()).toEqual(["folder", "open"]);

    for (const name of ["shut", "folder"]) fs.chmodSync(join(root, name), 0o755);
    expect(await cluster.cli(["backup", "--name", "whole"])).toMatchObject({ code: 0 });
  },
  TIMEOUT_MS,
);

test.skipIf(isRoot && !canBeAnother)(
  "files that cannot be read fail the backup where that is configured [needs setpriv]",
  async () => {
    await using cluster = await made({ product: ["unreadable: fail"] });
    fs.writeFileSync(join(cluster.root("a"), "shut"), "x", { mode: 0o000 });
    await cluster.startAll();
    const { code, stderr } = await cluster.cli(["backup"]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/shut: .*\(EACCES\)/);
    const { backups } = await cluster.json<{ backups: unknown[] }>(["list"]);
    expect(backups).toEqual([]);
  },
  TIMEOUT_MS,
);

test.skipIf(isRoot && !canBeAnother)(
  "a root that cannot be written to is found by config check, and told by the restore [needs setpriv]",
  async () => {
    await using cluster = await made();
    const root = cluster.root("a");
    fs.writeFileSync(join(root, "file"), "x", { mode: 0o644 });
    await cluster.startAll();
    expect(await cluster.cli(["backup"])).toMatchObject({ code: 0 });
    fs.rmSync(join(root, "file"));
    fs.chmodSync(root, 0o555);
    const check = await cluster.run(["config", "check", "-c", cluster.config, "--node", "a"]);
    expect(check.code).toBe(1);
    expect(check.stdout).toContain("cannot be written (restores need it)");
    const restore = await cluster.cli(["restore", "--yes"]);
    expect(restore.code).toBe(1);
    expect(restore.stderr).toContain("(EACCES)");
    expect(restore.stderr).toContain("owner and mode");
    if (canBeAnother) fs.chownSync(root, NOBODY.uid, NOBODY.gid);
    fs.chmodSync(root, 0o755);
    expect(await cluster.cli(["restore", "--yes"])).toMatchObject({ code: 0 });
    expect(fs.readFileSync(join(root, "file"), "utf8")).toBe("x");
  },
  TIMEOUT_MS,
);

/** Who is not root cannot make files of another owner; where the system lets links be, none is refused. */
const strangersFiles = isRoot && isProtected ? test.skipIf(!canBeAnother) : undefined;
strangersFiles?.(
  "a capture of another owner's files says which capability is missing [needs setpriv]",
  async () => {
    await using cluster = await made({ productType: "scripted" });
    makeToy(cluster.root("a"));
    await cluster.startAll();
    const { code, stderr } = await cluster.cli(["backup"]);
    expect(code).toBe(1);
    expect(stderr).toContain("(EPERM)");
    expect(stderr).toContain("CAP_FOWNER");
    for (const path of fs.readdirSync(join(cluster.root("a"), "logs"))) {
      fs.chownSync(join(cluster.root("a"), "logs", path), NOBODY.uid, NOBODY.gid);
    }
    expect(await cluster.cli(["backup"])).toMatchObject({ code: 0 });
  },
  TIMEOUT_MS,
);

test.skipIf(!fs.existsSync(SHARED_MEMORY))(
  "a capture on another file system is refused with both paths [needs /dev/shm]",
  async () => {
    const data = fs.mkdtempSync(join(SHARED_MEMORY, "astacus-bad-user-"));
    try {
      if (canBeAnother) fs.chownSync(data, NOBODY.uid, NOBODY.gid);
      await using cluster = await made({
        productType: "scripted",
        data: `${data}/{node}`,
        more: "backup: {minimumFreeSpace: 0}",
      });
      const root = cluster.root("a");
      makeToy(root);
      const log = join(root, "logs/0001.log");
      if (canBeAnother) fs.chownSync(log, NOBODY.uid, NOBODY.gid);
      await cluster.startAll();
      const { code, stderr } = await cluster.cli(["backup"]);
      expect(code).toBe(4);
      expect(stderr).toContain("both ends must be on one file system (EXDEV)");
      expect(stderr).toContain(log);
      expect(stderr).toContain(data);
      // Nothing of the capture stays.
      expect(fs.statSync(log).nlink).toBe(1);
    } finally {
      fs.rmSync(data, { recursive: true, force: true });
    }
  },
  TIMEOUT_MS,
);
