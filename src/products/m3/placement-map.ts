/**
 * Placements for other nodes: a new message is built from the old one, instance by instance, so that
 * any permutation of names works; shards that were moving when the backup was taken go back to the
 * owner that has their data. M3's rules are asserted before and after, and unknown fields are kept.
 */
import { clone, create } from "@bufbuild/protobuf";
import { AppError } from "../../base/error.ts";
import {
  assertSoundPlacement,
  describePlacement,
  encodePlacement,
  instancesOf,
  listSharedGroups,
  parsePlacement,
  showShards,
} from "./placement.ts";
import type { PlacementDescription } from "./placement.ts";
import { InstanceEntrySchema, InstanceSchema, PlacementSchema } from "./proto/placement.pb.ts";
import { ShardState } from "./proto/placement.pb.ts";
import type { Instance, Placement, Shard } from "./proto/placement.pb.ts";

/** What an instance of the backup becomes. What is not given stays as it was. */
export type InstanceMapping = {
  /** Its id in the backup's placement. */
  readonly from: string;
  readonly to: {
    readonly id: string;
    readonly endpoint?: string;
    readonly hostname?: string;
    readonly port?: number;
    readonly isolationGroup?: string;
    readonly zone?: string;
  };
};

/** How a placement is to be rewritten. */
export type PlacementMapOptions = {
  /** Instances that are not named keep their names and addresses. */
  readonly instances: readonly InstanceMapping[];
  /**
   * Shards that were on their way from one instance to another: `rollback` (default) leaves them with
   * the one that gives them away, which has their data; `refuse` names them.
   */
  readonly moving?: "rollback" | "refuse";
  /**
   * Shards that are initializing and come from nobody (a placement that was just made): `refuse`
   * (default) names them, `available` calls them available.
   */
  readonly unsourced?: "refuse" | "available";
};

/** A rewritten placement. */
export type MappedPlacement = {
  readonly bytes: Uint8Array;
  readonly placement: PlacementDescription;
  /** Ids, as in the backup, of instances that only had shards on their way to them, and are gone. */
  readonly removed: readonly string[];
  /** What somebody should know before it is written, in words. */
  readonly notes: readonly string[];
};

/** The placement for other nodes; throws `refused` with the reason where there can be none. */
export function mapPlacement(bytes: Uint8Array, options: PlacementMapOptions): MappedPlacement {
  const before = parsePlacement(bytes);
  assertSoundPlacement(before, "The backup's placement is not sound");
  const notes: string[] = [];
  const { settled, removed } = settleShards(before, options, notes);
  const after = renameInstances(settled, options.instances, removed);
  assertSoundPlacement(after, "The new placement would not be sound");
  checkGroups(settled, after, notes);
  return { bytes: encodePlacement(after), placement: describePlacement(after), removed, notes };
}

/**
 * The placement where some instances come up with empty disks: each of their shards becomes
 * initializing without a source, so that M3 fetches it from the other owners (its `peers`
 * bootstrapper). Ids are those of the given placement, after `mapPlacement`. Refused where a shard
 * would have no available owner left: nobody could give its data.
 */
export function initializeFromPeers(
  bytes: Uint8Array,
  options: { readonly missing: readonly string[] },
): MappedPlacement {
  const placement = parsePlacement(bytes);
  const missing = new Set(options.missing);
  const instances = instancesOf(placement);
  mustBeKnown(options.missing, instances);
  const fetched: number[] = [];
  for (const instance of instances) {
    if (!missing.has(instance.id)) continue;
    for (const shard of instance.shards) {
      shard.state = ShardState.INITIALIZING;
      shard.sourceId = "";
      fetched.push(shard.id);
    }
  }
  const available = new Set(
    instances.flatMap(({ shards }) =>
      shards.filter(({ state }) => state === ShardState.AVAILABLE).map(({ id }) => id),
    ),
  );
  const lost = fetched.filter((id) => !available.has(id));
  if (lost.length > 0) {
    const [verb, whose] = lost.length === 1 ? ["has", "its"] : ["have", "their"];
    throw new AppError("refused", `${capital(showShards(lost))} ${verb} no other owner.`, {
      guidance: `Restore at least one of ${whose} owners from the backup, or choose an older backup.`,
      context: { missing: options.missing.join(", ") },
    });
  }
  assertSoundPlacement(placement, "The new placement would not be sound");
  const notes = [...missing].map((id) => `${id} fetches its shards from the other owners`);
  const described = describePlacement(placement);
  return { bytes: encodePlacement(placement), placement: described, removed: [], notes };
}

/** The same placement with other names: the one thing that staged placements need as well. */
export function renameInstances(
  placement: Placement,
  mappings: readonly InstanceMapping[],
  removed: readonly string[] = [],
): Placement {
  const instances = instancesOf(placement);
  const wanted = mappings.filter(({ from }) => !removed.includes(from));
  mustBeKnown(
    wanted.map(({ from }) => from),
    instances,
  );
  const targets = new Map(wanted.map(({ from, to }) => [from, to]));
  if (targets.size !== wanted.length) {
    throw new AppError("usage", "An instance of the backup is mapped twice.", {
      guidance: `Map each of ${mappings.map(({ from }) => from).join(", ")} once.`,
    });
  }
  const nameOf = (id: string): string => targets.get(id)?.id ?? id;
  const renamed = instances.map((instance) => renamedInstance(instance, targets, nameOf));
  mustDiffer(renamed, "id");
  mustDiffer(renamed, "endpoint");
  const result = clone(PlacementSchema, placement);
  result.instances = renamed.map((value) => create(InstanceEntrySchema, { key: value.id, value }));
  return result;
}

function renamedInstance(
  instance: Instance,
  targets: ReadonlyMap<string, InstanceMapping["to"]>,
  nameOf: (id: string) => string,
): Instance {
  const renamed = clone(InstanceSchema, instance);
  for (const shard of renamed.shards) {
    if (shard.sourceId !== "") shard.sourceId = nameOf(shard.sourceId);
  }
  const to = targets.get(instance.id);
  if (to === undefined) return renamed;
  renamed.id = to.id;
  renamed.endpoint = to.endpoint ?? renamed.endpoint;
  renamed.hostname = to.hostname ?? renamed.hostname;
  renamed.port = to.port ?? renamed.port;
  renamed.isolationGroup = to.isolationGroup ?? renamed.isolationGroup;
  renamed.zone = to.zone ?? renamed.zone;
  return renamed;
}

/** Every shard with its one owner again; the instances that are left without any are removed. */
function settleShards(
  before: Placement,
  options: PlacementMapOptions,
  notes: string[],
): { readonly settled: Placement; readonly removed: readonly string[] } {
  const settled = clone(PlacementSchema, before);
  if (!settled.isSharded) return { settled, removed: [] };
  const moving: number[] = [];
  const unsourced: number[] = [];
  for (const instance of instancesOf(settled)) {
    instance.shards = instance.shards.flatMap((shard) => {
      if (shard.state === ShardState.AVAILABLE) return [shard];
      if (shard.state === ShardState.LEAVING) return [available(shard)];
      (shard.sourceId === "" ? unsourced : moving).push(shard.id);
      return shard.sourceId === "" ? [available(shard)] : [];
    });
  }
  if (moving.length > 0) {
    mayGoOn(options.moving === "refuse", `${showShards(moving)} moved between instances`);
    notes.push(`${showShards(moving)}: moving at the time of the backup, back to the source`);
  }
  if (unsourced.length > 0) {
    const what = `${showShards(unsourced)} initialized and came from no other instance`;
    mayGoOn(options.unsourced !== "available", what);
    notes.push(`${showShards(unsourced)}: initializing at the time of the backup, now available`);
  }
  const isEmpty = ({ shards }: Instance): boolean => shards.length === 0;
  const removed = instancesOf(settled)
    .filter(isEmpty)
    .map(({ id }) => id);
  settled.instances = settled.instances.filter(({ key }) => !removed.includes(key));
  notes.push(...removed.map((id) => `instance ${id} had no shard of its own yet, and is left out`));
  return { settled, removed };
}

/** Without source and times of the move; what else the shard holds stays. */
function available(shard: Shard): Shard {
  shard.state = ShardState.AVAILABLE;
  shard.sourceId = "";
  shard.cutoverNanos = 0n;
  shard.cutoffNanos = 0n;
  return shard;
}

function mayGoOn(isRefused: boolean, what: string): void {
  if (!isRefused) return;
  throw new AppError("refused", `At the time of the backup ${what}.`, {
    guidance:
      "Take a backup when M3's placement shows all shards as available, or allow that they are settled.",
  });
}

function checkGroups(before: Placement, after: Placement, notes: string[]): void {
  const shared = listSharedGroups(after);
  if (shared.length === 0) return;
  if (listSharedGroups(before).length === 0) {
    throw new AppError("refused", `The new placement loses its spread: ${shared.join("; ")}.`, {
      guidance: "Map the instances so that the owners of each shard are in different groups.",
    });
  }
  notes.push(...shared);
}

function mustBeKnown(ids: readonly string[], instances: readonly Instance[]): void {
  const known = new Set(instances.map(({ id }) => id));
  const unknown = ids.filter((id) => !known.has(id));
  if (unknown.length === 0) return;
  throw new AppError("refused", `The placement has no instance ${unknown.join(", ")}.`, {
    guidance: `Its instances are ${[...known].toSorted().join(", ")}.`,
  });
}

function mustDiffer(instances: readonly Instance[], field: "id" | "endpoint"): void {
  const seen = new Set<string>();
  for (const instance of instances) {
    const value = instance[field];
    if (seen.has(value)) {
      throw new AppError("refused", `Two instances would have the ${field} "${value}".`, {
        guidance: "Map every instance of the backup whose name or address is used by another one.",
      });
    }
    seen.add(value);
  }
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
