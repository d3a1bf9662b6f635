/**
 * What a node remembers of a site's log, in its catalog: which repository and site it is bound to,
 * the last entry it read and that entry's hash, raw entries, a snapshot of the state, and the commit
 * whose outcome is not known yet. The state is never stored as such: it is replayed from a snapshot
 * and the raw entries after it, and must come out at the remembered hash.
 */
import { AppError } from "../../base/error.ts";
import { decodeCheckpoint, encodeCheckpoint } from "../log/checkpoint.ts";
import { damagedCatalog, guardRead } from "./catalog.ts";
import type { Catalog } from "./catalog.ts";
import { decodeEntry, entryHash } from "../log/entry.ts";
import type { RepositoryHeader } from "../format/header.ts";
import { PLAIN_SEALER } from "../format/seal.ts";
import type { Sealer } from "../format/seal.ts";
import { Replay } from "../log/replay.ts";
import { emptyState } from "../log/state.ts";
import type { CheckpointRef, RepositoryState } from "../log/state.ts";

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS log_binding (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    repository TEXT NOT NULL,
    site TEXT NOT NULL,
    header TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    hash TEXT NOT NULL,
    indexed INTEGER NOT NULL,
    checksum INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS log_entry (
    sequence INTEGER PRIMARY KEY,
    bytes BLOB NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS log_snapshot (
    sequence INTEGER PRIMARY KEY,
    hash TEXT NOT NULL,
    bytes BLOB NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS log_pending (
    sequence INTEGER PRIMARY KEY,
    hash TEXT NOT NULL,
    bytes BLOB NOT NULL
  ) STRICT;`;

/** All but the pending commit, which was checked by its hash and must not be forgotten. */
const REBUILT_TABLES = ["binding", "entry", "snapshot"];
/** After so many entries the snapshot is renewed. */
const SNAPSHOT_ENTRY_COUNT = 64;
/** Raw entries kept before the snapshot: any of them can mend the log, should the site lose it. */
const OLD_ENTRY_COUNT_KEPT = 4096;

/** What the catalog is bound to. */
export type Binding = {
  readonly repository: string;
  readonly site: string;
  /** The hash of the header. */
  readonly header: string;
  readonly sequence: number;
  readonly hash: string;
  /** Up to where the index of chunks has followed. */
  readonly indexed: number;
};

/** A log entry as it was read. */
export type RawEntry = { readonly sequence: number; readonly bytes: Uint8Array };

/** The log in a catalog. */
export class CatalogLog {
  readonly #catalog: Catalog;
  readonly #sealer: Sealer;

  constructor(catalog: Catalog, sealer: Sealer = PLAIN_SEALER) {
    this.#catalog = catalog;
    this.#sealer = sealer;
    guardRead(() => catalog.database.run(SCHEMA));
  }

  /**
   * What the catalog is bound to; undefined if it has seen nothing. A row that has rotted is AppError
   * `damaged` with `context.catalog`: else the node would refuse its own site, or skip segments.
   */
  getBinding(): Binding | undefined {
    const row = guardRead(() =>
      this.#catalog.database
        .query<Binding & { readonly checksum: number }, []>(
          "SELECT repository, site, header, sequence, hash, indexed, checksum FROM log_binding",
        )
        .get(),
    );
    if (row === null) return undefined;
    const { checksum, ...binding } = row;
    if (checksum === bindingChecksum(binding)) return binding;
    throw damagedCatalog("the row that says what it is bound to has a wrong checksum");
  }

  /** The remembered state; AppError `damaged` with `context.catalog` if it does not come out right. */
  load(header: RepositoryHeader, headerHash: string): RepositoryState {
    const binding = this.getBinding();
    if (binding === undefined) return emptyState(headerHash, header);
    try {
      const replay = new Replay(this.#loadSnapshot() ?? emptyState(headerHash, header));
      for (const { sequence, bytes } of this.#entriesAfter(replay.state.sequence)) {
        replay.apply(decodeEntry(bytes, sequence, this.#sealer), entryHash(bytes));
      }
      const { state } = replay;
      if (state.sequence === binding.sequence && state.entryHash === binding.hash) return state;
    } catch (thrown) {
      if (!(thrown instanceof AppError) || thrown.kind !== "damaged") throw thrown;
      throw damagedCatalog(`its copy of the log does not replay (${thrown.message})`, thrown);
    }
    throw damagedCatalog("its copy of the log does not end where it should");
  }

  /**
   * Remembers entries and the state after them, in one transaction. A state that does not follow from
   * remembered entries (it was read from a checkpoint) must be kept whole: `whole`.
   */
  save(
    state: RepositoryState,
    entries: readonly RawEntry[],
    options: { readonly whole?: boolean } = {},
  ): void {
    const { database } = this.#catalog;
    this.#catalog.transaction(() => {
      this.#refuseOlder(state);
      const insert = database.query<null, [number, Uint8Array]>(
        "INSERT OR REPLACE INTO log_entry (sequence, bytes) VALUES (?, ?)",
      );
      for (const { sequence, bytes } of entries) insert.run(sequence, bytes);
      this.#setBinding({
        repository: state.repositoryId,
        site: state.siteId,
        header: state.headerHash,
        sequence: state.sequence,
        hash: state.entryHash,
        indexed: this.getBinding()?.indexed ?? 0,
      });
      if (options.whole === true || this.#isSnapshotOld(state)) this.#renewSnapshot(state);
    });
  }

  /** Notes that the index of chunks has followed up to an entry. */
  setIndexed(sequence: number): void {
    this.#catalog.transaction(() => {
      const binding = this.getBinding();
      if (binding !== undefined) this.#setBinding({ ...binding, indexed: sequence });
    });
  }

  /** A raw entry, if it is remembered. */
  getEntry(sequence: number): Uint8Array | undefined {
    const row = guardRead(() =>
      this.#catalog.database
        .query<{ bytes: Uint8Array }, [number]>("SELECT bytes FROM log_entry WHERE sequence = ?")
        .get(sequence),
    );
    return row?.bytes;
  }

  /** The commit whose outcome is not known, if there is one. */
  getPending(): (RawEntry & { readonly hash: string }) | undefined {
    const row = guardRead(() =>
      this.#catalog.database
        .query<{ sequence: number; hash: string; bytes: Uint8Array }, []>(
          "SELECT sequence, hash, bytes FROM log_pending",
        )
        .get(),
    );
    // Bytes that were damaged here must not get into the log: who has sent them may find them there.
    if (row !== null && entryHash(row.bytes) !== row.hash) {
      this.setPending(undefined);
      return undefined;
    }
    return row ?? undefined;
  }

  /** Journals a commit before it is sent; undefined when its outcome is known. */
  setPending(entry: RawEntry | undefined): void {
    const { database } = this.#catalog;
    this.#catalog.transaction(() => {
      database.run("DELETE FROM log_pending");
      if (entry === undefined) return;
      database
        .query("INSERT INTO log_pending (sequence, hash, bytes) VALUES ($sequence, $hash, $bytes)")
        .run({ sequence: entry.sequence, hash: entryHash(entry.bytes), bytes: entry.bytes });
    });
  }

  /** Forgets everything but the pending commit. */
  clear(): void {
    guardRead(() => {
      for (const table of REBUILT_TABLES) {
        this.#catalog.database.run(`DROP TABLE IF EXISTS log_${table}`);
      }
      this.#catalog.database.run(SCHEMA);
    });
  }

  #setBinding(binding: Binding): void {
    this.#catalog.database
      .query(
        `INSERT OR REPLACE INTO log_binding
           (one, repository, site, header, sequence, hash, indexed, checksum)
         VALUES (1, $repository, $site, $header, $sequence, $hash, $indexed, $checksum)`,
      )
      .run({ ...binding, checksum: bindingChecksum(binding) });
  }

  #loadSnapshot(): RepositoryState | undefined {
    const row = this.#catalog.database
      .query<CheckpointRef & { bytes: Uint8Array }, []>(
        "SELECT sequence, hash, bytes FROM log_snapshot ORDER BY sequence DESC LIMIT 1",
      )
      .get();
    return row === null ? undefined : decodeCheckpoint(row.bytes, row, this.#sealer);
  }

  *#entriesAfter(sequence: number): Generator<RawEntry, void, undefined> {
    yield* this.#catalog.database
      .query<RawEntry, [number]>(
        "SELECT sequence, bytes FROM log_entry WHERE sequence > ? ORDER BY sequence",
      )
      .iterate(sequence);
  }

  /** Another process that uses this catalog may have read further: it must not be set back. */
  #refuseOlder(state: RepositoryState): void {
    const sequence = this.getBinding()?.sequence ?? 0;
    if (sequence <= state.sequence) return;
    throw new AppError("conflict", "Another process has written to the local catalog.", {
      guidance: "Stop the other process, or give each its own state directory.",
      retryable: true,
      context: { path: this.#catalog.path, known: state.sequence, found: sequence },
    });
  }

  /**
   * A blocked state gets no snapshot: a later version of this code, which knows the kind that blocked
   * it, must replay that entry.
   */
  #isSnapshotOld(state: RepositoryState): boolean {
    if (state.blocked !== undefined) return false;
    const last = this.#catalog.database
      .query<{ sequence: number | null }, []>("SELECT max(sequence) AS sequence FROM log_snapshot")
      .get()?.sequence;
    return state.sequence - (last ?? 0) >= SNAPSHOT_ENTRY_COUNT;
  }

  #renewSnapshot(state: RepositoryState): void {
    const { database } = this.#catalog;
    const { bytes, hash } = encodeCheckpoint(state, this.#sealer);
    database.run("DELETE FROM log_snapshot");
    database
      .query("INSERT INTO log_snapshot (sequence, hash, bytes) VALUES ($sequence, $hash, $bytes)")
      .run({ sequence: state.sequence, hash, bytes });
    database
      .query("DELETE FROM log_entry WHERE sequence <= $oldest")
      .run({ oldest: state.sequence - OLD_ENTRY_COUNT_KEPT });
  }
}

function bindingChecksum(binding: Binding): number {
  const { repository, site, header, sequence, hash, indexed } = binding;
  return Bun.hash.xxHash32([repository, site, header, sequence, hash, indexed].join(" "));
}
