/**
 * Owner, mode, times and extended attributes of what is restored. Only what differs is set, so that
 * a second restore changes nothing; what we may not set is counted and does not stop a restore. A
 * file that cannot be given its owner loses the bits that would run it as somebody else.
 */
import type { FileStat, FileSystem } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { parentPath } from "../../base/path.ts";
import type { FileRecord } from "../format/listing.ts";

/** Whom restored files belong to: as recorded, as the directory they are put in, or as it comes. */
export type OwnerPolicy = "recorded" | "parent" | "none";

type Owner = { readonly uid: number; readonly gid: number };

/** What is set of a record. */
type Restorable = Pick<FileRecord, "type" | "mode" | "uid" | "gid" | "mtimeNs" | "xattrs">;

/** What is there already; a time that is not known is set in any case. */
type Present = Owner & { readonly mode: number; readonly mtimeNs: bigint | undefined };

const RUN_AS_BITS = 0o6000;
const PRIVATE_MODE = 0o600;

/** Sets attributes, and counts what could not be set. */
export class RestoreAttributes {
  ownersNotSet = 0;
  xattrsNotSet = 0;
  readonly #files: FileSystem;
  readonly #policy: OwnerPolicy;
  #lastParent: { readonly path: string; readonly owner: Owner } | undefined;
  /** How files begin in the directory where the last one was made, by the mode asked for. */
  #newcomers: { readonly parent: string; readonly byMode: Map<number, Present> } | undefined;

  constructor(files: FileSystem, policy: OwnerPolicy) {
    this.#files = files;
    this.#policy = policy;
  }

  /** Gives what we have just made its attributes; whoever has it open can tell what it has. */
  give(path: string, record: Restorable): void {
    const stat = this.#files.lstat(path);
    if (stat !== undefined) this.#set(path, record, stat, true);
  }

  /**
   * The mode to make a file with: its own, which spares setting it, if it will belong to whom new
   * files there belong to; else nobody but us may open it.
   */
  modeToCreate(path: string, record: Restorable): number {
    const first = this.#newcomers?.byMode.get(PRIVATE_MODE);
    if (first === undefined || this.#newcomers?.parent !== parentPath(path)) return PRIVATE_MODE;
    const { uid, gid } = this.#wantedOwner(path, record, true) ?? first;
    return uid === first.uid && gid === first.gid ? record.mode & 0o777 : PRIVATE_MODE;
  }

  /**
   * Gives a file that we have just made its attributes. All files that we make in one directory
   * with one mode begin alike, so that only the first is looked at.
   */
  giveFile(
    path: string,
    record: Restorable,
    made: { readonly mode: number | undefined; readonly look: () => FileStat },
  ): void {
    const parent = parentPath(path);
    if (this.#newcomers?.parent !== parent) this.#newcomers = { parent, byMode: new Map() };
    const { byMode } = this.#newcomers;
    const known = made.mode === undefined ? undefined : byMode.get(made.mode);
    if (known !== undefined) {
      this.#set(path, record, known, true);
      return;
    }
    const { mode, uid, gid } = made.look();
    const present = { mode, uid, gid, mtimeNs: undefined };
    if (made.mode !== undefined) byMode.set(made.mode, present);
    this.#set(path, record, present, true);
  }

  /** Looks again at how files begin: somebody may have changed their directory meanwhile. */
  forgetDirectories(): void {
    this.#newcomers = undefined;
  }

  /** Mends what was there already; true if anything had to be. */
  mend(path: string, record: Restorable, stat: FileStat): boolean {
    return this.#set(path, record, stat, false);
  }

  /** The owner alone, for a directory that gets the rest when it is full. */
  giveOwner(path: string, record: Owner): void {
    const stat = this.#files.lstat(path);
    if (stat !== undefined) this.#setOwner(path, record, stat, true);
  }

  #set(path: string, record: Restorable, stat: Present, isNew: boolean): boolean {
    let isChanged = this.#setXattrs(path, record, isNew);
    const owner = this.#setOwner(path, record, stat, isNew);
    isChanged ||= owner !== stat;
    if (record.type !== "symlink") {
      const mode = modeFor(record, owner);
      // A new owner takes set-user bits away.
      if (mode !== stat.mode || (owner !== stat && (mode & RUN_AS_BITS) !== 0)) {
        this.#files.setMode(path, mode);
        isChanged = true;
      }
    }
    if (record.mtimeNs !== stat.mtimeNs) {
      this.#files.setTimes(path, record.mtimeNs);
      isChanged = true;
    }
    return isChanged;
  }

  /** The owner afterwards: `stat` itself if nothing changed. */
  #setOwner(path: string, record: Owner, stat: Owner, isNew: boolean): Owner {
    const wanted = this.#wantedOwner(path, record, isNew);
    if (wanted === undefined) return stat;
    if (wanted.uid === stat.uid && wanted.gid === stat.gid) return stat;
    if (!this.#isAllowed(() => this.#files.setOwner(path, wanted.uid, wanted.gid))) {
      this.ownersNotSet += 1;
      return stat;
    }
    return wanted;
  }

  #wantedOwner(path: string, record: Owner, isNew: boolean): Owner | undefined {
    if (this.#policy === "recorded") return record;
    if (this.#policy === "none" || !isNew) return undefined;
    const parent = parentPath(path);
    if (this.#lastParent?.path !== parent) {
      const owner = this.#files.lstat(parent);
      if (owner === undefined) return undefined;
      this.#lastParent = { path: parent, owner };
    }
    return this.#lastParent.owner;
  }

  #setXattrs(path: string, record: Restorable, isNew: boolean): boolean {
    if (record.xattrs.size === 0 || record.type === "symlink") return false;
    const present = isNew ? undefined : this.#files.readXattrs(path);
    let isChanged = false;
    for (const [name, value] of record.xattrs) {
      const existing = present?.get(name);
      if (existing !== undefined && Buffer.compare(existing, value) === 0) continue;
      if (this.#isAllowed(() => this.#files.setXattr(path, name, value))) isChanged = true;
      else this.xattrsNotSet += 1;
    }
    return isChanged;
  }

  /** False if it is not permitted or not supported here. */
  #isAllowed(attempt: () => void): boolean {
    try {
      attempt();
      return true;
    } catch (thrown) {
      const kind = thrown instanceof AppError ? thrown.kind : undefined;
      if (kind === "permission" || kind === "refused") return false;
      throw thrown;
    }
  }
}

function modeFor(record: Restorable, owner: Owner): number {
  const isOwned = owner.uid === record.uid && owner.gid === record.gid;
  return isOwned || record.type !== "file" ? record.mode : record.mode & ~RUN_AS_BITS;
}
