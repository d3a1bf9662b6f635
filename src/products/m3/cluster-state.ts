/**
 * The state of an M3 cluster in etcd: every key of one environment at one revision, as plain JSON for
 * the manifest, with the placement and the namespaces described beside their bytes. What M3 makes anew
 * by itself is left out (cluster-state-keys.ts).
 */
import { fromBinary } from "@bufbuild/protobuf";
import { z } from "zod";
import { AppError } from "../../base/error.ts";
import { isCompacted } from "../etcd/etcd-client.ts";
import type { EtcdClient } from "../etcd/etcd-client.ts";
import { decodeText, parsePrefix, showKey } from "../etcd/etcd-messages.ts";
import type { EtcdEntry } from "../etcd/etcd-messages.ts";
import {
  findForeignKeys,
  listStatePrefixes,
  namespacesKey,
  placementKey,
  PLACEMENTS_PREFIX,
} from "./cluster-state-keys.ts";
import type { StateScope } from "./cluster-state-keys.ts";
import { describePlacement, parsePlacement } from "./placement.ts";
import type { PlacementDescription } from "./placement.ts";
import { NamespaceRegistrySchema } from "./proto/namespaces.pb.ts";

/** What a backup needs to know of one namespace. */
export type NamespaceDescription = {
  readonly name: string;
  readonly retentionMs: number;
  readonly blockSizeMs: number;
  readonly bufferPastMs: number;
  readonly bufferFutureMs: number;
  readonly writesToCommitLog: boolean;
  readonly snapshotEnabled: boolean;
  readonly coldWritesEnabled: boolean;
  readonly indexEnabled: boolean;
  readonly indexBlockSizeMs: number;
};

const stateSchema = z.strictObject({
  environment: z.string().min(1),
  service: z.string().min(1),
  zone: z.string(),
  kvNamespaces: z.array(z.string()),
  /** etcd's revision at which all keys were read. */
  revision: z.string().regex(/^\d+$/),
  keys: z.array(z.strictObject({ key: z.string().min(1), value: z.base64() })),
  /** Keys that are there and not taken, with reasons. */
  leftOut: z.array(z.strictObject({ key: z.string(), reason: z.string() })),
  placement: z.custom<PlacementDescription>((value) => typeof value === "object" && value !== null),
  namespaces: z.custom<readonly NamespaceDescription[]>((value) => Array.isArray(value)),
});

/** All keys of an environment at one revision; plain JSON. */
export type ClusterState = Readonly<z.infer<typeof stateSchema>>;

/** What to read. */
export type ReadStateOptions = StateScope & {
  readonly zone: string;
  readonly signal?: AbortSignal;
};

const READ_ATTEMPTS = 3;
const ENVIRONMENT_COUNT_SHOWN = 20;

/**
 * Reads the whole state of an environment at one revision. Without a placement or namespaces there is
 * no M3 to back up: errors of kind `not-found` that say what is there instead.
 */
export async function readClusterState(
  client: EtcdClient,
  options: ReadStateOptions,
): Promise<ClusterState> {
  const { taken, leftOut, revision } = await readStateEntries(client, options);
  const placementValue = taken.get(placementKey(options))?.value;
  const namespacesValue = taken.get(namespacesKey(options))?.value;
  if (taken.size === 0) throw await noEnvironment(client, options);
  if (placementValue === undefined) throw noPlacement(options, [...taken.keys()]);
  if (namespacesValue === undefined) throw noNamespaces(options);
  return {
    environment: options.environment,
    service: options.service,
    zone: options.zone,
    kvNamespaces: [...(options.kvNamespaces ?? [])],
    revision: revision.toString(),
    keys: [...taken].map(([key, { value }]) => ({ key, value: encode(value) })),
    leftOut: [...leftOut].map(([key, reason]) => ({ key, reason })),
    placement: describePlacement(parsePlacement(placementValue)),
    namespaces: describeNamespaces(namespacesValue),
  };
}

/** The state that a manifest holds; described again from the bytes, which alone count. */
export function parseClusterState(value: unknown): ClusterState {
  const parsed = stateSchema.safeParse(value);
  if (!parsed.success) {
    throw new AppError("damaged", "The backup's state of etcd is not as Astacus writes it.", {
      guidance: "Verify the backup, or use a version of Astacus as new as the one that made it.",
      cause: parsed.error,
    });
  }
  const state = parsed.data;
  const placement = describePlacement(parsePlacement(valueOf(state, placementKey(state))));
  const namespaces = describeNamespaces(valueOf(state, namespacesKey(state)));
  return { ...state, placement, namespaces };
}

/** True where both hold the same keys with the same values, whatever their revisions. */
export function sameClusterState(a: ClusterState, b: ClusterState): boolean {
  if (a.keys.length !== b.keys.length) return false;
  const values = new Map(a.keys.map(({ key, value }) => [key, value]));
  return b.keys.every(({ key, value }) => values.get(key) === value);
}

/** True where instances or the states of their shards differ: what was captured is judged anew. */
export function placementMoved(a: ClusterState, b: ClusterState): boolean {
  return !Bun.deepEquals(a.placement, b.placement, true);
}

/** The bytes of one key of a state; throws `damaged` if it is not in it. */
export function valueOf(state: ClusterState, key: string): Uint8Array {
  const found = state.keys.find((each) => each.key === key);
  if (found !== undefined) return new Uint8Array(Buffer.from(found.value, "base64"));
  throw new AppError("damaged", `The backup's state of etcd lacks the key ${key}.`, {
    guidance: "Verify the backup.",
  });
}

/** What M3's registry of namespaces says; `damaged` if it cannot be read. */
export function describeNamespaces(bytes: Uint8Array): NamespaceDescription[] {
  try {
    const registry = fromBinary(NamespaceRegistrySchema, bytes);
    const described = registry.namespaces.map(({ key, value }) => ({
      name: key,
      retentionMs: toMs(value?.retention?.retentionPeriodNanos),
      blockSizeMs: toMs(value?.retention?.blockSizeNanos),
      bufferPastMs: toMs(value?.retention?.bufferPastNanos),
      bufferFutureMs: toMs(value?.retention?.bufferFutureNanos),
      writesToCommitLog: value?.writesToCommitLog ?? false,
      snapshotEnabled: value?.snapshotEnabled ?? false,
      coldWritesEnabled: value?.coldWritesEnabled ?? false,
      indexEnabled: value?.index?.enabled ?? false,
      indexBlockSizeMs: toMs(value?.index?.blockSizeNanos),
    }));
    return described.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  } catch (cause) {
    throw new AppError("damaged", "M3's registry of namespaces cannot be read.", {
      guidance: "Check `environment`, and the namespaces that M3's coordinator shows.",
      cause,
    });
  }
}

/** The keys of an environment as etcd holds them now, at one revision, by key, sorted. */
export async function readStateEntries(
  client: EtcdClient,
  options: StateScope & { readonly signal?: AbortSignal },
): Promise<{
  readonly taken: ReadonlyMap<string, EtcdEntry>;
  readonly leftOut: ReadonlyMap<string, string>;
  readonly revision: bigint;
}> {
  const { entries, revision } = await readAtOneRevision(client, options);
  const byKey = new Map(entries.map((entry) => [textOfKey(entry.key), entry]));
  const leftOut = new Map(findForeignKeys([...byKey.keys()], options));
  for (const [key, { lease }] of byKey) {
    if (lease !== 0n && !leftOut.has(key)) leftOut.set(key, "ends with a lease");
  }
  const taken = [...byKey].filter(([key]) => !leftOut.has(key));
  return { taken: new Map(taken.toSorted(([a], [b]) => (a < b ? -1 : 1))), leftOut, revision };
}

async function readAtOneRevision(
  client: EtcdClient,
  options: StateScope & { readonly signal?: AbortSignal },
): Promise<{ readonly entries: readonly EtcdEntry[]; readonly revision: bigint }> {
  const signal = options.signal === undefined ? {} : { signal: options.signal };
  for (let attempt = 1; ; attempt += 1) {
    try {
      const entries: EtcdEntry[] = [];
      let revision: bigint | undefined;
      for (const prefix of listStatePrefixes(options)) {
        const at = revision === undefined ? {} : { revision };
        const range = await client.readPrefix(parsePrefix(prefix), { ...at, ...signal });
        ({ revision } = range);
        entries.push(...range.entries);
      }
      return { entries, revision: revision ?? 0n };
    } catch (thrown) {
      if (!isCompacted(thrown) || attempt >= READ_ATTEMPTS) throw thrown;
    }
  }
}

function textOfKey(key: Uint8Array): string {
  const text = decodeText(key);
  if (text !== undefined) return text;
  throw new AppError("refused", `The key ${showKey(key)} is no text, and none of M3's.`, {
    guidance: "Remove it from M3's part of etcd.",
  });
}

/** Whole milliseconds where M3's nanoseconds are; JSON has no 64-bit numbers. */
function toMs(nanos: bigint | undefined): number {
  return Number(nanos ?? 0n) / 1_000_000;
}

function encode(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64");
}

async function noEnvironment(client: EtcdClient, options: ReadStateOptions): Promise<AppError> {
  const names = (await listEnvironments(client, options.signal)).slice(0, ENVIRONMENT_COUNT_SHOWN);
  return new AppError("not-found", `etcd holds no M3 environment ${options.environment}.`, {
    guidance:
      names.length === 0
        ? "No other one can be seen either: check `endpoints`, and that M3 uses this etcd."
        : `Correct \`environment\` in the configuration; this etcd has ${names.join(", ")}.`,
    context: { environment: options.environment },
  });
}

/** Those that have a placement; none where our user may not look. */
async function listEnvironments(client: EtcdClient, signal?: AbortSignal): Promise<string[]> {
  const prefix = parsePrefix(PLACEMENTS_PREFIX);
  try {
    const range = await client.readPrefix(prefix, signal === undefined ? {} : { signal });
    const keys = range.entries.map(({ key }) => showKey(key).slice(prefix.length));
    const names = keys.map((key) => key.slice(0, Math.max(key.lastIndexOf("/"), 0)));
    return [...new Set(names)].toSorted();
  } catch (thrown) {
    if (thrown instanceof AppError && thrown.kind === "permission") return [];
    throw thrown;
  }
}

function noPlacement(scope: StateScope, keys: readonly string[]): AppError {
  const prefix = `${PLACEMENTS_PREFIX}${scope.environment}/`;
  const services = keys
    .filter((key) => key.startsWith(prefix))
    .map((key) => key.slice(prefix.length));
  const { environment, service } = scope;
  return new AppError("not-found", `Environment ${environment} has no placement ${service}.`, {
    guidance:
      services.length === 0
        ? "Make a placement with M3's coordinator first; without one there is nothing to back up."
        : `Correct \`service\` in the configuration; there are ${services.join(", ")}.`,
    context: { key: placementKey(scope) },
  });
}

function noNamespaces(scope: StateScope): AppError {
  return new AppError("not-found", `Environment ${scope.environment} has no namespaces.`, {
    guidance:
      "Make a namespace with M3's coordinator first; namespaces that stand in M3's own configuration " +
      "file are not in etcd, and cannot be backed up from there.",
    context: { key: namespacesKey(scope) },
  });
}
