/**
 * Two sites of one repository with tiny backups, and what tests of copies do with them.
 */
import type { CopyOptions, CopyReport } from "../../src/cas/copy/copy-backups.ts";
import { copyBackups } from "../../src/cas/copy/copy-backups.ts";
import { drawId } from "../../src/cas/format/ids.ts";
import { Repository } from "../../src/cas/log/repository.ts";
import { isPinned } from "../../src/cas/log/state.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import type { Site } from "../../src/sites/site.ts";
import type { SmallBackup, SmallNode } from "./small-backups.ts";
import { openNode, readSmall } from "./small-backups.ts";
import { SmallWorld } from "./small-world.ts";

/** A world whose site has a sibling. */
export class TwoSites implements Disposable {
  readonly world: SmallWorld;
  readonly other: MemorySite;
  readonly #nodes: SmallNode[] = [];

  private constructor(world: SmallWorld, other: MemorySite) {
    this.world = world;
    this.other = other;
  }

  static async create(): Promise<TwoSites> {
    const world = await SmallWorld.create();
    const other = new MemorySite("other");
    await initSibling(world, other);
    return new TwoSites(world, other);
  }

  /** A node at the other site. */
  async openOther(site: Site = this.other): Promise<SmallNode> {
    const node = await openNode(site, this.world, { node: `o${this.#nodes.length}` });
    this.#nodes.push(node);
    return node;
  }

  /** Copies with keeps after every other pack, and everything read back. */
  async copy(
    from: SmallNode,
    to: SmallNode,
    options: Partial<CopyOptions> = {},
  ): Promise<CopyReport> {
    const operation = drawId(this.world.random);
    const how = { concurrency: 2, readBack: true, keepEveryBytes: 1000 };
    return await copyBackups(from, to, { operation, ...how, ...options });
  }

  /** Reads every listed or pinned backup of the other site through nothing else; how many. */
  async checkOther(): Promise<number> {
    return await checkSite(this.other, this.world);
  }

  [Symbol.dispose](): void {
    for (const node of this.#nodes) node[Symbol.dispose]();
    this.world[Symbol.dispose]();
  }
}

/** Makes a site of the world's repository. */
export async function initSibling(world: SmallWorld, site: Site): Promise<void> {
  const chunker = { rule: "astacus-cdc-1", averageSizeBytes: 262_144 } as const;
  const header = JSON.parse(
    new TextDecoder().decode(world.site.objects.get("astacus-repository")),
  ) as { repository: string };
  await Repository.init(site, { doors: world, chunker, repository: header.repository });
}

/** Reads every listed or pinned backup of a site through a node that has seen nothing. */
export async function checkSite(
  site: Site,
  world: Pick<SmallWorld, "backups" | "clock" | "random">,
): Promise<number> {
  using fresh = await openNode(site, world, { node: "fresh" });
  const { state } = fresh.repository;
  let count = 0;
  for (const record of state.backups.values()) {
    if (record.forgotten !== undefined && !isPinned(state, record.backup)) continue;
    const known = world.backups.get(record.backup);
    if (known === undefined) throw new Error(`nobody made backup ${record.backup}`);
    const draft: SmallBackup["draft"] = { ...known.draft, manifest: record.manifest };
    await readSmall(fresh, { ...known, draft });
    count += 1;
  }
  return count;
}
