/**
 * Enters what a restore put in place into the stat cache, so that the next backup does not read it
 * again. Nobody vouches for these rows: their chunks are looked up, one by one, before they are
 * believed. Huge files (a chunk list of its own) are left out and read once.
 */
import type { Clock, FileStat, Random } from "../../base/doors.ts";
import { toHex } from "../../base/hex.ts";
import type { Catalog } from "./catalog.ts";
import type { FileRecord } from "../format/listing.ts";
import type { StatCursor } from "./stat-cache.ts";
import { StatCache } from "./stat-cache.ts";

/** Rows of one restored volume. */
export class RestoredRows implements Disposable {
  readonly #cursor: StatCursor;
  readonly #number: number;
  readonly #clock: Clock;

  constructor(
    catalog: Pick<Catalog, "database">,
    doors: { readonly clock: Clock; readonly random: Random },
    volume: string,
  ) {
    const cache = new StatCache(catalog);
    this.#number = cache.begin(toHex(doors.random.bytes(16)));
    this.#cursor = cache.openCursor(volume);
    this.#clock = doors.clock;
  }

  /** A file that is in place, with its stat. */
  add(record: FileRecord, stat: FileStat): void {
    if (record.type !== "file" || record.content.form !== "inline") return;
    // Somebody was faster: the stat is of other contents than the record.
    if (stat.mtimeNs !== record.mtimeNs || stat.sizeBytes !== record.sizeBytes) return;
    this.#cursor.put(record.path, {
      inode: stat.inode,
      birthtimeNs: stat.birthtimeNs,
      sizeBytes: stat.sizeBytes,
      mtimeNs: stat.mtimeNs,
      ctimeNs: stat.ctimeNs,
      takenNs: BigInt(this.#clock.now()) * 1_000_000n,
      isSparse: record.sparse,
      // A file that was kept may have attributes that the record does not know: look.
      hasXattrs: true,
      content: record.content,
      operation: this.#number,
    });
  }

  [Symbol.dispose](): void {
    this.#cursor[Symbol.dispose]();
  }
}
