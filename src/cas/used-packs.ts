/**
 * The packs that must not go: those in the lists of all listed and pinned backups, and those in the
 * segments of all keeps. Everything comes from objects whose hash was checked; a list that cannot be
 * read counts as naming every pack, and says so. `refresh` adds what newer entries brought, so that
 * a decision can be made again at each entry of the log; what left since only makes the set too
 * large. Memory: the ids of visited tree nodes; the packs lie in a temporary table of the catalog.
 */
import type { Database, Statement } from "bun:sqlite";
import { AppError, toAppError } from "../base/error.ts";
import { fromHex } from "../base/hex.ts";
import { ByteReader, idKey } from "./bytes.ts";
import { getSegment } from "./moved-on.ts";
import type { PackUse } from "./pack-list.ts";
import { decodePackUse } from "./pack-list.ts";
import { movedPacks } from "./pack-uses.ts";
import type { UseSource } from "./pack-uses.ts";
import type { Repository } from "./repository.ts";
import { isPinned } from "./state.ts";
import type { BackupRecord, RepositoryState } from "./state.ts";
import type { TreeRoot } from "./tree.ts";
import { listTreeNodes } from "./tree.ts";

/** What is looked at as if it had gone already, for plans. */
export type Without = {
  readonly backups: ReadonlySet<string>;
  /** Operations whose keeps do not count. */
  readonly keeps: ReadonlySet<string>;
};

/** How the lists use a pack. */
export type ListUse = "all" | Uint8Array;

type Row = { isWhole: number; isKept: number; frames: Uint8Array | null };

/** Backups whose lists are read in the same way share what was read. */
type Group = {
  readonly moved: ReadonlyMap<string, readonly string[]>;
  readonly visited: Set<string>;
};

type Add = (signal: AbortSignal | undefined) => Promise<void>;

const NOTHING: Without = { backups: new Set(), keeps: new Set() };

let tableCount = 0;

/**
 * The set of packs in use.
 *
 * @example
 * using used = new UsedPacks(repository, source);
 * await used.refresh(state, { signal });
 * if (!used.has(pack)) …
 */
export class UsedPacks implements Disposable {
  readonly #repository: Repository;
  readonly #source: UseSource;
  readonly #database: Database;
  readonly #table: string;
  readonly #select: Statement<Row, [Uint8Array]>;
  readonly #insert: Statement<null, [Uint8Array, number, number, Uint8Array | null]>;
  readonly #groups = new Map<string, Group>();
  readonly #covered = new Set<string>();
  /** What could not be read, by the key of `#covered`. */
  readonly #unreadable = new Map<string, string>();

  constructor(repository: Repository, source: UseSource) {
    tableCount += 1;
    this.#repository = repository;
    this.#source = source;
    this.#database = repository.catalog.database;
    this.#table = `temp.used_pack_${tableCount}`;
    this.#database.run(`CREATE TEMP TABLE used_pack_${tableCount} (
      pack BLOB NOT NULL PRIMARY KEY, is_whole INTEGER NOT NULL, is_kept INTEGER NOT NULL,
      frames BLOB) STRICT, WITHOUT ROWID`);
    // Prepared and not `query`: that one keeps statements by their text, and the name is unique.
    this.#select = this.#database.prepare(
      `SELECT is_whole AS isWhole, is_kept AS isKept, frames FROM ${this.#table} WHERE pack = ?`,
    );
    this.#insert = this.#database.prepare(
      `INSERT OR REPLACE INTO ${this.#table} (pack, is_whole, is_kept, frames)
       VALUES (?, ?, ?, ?)`,
    );
  }

  /** Why the set names every pack; empty if all could be read. */
  get alarms(): readonly string[] {
    return [...this.#unreadable.values()];
  }

  /** Adds what the state names and was not added yet. */
  async refresh(
    state: RepositoryState,
    options: { readonly without?: Without; readonly signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    const { without = NOTHING, signal } = options;
    // What cannot be read any more because the log moved on is read as the newer state names it.
    for (let at = state; ; at = this.#repository.state) {
      if (await this.#coverAll(at, without, signal)) return;
    }
  }

  /** True if the pack must stay. */
  has(pack: string): boolean {
    return this.#unreadable.size > 0 || this.#row(pack) !== null;
  }

  /** True if a keep holds the pack, or may. */
  isKept(pack: string): boolean {
    return this.#unreadable.size > 0 || (this.#row(pack)?.isKept ?? 0) !== 0;
  }

  /** The frames that lists use; undefined if no list names the pack. */
  framesOf(pack: string): ListUse | undefined {
    if (this.#unreadable.size > 0) return "all";
    const row = this.#row(pack);
    if (row === null) return undefined;
    if (row.isWhole !== 0) return "all";
    return row.frames ?? undefined;
  }

  [Symbol.dispose](): void {
    this.#select.finalize();
    this.#insert.finalize();
    this.#database.run(`DROP TABLE IF EXISTS ${this.#table}`);
  }

  /** What the state names, by a key that tells how it is read. */
  #listWanted(state: RepositoryState, without: Without): Map<string, Add> {
    const wanted = new Map<string, Add>();
    for (const backup of state.backups.values()) {
      const isListed = backup.forgotten === undefined && !without.backups.has(backup.backup);
      if (!isListed && !isPinned(state, backup.backup)) continue;
      const moves = state.moves.get(backup.backup) ?? [];
      const way = moves.map(({ sequence }) => sequence).join();
      wanted.set(`${backup.sequence}/${way}`, async (signal) => {
        const group = this.#groups.get(way) ?? { moved: movedPacks(moves), visited: new Set() };
        this.#groups.set(way, group);
        await this.#addBackup(backup, group, signal);
      });
    }
    for (const [operation, keep] of state.keeps) {
      if (without.keeps.has(operation)) continue;
      for (const id of keep.segments) {
        wanted.set(id, async (signal) => await this.#addSegment(state, id, signal));
      }
    }
    return wanted;
  }

  /** True if all that the state names is covered, or is known to be unreadable. */
  async #coverAll(
    state: RepositoryState,
    without: Without,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    const wanted = this.#listWanted(state, without);
    for (const key of this.#unreadable.keys()) if (!wanted.has(key)) this.#unreadable.delete(key);
    for (const [key, add] of wanted) {
      if (this.#covered.has(key)) continue;
      try {
        await add(signal);
        this.#covered.add(key);
        this.#unreadable.delete(key);
      } catch (thrown) {
        const error = toAppError(thrown);
        // Only what is wrong with the repository is an alarm; a site that is away ends the cleanup.
        if (error.kind !== "damaged" && error.kind !== "not-found") throw thrown;
        const now = await this.#repository.catchUp(signal);
        if (!this.#listWanted(now, without).has(key)) return false;
        this.#unreadable.set(key, error.message);
      }
    }
    return true;
  }

  async #addBackup(
    backup: BackupRecord,
    group: Group,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    this.#addWhole(backup.listPacks.flatMap((pack) => group.moved.get(pack) ?? [pack]));
    // A node counts as visited only when all of its tree was read.
    const visited: string[] = [];
    for (const { root } of backup.lists) await this.#addTree(root, group, visited, signal);
    for (const key of visited) group.visited.add(key);
  }

  async #addTree(
    root: TreeRoot,
    group: Group,
    visited: string[],
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const read = async (id: Uint8Array, length: number): Promise<Uint8Array> =>
      await this.#source.fetch(id, length, signal);
    const skip = (key: string): boolean => group.visited.has(key);
    for await (const node of listTreeNodes(root, read, { skip, signal })) {
      visited.push(idKey(node.id));
      if (node.level > 0) continue;
      const uses = decodeLeaf(await read(node.id, node.length));
      this.#addWhole(uses.flatMap(({ pack }) => group.moved.get(pack) ?? []));
      this.#addUses(uses.filter(({ pack }) => !group.moved.has(pack)));
    }
  }

  async #addSegment(
    state: RepositoryState,
    id: string,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const ref = state.segments.get(id);
    const segment = ref && (await getSegment(this.#repository, ref, signal));
    if (segment === undefined) {
      throw new AppError("damaged", `Segment ${id}, which a keep names, is missing.`, {
        guidance: "Run `astacus verify`; drop the keep if its operation has ended.",
        context: { segment: id },
      });
    }
    this.#write(segment.packs.map((pack) => [pack.id, { isKept: 1 }]));
  }

  #addWhole(packs: readonly string[]): void {
    this.#write(packs.map((pack) => [pack, { isWhole: 1 }]));
  }

  #addUses(uses: readonly PackUse[]): void {
    this.#write(uses.map(({ pack, frames }) => [pack, { frames }]));
  }

  #write(rows: readonly (readonly [pack: string, row: Partial<Row>])[]): void {
    if (rows.length === 0) return;
    this.#database.transaction(() => {
      for (const [pack, added] of rows) {
        const known = this.#row(pack);
        const isWhole = (known?.isWhole ?? 0) | (added.isWhole ?? 0);
        const isKept = (known?.isKept ?? 0) | (added.isKept ?? 0);
        const frames = joinFrames(known?.frames ?? null, added.frames ?? null);
        this.#insert.run(fromHex(pack), isWhole, isKept, frames);
      }
    })();
  }

  #row(pack: string): Row | null {
    return this.#select.get(fromHex(pack));
  }
}

/** The records of a leaf, whose bytes match its id. */
function decodeLeaf(bytes: Uint8Array): PackUse[] {
  const reader = new ByteReader(bytes, "A leaf of a pack list");
  reader.u8();
  const uses: PackUse[] = [];
  while (reader.remaining > 0) uses.push(decodePackUse(reader.bytes()));
  return uses;
}

/** Two bitmaps of one pack as one; who saw fewer frames has the shorter one. */
function joinFrames(one: Uint8Array | null, other: Uint8Array | null): Uint8Array | null {
  if (one === null || other === null) return one ?? other;
  const [short, long] = one.length < other.length ? [one, other] : [other, one];
  return long.map((byte, index) => byte | (short[index] ?? 0));
}
