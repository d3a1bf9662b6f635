/**
 * The packs that must not go: those in the lists of all listed and pinned backups, and those in the
 * segments of all keeps. Everything comes from objects whose hash was checked; a list that cannot be
 * read counts as naming every pack, and says so. `refresh` adds what newer entries brought, so that
 * a decision can be made again at each entry of the log; what left since only makes the set too
 * large. Memory: the ids of the lists' leaves; the packs lie in a temporary table of the catalog.
 */
import type { Database, Statement } from "bun:sqlite";
import { AppError, toAppError } from "../../base/error.ts";
import { fromHex } from "../../base/hex.ts";
import { ByteReader, idKey } from "../format/bytes.ts";
import { getSegment } from "./moved-on.ts";
import type { PackUse } from "../format/pack-list.ts";
import { decodePackUse } from "../format/pack-list.ts";
import { movedPacks } from "./pack-uses.ts";
import type { UseSource } from "./pack-uses.ts";
import type { Repository } from "../log/repository.ts";
import { isPinned } from "../log/state.ts";
import type { BackupRecord, Move, RepositoryState } from "../log/state.ts";
import { listTreeNodes } from "../format/tree.ts";

/** What is looked at as if it had gone already, for plans. */
export type Without = {
  readonly backups: ReadonlySet<string>;
  /** Operations whose keeps do not count. */
  readonly keeps: ReadonlySet<string>;
};

/** How the lists use a pack. */
export type ListUse = "all" | Uint8Array;

type Row = { isWhole: number; isKept: number; frames: Uint8Array | null };

/** Something that uses packs, and how it is read. */
type Wanted = {
  readonly add: (signal: AbortSignal | undefined) => Promise<void>;
  /** Of a backup. */
  readonly backup?: BackupRecord;
  readonly moves: readonly Move[];
};

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
  /** Leaves that were read, with their uses of packs that a repack moved: these are read by backup. */
  readonly #leaves = new Map<string, readonly PackUse[]>();
  readonly #everMoved = new Set<string>();
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
  #listWanted(state: RepositoryState, without: Without): Map<string, Wanted> {
    const wanted = new Map<string, Wanted>();
    for (const backup of state.backups.values()) {
      const isListed = backup.forgotten === undefined && !without.backups.has(backup.backup);
      if (!isListed && !isPinned(state, backup.backup)) continue;
      const moves = state.moves.get(backup.backup) ?? [];
      const add: Wanted["add"] = async (signal) => await this.#addBackup(backup, moves, signal);
      wanted.set(keyOf(backup, moves), { add, backup, moves });
    }
    for (const [operation, keep] of state.keeps) {
      if (without.keeps.has(operation)) continue;
      for (const id of keep.segments) {
        const add: Wanted["add"] = async (signal) => await this.#addSegment(state, id, signal);
        wanted.set(id, { add, moves: [] });
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
    const movedCount = this.#everMoved.size;
    for (const moves of state.moves.values()) {
      for (const { from } of moves) for (const pack of from) this.#everMoved.add(pack);
    }
    // Leaves that were read before a repack do not say which of its packs they use.
    if (this.#everMoved.size > movedCount) this.#leaves.clear();
    for (const [key, one] of wanted) {
      if (this.#covered.has(key) || this.#coverMoves(key, one)) continue;
      try {
        await one.add(signal);
        this.#covered.add(key);
        this.#unreadable.delete(key);
      } catch (thrown) {
        const error = toAppError(thrown);
        // Only what is wrong with the repository is an alarm; a site that is away ends the cleanup.
        if (error.kind !== "damaged" && error.kind !== "not-found") throw thrown;
        if (error.context["catalog"] === true) throw thrown;
        const now = await this.#repository.catchUp(signal);
        if (!this.#listWanted(now, without).has(key)) return false;
        this.#unreadable.set(key, error.message);
      }
    }
    return true;
  }

  /** A backup that was read before its newest moves: they only add the packs that were moved to. */
  #coverMoves(key: string, { backup, moves }: Wanted): boolean {
    if (backup === undefined) return false;
    for (let count = moves.length - 1; count >= 0; count--) {
      if (!this.#covered.has(keyOf(backup, moves.slice(0, count)))) continue;
      this.#addWhole(moves.slice(count).flatMap(({ to }) => to));
      this.#covered.add(key);
      return true;
    }
    return false;
  }

  async #addBackup(
    backup: BackupRecord,
    moves: readonly Move[],
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const moved = movedPacks(moves);
    this.#addWhole(backup.listPacks.flatMap((pack) => moved.get(pack) ?? [pack]));
    const read = async (id: Uint8Array, length: number): Promise<Uint8Array> =>
      await this.#source.fetch(id, length, signal);
    for (const { root } of backup.lists) {
      for await (const node of listTreeNodes(root, read, { signal })) {
        if (node.level > 0) continue;
        const key = idKey(node.id);
        const uses = this.#leaves.get(key) ?? this.#addLeaf(await read(node.id, node.length));
        this.#leaves.set(key, uses);
        this.#addWhole(uses.flatMap(({ pack }) => moved.get(pack) ?? []));
        this.#addUses(uses.filter(({ pack }) => !moved.has(pack)));
      }
    }
  }

  /** Adds what all backups read alike; returns the rest. */
  #addLeaf(bytes: Uint8Array): PackUse[] {
    const uses = decodeLeaf(bytes);
    this.#addUses(uses.filter(({ pack }) => !this.#everMoved.has(pack)));
    return uses
      .filter(({ pack }) => this.#everMoved.has(pack))
      .map((use) => ({ ...use, frames: use.frames.slice() }));
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

/** Tells a backup and the moves with which its lists are read. */
function keyOf({ sequence }: BackupRecord, moves: readonly Move[]): string {
  // Moves only ever follow each other, so that the last one and their number tell them all.
  return `${sequence}/${moves.length}/${moves.at(-1)?.sequence ?? 0}`;
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
