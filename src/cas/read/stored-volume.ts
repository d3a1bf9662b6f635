/**
 * The files of a stored volume for somebody who reads most of them, in order: small ones come a
 * window at a time, fetched together at the first read of one of them, unless the reader of the
 * window before left most of it alone. Large ones are streamed. Every chunk is checked on its way.
 * Hard links are left out, their first paths are not. Memory: a window of WINDOW_SIZE_BYTES, and a
 * piece of that size twice for each large file that is being read.
 */
import assert from "node:assert/strict";
import { idKey } from "../format/bytes.ts";
import type { ChunkRef } from "../format/listing.ts";
import { decodeRecord } from "../format/listing.ts";
import type { TreeRoot } from "../format/tree.ts";
import { readTree } from "../format/tree.ts";
import type { ChunkSource } from "./chunk-source.ts";
import { readChunkRefs } from "./restore-content.ts";
import type { RegularFile } from "./restore-records.ts";

/** A file of a stored volume. */
export type StoredVolumeFile = {
  /** Relative to the volume's root, a byte string. */
  readonly path: string;
  readonly sizeBytes: number;
  /** The bytes from `offset` (0), `length` of them (all that follow); less at the file's end. */
  readonly read: (options: {
    readonly offset?: number;
    readonly length?: number;
  }) => AsyncIterable<Uint8Array>;
};

/** Which volume. */
export type StoredVolumeOptions = {
  readonly listing: TreeRoot;
  readonly source: Pick<ChunkSource, "fetch" | "fetchMany">;
  readonly signal?: AbortSignal | undefined;
};

/** What is fetched together. */
export const WINDOW_SIZE_BYTES = 8 * 1024 * 1024;

/** Larger files get windows of their own. */
const SMALL_SIZE_BYTES_MAX = 1024 * 1024;

const WINDOW_FILE_COUNT_MAX = 8192;

type Chunks = ReadonlyMap<string, Uint8Array>;

/** Files that are fetched together, and how many of them somebody read. */
type Window = {
  readonly files: readonly RegularFile[];
  readCount: number;
  chunks: Promise<Chunks> | undefined;
  isOver: boolean;
};

/**
 * The regular files of a volume, ascending by path; those that begin with `prefix`.
 *
 * @example
 * for await (const file of readStoredVolume({ listing, source }, "shard-7/"))
 *   for await (const bytes of file.read({})) check.update(bytes);
 */
export async function* readStoredVolume(
  options: StoredVolumeOptions,
  prefix = "",
): AsyncGenerator<StoredVolumeFile, void, undefined> {
  const { signal } = options;
  let isWorthwhile = true;
  for await (const files of windowsOf(options, prefix)) {
    const window: Window = { files, readCount: 0, chunks: undefined, isOver: false };
    for (const record of files) {
      signal?.throwIfAborted();
      const isTogether = isWorthwhile && isSmall(record);
      yield fileOf(record, options, isTogether ? window : undefined, () => (window.readCount += 1));
    }
    isWorthwhile = window.readCount * 2 >= files.length;
    // Whoever kept a file of it reads it by itself from now on.
    window.isOver = true;
    window.chunks = undefined;
  }
}

async function* windowsOf(
  { listing, source, signal }: StoredVolumeOptions,
  prefix: string,
): AsyncGenerator<RegularFile[], void, undefined> {
  const fetch = (id: Uint8Array, length: number): Promise<Uint8Array> =>
    source.fetch(id, length, signal);
  let files: RegularFile[] = [];
  let sizeBytes = 0;
  for await (const leaf of readTree(listing, fetch, { signal })) {
    for (const bytes of leaf) {
      const record = decodeRecord(bytes);
      if (!record.path.startsWith(prefix)) {
        if (record.path < prefix) continue;
        if (files.length > 0) yield files;
        return;
      }
      if (record.type !== "file") continue;
      files.push(record);
      if (isSmall(record)) sizeBytes += record.sizeBytes;
      if (sizeBytes < WINDOW_SIZE_BYTES && files.length < WINDOW_FILE_COUNT_MAX) continue;
      yield files;
      files = [];
      sizeBytes = 0;
    }
  }
  if (files.length > 0) yield files;
}

function isSmall(record: RegularFile): boolean {
  return record.content.form === "inline" && record.sizeBytes <= SMALL_SIZE_BYTES_MAX;
}

function fileOf(
  record: RegularFile,
  options: StoredVolumeOptions,
  window: Window | undefined,
  onRead: () => void,
): StoredVolumeFile {
  const { path, sizeBytes } = record;
  let isRead = false;
  return {
    path,
    sizeBytes,
    async *read({ offset = 0, length = Infinity }) {
      if (!isRead) onRead();
      isRead = true;
      const range = { start: offset, end: Math.min(sizeBytes, offset + length) };
      if (window === undefined || window.isOver) {
        return yield* streamRange(record, options, range);
      }
      const { content } = record;
      assert(content.form === "inline");
      window.chunks ??= fetchChunks(
        window.files.flatMap((file) =>
          isSmall(file) && file.content.form === "inline" ? file.content.chunks : [],
        ),
        options,
      );
      yield* cutRange(content.chunks, await window.chunks, range, 0);
    },
  };
}

type Range = { readonly start: number; readonly end: number };

/** A piece at a time, the next one fetched while the one at hand is used. */
async function* streamRange(
  record: RegularFile,
  options: StoredVolumeOptions,
  range: Range,
): AsyncGenerator<Uint8Array, void, undefined> {
  type Piece = { refs: readonly ChunkRef[]; offset: number; chunks: Promise<Chunks> };
  let ahead: Piece | undefined;
  for await (const { refs, offset } of piecesOf(record, options, range)) {
    const chunks = fetchChunks(refs, options);
    // Its failure is met when its turn comes, or does not matter any more.
    chunks.catch(() => undefined);
    if (ahead !== undefined) yield* cutRange(ahead.refs, await ahead.chunks, range, ahead.offset);
    ahead = { refs, offset, chunks };
  }
  if (ahead !== undefined) yield* cutRange(ahead.refs, await ahead.chunks, range, ahead.offset);
}

/** The chunks that the range touches, some at a time, and where in the file the first one lies. */
async function* piecesOf(
  record: RegularFile,
  options: StoredVolumeOptions,
  range: Range,
): AsyncGenerator<{ refs: readonly ChunkRef[]; offset: number }, void, undefined> {
  let refs: ChunkRef[] = [];
  let position = 0;
  let sizeBytes = 0;
  if (range.start >= range.end) return;
  for await (const batch of readChunkRefs(record, options)) {
    for (const ref of batch) {
      const end = position + ref.length;
      if (end > range.start) {
        refs.push(ref);
        sizeBytes += ref.length;
      }
      position = end;
      const isLast = position >= range.end;
      if (isLast || sizeBytes >= WINDOW_SIZE_BYTES) {
        if (refs.length > 0) yield { refs, offset: position - sizeBytes };
        refs = [];
        sizeBytes = 0;
      }
      if (isLast) return;
    }
  }
}

/** The parts of chunks, the first of which lies at `offset`, that are in the range. */
function* cutRange(
  refs: readonly ChunkRef[],
  chunks: Chunks,
  range: Range,
  offset: number,
): Generator<Uint8Array, void, undefined> {
  let position = offset;
  for (const ref of refs) {
    const bytes = chunks.get(idKey(ref.id));
    assert(bytes !== undefined);
    const start = Math.max(0, range.start - position);
    const end = Math.min(bytes.length, range.end - position);
    if (start < end) yield bytes.subarray(start, end);
    position += ref.length;
  }
}

/** Each chunk once, however often it is named. */
async function fetchChunks(
  refs: readonly ChunkRef[],
  { source, signal }: StoredVolumeOptions,
): Promise<Chunks> {
  const wanted = new Map(refs.map((ref) => [idKey(ref.id), ref]));
  const distinct = [...wanted.values()];
  const chunks = new Map<string, Uint8Array>();
  const take = (index: number, bytes: Uint8Array): void => {
    const ref = distinct[index];
    assert(ref !== undefined);
    // A view would keep the whole range that it came in.
    chunks.set(idKey(ref.id), new Uint8Array(bytes));
  };
  if (distinct.length > 0) await source.fetchMany(distinct, take, signal);
  return chunks;
}
