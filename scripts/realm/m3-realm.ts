/**
 * A real M3 cluster with an etcd on this machine, in one folder: `realm.json` says what it is made of,
 * so that a later command or test finds the same cluster and drives it on. Nodes are counted from 1,
 * as in their host ids. A realm made by a test ends with the test; one made by the command lasts.
 *
 * @example
 * const realm = await M3Realm.create({ folder, settings: { blockSeconds: 30 } });
 * if ("missing" in realm) return;
 * await using _ = realm;
 * await realm.up();
 * await realm.killNode(2);
 */
import * as fs from "node:fs";
import { join, resolve } from "node:path";
import { startEtcd, getEtcdProcess } from "../real/etcd.ts";
import type { EtcdVersion } from "../real/etcd.ts";
import { installM3 } from "../real/m3.ts";
import type { M3Programs } from "../real/m3.ts";
import type { Missing } from "../real/missing.ts";
import { endServer, freePorts, getServer, residentBytes } from "../real/server-process.ts";
import { startServer, until } from "../real/server-process.ts";
import { readM3Files } from "./m3-files.ts";
import type { M3Files } from "./m3-files.ts";
import { getHealth, hasAnswer, post } from "./m3-http.ts";
import { completeSettings, nodeConfig, PORTS_PER_NODE, portsOf } from "./m3-settings.ts";
import type { M3Ports, M3Settings } from "./m3-settings.ts";

const STATE_FILE = "realm.json";
const UP_MS_MAX = 180_000;
const FILES_POLL_MS = 500;
const STOP_MS_MAX = 30_000;

/** What to make. */
export type M3RealmOptions = {
  /** Everything lies below it; must be empty or absent. */
  readonly folder: string;
  readonly settings?: Partial<M3Settings>;
  /** Ports in a row from here: two of etcd, then eight of each node. Free ones unless given. */
  readonly portBase?: number;
  /** An etcd that somebody else runs; otherwise the realm has its own. */
  readonly etcdEndpoint?: string;
  readonly etcdVersion?: EtcdVersion;
  /** Goes on when this process ends. */
  readonly isLasting?: boolean;
};

/** One node of a realm. */
export type M3Node = {
  /** From 1. */
  readonly number: number;
  readonly hostId: string;
  readonly ports: M3Ports;
  readonly folder: string;
  /** M3's `filesystem.filePathPrefix`: what is to be backed up. */
  readonly dataFolder: string;
  readonly configFile: string;
  readonly logFile: string;
};

type State = {
  readonly kind: "m3";
  readonly settings: M3Settings;
  readonly nodePorts: readonly M3Ports[];
  readonly etcd: {
    readonly endpoint: string;
    readonly isOwn: boolean;
    readonly clientPort: number;
    readonly peerPort: number;
    readonly version?: EtcdVersion;
  };
  readonly programs: M3Programs;
  readonly isLasting: boolean;
};

/** How a node does. */
export type M3NodeStatus = {
  readonly node: M3Node;
  /** Undefined if it does not run. */
  readonly pid: number | undefined;
  readonly residentBytes: number;
  readonly isBootstrapped: boolean;
  readonly files: M3Files;
};

/** A cluster and what can be done to it. */
export class M3Realm implements AsyncDisposable {
  readonly folder: string;
  readonly settings: M3Settings;
  readonly nodes: readonly M3Node[];
  readonly #state: State;

  private constructor(folder: string, state: State) {
    this.folder = folder;
    this.#state = state;
    this.settings = state.settings;
    this.nodes = state.nodePorts.map((ports, index) => nodeOf(folder, state, ports, index));
  }

  /** Makes the folders and the configuration files, builds M3 if need be; starts nothing. */
  static async create(options: M3RealmOptions): Promise<M3Realm | Missing> {
    const settings = completeSettings(options.settings ?? {});
    const programs = await installM3();
    if ("missing" in programs) return programs;
    const folder = resolve(options.folder);
    fs.mkdirSync(folder, { recursive: true });
    if (fs.readdirSync(folder).length > 0) throw new Error(`${folder} is not empty`);
    const count = 2 + settings.nodeCount * PORTS_PER_NODE;
    const [clientPort = 0, peerPort = 0, ...rest] =
      options.portBase === undefined
        ? freePorts(count)
        : Array.from({ length: count }, (_, index) => (options.portBase ?? 0) + index);
    const { etcdVersion: version, etcdEndpoint } = options;
    const endpoint = etcdEndpoint ?? `http://127.0.0.1:${clientPort}`;
    const isOwn = etcdEndpoint === undefined;
    const state: State = {
      kind: "m3",
      settings,
      nodePorts: settings.hostIds.map((_, index) =>
        portsOf(rest.slice(index * PORTS_PER_NODE, (index + 1) * PORTS_PER_NODE)),
      ),
      etcd: {
        endpoint,
        isOwn,
        clientPort,
        peerPort,
        ...(version === undefined ? {} : { version }),
      },
      programs,
      isLasting: options.isLasting ?? false,
    };
    fs.writeFileSync(join(folder, STATE_FILE), JSON.stringify(state, undefined, 2));
    return new M3Realm(folder, state);
  }

  /** The realm that lies in a folder. */
  static open(folder: string): M3Realm {
    const path = join(resolve(folder), STATE_FILE);
    if (!fs.existsSync(path)) throw new Error(`there is no realm in ${resolve(folder)}`);
    return new M3Realm(resolve(folder), JSON.parse(fs.readFileSync(path, "utf8")) as State);
  }

  /** `http://127.0.0.1:2379`. */
  get etcdEndpoint(): string {
    return this.#state.etcd.endpoint;
  }

  /** How much of what a node has acknowledged may be in its memory alone. */
  get commitLogFlushIntervalMs(): number {
    return this.settings.commitLogFlushIntervalMs;
  }

  /** M3's programs: the server, and tools that read what it wrote. */
  get programs(): M3Programs {
    return this.#state.programs;
  }

  node(number: number): M3Node {
    const node = this.nodes[number - 1];
    if (node === undefined)
      throw new Error(`there is no node ${number}, only 1 to ${this.nodes.length}`);
    return node;
  }

  /** A fresh cluster, ready for writes: etcd, nodes, placement, namespace. */
  async up(): Promise<void> {
    await this.startEtcd();
    await this.startAll();
    await this.createPlacement();
    await this.createNamespace();
    await this.untilBootstrapped();
    await this.markNamespaceReady();
  }

  /** Starts etcd if it is the realm's own and does not run. */
  async startEtcd(): Promise<void> {
    const { isOwn, clientPort, peerPort, version } = this.#state.etcd;
    if (!isOwn || getEtcdProcess(this.#etcdFolder) !== undefined) return;
    const etcd = await startEtcd({
      directory: this.#etcdFolder,
      clientPort,
      peerPort,
      isLasting: this.#state.isLasting,
      ...(version === undefined ? {} : { version }),
    });
    if ("missing" in etcd) throw new Error(`missing: ${etcd.missing}`);
  }

  /** Ends etcd, if it is the realm's own. */
  async stopEtcd(how: "stop" | "kill" = "stop"): Promise<void> {
    const etcd = getEtcdProcess(this.#etcdFolder);
    const signal = how === "kill" ? "SIGKILL" : "SIGTERM";
    if (etcd !== undefined) await endServer(etcd, { signal });
  }

  /** Starts a node if it does not run; waits for nothing. */
  startNode(number: number): void {
    const node = this.node(number);
    if (this.#processOf(node) !== undefined) return;
    fs.mkdirSync(node.dataFolder, { recursive: true });
    fs.mkdirSync(join(node.folder, "kv"), { recursive: true });
    const { settings } = this;
    const { hostId, ports, folder } = node;
    const config = nodeConfig({ settings, hostId, ports, folder, etcdEndpoint: this.etcdEndpoint });
    fs.writeFileSync(node.configFile, config);
    startServer({
      argv: [this.#state.programs.m3dbnode, "-f", node.configFile],
      logFile: node.logFile,
      processFile: processFile(node),
      environment: { GOMEMLIMIT: `${settings.goMemoryMegabytes}MiB` },
      isLasting: this.#state.isLasting,
    });
  }

  /** Asks a node to end, as an operator does, and waits until it is gone. */
  async stopNode(number: number): Promise<void> {
    await this.#end(this.node(number), "SIGINT");
  }

  /** Ends a node at once, with SIGKILL, and waits until it is gone. */
  async killNode(number: number): Promise<void> {
    await this.#end(this.node(number), "SIGKILL");
  }

  /** Removes all data of a node that does not run; its log stays. */
  wipeNode(number: number): void {
    const node = this.node(number);
    if (this.#processOf(node) !== undefined) throw new Error(`node ${number} still runs`);
    fs.rmSync(node.dataFolder, { recursive: true, force: true });
    fs.rmSync(join(node.folder, "kv"), { recursive: true, force: true });
    fs.mkdirSync(node.dataFolder, { recursive: true });
  }

  /** Starts all nodes and waits until each one's coordinator answers, which needs no placement. */
  async startAll(): Promise<void> {
    for (const { number } of this.nodes) this.startNode(number);
    for (const node of this.nodes) {
      await this.#until(`the coordinator of node ${node.number} answers`, node, async () =>
        hasAnswer(`http://127.0.0.1:${node.ports.coordinator}/health`),
      );
    }
  }

  async stopAll(): Promise<void> {
    await Promise.all(this.nodes.map(async ({ number }) => await this.stopNode(number)));
  }

  async killAll(): Promise<void> {
    await Promise.all(this.nodes.map(async ({ number }) => await this.killNode(number)));
  }

  /** Names the nodes and gives them shards; each in an isolation group of its own. */
  async createPlacement(): Promise<void> {
    await this.#askCoordinator("/api/v1/services/m3db/placement/init", {
      num_shards: this.settings.shardCount,
      replication_factor: this.settings.replicaCount,
      instances: this.nodes.map(({ number, hostId, ports }) => ({
        id: hostId,
        isolation_group: `group${number}`,
        zone: this.settings.zone,
        weight: 100,
        endpoint: `127.0.0.1:${ports.node}`,
        hostname: "127.0.0.1",
        port: ports.node,
      })),
    });
  }

  /** Makes the namespace of the settings, or another one like it. */
  async createNamespace(name: string = this.settings.namespace): Promise<void> {
    const { blockSeconds, retentionSeconds, bufferPastSeconds, bufferFutureSeconds } =
      this.settings;
    await this.#askCoordinator("/api/v1/services/m3db/namespace", {
      name,
      options: {
        bootstrapEnabled: true,
        flushEnabled: true,
        writesToCommitLog: true,
        cleanupEnabled: true,
        snapshotEnabled: true,
        repairEnabled: false,
        coldWritesEnabled: true,
        retentionOptions: {
          retentionPeriodDuration: `${retentionSeconds}s`,
          blockSizeDuration: `${blockSeconds}s`,
          bufferFutureDuration: `${bufferFutureSeconds}s`,
          bufferPastDuration: `${bufferPastSeconds}s`,
          blockDataExpiry: true,
          blockDataExpiryAfterNotAccessPeriodDuration: "5m",
        },
        indexOptions: { enabled: true, blockSizeDuration: `${blockSeconds}s` },
        aggregationOptions: { aggregations: [{ aggregated: false }] },
      },
    });
  }

  /** Waits until a node (all, unless given) has read its data and serves it. */
  async untilBootstrapped(number?: number): Promise<void> {
    for (const node of number === undefined ? this.nodes : [this.node(number)]) {
      await this.#until(`node ${node.number} is bootstrapped`, node, async () => {
        return (await getHealth(node.ports.nodeHttp))?.bootstrapped === true;
      });
    }
  }

  /** Lets the coordinator use a namespace; it refuses until all shards are there. */
  async markNamespaceReady(name: string = this.settings.namespace): Promise<void> {
    await this.#askCoordinator("/api/v1/services/m3db/namespace/ready", { name });
  }

  async status(): Promise<readonly M3NodeStatus[]> {
    return await Promise.all(
      this.nodes.map(async (node) => {
        const server = this.#processOf(node);
        const health = server === undefined ? undefined : await getHealth(node.ports.nodeHttp);
        return {
          node,
          pid: server?.pid,
          residentBytes: server === undefined ? 0 : residentBytes(server),
          isBootstrapped: health?.bootstrapped ?? false,
          files: readM3Files(node.dataFolder),
        };
      }),
    );
  }

  /** Whether the realm's own etcd runs. */
  isEtcdUp(): boolean {
    return getEtcdProcess(this.#etcdFolder) !== undefined;
  }

  /** What a node has on disk now. */
  files(number: number): M3Files {
    return readM3Files(this.node(number).dataFolder);
  }

  /** Waits until the files of a node are as wanted. */
  async untilFiles(
    number: number,
    what: string,
    isTrue: (files: M3Files) => boolean,
    timeoutMs = UP_MS_MAX,
  ): Promise<void> {
    const isReached = () => isTrue(this.files(number));
    await until(`node ${number}: ${what}`, timeoutMs, isReached, FILES_POLL_MS);
  }

  /** What a node has logged. */
  log(number: number): string {
    return fs.readFileSync(this.node(number).logFile, "utf8");
  }

  /** Ends all processes at once and removes the folder. */
  async down(): Promise<void> {
    await this[Symbol.asyncDispose]();
    fs.rmSync(this.folder, { recursive: true, force: true });
  }

  /** Ends all processes at once; the folder stays. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.killAll();
    await this.stopEtcd("kill");
  }

  get #etcdFolder(): string {
    return join(this.folder, "etcd");
  }

  #processOf(node: M3Node) {
    return getServer(processFile(node));
  }

  async #end(node: M3Node, signal: "SIGINT" | "SIGKILL"): Promise<void> {
    const server = this.#processOf(node);
    if (server !== undefined) await endServer(server, { signal, patienceMs: STOP_MS_MAX });
  }

  async #until(what: string, node: M3Node, isTrue: () => Promise<boolean>): Promise<void> {
    await until(what, UP_MS_MAX, async () => {
      if (this.#processOf(node) === undefined) {
        const log = this.log(node.number).slice(-2_000);
        throw new Error(`node ${node.number} has ended, waiting for: ${what}\n${log}`);
      }
      return await isTrue();
    });
  }

  /** By any coordinator that answers; for some time a fresh one refuses what it will accept. */
  async #askCoordinator(path: string, body: unknown): Promise<void> {
    const node = this.nodes.find((one) => this.#processOf(one) !== undefined);
    if (node === undefined) throw new Error("no node runs");
    let refusal = "";
    await until(`the coordinator accepts ${path}`, UP_MS_MAX, async () => {
      try {
        await post(node.ports.coordinator, path, body);
        return true;
      } catch (thrown) {
        const now = thrown instanceof Error ? thrown.message : String(thrown);
        // An earlier try was done although its answer did not come.
        if (refusal !== "" && /: 409 /.test(now)) return true;
        if (/: 4\d\d /.test(now)) throw thrown;
        refusal = now;
        return false;
      }
    }).catch((thrown: unknown) => {
      throw new Error(`${path} is refused: ${refusal}`, { cause: thrown });
    });
  }
}

function nodeOf(folder: string, state: State, ports: M3Ports, index: number): M3Node {
  const own = join(folder, `node${index + 1}`);
  return {
    number: index + 1,
    hostId: state.settings.hostIds[index] ?? "",
    ports,
    folder: own,
    dataFolder: join(own, "data"),
    configFile: join(own, "m3dbnode.yml"),
    logFile: join(own, "m3dbnode.log"),
  };
}

function processFile(node: M3Node): string {
  return join(node.folder, "process.json");
}
