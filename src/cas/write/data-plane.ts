/**
 * The data plane: reads files into the chunker's own buffer, cuts and hashes them there, and packs
 * the chunks that somebody else decided to keep. Synchronous, one instance a thread; it knows no
 * index, no site and no volume. Every byte of a file is read once: what a batch could not cut is
 * moved to the front of the next. Memory: `BATCHES_IN_FLIGHT` buffers, and one open pack.
 *
 * A batch lies in its slot from `scan` to `store`; slots are used in turn.
 */
import assert from "node:assert/strict";
import type { FileStat, FileSystem } from "../../base/doors.ts";
import type { AppErrorJson } from "../../base/error.ts";
import { toAppError } from "../../base/error.ts";
import { SHA256_SIZE_BYTES } from "../../base/hex.ts";
import { BATCHES_IN_FLIGHT } from "./backup-settings.ts";
import { beginCheck } from "./content-check.ts";
import type { ContentCheck, ContentChecks, Finding } from "./content-check.ts";
import { Chunker } from "../format/chunker.ts";
import type { ChunkerSettings } from "../format/chunker.ts";
import { boundsOfAverage } from "../format/chunker-reference.ts";
import { PackBuilder } from "../format/pack-builder.ts";
import type { SealedPack } from "../format/pack.ts";
import { chunkIdOf, Sealer } from "../format/seal.ts";
import type { FrameSealing, SealKeys, SessionKey } from "../format/seal.ts";

/** A chunk that a file must still have, or the resumed read proves nothing. */
export type ChunkCheck = {
  readonly offset: number;
  readonly length: number;
  readonly id: Uint8Array;
};

/** One file to read. */
export type FileTask = {
  /** Absolute path. */
  readonly path: string;
  /** As the walk saw it: says whether the file fits into the rest of a batch. */
  readonly sizeBytes: number;
  /** Nothing beyond this is read; for append-only files. */
  readonly sizeBytesMax?: number;
  /** Where to go on if all the checks hold; else the file is read from its start. */
  readonly resume?: { readonly offset: number; readonly checks: readonly ChunkCheck[] };
  /** Which content check sees the bytes; `verifiedBytes` counts if the read is resumed. */
  readonly check?: { readonly name: string; readonly verifiedBytes: number };
};

/** What a batch says of one file; a large file is in several batches. */
export type FileScan = {
  /** How many of the batch's chunks, which follow in the order of `files`, are of this file. */
  readonly chunkCount: number;
  /** Where in the file the first of them starts. */
  readonly offset: number;
  readonly isFirst: boolean;
  readonly isLast: boolean;
  /** True if the checks of `resume` held. */
  readonly isResumed: boolean;
  /** Runs of zeros are holes; told with the last part. */
  readonly isSparse: boolean;
  /** The open file before the first read. */
  readonly before?: FileStat;
  /** After the last one, where that shows another size or time: each stat crosses threads. */
  readonly after?: FileStat;
  /** What the task's check found; told with the last part. */
  readonly finding?: Finding;
  readonly error?: AppErrorJson;
};

/** A batch: its chunks in order, and which files they belong to. */
export type ScanResult = {
  /** The open file of the batch before comes first, if there is one; then the tasks. */
  readonly files: readonly FileScan[];
  /** Tasks that were begun; the rest did not fit. */
  readonly taskCount: number;
  /** SHA-256 of each chunk, 32 bytes each. */
  readonly ids: Uint8Array<ArrayBuffer>;
  readonly lengths: Uint32Array<ArrayBuffer>;
  /** True if the last file goes on in the next batch. */
  readonly isOpen: boolean;
  readonly readBytes: number;
};

/** What a plane needs to know. */
export type DataPlaneSettings = {
  readonly chunker: ChunkerSettings;
  readonly batchSizeBytes: number;
  readonly packSizeBytes: number;
  readonly frameSizeBytes: number;
  readonly compressionLevel: number;
};

/** What an encrypted repository's chunks are named and sealed with, as it crosses threads. */
export type PlaneSealing = { readonly keys: SealKeys; readonly session: SessionKey };

/** Of a smaller file that has as many blocks as it needs nobody asks for holes. */
const PROBED_HOLES_SIZE_BYTES = 1024 * 1024;

/** Buffers of packs that wait to be filled again. */
const SPARE_BUFFER_COUNT_MAX = 4;
const IDLE_BUFFER_COUNT_MAX = 1;

/** Where the buffers of packs come from. */
export type PackBuffers = {
  readonly make: (sizeBytes: number) => Uint8Array;
  /** A buffer of `make` will not be used again. */
  readonly forget: (buffer: Uint8Array) => void;
};

const PLAIN_BUFFERS: PackBuffers = {
  make: (sizeBytes) => new Uint8Array(sizeBytes),
  forget: () => undefined,
};

type Slot = {
  readonly chunker: Chunker;
  /** Bytes of the buffer that are in use. */
  filled: number;
  /** Where each chunk starts; one more than there are chunks is never needed. */
  offsets: number[];
  lengths: number[];
  /** Chunks that are the first of a file. */
  firsts: Set<number>;
  ids: Uint8Array<ArrayBuffer>;
};

/** A file that is being read. */
type OpenFile = {
  readonly task: FileTask;
  readonly handle: number;
  readonly before: FileStat;
  /** Where reading ends unless the file ends before. */
  readonly end: number;
  readonly isResumed: boolean;
  readonly check: ContentCheck | undefined;
  /** Where the next read begins. */
  position: number;
  isFirst: boolean;
  /** Bytes at the end of the last batch's buffer that were read and not yet cut. */
  uncut: { readonly slot: number; readonly offset: number; readonly length: number } | undefined;
};

/** The part of a batch that `scan` is filling. */
type Batch = { readonly slot: Slot; readonly slotNumber: number; files: FileScan[]; bytes: number };

/**
 * One thread's reader and packer.
 *
 * @example
 * const batch = plane.scan(0, [{ path: "/data/a", sizeBytes: 10 }]);
 * const packs = plane.store(0, new Uint8Array(batch.lengths.length).fill(1));
 * packs.push(...plane.flush());
 */
export class DataPlaneCore {
  readonly #files: FileSystem;
  readonly #settings: DataPlaneSettings;
  readonly #salt: () => Uint8Array;
  readonly #checks: ContentChecks;
  readonly #buffers: PackBuffers;
  readonly #slots: Slot[] = [];
  #sealing: FrameSealing | undefined;
  #builder: PackBuilder;
  /** Buffers of packs that were sent. */
  #spare: Uint8Array[] = [];
  #open: OpenFile | undefined;
  /** False if the next chunk to pack is of another file than the last one that was packed. */
  #isNext = false;

  constructor(
    files: FileSystem,
    salt: () => Uint8Array,
    options: DataPlaneSettings & {
      readonly checks?: ContentChecks;
      readonly buffers?: PackBuffers;
    },
  ) {
    const { checks, buffers = PLAIN_BUFFERS, ...settings } = options;
    this.#files = files;
    this.#salt = salt;
    this.#checks = checks ?? {};
    this.#buffers = buffers;
    this.#settings = settings;
    this.#builder = this.#openBuilder();
  }

  /** Reads the file that the last batch left open, then as many of the tasks as fit. */
  scan(slotNumber: number, tasks: readonly FileTask[]): ScanResult {
    const slot = this.#mustGetSlot(slotNumber);
    slot.filled = 0;
    slot.offsets = [];
    slot.lengths = [];
    slot.firsts = new Set();
    const batch: Batch = { slot, slotNumber, files: [], bytes: 0 };
    if (this.#open !== undefined) this.#readOpen(this.#open, batch);
    let taskCount = 0;
    for (const task of tasks) {
      if (this.#open !== undefined || !hasRoom(slot, task)) break;
      taskCount += 1;
      this.#begin(task, batch);
    }
    hashChunks(slot, this.#idKey);
    return {
      files: batch.files,
      taskCount,
      ids: slot.ids.slice(),
      lengths: Uint32Array.from(slot.lengths),
      isOpen: this.#open !== undefined,
      readBytes: batch.bytes,
    };
  }

  /** Packs the chunks of a batch whose byte in `keep` is 1, and frees the slot. */
  store(slotNumber: number, keep: Uint8Array): SealedPack[] {
    const slot = this.#mustGetSlot(slotNumber);
    assert.equal(keep.length, slot.lengths.length, "each chunk of the batch was decided on");
    const sealed: SealedPack[] = [];
    for (let index = 0; index < keep.length; index++) {
      if (slot.firsts.has(index)) this.#isNext = false;
      if (keep[index] !== 1) continue;
      const offset = slot.offsets[index]!;
      const bytes = slot.chunker.buffer.subarray(offset, offset + slot.lengths[index]!);
      const pack = this.#builder.add(idAt(slot.ids, index), bytes, this.#isNext);
      this.#isNext = true;
      if (pack !== undefined) sealed.push(pack);
    }
    // A file that begins at the end, of which no chunk is cut yet.
    if (slot.firsts.has(keep.length)) this.#isNext = false;
    return sealed;
  }

  /** Seals the open pack. */
  flush(): SealedPack[] {
    const pack = this.#builder.finish();
    return pack === undefined ? [] : [pack];
  }

  /** Takes the whole buffer of a pack back that nobody needs any more. */
  recycle(buffer: Uint8Array): void {
    if (this.#spare.length < SPARE_BUFFER_COUNT_MAX) this.#spare.push(buffer);
    else this.#buffers.forget(buffer);
  }

  /**
   * Forgets the open file and the open pack, as before the first scan. From then on packs are sealed
   * as said; a session key is forgotten by the next call.
   */
  reset(sealing?: PlaneSealing): void {
    if (this.#open !== undefined) this.#files.close(this.#open.handle);
    this.#open = undefined;
    this.#isNext = false;
    const isOther = sealing !== undefined || this.#sealing !== undefined;
    this.#sealing = sealing && { sealer: new Sealer(sealing.keys), session: sealing.session };
    if (isOther || this.#builder.pendingBytes > 0) this.#builder = this.#openBuilder();
  }

  get #idKey(): Uint8Array | undefined {
    return this.#sealing?.sealer.keys?.idKey;
  }

  #openBuilder(): PackBuilder {
    const { chunker, packSizeBytes, frameSizeBytes, compressionLevel } = this.#settings;
    return new PackBuilder({
      kind: "data",
      packSizeBytes,
      frameSizeBytes,
      chunkSizeBytesMax: boundsOfAverage(chunker.averageSizeBytes).maximum,
      compression: { level: compressionLevel },
      salt: this.#salt,
      sealing: this.#sealing,
      takeBuffer: (sizeBytes) => this.#takeBuffer(sizeBytes),
    });
  }

  #takeBuffer(sizeBytes: number): Uint8Array {
    const spare = this.#spare.pop();
    // What lies idle while a pack begins was for a burst: 9 MiB each, in every thread.
    for (const idle of this.#spare.splice(IDLE_BUFFER_COUNT_MAX)) this.#buffers.forget(idle);
    if (spare !== undefined && spare.length >= sizeBytes) return spare;
    if (spare !== undefined) this.#buffers.forget(spare);
    return this.#buffers.make(sizeBytes);
  }

  /** Slots are made when they are first needed. */
  #mustGetSlot(slotNumber: number): Slot {
    assert(slotNumber >= 0 && slotNumber < BATCHES_IN_FLIGHT);
    const found = this.#slots[slotNumber];
    if (found !== undefined) return found;
    for (let index = this.#slots.length; index <= slotNumber; index++) {
      this.#slots.push(openSlot(this.#settings));
    }
    return this.#slots[slotNumber]!;
  }

  #begin(task: FileTask, batch: Batch): void {
    let handle: number | undefined;
    try {
      handle = this.#files.open(task.path, "r");
      const before = this.#files.stat(handle);
      const isResumed = this.#isSame(handle, task, batch);
      const position = isResumed ? task.resume!.offset : 0;
      const file: OpenFile = {
        task,
        handle,
        before,
        end: Math.min(before.sizeBytes, task.sizeBytesMax ?? before.sizeBytes),
        isResumed,
        check: this.#beginCheck(task, position, isResumed),
        position,
        isFirst: true,
        uncut: undefined,
      };
      this.#open = file;
      handle = undefined;
      this.#readOpen(file, batch);
    } catch (error) {
      if (handle !== undefined) this.#files.close(handle);
      batch.files.push(failedScan(error, true));
    }
  }

  /** Reads as much of the open file as fits, and cuts it. */
  #readOpen(file: OpenFile, batch: Batch): void {
    const { slot } = batch;
    const start = slot.filled;
    const chunkCountBefore = slot.lengths.length;
    const offset = file.position - (file.uncut?.length ?? 0);
    try {
      this.#moveUncut(file, slot);
      const isAtEnd = this.#fill(file, batch);
      const cutEnd = cut(slot, start, isAtEnd);
      const chunkCount = slot.lengths.length - chunkCountBefore;
      if (file.isFirst) slot.firsts.add(chunkCountBefore);
      const part = { chunkCount, offset, isFirst: file.isFirst, isResumed: file.isResumed };
      if (!isAtEnd) {
        file.uncut = { slot: batch.slotNumber, offset: cutEnd, length: slot.filled - cutEnd };
        batch.files.push({ ...part, isLast: false, isSparse: false, before: file.before });
        file.isFirst = false;
        return;
      }
      const after = this.#files.stat(file.handle);
      const isSparse = this.#hasHoles(file, after);
      const found = file.check === undefined ? {} : { finding: file.check.finish() };
      this.#close(file);
      const { before } = file;
      const changed = isSameState(before, after) ? {} : { after };
      batch.files.push({ ...part, isLast: true, isSparse, before, ...changed, ...found });
    } catch (error) {
      slot.filled = start;
      slot.offsets.length = chunkCountBefore;
      slot.lengths.length = chunkCountBefore;
      if (this.#open !== undefined) this.#close(file);
      batch.files.push(failedScan(error, file.isFirst));
    }
  }

  #beginCheck(task: FileTask, offset: number, isResumed: boolean): ContentCheck | undefined {
    if (task.check === undefined) return undefined;
    const { name, verifiedBytes } = task.check;
    const start = { offset, verifiedBytes: isResumed ? verifiedBytes : 0 };
    return beginCheck(this.#checks, name, start);
  }

  #close(file: OpenFile): void {
    this.#open = undefined;
    this.#files.close(file.handle);
  }

  #moveUncut(file: OpenFile, slot: Slot): void {
    const uncut = file.uncut;
    if (uncut === undefined) return;
    assert.equal(slot.filled, 0, "a file that goes on comes first in its batch");
    const source = this.#mustGetSlot(uncut.slot).chunker.buffer;
    slot.chunker.buffer.set(source.subarray(uncut.offset, uncut.offset + uncut.length), 0);
    slot.filled = uncut.length;
    file.uncut = undefined;
  }

  /** True at the end of the file, or of the part that belongs to the backup. */
  #fill(file: OpenFile, batch: Batch): boolean {
    const { slot } = batch;
    const buffer = slot.chunker.buffer;
    while (file.position < file.end && slot.filled < buffer.length) {
      const length = Math.min(buffer.length - slot.filled, file.end - file.position);
      const target = buffer.subarray(slot.filled, slot.filled + length);
      const count = this.#files.read(file.handle, target, file.position);
      if (count === 0) return true;
      file.check?.update(target.subarray(0, count));
      file.position += count;
      slot.filled += count;
      batch.bytes += count;
    }
    return file.position >= file.end;
  }

  /** Holes show in the whole file only: what was resumed or cut short asks for all of it again. */
  #hasHoles(file: OpenFile, { allocatedBytes = 0 }: FileStat): boolean {
    if (file.end === 0) return false;
    // Blocks may lie behind the end, too: of a large file two more calls cost nothing.
    if (file.end <= PROBED_HOLES_SIZE_BYTES && allocatedBytes >= file.end) return false;
    const ranges = this.#files.dataRanges(file.handle, file.end);
    const dataBytes = ranges.reduce((sum, range) => sum + range.length, 0);
    return dataBytes < file.end;
  }

  /** True if the chunks to check are what they were, and say something. */
  #isSame(handle: number, task: FileTask, batch: Batch): boolean {
    if (task.resume === undefined || task.resume.checks.length === 0) return false;
    const buffer = batch.slot.chunker.buffer.subarray(batch.slot.filled);
    for (const check of task.resume.checks) {
      if (check.length > buffer.length) return false;
      const bytes = buffer.subarray(0, check.length);
      for (let filled = 0; filled < bytes.length;) {
        const count = this.#files.read(handle, bytes.subarray(filled), check.offset + filled);
        if (count === 0) return false;
        filled += count;
        batch.bytes += count;
      }
      if (isConstant(bytes)) return false;
      if (Buffer.compare(chunkIdOf(bytes, this.#idKey), check.id) !== 0) return false;
    }
    return true;
  }
}

/** The id of a chunk of a batch, a view. */
export function idAt(ids: Uint8Array, index: number): Uint8Array {
  return ids.subarray(index * SHA256_SIZE_BYTES, (index + 1) * SHA256_SIZE_BYTES);
}

function openSlot(settings: DataPlaneSettings): Slot {
  const { maximum } = boundsOfAverage(settings.chunker.averageSizeBytes);
  const bufferSizeBytes = Math.max(settings.batchSizeBytes, 2 * maximum);
  const chunker = new Chunker(settings.chunker, { bufferSizeBytes });
  return {
    chunker,
    filled: 0,
    offsets: [],
    lengths: [],
    firsts: new Set(),
    ids: new Uint8Array(0),
  };
}

function isSameState(one: FileStat, other: FileStat): boolean {
  return one.sizeBytes === other.sizeBytes && one.mtimeNs === other.mtimeNs;
}

/** A file begins in a batch if it fits into the rest of it, or can at least be cut there. */
function hasRoom(slot: Slot, task: FileTask): boolean {
  const room = slot.chunker.buffer.length - slot.filled;
  const sizeBytes = Math.min(task.sizeBytes, task.sizeBytesMax ?? task.sizeBytes);
  return room >= Math.min(sizeBytes, slot.chunker.buffer.length / 2);
}

/** Cuts what lies in the buffer from `start`; returns where the last chunk ends. */
function cut(slot: Slot, start: number, isAtEnd: boolean): number {
  let position = start;
  for (;;) {
    const length = slot.chunker.next(position, slot.filled - position, isAtEnd);
    if (length === 0) return position;
    slot.offsets.push(position);
    slot.lengths.push(length);
    position += length;
  }
}

function hashChunks(slot: Slot, idKey: Uint8Array | undefined): void {
  const count = slot.lengths.length;
  slot.ids = new Uint8Array(count * SHA256_SIZE_BYTES);
  for (let index = 0; index < count; index++) {
    const offset = slot.offsets[index]!;
    const bytes = slot.chunker.buffer.subarray(offset, offset + slot.lengths[index]!);
    if (idKey === undefined) Bun.SHA256.hash(bytes, idAt(slot.ids, index));
    else slot.ids.set(chunkIdOf(bytes, idKey), index * SHA256_SIZE_BYTES);
  }
}

/** A run of one byte is like any other: that it is still there says nothing about the file. */
function isConstant(bytes: Uint8Array): boolean {
  return Buffer.compare(bytes.subarray(1), bytes.subarray(0, -1)) === 0;
}

function failedScan(error: unknown, isFirst: boolean): FileScan {
  return {
    chunkCount: 0,
    offset: 0,
    isFirst,
    isLast: true,
    isResumed: false,
    isSparse: false,
    error: toAppError(error).toJSON(),
  };
}
