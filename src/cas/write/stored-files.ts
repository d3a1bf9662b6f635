/**
 * Says before a backup which files it will take from their stat alone, by the rules of FileDecider,
 * so that a product need not capture what is stored already. It says yes only to what needs no look
 * at the file any more, whatever becomes of it; no costs a capture, nothing else. Memory: a page of
 * rows for each volume.
 */
import { DistrustedPacks } from "../catalog/distrusted-packs.ts";
import type { DistrustedPack } from "../catalog/distrusted-packs.ts";
import type { FileStat } from "../../base/doors.ts";
import type { BackupSettings } from "./backup-settings.ts";
import { RACY_MS_DEFAULT } from "./backup-settings.ts";
import { isRereadDue, isSameFile, isUnchanged } from "./file-decider.ts";
import { TrustedLists, trustsNobody } from "./node-list.ts";
import type { Catalog } from "../catalog/catalog.ts";
import type { StatCursor } from "../catalog/stat-cache.ts";
import { StatCache } from "../catalog/stat-cache.ts";
import type { RepositoryState } from "../log/state.ts";

/** Which backup is to come. */
export type StoredFilesOptions = {
  readonly catalog: Pick<Catalog, "database">;
  readonly state: () => RepositoryState;
  readonly node: string;
  readonly operation: string;
  /** Packs that other nodes found damaged or missing, as the backup will be told. */
  readonly distrusted?: readonly DistrustedPack[];
  readonly settings: Pick<BackupSettings, "lookUpEvery" | "rereadShare" | "racyMs">;
};

/**
 * The files of one node before one backup.
 *
 * @example
 * const stored = new StoredFiles({ catalog, state, node, operation, settings });
 * if (!stored.isStored("data", "a/b", stat)) files.link(…);
 */
export class StoredFiles {
  readonly #options: StoredFilesOptions;
  readonly #cache: StatCache;
  readonly #trusted: TrustedLists;
  readonly #racyNs: bigint;
  readonly #volumes = new Map<string, { readonly cursor: StatCursor; last: string }>();

  constructor(options: StoredFilesOptions) {
    const { catalog, state, node, settings } = options;
    this.#options = options;
    this.#cache = new StatCache(catalog);
    const { length } = options.distrusted ?? [];
    const isDoubted = length > 0 || new DistrustedPacks(catalog).list(state()).length > 0;
    const isOff = isDoubted || trustsNobody(this.#cache.nextNumber, settings);
    this.#trusted = new TrustedLists({ statCache: this.#cache, state, node, isOff });
    this.#racyNs = BigInt(settings.racyMs ?? RACY_MS_DEFAULT) * 1_000_000n;
  }

  /** True if the backup will not open the file; fast where a volume's paths come ascending. */
  isStored(volume: string, path: string, stat: FileStat): boolean {
    if (stat.type !== "file") return false;
    const row = this.#cursorOf(volume, path).take(path);
    // Attributes are read from the file again: links change ctime as they do.
    if (row === undefined || row.hasXattrs) return false;
    if (!isSameFile(stat, row)) return false;
    if (!isUnchanged(stat, row, { ctimeCounts: false, racyNs: this.#racyNs })) return false;
    if (!this.#trusted.trusts(row.operation)) return false;
    const { operation, settings } = this.#options;
    return !isRereadDue({ volume, path }, operation, settings.rereadShare);
  }

  #cursorOf(volume: string, path: string): StatCursor {
    const known = this.#volumes.get(volume);
    if (known !== undefined && path > known.last) {
      known.last = path;
      return known.cursor;
    }
    const cursor = this.#cache.openCursor(volume, { isReadOnly: true });
    this.#volumes.set(volume, { cursor, last: path });
    return cursor;
  }
}
