/**
 * The keys of the original Astacus that have no equal here, each with the reason. The converter
 * quotes them, and docs/from-the-original.md has the same list with the keys that live on.
 */

/** By dotted path; `*` stands for one key or index. A path speaks for all that is below it. */
export const GONE_KEYS: Readonly<Record<string, string>> = {
  "coordinator.restore_attempts":
    "the original ignored it too; a restore can be run again at any time",
  "coordinator.default_lock_ttl": "nodes are leased: see `limits.leaseTime`",
  "coordinator.list_ttl": "a listing is one query of the local catalog, so nothing is held back",
  "coordinator.object_storage_cache": "the catalog in `data` takes its place",
  "coordinator.poll": "nodes report as they go; `backup.nodeTimeout` says when one counts as gone",
  "coordinator.statsd": "metrics are offered at /metrics, in the form of Prometheus",
  "node.root_link": "captures are placed and cleaned up on their own",
  "node.delta_root_link": "there are no deltas: each backup is complete, and costs what changed",
  "node.db_path": "the catalog lies in `data`, and can be lost",
  "node.parallel.uploads": "sites have `concurrency` of their own",
  "node.statsd": "metrics are offered at /metrics, in the form of Prometheus",
  statsd: "metrics are offered at /metrics, in the form of Prometheus",
  sentry_dsn: "errors go to the log; alert on the metrics",
  "uvicorn.http": "there is one HTTP server",
  "uvicorn.reload": "it was there for work on the original itself",
  "object_storage.temporary_directory": "nothing passes through temporary copies",
  "object_storage.compression": "chunks are compressed with zstd: see `backup.compression.level`",
  "object_storage.encryption_key_id": "old backups keep their keys; keep the old file to read them",
  "object_storage.encryption_keys": "old backups keep their keys; keep the old file to read them",
  "object_storage.storages.*.segment_size": "objects are small, and sent in one piece",
  "object_storage.storages.*.min_multipart_chunk_size": "objects are sent in one piece",
  "object_storage.storages.*.encrypted": "ask for encryption at rest in the bucket's own settings",
  "object_storage.storages.*.use_dualstack_endpoint": "name the endpoint in `endpoint`",
  "object_storage.storages.*.is_verify_tls":
    "certificates are always checked; `caFile` adds your own",
  "object_storage.storages.*.connect_timeout": "`requestTimeout` covers the whole request",
  "coordinator.plugin_config.placement_nodes": "the placement itself says which instance is where",
  "coordinator.plugin_config.nodes": "the ring itself says which node is where",
  "coordinator.plugin_config.datacenter": "the ring itself says it",
  "coordinator.plugin_config.restore_start_timeout": "the product bounds its waits itself",
};

/** The reason for a key, by the longest path that speaks for it; undefined if there is none. */
export function whyGone(path: readonly string[]): string | undefined {
  for (let length = path.length; length > 0; length -= 1) {
    const known = Object.entries(GONE_KEYS).find(([pattern]) => {
      const parts = pattern.split(".");
      return (
        parts.length === length && parts.every((part, at) => part === "*" || part === path[at])
      );
    });
    if (known !== undefined) return known[1];
  }
  return undefined;
}
