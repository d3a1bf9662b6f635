/**
 * A backup of M3, phase by phase: the cluster's state in etcd, the captures of all nodes, the state
 * again. If shards have moved meanwhile the nodes capture again; if anything else has changed only
 * etcd is read again, until two reads agree.
 */
import { z } from "zod";
import type { FileSystem } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { joinPath } from "../../base/path.ts";
import { openEtcd } from "../etcd/etcd-client.ts";
import type {
  ClusterOutcome,
  ClusterPhaseContext,
  Completeness,
  Json,
  NodePhaseContext,
  Phase,
} from "../product.ts";
import { captureM3 } from "./capture.ts";
import type { CapturedLog } from "./capture-logs.ts";
import type { CutMemory } from "./capture-options.ts";
import {
  parseClusterState,
  placementMoved,
  readClusterState,
  sameClusterState,
} from "./cluster-state.ts";
import type { ClusterState } from "./cluster-state.ts";
import { judgeCompleteness } from "./completeness.ts";
import type { M3Config } from "./m3-config.ts";
import { instanceIdOf } from "./m3-instances.ts";
import type { PlacementDescription } from "./placement.ts";
import { sampleSeries } from "./series-sample.ts";
import { readSmallFile } from "./small-file.ts";

/** Reads of etcd that must agree in the end. */
const AGREEMENT_TRIES_MAX = 10;

/** In the scratch folder: what the store phase must know of the logs. */
const CAPTURED_LOGS = "captured-logs.json";

const capturedLogsSchema = z.array(
  z.strictObject({
    index: z.int(),
    name: z.string(),
    sizeBytes: z.int(),
    tail: z.enum(["whole", "torn", "damaged"]),
  }),
);

/** The phases of a backup. */
export function backupPhases(config: M3Config, cuts: CutMemory): Phase[] {
  return [
    { on: "cluster", name: "read-etcd", run: (context) => readBefore(config, context) },
    { on: "nodes", name: "capture", run: (context) => capture(config, cuts, context) },
    { on: "cluster", name: "read-etcd-again", run: (context) => readAfter(config, context) },
    { on: "core", name: "store" },
  ];
}

/** The logs of the capture in this folder. */
export function readCapturedLogs(files: FileSystem, scratch: string): readonly CapturedLog[] {
  const bytes = readSmallFile(files, joinPath(scratch, CAPTURED_LOGS));
  return capturedLogsSchema.parse(JSON.parse(new TextDecoder().decode(bytes)));
}

/** Judges a backup by the placement that it holds. */
export function judgeBackup(
  config: M3Config,
  context: ClusterPhaseContext,
  present: readonly string[],
): Completeness {
  const { placement } = parseClusterState(context.state["cluster"]);
  const captured = new Set(present.map((node) => instanceIdOf(config, node)));
  return judgeCompleteness({ placement, captured, copies: config.copies });
}

async function readBefore(config: M3Config, context: ClusterPhaseContext): Promise<ClusterOutcome> {
  const state = await readState(config, context);
  mustMatchPlacement(config, context, state.placement);
  return { state: { cluster: state } };
}

async function readAfter(config: M3Config, context: ClusterPhaseContext): Promise<ClusterOutcome> {
  const before = parseClusterState(context.state["cluster"]);
  const captures = Object.fromEntries(context.results.get("capture") ?? []);
  let last = await readState(config, context);
  if (placementMoved(before, last)) {
    return { redo: "read-etcd", reason: "shards moved between M3 instances during the capture" };
  }
  if (sameClusterState(before, last)) return { state: { captures } };
  for (let tries = 1; tries <= AGREEMENT_TRIES_MAX; tries += 1) {
    context.say("The cluster's state in etcd changed: reading it again.");
    const again = await readState(config, context);
    if (placementMoved(before, again)) {
      return { redo: "read-etcd", reason: "shards moved between M3 instances during the capture" };
    }
    if (sameClusterState(last, again)) {
      return { state: { captures, cluster: again } };
    }
    last = again;
  }
  throw new AppError("incomplete", "M3's state in etcd changes faster than it can be read.", {
    guidance: "Run the backup again when namespaces and placements are not being edited.",
    retryable: true,
  });
}

async function readState(config: M3Config, context: ClusterPhaseContext): Promise<ClusterState> {
  const { environment, service, zone } = config;
  const client = openEtcd(config.etcd, context.doors);
  const { signal } = context;
  return await readClusterState(client, { environment, service, zone, signal });
}

/** Who is asked must be in the placement: else the backup is of another cluster than it says. */
function mustMatchPlacement(
  config: M3Config,
  context: ClusterPhaseContext,
  placement: PlacementDescription,
): void {
  const known = new Set(placement.instances.map(({ id }) => id));
  const strangers = context.nodes
    .map(({ name }) => ({ name, id: instanceIdOf(config, name) }))
    .filter(({ id }) => !known.has(id));
  if (strangers.length === 0) return;
  const ids = strangers.map(({ name, id }) => (name === id ? name : `${name} (${id})`)).join(", ");
  throw new AppError(
    "config",
    `M3's placement has no instance for these nodes: ${ids}. It has ${[...known].join(", ")}.`,
    {
      guidance:
        "Name each node's M3 instance in product.instances, and check product.environment and product.service.",
    },
  );
}

async function capture(
  config: M3Config,
  cuts: CutMemory,
  context: NodePhaseContext,
): Promise<Json> {
  const { files, clock } = context.doors;
  const { isStored, scratch, signal, say } = context;
  const captured = await captureM3({
    files,
    root: config.root,
    scratch,
    triesMax: config.captureTries,
    cuts,
    ...(isStored === undefined ? {} : { isStored }),
    say,
    pause: () => clock.sleep(0, signal),
    signal,
  });
  writeLogs(files, scratch, captured.logs);
  const series = sampleSeries({ files, root: config.root, scratch, shards: captured.shards });
  return { instance: instanceIdOf(config, context.node), ...captured, series };
}

function writeLogs(files: FileSystem, scratch: string, logs: readonly CapturedLog[]): void {
  const path = joinPath(scratch, CAPTURED_LOGS);
  if (files.lstat(path) !== undefined) files.unlink(path);
  const handle = files.open(path, "create");
  try {
    files.write(handle, new TextEncoder().encode(JSON.stringify(logs)), 0);
  } finally {
    files.close(handle);
  }
}
