/**
 * A simulated cluster whose backups move from one site to another, and what each of them holds: for
 * tests of migrations and of all else that is done to whole sites.
 */
import { expect } from "bun:test";
import type { MigrateRequest } from "../../src/cluster/migrate-plan.ts";
import type { OperationRecord } from "../../src/cluster/operations.ts";
import { changeFiles, differences, readTree } from "./cluster-data.ts";
import type { Tree } from "./cluster-data.ts";
import { SimulatedCluster } from "./simulated-cluster.ts";
import type { SimulatedNode } from "./simulated-node.ts";
import { PRODUCT_ROOT } from "./simulated-node.ts";
import type { SimulatedStore, StoreKind } from "./simulated-store.ts";

/** The store that a simulated cluster begins with. */
export const OLD = "store";
/** The one that they are brought to. */
export const NEW = "new";
/** There and back. */
export const FORWARD: MigrateRequest = { from: OLD, to: NEW };
export const BACK: MigrateRequest = { ...FORWARD, undo: true };

/** A cluster, what each of its backups holds, and a site that is new. */
export class MigrationWorld {
  readonly cluster: SimulatedCluster;
  /** By backup and node. */
  readonly wanted = new Map<string, Map<string, Tree>>();
  /** Names of backups that ended well. */
  readonly acknowledged: string[] = [];

  constructor(cluster: SimulatedCluster) {
    this.cluster = cluster;
  }

  static async create(nodeCount: number, seed = 1): Promise<MigrationWorld> {
    const cluster = await SimulatedCluster.create({ seed, nodeCount, product: "files" });
    return new MigrationWorld(cluster);
  }

  get nodes(): SimulatedNode[] {
    return this.cluster.nodes;
  }

  change(): void {
    for (const node of this.nodes) changeFiles(node.files, PRODUCT_ROOT, this.cluster.random);
  }

  /** Remembers what the nodes hold as what backups of this name bring back. */
  remember(name: string): void {
    const trees = this.nodes.map(
      (node) => [node.name, readTree(node.files, PRODUCT_ROOT)] as const,
    );
    this.wanted.set(name, new Map(trees));
  }

  async backUp(name: string, node = this.nodes[0]!): Promise<void> {
    this.change();
    this.remember(name);
    // A stat that was taken right after a change proves nothing.
    await this.cluster.clock.pass(5_000);
    await this.done(node, node.member.startBackup({ name }));
    this.acknowledged.push(name);
  }

  async done(node: SimulatedNode, started: OperationRecord): Promise<OperationRecord> {
    const record = await this.cluster.end(node, started);
    if (record?.state !== "done") {
      throw new Error(`${started.kind}: ${JSON.stringify(record?.error)}`);
    }
    return record;
  }

  async migrate(request: MigrateRequest, node = this.nodes[0]!): Promise<OperationRecord> {
    return await this.done(node, node.member.startMigration(request));
  }

  async addNew(kind: StoreKind = "objects"): Promise<void> {
    await this.cluster.addSite(NEW, kind);
    for (const node of this.nodes) await this.cluster.clock.run(this.cluster.restart(node));
  }

  async listedAt(store: string): Promise<string[]> {
    const listed = await this.cluster.read(
      async (reader) => reader.listBackups({ forgotten: false }),
      undefined,
      this.cluster.stores.get(store),
    );
    return listed.map(({ name }) => name);
  }

  /** These backups, and no other, are at a site, and each restores from it alone. */
  async expectAt(store: string, names: readonly string[]): Promise<void> {
    const site = this.cluster.stores.get(store)!;
    expect(await this.listedAt(store)).toEqual([...names]);
    for (const name of names) await this.#expectWhole(name, site);
  }

  /** Whatever else is there: what was acknowledged is, once each, and restores from it alone. */
  async expectAllAt(store: string): Promise<void> {
    const listed = await this.listedAt(store);
    expect(listed.filter((name) => this.acknowledged.includes(name)).toSorted()).toEqual(
      this.acknowledged.toSorted(),
    );
    for (const name of listed) await this.#expectWhole(name, this.cluster.stores.get(store)!);
  }

  async primary(node = this.nodes[0]!): Promise<string> {
    const { name } = await this.cluster.clock.run(node.member.sites.primary());
    return name;
  }

  /** The sites that the roles name, as a node sees them now. */
  async sitesOfRoles(node = this.nodes[0]!): Promise<string[]> {
    const { roles } = await this.cluster.clock.run(node.member.sites.roles());
    return roles?.sites.map(({ name }) => name).toSorted() ?? [];
  }

  /** Whether the log of a site has ended, by this log itself. */
  async isClosed(store: string): Promise<boolean> {
    const node = this.nodes[0]!;
    const open = await this.cluster.clock.run(node.member.sites.repository(store));
    return (await this.cluster.clock.run(open.repository.catchUp())).closed !== undefined;
  }

  async #expectWhole(name: string, site: SimulatedStore): Promise<void> {
    const disk = await this.cluster.restoreAside(name, {}, site);
    for (const [node, tree] of this.wanted.get(name)!) {
      expect(differences(tree, readTree(disk, `/r/${node}/root`))).toEqual([]);
    }
  }
}
