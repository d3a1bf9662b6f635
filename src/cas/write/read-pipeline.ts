/**
 * Reads files through the data plane in batches. Each lane has up to `BATCHES_IN_FLIGHT` batches
 * between scan and store, so that the look-up and the claims of one hide behind the reading of the
 * next. Files come back in any order, the parts of one file in theirs. Memory: the files that wait
 * (bounded by the caller through `isFull`) and the plane's own buffers.
 *
 * The first lane takes whatever waits; another one only what is worth a thread: a whole batch, or what
 * would wait behind an open file. Of tiny files one thread reads more than the rest of a backup can
 * take, and a second one made it slower and took 40 MiB.
 */
import { AppError } from "../../base/error.ts";
import type { FileStat } from "../../base/doors.ts";
import { checkMemory } from "../../base/memory-guard.ts";
import type { BackupContext } from "./backup-context.ts";
import {
  BATCH_FILE_COUNT_MAX,
  BATCHES_IN_FLIGHT,
  READ_QUEUE_COUNT_MAX,
} from "./backup-settings.ts";
import type { Finding } from "./content-check.ts";
import { idAt } from "./data-plane.ts";
import type { FileScan, FileTask, ScanResult } from "./data-plane.ts";
import type { ChunkRef } from "../format/listing.ts";

/** Batches of a lane after which other work of the process has its turn. */
const YIELD_BATCH_COUNT = 64;

/** A file to read, and who wants to know. */
export interface FileReader {
  readonly task: FileTask;
  /** The first part is there: the read begins, resumed or from the start. */
  onStart(isResumed: boolean): void;
  onChunk(chunk: ChunkRef): void;
  onEnd(end: FileEnd): void;
  onError(error: AppError): void;
}

/** How a read ended. */
export type FileEnd = {
  readonly before: FileStat;
  /** The same size and time as before unless it changed meanwhile. */
  readonly after: FileStat;
  readonly isSparse: boolean;
  /** Of the check that the task names. */
  readonly finding?: Finding;
  /** Wall clock before the file was opened. */
  readonly takenNs: bigint;
};

/** Which reader a part of a batch belongs to, and when its file was opened. */
type OpenReader = { readonly reader: FileReader; readonly takenNs: bigint };

/** The lanes of one volume. */
export class ReadPipeline {
  readonly #context: BackupContext;
  readonly #onBatch: () => void;
  #queue: FileReader[] = [];
  #queuedBytes = 0;
  #isClosed = false;
  #failure: { readonly error: unknown } | undefined;
  #changed = Promise.withResolvers<void>();
  /** Lanes that have read something, and those whose last batch ended inside a file. */
  readonly #begun = new Set<number>();
  readonly #inFile = new Set<number>();
  readonly #lanes: Promise<void>[];

  /** `onBatch` is called whenever something has moved. */
  constructor(context: BackupContext, onBatch: () => void) {
    this.#context = context;
    this.#onBatch = onBatch;
    this.#lanes = Array.from({ length: context.plane.laneCount }, (_, lane) => this.#runLane(lane));
  }

  /** True if the lanes have enough to do: the caller then waits. */
  get isFull(): boolean {
    const { plane, settings } = this.#context;
    return (
      this.#queue.length >= READ_QUEUE_COUNT_MAX ||
      this.#queuedBytes >= 2 * plane.laneCount * settings.batchSizeBytes
    );
  }

  push(reader: FileReader): void {
    this.#queue.push(reader);
    this.#queuedBytes += reader.task.sizeBytes;
    this.#wake();
  }

  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Lets the lanes end, and waits for them: nothing runs any more, whether it failed or not. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#wake();
    await Promise.all(this.#lanes);
  }

  /** Ends the lanes at their next step. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#wake();
    this.#onBatch();
  }

  async #runLane(lane: number): Promise<void> {
    const busy = Array.from({ length: BATCHES_IN_FLIGHT }, () => Promise.resolve());
    try {
      let open: OpenReader | undefined;
      for (let slot = 0, count = 1; ; slot = (slot + 1) % BATCHES_IN_FLIGHT, count += 1) {
        if (open === undefined && !(await this.#waitForWork(lane))) break;
        // Without workers nothing here waits for the outside: leases are renewed by timers.
        if (count % YIELD_BATCH_COUNT === 0) await this.#context.doors.clock.sleep(0);
        checkMemory();
        await busy[slot];
        this.#throwIfStopped();
        // Another lane may have taken what was there.
        if (open === undefined && !this.#isWorth(lane)) continue;
        const readers = this.#take(open);
        const takenNs = BigInt(this.#context.doors.clock.now()) * 1_000_000n;
        const tasks = readers.map((reader) => reader.task);
        const batch = await this.#context.plane.scan(lane, slot, tasks);
        this.#putBack(readers.slice(batch.taskCount));
        const begun = readers.slice(0, batch.taskCount).map((reader) => ({ reader, takenNs }));
        const owners: OpenReader[] = open === undefined ? begun : [open, ...begun];
        const owned = deliver(batch, owners);
        open = batch.isOpen ? owners[batch.files.length - 1] : undefined;
        this.#noteOpen(lane, batch.isOpen);
        this.#context.totals.readBytes += batch.readBytes;
        busy[slot] = this.#store({ lane, slot, batch, owned });
        this.#onBatch();
      }
    } catch (error) {
      this.fail(error);
    }
    await Promise.all(busy);
  }

  /** False if there will be no more work for the lane. */
  async #waitForWork(lane: number): Promise<boolean> {
    while (!this.#isWorth(lane)) {
      if (this.#isClosed || this.#failure !== undefined) return false;
      await this.#changed.promise;
    }
    return this.#failure === undefined;
  }

  /** True if the lane should take of what waits. */
  #isWorth(lane: number): boolean {
    if (this.#queue.length === 0) return false;
    if (lane === 0 || this.#queuedBytes >= this.#context.settings.batchSizeBytes) return true;
    // At the end what a lane has put back may be its own to do: the others have gone.
    if (this.#isClosed) return this.#begun.has(lane);
    return this.#inFile.size > 0;
  }

  #noteOpen(lane: number, isOpen: boolean): void {
    this.#begun.add(lane);
    if (!isOpen) {
      this.#inFile.delete(lane);
    } else if (!this.#inFile.has(lane)) {
      this.#inFile.add(lane);
      this.#wake();
    }
  }

  /** Readers for one batch; behind a large open file only what may still fit. */
  #take(open: OpenReader | undefined): FileReader[] {
    const { batchSizeBytes } = this.#context.settings;
    if (open !== undefined && open.reader.task.sizeBytes > 2 * batchSizeBytes) return [];
    let sizeBytes = 0;
    let count = 0;
    for (const { task } of this.#queue) {
      if (count >= BATCH_FILE_COUNT_MAX || sizeBytes >= batchSizeBytes) break;
      sizeBytes += task.sizeBytes;
      count += 1;
    }
    this.#queuedBytes -= sizeBytes;
    return this.#queue.splice(0, count);
  }

  #putBack(readers: readonly FileReader[]): void {
    if (readers.length === 0) return;
    this.#queue = [...readers, ...this.#queue];
    for (const { task } of readers) this.#queuedBytes += task.sizeBytes;
    this.#wake();
  }

  /** Looks the batch's chunks up, claims the unknown ones and packs those that are ours. */
  async #store(part: StoreJob): Promise<void> {
    try {
      const { lane, slot, batch } = part;
      const keep = await this.#decide(part);
      await this.#context.uploads.room();
      this.#throwIfStopped();
      const packs = await this.#context.plane.store(lane, slot, keep);
      for (const pack of packs) this.#context.uploads.push(pack);
      for (const [index, isKept] of keep.entries()) {
        if (isKept !== 1) continue;
        this.#context.totals.newChunks += 1;
        this.#context.totals.newBytes += batch.lengths[index]!;
      }
      this.#onBatch();
    } catch (error) {
      this.fail(error);
    }
  }

  async #decide({ batch, owned }: StoreJob): Promise<Uint8Array<ArrayBuffer>> {
    const { lookup, claims, foreign } = this.#context;
    const keep = new Uint8Array(batch.lengths.length);
    const unknown = this.#lookUp(owned);
    if (unknown.length === 0) return keep;
    const answers = await claims.claim(unknown.map(({ id }) => id));
    for (const [position, chunk] of unknown.entries()) {
      if (answers[position] === true) {
        keep[chunk.index] = 1;
        continue;
      }
      lookup.cancel(chunk.id);
      const { id, readPath, offset, length } = chunk;
      foreign.add({ id, readPath, offset, length });
    }
    return keep;
  }

  /** The chunks that are neither in the site nor on their way there; from now on they are. */
  #lookUp(owned: readonly OwnedChunk[]): OwnedChunk[] {
    const { lookup, database } = this.#context;
    const unknown: OwnedChunk[] = [];
    const lookUp = (): void => {
      for (const chunk of owned) {
        if (lookup.isUnderWay(chunk.id) || lookup.use(chunk.id)) continue;
        // Entered before the claim, so that no other batch of ours claims it meanwhile.
        lookup.begin(chunk.id);
        unknown.push(chunk);
      }
    };
    // One transaction: taking SQLite's locks for each question would cost more than the answers.
    if (owned.some(({ id }) => lookup.mayFind(id))) database.transaction(lookUp)();
    else lookUp();
    return unknown;
  }

  #throwIfStopped(): void {
    this.#context.signal?.throwIfAborted();
    this.throwIfFailed();
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }
}

type OwnedChunk = {
  /** In the batch. */
  readonly index: number;
  readonly id: Uint8Array;
  readonly readPath: string;
  readonly offset: number;
  readonly length: number;
};

type StoreJob = {
  readonly lane: number;
  readonly slot: number;
  readonly batch: ScanResult;
  readonly owned: readonly OwnedChunk[];
};

/** Tells the readers what the batch holds of their files; returns where each chunk came from. */
function deliver(batch: ScanResult, owners: readonly OpenReader[]): OwnedChunk[] {
  const owned: OwnedChunk[] = [];
  for (const [index, file] of batch.files.entries()) {
    const owner = owners[index]!;
    const { reader } = owner;
    let offset = file.offset;
    if (file.isFirst && file.error === undefined) reader.onStart(file.isResumed);
    for (let count = 0; count < file.chunkCount; count++) {
      const id = idAt(batch.ids, owned.length);
      const length = batch.lengths[owned.length]!;
      owned.push({ index: owned.length, id, readPath: reader.task.path, offset, length });
      reader.onChunk({ id, length });
      offset += length;
    }
    endFile(file, owner);
  }
  return owned;
}

function endFile(file: FileScan, { reader, takenNs }: OpenReader): void {
  if (file.error !== undefined) {
    const { kind, message, ...options } = file.error;
    reader.onError(new AppError(kind, message, options));
  } else if (file.isLast) {
    const { before, after = before, isSparse, finding } = file;
    const found = finding === undefined ? {} : { finding };
    reader.onEnd({ before: before!, after: after!, isSparse, takenNs, ...found });
  }
}
