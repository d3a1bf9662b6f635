/**
 * One node of a simulated cluster: a disk, SQLite files and a product that outlive its processes, and
 * at most one process: the real `Member` behind simulated doors. A process may be killed at any
 * moment and started again.
 */
import type { RetentionPolicy } from "../../src/cas/clean/retention.ts";
import type { ChunkerSettings } from "../../src/cas/format/chunker.ts";
import type { MemberConfig, NodeEncryption } from "../../src/cluster/member-config.ts";
import { Member } from "../../src/cluster/member.ts";
import type { ConfiguredSite } from "../../src/cluster/site-set.ts";
import type { NodeAddress } from "../../src/cluster/network.ts";
import { createProduct } from "../../src/products/create-product.ts";
import type { Clock, Doors, Random } from "../../src/base/doors.ts";
import type { FaultName } from "../../src/sites/faulty-site.ts";
import { FaultySite } from "../../src/sites/faulty-site.ts";
import { retryingSite } from "../../src/sites/retrying-site.ts";
import type { Site } from "../../src/sites/site.ts";
import { seededRandom } from "../sites/still-clock.ts";
import { MemoryFileSystem } from "./memory-file-system.ts";
import type { SimulatedNetwork } from "./simulated-network.ts";
import { borrowPlane } from "./simulated-planes.ts";
import type { DatabaseImages } from "./simulated-process.ts";
import { clockOf, databasesOf, filesOf, ProcessLife, siteOf } from "./simulated-process.ts";
import type { SimulatedStore } from "./simulated-store.ts";
import { MountedSite } from "./mounted-site.ts";
import type { VirtualClock } from "./virtual-clock.ts";

/** Where a node keeps its own things, and the data that it backs up. */
export const DATA_FOLDER = "/node";
export const PRODUCT_ROOT = "/data/product";
const SCRATCH_FOLDER = "/data/captures";

/** Which product a simulated cluster has. */
export type SimulatedProduct = "files" | "scripted";

/** What all nodes share. */
export type NodeWorld = {
  readonly clock: VirtualClock;
  readonly network: SimulatedNetwork;
  readonly product: SimulatedProduct;
  readonly addresses: readonly NodeAddress[];
  readonly degraded: boolean;
  /** Share of unchanged files that is read anyway. */
  readonly rereadShare: number;
  /** What nodes have in an encrypted repository. */
  readonly encryption: NodeEncryption | undefined;
  readonly store: SimulatedStore;
  /** All stores by name, the first one included. */
  readonly stores: ReadonlyMap<string, SimulatedStore>;
  /** What single sites keep, by name; the rest keeps all. */
  readonly retentions: Readonly<Record<string, RetentionPolicy>>;
  /** Rates of faults of the site, asked at each call. */
  readonly siteRates: Readonly<Partial<Record<FaultName, number>>>;
  readonly note: (line: string) => void;
};

/** What a node is made with. */
export type SimulatedNodeOptions = {
  readonly world: NodeWorld;
  readonly address: NodeAddress;
  readonly seed: number;
  /** How far this machine's clock is from the world's. */
  readonly skewMs: number;
};

/** A node. */
export class SimulatedNode {
  readonly name: string;
  readonly site: FaultySite;
  files: MemoryFileSystem;
  readonly images: DatabaseImages = new Map();
  version = "1.0.0";
  /** The sites that this node's configuration names, in its order; all of them by default. */
  siteNames: readonly string[] | undefined;
  readonly #options: SimulatedNodeOptions;
  readonly #clock: Clock;
  readonly #mount = new MountedSite("store", "sim:store");
  /** Databases as they were when the process started. */
  #imagesAtStart: DatabaseImages = new Map();
  #life: ProcessLife | undefined;
  #member: Member | undefined;
  #startCount = 0;

  constructor(options: SimulatedNodeOptions) {
    this.#options = options;
    this.name = options.address.name;
    const { world, seed, skewMs } = options;
    this.#clock = {
      now: () => world.clock.now() + skewMs,
      monotonic: () => world.clock.monotonic(),
      sleep: (ms, signal) => world.clock.sleep(ms, signal),
    };
    const random = seededRandom(seed * 29);
    const faults = { random, clock: world.clock, rates: world.siteRates };
    this.site = new FaultySite(this.#mount, faults);
    this.files = this.#freshDisk();
  }

  get isUp(): boolean {
    return this.#member !== undefined;
  }

  /** The process that runs; throws if none does. */
  get member(): Member {
    if (this.#member === undefined) throw new Error(`node ${this.name} is down`);
    return this.#member;
  }

  /** The switch of the process that runs. */
  get life(): ProcessLife {
    if (this.#life === undefined) throw new Error(`node ${this.name} is down`);
    return this.#life;
  }

  /** Starts a process; `hook` sees its calls from the first one on. */
  async start(hook?: ProcessLife["hook"]): Promise<void> {
    const { world, address, seed } = this.#options;
    this.#startCount += 1;
    world.note(`start ${this.name}`);
    const life = new ProcessLife();
    life.hook = hook;
    this.#life = life;
    const random = seededRandom(seed * 1000 + this.#startCount);
    const clock = clockOf(this.#clock, life);
    this.#imagesAtStart = new Map(this.images);
    const doors: Doors = {
      clock,
      random,
      files: filesOf(this.files, life),
      databases: databasesOf(this.images, life),
      network: world.network.doorOf(address.address, life),
      outside: { run: noOutside, fetch: noOutside },
    };
    this.#mount.mount(await world.store.open(life));
    const wire = { clock: world.clock, random: seededRandom(seed + 77), latencyMs: 6 };
    const site = retryingSite(siteOf(this.site, life, wire), { clock, random });
    const config = this.#config();
    const member = await Member.open({
      config,
      doors,
      sites: this.#sites({ first: site, life, clock, random }),
      product: createProduct(this.#productConfig()),
      version: this.version,
      openPlane: (header) => {
        const { packSizeBytes, frameSizeBytes, compressionLevel, batchSizeBytes } = config.backup;
        const chunker = header.chunker as ChunkerSettings;
        const sizes = { packSizeBytes, frameSizeBytes, compressionLevel, batchSizeBytes };
        return borrowPlane(doors, life, { ...sizes, chunker });
      },
    });
    if (!life.isAlive) return;
    this.#member = member;
    world.network.listen(address.address, {
      life,
      handle: (method, body, options) => member.handle(method, body, options),
    });
  }

  /** The process dies at once; the disk is as programs saw it. */
  kill(): void {
    if (this.#life === undefined) return;
    this.#options.world.note(`kill ${this.name}`);
    this.#life.kill();
    this.#life = undefined;
    this.#member = undefined;
    this.files.dropHandles();
  }

  /**
   * The power of this machine fails: what was not synced is gone, and its databases are as they were
   * committed now, or some time ago (they are synced at checkpoints only).
   */
  cutPower(random: Random): void {
    this.kill();
    this.files.crash();
    if (random.fraction() > 0.3) return;
    for (const [path, bytes] of this.#imagesAtStart) this.images.set(path, bytes);
  }

  /** Another machine takes the node's place: an empty disk, nothing remembered. */
  replace(): void {
    this.kill();
    this.images.clear();
    this.files = this.#freshDisk();
  }

  /** The first store is the one with faults. */
  #sites(how: {
    readonly first: Site;
    readonly life: ProcessLife;
    readonly clock: Clock;
    readonly random: Random;
  }): ConfiguredSite[] {
    const { first, life, clock, random } = how;
    const { world, seed } = this.#options;
    const names = this.siteNames ?? [...world.stores.keys()];
    return names.map((name, index) => ({
      name,
      firstRole: index === 0 ? "primary" : "mirror",
      ...(world.retentions[name] === undefined ? {} : { retention: world.retentions[name] }),
      async open() {
        if (name === first.name) return first;
        const store = world.stores.get(name);
        if (store === undefined) throw new Error(`there is no store ${name}`);
        const wire = { clock: world.clock, random: seededRandom(seed + 78), latencyMs: 6 };
        return retryingSite(siteOf(await store.open(life), life, wire), { clock, random });
      },
    }));
  }

  #freshDisk(): MemoryFileSystem {
    const files = new MemoryFileSystem({ clock: this.#clock });
    for (const folder of [DATA_FOLDER, "/data", PRODUCT_ROOT]) files.makeDirectory(folder);
    files.syncAll();
    return files;
  }

  #config(): MemberConfig {
    const { world } = this.#options;
    return {
      ...(world.encryption === undefined ? {} : { encryption: world.encryption }),
      cluster: "simulated",
      node: this.name,
      nodes: world.addresses,
      dataFolder: DATA_FOLDER,
      scratchFolder: SCRATCH_FOLDER,
      backup: {
        workers: 0,
        packSizeBytes: 64 * 1024,
        frameSizeBytes: 16 * 1024,
        compressionLevel: 1,
        keepEveryBytes: 96 * 1024,
        lookUpEvery: 5,
        rereadShare: world.rereadShare,
        uploadsMax: 2,
        batchSizeBytes: 64 * 1024,
        attempts: 3,
        degraded: world.degraded,
        minimumFreeSpaceBytes: 0,
      },
      restore: { owner: "recorded", concurrency: 3 },
      retention: { minimum: 1000 },
      undoWindowMs: 3_600_000,
      leaseTimeMs: 60_000,
      nodePatienceMs: 60_000,
    };
  }

  #productConfig(): Parameters<typeof createProduct>[0] {
    const root = PRODUCT_ROOT;
    if (this.#options.world.product === "files") {
      const appendOnly = ["logs/**"];
      return { type: "files", root, volume: "root", unreadable: "incomplete", appendOnly };
    }
    return { type: "scripted", root, settings: { whenRunning: "stop" } };
  }
}

function noOutside(): never {
  throw new Error("simulated products need no outside");
}
