/**
 * What MemoryFileSystem is made of: inodes with two contents (seen and durable), and the journal
 * of changed names that are not durable yet. A name becomes durable together with every earlier
 * change that touches the same directories, so that a rename is never half done.
 */
import type { FileStat, FileType, Random } from "../../src/base/doors.ts";
import type { DataRange } from "../../src/base/platform.ts";

const BLOCK_SIZE_BYTES = 4096;
const ZEROS = new Uint8Array(BLOCK_SIZE_BYTES);

/** What an inode starts with. */
export type InodeOptions = {
  readonly type: FileType;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly device: bigint;
  readonly number: bigint;
  readonly nowNs: bigint;
};

/** What a power cut leaves of a file. */
type Kept = {
  readonly content: Uint8Array;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly xattrs: ReadonlyMap<string, Uint8Array>;
};

/** One file, directory or symbolic link. */
export class Inode {
  readonly type: FileType;
  readonly device: bigint;
  readonly birthtimeNs: bigint;
  number: bigint;
  mode: number;
  uid: number;
  gid: number;
  mtimeNs: bigint;
  ctimeNs: bigint;
  linkCount = 0;
  openCount = 0;
  linkTarget = "";
  xattrs = new Map<string, Uint8Array>();
  /** Of a directory: what programs see, and what a power cut leaves. */
  readonly children = new Map<string, Inode>();
  readonly durableChildren = new Map<string, Inode>();
  sizeBytes = 0;
  /** At least `sizeBytes` long; zeros beyond. */
  buffer = new Uint8Array(0);
  #kept: Kept;

  constructor(options: InodeOptions) {
    this.type = options.type;
    this.device = options.device;
    this.birthtimeNs = options.nowNs;
    this.number = options.number;
    this.mode = options.mode;
    this.uid = options.uid;
    this.gid = options.gid;
    this.mtimeNs = options.nowNs;
    this.ctimeNs = options.nowNs;
    this.#kept = this.#snapshot();
  }

  /** The durable content. */
  get keptContent(): Uint8Array {
    return this.#kept.content;
  }

  /** Makes content, times, mode, owner and attributes durable. */
  keep(): void {
    this.#kept = this.#snapshot();
  }

  /** After a power cut: the durable state, or `content` if it is given. */
  restore(content: Uint8Array | undefined): void {
    const { mtimeNs, ctimeNs, mode, uid, gid, xattrs } = this.#kept;
    const isWhole = content !== undefined && equals(content, contentOf(this));
    if (!isWhole) Object.assign(this, { mtimeNs, ctimeNs, mode, uid, gid });
    if (!isWhole) this.xattrs = new Map(xattrs);
    const kept = content ?? this.#kept.content;
    this.buffer = kept.slice();
    this.sizeBytes = kept.byteLength;
    this.keep();
  }

  flipBit(offset: number, bit: number): void {
    for (const content of [contentOf(this), this.#kept.content]) {
      const byte = content[offset];
      if (byte !== undefined) content[offset] = byte ^ (1 << bit);
    }
  }

  #snapshot(): Kept {
    const { mtimeNs, ctimeNs, mode, uid, gid } = this;
    const xattrs = new Map(this.xattrs);
    return { content: contentOf(this).slice(), mtimeNs, ctimeNs, mode, uid, gid, xattrs };
  }
}

/** The bytes of a file as programs see them, not a copy. */
export function contentOf(inode: Inode): Uint8Array {
  return inode.buffer.subarray(0, inode.sizeBytes);
}

/** Where the blocks of a file lie that hold anything but zeros: a disk that keeps no other ones. */
export function dataRangesOf(inode: Inode, sizeBytes: number): DataRange[] {
  const ranges: DataRange[] = [];
  for (let offset = 0; offset < sizeBytes; offset += BLOCK_SIZE_BYTES) {
    const end = Math.min(sizeBytes, offset + BLOCK_SIZE_BYTES);
    const block = contentOf(inode).subarray(offset, end);
    if (equals(block, ZEROS.subarray(0, block.length))) continue;
    const last = ranges.at(-1);
    if (last !== undefined && last.offset + last.length === offset) {
      ranges[ranges.length - 1] = { offset: last.offset, length: end - last.offset };
    } else {
      ranges.push({ offset, length: end - offset });
    }
  }
  return ranges;
}

/** Cuts a file, or extends it with zeros. */
export function resizeContent(inode: Inode, sizeBytes: number): void {
  if (sizeBytes > inode.buffer.byteLength) {
    const grown = new Uint8Array(Math.max(sizeBytes, inode.buffer.byteLength * 2));
    grown.set(contentOf(inode));
    inode.buffer = grown;
  }
  if (sizeBytes < inode.sizeBytes) inode.buffer.fill(0, sizeBytes, inode.sizeBytes);
  inode.sizeBytes = sizeBytes;
}

/** Seen bytes up to a random position, durable ones behind it. */
export function tornContent(inode: Inode, random: Random): Uint8Array {
  const seen = contentOf(inode);
  const kept = inode.keptContent;
  if (equals(seen, kept)) return kept;
  const cut = Math.floor(random.fraction() * (seen.byteLength + 1));
  if (cut === seen.byteLength) return seen.slice();
  return Buffer.concat([seen.subarray(0, cut), kept.subarray(cut)]);
}

/** What `lstat` tells of an inode. */
export function statOf(inode: Inode): FileStat {
  return {
    type: inode.type,
    sizeBytes: inode.type === "symlink" ? inode.linkTarget.length : inode.sizeBytes,
    mtimeNs: inode.mtimeNs,
    ctimeNs: inode.ctimeNs,
    birthtimeNs: inode.birthtimeNs,
    mode: inode.mode,
    uid: inode.uid,
    gid: inode.gid,
    inode: inode.number,
    device: inode.device,
    linkCount: inode.linkCount,
  };
}

/** Why `source` cannot take the place of `target`, if so. */
export function replacementFailure(source: Inode, target: Inode): string | undefined {
  if (target.type !== "directory") return source.type === "directory" ? "ENOTDIR" : undefined;
  if (source.type !== "directory") return "EISDIR";
  return target.children.size > 0 ? "ENOTEMPTY" : undefined;
}

/** One name that came, went (`inode` undefined) or was replaced. */
export type NameChange = {
  readonly directory: Inode;
  readonly name: string;
  readonly inode: Inode | undefined;
};

/** Changes of names that a power cut would undo, oldest first. */
export class NameJournal {
  #pending: (readonly NameChange[])[] = [];

  /** Changes that happen together or not at all. */
  record(...changes: readonly NameChange[]): void {
    this.#pending.push(changes);
  }

  /** Makes the names of a directory durable, with all that they depend on. */
  sync(directory: Inode): void {
    const touched = new Set([directory]);
    const chosen = new Set<readonly NameChange[]>();
    for (const changes of this.#pending.toReversed()) {
      if (!changes.some((change) => touched.has(change.directory))) continue;
      chosen.add(changes);
      for (const change of changes) touched.add(change.directory);
    }
    for (const changes of this.#pending) if (chosen.has(changes)) apply(changes);
    this.#pending = this.#pending.filter((changes) => !chosen.has(changes));
  }

  /** Makes all names durable. */
  syncAll(): void {
    for (const changes of this.#pending) apply(changes);
    this.#pending = [];
  }

  /** A power cut: all pending changes are lost, or with `torn` all but the first few. */
  crash(torn: Random | undefined): void {
    const count = torn === undefined ? 0 : this.#pending.length + 1;
    const keptCount = Math.floor((torn?.fraction() ?? 0) * count);
    for (const changes of this.#pending.slice(0, keptCount)) apply(changes);
    this.#pending = [];
  }
}

function apply(changes: readonly NameChange[]): void {
  for (const { directory, name, inode } of changes) {
    if (inode === undefined) directory.durableChildren.delete(name);
    else directory.durableChildren.set(name, inode);
  }
}

function equals(left: Uint8Array, right: Uint8Array): boolean {
  return Buffer.compare(left, right) === 0;
}
