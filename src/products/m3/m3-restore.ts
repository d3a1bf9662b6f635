/**
 * A restore of M3, phase by phase: no node may run; the cluster's state is planned, with the
 * placement mapped to the nodes that get the shares, before a byte moves; files are put in place,
 * checkpoints last; what names a path is rewritten; and etcd is written last, so that an M3 node that
 * starts too early owns nothing that is half there.
 *
 * A part of a backup (one node, some paths) leaves etcd alone: the placement that is there must
 * already give the nodes what they get.
 */
import assert from "node:assert/strict";
import { z } from "zod";
import type { FileSystem } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { replaceFile } from "../../base/folders.ts";
import { joinPath, parentPath, textFromPath } from "../../base/path.ts";
import { openEtcd } from "../etcd/etcd-client.ts";
import type {
  ClusterOutcome,
  ClusterPhaseContext,
  Json,
  NodePhaseContext,
  Phase,
} from "../product.ts";
import { M3_VOLUMES } from "./capture-options.ts";
import { parseClusterStatePlan, planClusterState, readTargetState } from "./cluster-state-plan.ts";
import type { ClusterStatePlan } from "./cluster-state-plan.ts";
import { writeClusterState } from "./cluster-state-write.ts";
import { parseClusterState, readClusterState } from "./cluster-state.ts";
import type { ClusterState } from "./cluster-state.ts";
import { parseSnapshotMetadataName, snapshotMetadataNames } from "./fileset-names.ts";
import type { M3Config } from "./m3-config.ts";
import { instanceIdOf, mapInstances } from "./m3-instances.ts";
import type { InstanceShare } from "./m3-instances.ts";
import { readSmallFile } from "./small-file.ts";
import { parseSnapshotMetadata, rewriteSnapshotMetadata } from "./snapshot-metadata.ts";

/** M3 holds a lock on this file, below its root, while it runs. */
const LOCK_NAME = ".lock";

const capturesSchema = z.record(z.string(), z.looseObject({ instance: z.string() }));

/** The phases of a restore. */
export function restorePhases(config: M3Config): Phase[] {
  return [
    { on: "nodes", name: "check-stopped", run: async (context) => checkStopped(config, context) },
    { on: "cluster", name: "plan-etcd", run: (context) => planEtcd(config, context) },
    { on: "core", name: "place" },
    { on: "nodes", name: "finish-files", run: async (context) => finishFiles(config, context) },
    { on: "cluster", name: "write-etcd", run: (context) => writeEtcd(config, context) },
  ];
}

/** Refuses a node whose M3 runs, and makes the folders that the files go into. */
function checkStopped(config: M3Config, context: NodePhaseContext): Json {
  const { files } = context.doors;
  const root = textFromPath(config.root);
  const lock = joinPath(config.root, LOCK_NAME);
  if (files.isLocked(lock)) {
    throw new AppError("refused", `M3 runs on node ${context.node}: it holds ${root}/.lock.`, {
      guidance: "Stop m3dbnode on every node that is restored; then run the restore again.",
    });
  }
  const stat = files.lstat(joinPath(config.root, "."));
  if (stat === undefined) {
    throw new AppError("not-found", `M3's folder ${root} does not exist on ${context.node}.`, {
      guidance: "Make it, with the owner that m3dbnode runs as, or mount its file system.",
    });
  }
  for (const volume of M3_VOLUMES) {
    const folder = joinPath(config.root, volume);
    if (files.lstat(folder) !== undefined) continue;
    files.makeDirectory(folder, 0o755);
    files.setOwner(folder, stat.uid, stat.gid);
  }
  return { instance: instanceIdOf(config, context.node) };
}

async function planEtcd(config: M3Config, context: ClusterPhaseContext): Promise<ClusterOutcome> {
  const { environment, service, zone } = config;
  const { signal } = context;
  const client = openEtcd(config.etcd, context.doors);
  const shares = instanceShares(context);
  const backup = parseClusterState(context.state["cluster"]);
  if (context.restore?.isPartial === true) {
    const now = await readClusterState(client, { environment, service, zone, signal });
    mustOwnShares(config, { backup, now, shares });
    context.say("A part is restored: etcd stays as it is.");
    return {};
  }
  const { kvNamespaces } = backup;
  const target = await readTargetState(client, { environment, service, kvNamespaces, signal });
  const plan = planClusterState(backup, {
    environment,
    service,
    target,
    instances: mapInstances(config, backup.placement, shares),
    missing: withoutShares(backup, shares),
  });
  for (const note of plan.notes) context.say(note);
  return { state: { plan: plan } };
}

/** Instances of the backup that nobody has a share of: they come up empty, and ask their peers. */
function withoutShares(backup: ClusterState, shares: readonly InstanceShare[]): string[] {
  const captured = new Set(shares.map(({ from }) => from));
  return backup.placement.instances
    .filter(({ id, shards }) => !captured.has(id) && shards.some(hasData))
    .map(({ id }) => id);
}

function hasData({ state }: { readonly state: string }): boolean {
  return state !== "initializing";
}

/** Pairs of an instance in the backup and a node that gets its files. */
function instanceShares(context: ClusterPhaseContext): InstanceShare[] {
  const captures = capturesSchema.parse(context.state["captures"]);
  return (context.shares ?? []).map(({ from, to }) => {
    const capture = captures[from];
    if (capture === undefined) {
      throw new AppError("damaged", `The backup does not say which M3 instance ${from} was.`, {
        guidance: "Verify the backup, or restore its files with --to.",
      });
    }
    return { from: capture.instance, to };
  });
}

/** Files for shards that a node does not own are deleted by M3 when it starts. */
function mustOwnShares(
  config: M3Config,
  of: {
    readonly backup: ClusterState;
    readonly now: ClusterState;
    readonly shares: readonly InstanceShare[];
  },
): void {
  for (const { from, to } of of.shares) {
    const id = instanceIdOf(config, to);
    const before = of.backup.placement.instances.find((instance) => instance.id === from);
    const now = of.now.placement.instances.find((instance) => instance.id === id);
    const owned = new Set(now?.shards.map((shard) => shard.id));
    const lost = (before?.shards ?? []).filter((shard) => hasData(shard) && !owned.has(shard.id));
    if (now !== undefined && lost.length === 0) continue;
    const what =
      now === undefined
        ? `has no instance ${id}`
        : `does not give ${id} the shards ${lost.map((shard) => shard.id).join(", ")}`;
    throw new AppError("refused", `M3's placement ${what}, whose files node ${to} would get.`, {
      guidance:
        "M3 deletes files of shards that it does not own. Restore all nodes, or mend the placement first.",
    });
  }
}

/** Snapshot metadata name a commit log by its whole path: it is rewritten where the root differs. */
function finishFiles(config: M3Config, context: NodePhaseContext): Json {
  const { files } = context.doors;
  const folder = joinPath(config.root, "snapshots");
  let rewritten = 0;
  for (const name of files.readDirectory(folder)) {
    const parsed = parseSnapshotMetadataName(name);
    if (parsed === undefined || parsed.isCheckpoint) continue;
    const checkpointName = snapshotMetadataNames(parsed).checkpoint;
    const metadata = readSmallFile(files, joinPath(folder, name));
    const checkpoint = readSmallFile(files, joinPath(folder, checkpointName));
    const { commitLog } = parseSnapshotMetadata(name, metadata, checkpoint);
    if (parentPath(commitLog.path) === joinPath(config.root, "commitlogs")) continue;
    const changed = rewriteSnapshotMetadata(metadata, config.root);
    // Between the two M3 takes neither; a restore that was killed here puts the old ones back first.
    replaceAlike(files, joinPath(folder, name), changed.metadata);
    replaceAlike(files, joinPath(folder, checkpointName), changed.checkpoint);
    rewritten += 1;
  }
  if (files.isLocked(joinPath(config.root, LOCK_NAME))) {
    throw new AppError("refused", `M3 was started on node ${context.node} during the restore.`, {
      guidance: "Stop m3dbnode there and run the restore again: it may have deleted files.",
    });
  }
  return { rewritten };
}

/** With the owner and mode of what was there; a new time, so that a restore sees it. */
function replaceAlike(files: FileSystem, path: string, bytes: Uint8Array): void {
  const like = files.lstat(path);
  assert(like !== undefined);
  replaceFile(files, path, bytes, { temporary: `${path}.astacus`, like });
}

async function writeEtcd(config: M3Config, context: ClusterPhaseContext): Promise<ClusterOutcome> {
  if (context.restore?.isPartial === true) return {};
  const plan: ClusterStatePlan = parseClusterStatePlan(context.state["plan"]);
  const client = openEtcd(config.etcd, context.doors);
  const { operation, signal } = context;
  await writeClusterState(client, plan, { operation, signal });
  context.say(`etcd holds the state of environment ${plan.environment}.`);
  return {};
}
