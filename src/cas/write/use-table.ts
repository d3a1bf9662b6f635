/**
 * Which frames of which packs a backup uses: the leaves of its pack list to be. A set that only
 * grows; what passes a bound in memory goes to a temporary table of the catalog, so that a backup of
 * any size holds a few megabytes here.
 */
import type { Database } from "bun:sqlite";
import type { Catalog } from "../catalog/catalog.ts";
import { bitmapSizeBytes, setFrame } from "../format/pack-list.ts";
import type { PackUse } from "../format/pack-list.ts";

const MEMORY_PACK_COUNT_MAX = 16_384;
const PAGE_PACK_COUNT = 1000;

type Row = { pack: string; frameCount: number; frames: Uint8Array };

/** The uses of one operation. */
export class UseTable implements Disposable {
  readonly #database: Database;
  readonly #memoryPackCountMax: number;
  #recent = new Map<string, PackUse>();
  #isSpilled = false;

  constructor(
    catalog: Pick<Catalog, "database">,
    options: { readonly memoryPackCountMax?: number } = {},
  ) {
    this.#database = catalog.database;
    this.#memoryPackCountMax = options.memoryPackCountMax ?? MEMORY_PACK_COUNT_MAX;
    this.#database.run("DROP TABLE IF EXISTS temp.pack_use");
  }

  /** Adds one frame; `frameCount` is asked for once a pack. */
  addFrame(pack: string, frame: number, frameCount: () => number): void {
    const known = this.#recent.get(pack);
    if (known !== undefined && frame < known.frameCount) {
      setFrame(known.frames, frame);
      return;
    }
    const use = emptyUse(pack, Math.max(frameCount(), frame + 1));
    setFrame(use.frames, frame);
    this.add(use);
  }

  /** Adds all frames of a pack. */
  addPack(pack: string, frameCount: number): void {
    const use = emptyUse(pack, frameCount);
    for (let frame = 0; frame < frameCount; frame++) setFrame(use.frames, frame);
    this.add(use);
  }

  /** Adds what another list says of a pack. */
  add(use: PackUse): void {
    const known = this.#recent.get(use.pack);
    this.#recent.set(use.pack, known === undefined ? copyUse(use) : mergeUses(known, use));
    if (this.#recent.size > this.#memoryPackCountMax) this.#spill();
  }

  /** True if something of the pack is used. */
  has(pack: string): boolean {
    if (this.#recent.has(pack)) return true;
    if (!this.#isSpilled) return false;
    const select = this.#database.query<object, [string]>(
      "SELECT 1 FROM temp.pack_use WHERE pack = ?",
    );
    return select.get(pack) !== null;
  }

  /** All uses, ascending by pack; nothing is added meanwhile. */
  *list(): Generator<PackUse> {
    if (!this.#isSpilled) {
      const packs = [...this.#recent.keys()].toSorted();
      for (const pack of packs) yield this.#recent.get(pack)!;
      return;
    }
    this.#spill();
    const select = this.#database.query<Row, [string, number]>(
      `SELECT pack, frame_count AS frameCount, frames FROM temp.pack_use
       WHERE pack > ? ORDER BY pack LIMIT ?`,
    );
    for (let after = ""; ;) {
      const rows = select.all(after, PAGE_PACK_COUNT);
      yield* rows;
      if (rows.length < PAGE_PACK_COUNT) return;
      after = rows.at(-1)!.pack;
    }
  }

  [Symbol.dispose](): void {
    this.#recent = new Map();
    this.#database.run("DROP TABLE IF EXISTS temp.pack_use");
  }

  #spill(): void {
    this.#isSpilled = true;
    this.#database.run(
      `CREATE TEMP TABLE IF NOT EXISTS pack_use (
         pack TEXT PRIMARY KEY, frame_count INTEGER NOT NULL, frames BLOB NOT NULL) WITHOUT ROWID`,
    );
    const select = this.#database.query<Row, [string]>(
      "SELECT pack, frame_count AS frameCount, frames FROM temp.pack_use WHERE pack = ?",
    );
    const insert = this.#database.query<null, [string, number, Uint8Array]>(
      "INSERT OR REPLACE INTO temp.pack_use (pack, frame_count, frames) VALUES (?, ?, ?)",
    );
    this.#database.transaction(() => {
      for (const use of this.#recent.values()) {
        const stored = select.get(use.pack);
        const merged = stored === null ? use : mergeUses(stored, use);
        insert.run(merged.pack, merged.frameCount, merged.frames);
      }
    })();
    this.#recent = new Map();
  }
}

function emptyUse(pack: string, frameCount: number): PackUse {
  return { pack, frameCount, frames: new Uint8Array(bitmapSizeBytes(frameCount)) };
}

function copyUse(use: PackUse): PackUse {
  return { ...use, frames: use.frames.slice() };
}

/** Who could not see a pack's directory names fewer frames than it has: the larger count is right. */
function mergeUses(one: PackUse, other: PackUse): PackUse {
  const merged = emptyUse(one.pack, Math.max(one.frameCount, other.frameCount));
  for (const { frames } of [one, other]) {
    for (const [index, byte] of frames.entries()) merged.frames[index]! |= byte;
  }
  return merged;
}
