/**
 * One site with tiny backups and a node, and what tests of the protocol do with them: back up, clean
 * up, and look whether every backup that must be readable is.
 */
import { Repository } from "../../src/cas/log/repository.ts";
import { commitBackup } from "../../src/cas/write/backup-commit.ts";
import { forgetBackups } from "../../src/cas/clean/backup-marks.ts";
import type { CleanupOptions, CleanupReport } from "../../src/cas/clean/cleanup.ts";
import { runCleanup } from "../../src/cas/clean/cleanup.ts";
import type { CommitRules } from "../../src/cas/write/commit-rules.ts";
import { drawId } from "../../src/cas/format/ids.ts";
import { isPinned } from "../../src/cas/log/state.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import type { Site, SiteCall } from "../../src/sites/site.ts";
import { seededRandom, StillClock } from "../sites/still-clock.ts";
import type { RepositoryEncryption } from "../../src/cas/keys/repository-encryption.ts";
import { ENCRYPTION, READER } from "./encryption-keys.ts";
import type { SmallBackup, SmallNode } from "./small-backups.ts";
import { openNode, readSmall, storeSmall } from "./small-backups.ts";

/** Keeps what is kept by name only. */
export const KEEP_ALL = { minimum: 1000 };

/** Another opening of a site, on which something happens just before the next log entry arrives. */
export class InterposedSite extends MemorySite {
  /** Called once, when an entry is on its way. */
  onEntry: (() => Promise<void>) | undefined;

  override async put(
    key: string,
    bytes: Uint8Array,
    options: SiteCall & { readonly sha256?: string } = {},
  ): Promise<"created" | "exists"> {
    if (key.startsWith("log/")) {
      const happen = this.onEntry;
      this.onEntry = undefined;
      await happen?.();
    }
    return await super.put(key, bytes, options);
  }
}

/**
 * `ASTACUS_ENCRYPTED=1` makes all of these worlds encrypted ones: whatever the tests say of the protocol
 * must hold there too.
 */
const IS_ENCRYPTED = process.env["ASTACUS_ENCRYPTED"] === "1";

/** A site, a clock, a node. */
export class SmallWorld implements Disposable {
  readonly site = new MemorySite();
  readonly clock = new StillClock();
  readonly random = seededRandom(1);
  readonly backups = new Map<string, SmallBackup>();
  readonly #nodes: SmallNode[] = [];
  /** What its nodes have, if it is an encrypted one. */
  readonly encryption: RepositoryEncryption | undefined;

  private constructor(encryption: RepositoryEncryption | undefined) {
    this.encryption = encryption;
  }

  static async create(
    options: { readonly encryption?: RepositoryEncryption | undefined } = {},
  ): Promise<SmallWorld> {
    const world = new SmallWorld(options.encryption ?? (IS_ENCRYPTED ? ENCRYPTION : undefined));
    const chunker = { rule: "astacus-cdc-1", averageSizeBytes: 262_144 } as const;
    const keys = world.encryption?.keys;
    await Repository.init(world.site, { doors: world, chunker, keys });
    return world;
  }

  /** A node with a catalog of its own. */
  async open(site: Site = this.site): Promise<SmallNode> {
    const encryption = this.encryption;
    const node = await openNode(site, this, { node: `n${this.#nodes.length}`, encryption });
    this.#nodes.push(node);
    return node;
  }

  /** Sends a backup and does not commit it. */
  async store(
    node: SmallNode,
    numbers: readonly number[],
    options: { readonly operation?: string; readonly isKept?: boolean } = {},
  ): Promise<SmallBackup> {
    await node.repository.catchUp();
    const ended = new Date(this.clock.now()).toISOString();
    const { random } = this;
    const backup = await storeSmall(node.repository, numbers, { random, ended, ...options });
    this.backups.set(backup.draft.backup, backup);
    return backup;
  }

  /** Commits what was sent; the id of the backup. */
  async commit(
    node: SmallNode,
    backup: SmallBackup,
    options: { readonly operation?: string; readonly rules?: CommitRules } = {},
  ): Promise<string> {
    const operation = options.operation ?? drawId(this.random);
    await commitBackup(node.repository, node.source, backup.draft, { ...options, operation });
    return backup.draft.backup;
  }

  /** Makes a backup of these chunks; its id. */
  async backup(node: SmallNode, numbers: readonly number[]): Promise<string> {
    return await this.commit(node, await this.store(node, numbers));
  }

  /** Cleans up with no undo window, and no policy unless one is given. */
  async cleanup(node: SmallNode, options: Partial<CleanupOptions> = {}): Promise<CleanupReport> {
    return await runCleanup(this.cleanupOptions(node, options));
  }

  cleanupOptions(node: SmallNode, options: Partial<CleanupOptions> = {}): CleanupOptions {
    const { repository, source } = node;
    const policy = { policy: KEEP_ALL, undoWindowMs: 0, keepSilentMs: 1e12 };
    const now = this.clock.now();
    return { repository, source, operation: drawId(this.random), now, ...policy, ...options };
  }

  /** Reads every backup that is listed or pinned through a node that has seen nothing. */
  async check(): Promise<number> {
    const encryption = this.encryption;
    const keys = encryption === undefined ? {} : { encryption, identities: [READER.identity] };
    using fresh = await openNode(this.site, this, { node: "fresh", ...keys });
    const { state } = fresh.repository;
    let count = 0;
    for (const record of state.backups.values()) {
      if (record.forgotten !== undefined && !isPinned(state, record.backup)) continue;
      const backup = this.backups.get(record.backup);
      if (backup === undefined) throw new Error(`nobody made backup ${record.backup}`);
      await readSmall(fresh, backup);
      count += 1;
    }
    return count;
  }

  /** Forgets a backup by name. */
  async forget(node: SmallNode, backup: string): Promise<void> {
    const operation = drawId(this.random);
    const how = { reason: "by name", scope: "all", operation } as const;
    await forgetBackups(node.repository, { backups: [backup], ...how });
  }

  [Symbol.dispose](): void {
    for (const node of this.#nodes) node[Symbol.dispose]();
  }
}

/** What a promise rejects with; undefined if it does not. */
export async function caught(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
    return undefined;
  } catch (thrown) {
    return thrown;
  }
}
