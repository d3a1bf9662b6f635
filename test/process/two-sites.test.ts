/**
 * Two directory sites behind real servers and the command line: every backup reaches both; when the
 * first is gone, the second is read, promoted and written to, without a restart of anything.
 */
import { expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import type { BackupResult } from "../../src/cluster/backup-operation.ts";
import type { BackupSummary } from "../../src/cluster/backup-summary.ts";
import type { SiteStatus } from "../../src/cluster/site-status.ts";
import { RACY_MS_DEFAULT } from "../../src/cas/write/backup-settings.ts";
import { compareTrees, recordTree } from "../../scripts/tree-comparison.ts";
import { ProcessCluster } from "./process-cluster.ts";

const NODES = ["a", "b"] as const;
const TIMEOUT_MS = 120_000;

test(
  "the primary's folder goes away, the mirror is promoted, backups go on, and all restores",
  async () => {
    await using cluster = await openCluster();
    const first = await backUp(cluster, "one");
    expect(first.mirrors).toMatchObject([{ site: "spare", state: "acknowledged", copied: 1 }]);
    expect(await listed(cluster)).toEqual([
      ["one", { disk: "acknowledged", spare: "acknowledged" }],
    ]);

    fs.renameSync(join(cluster.folder, "site"), join(cluster.folder, "lost"));
    // What was seen within the last second still counts.
    await cluster.until("a list says that it is of the mirror", async () => {
      const { stdout, stderr } = await cluster.at("a", "list");
      return stdout.includes("one") && stderr.includes("The primary disk does not answer");
    });
    const refused = await cluster.at("a", "backup", "--name", "two");
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toContain("disk");

    const promoted = await cluster.at("a", "site", "promote", "spare");
    expect(promoted).toMatchObject({ code: 0 });
    expect(promoted.stdout).toContain("spare is the primary now, in place of disk.");
    // Nothing is read again: what the nodes know of their files came along.
    expect((await backUp(cluster, "three")).readBytes).toBe(0);
    const { sites } = await json<{ sites: SiteStatus[] }>(cluster, "site", "list");
    expect(sites).toMatchObject([
      { name: "disk", reachable: false },
      { name: "spare", role: "primary", reachable: true, backups: 2 },
    ]);

    const before = NODES.map((node) => recordTree(cluster.root(node)).record);
    for (const node of NODES) fs.rmSync(join(cluster.root(node), "same"));
    expect(await cluster.at("b", "restore", "--backup", "one", "--yes")).toMatchObject({ code: 0 });
    const after = NODES.map((node) => recordTree(cluster.root(node)).record);
    expect(after.flatMap((record, index) => compareTrees(before[index]!, record))).toEqual([]);

    fs.renameSync(join(cluster.folder, "lost"), join(cluster.folder, "site"));
    await cluster.until("disk has joined as a mirror and has all", async () => {
      const { code } = await cluster.at("a", "sync");
      return code === 0 && (await listed(cluster)).every(([, at]) => at["disk"] === "acknowledged");
    });
  },
  TIMEOUT_MS,
);

async function openCluster(): Promise<ProcessCluster> {
  const cluster = await ProcessCluster.create({ nodes: NODES, sites: ["disk", "spare"] });
  for (const node of NODES) {
    fs.writeFileSync(join(cluster.root(node), "same"), "the same everywhere\n".repeat(5000));
    fs.writeFileSync(join(cluster.root(node), "own"), `only on ${node}\n`);
  }
  await cluster.init();
  await cluster.init("spare");
  await cluster.start(...NODES);
  // What was changed a moment ago is read again by the next backup, whatever times it claims.
  const written = fs.statSync(join(cluster.root("b"), "own")).ctimeMs;
  await cluster.until("the files have settled", async () => Date.now() - written > RACY_MS_DEFAULT);
  return cluster;
}

async function backUp(cluster: ProcessCluster, name: string): Promise<BackupResult> {
  const { result } = await json<{ result: BackupResult }>(cluster, "backup", "--name", name);
  return result;
}

async function listed(cluster: ProcessCluster): Promise<[string, BackupSummary["sites"]][]> {
  const { backups } = await json<{ backups: BackupSummary[] }>(cluster, "list");
  return backups.map(({ name, sites }) => [name, sites]);
}

async function json<T>(cluster: ProcessCluster, ...args: readonly string[]): Promise<T> {
  const { stdout, stderr } = await cluster.at("a", ...args, "--json");
  if (stdout === "") throw new Error(stderr);
  return JSON.parse(stdout) as T;
}
