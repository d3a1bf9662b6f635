/**
 * Steps of a walk that read: archives, plans, restores of a part, of some nodes or onto other ones,
 * and what people look at. What they find must be what a whole restore finds.
 */
import assert from "node:assert/strict";
import { unzipSync } from "fflate";
import picomatch from "picomatch";
import { toAppError } from "../../src/base/error.ts";
import { sha256Hex } from "../../src/base/hex.ts";
import type { ArchiveFormat } from "../../src/cas/read/archive.ts";
import type { BackupArchive } from "../../src/cas/read/archive-backup.ts";
import { parseTar } from "../cas/tar-parser.ts";
import { differences, readTree } from "./cluster-data.ts";
import type { Tree } from "./cluster-data.ts";
import type { FoundBackup, SimulatedCluster } from "./simulated-cluster.ts";
import { PRODUCT_ROOT } from "./simulated-node.ts";
import type { Expectations } from "./walk-expectations.ts";

/** Globs of which each matches a part of what nodes hold, whatever the product. */
const GLOBS = ["f/**", "k/**", "**/*1*", "logs/**", "a"];

/** What the steps work with. */
export type ReaderWalk = {
  readonly cluster: SimulatedCluster;
  readonly expectations: Expectations;
};

/** An archive holds the files of the backup, whoever makes it. */
export async function exportArchive({ cluster, expectations }: ReaderWalk): Promise<void> {
  const backup = await pickBackup(cluster);
  if (backup === undefined) return;
  await expectations.checkBackup(backup);
  const format: ArchiveFormat =
    cluster.store.kind === "objects" && cluster.chance(0.5) ? "zip" : "tar";
  const node = cluster.pick(cluster.nodes);
  const nodes = cluster.chance(0.3) ? [cluster.pick(backup.nodes)] : undefined;
  const globs = cluster.chance(0.3) ? [cluster.pick(GLOBS)] : undefined;
  const request = {
    backup: backup.id,
    format,
    incomplete: true,
    ...(nodes === undefined ? {} : { nodes }),
    ...(globs === undefined ? {} : { paths: globs }),
  };
  const tree = expectations.mustGet(backup.name).found!;
  const held = selectFiles(tree, { nodes, globs });
  // In a ZIP a symbolic link is a file that holds its target.
  const isFile = (name: string): boolean => tree.get(name)?.startsWith("symlink") !== true;
  const make = async (archive: Promise<BackupArchive>): Promise<ReadonlyMap<string, string>> =>
    readArchive(format, await gather(await archive), isFile);
  let found: ReadonlyMap<string, string>;
  try {
    const { signal } = new AbortController();
    if (format === "zip") {
      // Compressed in real time, beside which virtual time cannot go on.
      found = await cluster.readAtOnce((reader) => make(reader.archive(request)));
    } else if (cluster.chance(0.5)) {
      found = await cluster.clock.run(make(node.member.archive(request, signal)));
    } else {
      found = await cluster.read((reader) => make(reader.archive(request)));
    }
  } catch (thrown) {
    const { kind, context } = toAppError(thrown);
    if (kind === "not-found" && globs !== undefined && held.size === 0) return;
    // Names that are not UTF-8.
    if (format === "zip" && context["reason"] === "zip-limits") return;
    throw thrown;
  }
  assert.deepEqual(differences(held, found), [], `the ${format} of ${backup.name}`);
}

/** A plan changes nothing, and a restore from the site alone does what its plan said. */
export async function restoreOffline({ cluster, expectations }: ReaderWalk): Promise<void> {
  const backup = await pickBackup(cluster);
  if (backup === undefined) return;
  await expectations.checkBackup(backup);
  const nodes = [cluster.pick(backup.nodes)];
  const paths = cluster.chance(0.5) ? [cluster.pick(GLOBS)] : [];
  const choice = { nodes, paths };
  const disk = await cluster.restoreAside(backup.id, choice);
  const found = fileContents(readTree(disk, "/r"));
  const globs = paths.length === 0 ? undefined : paths;
  const held = selectFiles(expectations.mustGet(backup.name).found!, { nodes, globs });
  assert.deepEqual(differences(held, found), [], `a part of ${backup.name}`);
  const how = { target: "/r", ownerPolicy: "parent", incomplete: true } as const;
  const plan = await cluster.read(
    (reader) => reader.planRestoreTo({ backup: backup.id, ...how, ...choice }),
    disk,
  );
  for (const { outcome } of plan.volumes) {
    assert.equal(outcome.filesToWrite, 0, `a plan for ${backup.name} would write again`);
  }
}

/** What people look at names every node and every backup. */
export async function look({ cluster }: ReaderWalk): Promise<void> {
  const node = cluster.pick(cluster.nodes);
  const { member } = node;
  const { signal } = new AbortController();
  const listed = await cluster.listed();
  const status = await cluster.clock.run(member.status(signal));
  assert.equal(status.backups, listed.length);
  assert.deepEqual(
    status.nodes.filter(({ reachable }) => !reachable),
    [],
  );
  const shown = await cluster.clock.run(member.listBackups({ forgotten: true }));
  for (const { id, forgotten } of shown) {
    const isListed = listed.some((backup) => backup.id === id);
    assert.equal(isListed, forgotten === undefined, `${id} is listed here and not there`);
  }
  const one = shown.length === 0 ? undefined : cluster.pick(shown);
  if (one === undefined) return;
  const detail = await cluster.clock.run(member.showBackup(one.id));
  assert.deepEqual(
    detail.shares.map(({ name }) => name),
    one.nodes,
  );
  const aside = await cluster.read((reader) => reader.showBackup(one.id));
  assert.deepEqual(aside.shares, detail.shares);
  const verified = await cluster.read((reader) => reader.verify({ backup: one.id, deep: false }));
  assert(verified.ok || one.forgotten !== undefined, `verify from outside of ${one.name}`);
}

/** A share of plain files comes back in part, or onto another node. */
export async function restorePart({ cluster, expectations }: ReaderWalk): Promise<void> {
  const backup = await pickBackup(cluster);
  if (backup === undefined || cluster.product !== "files") return;
  await expectations.checkBackup(backup);
  const coordinator = cluster.pick(cluster.nodes);
  const pair = { from: cluster.pick(backup.nodes), to: cluster.pick(cluster.nodes).name };
  const paths = cluster.chance(0.5) ? [cluster.pick(GLOBS)] : undefined;
  const request = {
    backup: backup.id,
    nodes: [pair],
    incomplete: true,
    ...(paths === undefined ? {} : { paths }),
  };
  const target = cluster.nodes.find(({ name }) => name === pair.to)!;
  const before = readTree(target.files, PRODUCT_ROOT);
  const { signal } = new AbortController();
  const plan = await cluster.clock.run(coordinator.member.planRestore(request, signal));
  assert.deepEqual(differences(before, readTree(target.files, PRODUCT_ROOT)), [], "a plan wrote");
  const record = await cluster.end(coordinator, coordinator.member.startRestore(request));
  if (plan.refusals.length > 0) {
    assert.equal(record?.error?.kind, "refused", "a plan that refuses is not run");
    return;
  }
  assert.equal(record?.state, "done", `a part of ${backup.name}: ${record?.error?.message}`);
  const isWanted = paths === undefined ? () => true : picomatch(paths, { dot: true });
  // What a filter does to the directories on the way is not promised.
  expectations.checkPlaced(
    backup,
    pair,
    (path, shown) => isWanted(path) && !shown.startsWith("directory"),
  );
}

async function pickBackup(cluster: SimulatedCluster): Promise<FoundBackup | undefined> {
  const found = await cluster.listed();
  return found.length === 0 ? undefined : cluster.pick(found);
}

/** Contents of the files of a tree, by path; of links to files, too. */
function fileContents(tree: Tree): Map<string, string> {
  return new Map(
    [...tree].flatMap(([path, shown]) => {
      const content = / ([0-9a-f]{64})( is .*)?$/.exec(shown)?.[1];
      return content === undefined ? [] : [[path, content]];
    }),
  );
}

/** Paths of a whole backup are `NODE/VOLUME/PATH`. */
function selectFiles(
  tree: Tree,
  choice: {
    readonly nodes: readonly string[] | undefined;
    readonly globs: readonly string[] | undefined;
  },
): Map<string, string> {
  const { nodes, globs } = choice;
  const isWanted = globs === undefined ? () => true : picomatch([...globs], { dot: true });
  return new Map(
    [...fileContents(tree)].filter(([path]) => {
      const [node = "", , ...rest] = path.split("/");
      return (nodes === undefined || nodes.includes(node)) && isWanted(rest.join("/"));
    }),
  );
}

async function gather(archive: BackupArchive): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const bytes of archive.bytes()) pieces.push(bytes);
  return Buffer.concat(pieces);
}

/** Hashes of the files in an archive, by their names as byte strings. */
function readArchive(
  format: ArchiveFormat,
  bytes: Uint8Array,
  isFile: (name: string) => boolean,
): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  if (format === "tar") {
    for (const entry of parseTar(bytes)) {
      if (entry.type === "0") found.set(entry.name, sha256Hex(entry.content));
      else if (entry.type === "1") found.set(entry.name, found.get(entry.target) ?? "no target");
    }
    return found;
  }
  for (const [name, content] of Object.entries(unzipSync(bytes))) {
    if (!name.endsWith("/") && isFile(name)) found.set(name, sha256Hex(content));
  }
  return found;
}
