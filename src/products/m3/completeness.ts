/**
 * How whole a backup of M3 is: computed from the placement, which says who should hold what, and
 * never from who happened to answer. A shard counts on an instance where it is available; one that is
 * leaving still is, since a restore puts it back to its source.
 */
import type { Completeness } from "../product.ts";
import { showShards } from "./placement.ts";
import type { PlacementDescription } from "./placement.ts";

/** What decides. */
export type CompletenessFacts = {
  readonly placement: PlacementDescription;
  /** Ids of the instances whose files were captured and stored. */
  readonly captured: ReadonlySet<string>;
  /** From how many replicas each shard must come for the backup to count. */
  readonly copies: "all" | number;
};

/** Judges a backup by its placement. */
export function judgeCompleteness(facts: CompletenessFacts): Completeness {
  const { placement, captured } = facts;
  const replicas = placement.replicaFactor;
  const wanted = facts.copies === "all" ? replicas : Math.min(facts.copies, replicas);
  const byCopies = new Map<number, number[]>();
  for (const [shard, copies] of countCopies(placement, captured)) {
    if (copies >= replicas) continue;
    const shards = byCopies.get(copies) ?? [];
    byCopies.set(copies, [...shards, shard]);
  }
  const absent = placement.instances.filter(
    ({ id, shards }) => shards.length > 0 && !captured.has(id),
  );
  const problems = [
    ...absent.map(
      ({ id, shards }) =>
        `instance ${id} of the placement was not captured; it holds shards ` +
        showShards(shards.map((shard) => shard.id)),
    ),
    ...[...byCopies].map(
      ([copies, shards]) =>
        `shards ${showShards(shards)} were captured from ${copies} of ${replicas} replicas, ` +
        `${wanted} wanted`,
    ),
  ];
  const fewest = Math.min(replicas, ...byCopies.keys());
  return {
    complete: fewest >= wanted,
    degraded: fewest >= wanted && fewest < replicas,
    problems,
  };
}

/** Copies by shard, of all shards that the placement has. */
function countCopies(
  placement: PlacementDescription,
  captured: ReadonlySet<string>,
): Map<number, number> {
  const copies = new Map<number, number>();
  for (let shard = 0; shard < placement.shardCount; shard += 1) copies.set(shard, 0);
  for (const { id, shards } of placement.instances) {
    if (!captured.has(id)) continue;
    for (const shard of shards) {
      if (shard.state === "initializing") continue;
      copies.set(shard.id, (copies.get(shard.id) ?? 0) + 1);
    }
  }
  return copies;
}
