/**
 * Where a commit log that M3 is writing may be cut: at the end of its last whole chunk. Only headers
 * are read, from a boundary that is known to be good, so a log that has grown costs a few reads; that
 * data match their checksums is proved by the `m3-commit-log` check when the backup reads them.
 */
import type { FileSystem } from "../../base/doors.ts";
import { CHUNK_HEADER_SIZE_BYTES, parseChunkHeader } from "./commit-log-format.ts";

/** Where a log ends, as far as its headers tell. */
export type CommitLogCut = {
  /** The end of the last whole chunk: what a backup takes. */
  readonly cutBytes: number;
  /** Whole chunks between where the walk began and the cut. */
  readonly chunkCount: number;
  /**
   * What lies behind the cut: nothing; a chunk that M3 had not finished; or bytes that are no chunk,
   * because their size contradicts its checksum.
   */
  readonly tail: "whole" | "torn" | "damaged";
};

/** Many headers of small chunks with one read; large chunks are skipped, whatever they hold. */
const BUFFER_SIZE_BYTES = 64 * 1024;

/**
 * Walks the headers of a log.
 * @param sizeBytes - How much of the file counts; what has been appended since is not looked at.
 * @param from - A chunk's boundary, from an earlier walk; 0 for the beginning.
 */
export function findCommitLogCut(
  files: FileSystem,
  path: string,
  sizeBytes: number,
  from: number = 0,
): CommitLogCut {
  const handle = files.open(path, "r");
  try {
    const window = new Window(files, handle, sizeBytes);
    let chunkCount = 0;
    for (let offset = from; ; chunkCount += 1) {
      if (offset === sizeBytes) return { cutBytes: offset, chunkCount, tail: "whole" };
      const bytes = window.at(offset);
      if (bytes === undefined) return { cutBytes: offset, chunkCount, tail: "torn" };
      const header = parseChunkHeader(bytes, 0);
      if (header === undefined) return { cutBytes: offset, chunkCount, tail: "damaged" };
      const end = offset + CHUNK_HEADER_SIZE_BYTES + header.sizeBytes;
      if (end > sizeBytes) return { cutBytes: offset, chunkCount, tail: "torn" };
      offset = end;
    }
  } finally {
    files.close(handle);
  }
}

/** Headers of one file through one buffer. */
class Window {
  readonly #files: FileSystem;
  readonly #handle: number;
  readonly #sizeBytes: number;
  readonly #buffer: Uint8Array;
  #start = 0;
  #end = 0;

  constructor(files: FileSystem, handle: number, sizeBytes: number) {
    this.#files = files;
    this.#handle = handle;
    this.#sizeBytes = sizeBytes;
    this.#buffer = new Uint8Array(Math.min(BUFFER_SIZE_BYTES, sizeBytes));
  }

  /** A header's bytes; undefined if the file ends before the last of them. */
  at(offset: number): Uint8Array | undefined {
    const end = offset + CHUNK_HEADER_SIZE_BYTES;
    if (end > this.#sizeBytes) return undefined;
    if (offset < this.#start || end > this.#end) this.#fill(offset);
    if (end > this.#end) return undefined;
    return this.#buffer.subarray(offset - this.#start, end - this.#start);
  }

  #fill(offset: number): void {
    this.#start = offset;
    this.#end = offset;
    const wanted = Math.min(this.#buffer.length, this.#sizeBytes - offset);
    while (this.#end - offset < wanted) {
      const target = this.#buffer.subarray(this.#end - offset, wanted);
      const count = this.#files.read(this.#handle, target, this.#end);
      if (count === 0) return;
      this.#end += count;
    }
  }
}
