/**
 * Holds a running M3 against what a backup says: the namespaces and the placement in etcd, the health
 * of each node, and how many series sampled blocks hold on every replica. It only reads. More than the
 * backup says is never wrong, since writes go on; less is, whichever replica has it.
 */
import { toAppError } from "../../base/error.ts";
import { forEachConcurrent } from "../../base/semaphore.ts";
import { openEtcd } from "../etcd/etcd-client.ts";
import type { BackupContent, PhaseContext, ProductCheck } from "../product.ts";
import { parseClusterState, readClusterState } from "./cluster-state.ts";
import type { ClusterState } from "./cluster-state.ts";
import { checkNamespaces, checkShards } from "./database-state.ts";
import type { M3Config } from "./m3-config.ts";
import { countSeries, readHealth } from "./node-api.ts";
import type { NodeApi } from "./node-api.ts";
import type { PlacementInstance } from "./placement.ts";
import { compareSamples, planSamples } from "./series-compare.ts";
import type { FoundCounts, WantedCount } from "./series-compare.ts";

/** M3 instances that are asked at once; each gets one request at a time. */
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
  const { samples, notes } = planSamples(backup.state["captures"], {
    namespaces: before.namespaces,
    nowMs: context.doors.clock.now(),
  });
  const asked = await askInstances(config, context, now.placement.instances, samples);
  return [
    ...checkNamespaces(before.namespaces, now.namespaces),
    checkShards(before.placement, now.placement),
    ...asked.checks,
    ...compareSamples(samples, asked.found, notes),
  ];
}

/** Of each instance how it is, and its counts; one that fails is asked no further. */
async function askInstances(
  config: M3Config,
  context: PhaseContext,
  instances: readonly PlacementInstance[],
  samples: readonly WantedCount[],
): Promise<{ readonly checks: readonly ProductCheck[]; readonly found: FoundCounts }> {
  const { signal, doors } = context;
  const checks = new Map<string, ProductCheck>();
  const found: FoundCounts = new Map(
    samples.map((sample) => [sample, { counts: [], ownerCount: 0 }]),
  );
  await forEachConcurrent(instances, INSTANCES_AT_ONCE, async (instance) => {
    const address = addressOf(config, instance);
    const api: NodeApi = { outside: doors.outside, address, signal };
    const what = `instance ${instance.id} at ${address}`;
    context.say(`Asking ${what}.`);
    const owned = samples.filter(({ shard }) =>
      instance.shards.some(({ id, state }) => id === shard && state === "available"),
    );
    for (const sample of owned) mustGet(found, sample).ownerCount += 1;
    try {
      const { status, bootstrapped } = await readHealth(api);
      const message = `${status}, ${bootstrapped ? "bootstrapped" : "not bootstrapped"}`;
      checks.set(instance.id, { what, ok: status === "up" && bootstrapped, message });
      if (!bootstrapped) return;
      for (const sample of owned) {
        mustGet(found, sample).counts.push(await countSeries(api, sample, sample.countMax));
      }
    } catch (thrown) {
      signal.throwIfAborted();
      checks.set(instance.id, failed(what, thrown));
    }
  });
  return { checks: instances.flatMap(({ id }) => checks.get(id) ?? []), found };
}

/** As configured for the node that it is, else the host of its endpoint with the common port. */
export function addressOf(config: M3Config, { id, endpoint }: PlacementInstance): string {
  const [, own] =
    Object.entries(config.instances).find(([node, one]) => (one.id ?? node) === id) ?? [];
  const host = endpoint.slice(0, endpoint.lastIndexOf(":"));
  return own?.http ?? `${host}:${config.httpPort}`;
}

function mustGet(found: FoundCounts, sample: WantedCount) {
  const counts = found.get(sample);
  if (counts === undefined) throw new Error("a sample that nobody asked for");
  return counts;
}

function failed(what: string, thrown: unknown): ProductCheck {
  const { message, guidance } = toAppError(thrown);
  return { what, ok: false, message, ...(guidance === undefined ? {} : { guidance }) };
}
