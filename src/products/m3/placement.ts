/**
 * M3's placement: which instance holds which shards, and in which state. Parsed from the protobuf that
 * M3 keeps in etcd, described as plain JSON, and checked by M3's own rules: every shard has exactly as
 * many owners as the replica factor says, and each move has its two ends. Unknown fields are kept.
 */
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { AppError } from "../../base/error.ts";
import { PlacementSchema, ShardState } from "./proto/placement.pb.ts";
import type { Instance, Placement, Shard } from "./proto/placement.pb.ts";

/** A shard's state, in M3's words. */
export type ShardStateName = "initializing" | "available" | "leaving";

/** One shard of an instance, as plain JSON. */
export type PlacementShard = {
  readonly id: number;
  readonly state: ShardStateName;
  /** Of an initializing shard: who has its data; empty if nobody does. */
  readonly sourceId: string;
};

/** One instance, as plain JSON. */
export type PlacementInstance = {
  readonly id: string;
  readonly isolationGroup: string;
  readonly zone: string;
  readonly endpoint: string;
  readonly hostname: string;
  readonly port: number;
  readonly weight: number;
  readonly shardSetId: number;
  /** Ascending by id. */
  readonly shards: readonly PlacementShard[];
};

/** A placement, as plain JSON: for manifests, plans and messages. */
export type PlacementDescription = {
  readonly replicaFactor: number;
  readonly shardCount: number;
  readonly isSharded: boolean;
  readonly isMirrored: boolean;
  /** Ascending by id. */
  readonly instances: readonly PlacementInstance[];
};

/** Reads M3's bytes; what is no placement is an error of kind `damaged`. */
export function parsePlacement(bytes: Uint8Array): Placement {
  const placement = decodePlacement(bytes);
  const problem = shapeProblem(placement);
  if (problem === undefined) return placement;
  throw damaged(problem);
}

/** The bytes of a placement; unknown fields are written as they were. */
export function encodePlacement(placement: Placement): Uint8Array {
  return toBinary(PlacementSchema, placement);
}

/** The same as plain JSON. */
export function describePlacement(placement: Placement): PlacementDescription {
  const instances = instancesOf(placement).map((instance) => ({
    id: instance.id,
    isolationGroup: instance.isolationGroup,
    zone: instance.zone,
    endpoint: instance.endpoint,
    hostname: instance.hostname,
    port: instance.port,
    weight: instance.weight,
    shardSetId: instance.shardSetId,
    shards: instance.shards
      .map((shard) => ({ id: shard.id, state: stateName(shard), sourceId: shard.sourceId }))
      .toSorted((a, b) => a.id - b.id),
  }));
  return {
    replicaFactor: placement.replicaFactor,
    shardCount: placement.shardCount,
    isSharded: placement.isSharded,
    isMirrored: placement.isMirrored,
    instances: instances.toSorted((a, b) => (a.id < b.id ? -1 : 1)),
  };
}

/** The instances, in the order of the message. */
export function instancesOf(placement: Placement): Instance[] {
  return placement.instances.flatMap(({ value }) => (value === undefined ? [] : [value]));
}

/** Why the message cannot be a placement; undefined if it can. */
export function shapeProblem(placement: Placement): string | undefined {
  const seen = new Set<string>();
  for (const { key, value } of placement.instances) {
    if (value === undefined) return `instance "${key}" is empty`;
    if (key === "" || value.id !== key) return `instance "${key}" calls itself "${value.id}"`;
    if (seen.has(key)) return `instance "${key}" is there twice`;
    seen.add(key);
    const shards = new Set(value.shards.map(({ id }) => id));
    if (shards.size !== value.shards.length) return `instance "${key}" has a shard twice`;
    const strange = value.shards.find(({ state }) => !(state in ShardState));
    if (strange !== undefined) {
      return `instance "${key}" has shard ${strange.id} in the unknown state ${strange.state}`;
    }
  }
  return undefined;
}

/**
 * Everything in which a placement breaks M3's rules, in words that name shards and instances; empty if
 * it is sound. A leaving shard does not count as an owner, an initializing one does.
 */
export function listPlacementProblems(placement: Placement): string[] {
  const instances = instancesOf(placement);
  const unreachable = instances.filter(({ endpoint }) => endpoint === "");
  const problems = unreachable.map(({ id }) => `instance ${id} has no endpoint`);
  if (!placement.isSharded) return problems;
  if (instances.length === 0) problems.push("it has no instances");
  const empty = instances.filter(({ shards }) => shards.length === 0);
  problems.push(...empty.map(({ id }) => `instance ${id} has no shards`));
  return [...problems, ...coverageProblems(placement), ...moveProblems(instances)];
}

/** Throws `refused` if the placement breaks M3's rules; `what` begins the message. */
export function assertSoundPlacement(placement: Placement, what: string): void {
  const problems = listPlacementProblems(placement);
  if (problems.length === 0) return;
  throw new AppError("refused", `${what}: ${problems.slice(0, PROBLEM_COUNT_SHOWN).join("; ")}.`, {
    guidance: "Mend the placement with M3's own tools, then take a new backup.",
    context: { problemCount: problems.length },
  });
}

/**
 * Shards with two owners in one isolation group, where there are groups enough to keep them apart;
 * M3 places none so.
 */
export function listSharedGroups(placement: Placement): string[] {
  const instances = instancesOf(placement);
  const groups = new Set(instances.map(({ isolationGroup }) => isolationGroup));
  if (!placement.isSharded || groups.size < placement.replicaFactor) return [];
  const groupsOfShard = new Map<number, Set<string>>();
  const shared = new Map<string, number[]>();
  for (const { isolationGroup, shards } of instances) {
    for (const { id, state } of shards) {
      if (state === ShardState.LEAVING) continue;
      const there = groupsOfShard.get(id) ?? new Set<string>();
      groupsOfShard.set(id, there);
      if (there.has(isolationGroup)) {
        shared.set(isolationGroup, [...(shared.get(isolationGroup) ?? []), id]);
      }
      there.add(isolationGroup);
    }
  }
  return [...shared].map(
    ([group, ids]) => `isolation group "${group}" has two owners of ${showShards(ids)}`,
  );
}

/** `shards 0-4 and 9`, for messages. */
export function showShards(ids: readonly number[]): string {
  const sorted = [...new Set(ids)].toSorted((a, b) => a - b);
  const runs: [number, number][] = [];
  for (const id of sorted) {
    const last = runs.at(-1);
    if (last !== undefined && last[1] === id - 1) last[1] = id;
    else runs.push([id, id]);
  }
  const words = runs.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`));
  const tail = words.length > 1 ? ` and ${words.at(-1)}` : "";
  const head = words.length > 1 ? words.slice(0, -1).join(", ") : (words[0] ?? "none");
  return `${sorted.length === 1 ? "shard" : "shards"} ${head}${tail}`;
}

/** A shard's state, in M3's words. */
export function stateName(shard: Shard): ShardStateName {
  switch (shard.state) {
    case ShardState.INITIALIZING:
      return "initializing";
    case ShardState.AVAILABLE:
      return "available";
    case ShardState.LEAVING:
      return "leaving";
  }
}

const PROBLEM_COUNT_SHOWN = 10;
/** M3's own limit is far below. */
const SHARD_COUNT_MAX = 1_000_000;

/** The message, whatever it says; for who tells placements from other messages. */
export function decodePlacement(bytes: Uint8Array): Placement {
  try {
    return fromBinary(PlacementSchema, bytes);
  } catch (cause) {
    throw damaged(cause instanceof Error ? cause.message : "no protobuf", cause);
  }
}

function coverageProblems(placement: Placement): string[] {
  const { replicaFactor, shardCount } = placement;
  if (shardCount > SHARD_COUNT_MAX) return [`it has ${shardCount} shards`];
  const owners = Array.from({ length: shardCount }, () => 0);
  const strangers: number[] = [];
  for (const { shards } of instancesOf(placement)) {
    for (const { id, state } of shards) {
      if (id >= shardCount) strangers.push(id);
      else if (state !== ShardState.LEAVING) owners[id] = (owners[id] ?? 0) + 1;
    }
  }
  const byCount = Map.groupBy(owners.keys(), (id) => owners[id] ?? 0);
  const wrong = [...byCount].filter(([count]) => count !== replicaFactor);
  const problems = wrong
    .toSorted(([a], [b]) => a - b)
    .map(([count, ids]) => `${showShards(ids)}: ${count} owners in place of ${replicaFactor}`);
  if (strangers.length > 0) problems.push(`${showShards(strangers)}: beyond ${shardCount} shards`);
  return problems;
}

/** Each initializing shard with a source needs the leaving one there, each leaving one its heir. */
function moveProblems(instances: readonly Instance[]): string[] {
  const problems: string[] = [];
  const byId = new Map(instances.map((instance) => [instance.id, instance]));
  const heirs = new Map<string, string>();
  for (const { id: heir, shards } of instances) {
    for (const { id, state, sourceId } of shards) {
      if (state !== ShardState.INITIALIZING || sourceId === "") continue;
      const source = byId.get(sourceId)?.shards.find((shard) => shard.id === id);
      const place = `${sourceId}\n${id}`;
      if (source?.state !== ShardState.LEAVING) {
        problems.push(`shard ${id} comes to ${heir} from ${sourceId}, which does not give it away`);
      } else if (heirs.has(place)) {
        problems.push(`shard ${id} of ${sourceId} goes to both ${heirs.get(place)} and ${heir}`);
      }
      heirs.set(place, heir);
    }
  }
  for (const { id: source, shards } of instances) {
    for (const { id, state } of shards) {
      if (state === ShardState.LEAVING && !heirs.has(`${source}\n${id}`)) {
        problems.push(`shard ${id} leaves ${source} and goes nowhere`);
      }
    }
  }
  return problems;
}

function damaged(reason: string, cause?: unknown): AppError {
  return new AppError("damaged", `This is no placement of M3: ${reason}.`, {
    guidance: "Check `environment` and `service`, and the placement that M3's coordinator shows.",
    cause,
  });
}
