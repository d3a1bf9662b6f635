/**
 * Which keys of etcd belong to one M3 environment. A key is `<kv namespace>/<environment>/<name>`, and
 * every range ends in a slash, so that `prod` never takes `prod2`. Taken is whatever lies there, but
 * what M3 makes anew by itself: leases, heartbeats, elections, flush times. The table for people is in
 * docs/products/etcd.md.
 */
import { AppError } from "../../base/error.ts";

/** One M3 environment in etcd. */
export type StateScope = {
  readonly environment: string;
  /** The database's service: the name of its placement. */
  readonly service: string;
  /** KV namespaces beside M3's usual ones, as an operator may have configured (`/rules`). */
  readonly kvNamespaces?: readonly string[];
};

/** M3's own namespaces for keys; heartbeats (`_hb`), elections (`_ld`) and `_sd.metadata` are not here. */
const KV_NAMESPACES = {
  values: "_kv",
  placements: "_sd.placement",
  aggregatorPlacements: "/placement",
  topics: "/topic",
} as const;

/** M3's key of the namespaces of the database. */
const NAMESPACES_NAME = "m3db.node.namespaces";

/** Written every few seconds by m3aggregator, and of no use to another run of it. */
const FLUSH_TIMES = /^\/?shardset\/\d+\/flush$/;

/** What a key of an environment is for. */
export type StateKeyRole = "placement" | "namespaces" | "other placement" | "topic" | "value";

/** The prefixes of an environment; each ends in `/`. */
export function listStatePrefixes(scope: StateScope): string[] {
  const { environment } = scope;
  if (!/^[^/\s](?:[^\s]*[^/\s])?$/.test(environment)) {
    throw new AppError("config", `"${environment}" is no name of an M3 environment.`, {
      guidance: "Write it as in M3's configuration, without a slash at its ends.",
    });
  }
  const namespaces = new Set([...Object.values(KV_NAMESPACES), ...(scope.kvNamespaces ?? [])]);
  return [...namespaces].map((namespace) => `${namespace}/${environment}/`).toSorted();
}

/** The key of the database's placement. */
export function placementKey(scope: StateScope): string {
  return `${KV_NAMESPACES.placements}/${scope.environment}/${scope.service}`;
}

/** The key of the database's namespaces. */
export function namespacesKey(scope: StateScope): string {
  return `${KV_NAMESPACES.values}/${scope.environment}/${NAMESPACES_NAME}`;
}

/** Where the placements of all environments lie: to say which there are. */
export const PLACEMENTS_PREFIX = `${KV_NAMESPACES.placements}/`;

/** What a key is for. */
export function roleOfKey(key: string, scope: StateScope): StateKeyRole {
  if (key === placementKey(scope)) return "placement";
  if (key === namespacesKey(scope)) return "namespaces";
  const isIn = (namespace: string): boolean => key.startsWith(`${namespace}/${scope.environment}/`);
  if (isIn(KV_NAMESPACES.placements) || isIn(KV_NAMESPACES.aggregatorPlacements)) {
    return "other placement";
  }
  return isIn(KV_NAMESPACES.topics) ? "topic" : "value";
}

/**
 * Keys that are not taken although they lie in the environment's ranges, each with the reason. An
 * environment's name may hold slashes, so `a/b` lies within the ranges of `a`: it is told by its
 * placement or its namespaces, and all of it is left out.
 */
export function findForeignKeys(
  keys: readonly string[],
  scope: StateScope,
): ReadonlyMap<string, string> {
  const prefixes = listStatePrefixes(scope);
  const restOf = (key: string): string => {
    const prefix = prefixes.find((each) => key.startsWith(each)) ?? "";
    return key.slice(prefix.length);
  };
  const inner = new Set<string>();
  for (const key of keys) {
    const rest = restOf(key);
    const slash = rest.lastIndexOf("/");
    const role = roleOfKey(key, scope);
    const marks = role === "other placement" || rest.endsWith(`/${NAMESPACES_NAME}`);
    if (slash > 0 && marks) inner.add(rest.slice(0, slash + 1));
  }
  const reasons = new Map<string, string>();
  for (const key of keys) {
    const rest = restOf(key);
    const other = [...inner].find((each) => rest.startsWith(each));
    if (other !== undefined) {
      const name = `${scope.environment}/${other.slice(0, -1)}`;
      reasons.set(key, `belongs to the environment ${name}`);
    } else if (FLUSH_TIMES.test(rest)) reasons.set(key, "flush times of m3aggregator");
  }
  return reasons;
}

/** The same key in another environment, or under another name of the service. */
export function renameKey(key: string, from: StateScope, to: StateScope): string {
  if (key === placementKey(from)) return placementKey(to);
  const prefix = listStatePrefixes(from).find((each) => key.startsWith(each));
  if (prefix === undefined) {
    throw new AppError("damaged", `The key ${key} is not of the environment ${from.environment}.`, {
      guidance: "The backup's list of keys is not as it was written; verify the backup.",
    });
  }
  const namespace = prefix.slice(0, -`/${from.environment}/`.length);
  return `${namespace}/${to.environment}/${key.slice(prefix.length)}`;
}
