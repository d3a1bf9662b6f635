/**
 * A cluster of real members in this process, on the real disk, with a product of the test's own:
 * small, without faults, for what products are told and asked.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { realClock } from "../../src/base/clock.ts";
import { realDatabases } from "../../src/base/databases.ts";
import type { Doors } from "../../src/base/doors.ts";
import { realFileSystem } from "../../src/base/file-system.ts";
import { realRandom } from "../../src/base/random.ts";
import type { ChunkerSettings } from "../../src/cas/format/chunker.ts";
import { Repository } from "../../src/cas/log/repository.ts";
import { openPlane } from "../../src/cas/write/plane.ts";
import type { MemberConfig } from "../../src/cluster/member-config.ts";
import { Member } from "../../src/cluster/member.ts";
import type { OperationRecord } from "../../src/cluster/operations.ts";
import { checkSource } from "../../src/products/content-checks.ts";
import type { Product } from "../../src/products/product.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import { RIG_SETTINGS } from "../cas/backup-rig.ts";
import { temporaryFolder } from "../cas/temporary-folder.ts";

/** The product of one node, whose data lie in `root`. */
export type MakeProduct = (node: string, root: string) => Product;

/** The cluster. */
export class ProductCluster implements AsyncDisposable {
  readonly site = new MemorySite();
  readonly folder = temporaryFolder();
  readonly #members = new Map<string, Member>();
  readonly #names: readonly string[];

  private constructor(names: readonly string[]) {
    this.#names = names;
  }

  static async open(names: readonly string[], make: MakeProduct): Promise<ProductCluster> {
    const cluster = new ProductCluster(names);
    await Repository.init(cluster.site, {
      doors: { clock: realClock, random: realRandom },
      chunker: { rule: "astacus-cdc-1", averageSizeBytes: 65_536 },
    });
    for (const name of names) cluster.#members.set(name, await cluster.#openMember(name, make));
    return cluster;
  }

  member(name: string): Member {
    const member = this.#members.get(name);
    if (member === undefined) throw new Error(`no member ${name}`);
    return member;
  }

  /** Where a node's data lie. */
  rootOf(name: string): string {
    return join(this.folder.path, name, "product");
  }

  /** Writes a file of a node that was last changed long ago. */
  write(node: string, path: string, content: Uint8Array | string): void {
    const full = join(this.rootOf(node), path);
    fs.mkdirSync(join(full, ".."), { recursive: true });
    fs.writeFileSync(full, content);
    const seconds = Math.floor(Date.now() / 1000) - 100;
    fs.utimesSync(full, seconds, seconds);
  }

  /** The operation when it has ended. */
  async end(record: OperationRecord): Promise<OperationRecord> {
    return await this.member(record.coordinator).operations.wait(record.id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const member of this.#members.values()) await member[Symbol.asyncDispose]();
    this.folder[Symbol.dispose]();
  }

  async #openMember(name: string, make: MakeProduct): Promise<Member> {
    const root = this.rootOf(name);
    fs.mkdirSync(root, { recursive: true });
    const doors: Doors = {
      clock: realClock,
      random: realRandom,
      files: realFileSystem,
      databases: realDatabases,
      network: {
        call: (address, method, body, { signal, onEvent }) =>
          this.member(address).handle(method, JSON.parse(JSON.stringify(body)), {
            signal: signal ?? new AbortController().signal,
            emit: (event) => onEvent?.(event),
          }),
      },
      outside: { run: noOutside, fetch: noOutside },
    };
    const config = this.#configOf(name);
    const member = await Member.open({
      config,
      doors,
      sites: [{ name: this.site.name, firstRole: "primary", open: async () => this.site }],
      product: make(name, root),
      version: "1.0.0",
      openPlane: (header) => {
        const chunker = header.chunker as ChunkerSettings;
        return openPlane(doors, chunker, { ...config.backup, contentChecks: checkSource });
      },
    });
    return member;
  }

  #configOf(node: string): MemberConfig {
    const folder = join(this.folder.path, node);
    return {
      cluster: "c",
      node,
      nodes: this.#names.map((name) => ({ name, address: name, zone: "" })),
      dataFolder: folder,
      scratchFolder: join(folder, "captures"),
      backup: { ...RIG_SETTINGS, attempts: 1, degraded: false, minimumFreeSpaceBytes: 0 },
      restore: { owner: "none", concurrency: 4 },
      retention: {},
      undoWindowMs: 0,
      leaseTimeMs: 60_000,
      nodePatienceMs: 1_000,
    };
  }
}

function noOutside(): Promise<never> {
  return Promise.reject(new Error("there is no outside"));
}
