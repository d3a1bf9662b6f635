/**
 * A whole cluster in one process: real members over simulated doors, one store that survives all of
 * them, virtual time, one seed. It knows how to start operations, to let things go wrong meanwhile,
 * to heal everything, and to look with fresh eyes at what the store holds.
 */
import type { RetentionPolicy } from "../../src/cas/clean/retention.ts";
import { toAppError } from "../../src/base/error.ts";
import { readHeader } from "../../src/cas/log/header-object.ts";
import { Repository } from "../../src/cas/log/repository.ts";
import type { Offline, OfflineRestore } from "../../src/cluster/offline.ts";
import { openOffline } from "../../src/cluster/offline.ts";
import type { BackupSummary } from "../../src/cluster/backup-summary.ts";
import type { NodeEncryption } from "../../src/cluster/member-config.ts";
import type { OperationRecord } from "../../src/cluster/operations.ts";
import { PROTOCOL_VERSION } from "../../src/cluster/protocol.ts";
import { writeRegistry } from "../../src/products/scripted-registry.ts";
import type { FaultName } from "../../src/sites/faulty-site.ts";
import type { Site } from "../../src/sites/site.ts";
import { ToyDatabase } from "../products/toy-database.ts";
import { seededRandom } from "../sites/still-clock.ts";
import { MemoryFileSystem } from "./memory-file-system.ts";
import { CALM_NETWORK, SimulatedNetwork } from "./simulated-network.ts";
import { PRODUCT_ROOT, SimulatedNode } from "./simulated-node.ts";
import type { NodeWorld, SimulatedProduct } from "./simulated-node.ts";
import { databasesOf, ProcessLife } from "./simulated-process.ts";
import { SimulatedStore } from "./simulated-store.ts";
import type { StoreKind } from "./simulated-store.ts";
import { VirtualClock } from "./virtual-clock.ts";

/** What a cluster is made of. */
export type SimulatedClusterOptions = {
  readonly seed: number;
  readonly nodeCount: number;
  readonly product: SimulatedProduct;
  readonly degraded?: boolean;
  readonly store?: StoreKind;
  /** More stores, each of which is a site of the repository from the start. */
  readonly mirrors?: readonly string[];
  /** What single sites keep, by name; the rest keeps all. */
  readonly retentions?: Readonly<Record<string, RetentionPolicy>>;
  readonly rereadShare?: number;
  /** Makes the repository an encrypted one; readers have the identities, nodes do not. */
  readonly encryption?: NodeEncryption;
  /** How far the clocks of machines may be apart. */
  readonly skewMsMax?: number;
};

/** A backup as a fresh reader finds it in the store. */
export type FoundBackup = BackupSummary;

/** No operation may take longer, whatever goes wrong. */
const OPERATION_MS_MAX = 12 * 3_600_000;
/** All leases have ended by then. */
const LEASES_END_MS = 130_000;

/** The cluster and its world. */
export class SimulatedCluster {
  readonly clock = new VirtualClock();
  readonly store: SimulatedStore;
  /** All stores by name; the first one is `store`. */
  readonly stores = new Map<string, SimulatedStore>();
  readonly random;
  readonly network: SimulatedNetwork;
  readonly nodes: SimulatedNode[] = [];
  readonly toys = new Map<string, ToyDatabase>();
  readonly product: SimulatedProduct;
  /** Rates of faults of the site, for all nodes. */
  siteRates: Partial<Record<FaultName, number>> = {};
  readonly faults: Record<string, number> = {};
  registryRevision = 1;
  /** How often the power of everything has failed. */
  powerCutCount = 0;
  #trace = 0n;
  readonly #encryption: NodeEncryption | undefined;

  private constructor(options: SimulatedClusterOptions) {
    const { seed, nodeCount, product, degraded = false, rereadShare = 0 } = options;
    this.product = product;
    this.#encryption = options.encryption;
    if (options.encryption !== undefined) this.clock.outsideEvery = 8;
    this.random = seededRandom(seed);
    const note = (line: string): void => this.note(line);
    this.network = new SimulatedNetwork(this.clock, seededRandom(seed + 1_000_003), note);
    const names = Array.from({ length: nodeCount }, (_, index) => "abcdefg"[index]!);
    const addresses = names.map((name, index) => ({
      name,
      address: `sim://${name}`,
      zone: `z${index % 2}`,
    }));
    const { clock, network } = this;
    const store = new SimulatedStore(options.store ?? "objects", clock, seed);
    this.store = store;
    this.stores.set(store.name, store);
    const { stores } = this;
    const { retentions = {} } = options;
    const what = {
      stores,
      retentions,
      product,
      addresses,
      degraded,
      rereadShare,
      encryption: options.encryption && { ...options.encryption, identities: [] },
      store,
      siteRates: this.#ratesView(),
    };
    const world: NodeWorld = { clock, network, note, ...what };
    const { skewMsMax = 0 } = options;
    for (const [index, address] of addresses.entries()) {
      const skewMs = Math.floor(skewMsMax * Math.sin(seed + index));
      this.nodes.push(new SimulatedNode({ world, address, seed: seed * 37 + index, skewMs }));
    }
  }

  /** A cluster with an empty repository, all nodes up, some data on each. */
  static async create(options: SimulatedClusterOptions): Promise<SimulatedCluster> {
    const cluster = new SimulatedCluster(options);
    const { clock, store, random } = cluster;
    const chunker = { rule: "astacus-cdc-1", averageSizeBytes: 8192 } as const;
    const site = await clock.run(store.open());
    const keys = options.encryption?.keys;
    await clock.run(Repository.init(site, { doors: { clock, random }, chunker, keys }));
    for (const name of options.mirrors ?? []) await cluster.addSite(name);
    for (const node of cluster.nodes) {
      cluster.openToy(node);
      await clock.run(node.start());
    }
    return cluster;
  }

  /** Makes another site of the repository; nodes reach it when they start again. */
  async addSite(name: string, kind: StoreKind = "objects"): Promise<SimulatedStore> {
    const { clock, random, stores } = this;
    const { header } = await clock.run(readHeader(await this.openStore()));
    const store = new SimulatedStore(kind, clock, 1, name);
    stores.set(name, store);
    const site = await clock.run(store.open());
    const { repository, chunker } = header;
    const keys = this.#encryption?.keys;
    const how = { doors: { clock, random }, chunker, repository, keys };
    await clock.run(Repository.init(site, how));
    return store;
  }

  /** One number for all that has happened: equal for two runs of one seed. */
  get trace(): string {
    return this.#trace.toString(16);
  }

  note(line: string): void {
    this.#trace = Bun.hash.wyhash(`${line} ${this.clock.monotonic()}`, this.#trace);
  }

  /** Counts something that went wrong on purpose. */
  countFault(name: string): void {
    this.faults[name] = (this.faults[name] ?? 0) + 1;
    this.note(name);
  }

  /** A number from 0 to `count` - 1. */
  draw(count: number): number {
    return Math.floor(this.random.fraction() * count);
  }

  pick<T>(items: readonly T[]): T {
    return items[this.draw(items.length)]!;
  }

  chance(share: number): boolean {
    return this.random.fraction() < share;
  }

  /** Starts the toy on a node's disk, where there is one. */
  openToy(node: SimulatedNode): void {
    if (this.product !== "scripted") return;
    this.toys.set(node.name, new ToyDatabase(node.files, PRODUCT_ROOT).start());
    this.writeRegistries();
  }

  /** All nodes have a copy of the toy's registry. */
  writeRegistries(): void {
    if (this.product !== "scripted") return;
    const members = Object.fromEntries(
      this.nodes.map((node, index) => [node.name, { shards: [index] }]),
    );
    const registry = { revision: this.registryRevision, members };
    for (const { files, name } of this.nodes) {
      writeRegistry(files, `${PRODUCT_ROOT}/registry.json`, registry, { node: name });
    }
  }

  /** The record of an operation that ended; undefined if its coordinator died. */
  async end(node: SimulatedNode, started: OperationRecord): Promise<OperationRecord | undefined> {
    const { member, life } = node;
    const ended = Promise.race([member.operations.wait(started.id), life.death]);
    const record = await this.clock.run(ended, OPERATION_MS_MAX);
    this.note(`end ${started.kind} ${record?.state ?? "coordinator died"}`);
    return record;
  }

  /** The power of all machines fails at once, that of the store included. */
  cutPower(): void {
    this.countFault("power cut");
    this.powerCutCount += 1;
    for (const node of this.nodes) {
      // The toys sync nothing, and are not what is tested.
      if (this.product === "scripted") node.files.syncAll();
      node.cutPower(this.random);
    }
    this.store.cutPower(this.chance(0.6) ? this.random : undefined);
  }

  /** Ends every fault, brings every node back, and waits until no lease is left. */
  async heal(): Promise<void> {
    this.siteRates = {};
    this.store.shades.clear();
    for (const { site } of this.nodes) {
      site.setCalm(true);
      site.setCalm(false);
    }
    this.network.rates = CALM_NETWORK;
    this.network.heal();
    for (const node of this.nodes) {
      node.files.setCapacity(2 ** 40);
      node.files.fault = undefined;
      if (!node.isUp) await this.clock.run(this.restart(node), OPERATION_MS_MAX);
    }
    await this.clock.pass(LEASES_END_MS);
    for (const node of this.nodes) node.files.syncAll();
    for (const node of this.nodes) {
      const hello = { protocol: PROTOCOL_VERSION, cluster: "simulated", version: "1" };
      const options = { signal: new AbortController().signal, emit: () => undefined };
      const answer = (await this.clock.run(node.member.handle("hello", hello, options))) as {
        lease: unknown;
      };
      if (answer.lease !== null) throw new Error(`node ${node.name} still holds a lease`);
    }
  }

  /** Starts a node again until it works. */
  async restart(node: SimulatedNode): Promise<void> {
    node.kill();
    for (let attempt = 0; ; attempt += 1) {
      try {
        await node.start();
        return;
      } catch (thrown) {
        const error = toAppError(thrown);
        if (!error.retryable || attempt > 50) throw thrown;
        node.kill();
        await this.clock.sleep(3000);
      }
    }
  }

  /** What is listed, as somebody sees it who knows nothing but the store. */
  async listed(): Promise<FoundBackup[]> {
    return await this.read(async (reader) => reader.listBackups({ forgotten: false }));
  }

  /** A backup on an empty disk: `/r/NODE/VOLUME`. */
  async restoreAside(
    backup: string,
    choice: Pick<OfflineRestore, "nodes" | "paths"> = {},
    store = this.store,
  ): Promise<MemoryFileSystem> {
    const files = new MemoryFileSystem({ clock: this.clock });
    files.makeDirectory("/r");
    const how = { target: "/r", ownerPolicy: "recorded", incomplete: true } as const;
    await this.read((reader) => reader.restoreTo({ backup, ...how, ...choice }), files, store);
    return files;
  }

  /** Lets somebody work who knows nothing but the store. */
  async read<T>(
    work: (reader: Offline) => Promise<T>,
    files = new MemoryFileSystem({ clock: this.clock }),
    store = this.store,
  ): Promise<T> {
    return await this.clock.run(this.#withReader(work, files, store));
  }

  /** The same where nobody need wait for virtual time: in an object store. */
  async readAtOnce<T>(work: (reader: Offline) => Promise<T>): Promise<T> {
    return await this.#withReader(work, new MemoryFileSystem({ clock: this.clock }));
  }

  /** The store with nothing in between but its shades. */
  async openStore(): Promise<Site> {
    return await this.clock.run(this.store.open());
  }

  async #withReader<T>(
    work: (reader: Offline) => Promise<T>,
    files: MemoryFileSystem,
    store = this.store,
  ): Promise<T> {
    const databases = databasesOf(new Map(), new ProcessLife());
    using reader = await openOffline({
      site: await store.open(),
      doors: { clock: this.clock, random: seededRandom(1), files, databases },
      tempFolder: "/t",
      cluster: "simulated",
      retention: { minimum: 1000 },
      concurrency: 4,
      encryption: this.#encryption,
    });
    return await work(reader);
  }

  /** The site asks its rates at each call; what holds for the cluster now is what it gets. */
  #ratesView(): Partial<Record<FaultName, number>> {
    return new Proxy({}, { get: (_, name) => this.siteRates[name as FaultName] });
  }
}
