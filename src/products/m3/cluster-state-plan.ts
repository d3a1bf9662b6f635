/**
 * From a backup's state of etcd to what would be written into one: keys renamed to the target's
 * environment, the placement mapped to its nodes, and each key beside what the target holds now. Pure:
 * plans are shown, kept as JSON, and written later by cluster-state-write.ts only if nothing moved.
 */
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { z } from "zod";
import { AppError } from "../../base/error.ts";
import type { EtcdClient } from "../etcd/etcd-client.ts";
import { namespacesKey, placementKey, renameKey, roleOfKey } from "./cluster-state-keys.ts";
import type { StateScope } from "./cluster-state-keys.ts";
import { readStateEntries, valueOf } from "./cluster-state.ts";
import type { ClusterState } from "./cluster-state.ts";
import { initializeFromPeers, mapPlacement } from "./placement-map.ts";
import type { MappedPlacement, PlacementMapOptions } from "./placement-map.ts";
import { mapAnyPlacement, splitEndpoint } from "./placement-staged.ts";
import type { NodeMoves } from "./placement-staged.ts";
import type { PlacementDescription } from "./placement.ts";
import { TopicSchema } from "./proto/topic.pb.ts";

const targetKeySchema = z.strictObject({
  key: z.string().min(1),
  value: z.base64(),
  modRevision: z.string().regex(/^\d+$/),
});

/** What the target environment holds now, of what a backup takes. */
export type TargetState = { readonly keys: readonly z.infer<typeof targetKeySchema>[] };

const changeSchema = z.strictObject({
  key: z.string().min(1),
  /** Base64; null where the key is to be gone. */
  value: z.base64().nullable(),
  /** What is there now; null if nothing is. */
  previous: z.base64().nullable(),
  /** Of what is there now; `0` if nothing is. The write is refused if it differs then. */
  modRevision: z.string().regex(/^\d+$/),
  /** Placement and namespaces: written last, and together. */
  last: z.boolean(),
});

/** One key that a restore writes or deletes. */
export type StateChange = Readonly<z.infer<typeof changeSchema>>;

const planSchema = z.strictObject({
  environment: z.string().min(1),
  service: z.string().min(1),
  changes: z.array(changeSchema),
  /** Keys that already hold what the backup says. */
  unchanged: z.array(z.string()),
  placement: z.custom<PlacementDescription>((value) => typeof value === "object" && value !== null),
  notes: z.array(z.string()),
});

/** What a restore would write; plain JSON. */
export type ClusterStatePlan = Readonly<z.infer<typeof planSchema>>;

/** Where the state is to go. */
export type PlanStateOptions = PlacementMapOptions & {
  readonly environment: string;
  /** As in the backup, if left out. */
  readonly service?: string;
  /** From `readTargetState`, of the same environment and service. */
  readonly target: TargetState;
  /** Ids, as in the target, of instances that come up without data; see `initializeFromPeers`. */
  readonly missing?: readonly string[];
  /** Keys of the target that the backup does not have: `delete` (default) or `keep`. */
  readonly extra?: "delete" | "keep";
};

/** Reads what the target holds; an environment that does not exist yet holds nothing. */
export async function readTargetState(
  client: EtcdClient,
  options: StateScope & { readonly signal?: AbortSignal },
): Promise<TargetState> {
  const { taken } = await readStateEntries(client, options);
  const keys = [...taken].map(([key, entry]) => ({
    key,
    value: encode(entry.value),
    modRevision: entry.modRevision.toString(),
  }));
  return { keys };
}

/** What has to be written so that the target holds the backup's state; throws where it must not be. */
export function planClusterState(state: ClusterState, options: PlanStateOptions): ClusterStatePlan {
  const to: StateScope = {
    environment: options.environment,
    service: options.service ?? state.service,
    kvNamespaces: state.kvNamespaces,
  };
  const mapped = mapDatabasePlacement(state, options);
  const notes = [...mapped.notes];
  const moves = movesOf(state, options);
  const wanted = new Map<string, string>();
  for (const { key, value } of state.keys) {
    const bytes = Buffer.from(value, "base64");
    const target = renameKey(key, state, to);
    if (wanted.has(target)) throw doubleKey(target);
    wanted.set(target, encode(rewrite(key, bytes, { state, to, mapped, moves, notes })));
  }
  const now = new Map(options.target.keys.map((each) => [each.key, each]));
  const changes: StateChange[] = [];
  const unchanged: string[] = [];
  for (const [key, value] of wanted) {
    const there = now.get(key);
    if (there?.value === value) unchanged.push(key);
    else changes.push(change(key, value, there, to));
  }
  const extra = [...now.values()].filter(({ key }) => !wanted.has(key));
  if (options.extra === "keep") unchanged.push(...extra.map(({ key }) => key));
  else changes.push(...extra.map((each) => change(each.key, null, each, to)));
  changes.sort((a, b) => Number(a.last) - Number(b.last) || (a.key < b.key ? -1 : 1));
  const { environment, service } = to;
  return { environment, service, changes, unchanged, placement: mapped.placement, notes };
}

/** A plan that was kept as JSON. */
export function parseClusterStatePlan(value: unknown): ClusterStatePlan {
  const parsed = planSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new AppError("damaged", "The plan for etcd is not as it was made.", {
    guidance: "Make the plan again.",
    cause: parsed.error,
  });
}

function mapDatabasePlacement(state: ClusterState, options: PlanStateOptions): MappedPlacement {
  const mapped = mapPlacement(valueOf(state, placementKey(state)), options);
  const missing = options.missing ?? [];
  if (missing.length === 0) return mapped;
  const filled = initializeFromPeers(mapped.bytes, { missing });
  return { ...filled, removed: mapped.removed, notes: [...mapped.notes, ...filled.notes] };
}

type RewriteContext = {
  readonly state: ClusterState;
  readonly to: StateScope;
  readonly mapped: MappedPlacement;
  readonly moves: NodeMoves;
  readonly notes: string[];
};

function rewrite(key: string, bytes: Uint8Array, context: RewriteContext): Uint8Array {
  const { state, to, mapped, moves, notes } = context;
  switch (roleOfKey(key, state)) {
    case "placement":
      return mapped.bytes;
    case "other placement":
      return mapAnyPlacement(bytes, { key, ...moves });
    case "topic":
      return renameInTopic(key, bytes, { from: state.environment, to: to.environment, notes });
    case "namespaces":
    case "value":
      return bytes;
  }
}

/** A topic names the environment of its consumers. */
function renameInTopic(
  key: string,
  bytes: Uint8Array,
  names: { readonly from: string; readonly to: string; readonly notes: string[] },
): Uint8Array {
  if (names.from === names.to) return bytes;
  try {
    const topic = fromBinary(TopicSchema, bytes);
    for (const { service } of topic.consumers) {
      if (service?.environment === names.from) service.environment = names.to;
    }
    return toBinary(TopicSchema, topic);
  } catch {
    names.notes.push(`${key} cannot be read as a topic, and is written as it was`);
    return bytes;
  }
}

/** Old hosts to new ones, where that is a function: nodes on one host may go to several. */
function movesOf(state: ClusterState, options: PlanStateOptions): NodeMoves {
  const before = new Map(state.placement.instances.map((instance) => [instance.id, instance]));
  const seen = new Map<string, Set<string>>();
  const add = (from: string, to: string): void => {
    if (from !== "") seen.set(from, (seen.get(from) ?? new Set()).add(to));
  };
  for (const { from, to } of options.instances) {
    const instance = before.get(from);
    if (instance === undefined) continue;
    const newHost = to.endpoint === undefined ? to.hostname : splitEndpoint(to.endpoint)[0];
    const [oldHost] = splitEndpoint(instance.endpoint);
    add(oldHost, newHost ?? oldHost);
    add(instance.hostname, to.hostname ?? newHost ?? instance.hostname);
  }
  const hosts = [...seen].flatMap(([from, targets]): [string, string][] => {
    const [only, ...more] = targets;
    return only === undefined || more.length > 0 ? [] : [[from, only]];
  });
  return { instances: options.instances, hosts: new Map(hosts) };
}

function change(
  key: string,
  value: string | null,
  there: TargetState["keys"][number] | undefined,
  scope: StateScope,
): StateChange {
  const last = key === placementKey(scope) || key === namespacesKey(scope);
  const previous = there?.value ?? null;
  return { key, value, previous, modRevision: there?.modRevision ?? "0", last };
}

function doubleKey(key: string): AppError {
  return new AppError("refused", `Two keys of the backup would become ${key}.`, {
    guidance: "Restore under the names that the backup has.",
  });
}

function encode(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64");
}
