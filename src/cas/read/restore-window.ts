/**
 * Files on their way into place, a window of them at a time. Each is written under a temporary name
 * beside its place, chunk by chunk as verified bytes arrive in the order of packs, then gets its
 * attributes, is synced and renamed; the directories are synced once for the whole window. So a path
 * holds either what was there before or the whole file, whatever happens. While one window is at
 * work the next is gathered. Memory: the chunk ids of two windows (WINDOW_CHUNK_COUNT_MAX each) and
 * the ranges that are on their way (JOB_COUNT_MAX); contents pass through.
 */
import assert from "node:assert/strict";
import type { FileStat, FileSystem, Random } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { joinPath, parentPath, textFromPath } from "../../base/path.ts";
import { forEachConcurrent } from "../../base/semaphore.ts";
import { damagedError, idKey } from "../format/bytes.ts";
import type { ChunkRef, FileRecord } from "../format/listing.ts";
import type { OwnerPolicy, RestoreAttributes } from "./restore-attributes.ts";
import { readChunkRefs } from "./restore-content.ts";
import { assignFiles, planJob } from "./restore-job.ts";
import type { PlannedJob, WantedChunk, WindowFile } from "./restore-job.ts";
import { decodeStat, RestoreLaneCore } from "./restore-lane.ts";
import type { LaneOutcome, Published } from "./restore-lane.ts";
import type { OpenLanes, RestoreLane, RestoreLanes } from "./restore-lanes.ts";
import { sealerOf } from "./restore-options.ts";
import type { RestoreSource } from "./restore-options.ts";
import type { RegularFile } from "./restore-records.ts";
import { drawTemporaryPrefix, temporaryName } from "./restore-temporary.ts";
import { ignoreFailure } from "./restore-writer.ts";

/** What one window holds at most; a larger file passes through several of its own. */
export const WINDOW_SIZE_BYTES = 64 * 1024 * 1024;
const WINDOW_FILE_COUNT_MAX = 1536;
const WINDOW_CHUNK_COUNT_MAX = 65_536;

/** A window of less is done here: other threads would take longer to start. */
const LANES_SIZE_BYTES_MIN = 4 * 1024 * 1024;
const LANES_FILE_COUNT_MIN = 512;
/**
 * One more thread is started when the others were given so much. Each costs a quarter of a second of
 * CPU to start and to compile its code, and for tiny files one keeps up with whoever plans.
 */
const NEXT_LANE_BYTES = 32 * 1024 * 1024;

/** What a window works with. */
export type WindowOptions = {
  readonly files: FileSystem;
  readonly source: RestoreSource;
  readonly random: Random;
  readonly ownerPolicy: OwnerPolicy;
  readonly attributes: RestoreAttributes;
  readonly openLanes?: OpenLanes | undefined;
  /** True if `onPlaced` wants to know what a file looks like in its place. */
  readonly isStatWanted: boolean;
  /** Told of each file that is in place and durable. */
  readonly onPlaced: (record: FileRecord, stat: FileStat | undefined) => void;
  readonly signal?: AbortSignal | undefined;
};

type Link = { readonly record: FileRecord; readonly path: string; readonly existing: string };

/** What is gathered, and then done together. */
type Batch = {
  readonly number: number;
  readonly files: WindowFile[];
  readonly links: Link[];
  readonly wanted: Map<string, WantedChunk>;
  sizeBytes: number;
  placeCount: number;
};

/**
 * Gathers files and puts them in place together.
 *
 * @example
 * window.add(record, path);
 * if (window.isFull) await window.flush();
 * await window.drain();
 */
export class RestoreWindow implements Disposable {
  fetchedBytes = 0;
  readonly #options: WindowOptions;
  readonly #prefix: string;
  /** Does what is small, what several jobs share, and what jobs could not. */
  readonly #own: RestoreLaneCore;
  readonly #lanes: RestoreLanes | undefined;
  /** Jobs that each lane has. */
  readonly #busy = new Map<RestoreLane, number>();
  /** Bytes that were given to lanes. */
  #givenBytes = 0;
  #batch = newBatch(0);
  /** The window before, until it is in place. */
  #working: Promise<void> | undefined;
  #nameCount = 0;
  /** Directories in which names changed. */
  readonly #changed = new Set<string>();

  constructor(options: WindowOptions) {
    const { files, ownerPolicy, openLanes } = options;
    this.#options = options;
    this.#prefix = drawTemporaryPrefix(options.random);
    const idKey = sealerOf(options.source).keys?.idKey;
    const settings = { ownerPolicy, prefix: this.#prefix, idKey };
    this.#own = new RestoreLaneCore(files, settings);
    this.#lanes = openLanes?.(settings);
    for (const lane of this.#lanes?.lanes ?? []) this.#busy.set(lane, 0);
  }

  get isFull(): boolean {
    const { sizeBytes, files, links, placeCount } = this.#batch;
    return (
      sizeBytes >= WINDOW_SIZE_BYTES ||
      files.length + links.length >= WINDOW_FILE_COUNT_MAX ||
      this.#changed.size >= WINDOW_FILE_COUNT_MAX ||
      placeCount >= WINDOW_CHUNK_COUNT_MAX
    );
  }

  /** Takes a file; its place is an absolute path. */
  async add(record: RegularFile, path: string): Promise<void> {
    const isLarge = record.content.form === "tree" || record.sizeBytes > WINDOW_SIZE_BYTES;
    const file = this.#begin(record, path, isLarge);
    let offset = 0;
    for await (const refs of readChunkRefs(record, this.#options)) {
      for (const ref of refs) {
        this.#want(file, ref, offset);
        offset += ref.length;
        if (isLarge && this.isFull) await this.flush();
      }
    }
    // With its last chunks: the parts before have no name to give.
    this.#batch.files.push(file);
  }

  /** Takes a hard link to a file that was placed or added before. */
  addLink(record: FileRecord, path: string, existing: string): void {
    this.#batch.links.push({ record, path, existing });
  }

  /** Puts a symbolic link in place at once. */
  placeSymlink(record: FileRecord & { readonly type: "symlink" }, path: string): void {
    const { files, attributes } = this.#options;
    const temporary = this.#temporaryFor(path);
    files.symlink(record.target, temporary);
    this.#orRemove(temporary, () => {
      attributes.give(temporary, record);
      files.rename(temporary, path);
    });
    this.noteChanged(parentPath(path));
  }

  /** Says that names changed in a directory, which the next window makes durable. */
  noteChanged(directory: string): void {
    this.#changed.add(directory);
  }

  /** Says that a directory is gone, changes and all. */
  noteRemoved(directory: string): void {
    this.#changed.delete(directory);
  }

  /** Begins to put everything in place that was added; waits until the window before is. */
  async flush(): Promise<void> {
    await this.#working;
    const batch = this.#batch;
    this.#batch = newBatch(batch.number + 1);
    const working = this.#complete(batch);
    // Who waits for it is told.
    working.catch(() => undefined);
    this.#working = working;
  }

  /** Puts everything in place that was added. */
  async drain(): Promise<void> {
    await this.flush();
    await this.#working;
  }

  /** Makes all changes of names durable. */
  syncChanged(): void {
    for (const directory of this.#changed) this.#options.files.syncDirectory(directory);
    this.#changed.clear();
  }

  /** Gives up: removes what has no name yet, as far as the disk lets us. */
  async abandon(): Promise<void> {
    await this.#working?.catch(() => undefined);
    this.#own.abandon();
    for (const lane of this.#busy.keys()) await lane.abandon().catch(() => undefined);
  }

  /** Ends the threads. */
  [Symbol.dispose](): void {
    this.#lanes?.[Symbol.dispose]();
  }

  #begin(record: RegularFile, path: string, isShared: boolean): WindowFile {
    const number = this.#nextNumber();
    const job = undefined;
    return { number, record, path, isShared, isCreated: false, isMade: false, job };
  }

  #want(file: WindowFile, ref: ChunkRef, offset: number): void {
    const batch = this.#batch;
    const key = idKey(ref.id);
    const wanted = batch.wanted.get(key) ?? { ref, places: [] };
    if (wanted.ref.length !== ref.length) {
      throw damagedError("The listing", "names a chunk with two lengths");
    }
    wanted.places.push({ file, offset });
    batch.wanted.set(key, wanted);
    batch.sizeBytes += ref.length;
    batch.placeCount += 1;
  }

  /** Fetches, writes and renames everything of a window. */
  async #complete(batch: Batch): Promise<void> {
    const { files, onPlaced, isStatWanted } = this.#options;
    await this.#runJobs(batch);
    for (const file of batch.files) {
      if (file.isMade) continue;
      if (!file.isCreated) this.#adopt(file, false);
      this.#own.finish(batch.number, file.number);
    }
    this.#own.sync();
    const lanes = [...this.#busy.keys()];
    await settleAll(lanes.map(async (lane) => lane.sync()));
    const stats = new Map<number, FileStat>();
    const note = (published: Published): void => this.#notePublished(published, stats);
    note(this.#own.publish(batch.number, isStatWanted));
    await settleAll(
      lanes.map(async (lane) => note(await lane.publish(batch.number, isStatWanted))),
    );
    for (const { path } of batch.files) this.noteChanged(parentPath(path));
    const linked = new Set(batch.links.map(({ existing }) => existing));
    for (const link of batch.links) this.#placeLink(link);
    this.syncChanged();
    for (const { record, path, number } of batch.files) {
      // A link changes what is told of its file.
      const isStale = isStatWanted && linked.has(path);
      onPlaced(record, isStale ? files.lstat(path) : stats.get(number));
    }
    for (const { record } of batch.links) onPlaced(record, undefined);
  }

  #notePublished({ numbers, stats, ...counts }: Published, into: Map<number, FileStat>): void {
    this.#options.attributes.ownersNotSet += counts.ownersNotSet;
    this.#options.attributes.xattrsNotSet += counts.xattrsNotSet;
    if (stats === undefined) return;
    for (const [index, number] of numbers.entries()) {
      const stat = decodeStat(stats, index);
      if (stat !== undefined) into.set(number, stat);
    }
  }

  async #runJobs(batch: Batch): Promise<void> {
    const { source, signal } = this.#options;
    const wanted = [...batch.wanted.values()];
    batch.wanted.clear();
    if (wanted.length === 0) return;
    const ranges = source.planRanges(wanted.map(({ ref }) => ref));
    assignFiles(ranges, wanted);
    const isSmall =
      batch.sizeBytes < LANES_SIZE_BYTES_MIN && batch.files.length < LANES_FILE_COUNT_MIN;
    const laneCount = isSmall ? 0 : this.#busy.size;
    await forEachConcurrent(
      ranges,
      source.concurrency + laneCount,
      async (range, innerSignal) => {
        const openings = await source.openings?.(range, innerSignal);
        const planned = planJob(range, wanted, openings);
        for (const file of planned.files) {
          if (file.isShared && !file.isCreated) this.#adopt(file, false);
        }
        const stored = (await source.readRange(range, innerSignal)) ?? new Uint8Array(0);
        innerSignal.throwIfAborted();
        const outcome = await this.#runJob(batch.number, planned, { stored, isSmall });
        await this.#takeOutcome(planned, outcome, innerSignal);
      },
      signal,
    );
    for (const { ref } of wanted) this.fetchedBytes += ref.length;
  }

  /** In the thread that has least to do. */
  async #runJob(
    window: number,
    { job }: PlannedJob,
    how: { readonly stored: Uint8Array; readonly isSmall: boolean },
  ): Promise<LaneOutcome> {
    const [lane] = [...this.#busy.keys()]
      .slice(0, 1 + Math.floor(this.#givenBytes / NEXT_LANE_BYTES))
      .toSorted((one, other) => this.#busy.get(one)! - this.#busy.get(other)!);
    this.#givenBytes += how.stored.length;
    if (lane === undefined || how.isSmall) return this.#own.run(window, job, how.stored);
    this.#busy.set(lane, this.#busy.get(lane)! + 1);
    try {
      return await lane.run(window, job, how.stored);
    } finally {
      this.#busy.set(lane, this.#busy.get(lane)! - 1);
    }
  }

  /** Goes on with what a job could not do, with other copies of its chunks. */
  async #takeOutcome(
    { wanted, files }: PlannedJob,
    { failed, unfinished }: LaneOutcome,
    signal: AbortSignal,
  ): Promise<void> {
    const left = new Set(unfinished);
    for (const [index, file] of files.entries()) {
      if (left.has(index)) this.#adopt(file, true);
      else if (!file.isShared) file.isMade = true;
    }
    for (const index of failed) {
      const chunk = wanted[index];
      assert(chunk !== undefined);
      const bytes = await this.#whole(chunk, signal);
      for (const { file, offset } of chunk.places) this.#own.write(file.number, bytes, offset);
    }
  }

  /** A chunk from wherever it is whole; an error names a file that needs it. */
  async #whole({ ref, places }: WantedChunk, signal: AbortSignal): Promise<Uint8Array> {
    try {
      return await this.#options.source.fetch(ref.id, ref.length, signal);
    } catch (thrown) {
      const path = places[0]?.file.record.path;
      if (path === undefined || !(thrown instanceof AppError) || thrown.kind !== "damaged") {
        throw thrown;
      }
      throw ofFile(thrown, textFromPath(path));
    }
  }

  /** Makes a file that no job makes alone. */
  #adopt(file: WindowFile, isThere: boolean): void {
    file.isCreated = true;
    this.#own.adopt({ number: file.number, path: file.path, record: file.record }, isThere);
  }

  #placeLink({ path, existing }: Link): void {
    const { files } = this.#options;
    const target = files.lstat(existing);
    const present = files.lstat(path);
    // Renaming one name of a file over another does nothing, and would leave the temporary.
    if (target !== undefined && present !== undefined && isSameFile(target, present)) return;
    const temporary = this.#temporaryFor(path);
    files.link(existing, temporary);
    this.#orRemove(temporary, () => files.rename(temporary, path));
    this.noteChanged(parentPath(path));
  }

  #orRemove(temporary: string, attempt: () => void): void {
    try {
      attempt();
    } catch (thrown) {
      ignoreFailure(() => this.#options.files.unlink(temporary));
      throw thrown;
    }
  }

  #temporaryFor(path: string): string {
    return joinPath(parentPath(path), temporaryName(this.#prefix, this.#nextNumber()));
  }

  #nextNumber(): number {
    this.#nameCount += 1;
    return this.#nameCount;
  }
}

/** Everything else can be restored, and is, by who is told how. */
function ofFile(error: AppError, file: string): AppError {
  return new AppError("damaged", `${file} cannot be restored: ${error.message}`, {
    guidance:
      `\`--path '!${file}'\` leaves it out (more than one can be given); what is in place already ` +
      "is kept. `astacus verify --deep` names all files that are hit.",
    retryable: error.retryable,
    context: { ...error.context, path: file },
    cause: error,
  });
}

function newBatch(number: number): Batch {
  return { number, files: [], links: [], wanted: new Map(), sizeBytes: 0, placeCount: 0 };
}

/** Waits for all, also after a failure: then nothing is at work any more. */
async function settleAll(promises: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(promises)) {
    if (result.status === "rejected") throw result.reason;
  }
}

function isSameFile(one: FileStat, other: FileStat): boolean {
  return one.inode === other.inode && one.device === other.device;
}
