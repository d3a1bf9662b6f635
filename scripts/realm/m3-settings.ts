/**
 * What a realm is made of: the settings of an M3 cluster with their defaults, the ports of each node,
 * and the configuration file of a node. Small pools keep a node near 300 MB instead of a gigabyte.
 */
import { join } from "node:path";

/** Settings of a cluster; all of it lies in `realm.json`. */
export type M3Settings = {
  readonly nodeCount: number;
  readonly replicaCount: number;
  readonly shardCount: number;
  readonly namespace: string;
  readonly blockSeconds: number;
  readonly retentionSeconds: number;
  /** A block is flushed this long after its end; what is written later is a cold write. */
  readonly bufferPastSeconds: number;
  readonly bufferFutureSeconds: number;
  /** What a killed process may lose of what it has acknowledged, with the next one. */
  readonly commitLogFlushIntervalMs: number;
  readonly commitLogFlushBytesMax: number;
  /** Between two looks for work; a snapshot comes every five seconds more than this. */
  readonly tickSeconds: number;
  readonly writeConsistency: "one" | "majority" | "all";
  readonly readConsistency: "one" | "unstrict_majority" | "majority" | "all";
  /** Of etcd keys: `_sd.placement/{environment}/m3db`. */
  readonly environment: string;
  readonly zone: string;
  /** Host ids in the order of the nodes; `m3db_node1`, … unless given. */
  readonly hostIds: readonly string[];
  readonly goMemoryMegabytes: number;
};

/** Ports of one node, all on loopback. */
export type M3Ports = {
  /** Between nodes; the one that the placement names. */
  readonly node: number;
  readonly cluster: number;
  /** JSON: this node alone. */
  readonly nodeHttp: number;
  /** JSON: the whole cluster, at the configured consistency. */
  readonly clusterHttp: number;
  readonly debug: number;
  readonly metrics: number;
  readonly coordinator: number;
  readonly coordinatorMetrics: number;
};

const DEFAULTS: Omit<M3Settings, "hostIds"> = {
  nodeCount: 3,
  replicaCount: 3,
  shardCount: 4,
  namespace: "default",
  blockSeconds: 60,
  retentionSeconds: 3_600,
  bufferPastSeconds: 5,
  bufferFutureSeconds: 5,
  commitLogFlushIntervalMs: 1_000,
  commitLogFlushBytesMax: 524_288,
  tickSeconds: 1,
  writeConsistency: "majority",
  readConsistency: "unstrict_majority",
  environment: "default_env",
  zone: "embedded",
  goMemoryMegabytes: 300,
};

/** Ports that one node takes, in the order of a fixed range. */
export const PORTS_PER_NODE = 8;

/** Settings with defaults for what is not given; throws for what M3 would refuse. */
export function completeSettings(given: Partial<M3Settings>): M3Settings {
  const nodeCount = given.nodeCount ?? given.hostIds?.length ?? DEFAULTS.nodeCount;
  const hostIds = Array.from({ length: nodeCount }, (_, index) => `m3db_node${index + 1}`);
  const replicaCount = given.replicaCount ?? Math.min(nodeCount, DEFAULTS.replicaCount);
  const settings = { ...DEFAULTS, hostIds, ...given, nodeCount, replicaCount };
  const { blockSeconds, bufferPastSeconds, bufferFutureSeconds, retentionSeconds } = settings;
  const demands: readonly (readonly [boolean, string])[] = [
    [settings.hostIds.length === nodeCount, "there must be one host id for each node"],
    [new Set(settings.hostIds).size === nodeCount, "host ids must differ"],
    [replicaCount >= 1 && replicaCount <= nodeCount, "there are fewer nodes than replicas"],
    [settings.shardCount >= 1, "at least one shard is needed"],
    [bufferPastSeconds < blockSeconds, "bufferPast must be shorter than a block"],
    [bufferFutureSeconds < blockSeconds, "bufferFuture must be shorter than a block"],
    [retentionSeconds >= blockSeconds, "retention must be at least one block"],
  ];
  const wrong = demands.filter(([isTrue]) => !isTrue).map(([, text]) => text);
  if (wrong.length > 0) throw new Error(`settings of the cluster: ${wrong.join("; ")}`);
  return settings;
}

/** The ports of a node out of its range. */
export function portsOf(ports: readonly number[]): M3Ports {
  const [node, cluster, nodeHttp, clusterHttp, debug, metrics, ...rest] = ports;
  const [coordinator, coordinatorMetrics] = rest;
  return {
    node: node ?? 0,
    cluster: cluster ?? 0,
    nodeHttp: nodeHttp ?? 0,
    clusterHttp: clusterHttp ?? 0,
    debug: debug ?? 0,
    metrics: metrics ?? 0,
    coordinator: coordinator ?? 0,
    coordinatorMetrics: coordinatorMetrics ?? 0,
  };
}

/** The configuration file of a node whose folder is `folder`: data in `data`, a cache of keys in `kv`. */
export function nodeConfig(options: {
  readonly settings: M3Settings;
  readonly hostId: string;
  readonly ports: M3Ports;
  readonly folder: string;
  readonly etcdEndpoint: string;
}): string {
  const { settings, hostId, ports, folder, etcdEndpoint } = options;
  const at = (port: number) => `"127.0.0.1:${port}"`;
  return `coordinator:
  listenAddress: ${at(ports.coordinator)}
  logging: {level: info}
  metrics:
    scope: {prefix: coordinator}
    prometheus: {handlerPath: /metrics, listenAddress: ${at(ports.coordinatorMetrics)}}
    sanitization: prometheus
    samplingRate: 1.0
    extended: none
  tagOptions: {idScheme: quoted}
db:
  logging: {level: info}
  metrics:
    prometheus: {handlerPath: /metrics, listenAddress: ${at(ports.metrics)}}
    sanitization: prometheus
    samplingRate: 1.0
    extended: none
  listenAddress: ${at(ports.node)}
  clusterListenAddress: ${at(ports.cluster)}
  httpNodeListenAddress: ${at(ports.nodeHttp)}
  httpClusterListenAddress: ${at(ports.clusterHttp)}
  debugListenAddress: ${at(ports.debug)}
  hostID: {resolver: config, value: "${hostId}"}
  client:
    writeConsistencyLevel: ${settings.writeConsistency}
    readConsistencyLevel: ${settings.readConsistency}
  gcPercentage: 100
  tick: {minimumInterval: ${settings.tickSeconds}s, seriesBatchSize: 512, perSeriesSleepDuration: 100us}
  filesystem: {filePathPrefix: "${join(folder, "data")}"}
  commitlog:
    flushMaxBytes: ${settings.commitLogFlushBytesMax}
    flushEvery: ${settings.commitLogFlushIntervalMs}ms
    queue: {calculationType: fixed, size: 20480}
${SMALL_POOLS}
  discovery:
    config:
      service:
        env: "${settings.environment}"
        zone: "${settings.zone}"
        service: m3db
        cacheDir: "${join(folder, "kv")}"
        etcdClusters:
          - zone: "${settings.zone}"
            endpoints: ["${etcdEndpoint.replace(/^http:\/\//, "")}"]
`;
}

const SMALL_POOLS = `  pooling:
    type: simple
    blockAllocSize: 16
    bytesPool:
      buckets:
        - {capacity: 16, size: 1024}
        - {capacity: 32, size: 1024}
        - {capacity: 64, size: 1024}
        - {capacity: 128, size: 512}
        - {capacity: 256, size: 512}
        - {capacity: 1440, size: 128}
        - {capacity: 4096, size: 64}
    checkedBytesWrapperPool: {size: 1024}
    closersPool: {size: 1024}
    contextPool: {size: 1024}
    seriesPool: {size: 256}
    blockPool: {size: 256}
    encoderPool: {size: 256}
    iteratorPool: {size: 256}
    segmentReaderPool: {size: 256}
    identifierPool: {size: 512}
    fetchBlockMetadataResultsPool: {size: 128, capacity: 32}
    fetchBlocksMetadataResultsPool: {size: 8, capacity: 1024}
    replicaMetadataSlicePool: {size: 256, capacity: 3}
    blockMetadataPool: {size: 256}
    blockMetadataSlicePool: {size: 256, capacity: 32}
    blocksMetadataPool: {size: 256}
    blocksMetadataSlicePool: {size: 8, capacity: 1024}
    tagsPool: {size: 256, capacity: 16, maxCapacity: 64}
    tagIteratorPool: {size: 256}
    indexResultsPool: {size: 32}
    tagEncoderPool: {size: 128}
    tagDecoderPool: {size: 128}
    bufferBucketPool: {size: 256}
    bufferBucketVersionsPool: {size: 256}
    retrieveRequestPool: {size: 256}
    postingsListPool: {size: 8}`;
