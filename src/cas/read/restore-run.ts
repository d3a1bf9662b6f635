/**
 * A restore at work: passes over the listing. First, group by group, directories are made and files
 * put in place (restore-window.ts); then extra files go, if that was asked for; last, directories
 * get their modes and times, the innermost first. Each step looks at what is there, so a restore
 * that was stopped anywhere is run again from the start and keeps what is right already.
 */
import type { FileStat } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { joinPath, parentPath, textFromPath } from "../../base/path.ts";
import { compileFilter, everyPath } from "./file-filter.ts";
import type { FileRecord } from "../format/listing.ts";
import { OpenPaths } from "../write/open-paths.ts";
import { RestoreAttributes } from "./restore-attributes.ts";
import { ContentComparer, isSameContent } from "./restore-content.ts";
import { removeExtra } from "./restore-extra.ts";
import type { RestoreProgress, RestoreResult, RestoreRunOptions } from "./restore-options.ts";
import type { Survey } from "./restore-plan.ts";
import type { RegularFile, SelectedRecord } from "./restore-records.ts";
import { isTemporaryName } from "./restore-temporary.ts";
import { RestoreWindow, WINDOW_SIZE_BYTES } from "./restore-window.ts";

/** What nobody but the owner may enter, until the end of the restore. */
const NEW_DIRECTORY_MODE = 0o700;
/** Of directories above the target. */
const PARENT_MODE = 0o755;
const OWNER_BITS = 0o700;

/** Directories whose records are kept: less than a window of files takes. */
const KNOWN_DIRECTORY_COUNT_MAX = 4096;

/** A record that is only looked at is work as well: others have their turn after a thousand. */
const RECORD_WORK_BYTES = WINDOW_SIZE_BYTES / 1024;

/** Progress is told when so many files were put in place, or so many bytes. */
const PROGRESS_FILE_COUNT = 128;
const PROGRESS_SIZE_BYTES = 8 * 1024 * 1024;

type DirectoryRecord = Extract<FileRecord, { readonly type: "directory" }>;

/** Does what a survey found to be possible. */
export async function executeRestore(
  options: RestoreRunOptions,
  survey: Survey,
): Promise<RestoreResult> {
  using run = new RestoreRun(options);
  try {
    run.prepareTarget();
    const [first = 0] = survey.groups;
    for (const group of survey.groups) {
      for await (const batch of survey.selection.records()) {
        for (const selected of batch)
          await run.place(selected, { group, isFirst: group === first });
        await run.rest(batch.length * RECORD_WORK_BYTES);
      }
      await run.drain();
    }
    if (options.extra === "remove" && compileFilter(options.filter) === everyPath) {
      await run.removeExtra();
    }
    const directories = new OpenPaths<DirectoryRecord>();
    const batches = run.knownDirectories ?? survey.selection.records();
    for await (const batch of batches) {
      for (const selected of batch) run.finishDirectories(selected, directories);
      await run.rest(batch.length * RECORD_WORK_BYTES);
    }
    run.finishLast(directories);
  } catch (thrown) {
    await run.abandon();
    throw thrown;
  }
  return run.result();
}

/** The state of one run. */
class RestoreRun implements Disposable {
  readonly #options: RestoreRunOptions;
  readonly #attributes: RestoreAttributes;
  readonly #comparer: ContentComparer;
  readonly #window: RestoreWindow;
  /** A target that we made belongs to whom its first record belongs to. */
  #isTargetNew = false;
  /** The last directory that we made and that lies in no other such: nothing is in it but ours. */
  #fresh: string | undefined;
  /** The directories that were placed, in order; undefined if they are too many to keep. */
  #placedDirectories: SelectedRecord[] | undefined = [];
  /** Bytes read or written, and what counts as such, since others last had a turn. */
  #busyBytes = 0;
  #filesWritten = 0;
  #bytesWritten = 0;
  #filesKept = 0;
  #bytesKept = 0;
  #directories = 0;
  #symlinks = 0;
  #hardlinks = 0;
  #filesRemoved = 0;
  #told: RestoreProgress = { files: 0, bytes: 0 };
  #temporariesRemoved = 0;

  constructor(options: RestoreRunOptions) {
    const { files, source, random, ownerPolicy, openLanes, signal } = options;
    this.#options = options;
    this.#attributes = new RestoreAttributes(files, ownerPolicy);
    this.#comparer = new ContentComparer(files, { source, signal });
    this.#window = new RestoreWindow({
      files,
      source,
      random,
      ownerPolicy,
      openLanes,
      attributes: this.#attributes,
      isStatWanted: options.onFile !== undefined,
      onPlaced: (record, stat) => this.#onPlaced(record, stat),
      signal,
    });
  }

  prepareTarget(): void {
    const { target } = this.#options;
    this.#makeParents(parentPath(target));
    if (this.#options.files.lstat(target) === undefined) {
      this.#makeDirectory(target, NEW_DIRECTORY_MODE);
      this.#isTargetNew = true;
      this.#fresh = target;
    } else {
      this.#removeTemporaries(target);
    }
    this.#window.syncChanged();
  }

  /** All directories of the selection as one batch; undefined if they must be asked for again. */
  get knownDirectories(): SelectedRecord[][] | undefined {
    return this.#placedDirectories === undefined ? undefined : [this.#placedDirectories];
  }

  async place(
    { record, isImplied }: SelectedRecord,
    pass: { readonly group: number; readonly isFirst: boolean },
  ): Promise<void> {
    this.#options.signal?.throwIfAborted();
    if (record.type === "directory") {
      if (pass.isFirst) this.#placeDirectory(record, isImplied);
      return;
    }
    if (this.#groupOf(record) !== pass.group) return;
    this.#adoptTarget(record);
    if (record.type === "file") await this.#placeFile(record);
    else if (record.type === "symlink") this.#placeSymlink(record);
    else this.#placeHardlink(record);
    if (this.#window.isFull) await this.flush();
  }

  /** Begins to put a window of files in place. */
  async flush(): Promise<void> {
    await this.#window.flush();
    await this.rest(WINDOW_SIZE_BYTES);
  }

  /** Puts everything in place that was taken. */
  async drain(): Promise<void> {
    await this.#window.drain();
    this.#tellProgress();
    await this.rest(WINDOW_SIZE_BYTES);
  }

  async removeExtra(): Promise<void> {
    const onChanged = (directory: string): void => {
      this.#window.noteChanged(directory);
      if (this.#window.isFull) this.#window.syncChanged();
    };
    const onRemoved = (directory: string): void => this.#window.noteRemoved(directory);
    this.#filesRemoved = await removeExtra({ ...this.#options, onChanged, onRemoved });
    this.#window.syncChanged();
  }

  /** Gives the directories that can hold nothing more their modes and times. */
  finishDirectories(selected: SelectedRecord, open: OpenPaths<DirectoryRecord>): void {
    if (selected.isImplied) return;
    const { record } = selected;
    for (const closed of open.advance(record.path)) this.#finishDirectory(closed);
    if (record.type === "directory") open.open(record.path, record);
  }

  finishLast(open: OpenPaths<DirectoryRecord>): void {
    for (const closed of open.end()) this.#finishDirectory(closed);
  }

  /** Lets others have a turn after a stretch of work. */
  async rest(bytes: number): Promise<void> {
    this.#busyBytes += bytes;
    if (this.#busyBytes < WINDOW_SIZE_BYTES) return;
    this.#busyBytes = 0;
    await this.#options.pause?.();
  }

  async abandon(): Promise<void> {
    await this.#window.abandon();
  }

  [Symbol.dispose](): void {
    this.#window[Symbol.dispose]();
  }

  result(): RestoreResult {
    return {
      filesWritten: this.#filesWritten,
      bytesWritten: this.#bytesWritten,
      filesKept: this.#filesKept,
      bytesKept: this.#bytesKept,
      directories: this.#directories,
      symlinks: this.#symlinks,
      hardlinks: this.#hardlinks,
      filesRemoved: this.#filesRemoved,
      ownersNotSet: this.#attributes.ownersNotSet,
      xattrsNotSet: this.#attributes.xattrsNotSet,
      temporariesRemoved: this.#temporariesRemoved,
      fetchedBytes: this.#window.fetchedBytes,
    };
  }

  #groupOf({ type, ...record }: FileRecord): number {
    const { restoreOrder } = this.#options;
    if (restoreOrder === undefined) return 0;
    const own = restoreOrder(record.path);
    if (type !== "hardlink" || !("target" in record)) return own;
    return Math.max(own, restoreOrder(record.target));
  }

  #placeDirectory(record: DirectoryRecord, isImplied: boolean): void {
    const { files } = this.#options;
    const path = this.#pathOf(record.path);
    this.#adoptTarget(record);
    this.#placedDirectories?.push({ record, isImplied });
    if ((this.#placedDirectories?.length ?? 0) > KNOWN_DIRECTORY_COUNT_MAX) {
      this.#placedDirectories = undefined;
    }
    if (!isImplied) this.#directories += 1;
    const stat = this.#isFresh(path) ? undefined : files.lstat(path);
    if (stat === undefined) {
      this.#makeDirectory(path, NEW_DIRECTORY_MODE);
      if (!this.#isFresh(path)) this.#fresh = path;
      if (isImplied) this.#attributes.give(path, record);
      else this.#attributes.giveOwner(path, record);
      return;
    }
    if (stat.type !== "directory") throw inTheWay(path);
    if ((stat.mode & OWNER_BITS) !== OWNER_BITS) this.#makeWritable(path, stat);
    this.#removeTemporaries(path);
  }

  #isFresh(path: string): boolean {
    return this.#fresh !== undefined && path.startsWith(`${this.#fresh}/`);
  }

  /** A directory that even its owner may not write to; at the end it gets its own mode. */
  #makeWritable(path: string, stat: FileStat): void {
    try {
      this.#options.files.setMode(path, stat.mode | OWNER_BITS);
    } catch (thrown) {
      // Whether we need it shows when we write there.
      if (!(thrown instanceof AppError) || thrown.kind !== "permission") throw thrown;
    }
  }

  async #placeFile(record: RegularFile): Promise<void> {
    const path = this.#pathOf(record.path);
    const stat = this.#isFresh(path) ? undefined : this.#options.files.lstat(path);
    if (stat !== undefined && (await this.#isInPlace(path, record, stat))) {
      this.#mendFile(path, record, stat);
      this.#filesKept += 1;
      this.#bytesKept += record.sizeBytes;
      const { files, onFile } = this.#options;
      this.#reportFile(record, onFile === undefined ? undefined : files.lstat(path));
      return;
    }
    await this.#window.add(record, path);
  }

  async #isInPlace(path: string, record: RegularFile, stat: FileStat): Promise<boolean> {
    if (stat.type !== "file" || stat.sizeBytes !== record.sizeBytes) return false;
    const known = this.#options.known?.get(record.path, stat);
    if (known !== undefined && isSameContent(known, record.content)) return true;
    const isEqual = await this.#comparer.isEqual(path, record, stat);
    await this.rest(record.sizeBytes);
    return isEqual;
  }

  /** Sets what differs, and makes it durable: mode and times first, as a sync only covers the past. */
  #mendFile(path: string, record: RegularFile, stat: FileStat): void {
    const { files } = this.#options;
    if (!this.#attributes.mend(path, record, stat)) return;
    unlessKeptOut(() => {
      const handle = files.open(path, "r");
      try {
        files.sync(handle);
      } finally {
        files.close(handle);
      }
    });
  }

  #placeSymlink(record: Extract<FileRecord, { readonly type: "symlink" }>): void {
    const { files } = this.#options;
    const path = this.#pathOf(record.path);
    const stat = files.lstat(path);
    this.#symlinks += 1;
    if (stat?.type === "symlink" && files.readLink(path) === record.target) {
      this.#attributes.mend(path, record, stat);
    } else {
      this.#window.placeSymlink(record, path);
    }
  }

  #placeHardlink(record: Extract<FileRecord, { readonly type: "hardlink" }>): void {
    this.#hardlinks += 1;
    this.#mustHaveRealParents(record.target);
    this.#window.addLink(record, this.#pathOf(record.path), this.#pathOf(record.target));
  }

  #onPlaced(record: FileRecord, stat: FileStat | undefined): void {
    if (record.type !== "file") return;
    this.#filesWritten += 1;
    this.#bytesWritten += record.sizeBytes;
    this.#reportFile(record, stat);
  }

  #reportFile(record: RegularFile, stat: FileStat | undefined): void {
    if (stat !== undefined) this.#options.onFile?.(record, stat);
    const files = this.#filesWritten + this.#filesKept;
    const bytes = this.#bytesWritten + this.#bytesKept;
    const isFew = files - this.#told.files < PROGRESS_FILE_COUNT;
    if (isFew && bytes - this.#told.bytes < PROGRESS_SIZE_BYTES) return;
    this.#tellProgress();
  }

  #tellProgress(): void {
    this.#told = {
      files: this.#filesWritten + this.#filesKept,
      bytes: this.#bytesWritten + this.#bytesKept,
    };
    this.#options.onProgress?.(this.#told);
  }

  #finishDirectory(record: DirectoryRecord): void {
    const { files } = this.#options;
    const path = this.#pathOf(record.path);
    const stat = files.lstat(path);
    if (stat?.type !== "directory") throw inTheWay(path);
    if (!this.#attributes.mend(path, record, stat)) return;
    unlessKeptOut(() => files.syncDirectory(path));
  }

  /** The target has no record of its own. */
  #adoptTarget(record: FileRecord): void {
    if (!this.#isTargetNew) return;
    this.#isTargetNew = false;
    this.#attributes.giveOwner(this.#options.target, record);
  }

  #makeParents(path: string): void {
    if (path === "/" || this.#options.files.lstat(path) !== undefined) return;
    this.#makeParents(parentPath(path));
    this.#makeDirectory(path, PARENT_MODE);
  }

  #makeDirectory(path: string, mode: number): void {
    this.#options.files.makeDirectory(path, mode);
    this.#window.noteChanged(parentPath(path));
  }

  /** What a killed restore left in a directory. */
  #removeTemporaries(directory: string): void {
    const { files } = this.#options;
    for (const name of files.readDirectory(directory)) {
      if (!isTemporaryName(name)) continue;
      const path = joinPath(directory, name);
      if (files.lstat(path)?.type === "directory") continue;
      files.unlink(path);
      this.#temporariesRemoved += 1;
    }
  }

  /** A hard link names its file by a path, which must not lead through symbolic links. */
  #mustHaveRealParents(path: string): void {
    const { files } = this.#options;
    for (let parent = parentPath(path); parent !== ""; parent = parentPath(parent)) {
      const absolute = this.#pathOf(parent);
      if (files.lstat(absolute)?.type !== "directory") throw inTheWay(absolute);
    }
  }

  #pathOf(path: string): string {
    return joinPath(this.#options.target, path);
  }
}

function inTheWay(path: string): AppError {
  return new AppError("refused", `${textFromPath(path)} is not a directory, as it must be.`, {
    guidance: "Move it away, or restore to another target.",
    context: { path: textFromPath(path) },
  });
}

/** Syncs, unless the mode that was just set keeps us out; the next run sets it again if it was lost. */
function unlessKeptOut(sync: () => void): void {
  try {
    sync();
  } catch (thrown) {
    if (!(thrown instanceof AppError) || thrown.kind !== "permission") throw thrown;
  }
}
