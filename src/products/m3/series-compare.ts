/**
 * Numbers of series in a backup held against those of a running M3. Which instance got whose share is
 * not asked: the copies of a shard are compared by rank, so that names may have been permuted and a
 * replica that lacked a series in the backup may lack it now.
 */
import { z } from "zod";
import { AppError } from "../../base/error.ts";
import type { ProductCheck } from "../product.ts";
import type { NamespaceDescription } from "./cluster-state.ts";
import type { BlockOfShard } from "./node-api.ts";
import { seriesSampleSchema } from "./series-sample.ts";
import type { SeriesSample } from "./series-sample.ts";

/** Beyond this a count says only that there are at least so many: it bounds what M3 must list. */
const SERIES_COUNT_MAX = 20_000;

/** Blocks of shards of one namespace that are asked for. */
const SAMPLE_COUNT_MAX = 128;

const EXAMPLE_COUNT = 5;

/** What a block of a shard must hold. */
export type WantedCount = BlockOfShard & {
  /** Series by copy in the backup, descending. */
  readonly counts: readonly number[];
  /** No need to count further. */
  readonly countMax: number;
};

/** What was answered by those of its owners that did answer. */
export type FoundCounts = Map<WantedCount, { readonly counts: number[]; ownerCount: number }>;

/** Why a namespace has nothing, or less, to compare; by its name. */
export type SampleNotes = ReadonlyMap<string, string>;

const capturesSchema = z.record(
  z.string(),
  z.looseObject({ series: z.array(seriesSampleSchema).optional() }),
);

/** What to ask for: the samples of all nodes, without blocks that M3 may delete by now. */
export function planSamples(
  captures: unknown,
  options: { readonly namespaces: readonly NamespaceDescription[]; readonly nowMs: number },
): { readonly samples: readonly WantedCount[]; readonly notes: SampleNotes } {
  const taken = parseCaptures(captures);
  const samples: WantedCount[] = [];
  const notes = new Map<string, string>();
  for (const { name, retentionMs, blockSizeMs } of options.namespaces) {
    const own = taken.filter(({ namespace }) => namespace === name);
    // A block of mercy: M3 may be about to delete it.
    const oldestMs = options.nowMs - retentionMs + blockSizeMs;
    const alive = own.filter(({ blockStartNs }) => BigInt(blockStartNs) / 1_000_000n >= oldestMs);
    if (own.length === 0) notes.set(name, "the backup holds no flushed block of it");
    else if (alive.length === 0) notes.set(name, "what the backup counted is beyond retention now");
    const wanted = mergeSamples(alive, BigInt(Math.round(blockSizeMs * 1_000_000)));
    const stride = Math.ceil(wanted.length / SAMPLE_COUNT_MAX);
    samples.push(...wanted.filter((_, index) => index % stride === 0));
  }
  return { samples, notes };
}

/** A line for each namespace: the counts are as in the backup, or which are lower. */
export function compareSamples(
  samples: readonly WantedCount[],
  found: FoundCounts,
  notes: SampleNotes,
): ProductCheck[] {
  const silent = [...notes].map(([name, note]) => ({
    what: `series of ${name}`,
    ok: true,
    message: `not counted: ${note}`,
  }));
  const byNamespace = Map.groupBy(samples, ({ namespace }) => namespace);
  return [...silent, ...[...byNamespace].map(([name, own]) => compareNamespace(name, own, found))];
}

function compareNamespace(
  name: string,
  samples: readonly WantedCount[],
  found: FoundCounts,
): ProductCheck {
  const what = `series of ${name}`;
  const answersOf = (sample: WantedCount) => found.get(sample) ?? { counts: [], ownerCount: 0 };
  const isAnswered = (sample: WantedCount) => answersOf(sample).counts.length > 0;
  const answered = samples.filter(isAnswered);
  const low = answered.filter((sample) => isLower(sample, answersOf(sample)));
  const shardCount = new Set(answered.map(({ shard }) => shard)).size;
  const blocks = [...new Set(answered.map(showBlock))].toSorted();
  const scope = `${shardCount} shards, blocks of ${blocks.join(" and ")}`;
  if (answered.length < samples.length) {
    const message = `${samples.length - answered.length} of ${samples.length} blocks of shards have no owner that answers`;
    return { what, ok: false, message };
  }
  if (low.length > 0) {
    const examples = low.slice(0, EXAMPLE_COUNT).map((sample) => {
      const now = answersOf(sample).counts.toSorted((a, b) => b - a);
      const place = `shard ${sample.shard}, block ${showBlock(sample)}`;
      return `${place}: ${now.join(", ")} in place of ${sample.counts.join(", ")}`;
    });
    const more = low.length > examples.length ? "; …" : "";
    const message = `fewer than in the backup in ${low.length} of ${samples.length} places (${scope}): ${examples.join("; ")}${more}`;
    const guidance = "Restore again; until then M3 answers with what the other replicas have.";
    return { what, ok: false, message, guidance };
  }
  const seriesCount = samples.reduce((sum, { counts }) => sum + (counts[0] ?? 0), 0);
  const message = `as in the backup, or more: ${seriesCount} in ${scope}, on each replica`;
  return { what, ok: true, message };
}

/** Owners that did not answer may have any number: only what is too low whatever they have counts. */
export function isLower(
  { counts, countMax }: Pick<WantedCount, "counts" | "countMax">,
  answers: { readonly counts: readonly number[]; readonly ownerCount: number },
): boolean {
  const unknownCount = Math.max(0, answers.ownerCount - answers.counts.length);
  const now = answers.counts.toSorted((a, b) => b - a);
  return counts.some((count, rank) => {
    if (rank < unknownCount) return false;
    return (now[rank - unknownCount] ?? 0) < Math.min(count, countMax);
  });
}

function mergeSamples(samples: readonly SeriesSample[], blockSizeNs: bigint): WantedCount[] {
  const merged = new Map<string, BlockOfShard & { readonly counts: number[] }>();
  for (const { namespace, blockStartNs, counts } of samples) {
    for (const [shard, count] of Object.entries(counts)) {
      const key = `${blockStartNs}/${shard}`;
      const other = merged.get(key);
      if (other !== undefined) other.counts.push(count);
      else {
        const place = { namespace, shard: Number(shard), blockStartNs: BigInt(blockStartNs) };
        merged.set(key, { ...place, blockSizeNs, counts: [count] });
      }
    }
  }
  return [...merged.values()].map(({ counts, ...place }) => {
    const descending = counts.toSorted((a, b) => b - a);
    return {
      ...place,
      counts: descending,
      countMax: Math.min(descending[0] ?? 0, SERIES_COUNT_MAX),
    };
  });
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

function showBlock({ blockStartNs }: BlockOfShard): string {
  return new Date(Number(blockStartNs / 1_000_000n)).toISOString().replace(/\.000Z$/, "Z");
}
