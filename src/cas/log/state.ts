/**
 * The state of a repository: what the log says up to an entry. It never changes; replay.ts makes the
 * next one of it, and everything else reads it. Contents of index segments are not in it, and so
 * nothing here is of the size of the store but the ids of retired packs.
 */
import type { BackupBody, EntryBodies, ForgetRef } from "./entry.ts";
import type { RepositoryHeader } from "../format/header.ts";
import type { StoredKey } from "../format/seal.ts";

/** Why and since when a backup is forgotten. */
export type Forgotten = {
  readonly sequence: number;
  readonly time: string;
  readonly reason: string;
  readonly scope: "site" | "all";
  /** The first of the entries that say so; those at other sites carry it. */
  readonly origin: Readonly<ForgetRef>;
};

/** A backup that the log lists or has forgotten and not yet deleted. */
export type BackupRecord = Readonly<BackupBody> & {
  readonly sequence: number;
  readonly time: string;
  readonly operation: string;
  readonly forgotten?: Forgotten;
  /** Origins of what was undone or overridden here: none of these forgets reaches it again. */
  readonly undone?: readonly Readonly<ForgetRef>[];
};

/** A pin: its backup is neither deleted nor are its packs. */
export type Pin = {
  readonly backup: string;
  readonly reason: string;
  readonly sequence: number;
  readonly time: string;
};

/** What an operation under way holds on to. */
export type Keep = {
  readonly segments: readonly string[];
  readonly sequence: number;
  readonly time: string;
  readonly node: string;
};

/** A current index segment and the entry that made it so. */
export type CurrentSegment = Readonly<EntryBodies["keep"]["segments"][number]> & {
  readonly sequence: number;
};

/** Since when a pack is retired. */
export type Retired = { readonly sequence: number; readonly time: string };

/** The `delete` of a pack that a current segment still mentions. */
export type Deleted = { readonly sequence: number; readonly floor: number };

/** One repack, for the lists of the backups that it speaks for. */
export type Move = {
  readonly sequence: number;
  readonly from: readonly string[];
  readonly to: readonly string[];
};

/** The sites and their roles, and the entry that says so. */
export type Roles = Readonly<EntryBodies["role"]> & { readonly sequence: number };

/** The end of a log. */
export type Closed = Readonly<EntryBodies["closed"]> & {
  readonly sequence: number;
  readonly time: string;
};

/** The newest checkpoint that the log names. */
export type CheckpointRef = { readonly sequence: number; readonly hash: string };

/** The whole state at an entry. */
export type RepositoryState = {
  readonly header: RepositoryHeader;
  readonly headerHash: string;
  readonly repositoryId: string;
  readonly siteId: string;
  /** Of the last entry; 0 before the first. */
  readonly sequence: number;
  /** Of the last entry's bytes; before the first, of the header's. */
  readonly entryHash: string;
  /** What is not named and was born here or below is garbage. */
  readonly floor: number;
  /** Listed and forgotten backups by id. */
  readonly backups: ReadonlyMap<string, BackupRecord>;
  /** The ids of all backups that this log ever took. */
  readonly everIds: ReadonlySet<string>;
  /** Backups that were forgotten for all sites and are not in this log any more, or never were. */
  readonly buried: ReadonlyMap<string, Readonly<ForgetRef>>;
  readonly pins: ReadonlyMap<string, Pin>;
  /** By operation. */
  readonly keeps: ReadonlyMap<string, Keep>;
  /** Current index segments by id, in the order in which they became current. */
  readonly segments: ReadonlyMap<string, CurrentSegment>;
  readonly retired: ReadonlyMap<string, Retired>;
  /** Ask `isDeletedPack`: a pack that was copied again later is not deleted. */
  readonly deleted: ReadonlyMap<string, Deleted>;
  /** By backup, in the order of the log. */
  readonly moves: ReadonlyMap<string, readonly Move[]>;
  /** The births under which repaired packs lie, whatever the segments say. */
  readonly repairs: ReadonlyMap<string, number>;
  /** Session keys of an encrypted repository by id: where each lies, and who can open it. */
  readonly keys: ReadonlyMap<string, StoredKey>;
  readonly checkpoint?: CheckpointRef;
  /** The first entry of the newest operation that retired or deleted something. */
  readonly lastCleanup?: { readonly sequence: number; readonly operation: string };
  /** The best `role` entry that this log has seen. */
  readonly roles?: Roles;
  /** Set when the log has ended: nothing after that entry counts, and nothing is removed. */
  readonly closed?: Closed;
  /** Why this code may not commit any more: it met an entry that it does not understand. */
  readonly blocked?: string;
};

/** The state before entry 1. */
export function emptyState(headerHash: string, header: RepositoryHeader): RepositoryState {
  return {
    header,
    headerHash,
    repositoryId: header.repository,
    siteId: header.site,
    sequence: 0,
    entryHash: headerHash,
    floor: 0,
    backups: new Map(),
    everIds: new Set(),
    buried: new Map(),
    pins: new Map(),
    keeps: new Map(),
    segments: new Map(),
    retired: new Map(),
    deleted: new Map(),
    moves: new Map(),
    keys: new Map(),
    repairs: new Map(),
  };
}

/** Listed backups, in the order of the log. */
export function listedBackups(state: RepositoryState): BackupRecord[] {
  return [...state.backups.values()]
    .filter((backup) => backup.forgotten === undefined)
    .toSorted((a, b) => a.sequence - b.sequence);
}

/**
 * The complete listed backup (of a cluster) that began last. A site may take backups of another one
 * late, so the last in the log may be an old one.
 */
export function newestComplete(state: RepositoryState, cluster?: string): BackupRecord | undefined {
  return listedBackups(state)
    .toSorted(byStart)
    .findLast((backup) => backup.complete && (cluster === undefined || backup.cluster === cluster));
}

/** Oldest first, as people count backups: by start, then by end, then as they were committed. */
export function byStart(
  a: Pick<BackupRecord, "started" | "ended" | "sequence">,
  b: Pick<BackupRecord, "started" | "ended" | "sequence">,
): number {
  return (
    Date.parse(a.started) - Date.parse(b.started) ||
    Date.parse(a.ended) - Date.parse(b.ended) ||
    a.sequence - b.sequence
  );
}

/** True if this forget was undone or overridden where the record stands. */
export function hasUndone(
  record: Pick<BackupRecord, "undone"> | undefined,
  origin: ForgetRef | undefined,
): boolean {
  return (
    origin !== undefined &&
    record?.undone?.some(
      ({ site, sequence }) => site === origin.site && sequence === origin.sequence,
    ) === true
  );
}

/** True if any pin holds the backup. */
export function isPinned(state: RepositoryState, backupId: string): boolean {
  return state.pins.values().some((pin) => pin.backup === backupId);
}

/**
 * True if the pack of this birth was deleted. What is copied again after a `delete` has a birth
 * above the floor of that entry, which is how the two are told apart.
 */
export function isDeletedPack(
  state: Pick<RepositoryState, "deleted">,
  pack: string,
  birth: number,
): boolean {
  const deleted = state.deleted.get(pack);
  return deleted !== undefined && birth <= deleted.floor;
}

/** The birth under which a pack lies that a segment mentions under `birth`. */
export function birthOfPack(
  state: Pick<RepositoryState, "repairs">,
  pack: string,
  birth: number,
): number {
  return state.repairs.get(pack) ?? birth;
}

/** True if the roles of `one` count where `other` is known too. */
export function areBetterRoles(
  one: Pick<Roles, "epoch" | "primary">,
  other: Pick<Roles, "epoch" | "primary"> | undefined,
): boolean {
  if (other === undefined || one.epoch !== other.epoch) return one.epoch > (other?.epoch ?? 0);
  return one.primary < other.primary;
}
