/**
 * The pack list of one node's backup: the lists of earlier backups whose rows were trusted, joined
 * with every frame that was looked up or sent. It names too much rather than too little. Nodes of the
 * lists that we wrote are kept in the catalog, so that an unchanged backup asks the site for none.
 */
import type { Database } from "bun:sqlite";
import { AppError } from "../../base/error.ts";
import type { BackupSettings } from "./backup-settings.ts";
import type { Catalog } from "../catalog/catalog.ts";
import { guardRead } from "../catalog/catalog.ts";
import { encodePackUse, packUseKey } from "../format/pack-list.ts";
import { readBackupUses } from "../clean/pack-uses.ts";
import type { UseSource } from "../clean/pack-uses.ts";
import type { Sealer } from "../format/seal.ts";
import { listedBackups } from "../log/state.ts";
import type { BackupRecord, RepositoryState } from "../log/state.ts";
import type { StatCache } from "../catalog/stat-cache.ts";
import { TreeWriter } from "../format/tree.ts";
import type { TreeRoot } from "../format/tree.ts";
import type { UseTable } from "./use-table.ts";

/** Lists of so many earlier operations stay in the catalog. */
const OPERATION_COUNT_KEPT = 4;

/** Records between two pauses for transfers. */
const PAUSE_RECORD_COUNT = 5000;

/**
 * Whose rows are trusted, and which lists that adds. A row of an operation is trusted while a backup
 * that covers the operation is listed and has a list of this node.
 */
export class TrustedLists {
  readonly #options: {
    readonly statCache: StatCache;
    readonly state: () => RepositoryState;
    readonly node: string;
    readonly isOff: boolean;
  };
  readonly #backups = new Map<number, BackupRecord | undefined>();

  constructor(options: {
    readonly statCache: StatCache;
    readonly state: () => RepositoryState;
    readonly node: string;
    /** Trust nobody: every chunk is looked up. */
    readonly isOff: boolean;
  }) {
    this.#options = options;
  }

  /** True if the rows of an operation are trusted; the list is then part of ours. */
  trusts(number: number): boolean {
    if (this.#options.isOff) return false;
    if (!this.#backups.has(number)) this.#backups.set(number, this.#findBackup(number));
    return this.#backups.get(number) !== undefined;
  }

  /** Operations whose rows were trusted: what covers them is part of our list. */
  get numbers(): number[] {
    return [...this.#backups].flatMap(([number, backup]) => (backup === undefined ? [] : [number]));
  }

  /** The backups whose lists are part of ours. */
  get backups(): BackupRecord[] {
    return [...new Set(this.#backups.values())].filter((backup) => backup !== undefined);
  }

  /** Throws if a trusted backup has left the state: its list cannot be read, and covers nothing. */
  throwIfGone(): void {
    const { backups } = this.#options.state();
    const gone = this.backups.filter(({ backup }) => !backups.has(backup));
    if (gone.length === 0) return;
    throw new AppError("conflict", `A backup that this one builds on was deleted meanwhile.`, {
      guidance: "Run the backup again: it looks up what that backup vouched for.",
      retryable: true,
      context: { reason: "packs-gone", backup: gone[0]!.backup },
    });
  }

  /** The newest, since it is the one that all operations come to share. */
  #findBackup(number: number): BackupRecord | undefined {
    const { statCache, state, node } = this.#options;
    const covering = new Set(statCache.backupsOf(number));
    return listedBackups(state()).findLast(
      (backup) => covering.has(backup.backup) && backup.lists.some((list) => list.node === node),
    );
  }
}

/** True for each so many-th backup, which looks all chunks up, so that lists shrink again. */
export function trustsNobody(
  number: number,
  { lookUpEvery }: Pick<BackupSettings, "lookUpEvery">,
): boolean {
  return lookUpEvery > 0 && number % lookUpEvery === 0;
}

/**
 * Adds the lists of a node in earlier backups to the uses, with their moves. A pack that was moved to
 * and is not in our index has frames that we cannot name, and a repack would take them for unused.
 */
export async function addNodeLists(
  backups: readonly BackupRecord[],
  uses: UseTable,
  options: {
    readonly state: RepositoryState;
    readonly node: string;
    readonly source: UseSource;
    readonly frameCountOf: (pack: string) => number;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<void> {
  const { state, node, source, frameCountOf, signal } = options;
  for (const backup of backups) {
    const own = {
      ...backup,
      lists: backup.lists.filter((list) => list.node === node),
      listPacks: [],
    };
    for await (const batch of readBackupUses(state, own, source, { frameCountOf, signal })) {
      for (const use of batch) {
        if (use.isWhole && use.frameCount === 0) throw unknownPack(use.pack);
        uses.add(use);
      }
    }
  }
}

function unknownPack(pack: string): AppError {
  return new AppError("conflict", `Pack ${pack} is not in this node's index of chunks yet.`, {
    guidance: "Run the backup again: it looks up what that pack should hold.",
    retryable: true,
    context: { reason: "packs-gone", pack },
  });
}

/** Writes the uses as a pack list. */
export async function writeNodeList(
  uses: UseTable,
  putNode: (bytes: Uint8Array) => Uint8Array,
  pause: () => Promise<void>,
): Promise<TreeRoot> {
  const list = new TreeWriter(putNode);
  let count = 0;
  for (const { pack, frameCount, frames } of uses.list()) {
    const use = { pack, frameCount, frames };
    list.add(packUseKey(use), encodePackUse(use));
    count += 1;
    if (count % PAUSE_RECORD_COUNT === 0) await pause();
  }
  return list.finish();
}

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS list_node (
    id BLOB PRIMARY KEY, bytes BLOB NOT NULL, operation INTEGER NOT NULL) STRICT, WITHOUT ROWID;
`;

/** Nodes of pack lists in the catalog, by chunk id; what does not match its id is not there. */
export class ListNodeCache implements UseSource {
  readonly #database: Database;
  readonly #source: UseSource;
  readonly #sealer: Sealer;

  constructor(catalog: Pick<Catalog, "database">, source: UseSource, sealer: Sealer) {
    this.#database = catalog.database;
    this.#source = source;
    this.#sealer = sealer;
    this.#database.run(SCHEMA);
  }

  /** Enters a node under the number of an operation. */
  put(id: Uint8Array, bytes: Uint8Array, operation: number): void {
    this.#database
      .query<null, [Uint8Array, Uint8Array, number]>(
        "INSERT OR REPLACE INTO list_node (id, bytes, operation) VALUES (?, ?, ?)",
      )
      .run(id, bytes, operation);
  }

  async fetch(id: Uint8Array, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    const row = guardRead(() =>
      this.#database
        .query<{ bytes: Uint8Array }, [Uint8Array]>("SELECT bytes FROM list_node WHERE id = ?")
        .get(id),
    );
    if (row !== null && this.#sealer.isChunk(row.bytes, id)) return row.bytes;
    return await this.#source.fetch(id, length, signal);
  }

  /** Drops what no recent operation has written. */
  prune(operation: number): void {
    this.#database.run("DELETE FROM list_node WHERE operation <= ?", [
      operation - OPERATION_COUNT_KEPT,
    ]);
  }
}
