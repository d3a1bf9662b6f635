/**
 * What one thread does of a restore: it decodes frames, checks each chunk against its id, writes the
 * files, makes them durable and gives them their names. Synchronous; it knows no site, no index and
 * no listing. No byte is written that does not match its id, and no file gets its name before it is
 * whole and durable. Memory: one decoded frame, and the names of the files of two windows.
 */
import assert from "node:assert/strict";
import type { FileStat, FileSystem } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { SHA256_SIZE_BYTES } from "../../base/hex.ts";
import { joinPath, parentPath } from "../../base/path.ts";
import { freeBytes } from "../../base/free-bytes.ts";
import { decodeFrame } from "../format/pack.ts";
import { chunkIdOf } from "../format/seal.ts";
import { RestoreAttributes } from "./restore-attributes.ts";
import type { OwnerPolicy } from "./restore-attributes.ts";
import { CHUNK_COLUMNS, decodeFiles, decodeFrames } from "./restore-job.ts";
import type { JobFile, JobFrame, RestoreJob } from "./restore-job.ts";
import { temporaryName } from "./restore-temporary.ts";
import type { TemporaryFile } from "./restore-writer.ts";
import { FileWriter, ignoreFailure, writeParts } from "./restore-writer.ts";

/** What all lanes of one restore have in common. */
export type LaneSettings = {
  readonly ownerPolicy: OwnerPolicy;
  /** What the temporary names begin with. */
  readonly prefix: string;
  /** In encrypted repositories: makes chunk ids. */
  readonly idKey?: Uint8Array | undefined;
};

/** What became of a job. */
export type LaneOutcome = {
  /** Chunks, by index, that the stored bytes do not hold. */
  readonly failed: readonly number[];
  /** Whole files, by index, that wait for such a chunk: they are created, and left to the asker. */
  readonly unfinished: readonly number[];
};

/** What `publish` did. */
export type Published = {
  /** The numbers of the files, and as many stats if they were asked for; no stat if it is gone. */
  readonly numbers: Float64Array<ArrayBuffer>;
  readonly stats: BigInt64Array<ArrayBuffer> | undefined;
  /** Counted since the last time. */
  readonly ownersNotSet: number;
  readonly xattrsNotSet: number;
};

/** Size, mtime, ctime, time of birth, mode, uid, gid, inode, device, count of links. */
const STAT_COLUMNS = 10;

/** A file that jobs write to, or whoever gives them out. */
export type SharedFile = Omit<JobFile, "isWhole">;

/** A file without its name. */
type LaneFile = TemporaryFile &
  JobFile & {
    /** Places in it that are not written. */
    missingCount: number;
  };

/** A job under way. */
type JobWork = {
  readonly job: RestoreJob;
  readonly files: readonly LaneFile[];
  readonly window: number;
  readonly failed: number[];
  /** The next chunk, and its first place. */
  chunk: number;
  place: number;
  /** The shared file that was written to last. */
  last: { readonly file: LaneFile; readonly handle: number } | undefined;
};

/** One thread's decoder and writer. */
export class RestoreLaneCore {
  readonly #files: FileSystem;
  readonly #attributes: RestoreAttributes;
  readonly #prefix: string;
  readonly #idKey: Uint8Array | undefined;
  readonly #writer: FileWriter;
  /** By window: the files that wait for their names. */
  readonly #made = new Map<number, LaneFile[]>();
  /** By number: files that were adopted. */
  readonly #shared = new Map<number, LaneFile>();
  /** Temporary names that are ours to remove. */
  readonly #temporaries = new Set<string>();
  readonly #digest = new Uint8Array(SHA256_SIZE_BYTES);
  #ownersTold = 0;
  #xattrsTold = 0;

  constructor(files: FileSystem, settings: LaneSettings) {
    this.#files = files;
    this.#prefix = settings.prefix;
    this.#idKey = settings.idKey;
    this.#attributes = new RestoreAttributes(files, settings.ownerPolicy);
    this.#writer = new FileWriter(files, this.#attributes);
  }

  /** Writes what a job says; `stored` is the range that its frames lie in. */
  run(window: number, job: RestoreJob, stored: Uint8Array): LaneOutcome {
    this.#attributes.forgetDirectories();
    const files = decodeFiles(job.files).map((file) => this.#begin(file));
    for (let at = 0; at < job.places.length; at += 2) files[job.places[at]!]!.missingCount += 1;
    const work: JobWork = { job, files, window, failed: [], chunk: 0, place: 0, last: undefined };
    try {
      for (const frame of decodeFrames(job)) this.#runFrame(work, frame, stored);
    } finally {
      this.#closeLast(work);
    }
    const unfinished: number[] = [];
    for (const [index, file] of files.entries()) {
      if (!file.isWhole || file.missingCount === 0) continue;
      unfinished.push(index);
      this.#writer.create(file);
      this.#writer.letGo(file);
      this.#temporaries.delete(file.temporary);
    }
    return { failed: work.failed, unfinished };
  }

  /** Takes a file over that several jobs write to, and makes it unless it is there. */
  adopt(file: SharedFile, isCreated: boolean): void {
    const adopted = this.#begin({ ...file, isWhole: true });
    adopted.isCreated = isCreated;
    this.#temporaries.add(adopted.temporary);
    this.#shared.set(file.number, adopted);
    this.#writer.create(adopted);
  }

  /** Writes to a file that was adopted. */
  write(number: number, bytes: Uint8Array, offset: number): void {
    this.#writer.write(this.#mustGetShared(number), bytes, offset);
  }

  /** Finishes a file that was adopted. */
  finish(window: number, number: number): void {
    const file = this.#mustGetShared(number);
    this.#shared.delete(number);
    this.#finish(window, file);
  }

  /** Makes everything durable that is finished. */
  sync(): void {
    this.#writer.sync();
  }

  /** Gives the files of a window their names; all is synced. */
  publish(window: number, isStatWanted: boolean): Published {
    const made = (this.#made.get(window) ?? []).toSorted((one, other) => one.number - other.number);
    this.#made.delete(window);
    const stats = isStatWanted ? new BigInt64Array(made.length * STAT_COLUMNS) : undefined;
    const numbers = new Float64Array(made.length);
    for (const [index, { temporary, path, number }] of made.entries()) {
      this.#files.rename(temporary, path);
      this.#temporaries.delete(temporary);
      numbers[index] = number;
    }
    if (stats !== undefined) {
      for (const [index, { path }] of made.entries()) {
        encodeStat(this.#files.lstat(path), stats, index * STAT_COLUMNS);
      }
    }
    const { ownersNotSet, xattrsNotSet } = this.#attributes;
    const told = {
      ownersNotSet: ownersNotSet - this.#ownersTold,
      xattrsNotSet: xattrsNotSet - this.#xattrsTold,
    };
    this.#ownersTold = ownersNotSet;
    this.#xattrsTold = xattrsNotSet;
    return { numbers, stats, ...told };
  }

  /** Gives up: closes what is open and removes what has no name yet, as far as the disk lets us. */
  abandon(): void {
    this.#writer.abandon();
    for (const temporary of this.#temporaries) {
      ignoreFailure(() => this.#files.unlink(temporary));
    }
    this.#temporaries.clear();
    this.#shared.clear();
    this.#made.clear();
  }

  #runFrame(work: JobWork, frame: JobFrame, stored: Uint8Array): void {
    const raw = decode(frame, work.job.key, stored);
    for (const end = work.chunk + frame.chunkCount; work.chunk < end; work.chunk += 1) {
      this.#takeChunk(work, raw);
    }
    if (frame.codec === 1 && raw !== undefined) freeBytes(raw);
  }

  #takeChunk(work: JobWork, raw: Uint8Array | undefined): void {
    const { job, files, chunk } = work;
    const at = chunk * CHUNK_COLUMNS;
    const start = job.chunks[at]!;
    const bytes = raw?.subarray(start, start + job.chunks[at + 1]!);
    const isWhole = bytes !== undefined && this.#isChunk(job, chunk, bytes);
    if (!isWhole) work.failed.push(chunk);
    for (const end = work.place + job.chunks[at + 2]!; work.place < end; work.place += 1) {
      if (!isWhole) continue;
      const file = files[job.places[2 * work.place]!];
      assert(file !== undefined);
      this.#write(work, file, { bytes, offset: job.places[2 * work.place + 1]! });
    }
  }

  #isChunk(job: RestoreJob, chunk: number, bytes: Uint8Array): boolean {
    const id = job.ids.subarray(chunk * SHA256_SIZE_BYTES, (chunk + 1) * SHA256_SIZE_BYTES);
    if (this.#idKey !== undefined) {
      return Buffer.compare(chunkIdOf(bytes, this.#idKey), id) === 0;
    }
    Bun.SHA256.hash(bytes, this.#digest);
    return Buffer.compare(this.#digest, id) === 0;
  }

  #write(
    work: JobWork,
    file: LaneFile,
    { bytes, offset }: { readonly bytes: Uint8Array; readonly offset: number },
  ): void {
    if (!file.isWhole) {
      const isSparse = file.record.sparse;
      return writeParts(this.#files, this.#handleOf(work, file), { bytes, offset, isSparse });
    }
    this.#temporaries.add(file.temporary);
    this.#writer.write(file, bytes, offset);
    file.missingCount -= 1;
    if (file.missingCount === 0) this.#finish(work.window, file);
  }

  /** Of a file that others write to as well: open for a moment, as nobody counts who has it. */
  #handleOf(work: JobWork, file: LaneFile): number {
    if (work.last?.file === file) return work.last.handle;
    this.#closeLast(work);
    work.last = { file, handle: this.#files.open(file.temporary, "write") };
    return work.last.handle;
  }

  #closeLast(work: JobWork): void {
    if (work.last === undefined) return;
    const { handle } = work.last;
    work.last = undefined;
    this.#files.close(handle);
  }

  #finish(window: number, file: LaneFile): void {
    this.#temporaries.add(file.temporary);
    this.#writer.finish(file);
    const made = this.#made.get(window);
    if (made === undefined) this.#made.set(window, [file]);
    else made.push(file);
  }

  #begin(file: JobFile): LaneFile {
    const name = temporaryName(this.#prefix, file.number);
    const temporary = joinPath(parentPath(file.path), name);
    return { ...file, temporary, isCreated: false, modeAsked: undefined, missingCount: 0 };
  }

  #mustGetShared(number: number): LaneFile {
    const file = this.#shared.get(number);
    assert(file !== undefined);
    return file;
  }
}

/** The raw bytes of a frame; undefined if it is damaged. */
function decode(frame: JobFrame, key: string, stored: Uint8Array): Uint8Array | undefined {
  const { start, storedLength } = frame;
  try {
    const bytes = stored.subarray(start, start + storedLength);
    return decodeFrame(bytes, frame, key, frame.opening);
  } catch (thrown) {
    if (thrown instanceof AppError && thrown.kind === "damaged") return undefined;
    throw thrown;
  }
}

function encodeStat(stat: FileStat | undefined, into: BigInt64Array, at: number): void {
  if (stat?.type !== "file") return;
  into[at] = BigInt(stat.sizeBytes);
  into[at + 1] = stat.mtimeNs;
  into[at + 2] = stat.ctimeNs;
  into[at + 3] = stat.birthtimeNs;
  into[at + 4] = BigInt(stat.mode);
  into[at + 5] = BigInt(stat.uid);
  into[at + 6] = BigInt(stat.gid);
  into[at + 7] = stat.inode;
  into[at + 8] = stat.device;
  into[at + 9] = BigInt(stat.linkCount);
}

/** One stat of what `publish` answered; undefined if the file was gone. */
export function decodeStat(stats: BigInt64Array, index: number): FileStat | undefined {
  const at = index * STAT_COLUMNS;
  const linkCount = Number(stats[at + 9]);
  if (linkCount === 0) return undefined;
  return {
    type: "file",
    sizeBytes: Number(stats[at]),
    mtimeNs: stats[at + 1]!,
    ctimeNs: stats[at + 2]!,
    birthtimeNs: stats[at + 3]!,
    mode: Number(stats[at + 4]),
    uid: Number(stats[at + 5]),
    gid: Number(stats[at + 6]),
    inode: BigInt.asUintN(64, stats[at + 7]!),
    device: BigInt.asUintN(64, stats[at + 8]!),
    linkCount,
  };
}
