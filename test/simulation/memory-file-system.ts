/**
 * A disk in memory, for the simulator: a POSIX-like tree with hard links, modes, owners and times,
 * deterministic to the inode number. What programs see and what is there after a power cut are two:
 * contents become durable by `sync(handle)`, names by `syncDirectory`. It follows no symbolic links.
 */
import type { Clock, FileStat, FileSystem, FileType, Random } from "../../src/base/doors.ts";
import { errnoError, nulError } from "../../src/base/errno.ts";
import type { DataRange } from "../../src/base/platform.ts";
import {
  contentOf,
  dataRangesOf,
  Inode,
  NameJournal,
  replacementFailure,
  resizeContent,
  statOf,
  tornContent,
} from "./memory-inode.ts";

/** How the disk behaves. */
export type MemoryFileSystemOptions = {
  readonly clock: Pick<Clock, "now">;
  /** Sum of all file sizes; ENOSPC beyond. */
  readonly capacityBytes?: number;
  /** Directories that are file systems of their own: no link or rename leads in or out. */
  readonly volumes?: readonly string[];
  readonly uid?: number;
  readonly gid?: number;
};

/**
 * Called before each operation; what it throws, the operation throws, having done nothing. For
 * `sync` and `syncDirectory` it may return "lost": the call succeeds, and nothing becomes durable.
 */
export type FaultHook = (call: string, path: string) => "lost" | void;

type OpenFile = { readonly inode: Inode; readonly path: string; readonly how: string };

/** What an operation found at a path: the parent and the name always, the inode perhaps. */
type Place = { readonly parent: Inode; readonly name: string; readonly inode: Inode | undefined };

const CAPACITY_BYTES = 2 ** 40;
const FIRST_DEVICE = 1n;

/** The disk. */
export class MemoryFileSystem implements FileSystem {
  /** Set by the simulator, see FaultHook. */
  fault: FaultHook | undefined;
  /** Files that somebody holds a lock on, by path; set by tests. */
  readonly locked = new Set<string>();
  /** Operations so far, failed ones included. */
  callCount = 0;

  readonly #clock: Pick<Clock, "now">;
  readonly #volumes: readonly string[];
  readonly #uid: number;
  readonly #gid: number;
  readonly #root: Inode;
  readonly #handles = new Map<number, OpenFile>();
  readonly #journal = new NameJournal();
  #capacityBytes: number;
  #usedBytes = 0;
  #nextHandle = 3;
  #nextInode = 2n;
  /** Numbers are used again, the last one first, as real file systems do. */
  #freeInodes: bigint[] = [];

  constructor(options: MemoryFileSystemOptions) {
    this.#clock = options.clock;
    this.#capacityBytes = options.capacityBytes ?? CAPACITY_BYTES;
    this.#volumes = options.volumes ?? [];
    this.#uid = options.uid ?? 0;
    this.#gid = options.gid ?? 0;
    this.#root = this.#create("directory", 0o755, FIRST_DEVICE);
    this.#root.linkCount = 2;
  }

  lstat(path: string): FileStat | undefined {
    this.#begin("lstat", path);
    const inode = this.#find(path);
    return inode === undefined ? undefined : statOf(inode);
  }

  readDirectory(path: string): string[] {
    this.#begin("readDirectory", path);
    return [...this.#mustFindDirectory(path, "list").children.keys()];
  }

  readLink(path: string): string {
    this.#begin("readLink", path);
    const inode = this.#mustFind(path, "read the link");
    if (inode.type !== "symlink") throw fail("read the link", path, "EINVAL");
    return inode.linkTarget;
  }

  open(path: string, how: "r" | "create" | "write"): number {
    this.#begin("open", path);
    const inode = how === "create" ? this.#createFile(path) : this.#mustFind(path, "open");
    if (inode.type === "symlink") throw fail("open", path, "ELOOP");
    if (inode.type === "directory" && how === "write") throw fail("open", path, "EISDIR");
    const handle = this.#nextHandle;
    this.#nextHandle += 1;
    inode.openCount += 1;
    this.#handles.set(handle, { inode, path, how });
    return handle;
  }

  close(handle: number): void {
    const { inode } = this.#beginHandle("close", handle);
    this.#handles.delete(handle);
    inode.openCount -= 1;
    this.#release(inode);
  }

  stat(handle: number): FileStat {
    return statOf(this.#beginHandle("stat", handle).inode);
  }

  read(handle: number, target: Uint8Array, position: number): number {
    const { inode, path, how } = this.#beginHandle("read", handle);
    if (how === "create") throw fail("read", path, "EBADF");
    if (inode.type === "directory") throw fail("read", path, "EISDIR");
    const part = contentOf(inode).subarray(position, position + target.byteLength);
    target.set(part);
    return part.byteLength;
  }

  /** Like a real disk, a full one takes what fits before it fails. */
  write(handle: number, source: Uint8Array, position: number): void {
    const { inode, path, how } = this.#beginHandle("write", handle);
    if (how === "r") throw fail("write", path, "EBADF");
    if (source.byteLength === 0) return;
    const end = position + source.byteLength;
    const room = inode.sizeBytes + Math.max(0, this.#capacityBytes - this.#usedBytes);
    const fitting = Math.max(0, Math.min(source.byteLength, room - position));
    if (fitting > 0) {
      this.#resize(inode, Math.max(inode.sizeBytes, position + fitting));
      contentOf(inode).set(source.subarray(0, fitting), position);
      this.#touchContent(inode);
    }
    if (end > inode.sizeBytes) throw fail("write", path, "ENOSPC");
  }

  truncate(handle: number, sizeBytes: number): void {
    const { inode, path, how } = this.#beginHandle("truncate", handle);
    if (how === "r") throw fail("truncate", path, "EINVAL");
    const growth = Math.max(0, sizeBytes - inode.sizeBytes);
    if (this.#usedBytes + growth > this.#capacityBytes) throw fail("truncate", path, "ENOSPC");
    this.#resize(inode, sizeBytes);
    this.#touchContent(inode);
  }

  sync(handle: number): void {
    const { inode, lost } = this.#beginHandle("sync", handle);
    if (!lost && inode.type === "file") inode.keep();
  }

  syncDirectory(path: string): void {
    const lost = this.#begin("syncDirectory", path);
    const directory = this.#mustFindDirectory(path, "sync the directory");
    if (!lost) this.#journal.sync(directory);
  }

  makeDirectory(path: string, mode: number = 0o700): void {
    this.#begin("makeDirectory", path);
    const action = "make the directory";
    const place = this.#mustBeFree(path, action);
    const volume = this.#volumes.indexOf(path);
    const device = volume < 0 ? place.parent.device : FIRST_DEVICE + 1n + BigInt(volume);
    this.#enter(place, this.#create("directory", mode, device));
  }

  link(existing: string, created: string): void {
    this.#begin("link", created);
    const action = `link ${created} to`;
    const inode = this.#mustFind(existing, action);
    const place = this.#mustBeFree(created, action);
    if (inode.type === "directory") throw fail(action, existing, "EPERM");
    if (inode.device !== place.parent.device) throw fail(action, existing, "EXDEV");
    this.#enter(place, inode);
  }

  symlink(target: string, created: string): void {
    this.#begin("symlink", created);
    const place = this.#mustBeFree(created, "make the symbolic link");
    const inode = this.#create("symlink", 0o777, place.parent.device);
    inode.linkTarget = target;
    this.#enter(place, inode);
  }

  rename(from: string, to: string): void {
    this.#begin("rename", to);
    const action = `rename ${from} to`;
    const source = this.#place(from, action);
    const target = this.#place(to, action);
    const inode = source.inode;
    if (inode === undefined) throw fail(action, to, "ENOENT");
    if (source.parent.device !== target.parent.device) throw fail(action, to, "EXDEV");
    if (target.inode === inode) return;
    if (`${to}/`.startsWith(`${from}/`)) throw fail(action, to, "EINVAL");
    if (target.inode !== undefined) {
      const code = replacementFailure(inode, target.inode);
      if (code !== undefined) throw fail(action, to, code);
    }
    this.#journal.record(
      { directory: target.parent, name: target.name, inode },
      { directory: source.parent, name: source.name, inode: undefined },
    );
    if (target.inode !== undefined) this.#detach(target.parent, target.name, target.inode);
    this.#detach(source.parent, source.name, inode, { isKept: true });
    this.#attach(target.parent, target.name, inode);
  }

  unlink(path: string): void {
    this.#begin("unlink", path);
    const place = this.#place(path, "remove");
    if (place.inode === undefined) throw fail("remove", path, "ENOENT");
    if (place.inode.type === "directory") throw fail("remove", path, "EISDIR");
    this.#remove(place, place.inode);
  }

  removeDirectory(path: string): void {
    this.#begin("removeDirectory", path);
    const action = "remove the directory";
    const place = this.#place(path, action);
    if (place.inode === undefined) throw fail(action, path, "ENOENT");
    if (place.inode.type !== "directory") throw fail(action, path, "ENOTDIR");
    if (place.inode.children.size > 0) throw fail(action, path, "ENOTEMPTY");
    this.#remove(place, place.inode);
  }

  setMode(path: string, mode: number): void {
    this.#begin("setMode", path);
    const inode = this.#mustFind(path, "set the mode of");
    if (inode.type === "symlink") throw fail("set the mode of", path, "ELOOP");
    inode.mode = mode & 0o7777;
    inode.ctimeNs = this.#now();
  }

  /** Takes the set-user and set-group bits of a file away, as Linux does. */
  setOwner(path: string, uid: number, gid: number): void {
    this.#begin("setOwner", path);
    const inode = this.#mustFind(path, "set the owner of");
    inode.uid = uid;
    inode.gid = gid;
    if (inode.type === "file") inode.mode &= (inode.mode & 0o10) === 0 ? 0o3777 : 0o1777;
    inode.ctimeNs = this.#now();
  }

  setTimes(path: string, mtimeNs: bigint): void {
    this.#begin("setTimes", path);
    const inode = this.#mustFind(path, "set the times of");
    inode.mtimeNs = mtimeNs;
    inode.ctimeNs = this.#now();
  }

  readXattrs(path: string): ReadonlyMap<string, Uint8Array> {
    this.#begin("readXattrs", path);
    const inode = this.#mustFind(path, "list the extended attributes of");
    return new Map([...inode.xattrs].map(([name, value]) => [name, value.slice()]));
  }

  setXattr(path: string, name: string, value: Uint8Array): void {
    this.#begin("setXattr", path);
    const action = `set the extended attribute ${name} of`;
    const inode = this.#mustFind(path, action);
    if (inode.type === "symlink") throw fail(action, path, "EPERM");
    inode.xattrs.set(name, value.slice());
    inode.ctimeNs = this.#now();
  }

  dataRanges(handle: number, sizeBytes: number): DataRange[] {
    return dataRangesOf(this.#beginHandle("dataRanges", handle).inode, sizeBytes);
  }

  isLocked(path: string): boolean {
    this.#begin("isLocked", path);
    return this.locked.has(path) && this.#find(path) !== undefined;
  }

  space(path: string): { readonly freeBytes: number; readonly totalBytes: number } {
    this.#begin("space", path);
    this.#mustFind(path, "ask for the free space of");
    return {
      freeBytes: Math.max(0, this.#capacityBytes - this.#usedBytes),
      totalBytes: this.#capacityBytes,
    };
  }

  /** A larger or smaller disk; what lies there stays. */
  setCapacity(capacityBytes: number): void {
    this.#capacityBytes = capacityBytes;
  }

  /** As a kernel does every now and then: all that is there becomes durable. */
  syncAll(): void {
    this.#journal.syncAll();
    const visit = (inode: Inode): void => {
      if (inode.type === "file") inode.keep();
      for (const child of inode.children.values()) visit(child);
    };
    visit(this.#root);
  }

  /** A process died: its handles are gone, the disk is as programs saw it. */
  dropHandles(): void {
    for (const { inode } of this.#handles.values()) {
      inode.openCount -= 1;
      this.#release(inode);
    }
    this.#handles.clear();
  }

  /**
   * The power fails: what was not synced is lost, or, with `torn`, a random beginning of it is
   * kept: of the names in the order in which they were changed, of each file by position.
   */
  crash(options: { readonly torn?: Random } = {}): void {
    const { torn } = options;
    this.#handles.clear();
    this.#journal.crash(torn);
    this.#usedBytes = 0;
    this.#freeInodes = [];
    const seen = new Set<Inode>();
    this.#revive(this.#root, torn, seen);
    this.#renumber(seen);
  }

  /** Rots one bit on the disk, behind the back of all times. */
  flipBit(path: string, offset: number, bit: number): void {
    const inode = this.#mustFind(path, "flip a bit of");
    inode.flipBit(offset, bit);
  }

  /** Makes `inode` and what is durable below it the visible tree. */
  #revive(inode: Inode, torn: Random | undefined, seen: Set<Inode>): void {
    if (seen.has(inode)) {
      inode.linkCount += 1;
      return;
    }
    seen.add(inode);
    inode.openCount = 0;
    inode.linkCount = inode.type === "directory" ? 2 : 1;
    if (inode.type === "file") {
      inode.restore(torn === undefined ? undefined : tornContent(inode, torn));
      this.#usedBytes += inode.sizeBytes;
    }
    inode.children.clear();
    for (const [name, child] of inode.durableChildren) {
      inode.children.set(name, child);
      if (child.type === "directory") inode.linkCount += 1;
      this.#revive(child, torn, seen);
    }
  }

  /** A file that came back may find its number taken by one that was made after its removal. */
  #renumber(inodes: ReadonlySet<Inode>): void {
    const taken = new Set<bigint>();
    for (const inode of inodes) {
      if (taken.has(inode.number)) {
        inode.number = this.#nextInode;
        this.#nextInode += 1n;
      }
      taken.add(inode.number);
    }
  }

  #begin(call: string, path: string): boolean {
    if (path.includes("\0")) throw nulError(path);
    this.callCount += 1;
    return this.fault?.(call, path) === "lost";
  }

  #beginHandle(call: string, handle: number): OpenFile & { readonly lost: boolean } {
    const file = this.#handles.get(handle);
    const lost = this.#begin(call, file?.path ?? `handle ${handle}`);
    if (file === undefined) throw fail(call, `handle ${handle}`, "EBADF");
    return { ...file, lost };
  }

  #now(): bigint {
    return BigInt(Math.trunc(this.#clock.now())) * 1_000_000n;
  }

  #create(type: FileType, mode: number, device: bigint): Inode {
    let number = this.#freeInodes.pop();
    if (number === undefined) {
      number = this.#nextInode;
      this.#nextInode += 1n;
    }
    const owner = { uid: this.#uid, gid: this.#gid };
    return new Inode({ type, mode: mode & 0o7777, device, number, nowNs: this.#now(), ...owner });
  }

  #createFile(path: string): Inode {
    const place = this.#mustBeFree(path, "create");
    const inode = this.#create("file", 0o600, place.parent.device);
    this.#enter(place, inode);
    return inode;
  }

  #enter(place: Place, inode: Inode): void {
    this.#journal.record({ directory: place.parent, name: place.name, inode });
    this.#attach(place.parent, place.name, inode);
  }

  #remove(place: Place, inode: Inode): void {
    this.#journal.record({ directory: place.parent, name: place.name, inode: undefined });
    this.#detach(place.parent, place.name, inode);
  }

  #attach(parent: Inode, name: string, inode: Inode): void {
    parent.children.set(name, inode);
    if (inode.type === "directory") {
      parent.linkCount += 1;
      inode.linkCount = Math.max(2, inode.linkCount);
    } else {
      inode.linkCount += 1;
    }
    inode.ctimeNs = this.#now();
    this.#touchContent(parent);
  }

  #detach(parent: Inode, name: string, inode: Inode, options: { isKept?: boolean } = {}): void {
    parent.children.delete(name);
    const isDirectory = inode.type === "directory";
    if (isDirectory) parent.linkCount -= 1;
    else inode.linkCount -= 1;
    inode.ctimeNs = this.#now();
    this.#touchContent(parent);
    if (options.isKept === true) return;
    if (isDirectory) inode.linkCount = 0;
    this.#release(inode);
  }

  /** Gives number and space back once nobody can reach the inode. */
  #release(inode: Inode): void {
    if (inode.linkCount > 0 || inode.openCount > 0) return;
    this.#freeInodes.push(inode.number);
    this.#usedBytes -= inode.sizeBytes;
  }

  #resize(inode: Inode, sizeBytes: number): void {
    this.#usedBytes += sizeBytes - inode.sizeBytes;
    resizeContent(inode, sizeBytes);
  }

  #touchContent(inode: Inode): void {
    inode.mtimeNs = this.#now();
    inode.ctimeNs = inode.mtimeNs;
  }

  /** Undefined where nothing is, a file in the middle of the path included. */
  #find(path: string): Inode | undefined {
    let inode: Inode | undefined = this.#root;
    for (const part of partsOf(path)) inode = inode?.children.get(part);
    return inode;
  }

  #mustFind(path: string, action: string): Inode {
    if (partsOf(path).length === 0) return this.#root;
    const inode = this.#place(path, action).inode;
    if (inode === undefined) throw fail(action, path, "ENOENT");
    return inode;
  }

  #mustFindDirectory(path: string, action: string): Inode {
    const inode = this.#mustFind(path, action);
    if (inode.type !== "directory") throw fail(action, path, "ENOTDIR");
    return inode;
  }

  #mustBeFree(path: string, action: string): Place {
    const place = this.#place(path, action);
    if (place.inode !== undefined) throw fail(action, path, "EEXIST");
    return place;
  }

  #place(path: string, action: string): Place {
    const parts = partsOf(path);
    const name = parts.pop();
    if (name === undefined) throw fail(action, path, "EBUSY");
    let parent = this.#root;
    for (const part of parts) {
      const next = parent.children.get(part);
      if (next === undefined) throw fail(action, path, "ENOENT");
      if (next.type !== "directory") throw fail(action, path, "ENOTDIR");
      parent = next;
    }
    return { parent, name, inode: parent.children.get(name) };
  }
}

function partsOf(path: string): string[] {
  return path.split("/").filter((part) => part !== "" && part !== ".");
}

function fail(action: string, path: string, code: string): Error {
  return errnoError({ action, path, code });
}
