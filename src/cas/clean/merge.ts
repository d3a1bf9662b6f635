/**
 * Merging of index segments, so that a reader fetches few large ones. Segments of a size are merged
 * when they are many. Merging drops deleted packs, never retired ones, which may be revived. When
 * deleted packs are a large share of all, every segment that mentions one is written anew; only then
 * does a merge say which deleted packs nobody mentions any more, because only then all segments have
 * been read. Memory: the rows of one merge, about 80 MiB; ids of deleted packs.
 */
import { checkMemory } from "../../base/memory-guard.ts";
import { type CommitRules, COMMIT_RULES } from "../write/commit-rules.ts";
import { getSegment } from "./moved-on.ts";
import type {
  DecodedSegment,
  EncodedSegment,
  SegmentChunk,
  SegmentPack,
} from "../format/index-segment.ts";
import { comparePlaces, encodeSortedSegment } from "../format/index-segment.ts";
import { SEGMENT_CHUNK_COUNT_MAX, segmentKey } from "../format/index-segment.ts";
import type { Sealer } from "../format/seal.ts";
import type { Repository } from "../log/repository.ts";
import { isDeletedPack } from "../log/state.ts";
import type { CurrentSegment, RepositoryState } from "../log/state.ts";

/** Segments that are to become one. */
export type MergeGroup = readonly CurrentSegment[];

/** One merge that was committed. */
export type MergeResult = {
  readonly inputs: number;
  readonly chunks: number;
  /** Deleted packs that nobody mentions any more. */
  readonly dropped: number;
};

/** So many segments of a size may stand side by side. */
export const SEGMENTS_OF_A_SIZE_MAX = 8;

const SIZE_CLASS_FACTOR_BITS = 3;
const SIZE_CLASS_CHUNKS_MIN_BITS = 10;
const MERGE_COUNT_MAX = 64;
const DROPPED_COUNT_MAX = 100_000;
/** Half of what a segment may have: the rows of a merge are in memory. */
const MERGED_CHUNK_COUNT_MAX = SEGMENT_CHUNK_COUNT_MAX / 2;
/** Deleted packs among all that segments mention, above which they are cleared. */
const DELETED_SHARE_MAX = 0.25;

/** Which segments to merge for being many; none that a keep names. */
export function planMerges(state: RepositoryState): MergeGroup[] {
  const small = mergeable(state).filter(({ chunks }) => chunks <= MERGED_CHUNK_COUNT_MAX / 2);
  const groups: MergeGroup[] = [];
  for (const [, segments] of Map.groupBy(small, ({ chunks }) => sizeClass(chunks))) {
    if (segments.length > SEGMENTS_OF_A_SIZE_MAX) groups.push(...cutGroups(segments));
  }
  return groups.filter(({ length }) => length > 1);
}

/** True if deleted packs are so many that they should leave the index for good. */
export function isClearingDue(state: RepositoryState): boolean {
  const packCount = state.segments.values().reduce((sum, { packs }) => sum + packs, 0);
  return state.deleted.size > 0 && state.deleted.size >= packCount * DELETED_SHARE_MAX;
}

/**
 * Merges what is to be merged, each group with one entry. `clear` rewrites all segments that mention
 * a deleted pack, and ends the mask of those that nobody mentions any more.
 */
export async function runMerges(
  repository: Repository,
  options: {
    readonly clear: boolean;
    readonly operation: string;
    readonly signal?: AbortSignal | undefined;
    readonly rules?: CommitRules;
  },
): Promise<MergeResult[]> {
  const { clear, signal } = options;
  const results: MergeResult[] = [];
  for (let count = 0; count < MERGE_COUNT_MAX; count += 1) {
    const [group] = planMerges(repository.state);
    if (group === undefined) break;
    const result = await merge(repository, group, { ...options, mentions: undefined });
    if (result === undefined) break;
    results.push(result);
  }
  if (!clear || repository.state.deleted.size === 0) return results;
  const mentions = new Mentions(repository, signal);
  await mentions.read(repository.state);
  const stale = mergeable(repository.state).filter(({ id }) => mentions.hasDeleted(id));
  for (const group of [...cutGroups(stale), []]) {
    const result = await merge(repository, group, { ...options, mentions });
    if (result !== undefined) results.push(result);
  }
  return results;
}

async function merge(
  repository: Repository,
  group: MergeGroup,
  options: {
    readonly mentions: Mentions | undefined;
    readonly operation: string;
    readonly signal?: AbortSignal | undefined;
    readonly rules?: CommitRules;
  },
): Promise<MergeResult | undefined> {
  const { mentions, operation, signal, rules = COMMIT_RULES } = options;
  const birth = repository.state.sequence;
  const decoded: DecodedSegment[] = [];
  for (const ref of group) {
    const segment = await getSegment(repository, ref, signal);
    if (segment === undefined) return undefined;
    decoded.push(segment);
  }
  const merged = mergeSegments(repository.state, decoded, repository.sealer);
  const isEmpty = merged.packs === 0;
  const output = isEmpty ? null : { id: merged.id, birth, ...sizesOf(merged) };
  const isSame = group.some(({ id }) => id === merged.id);
  if (isSame || (group.length === 0 && mentions === undefined)) return undefined;
  if (output !== null) {
    const key = segmentKey(merged.id, birth);
    await repository.putObject(key, merged.bytes, { sha256: merged.id });
  }
  let droppedCount = 0;
  const inputs = group.map(({ id }) => id);
  const result = await repository.commit(
    async (state) => {
      if (!canMerge(state, inputs)) return undefined;
      if (output !== null && (state.segments.has(output.id) || output.birth <= state.floor)) {
        return undefined;
      }
      const unmentioned = (await mentions?.unmentioned(state, inputs)) ?? [];
      // A pack that was deleted while we merged is in the output.
      const dropped = rules.keepDeleted
        ? unmentioned.filter((pack) => !merged.packIds.has(pack))
        : [...state.deleted.keys()];
      if (inputs.length === 0 && dropped.length === 0) return undefined;
      droppedCount = dropped.length;
      return { kind: "merge", body: { inputs, output, dropped } };
    },
    { operation, ...(signal === undefined ? {} : { signal }) },
  );
  if (result.outcome !== "won") return undefined;
  return { inputs: inputs.length, chunks: merged.chunks, dropped: droppedCount };
}

/** The packs of all inputs that were not deleted, each once, and their chunks, in order. */
function mergeSegments(
  state: RepositoryState,
  inputs: readonly DecodedSegment[],
  sealer: Sealer,
): EncodedSegment & { readonly packIds: ReadonlySet<string> } {
  const packs = new Map<string, { readonly pack: SegmentPack; readonly input: number }>();
  for (const [input, { packs: named }] of inputs.entries()) {
    for (const pack of named) {
      if (isDeletedPack(state, pack.id, pack.birth)) continue;
      const known = packs.get(pack.id);
      // Of two births of one pack the lower is right, as in the index.
      if (known === undefined || pack.birth < known.pack.birth) packs.set(pack.id, { pack, input });
    }
  }
  const sorted = [...packs.values()]
    .map(({ pack }) => pack)
    .toSorted((one, other) => (one.id < other.id ? -1 : 1));
  const ordinals = new Map(sorted.map(({ id }, ordinal) => [id, ordinal]));
  const chunks: SegmentChunk[] = [];
  for (const [input, segment] of inputs.entries()) {
    for (const chunk of segment.chunks()) {
      const id = segment.packs[chunk.pack]?.id ?? "";
      const ordinal = ordinals.get(id);
      if (ordinal === undefined || packs.get(id)?.input !== input) continue;
      chunks.push({ ...chunk, pack: ordinal });
    }
    checkMemory();
  }
  const encoded = encodeSortedSegment(sorted, chunks.toSorted(comparePlaces), sealer);
  return { ...encoded, packIds: new Set(ordinals.keys()) };
}

/** Which current segments mention which deleted packs. */
class Mentions {
  readonly #repository: Repository;
  readonly #signal: AbortSignal | undefined;
  /** By segment: the packs that it mentions and that were deleted when it was read. */
  readonly #deleted = new Map<string, readonly string[]>();
  /** The packs that were deleted at the first read, by the entry that did it. */
  #known: ReadonlyMap<string, number> | undefined;

  constructor(repository: Repository, signal: AbortSignal | undefined) {
    this.#repository = repository;
    this.#signal = signal;
  }

  /** Reads the segments that were not read yet. */
  async read(state: RepositoryState): Promise<void> {
    this.#known ??= new Map([...state.deleted].map(([pack, { sequence }]) => [pack, sequence]));
    for (const ref of state.segments.values()) {
      if (this.#deleted.has(ref.id)) continue;
      const segment = await getSegment(this.#repository, ref, this.#signal);
      // Replaced meanwhile: what is decided on this state is decided again.
      if (segment === undefined) continue;
      const deleted = segment.packs.filter(({ id, birth }) => isDeletedPack(state, id, birth));
      this.#deleted.set(
        ref.id,
        deleted.map(({ id }) => id),
      );
    }
  }

  hasDeleted(segment: string): boolean {
    return (this.#deleted.get(segment)?.length ?? 0) > 0;
  }

  /** The deleted packs that no current segment but the inputs mentions. */
  async unmentioned(state: RepositoryState, inputs: readonly string[]): Promise<string[]> {
    await this.read(state);
    const mentioned = new Set<string>();
    for (const segment of state.segments.keys()) {
      if (inputs.includes(segment)) continue;
      for (const pack of this.#deleted.get(segment) ?? []) mentioned.add(pack);
    }
    // What was deleted after a segment was read is not among its mentions: it stays known.
    return [...state.deleted]
      .filter(([pack, { sequence }]) => this.#known?.get(pack) === sequence && !mentioned.has(pack))
      .map(([pack]) => pack)
      .slice(0, DROPPED_COUNT_MAX);
  }
}

/** Segments that no keep names. */
function mergeable(state: RepositoryState): CurrentSegment[] {
  const kept = new Set(state.keeps.values().flatMap(({ segments }) => segments));
  return [...state.segments.values()].filter(({ id }) => !kept.has(id));
}

function canMerge(state: RepositoryState, inputs: readonly string[]): boolean {
  const free = new Set(mergeable(state).map(({ id }) => id));
  return inputs.every((id) => free.has(id));
}

/** Smallest first, into groups that fit one segment. */
function cutGroups(segments: readonly CurrentSegment[]): MergeGroup[] {
  const groups: CurrentSegment[][] = [];
  let chunkCount = Infinity;
  for (const segment of segments.toSorted((one, other) => one.chunks - other.chunks)) {
    chunkCount += segment.chunks;
    if (chunkCount > MERGED_CHUNK_COUNT_MAX) {
      groups.push([]);
      chunkCount = segment.chunks;
    }
    groups.at(-1)?.push(segment);
  }
  return groups;
}

function sizeClass(chunks: number): number {
  const bits = Math.floor(Math.log2(Math.max(chunks, 1)));
  return Math.max(0, Math.ceil((bits - SIZE_CLASS_CHUNKS_MIN_BITS) / SIZE_CLASS_FACTOR_BITS));
}

function sizesOf(segment: { bytes: Uint8Array; packs: number; chunks: number }): {
  sizeBytes: number;
  packs: number;
  chunks: number;
} {
  return { sizeBytes: segment.bytes.length, packs: segment.packs, chunks: segment.chunks };
}
