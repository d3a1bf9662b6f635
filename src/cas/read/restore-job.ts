/**
 * The work of a restore in pieces that a thread can do alone: the stored bytes of some frames, and
 * where each of their chunks goes. A file all of whose chunks lie in one piece is made there from
 * start to end; one that several pieces share is only written to. Numbers lie in columns, as what
 * crosses threads is copied, and a job of tiny files has thousands of rows.
 */
import assert from "node:assert/strict";
import { SHA256_SIZE_BYTES } from "../../base/hex.ts";
import type { ChunkRef } from "../format/listing.ts";
import type { FrameCodec } from "../format/pack.ts";
import { FRAME_KEY_SIZE_BYTES } from "../format/seal.ts";
import type { ChunkRange } from "./chunk-source.ts";
import type { RegularFile } from "./restore-records.ts";

/** A file of a window on its way into place. */
export type WindowFile = {
  /** Makes its temporary name. */
  readonly number: number;
  readonly record: RegularFile;
  /** Absolute. */
  readonly path: string;
  /** True if several jobs write to it: whoever gave them out makes it, and finishes it. */
  isShared: boolean;
  /** True if a file lies at the temporary name, and it is ours to finish. */
  isCreated: boolean;
  /** True if a job has made all of it. */
  isMade: boolean;
  /** The only job that writes to it, as far as is known. */
  job: number | undefined;
};

/** One chunk and all places that want it. */
export type WantedChunk = {
  readonly ref: ChunkRef;
  readonly places: { readonly file: WindowFile; readonly offset: number }[];
};

/** One piece of work, without the stored bytes. */
export type RestoreJob = {
  /** Numbers of FRAME_COLUMNS each. */
  readonly frames: Float64Array<ArrayBuffer>;
  /** Numbers of CHUNK_COLUMNS each. */
  readonly chunks: Float64Array<ArrayBuffer>;
  /** The ids of the chunks, one after the other. */
  readonly ids: Uint8Array<ArrayBuffer>;
  /** For each place of each chunk: the file's index in this job, the offset in it. */
  readonly places: Float64Array<ArrayBuffer>;
  readonly files: JobFiles;
  /** Names the frames in messages. */
  readonly key: string;
  /** In encrypted repositories, what opens each frame; FRAME_KEY_SIZE_BYTES each. */
  readonly openings?: Uint8Array<ArrayBuffer> | undefined;
};

/** Files that a job writes to, in columns. */
export type JobFiles = {
  readonly paths: readonly string[];
  /** Numbers of FILE_COLUMNS each. */
  readonly numbers: Float64Array<ArrayBuffer>;
  readonly mtimesNs: readonly bigint[];
  /** By index; most files have none. */
  readonly xattrs: ReadonlyMap<number, ReadonlyMap<string, Uint8Array>>;
};

/** Start in the bytes of the range, stored length, raw length, codec, count of chunks. */
export const FRAME_COLUMNS = 5;
/** Offset in the raw frame, length, count of places. */
export const CHUNK_COLUMNS = 3;
/** Number, size, mode, uid, gid, is whole (1) or shared (0), is sparse. */
export const FILE_COLUMNS = 7;

/** One file as a job's columns have it. */
export type JobFile = {
  readonly number: number;
  readonly path: string;
  readonly record: PlainFile;
  /** True if the job makes it from start to end. */
  readonly isWhole: boolean;
};

/** What a file needs besides its contents. */
export type PlainFile = Pick<
  RegularFile,
  "type" | "sizeBytes" | "mode" | "uid" | "gid" | "mtimeNs" | "xattrs" | "sparse"
>;

/** One row of the frames' columns. */
export type JobFrame = {
  readonly start: number;
  readonly storedLength: number;
  readonly rawLength: number;
  readonly codec: FrameCodec;
  readonly chunkCount: number;
  /** In encrypted repositories. */
  readonly opening: Uint8Array | undefined;
};

/** A range, what of it goes where, and in what order its chunks come. */
export type PlannedJob = {
  readonly range: ChunkRange;
  readonly job: RestoreJob;
  /** By the index of a job's chunk. */
  readonly wanted: readonly WantedChunk[];
  /** By the index of a job's file. */
  readonly files: readonly WindowFile[];
};

/** Says for each file whether one range has all that is wanted of it. */
export function assignFiles(ranges: readonly ChunkRange[], wanted: readonly WantedChunk[]): void {
  for (const [job, { frames }] of ranges.entries()) {
    for (const frame of frames) {
      for (const { indexes } of frame.chunks.values()) {
        for (const index of indexes) {
          for (const { file } of mustGet(wanted, index).places) {
            file.job ??= job;
            if (file.job !== job) file.isShared = true;
          }
        }
      }
    }
  }
}

/** The job of one range, with what opens its frames; `assignFiles` has seen all of them. */
export function planJob(
  range: ChunkRange,
  wanted: readonly WantedChunk[],
  openings?: Uint8Array<ArrayBuffer>,
): PlannedJob {
  const plan = new JobBuilder(range);
  for (const frame of range.frames) plan.addFrame(frame, wanted);
  return plan.finish(openings);
}

class JobBuilder {
  readonly #range: ChunkRange;
  readonly #start: number;
  readonly #frames: number[] = [];
  readonly #chunks: number[] = [];
  readonly #places: number[] = [];
  readonly #ids: Uint8Array[] = [];
  readonly #wanted: WantedChunk[] = [];
  readonly #files = new Map<WindowFile, number>();

  constructor(range: ChunkRange) {
    this.#range = range;
    this.#start = range.frames[0]?.place.frameOffset ?? 0;
  }

  addFrame({ place, chunks }: ChunkRange["frames"][number], wanted: readonly WantedChunk[]): void {
    const { frameOffset, storedLength, rawLength, codec } = place;
    this.#frames.push(frameOffset - this.#start, storedLength, rawLength, codec, chunks.size);
    for (const chunk of chunks.values()) {
      // A window asks for each chunk once.
      const one = mustGet(wanted, chunk.indexes[0]);
      assert.equal(chunk.indexes.length, 1);
      this.#wanted.push(one);
      this.#ids.push(chunk.id);
      this.#chunks.push(chunk.place.offset, chunk.place.length, one.places.length);
      for (const { file, offset } of one.places) {
        let index = this.#files.get(file);
        if (index === undefined) {
          index = this.#files.size;
          this.#files.set(file, index);
        }
        this.#places.push(index, offset);
      }
    }
  }

  finish(openings: Uint8Array<ArrayBuffer> | undefined): PlannedJob {
    const files = [...this.#files.keys()];
    const ids = new Uint8Array(this.#ids.length * SHA256_SIZE_BYTES);
    for (const [index, id] of this.#ids.entries()) ids.set(id, index * SHA256_SIZE_BYTES);
    const job = {
      frames: Float64Array.from(this.#frames),
      chunks: Float64Array.from(this.#chunks),
      ids,
      places: Float64Array.from(this.#places),
      files: encodeFiles(files),
      key: this.#range.key,
      ...(openings === undefined ? {} : { openings }),
    };
    return { range: this.#range, job, wanted: this.#wanted, files };
  }
}

function encodeFiles(files: readonly WindowFile[]): JobFiles {
  const numbers = new Float64Array(files.length * FILE_COLUMNS);
  const xattrs = new Map<number, ReadonlyMap<string, Uint8Array>>();
  for (const [index, { number, record, isShared }] of files.entries()) {
    const { sizeBytes, mode, uid, gid, sparse } = record;
    const row = [number, sizeBytes, mode, uid, gid, isShared ? 0 : 1, sparse ? 1 : 0];
    numbers.set(row, index * FILE_COLUMNS);
    if (record.xattrs.size > 0) xattrs.set(index, record.xattrs);
  }
  const mtimesNs = files.map(({ record }) => record.mtimeNs);
  return { paths: files.map(({ path }) => path), numbers, mtimesNs, xattrs };
}

/** The files of a job. */
export function decodeFiles({ paths, numbers, mtimesNs, xattrs }: JobFiles): JobFile[] {
  return paths.map((path, index) => {
    const at = index * FILE_COLUMNS;
    return {
      number: numbers[at]!,
      path,
      isWhole: numbers[at + 5] === 1,
      record: {
        type: "file",
        sizeBytes: numbers[at + 1]!,
        mode: numbers[at + 2]!,
        uid: numbers[at + 3]!,
        gid: numbers[at + 4]!,
        sparse: numbers[at + 6] === 1,
        mtimeNs: mtimesNs[index]!,
        xattrs: xattrs.get(index) ?? NO_XATTRS,
      },
    };
  });
}

const NO_XATTRS: ReadonlyMap<string, Uint8Array> = new Map();

/** The frames of a job. */
export function decodeFrames({
  frames: numbers,
  openings,
}: Pick<RestoreJob, "frames" | "openings">): JobFrame[] {
  return Array.from({ length: numbers.length / FRAME_COLUMNS }, (_, index) => {
    const at = index * FRAME_COLUMNS;
    return {
      start: numbers[at]!,
      storedLength: numbers[at + 1]!,
      rawLength: numbers[at + 2]!,
      codec: numbers[at + 3] === 0 ? 0 : 1,
      chunkCount: numbers[at + 4]!,
      opening: openings?.subarray(index * FRAME_KEY_SIZE_BYTES, (index + 1) * FRAME_KEY_SIZE_BYTES),
    };
  });
}

function mustGet(wanted: readonly WantedChunk[], index: number | undefined): WantedChunk {
  const found = index === undefined ? undefined : wanted[index];
  assert(found !== undefined);
  return found;
}
