/**
 * Holds a running M3 against what a backup says: the namespaces and the placement in etcd, the health
 * of each node, and how many series sampled blocks have. It only reads. More than the backup says is
 * never wrong, since writes go on; less is.
 */
import { AppError, toAppError } from "../../base/error.ts";
import { forEachConcurrent } from "../../base/semaphore.ts";
import { openEtcd } from "../etcd/etcd-client.ts";
import type { BackupContent, PhaseContext, ProductCheck } from "../product.ts";
import { parseClusterState, readClusterState } from "./cluster-state.ts";
import type { ClusterState } from "./cluster-state.ts";
import { checkNamespaces, checkShards } from "./database-state.ts";
import type { M3Config } from "./m3-config.ts";
import { countSeries, readHealth } from "./node-api.ts";
import type { PlacementInstance } from "./placement.ts";
import { compareSample, planSamples } from "./series-compare.ts";
import type { FoundCount, NamespaceSample } from "./series-compare.ts";

/** M3 instances that are asked at once. */
const INSTANCES_AT_ONCE = 8;

/** Asks etcd and every instance; a line for each thing that was looked at. */
export async function checkM3Database(
  config: M3Config,
  context: PhaseContext,
  backup: BackupContent,
): Promise<readonly ProductCheck[]> {
  const before = parseClusterState(backup.state["cluster"]);
  const what = `M3's state in etcd, environment ${config.environment}`;
  let now: ClusterState;
  try {
    const { environment, service, zone } = config;
    const client = openEtcd(config.etcd, context.doors);
    const { signal } = context;
    now = await readClusterState(client, { environment, service, zone, signal });
  } catch (thrown) {
    context.signal.throwIfAborted();
    return [failed(what, thrown)];
  }
  const samples = planSamples(backup.state["captures"], {
    namespaces: before.namespaces,
    nowMs: context.doors.clock.now(),
  });
  const { instances } = now.placement;
  const health = await askHealth(config, context, instances);
  // The first one that works counts for all: it asks every replica itself.
  const door = instances.find((_, index) => health[index]?.ok === true);
  const counted: ProductCheck[] = [];
  for (const sample of samples) {
    counted.push(compareSample(sample, await countAll(config, context, door, sample)));
  }
  return [
    ...checkNamespaces(before.namespaces, now.namespaces),
    checkShards(before.placement, now.placement),
    ...health,
    ...counted,
  ];
}

/** A line for each instance, in their order. */
async function askHealth(
  config: M3Config,
  { doors: { outside }, signal, say }: PhaseContext,
  instances: readonly PlacementInstance[],
): Promise<ProductCheck[]> {
  const checks = new Map<string, ProductCheck>();
  await forEachConcurrent(instances, INSTANCES_AT_ONCE, async (instance) => {
    const address = addressOf(config, instance, "node");
    const what = `instance ${instance.id} at ${address}`;
    say(`Asking ${what}.`);
    try {
      const { status, bootstrapped } = await readHealth({ outside, address, signal });
      const message = `${status}, ${bootstrapped ? "bootstrapped" : "not bootstrapped"}`;
      checks.set(instance.id, { what, ok: status === "up" && bootstrapped, message });
    } catch (thrown) {
      signal.throwIfAborted();
      checks.set(instance.id, failed(what, thrown));
    }
  });
  return instances.flatMap(({ id }) => checks.get(id) ?? []);
}

async function countAll(
  config: M3Config,
  { doors: { outside }, signal, say }: PhaseContext,
  instance: PlacementInstance | undefined,
  { name, wanted }: NamespaceSample,
): Promise<FoundCount[]> {
  const counts: FoundCount[] = [];
  for (const one of wanted) {
    if (instance === undefined) {
      const error = new AppError("unavailable", "no instance is up and bootstrapped to be asked");
      counts.push({ ...one, found: error });
      continue;
    }
    const address = addressOf(config, instance, "cluster");
    say(`Counting series of ${name} through ${address}.`);
    try {
      const found = await countSeries({ outside, address, signal }, one, one.countMax);
      counts.push({ ...one, found });
    } catch (thrown) {
      signal.throwIfAborted();
      counts.push({ ...one, found: toAppError(thrown) });
    }
  }
  return counts;
}

/** The host of the instance's endpoint, with the port that is configured for it or for all. */
export function addressOf(
  config: M3Config,
  { id, endpoint }: PlacementInstance,
  which: "node" | "cluster",
): string {
  const [, own] =
    Object.entries(config.instances).find(([node, one]) => (one.id ?? node) === id) ?? [];
  const host = endpoint.slice(0, endpoint.lastIndexOf(":"));
  return `${host}:${(own?.httpPorts ?? config.httpPorts)[which]}`;
}

function failed(what: string, thrown: unknown): ProductCheck {
  const { message, guidance } = toAppError(thrown);
  return { what, ok: false, message, ...(guidance === undefined ? {} : { guidance }) };
}
