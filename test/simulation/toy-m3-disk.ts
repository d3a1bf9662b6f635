/**
 * The files of the toy M3: written with M3's true names and formats, and read as M3 reads them when it
 * starts. Points are numbers: a fileset's `data` holds them as u32, a log holds them as values.
 */
import type { FileSystem } from "../../src/base/doors.ts";
import { joinPath } from "../../src/base/path.ts";
import { adler32 } from "../../src/products/m3/adler32.ts";
import { CommitLogDecoder } from "../../src/products/m3/commit-log-entries.ts";
import {
  CHUNK_HEADER_SIZE_BYTES,
  parseChunkHeader,
} from "../../src/products/m3/commit-log-format.ts";
import {
  DATA_PARTS,
  groupFilesets,
  missingDataParts,
  parseCommitLogName,
} from "../../src/products/m3/fileset-names.ts";
import type { Fileset } from "../../src/products/m3/fileset-names.ts";
import {
  parseCheckpoint,
  parseDataDigests,
  parseFilesetInfo,
} from "../../src/products/m3/fileset.ts";
import { readSmallFile } from "../../src/products/m3/small-file.ts";
import { newestCompleteSnapshot } from "../../src/products/m3/snapshot-metadata.ts";
import { encodeChunk, encodeLogEntry, encodeLogInfo } from "../products/m3/m3-encoders.ts";

/** Length of a block in the names of filesets; the toy's own clock counts steps. */
export const BLOCK_NS = 60_000_000_000n;

/** The toy's only namespace. */
export const NAMESPACE = "default";

/** Where a point belongs. */
export type Point = { readonly number: number; readonly shard: number; readonly block: number };

/** The points of a shard and block, by `<shard>/<block>`. */
export type Points = Map<string, Set<number>>;

/** What a restart finds. */
export type Recovered = {
  /** In filesets; complete ones only, of the latest volume. */
  readonly flushed: Points;
  /** In the newest complete snapshot and in the logs from its index on. */
  readonly unflushed: Points;
  /** The latest complete volume of each block that was flushed. */
  readonly volumes: Map<string, number>;
};

/** How snapshots are chosen: as M3 does it, or only those that the metadata's UUID names. */
export type SnapshotRule = "latest-volume" | "same-uuid";

/** Puts bytes at the end of a new file, or of one that a crash left: M3 truncates and goes on. */
export function writeWhole(files: FileSystem, path: string, bytes: Uint8Array): void {
  const isThere = files.lstat(path) !== undefined;
  const handle = files.open(path, isThere ? "write" : "create");
  if (isThere) files.truncate(handle, 0);
  if (bytes.length > 0) files.write(handle, bytes, 0);
  files.close(handle);
}

export function keyOf(point: Pick<Point, "shard" | "block">): string {
  return `${point.shard}/${point.block}`;
}

export function addPoint(points: Points, key: string, number: number): void {
  const found = points.get(key);
  if (found === undefined) points.set(key, new Set([number]));
  else found.add(number);
}

/** The `data` file of a fileset. */
export function encodePoints(points: Iterable<number>): Uint8Array {
  return new Uint8Array(Uint32Array.from(points).buffer);
}

/** A chunk of a log: its index if it is the first, then the points, series described once each. */
export function encodePointChunk(
  points: readonly Point[],
  log: { readonly index: number; readonly described: Set<number>; readonly isFirst: boolean },
): Uint8Array {
  const messages = log.isFirst ? [encodeLogInfo(log.index)] : [];
  for (const { number, shard, block } of points) {
    const isNew = !log.described.has(shard);
    log.described.add(shard);
    messages.push(
      encodeLogEntry({
        series: shard,
        ...(isNew ? { described: { id: `series-${shard}`, namespace: NAMESPACE, shard } } : {}),
        timestampNs: BigInt(block) * BLOCK_NS + 1n,
        value: number,
      }),
    );
  }
  return encodeChunk(Buffer.concat(messages));
}

/**
 * Everything that M3 would know after a start on this folder.
 * @param logSizes - Of a capture: how much of each log belongs to it, by name.
 * @throws if a fileset that counts is not whole: M3 would not have written it so.
 */
export function recover(
  files: FileSystem,
  root: string,
  options: {
    readonly rule?: SnapshotRule;
    readonly logSizes?: ReadonlyMap<string, number>;
    /** M3 looks at no older ones, and may be deleting them. */
    readonly oldestBlock?: number;
  } = {},
): Recovered {
  const { rule = "latest-volume", logSizes, oldestBlock = 0 } = options;
  const isKept = (_folder: string, { blockStartNs }: Fileset): boolean =>
    Number(blockStartNs / BLOCK_NS) >= oldestBlock;
  const flushed: Points = new Map();
  const volumes = new Map<string, number>();
  const unflushed: Points = new Map();
  for (const { key, fileset, folder } of latestFilesets(files, joinPath(root, "data"), isKept)) {
    flushed.set(key, readPoints(files, folder, fileset));
    volumes.set(key, fileset.volume);
  }
  const snapshots = joinPath(root, "snapshots");
  const newest = newestCompleteSnapshot(files, snapshots);
  const isOurs = (folder: string, fileset: Fileset): boolean =>
    isKept(folder, fileset) &&
    // One that is being deleted: a newer snapshot is complete.
    missingDataParts(fileset).length === 0 &&
    (rule === "latest-volume" || snapshotUuidOf(files, folder, fileset) === newest?.uuid);
  if (newest !== undefined) {
    for (const { key, fileset, folder } of latestFilesets(files, snapshots, isOurs)) {
      unflushed.set(key, readPoints(files, folder, fileset));
    }
  }
  const logs = joinPath(root, "commitlogs");
  for (const name of namesOf(files, logs)) {
    const log = readLog(files, joinPath(logs, name), logSizes?.get(name));
    const isNeeded = parseCommitLogName(name) !== undefined && log.index !== undefined;
    if (!isNeeded || log.index < (newest?.commitLog.index ?? 0)) continue;
    for (const point of log.points) addPoint(unflushed, keyOf(point), point.number);
  }
  return { flushed, unflushed, volumes };
}

/** The points of a log, up to the first chunk that is not whole; no index if there is no chunk. */
export function readLog(
  files: FileSystem,
  path: string,
  sizeBytes?: number,
): { readonly index: number | undefined; readonly points: Point[] } {
  const bytes = readSmallFile(files, path).subarray(0, sizeBytes);
  const decoder = new CommitLogDecoder();
  const points: Point[] = [];
  for (let offset = 0; offset + CHUNK_HEADER_SIZE_BYTES <= bytes.length;) {
    const header = parseChunkHeader(bytes, offset);
    const start = offset + CHUNK_HEADER_SIZE_BYTES;
    if (header === undefined || start + header.sizeBytes > bytes.length) break;
    const data = bytes.subarray(start, start + header.sizeBytes);
    if (adler32(data) !== header.dataChecksum) throw new Error(`${path} is damaged at ${offset}`);
    for (const { series, timestampNs, value } of decoder.push(data)) {
      points.push({ number: value, shard: series.shard, block: Number(timestampNs / BLOCK_NS) });
    }
    offset = start + header.sizeBytes;
  }
  return { index: decoder.index, points };
}

/** Names in a folder; none if it is not there. */
export function namesOf(files: FileSystem, folder: string): string[] {
  return files.lstat(folder)?.type === "directory" ? files.readDirectory(folder) : [];
}

/** True if M3 counts the fileset: its checkpoint is there and has four bytes. */
export function isComplete(files: FileSystem, folder: string, fileset: Fileset): boolean {
  const name = fileset.names.get("checkpoint");
  return name !== undefined && files.lstat(joinPath(folder, name))?.sizeBytes === 4;
}

/** From the info file: 32 hex digits. */
export function snapshotUuidOf(files: FileSystem, folder: string, fileset: Fileset): string {
  const info = readSmallFile(files, joinPath(folder, fileset.names.get("info") ?? ""));
  return parseFilesetInfo(info).snapshotUuid;
}

type Found = { readonly key: string; readonly fileset: Fileset; readonly folder: string };

/** Of each shard and block the complete fileset of the highest volume. */
function* latestFilesets(
  files: FileSystem,
  tree: string,
  isWanted: (folder: string, fileset: Fileset) => boolean,
): Generator<Found> {
  const shards = joinPath(tree, NAMESPACE);
  for (const shard of namesOf(files, shards)) {
    const folder = joinPath(shards, shard);
    const latest = new Map<string, Found>();
    for (const fileset of groupFilesets(namesOf(files, folder)).filesets) {
      if (!isComplete(files, folder, fileset) || !isWanted(folder, fileset)) continue;
      const key = keyOf({ shard: Number(shard), block: Number(fileset.blockStartNs / BLOCK_NS) });
      latest.set(key, { key, fileset, folder });
    }
    yield* latest.values();
  }
}

/** The points of a fileset whose every part is as its digests say. */
function readPoints(files: FileSystem, folder: string, fileset: Fileset): Set<number> {
  const where = `${folder}, block ${fileset.blockStartNs}, volume ${fileset.volume}`;
  const missing = missingDataParts(fileset);
  if (missing.length > 0) throw new Error(`No ${missing.join(", ")} in ${where}`);
  const read = (part: string): Uint8Array =>
    readSmallFile(files, joinPath(folder, fileset.names.get(part) ?? ""));
  const digest = read("digest");
  const digests = parseDataDigests(digest);
  if (digests === undefined || parseCheckpoint(read("checkpoint")) !== adler32(digest)) {
    throw new Error(`A checkpoint that contradicts its digest in ${where}`);
  }
  for (const part of DATA_PARTS) {
    if (adler32(read(part)) !== digests.get(part)) throw new Error(`A bad ${part} in ${where}`);
  }
  const data = read("data");
  return new Set(new Uint32Array(data.buffer, data.byteOffset, data.byteLength / 4));
}
