/**
 * The chunk list of one file while it is read: inline while it is short, else a tree of its own that
 * is written as it grows, so that a file of any size takes a bounded amount of memory.
 */
import { idKey } from "../format/bytes.ts";
import { encodeChunkRef, INLINE_CHUNK_COUNT_MAX } from "../format/listing.ts";
import type { ChunkRef } from "../format/listing.ts";
import type { StatContent } from "../catalog/stat-cache.ts";
import { TreeWriter } from "../format/tree.ts";

/** Gathers the chunks of a file, in order. */
export class ContentBuilder {
  readonly #put: (bytes: Uint8Array) => Uint8Array;
  #inline: ChunkRef[] = [];
  #tree: TreeWriter | undefined;
  #first: ChunkRef | undefined;
  #last: [ChunkRef, ChunkRef] | undefined;
  #sizeBytes = 0;
  #chunkCount = 0;

  /** `put` stores a node of a tree. */
  constructor(put: (bytes: Uint8Array) => Uint8Array) {
    this.#put = put;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get chunkCount(): number {
    return this.#chunkCount;
  }

  add(chunk: ChunkRef): void {
    this.#sizeBytes += chunk.length;
    this.#chunkCount += 1;
    this.#first ??= chunk;
    this.#last = [this.#last?.[1] ?? chunk, chunk];
    if (this.#tree === undefined && this.#inline.length < INLINE_CHUNK_COUNT_MAX) {
      this.#inline.push(chunk);
      return;
    }
    if (this.#tree === undefined) {
      this.#tree = new TreeWriter(this.#put);
      for (const earlier of this.#inline)
        this.#tree.add(idKey(earlier.id), encodeChunkRef(earlier));
      this.#inline = [];
    }
    this.#tree.add(idKey(chunk.id), encodeChunkRef(chunk));
  }

  /** The list; nothing is added afterwards. */
  finish(): StatContent {
    if (this.#tree === undefined) return { form: "inline", chunks: this.#inline };
    return { form: "tree", root: this.#tree.finish(), first: this.#first!, last: this.#last! };
  }
}
