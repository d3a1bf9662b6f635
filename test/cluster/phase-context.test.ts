/** What products are told in their phases, through the whole cluster. */
import { expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import type { FileStat } from "../../src/base/doors.ts";
import { realFileSystem } from "../../src/base/file-system.ts";
import type { BackupResult } from "../../src/cluster/backup-operation.ts";
import type { RestoreRequest } from "../../src/cluster/restore-operation.ts";
import { createFilesProduct } from "../../src/products/files.ts";
import type {
  Json,
  NodePhaseContext,
  NodeRestoreChoice,
  Product,
  RestoreChoice,
} from "../../src/products/product.ts";
import { ProductCluster } from "./product-cluster.ts";

type Told = { readonly where: string; readonly restore: NodeRestoreChoice | undefined };

/** Plain files whose restores note what each phase was told. */
function noting(told: Told[], inputs: Json[]): (node: string, root: string) => Product {
  const note = (where: string, restore: RestoreChoice | undefined): void => {
    if (restore !== undefined || where !== "") told.push({ where, restore });
  };
  return (node, root) => {
    const files = createFilesProduct({ type: "files", root, volume: "data", unreadable: "fail" });
    return {
      ...files,
      restorePhases: [
        {
          on: "nodes",
          name: "stop",
          run: async ({ restore }) => {
            note(`stop ${node}`, restore);
            return node;
          },
        },
        {
          on: "cluster",
          name: "think",
          run: async ({ restore }) => {
            note("think", restore);
            return { inputs: { "*": "thought" } };
          },
        },
        { on: "core", name: "place" },
        {
          on: "nodes",
          name: "start",
          run: async ({ restore, input }) => {
            note(`start ${node}`, restore);
            inputs.push(input);
            return null;
          },
        },
      ],
      targets: (context) => {
        note(`targets ${node}`, context.restore);
        return files.targets(context);
      },
    };
  };
}

test.each<[string, RestoreRequest, RestoreChoice, Record<string, string>]>([
  ["all", {}, { isPartial: false, paths: [] }, { a: "a", b: "b" }],
  ["some paths", { paths: ["f*"] }, { isPartial: true, paths: ["f*"] }, { a: "a", b: "b" }],
  ["one node", { nodes: [{ from: "b", to: "a" }] }, { isPartial: true, paths: [] }, { a: "b" }],
  [
    "all nodes, crossed",
    {
      nodes: [
        { from: "b", to: "a" },
        { from: "a", to: "b" },
      ],
    },
    { isPartial: false, paths: [] },
    { a: "b", b: "a" },
  ],
])("a restore of %s says so in every phase, and whose share a node gets", async (...row) => {
  const [, request, choice, from] = row;
  const told: Told[] = [];
  const inputs: Json[] = [];
  await using cluster = await ProductCluster.open(["a", "b"], noting(told, inputs));
  for (const node of ["a", "b"]) cluster.write(node, "file", node);
  const backup = await cluster.end(cluster.member("a").startBackup({ name: "one" }));
  expect(backup.error).toBeUndefined();
  told.length = 0;
  const record = await cluster.end(cluster.member("a").startRestore(request));
  expect(record.error).toBeUndefined();
  const expected = new Map<string, NodeRestoreChoice>([["think", choice]]);
  for (const [node, share] of Object.entries(from)) {
    // Once for the plan, once for the run.
    for (const phase of ["stop", "targets", "start"]) {
      expected.set(`${phase} ${node}`, { ...choice, from: share });
    }
  }
  for (const { where, restore } of told) expect(restore, where).toEqual(expected.get(where));
  expect(new Set(told.map(({ where }) => where))).toEqual(new Set(expected.keys()));
  // A node's phase behind `place` has what the cluster's phase before it left.
  expect(inputs).toEqual(Object.keys(from).map(() => "thought"));
  for (const [node, share] of Object.entries(from)) {
    expect(fs.readFileSync(join(cluster.rootOf(node), "file"), "utf8")).toBe(share);
  }
});

/** Files that are captured by their stat where they are stored, and by a link otherwise. */
function capturing(linked: string[]): (node: string, root: string) => Product {
  return (_node, root) => {
    const files = createFilesProduct({ type: "files", root, volume: "data", unreadable: "fail" });
    const kept = new Map<string, FileStat>();
    const capture = async (context: NodePhaseContext): Promise<Json> => {
      expect(context.restore).toBeUndefined();
      for (const name of fs.readdirSync(root).toSorted()) {
        const stat = realFileSystem.lstat(join(root, name))!;
        kept.set(name, stat);
        if (context.isStored?.("data", name, stat) === true) continue;
        linked.push(name);
        fs.linkSync(join(root, name), join(context.scratch, name));
      }
      // The database goes on.
      for (const name of kept.keys()) fs.unlinkSync(join(root, name));
      return null;
    };
    return {
      ...files,
      backupPhases: [
        { on: "nodes", name: "capture", run: capture },
        { on: "core", name: "store" },
      ],
      volumes: (context) => [
        {
          name: "data",
          root,
          entries: Array.from(kept, ([path, stat]) => {
            return { path, stat, readPath: join(context.scratch, path) };
          }),
          nature: () => "immutable",
          ctimeCounts: false,
          onUnreadable: "incomplete",
        },
      ],
    };
  };
}

test("what a backup stored need not be captured by the next one, and is in it though it is gone", async () => {
  const linked: string[] = [];
  await using cluster = await ProductCluster.open(["a"], capturing(linked));
  const member = cluster.member("a");
  const held = join(cluster.folder.path, "held");
  fs.mkdirSync(held);
  const files = ["first", "second"];
  for (const name of files) {
    cluster.write("a", name, name);
    fs.linkSync(join(cluster.rootOf("a"), name), join(held, name));
  }
  const backup = async (): Promise<BackupResult> => {
    const record = await cluster.end(member.startBackup());
    expect(record.error).toBeUndefined();
    return record.result as unknown as BackupResult;
  };
  await backup();
  expect(linked.splice(0)).toEqual(files);
  // The same inodes as before, and a new one.
  for (const name of files) fs.linkSync(join(held, name), join(cluster.rootOf("a"), name));
  cluster.write("a", "third", "third");
  const second = await backup();
  expect(linked).toEqual(["third"]);
  expect(second).toMatchObject({ complete: true, readBytes: 5, totals: { files: 3 } });
});
