/**
 * Stores one volume: each path becomes a record of the listing, from the stat cache where a stat says
 * that nothing changed, else by reading. Records enter the listing in the order of the walk although
 * files are read out of order; the window between the two is bounded, and so is everything else here.
 */
import { AppError, toAppError } from "../../base/error.ts";
import { textFromPath } from "../../base/path.ts";
import assert from "node:assert/strict";
import type { BackupContext } from "./backup-context.ts";
import { RACY_MS_DEFAULT, WINDOW_ENTRY_COUNT_MAX } from "./backup-settings.ts";
import { FileDecider } from "./file-decider.ts";
import type { FileDecision } from "./file-decider.ts";
import { FileRead } from "./file-read.ts";
import type { ReadFile } from "./file-read.ts";
import { LinkSets } from "./link-sets.ts";
import { encodeRecord } from "../format/listing.ts";
import type { FileRecord } from "../format/listing.ts";
import { ReadPipeline } from "./read-pipeline.ts";
import type { StatContent, StatCursor, StatRow } from "../catalog/stat-cache.ts";
import { TreeWriter } from "../format/tree.ts";
import type { TreeRoot } from "../format/tree.ts";
import type { Problem, VolumeSource, WalkEntry } from "./volume-source.ts";

/** A volume that is stored. */
export type StoredVolume = {
  readonly name: string;
  readonly root: string;
  readonly listing: TreeRoot;
  readonly files: number;
  readonly directories: number;
  readonly bytes: number;
};

/** A path between walk and listing. A link waits until it is known whether its first path is there. */
type Slot = {
  readonly entry: WalkEntry;
  state: "waiting" | "ready" | "dropped" | "link";
  record: FileRecord | undefined;
};

/** What all records of an entry have. */
type RecordHead = Pick<
  FileRecord,
  "path" | "mode" | "uid" | "gid" | "mtimeNs" | "xattrs" | "sparse"
>;

const NO_XATTRS: RecordHead["xattrs"] = new Map();

/** Entries after which the walk lets other work of the process have its turn. */
const YIELD_ENTRY_COUNT = 2000;

/** Stores one volume and returns its listing's root. */
export async function storeVolume(
  context: BackupContext,
  volume: VolumeSource,
): Promise<StoredVolume> {
  using cursor = context.statCache.openCursor(volume.name);
  using links = new LinkSets(context);
  const writer = new VolumeWriter(context, volume, { cursor, links });
  return await writer.run();
}

class VolumeWriter {
  readonly #context: BackupContext;
  readonly #volume: VolumeSource;
  readonly #cursor: StatCursor;
  readonly #links: LinkSets;
  readonly #decider: FileDecider;
  readonly #listing: TreeWriter;
  readonly #pipeline: ReadPipeline;
  #window: Slot[] = [];
  #windowStart = 0;
  #changed = Promise.withResolvers<void>();
  readonly #counts = { files: 0, directories: 0, bytes: 0 };

  constructor(
    context: BackupContext,
    volume: VolumeSource,
    own: { readonly cursor: StatCursor; readonly links: LinkSets },
  ) {
    this.#context = context;
    this.#volume = volume;
    this.#cursor = own.cursor;
    this.#links = own.links;
    this.#decider = new FileDecider(context, volume);
    this.#listing = new TreeWriter(context.putNode);
    this.#pipeline = new ReadPipeline(context, () => this.#wake());
  }

  async run(): Promise<StoredVolume> {
    try {
      await this.#walk();
      while (this.#windowCount > 0) await this.#progress();
    } catch (error) {
      this.#pipeline.fail(error);
      throw error;
    } finally {
      await this.#pipeline.close();
    }
    this.#pipeline.throwIfFailed();
    this.#cursor.end();
    for (const problem of this.#volume.problems?.() ?? []) {
      // Without a row it is read and checked again by every backup, until it is mended.
      if (problem.kind === "damaged") this.#cursor.remove(problem.path);
      this.#report(problem);
    }
    const { name, root } = this.#volume;
    return { name, root, listing: this.#listing.finish(), ...this.#counts };
  }

  get #windowCount(): number {
    return this.#window.length - this.#windowStart;
  }

  async #walk(): Promise<void> {
    let last: string | undefined;
    let count = 0;
    for (const entry of this.#volume.entries) {
      assert(last === undefined || last < entry.path, "a volume's paths ascend");
      last = entry.path;
      const accepted = this.#accept(entry);
      if (accepted !== undefined) await accepted;
      this.#emit();
      while (this.#pipeline.isFull || this.#windowCount >= WINDOW_ENTRY_COUNT_MAX) {
        await this.#progress();
      }
      count += 1;
      if (count % YIELD_ENTRY_COUNT === 0) {
        await this.#context.doors.clock.sleep(0, this.#context.signal);
        await this.#pause();
      }
    }
  }

  /** Waits until something has moved, and lists what is ready. */
  async #progress(): Promise<void> {
    const changed = this.#changed.promise;
    this.#pipeline.throwIfFailed();
    this.#emit();
    if (this.#windowCount === 0) return;
    if (!(this.#pipeline.isFull || this.#isHeadWaiting)) return;
    await changed;
    await this.#pause();
  }

  get #isHeadWaiting(): boolean {
    return this.#window[this.#windowStart]?.state === "waiting";
  }

  async #pause(): Promise<void> {
    this.#context.signal?.throwIfAborted();
    this.#pipeline.throwIfFailed();
    await this.#context.uploads.room();
    await this.#context.tick();
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }

  /** Decides on one entry; a promise only where that needs the site. */
  #accept(entry: WalkEntry): Promise<void> | undefined {
    const slot: Slot = { entry, state: "waiting", record: undefined };
    this.#window.push(slot);
    switch (entry.stat.type) {
      case "file":
        return this.#acceptFile(slot);
      case "directory":
        this.#attempt(slot, () => ({ ...this.#head(entry), type: "directory" }));
        return undefined;
      case "symlink":
        this.#attempt(slot, () => {
          const target = this.#context.doors.files.readLink(entry.readPath);
          return { ...this.#head(entry), type: "symlink", target };
        });
        return undefined;
      case "other":
        this.#drop(slot, "unsupported", "Sockets, FIFOs and devices are not stored.");
        return undefined;
    }
  }

  #acceptFile(slot: Slot): Promise<void> | undefined {
    const { entry } = slot;
    const row = this.#cursor.take(entry.path);
    if (entry.stat.linkCount > 1) {
      if (this.#links.get(entry.stat) !== undefined) {
        slot.state = "link";
        return undefined;
      }
      this.#links.set(entry.stat, entry.path);
    }
    const decision = this.#decider.decide(entry, row);
    if (!(decision instanceof Promise)) {
      this.#follow(slot, decision);
      return undefined;
    }
    return decision.then((decided) => this.#follow(slot, decided));
  }

  #follow(slot: Slot, decision: FileDecision): void {
    const { entry } = slot;
    if (decision.how === "known") {
      const { row } = decision;
      this.#context.totals.unchangedFiles += 1;
      const { sizeBytes, isSparse, content } = row;
      // Setting an attribute changes ctime. One that is so new may hide a second change.
      const isBare = !row.hasXattrs && row.ctimeNs === entry.stat.ctimeNs && isSettled(row);
      this.#attempt(slot, () => ({
        ...this.#head(entry, isBare ? NO_XATTRS : this.#xattrsOf(entry, row)),
        sparse: isSparse,
        ...fileContent(sizeBytes, content),
      }));
      if (!decision.isRenewed || slot.record === undefined) return;
      const hasXattrs = slot.record.xattrs.size > 0;
      this.#cursor.put(entry.path, { ...row, hasXattrs, operation: this.#context.number });
      return;
    }
    const { task, prefix } = decision;
    this.#pipeline.push(
      new FileRead({
        task,
        nature: this.#volume.nature(entry.path),
        putNode: this.#context.putOpenNode,
        ...(prefix === undefined ? {} : { prefix }),
        again: (reader) => this.#pipeline.push(reader),
        done: (file) => this.#finishRead(slot, file),
        failed: (error) => this.#fail(slot, error),
      }),
    );
  }

  #finishRead(slot: Slot, file: ReadFile): void {
    const { path } = slot.entry;
    const { before, isSparse, takenNs } = file.end;
    if (before.type !== "file") {
      this.#drop(slot, "vanished", "It is not a file any more.");
      return;
    }
    // Another file has the name by now: the set's next path is its first one.
    if (before.inode !== slot.entry.stat.inode) this.#forgetLinks(slot);
    const { sizeBytes, content } = file;
    this.#attempt(slot, () => ({
      ...this.#head({ ...slot.entry, stat: before }),
      sparse: isSparse,
      ...fileContent(sizeBytes, content),
    }));
    if (slot.record === undefined) return;
    if (file.end.finding !== undefined) this.#volume.checked?.(path, file.end.finding);
    if (file.isChanged) {
      this.#cursor.remove(path);
      this.#report({ path, kind: "changed", message: "It changed while it was read." });
    } else {
      const { inode, birthtimeNs, mtimeNs, ctimeNs } = before;
      const hasXattrs = slot.record.xattrs.size > 0;
      const stat = { inode, birthtimeNs, mtimeNs, ctimeNs, sizeBytes, takenNs };
      const operation = this.#context.number;
      this.#cursor.put(path, { ...stat, isSparse, hasXattrs, content, operation });
    }
  }

  #head(entry: WalkEntry, known?: RecordHead["xattrs"]): RecordHead {
    const { mode, uid, gid, mtimeNs } = entry.stat;
    const xattrs = known ?? this.#context.doors.files.readXattrs(entry.readPath);
    return { path: entry.path, mode, uid, gid, mtimeNs, xattrs, sparse: false };
  }

  /**
   * Links change ctime as attributes do, so these are looked at. A file that is gone by now (its stat
   * was all that its product captured) had none when it was read.
   */
  #xattrsOf({ readPath }: WalkEntry, row: StatRow): RecordHead["xattrs"] {
    try {
      return this.#context.doors.files.readXattrs(readPath);
    } catch (thrown) {
      if (row.hasXattrs || toAppError(thrown).kind !== "not-found") throw thrown;
      return NO_XATTRS;
    }
  }

  /** Makes a record ready, or a problem of what the disk says. */
  #attempt(slot: Slot, make: () => FileRecord): void {
    try {
      slot.record = make();
      slot.state = "ready";
    } catch (error) {
      this.#fail(slot, toAppError(error));
    }
  }

  #fail(slot: Slot, error: AppError): void {
    if (error.kind === "internal" || error.kind === "cancelled") throw error;
    if (error.kind === "not-found") {
      this.#drop(slot, "vanished", "It vanished before it could be read.");
      return;
    }
    if (this.#volume.onUnreadable === "fail") {
      throw new AppError(error.kind, `${textFromPath(slot.entry.path)}: ${error.message}`, {
        guidance: error.guidance ?? "Make the file readable, or let the backup be incomplete.",
        context: { ...error.context, volume: this.#volume.name },
        cause: error,
      });
    }
    this.#drop(slot, "unreadable", error.message);
  }

  #drop(slot: Slot, kind: Problem["kind"], message: string): void {
    slot.state = "dropped";
    this.#forgetLinks(slot);
    this.#report({ path: slot.entry.path, kind, message });
  }

  /** The path does not stand for its set of hard links. */
  #forgetLinks({ entry: { path, stat } }: Slot): void {
    if (stat.linkCount > 1 && this.#links.get(stat) === path) this.#links.delete(stat);
  }

  #report(problem: Problem): void {
    this.#context.problems.add(problem);
  }

  /** Moves what is ready from the front of the window to the listing. */
  #emit(): void {
    for (; this.#windowStart < this.#window.length; this.#windowStart++) {
      const slot = this.#window[this.#windowStart]!;
      if (slot.state === "link" && !this.#resolveLink(slot)) break;
      if (slot.state === "waiting") break;
      if (slot.record === undefined) continue;
      this.#count(slot.record);
      this.#listing.add(slot.record.path, encodeRecord(slot.record));
    }
    if (this.#windowStart < this.#window.length && this.#windowStart < WINDOW_ENTRY_COUNT_MAX / 2) {
      return;
    }
    this.#window = this.#window.slice(this.#windowStart);
    this.#windowStart = 0;
  }

  /**
   * All paths before this one are listed or dropped. False if the first path of the set was dropped:
   * this one is then the file, and is read.
   */
  #resolveLink(slot: Slot): boolean {
    const { entry } = slot;
    const target = this.#links.get(entry.stat);
    if (target !== undefined) {
      this.#attempt(slot, () => ({ ...this.#head(entry), type: "hardlink", target }));
      return true;
    }
    slot.state = "waiting";
    this.#links.set(entry.stat, entry.path);
    this.#follow(slot, this.#decider.read(entry));
    return false;
  }

  #count(record: FileRecord): void {
    const { totals } = this.#context;
    if (record.type === "directory") {
      this.#counts.directories += 1;
      totals.directories += 1;
      return;
    }
    this.#counts.files += 1;
    totals.files += 1;
    if (record.type !== "file") return;
    this.#counts.bytes += record.sizeBytes;
    totals.bytes += record.sizeBytes;
    const { content } = record;
    totals.chunks += content.form === "inline" ? content.chunks.length : content.root.count;
  }
}

/** True if ctime was not of the last moments when the row was taken. */
function isSettled(row: StatRow): boolean {
  return row.takenNs - row.ctimeNs > BigInt(RACY_MS_DEFAULT) * 1_000_000n;
}

/** What a file's record says of its content. */
function fileContent(
  sizeBytes: number,
  content: StatContent,
): Pick<Extract<FileRecord, { type: "file" }>, "type" | "sizeBytes" | "content"> {
  if (content.form === "inline") return { type: "file", sizeBytes, content };
  return { type: "file", sizeBytes, content: { form: "tree", root: content.root } };
}
