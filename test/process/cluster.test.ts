/**
 * Three real processes over HTTP: the main job by the command line and by the original's routes,
 * nodes that die, servers that are gone.
 */
import { describe, expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import type { BackupSummary } from "../../src/cluster/backup-summary.ts";
import type { OperationRecord } from "../../src/cluster/operations.ts";
import { compareTrees, recordTree } from "../../scripts/tree-comparison.ts";
import { ProcessCluster, spawnAstacus } from "./process-cluster.ts";

const NODES = ["a", "b", "c"] as const;
const TIMEOUT_MS = 120_000;
const DEAD_AFTER = "backup: {nodeTimeout: 1s, attempts: 1}";

/** A few files that differ by node, and some that do not. */
function fill(cluster: ProcessCluster): void {
  for (const node of NODES) {
    const root = cluster.root(node);
    fs.mkdirSync(join(root, "deep/empty"), { recursive: true });
    fs.writeFileSync(join(root, "same"), "the same everywhere\n".repeat(5000));
    fs.writeFileSync(join(root, "deep/own"), `only on ${node}\n`, { mode: 0o640 });
    fs.symlinkSync("own", join(root, "deep/link"));
  }
}

/** Enough that a backup takes a while; no two bytes alike. */
function fillLarge(cluster: ProcessCluster, sizeBytes: number): void {
  for (const node of NODES) {
    const bytes = crypto.getRandomValues(new Uint8Array(65_536));
    const handle = fs.openSync(join(cluster.root(node), "large"), "w");
    for (let written = 0; written < sizeBytes; written += bytes.length) {
      new DataView(bytes.buffer).setUint32(0, written);
      for (let at = 4; at < bytes.length; at += 997) bytes[at] = (bytes[at]! + 31 * at) & 0xff;
      fs.writeSync(handle, crypto.getRandomValues(bytes));
    }
    fs.closeSync(handle);
  }
}

async function startedCluster(more = ""): Promise<ProcessCluster> {
  const cluster = await ProcessCluster.create({ nodes: NODES, more });
  await cluster.init();
  return cluster;
}

function records(cluster: ProcessCluster) {
  return NODES.map((node) => recordTree(cluster.root(node)).record);
}

function differences(cluster: ProcessCluster, before: ReturnType<typeof records>): string[] {
  return records(cluster).flatMap((record, index) => compareTrees(before[index]!, record));
}

async function json<T>(cluster: ProcessCluster, node: string, path: string): Promise<T> {
  return (await (await fetch(cluster.urls[node] + path)).json()) as T;
}

describe("a cluster of three", () => {
  test(
    "is backed up, loses a node and has it back; and its site alone is enough",
    async () => {
      await using cluster = await startedCluster();
      fill(cluster);
      await cluster.start(...NODES);

      const backup = await cluster.at("a", "backup", "--name", "first", "--json");
      expect(backup).toMatchObject({ code: 0 });
      const record = JSON.parse(backup.stdout) as OperationRecord;
      expect(record).toMatchObject({ state: "done", result: { name: "first", complete: true } });

      const list = await cluster.at("b", "list", "--json");
      const { backups } = JSON.parse(list.stdout) as { backups: BackupSummary[] };
      expect(backups.map(({ name, files, complete }) => ({ name, files, complete }))).toEqual([
        { name: "first", files: 9, complete: true },
      ]);
      // What lies on all three nodes was sent once.
      expect(backups[0]!.newBytes).toBeLessThan(backups[0]!.bytes / 2);

      const before = records(cluster);
      fs.rmSync(cluster.root("b"), { recursive: true });
      fs.mkdirSync(cluster.root("b"));
      const plan = await cluster.at("c", "restore", "--plan", "--json");
      expect(JSON.parse(plan.stdout)).toMatchObject({ totals: { filesToWrite: 2, filesKept: 4 } });
      expect(differences(cluster, before)).not.toEqual([]);
      expect(await cluster.at("c", "restore")).toMatchObject({ code: 4 });
      expect(await cluster.at("c", "restore", "--yes")).toMatchObject({ code: 0 });
      expect(differences(cluster, before)).toEqual([]);

      expect(await cluster.at("a", "verify", "--deep", "--json")).toMatchObject({ code: 0 });
      expect(await cluster.at("a", "status")).toMatchObject({ code: 0 });

      for (const node of NODES) await cluster.stop(node, "SIGKILL");
      fs.rmSync(join(cluster.folder, "data"), { recursive: true });
      await offlineWorks(cluster);
    },
    TIMEOUT_MS,
  );

  test(
    "serves the original's routes, from start to status",
    async () => {
      await using cluster = await startedCluster();
      fill(cluster);
      await cluster.start(...NODES);
      const before = records(cluster);
      const runToEnd = async (path: string, body: object): Promise<unknown> => {
        const answer = await fetch(cluster.urls["a"] + path, {
          method: "POST",
          body: JSON.stringify(body),
        });
        const { status_url: url } = (await answer.json()) as { status_url: string };
        let status: { state: string } = { state: "" };
        await cluster.until(`${path} ends`, async () => {
          status = (await (await fetch(url)).json()) as { state: string };
          return status.state === "done" || status.state === "fail";
        });
        return status;
      };
      const final = { failed: 0, final: true };
      expect(await runToEnd("/backup", {})).toMatchObject({ state: "done", progress: final });
      const { storages } = await json<{ storages: { backups: { name: string }[] }[] }>(
        cluster,
        "b",
        "/list",
      );
      const name = storages[0]!.backups[0]!.name;
      expect(name).toStartWith("backup-2");
      fs.rmSync(join(cluster.root("c"), "deep"), { recursive: true });
      const body = {
        name,
        partial_restore_nodes: [{ backup_index: 2, node_url: `${cluster.urls["c"]}/node` }],
      };
      expect(await runToEnd("/restore", body)).toMatchObject({ state: "done", progress: final });
      expect(differences(cluster, before)).toEqual([]);
      const cleanup = { retention: { minimum_backups: 1 } };
      expect(await runToEnd("/cleanup", cleanup)).toEqual({ state: "done" });
      expect(await runToEnd("/cleanup", { explicit_delete: [name] })).toEqual({ state: "done" });
      expect(await json(cluster, "a", "/list")).toEqual({
        storages: [{ storage_name: "disk", backups: [] }],
      });
    },
    TIMEOUT_MS,
  );
});

/** No server, no catalog: the configuration and the site. */
async function offlineWorks(cluster: ProcessCluster): Promise<void> {
  const config = ["-c", cluster.config];
  const list = await cluster.run(["list", "--json", ...config]);
  expect(JSON.parse(list.stdout)).toMatchObject({ backups: [{ name: "first" }] });
  const show = await cluster.run(["show", "first", "--json", ...config]);
  expect(JSON.parse(show.stdout)).toMatchObject({ name: "first", problems: [] });
  expect(await cluster.run(["verify", "--deep", ...config])).toMatchObject({ code: 0 });
  const target = join(cluster.folder, "out");
  expect(await cluster.run(["restore", "--to", target, ...config])).toMatchObject({ code: 0 });
  for (const node of NODES) {
    const was = recordTree(cluster.root(node)).record;
    const is = recordTree(join(target, node, "root")).record;
    expect(compareTrees(was, is)).toEqual([]);
  }
  expect(await cluster.run(["restore", "--to", target, ...config])).toMatchObject({ code: 4 });
  const some = join(cluster.folder, "some");
  const args = ["restore", "--to", some, "--node", "b", "--path", "deep/own", ...config];
  expect(await cluster.run(args)).toMatchObject({ code: 0 });
  expect([...recordTree(some).record.keys()].toSorted()).toEqual([
    "b",
    "b/root",
    "b/root/deep",
    "b/root/deep/own",
  ]);
  expect(fs.existsSync(join(cluster.folder, "data"))).toBe(false);
}

describe("death", () => {
  test(
    "of a node in the middle of a backup fails it with a reason; the same command then works",
    async () => {
      await using cluster = await startedCluster(DEAD_AFTER);
      fillLarge(cluster, 48 * 1024 * 1024);
      await cluster.start(...NODES);
      const { id } = await begin(cluster, "a");
      await untilStoring(cluster, { node: "a", id, storing: "c" });
      await cluster.stop("c", "SIGKILL");
      const ended = await untilEnded(cluster, "a", id);
      expect(ended).toMatchObject({ state: "failed", error: { kind: "unavailable" } });
      expect(ended.error?.message).toContain("c");
      await cluster.start("c");
      expect(await cluster.at("a", "backup", "--name", "again")).toMatchObject({ code: 0 });
      expect(await cluster.at("b", "verify", "again", "--deep")).toMatchObject({ code: 0 });
    },
    TIMEOUT_MS,
  );

  test(
    "of the coordinator is survived by the command, which tells how it ended",
    async () => {
      await using cluster = await startedCluster(DEAD_AFTER);
      fillLarge(cluster, 48 * 1024 * 1024);
      await cluster.start(...NODES);
      const command = spawnAstacus(["backup", "-u", cluster.urls["a"] ?? ""]);
      let id = "";
      await cluster.until("the backup runs", async () => {
        const found = await json<{ operations: OperationRecord[] }>(cluster, "a", "/v1/operations");
        id = found.operations[0]?.id ?? "";
        return id !== "";
      });
      await untilStoring(cluster, { node: "a", id, storing: "b" });
      await cluster.stop("a", "SIGKILL");
      await cluster.start("a");
      const [code, stderr] = await Promise.all([
        command.exited,
        new Response(command.stderr).text(),
      ]);
      expect(code).toBe(1);
      expect(stderr).toContain("The connection was lost, the operation goes on");
      expect(stderr).toContain("The server ended while this operation ran");
      // Only leases of the dead coordinator are left, which end by themselves.
      const next = await cluster.at("b", "backup", "--json");
      const { error } = JSON.parse(next.stdout) as OperationRecord;
      expect(["lease-held", undefined]).toContain(error?.context?.["reason"] as string | undefined);
    },
    TIMEOUT_MS,
  );

  test(
    "by SIGTERM takes less than ten seconds and journals what ran as cancelled",
    async () => {
      await using cluster = await startedCluster();
      fillLarge(cluster, 48 * 1024 * 1024);
      await cluster.start(...NODES);
      const { id } = await begin(cluster, "a");
      await untilStoring(cluster, { node: "a", id, storing: "b" });
      const startedMs = performance.now();
      expect(await cluster.stop("a", "SIGTERM")).toBe(0);
      expect(performance.now() - startedMs).toBeLessThan(10_000);
      await cluster.start("a");
      const record = await json<OperationRecord>(cluster, "a", `/v1/operations/${id}`);
      expect(record).toMatchObject({ state: "cancelled" });
      expect(record.error?.message).toContain("shutting down");
    },
    TIMEOUT_MS,
  );

  test(
    "of nothing but the command: Ctrl-C cancels the operation, and it is said",
    async () => {
      await using cluster = await startedCluster();
      fillLarge(cluster, 48 * 1024 * 1024);
      await cluster.start(...NODES);
      const command = spawnAstacus(["backup", "-u", cluster.urls["a"] ?? ""]);
      let id = "";
      await cluster.until("the backup runs", async () => {
        const found = await json<{ operations: OperationRecord[] }>(cluster, "a", "/v1/operations");
        id = found.operations[0]?.id ?? "";
        return id !== "";
      });
      await untilStoring(cluster, { node: "a", id, storing: "b" });
      command.kill("SIGINT");
      expect(await command.exited).toBe(130);
      const record = await json<OperationRecord>(cluster, "a", `/v1/operations/${id}`);
      expect(record).toMatchObject({ state: "cancelled" });
    },
    TIMEOUT_MS,
  );
});

async function begin(cluster: ProcessCluster, node: string): Promise<OperationRecord> {
  const { stdout } = await cluster.at(node, "backup", "--no-wait", "--json");
  return JSON.parse(stdout) as OperationRecord;
}

/** Until one node is in the middle of reading its files. */
async function untilStoring(
  cluster: ProcessCluster,
  what: { readonly node: string; readonly id: string; readonly storing: string },
): Promise<void> {
  await cluster.until(`${what.storing} stores`, async () => {
    const record = await json<OperationRecord>(cluster, what.node, `/v1/operations/${what.id}`);
    if (record.ended !== undefined) throw new Error(`it ended too early: ${record.state}`);
    const own = record.progress?.nodes[what.storing];
    return own?.phase === "store" && own.state === "running";
  });
}

async function untilEnded(
  cluster: ProcessCluster,
  node: string,
  id: string,
): Promise<OperationRecord> {
  let record: OperationRecord | undefined;
  await cluster.until("the operation ends", async () => {
    record = await json<OperationRecord>(cluster, node, `/v1/operations/${id}`);
    return record.ended !== undefined;
  });
  return record!;
}
