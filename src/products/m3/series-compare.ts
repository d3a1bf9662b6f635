/**
 * Numbers of series in a backup held against those of a running M3. Each shard counts once, with the
 * replica that had most: that many series had been acknowledged, and the cluster must know them, in
 * whatever place they are now. Later writes may have added more.
 */
import { z } from "zod";
import { AppError, toAppError } from "../../base/error.ts";
import type { ProductCheck } from "../product.ts";
import type { NamespaceDescription } from "./cluster-state.ts";
import type { BlockOfNamespace } from "./node-api.ts";
import { seriesSampleSchema } from "./series-sample.ts";
import type { SeriesSample } from "./series-sample.ts";

/** Beyond this a count says only that there are at least so many: it bounds what M3 must list. */
const SERIES_COUNT_MAX = 20_000;

/** Nodes that had flushed different blocks sampled different ones. */
const BLOCK_COUNT_MAX = 4;

/** What a block of a namespace must hold. */
export type WantedCount = BlockOfNamespace & {
  /** Series in the backup, over all of its shards. */
  readonly seriesCount: number;
  readonly shardCount: number;
  /** No need to count further. */
  readonly countMax: number;
};

/** What the cluster has of it, or why nobody knows. */
export type FoundCount = WantedCount & { readonly found: number | AppError };

/** What to ask of one namespace; without `wanted` the reason why nothing. */
export type NamespaceSample = {
  readonly name: string;
  readonly wanted: readonly WantedCount[];
  readonly note?: string;
};

const capturesSchema = z.record(
  z.string(),
  z.looseObject({ series: z.array(seriesSampleSchema).optional() }),
);

/** What to ask for: the samples of all nodes, without blocks that M3 may delete by now. */
export function planSamples(
  captures: unknown,
  options: { readonly namespaces: readonly NamespaceDescription[]; readonly nowMs: number },
): NamespaceSample[] {
  const taken = parseCaptures(captures);
  return options.namespaces.map(({ name, retentionMs, blockSizeMs, indexEnabled }) => {
    const own = taken.filter(({ namespace }) => namespace === name);
    // A block of mercy: M3 may be about to delete it.
    const oldestMs = options.nowMs - retentionMs + blockSizeMs;
    const alive = own.filter((sample) => startMsOf(sample) >= oldestMs);
    if (!indexEnabled) return { name, wanted: [], note: "it has no index to ask" };
    if (own.length === 0) return { name, wanted: [], note: "the backup counted no block of it" };
    if (alive.length === 0)
      return { name, wanted: [], note: "its blocks are beyond retention now" };
    const byBlock = Map.groupBy(alive, startMsOf);
    const newest = [...byBlock].toSorted(([a], [b]) => b - a).slice(0, BLOCK_COUNT_MAX);
    return { name, wanted: newest.map(([, copies]) => mergeCopies(copies, blockSizeMs)) };
  });
}

/** The line of a namespace: its counts are as in the backup, or which are lower. */
export function compareSample(
  { name, note }: NamespaceSample,
  counts: readonly FoundCount[],
): ProductCheck {
  const what = `series of ${name}`;
  if (counts.length === 0) return { what, ok: true, message: `not counted: ${note ?? "nothing"}` };
  const failed = counts.find(({ found }) => found instanceof AppError);
  if (failed !== undefined) {
    const { message, guidance } = toAppError(failed.found);
    return { what, ok: false, message, ...(guidance === undefined ? {} : { guidance }) };
  }
  const places = counts.map(({ blockStartMs, seriesCount, shardCount, countMax, found }) => {
    const isLow = Number(found) < countMax;
    const atLeast = Number(found) >= SERIES_COUNT_MAX ? "at least " : "";
    const text = `${atLeast}${String(found)} in the block of ${showTime(blockStartMs)}, in the backup ${seriesCount} in ${shardCount} shards`;
    return { isLow, text };
  });
  const low = places.filter(({ isLow }) => isLow);
  if (low.length === 0) {
    return { what, ok: true, message: places.map(({ text }) => text).join("; ") };
  }
  const message = `fewer than in the backup: ${low.map(({ text }) => text).join("; ")}`;
  return { what, ok: false, message, guidance: "Find out whether all nodes were restored." };
}

function mergeCopies(copies: readonly SeriesSample[], blockSizeMs: number): WantedCount {
  const most = new Map<string, number>();
  for (const { counts } of copies) {
    for (const [shard, count] of Object.entries(counts)) {
      most.set(shard, Math.max(most.get(shard) ?? 0, count));
    }
  }
  const [first] = copies;
  const seriesCount = [...most.values()].reduce((sum, count) => sum + count, 0);
  return {
    namespace: first?.namespace ?? "",
    blockStartMs: first === undefined ? 0 : startMsOf(first),
    blockSizeMs,
    seriesCount,
    shardCount: most.size,
    countMax: Math.min(seriesCount, SERIES_COUNT_MAX),
  };
}

/** Blocks begin at whole milliseconds: M3 makes none that is shorter. */
function startMsOf({ blockStartNs }: SeriesSample): number {
  return Number(BigInt(blockStartNs) / 1_000_000n);
}

/** Backups of versions that counted nothing have no samples. */
function parseCaptures(captures: unknown): SeriesSample[] {
  const parsed = capturesSchema.safeParse(captures ?? {});
  if (parsed.success) return Object.values(parsed.data).flatMap(({ series }) => series ?? []);
  throw new AppError(
    "damaged",
    "What the backup says of its captures is not as Astacus writes it.",
    {
      guidance: "Verify the backup, or use a version of Astacus as new as the one that made it.",
      cause: parsed.error,
    },
  );
}

function showTime(ms: number): string {
  return new Date(ms).toISOString().replace(/\.000Z$/, "Z");
}
