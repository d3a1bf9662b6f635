/**
 * What a restore would do, and whether it may. Nothing is touched. Files that are there count as kept
 * by size and time; the run compares contents, so it may write more or less than the plan says.
 * Memory: the frames to fetch as one bitmap a pack; everything else streams.
 */
import type { FileStat } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { isSafeRelativePath, joinPath, parentPath, textFromPath } from "../../base/path.ts";
import { formatSize } from "../../base/units.ts";
import { compileFilter, everyPath } from "./file-filter.ts";
import { setFrame } from "../format/pack-list.ts";
import { readChunkRefs } from "./restore-content.ts";
import { listExtra } from "./restore-extra.ts";
import type { ChunkLocation, RestorePlan, RestorePlanOptions } from "./restore-options.ts";
import type { RegularFile } from "./restore-records.ts";
import { Selection } from "./restore-records.ts";
import { WINDOW_SIZE_BYTES } from "./restore-window.ts";

const REFUSAL_COUNT_MAX = 100;
const EXTRA_SAMPLE_COUNT_MAX = 20;
const GROUP_COUNT_MAX = 64;
/** Records that are looked at before other work of the process has its turn. */
const PAUSE_RECORD_COUNT = 1024;

/** What a survey found: the counts of a plan, and what a run needs of it. */
export type Survey = {
  readonly selection: Selection;
  /** The groups of files, ascending. */
  readonly groups: readonly number[];
  readonly plan: Omit<RestorePlan, "extraFiles" | "extraBytes" | "extraSample">;
};

/** The plan of a restore: the survey, and what lies there besides. */
export async function planRestore(options: RestorePlanOptions): Promise<RestorePlan> {
  const { plan } = await surveyRestore(options);
  const refusals = [...plan.refusals];
  const extraSample: string[] = [];
  let extraFiles = 0;
  let extraBytes = 0;
  if (compileFilter(options.filter) === everyPath && refusals.length === 0) {
    const onUnreadable = (_path: string, error: AppError): void => {
      if (options.extra === "remove") refusals.push(error.message);
    };
    for await (const { path, stat } of listExtra({ ...options, onUnreadable })) {
      if (stat.type === "directory") continue;
      extraFiles += 1;
      extraBytes += stat.sizeBytes;
      if (extraSample.length < EXTRA_SAMPLE_COUNT_MAX) extraSample.push(path);
    }
  }
  return { ...plan, extraFiles, extraBytes, extraSample, refusals };
}

/** Walks the listing beside the target, once. */
export async function surveyRestore(options: RestorePlanOptions): Promise<Survey> {
  const filter = compileFilter(options.filter);
  const selection = await Selection.open({ ...options, filter });
  const surveyor = new Surveyor(options);
  surveyor.checkTarget();
  let count = 0;
  for await (const batch of selection.records()) {
    count += batch.length;
    if (count >= PAUSE_RECORD_COUNT) {
      count = 0;
      await options.pause?.();
    }
    for (const { record, isImplied } of batch) {
      switch (record.type) {
        case "directory":
          surveyor.takeDirectory(record.path, isImplied);
          break;
        case "file":
          await surveyor.takeFile(record);
          break;
        default:
          surveyor.takeLink(record.path, record.type);
      }
    }
    options.signal?.throwIfAborted();
  }
  return { selection, ...surveyor.finish() };
}

/** Chunks that are located together. */
const LOCATE_COUNT = 1000;

/** Counts, and looks at what is there. */
class Surveyor {
  readonly #options: RestorePlanOptions;
  readonly #refusals: string[] = [];
  #refusalCount = 0;
  #files = 0;
  #bytes = 0;
  #filesKept = 0;
  #bytesKept = 0;
  #directories = 0;
  #symlinks = 0;
  #hardlinks = 0;
  /** Growth of the volume so far, and the most that was needed at once. */
  #growthBytes = 0;
  #peakBytes = 0;
  #freedBytes = 0;
  readonly #fetches = new Map<string, Uint8Array>();
  #bytesToFetch = 0;
  /** Chunks whose places were not asked for yet. */
  #unlocated: Uint8Array[] = [];
  readonly #groups = new Set<number>([0]);
  /** The last directory that is not there yet, and lies in no other such. */
  #absent: string | undefined;

  constructor(options: RestorePlanOptions) {
    this.#options = options;
  }

  checkTarget(): void {
    const { target, files, captureFolders = [] } = this.#options;
    const shown = textFromPath(target);
    if (!target.startsWith("/") || !isSafeRelativePath(target.slice(1))) {
      throw new AppError("usage", `The target ${shown} is not a plain absolute path.`, {
        guidance: "Give it without `.`, `..` and double slashes, and not the root itself.",
      });
    }
    for (const folder of captureFolders) {
      if (!`${target}/`.startsWith(`${folder}/`)) continue;
      this.#refuse(`${shown} lies in ${textFromPath(folder)}, where captures are kept.`);
    }
    for (let path = target; path !== "/"; path = parentPath(path)) {
      const type = files.lstat(path)?.type;
      if (type === undefined || type === "directory") continue;
      if (type === "symlink" && this.#isDirectoryBehind(path)) continue;
      this.#refuse(`${textFromPath(path)} is in the way: it is not a directory.`);
    }
  }

  takeDirectory(path: string, isImplied: boolean): void {
    if (!isImplied) this.#directories += 1;
    const stat = this.#lstat(path);
    if (stat === undefined && !this.#isAbsent(path)) this.#absent = path;
    if (stat === undefined || stat.type === "directory") return;
    const what = stat.type === "symlink" ? "a symbolic link" : "not a directory";
    this.#refuse(`${this.#shown(path)} is ${what}; in the backup it is a directory.`);
  }

  takeLink(path: string, type: "symlink" | "hardlink"): void {
    if (type === "symlink") this.#symlinks += 1;
    else this.#hardlinks += 1;
    this.#takeGroup(path);
    this.#refuseDirectory(path, this.#lstat(path));
  }

  async takeFile(record: RegularFile): Promise<void> {
    const { path, sizeBytes } = record;
    this.#files += 1;
    this.#bytes += sizeBytes;
    this.#takeGroup(path);
    const stat = this.#lstat(path);
    this.#refuseDirectory(path, stat);
    const isFile = stat?.type === "file";
    if (isFile && stat.sizeBytes === sizeBytes && stat.mtimeNs === record.mtimeNs) {
      this.#filesKept += 1;
      this.#bytesKept += sizeBytes;
      return;
    }
    // How much of a sparse file is holes is not recorded.
    const spaceBytes = record.sparse ? 0 : sizeBytes;
    this.#peakBytes = Math.max(this.#peakBytes, this.#growthBytes + spaceBytes);
    const freedBytes = isFile && stat.linkCount === 1 ? stat.sizeBytes : 0;
    this.#freedBytes += freedBytes;
    this.#growthBytes += spaceBytes - freedBytes;
    await this.#takeChunks(record);
  }

  finish(): Pick<Survey, "groups" | "plan"> {
    this.#locateAll();
    const bytesToWrite = this.#bytes - this.#bytesKept;
    const spaceFreeBytes = this.#measureSpace();
    // What a window replaces is there twice for a moment.
    const spaceNeededBytes = this.#peakBytes + Math.min(WINDOW_SIZE_BYTES, this.#freedBytes);
    const isSpaceShort = bytesToWrite > 0 && spaceNeededBytes > spaceFreeBytes;
    if (isSpaceShort) {
      this.#refuse(
        `${textFromPath(this.#options.target)} needs ${formatSize(spaceNeededBytes)} of free ` +
          `space and has ${formatSize(spaceFreeBytes)}.`,
      );
    }
    if (this.#refusalCount > this.#refusals.length) {
      this.#refusals.push(`${this.#refusalCount - this.#refusals.length} more of this kind.`);
    }
    const plan = {
      files: this.#files,
      bytes: this.#bytes,
      filesKept: this.#filesKept,
      bytesKept: this.#bytesKept,
      filesToWrite: this.#files - this.#filesKept,
      bytesToWrite,
      directories: this.#directories,
      symlinks: this.#symlinks,
      hardlinks: this.#hardlinks,
      spaceNeededBytes,
      spaceFreeBytes,
      isSpaceShort,
      packs: this.#fetches.size,
      bytesToFetch: this.#bytesToFetch,
      refusals: this.#refusals,
    };
    return { groups: [...this.#groups].toSorted((one, other) => one - other), plan };
  }

  async #takeChunks(record: RegularFile): Promise<void> {
    const { locate } = this.#options;
    if (locate === undefined) {
      this.#bytesToFetch += record.sizeBytes;
      return;
    }
    for await (const refs of readChunkRefs(record, this.#options)) {
      for (const { id } of refs) this.#unlocated.push(id);
      if (this.#unlocated.length >= LOCATE_COUNT) this.#locateAll();
    }
  }

  #locateAll(): void {
    const { locate } = this.#options;
    const ids = this.#unlocated;
    this.#unlocated = [];
    if (locate === undefined || ids.length === 0) return;
    for (const location of locate(ids)) {
      // What is nowhere is for the run to report.
      if (location !== undefined) this.#takeFrame(location);
    }
  }

  #takeFrame({ pack, frame, storedLength }: ChunkLocation): void {
    const index = frame >> 3;
    let frames = this.#fetches.get(pack) ?? new Uint8Array(8);
    if (index >= frames.length) {
      const grown = new Uint8Array(Math.max(index + 1, 2 * frames.length));
      grown.set(frames);
      frames = grown;
    }
    this.#fetches.set(pack, frames);
    if (((frames[index] ?? 0) & (1 << (frame & 7))) !== 0) return;
    setFrame(frames, frame);
    this.#bytesToFetch += storedLength;
  }

  #takeGroup(path: string): void {
    const { restoreOrder } = this.#options;
    if (restoreOrder === undefined) return;
    this.#groups.add(restoreOrder(path));
    if (this.#groups.size <= GROUP_COUNT_MAX) return;
    throw new AppError("internal", `A product has more than ${GROUP_COUNT_MAX} groups of files.`);
  }

  /** True below a directory that is not there: asking the disk again would cost more than all else. */
  #isAbsent(path: string): boolean {
    return this.#absent !== undefined && path.startsWith(`${this.#absent}/`);
  }

  #lstat(path: string): FileStat | undefined {
    if (this.#isAbsent(path)) return undefined;
    return this.#options.files.lstat(joinPath(this.#options.target, path));
  }

  #refuseDirectory(path: string, stat: FileStat | undefined): void {
    if (stat?.type !== "directory") return;
    this.#refuse(`${this.#shown(path)} is a directory; in the backup it is not.`);
  }

  #isDirectoryBehind(link: string): boolean {
    try {
      this.#options.files.readDirectory(link);
      return true;
    } catch {
      return false;
    }
  }

  /** Free bytes where the target is or will be. */
  #measureSpace(): number {
    const { files } = this.#options;
    let path = this.#options.target;
    while (path !== "/" && files.lstat(path) === undefined) path = parentPath(path);
    return files.space(path).freeBytes;
  }

  #shown(path: string): string {
    return textFromPath(joinPath(this.#options.target, path));
  }

  #refuse(message: string): void {
    this.#refusalCount += 1;
    if (this.#refusals.length < REFUSAL_COUNT_MAX) this.#refusals.push(message);
  }
}
