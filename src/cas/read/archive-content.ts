/**
 * The contents of entries in order, read ahead. Chunks are fetched a window at a time in the order
 * in which they lie in packs, the next window while the one at hand is written. Memory: two windows
 * of WINDOW_SIZE_BYTES and a chunk each, and what the ChunkSource holds.
 */
import assert from "node:assert/strict";
import type { ArchiveEntry } from "./archive-entry.ts";
import { idKey } from "../format/bytes.ts";
import type { ChunkRef } from "../format/listing.ts";
import { readChunkRefs } from "./restore-content.ts";
import type { ContentSource } from "./restore-options.ts";

/** What one window holds at most, but for its last chunk. */
export const WINDOW_SIZE_BYTES = 8 * 1024 * 1024;

const WINDOW_STEP_COUNT_MAX = 8192;

/** An entry, then its contents, piece by piece. */
export type ArchiveStep =
  | { readonly kind: "entry"; readonly entry: ArchiveEntry }
  | { readonly kind: "bytes"; readonly bytes: Uint8Array };

type PlannedStep =
  | { readonly kind: "entry"; readonly entry: ArchiveEntry }
  | { readonly kind: "chunk"; readonly ref: ChunkRef };

/** What it takes to read contents. */
export type ReadContentsOptions = {
  readonly source: ContentSource;
  readonly signal?: AbortSignal | undefined;
};

/** Entries and contents, a window at a time; nothing is under way any more when it has ended. */
export async function* readContents(
  entries: AsyncIterable<readonly ArchiveEntry[]>,
  options: ReadContentsOptions,
): AsyncGenerator<readonly ArchiveStep[], void, undefined> {
  const stop = new AbortController();
  const signal =
    options.signal === undefined ? stop.signal : AbortSignal.any([options.signal, stop.signal]);
  const inner = { source: options.source, signal };
  const windows = planWindows(entries, inner);
  const load = async (): Promise<readonly ArchiveStep[] | undefined> => {
    const { done, value } = await windows.next();
    return done === true ? undefined : await fetchWindow(value, inner);
  };
  let ahead = load();
  try {
    for (;;) {
      const steps = await ahead;
      if (steps === undefined) return;
      ahead = load();
      // Its failure is met when its turn comes, or does not matter any more.
      ahead.catch(() => undefined);
      yield steps;
    }
  } finally {
    stop.abort(new DOMException("Nobody wants more.", "AbortError"));
    await ahead.catch(() => undefined);
    await windows.return();
  }
}

async function* planWindows(
  entries: AsyncIterable<readonly ArchiveEntry[]>,
  options: ReadContentsOptions,
): AsyncGenerator<readonly PlannedStep[], void, undefined> {
  let steps: PlannedStep[] = [];
  let sizeBytes = 0;
  const isFull = (): boolean =>
    sizeBytes >= WINDOW_SIZE_BYTES || steps.length >= WINDOW_STEP_COUNT_MAX;
  const take = (): readonly PlannedStep[] => {
    const taken = steps;
    steps = [];
    sizeBytes = 0;
    return taken;
  };
  for await (const batch of entries) {
    for (const entry of batch) {
      options.signal?.throwIfAborted();
      steps.push({ kind: "entry", entry });
      if (isFull()) yield take();
      if (entry.record.type !== "file") continue;
      for await (const refs of readChunkRefs(entry.record, options)) {
        for (const ref of refs) {
          steps.push({ kind: "chunk", ref });
          sizeBytes += ref.length;
          if (isFull()) yield take();
        }
      }
    }
  }
  if (steps.length > 0) yield take();
}

/** A chunk that a window names twice is fetched once. */
async function fetchWindow(
  steps: readonly PlannedStep[],
  { source, signal }: ReadContentsOptions,
): Promise<readonly ArchiveStep[]> {
  const wanted = new Map<string, ChunkRef>();
  for (const step of steps) if (step.kind === "chunk") wanted.set(idKey(step.ref.id), step.ref);
  const refs = [...wanted.values()];
  const chunks = new Map<string, Uint8Array>();
  const onChunk = (index: number, bytes: Uint8Array): void => {
    const ref = refs[index];
    assert(ref !== undefined);
    assert.equal(bytes.length, ref.length);
    // A view would keep the whole range that it came in.
    chunks.set(idKey(ref.id), new Uint8Array(bytes));
  };
  if (refs.length > 0) await source.fetchMany(refs, onChunk, signal);
  return steps.map((step) => {
    if (step.kind === "entry") return step;
    const bytes = chunks.get(idKey(step.ref.id));
    assert(bytes !== undefined);
    assert.equal(bytes.length, step.ref.length);
    return { kind: "bytes", bytes };
  });
}
