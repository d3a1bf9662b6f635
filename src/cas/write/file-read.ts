/**
 * One file on its way through the pipeline: gathers its chunks, and judges at the end whether what
 * was read is one state of the file. Stat before and after must agree, else it is read again a few
 * times; what keeps changing is recorded as it was last read, with a problem. Of an append-only file
 * only the captured size counts, whatever is appended meanwhile.
 */
import type { AppError } from "../../base/error.ts";
import { READ_ATTEMPTS_MAX } from "./backup-settings.ts";
import { ContentBuilder } from "./content-builder.ts";
import type { FileTask } from "./data-plane.ts";
import type { ChunkRef } from "../format/listing.ts";
import type { FileEnd, FileReader } from "./read-pipeline.ts";
import type { StatContent } from "../catalog/stat-cache.ts";
import type { FileNature } from "./volume-source.ts";

/** A file that was read. */
export type ReadFile = {
  readonly content: StatContent;
  readonly sizeBytes: number;
  readonly chunkCount: number;
  readonly end: FileEnd;
  /** True if stat before and after did not agree at the last attempt either. */
  readonly isChanged: boolean;
};

/** What a file read needs, and whom it tells. */
export type FileReadOptions = {
  readonly task: FileTask;
  readonly nature: FileNature;
  readonly putNode: (bytes: Uint8Array) => Uint8Array;
  /** The list up to where a resumed read begins. */
  readonly prefix?: ContentBuilder;
  readonly again: (reader: FileReader) => void;
  readonly done: (file: ReadFile) => void;
  readonly failed: (error: AppError) => void;
};

/** The reader of one file. */
export class FileRead implements FileReader {
  readonly #options: FileReadOptions;
  #task: FileTask;
  #attempts = 0;
  #content: ContentBuilder;

  constructor(options: FileReadOptions) {
    this.#options = options;
    this.#task = options.task;
    this.#content = new ContentBuilder(options.putNode);
  }

  get task(): FileTask {
    return this.#task;
  }

  onStart(isResumed: boolean): void {
    this.#attempts += 1;
    const { prefix, putNode } = this.#options;
    this.#content = isResumed ? prefix! : new ContentBuilder(putNode);
  }

  onChunk(chunk: ChunkRef): void {
    this.#content.add(chunk);
  }

  onEnd(end: FileEnd): void {
    const isChanged = this.#isChanged(end);
    if (isChanged && this.#attempts < READ_ATTEMPTS_MAX) {
      // A resumed list has taken the tail already: it cannot be used twice.
      const { resume: _, ...task } = this.#task;
      this.#task = { ...task, sizeBytes: end.after.sizeBytes };
      this.#options.again(this);
      return;
    }
    const { sizeBytes, chunkCount } = this.#content;
    const content = this.#content.finish();
    this.#options.done({ content, sizeBytes, chunkCount, end, isChanged });
  }

  onError(error: AppError): void {
    this.#options.failed(error);
  }

  #isChanged({ before, after }: FileEnd): boolean {
    const { sizeBytes } = this.#content;
    const { sizeBytesMax = Infinity } = this.#task;
    if (sizeBytes !== Math.min(before.sizeBytes, sizeBytesMax)) return true;
    if (this.#options.nature === "append-only")
      return sizeBytesMax < Infinity && sizeBytes < sizeBytesMax;
    return before.sizeBytes !== after.sizeBytes || before.mtimeNs !== after.mtimeNs;
  }
}
