/**
 * The contents of one file as a restore sees them: the chunks in order, and whether a file that is
 * there already has them. Memory: one chunk, and one node of each level of a chunk list.
 */
import type { FileStat, FileSystem } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { textFromPath } from "../../base/path.ts";
import { damagedError } from "../format/bytes.ts";
import type { ChunkRef, FileContent } from "../format/listing.ts";
import { decodeChunkRef } from "../format/listing.ts";
import { FRAME_RAW_BYTES_MAX } from "../format/pack.ts";
import { sealerOf } from "./restore-options.ts";
import type { RestoreSource } from "./restore-options.ts";
import type { RegularFile } from "./restore-records.ts";
import { readTree } from "../format/tree.ts";

/** What reading contents needs. */
export type ContentOptions = {
  readonly source: Pick<RestoreSource, "fetch" | "opener">;
  readonly signal?: AbortSignal | undefined;
};

/** The chunks of a file in order, some at a time; they add up to its size or it is damage. */
export async function* readChunkRefs(
  record: RegularFile,
  options: ContentOptions,
): AsyncGenerator<readonly ChunkRef[], void, undefined> {
  if (record.content.form === "inline") {
    yield record.content.chunks.map((ref) => checkedRef(ref, record));
    return;
  }
  const { source, signal } = options;
  const fetch = (id: Uint8Array, length: number): Promise<Uint8Array> =>
    source.fetch(id, length, signal);
  let sizeBytes = 0;
  for await (const leaf of readTree(record.content.root, fetch, { signal })) {
    const refs = leaf.map((bytes) => checkedRef(decodeChunkRef(bytes), record));
    for (const { length } of refs) sizeBytes += length;
    if (sizeBytes > record.sizeBytes) break;
    yield refs;
  }
  if (sizeBytes === record.sizeBytes) return;
  const fault = `has ${sizeBytes} bytes of chunks instead of ${record.sizeBytes}`;
  throw damagedError(`The chunk list of ${textFromPath(record.path)}`, fault);
}

/** True if both name the same chunks in the same form. */
export function isSameContent(one: FileContent, other: FileContent): boolean {
  if (one.form === "tree" || other.form === "tree") {
    return one.form === "tree" && other.form === "tree" && one.root.id === other.root.id;
  }
  return (
    one.chunks.length === other.chunks.length &&
    one.chunks.every((chunk, index) => Buffer.compare(chunk.id, other.chunks[index]!.id) === 0)
  );
}

/** Compares files with records, chunk by chunk. */
export class ContentComparer {
  readonly #files: FileSystem;
  readonly #options: ContentOptions;
  #buffer = new Uint8Array(0);

  constructor(files: FileSystem, options: ContentOptions) {
    this.#files = files;
    this.#options = options;
  }

  /** True if the file at `path` has exactly the bytes of the record, and kept still meanwhile. */
  async isEqual(path: string, record: RegularFile, stat: FileStat): Promise<boolean> {
    if (stat.type !== "file" || stat.sizeBytes !== record.sizeBytes) return false;
    const handle = this.#tryOpen(path);
    if (handle === undefined) return false;
    try {
      let offset = 0;
      for await (const refs of readChunkRefs(record, this.#options)) {
        for (const ref of refs) {
          if (!this.#holds(handle, ref, offset)) return false;
          offset += ref.length;
        }
      }
      const after = this.#files.stat(handle);
      return after.sizeBytes === record.sizeBytes && after.mtimeNs === stat.mtimeNs;
    } finally {
      this.#files.close(handle);
    }
  }

  /** What we may not read is not known to be right. */
  #tryOpen(path: string): number | undefined {
    try {
      return this.#files.open(path, "r");
    } catch (thrown) {
      if (thrown instanceof AppError && thrown.kind === "permission") return undefined;
      throw thrown;
    }
  }

  #holds(handle: number, ref: ChunkRef, offset: number): boolean {
    if (this.#buffer.length < ref.length) this.#buffer = new Uint8Array(ref.length);
    const target = this.#buffer.subarray(0, ref.length);
    let filled = 0;
    while (filled < target.length) {
      const count = this.#files.read(handle, target.subarray(filled), offset + filled);
      if (count === 0) return false;
      filled += count;
    }
    return sealerOf(this.#options.source).isChunk(target, ref.id);
  }
}

function checkedRef(ref: ChunkRef, record: RegularFile): ChunkRef {
  if (ref.length >= 1 && ref.length <= FRAME_RAW_BYTES_MAX) return ref;
  const fault = `names a chunk of ${ref.length} bytes`;
  throw damagedError(`The record of ${textFromPath(record.path)}`, fault);
}
