/**
 * Disks that fill: the site's, the one below the catalog, the one that is restored to. Each is a small
 * tmpfs that is enlarged afterwards; then the same command has to work. Mounting takes root, or a
 * namespace of our own, in which this file then runs itself again.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ProcessCluster } from "../../scripts/scenario-cluster.ts";
import type { CliEnd } from "../../scripts/scenario-cluster.ts";

const TIMEOUT_MS = 60_000;
const IN_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"];

const canMount = process.getuid?.() === 0 && canRun(["mount", "--version"]);
const canUnshare = !canMount && canRun([...IN_NAMESPACE, "true"]);

let folder = "";
const mounted: string[] = [];

beforeEach(() => {
  folder = fs.mkdtempSync(join(fs.realpathSync(tmpdir()), "astacus-bad-disk-"));
});

afterEach(() => {
  for (const path of mounted.splice(0)) Bun.spawnSync(["umount", "--lazy", path]);
  fs.rmSync(folder, { recursive: true, force: true });
});

function canRun(command: readonly string[]): boolean {
  if (Bun.which(command[0] ?? "") === null) return false;
  return Bun.spawnSync([...command], { stdout: "ignore", stderr: "ignore" }).success;
}

function mount(path: string, size: string): string {
  fs.mkdirSync(path, { recursive: true });
  run(["mount", "-t", "tmpfs", "-o", `size=${size}`, "tmpfs", path]);
  mounted.push(path);
  return path;
}

function enlarge(path: string, size: string): void {
  run(["mount", "-o", `remount,size=${size}`, path]);
}

function run(command: readonly string[]): void {
  const done = Bun.spawnSync([...command]);
  if (!done.success) throw new Error(`${command.join(" ")}: ${done.stderr.toString()}`);
}

async function made(options: { site?: string; more?: string } = {}): Promise<ProcessCluster> {
  const path = options.site ?? join(folder, "site");
  const cluster = await ProcessCluster.make({
    folder,
    site: `{name: main, type: directory, path: "${path}"}`,
    nodes: ["a", "b"],
    more: options.more ?? "",
  });
  expect(await cluster.run(["site", "init", "-c", cluster.config])).toMatchObject({ code: 0 });
  return cluster;
}

function expectFull(end: CliEnd, ...words: readonly string[]): void {
  expect({ code: end.code, stderr: end.stderr }).toEqual({ code: 1, stderr: end.stderr });
  for (const word of ["Free space", ...words]) expect(end.stderr).toContain(word);
  expect(end.stderr).not.toContain("    at ");
}

async function expectWhole(cluster: ProcessCluster): Promise<void> {
  expect(await cluster.cli(["verify", "--deep"])).toMatchObject({ code: 0 });
  // A try that failed leaves nothing half done beside the objects.
  const temporary = join(folder, "site/.tmp");
  if (fs.existsSync(temporary)) expect(fs.readdirSync(temporary)).toEqual([]);
}

if (canMount) describe("a disk that fills", fullDisks);
else if (canUnshare)
  test("disks that fill, in a namespace of our own", inNamespace, 4 * TIMEOUT_MS);
else test.skip("disks that fill [needs root or user namespaces]", () => undefined);

function fullDisks(): void {
  test(
    "below the site: nothing is listed, and the next backup reuses what was sent",
    async () => {
      const disk = mount(join(folder, "disk"), "2m");
      await using cluster = await made({
        site: join(disk, "site"),
        more: "backup: {packSize: 1MiB}",
      });
      for (const name of cluster.names) {
        fs.writeFileSync(join(cluster.root(name), "noise"), noise(2_500_000));
      }
      await cluster.startAll();
      expectFull(
        await cluster.cli(["backup"]),
        "(ENOSPC)",
        join(disk, "site"),
        "Free space then: ",
      );
      const { backups } = await cluster.json<{ backups: unknown[] }>(["list"]);
      expect(backups).toEqual([]);
      enlarge(disk, "32m");
      expect(await cluster.cli(["backup"])).toMatchObject({ code: 0 });
      await expectWhole(cluster);
    },
    TIMEOUT_MS,
  );

  test(
    "below the catalog: it is told as that, and not as a defect",
    async () => {
      const disk = mount(join(folder, "data"), "1m");
      await using cluster = await made({ more: "backup: {minimumFreeSpace: 0}" });
      for (const name of cluster.names) {
        for (let index = 0; index < 2000; index += 1) {
          const path = join(cluster.root(name), `a-file-with-a-rather-long-name-${name}-${index}`);
          fs.writeFileSync(path, `${name} ${index}`);
        }
      }
      await cluster.startAll();
      expectFull(await cluster.cli(["backup"]), "SQLITE_FULL");
      // Whether a node can still catch up depends on the last free page: it works, or says why not.
      const { stdout, stderr } = await cluster.cli(["status"]);
      expect(stdout + stderr).toContain("SQLITE_FULL");
      enlarge(disk, "64m");
      expect(await cluster.cli(["backup"])).toMatchObject({ code: 0 });
      await expectWhole(cluster);
    },
    TIMEOUT_MS,
  );

  test(
    "below the catalog's reserve: the backup gives up before it begins",
    async () => {
      mount(join(folder, "data"), "4m");
      await using cluster = await made();
      await cluster.startAll();
      const { code, stderr } = await cluster.cli(["backup"]);
      expect(code).toBe(1);
      expect(stderr).toContain("backup.minimumFreeSpace");
    },
    TIMEOUT_MS,
  );

  test(
    "below a restore: refused where the plan sees it, else told, and gone on with",
    async () => {
      const disk = mount(join(folder, "roots/b"), "8m");
      await using cluster = await made();
      const root = cluster.root("b");
      // Small files take a page each, which no plan counts.
      const names = Array.from({ length: 300 }, (_, index) => `file-${index}`);
      for (const name of names) fs.writeFileSync(join(root, name), name);
      fs.writeFileSync(join(root, "large"), noise(1_000_000));
      await cluster.startAll();
      expect(await cluster.cli(["backup"])).toMatchObject({ code: 0 });
      for (const name of [...names, "large"]) fs.rmSync(join(root, name));

      const hog = join(root, "hog");
      fs.writeFileSync(hog, noise(7_900_000));
      const refused = await cluster.cli(["restore", "--yes"]);
      expect(refused.code).toBe(4);
      expect(refused.stderr).toMatch(/b: .* needs .* of free space and has/);
      expect(fs.readdirSync(root)).toEqual(["hog"]);

      fs.truncateSync(hog, 6_600_000);
      expectFull(await cluster.cli(["restore", "--yes"]), "Node b, place", "(ENOSPC)");
      for (const name of fs.readdirSync(root)) {
        // What has its name has its content.
        if (names.includes(name)) expect(fs.readFileSync(join(root, name), "utf8")).toBe(name);
      }
      enlarge(disk, "32m");
      expect(await cluster.cli(["restore", "--yes"])).toMatchObject({ code: 0 });
      expect(fs.readdirSync(root).toSorted()).toEqual(["hog", "large", ...names].toSorted());
    },
    TIMEOUT_MS,
  );
}

async function inNamespace(): Promise<void> {
  const child = Bun.spawn([...IN_NAMESPACE, process.execPath, "test", import.meta.path], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  const stderr = await new Response(child.stderr).text();
  expect({ code: await child.exited, stderr }).toEqual({ code: 0, stderr });
  expect(stderr).toContain("0 fail");
}

function noise(sizeBytes: number): Uint8Array {
  const bytes = new Uint8Array(sizeBytes);
  for (let start = 0; start < sizeBytes; start += 65_536) {
    crypto.getRandomValues(bytes.subarray(start, start + 65_536));
  }
  return bytes;
}
