/**
 * How many series some blocks of a node hold, noted at the capture, so that a database which was
 * restored can be asked for the same numbers. Of each namespace two blocks are looked at, in a bounded
 * number of shards, which all nodes choose alike; the numbers are M3's own, from the info files of
 * filesets that were captured. Cost: one pass over the capture's list, and a small read for each
 * shard and block.
 */
import { z } from "zod";
import type { FileSystem } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { joinPath, pathFromText, textFromPath } from "../../base/path.ts";
import { readCaptureList } from "./capture-list.ts";
import { captureListPath } from "./capture-options.ts";
import { filesetFileName, parseFilesetName } from "./fileset-names.ts";
import type { FilesetName } from "./fileset-names.ts";
import { parseFilesetInfo } from "./fileset.ts";
import { readSmallFile } from "./small-file.ts";

/** Shards of one namespace that are looked at. */
const SHARD_COUNT_MAX = 1024;

/** How the path of a fileset's data file ends in a line of the list: one of seven. */
const DATA_FILE = '-data.db"';

/** Namespaces that are looked at, in the order of their names. */
const NAMESPACE_COUNT_MAX = 16;

/** What one node holds of one block. */
export const seriesSampleSchema = z.strictObject({
  namespace: z.string(),
  /** Nanoseconds since 1970; JSON has no 64-bit numbers. */
  blockStartNs: z.string().regex(/^\d{1,20}$/),
  /** Series, by shard. */
  counts: z.record(z.string().regex(/^\d{1,7}$/), z.int().min(0)),
});

/** What one node holds of one block. */
export type SeriesSample = Readonly<z.infer<typeof seriesSampleSchema>>;

/** Where to look. */
export type SampleOptions = {
  readonly files: FileSystem;
  /** M3's `filePathPrefix`. */
  readonly root: string;
  /** Where the capture put its links and its lists. */
  readonly scratch: string;
  /** Shards that the capture found, by namespace. */
  readonly shards: { readonly [namespace: string]: readonly number[] };
};

/** The samples of a capture that has ended. What M3 has deleted since is not in them. */
export function sampleSeries(options: SampleOptions): SeriesSample[] {
  const namespaces = Object.keys(options.shards).toSorted().slice(0, NAMESPACE_COUNT_MAX);
  const chosen = new Map(
    namespaces.map((name) => [pathFromText(name), new Set(chooseShards(options.shards[name]))]),
  );
  const samples: SeriesSample[] = [];
  for (const [namespace, blocks] of listFilled(options, chosen)) {
    for (const blockStartNs of chooseBlocks([...blocks.keys()])) {
      const counts: Record<string, number> = {};
      for (const [shard, name] of blocks.get(blockStartNs) ?? []) {
        const count = readCount(options, `${namespace}/${shard}`, name);
        if (count !== undefined && count > 0) counts[shard] = count;
      }
      if (Object.keys(counts).length === 0) continue;
      samples.push({
        namespace: textFromPath(namespace),
        blockStartNs: String(blockStartNs),
        counts,
      });
    }
  }
  return samples;
}

/** Every 2^n-th, so that nodes with other shards choose the same ones of those that they share. */
export function chooseShards(shards: readonly number[] = []): number[] {
  const shardCount = shards.reduce((most, shard) => Math.max(most, shard + 1), 0);
  let stride = 1;
  while (Math.ceil(shardCount / stride) > SHARD_COUNT_MAX) stride *= 2;
  return shards.filter((shard) => shard % stride === 0);
}

/**
 * The newest block, and the roundest of the others: a choice that seldom changes, so that nodes of
 * which one has flushed a block more agree on one at least.
 */
export function chooseBlocks(blockStartsNs: readonly bigint[]): bigint[] {
  const [newest, ...others] = blockStartsNs.toSorted((a, b) => (a < b ? 1 : -1));
  if (newest === undefined) return [];
  const [first, ...rest] = others;
  if (first === undefined) return [newest];
  const roundest = rest.reduce(
    (best, one) => (roundness(one) > roundness(best) ? one : best),
    first,
  );
  return [newest, roundest];
}

/** The largest power of two that divides it. */
function roundness(value: bigint): bigint {
  return value & -value;
}

/** The newest fileset by shard, by block, by namespace; without those that hold nothing. */
type FilledBlocks = Map<string, Map<bigint, Map<number, FilesetName>>>;

/** M3 writes a fileset for a block without a point, too; its data file is empty. */
function listFilled(
  { files, scratch }: SampleOptions,
  chosen: ReadonlyMap<string, ReadonlySet<number>>,
): FilledBlocks {
  const found: FilledBlocks = new Map(
    [...chosen.keys()].map((namespace) => [namespace, new Map()]),
  );
  for (const { path, stat } of readCaptureList(
    files,
    captureListPath(scratch, "data"),
    DATA_FILE,
  )) {
    const [namespace = "", shardText, file, ...deeper] = path.split("/");
    const shard = Number(shardText);
    if (file === undefined || deeper.length > 0 || stat.sizeBytes === 0) continue;
    const blocks = found.get(namespace);
    if (blocks === undefined || chosen.get(namespace)?.has(shard) !== true) continue;
    const name = parseFilesetName(file);
    if (name?.part !== "data") continue;
    let block = blocks.get(name.blockStartNs);
    if (block === undefined) blocks.set(name.blockStartNs, (block = new Map()));
    const other = block.get(shard);
    if (other === undefined || other.volume <= name.volume) block.set(shard, name);
  }
  return found;
}

/** Read at the link where there is one; undefined if it cannot be read, or makes no sense. */
function readCount(
  { files, root, scratch }: SampleOptions,
  folder: string,
  name: FilesetName,
): number | undefined {
  const path = `data/${folder}/${filesetFileName(name, "info")}`;
  const link = joinPath(scratch, path);
  try {
    const place = files.lstat(link) === undefined ? joinPath(root, path) : link;
    return parseFilesetInfo(readSmallFile(files, place)).entryCount;
  } catch (thrown) {
    // A sample is no reason to fail a backup; what cannot be read is told by those who store it.
    if (thrown instanceof AppError) return undefined;
    throw thrown;
  }
}
