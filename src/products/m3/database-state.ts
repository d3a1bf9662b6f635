/**
 * What etcd says of a running M3, held against a backup: its namespaces, and whether every shard has
 * all of its replicas available. Pure functions of the two states.
 */
import { formatDuration } from "../../base/units.ts";
import type { ProductCheck } from "../product.ts";
import type { NamespaceDescription } from "./cluster-state.ts";
import type { PlacementDescription } from "./placement.ts";
import { showShards } from "./placement.ts";

/** A line for each namespace of the backup; those that are new since are nobody's loss. */
export function checkNamespaces(
  before: readonly NamespaceDescription[],
  now: readonly NamespaceDescription[],
): ProductCheck[] {
  return before.map((old) => {
    const what = `namespace ${old.name}`;
    const found = now.find(({ name }) => name === old.name);
    if (found === undefined) {
      const guidance = "Restore it with its state in etcd, or make it with M3's coordinator.";
      return { what, ok: false, message: "is not there", guidance };
    }
    const differences = [
      describeDifference("retention", old.retentionMs, found.retentionMs),
      describeDifference("block size", old.blockSizeMs, found.blockSizeMs),
      describeDifference("index block size", old.indexBlockSizeMs, found.indexBlockSizeMs),
    ].flatMap((difference) => difference ?? []);
    const shape = `retention ${formatDuration(found.retentionMs)}, blocks of ${formatDuration(found.blockSizeMs)}`;
    return differences.length === 0
      ? { what, ok: true, message: `${shape}, as in the backup` }
      : { what, ok: false, message: differences.join("; ") };
  });
}

function describeDifference(what: string, before: number, now: number): string | undefined {
  if (before === now) return undefined;
  return `${what} ${formatDuration(now)}, in the backup ${formatDuration(before)}`;
}

/** Every shard of the backup must be available as often as the placement says. */
export function checkShards(before: PlacementDescription, now: PlacementDescription): ProductCheck {
  const what = "shards";
  const { replicaFactor, shardCount } = now;
  if (shardCount !== before.shardCount) {
    return { what, ok: false, message: `${shardCount}, in the backup ${before.shardCount}` };
  }
  const copies = Array.from({ length: shardCount }, () => 0);
  for (const { shards } of now.instances) {
    for (const { id, state } of shards) {
      if (state === "available" && id < shardCount) copies[id] = (copies[id] ?? 0) + 1;
    }
  }
  const few = Map.groupBy(copies.keys(), (shard) => copies[shard] ?? 0);
  const lacks = [...few]
    .filter(([count]) => count < replicaFactor)
    .toSorted(([a], [b]) => a - b)
    .map(([count, shards]) => `${showShards(shards)}: available on ${count} of ${replicaFactor}`);
  if (lacks.length === 0) {
    const message = `all ${shardCount} available on ${replicaFactor} instances`;
    return { what, ok: true, message };
  }
  const guidance =
    "Instances that start make theirs available when they have their data; see their logs.";
  return { what, ok: false, message: lacks.join("; "), guidance };
}
