/** Memory sites of one repository, and nodes over them that can be told when to stop and go on. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { realDatabases } from "../../src/base/databases.ts";
import type { Clock } from "../../src/base/doors.ts";
import { AppError } from "../../src/base/error.ts";
import type { RetentionPolicy } from "../../src/cas/clean/retention.ts";
import type { MigrationParts } from "../../src/cluster/migrate-plan.ts";
import type { OperationContext } from "../../src/cluster/operations.ts";
import type { SiteRole } from "../../src/cluster/site-roles.ts";
import { SiteSet } from "../../src/cluster/site-set.ts";
import type { SitesNow } from "../../src/cluster/site-views.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import type { Site } from "../../src/sites/site.ts";
import { idOf } from "../cas/log-builder.ts";
import { interceptSite, seededRandom } from "../cas/repository-world.ts";
import { initSibling } from "../cas/two-sites.ts";
import { SmallWorld } from "../cas/small-world.ts";

const LONG_MS = 5_000;

/** How a node's sites differ from those of all. */
export type NodeHow = {
  readonly wrap?: (site: MemorySite) => Site;
  /** Names by their place in the configuration; of all, in the order of the stores, unless given. */
  readonly order?: readonly number[];
  readonly retention?: RetentionPolicy;
  readonly clock?: Clock;
};

/** Sites s0, s1, …, of which s0 is the first primary. */
export class SiteNodes implements AsyncDisposable {
  readonly world: SmallWorld;
  readonly stores: readonly MemorySite[];
  /** Names of sites that do not answer. */
  readonly down = new Set<string>();
  readonly #folders: string[] = [];
  readonly #nodes: SiteSet[] = [];

  private constructor(world: SmallWorld, stores: readonly MemorySite[]) {
    this.world = world;
    this.stores = stores;
  }

  static async create(count: number): Promise<SiteNodes> {
    const world = await SmallWorld.create();
    const stores = [world.site];
    while (stores.length < count) {
      const site = new MemorySite(`s${stores.length}`);
      await initSibling(world, site);
      stores.push(site);
    }
    return new SiteNodes(world, stores);
  }

  /** The site of a name as one that is away while `down` has it. */
  readonly reachable = (site: Site, name: string): Site => {
    const ask = (): void => {
      if (this.down.has(name)) throw new AppError("unavailable", `${name} is down.`);
    };
    return interceptSite(site, {
      get: async (key, options) => (ask(), await site.get(key, options)),
      put: async (key, bytes, options) => (ask(), await site.put(key, bytes, options)),
      head: async (key, options) => (ask(), await site.head(key, options)),
    });
  };

  /** A node that has seen nothing. */
  node(name: string, how: NodeHow = {}): SiteSet {
    const folder = mkdtempSync(join(tmpdir(), "astacus-sites-"));
    this.#folders.push(folder);
    const { wrap = (site: MemorySite) => site, order, retention, clock } = how;
    const random = seededRandom(this.#nodes.length + 77);
    const node = new SiteSet({
      sites: (order ?? this.stores.map((_, index) => index)).map((index) => ({
        name: `s${index}`,
        firstRole: index === 0 ? "primary" : "mirror",
        ...(retention === undefined ? {} : { retention }),
        open: () => Promise.resolve(this.reachable(wrap(this.stores[index]!), `s${index}`)),
      })),
      doors: { clock: clock ?? new PatientClock(), random, databases: realDatabases },
      node: name,
      dataFolder: folder,
      concurrency: 2,
    });
    this.#nodes.push(node);
    return node;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const node of this.#nodes) await node[Symbol.asyncDispose]();
    for (const folder of this.#folders) rmSync(folder, { recursive: true });
    this.world[Symbol.dispose]();
  }
}

/** A clock on which limits pass only when it is told; short waits cost nothing. */
export class PatientClock implements Clock {
  #now = Date.UTC(2026, 10, 22, 18);
  #waiting: (() => void)[] = [];

  readonly now = (): number => this.#now;
  readonly monotonic = (): number => this.#now;

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    this.#now += ms < LONG_MS ? ms : 0;
    if (ms < LONG_MS) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    signal?.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
    await promise;
  }

  /** Whoever waits now has waited long enough. */
  expire(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

/** The context of an operation; `onPhase` hears its phases. */
export function contextOf(
  name: string,
  onPhase: (phase: string) => void = () => undefined,
): OperationContext {
  return {
    id: idOf(name),
    signal: new AbortController().signal,
    progress: ({ phase }) => {
      if (phase !== undefined) onPhase(phase);
    },
    say: () => undefined,
    spent: () => undefined,
  };
}

/** Parts of operations between sites, without another node. */
export function partsOf(sites: SiteSet): MigrationParts {
  const backup = { uploadsMax: 2, keepEveryBytes: 1e9 };
  const config = { cluster: "c", nodes: [], node: "a", retention: {}, backup };
  const doors = { clock: new PatientClock(), network: {} };
  return { sites, config, doors, self: { name: "a" }, version: "0" } as unknown as MigrationParts;
}

/** What each site is, by name. */
export function rolesIn(now: SitesNow): Record<string, SiteRole | "closed" | undefined> {
  return Object.fromEntries(now.sites.map(({ name, role }) => [name, role]));
}
