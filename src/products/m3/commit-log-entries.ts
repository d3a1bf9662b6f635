/**
 * What is in a commit log: its index first, then one entry a point, each framed by its size as a
 * uvarint. A series is described at its first entry in each log and named by a number from then on,
 * so a log is read from its beginning. Memory: the series of one log.
 */
import { z } from "zod";
import type { FileSystem } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { adler32 } from "./adler32.ts";
import { CHUNK_HEADER_SIZE_BYTES, parseChunkHeader } from "./commit-log-format.ts";
import { decodeRootObject } from "./fileset.ts";

/** A series, as a log describes it at its first entry. */
export type CommitLogSeries = {
  /** Bytes, as a byte string: ids made of tags are not text. */
  readonly id: string;
  readonly namespace: string;
  readonly shard: number;
};

/** One point. */
export type CommitLogEntry = {
  readonly series: CommitLogSeries;
  readonly timestampNs: bigint;
  readonly value: number;
  /** When M3 wrote it, nanoseconds since 1970. */
  readonly createdNs: bigint;
  /** The message as it lies in the log, without its size; valid until the next entry is asked for. */
  readonly bytes: Uint8Array;
};

/** Numbers of the objects in M3's msgpack schema. */
const LOG_INFO_TYPE = 7;
const LOG_ENTRY_TYPE = 8;
const LOG_METADATA_TYPE = 9;

/** Entries hold a point and at most a series' id and tags; no chunk is larger than M3's buffer. */
const SIZE_BYTES_MAX = 64 * 1024 * 1024;

const integer = z.union([z.int(), z.bigint()]).transform(BigInt);
const bytes = z.instanceof(Uint8Array);
const infoSchema = z.tuple([integer, integer, integer], z.unknown());
const metadataSchema = z.tuple([bytes, bytes, integer], z.unknown());

/** Decodes a log that comes in pieces. */
export class CommitLogDecoder {
  readonly #series = new Map<number, CommitLogSeries>();
  #rest: Uint8Array = new Uint8Array(0);
  #index: number | undefined;

  /** The index that the log carries inside; undefined before its first message. */
  get index(): number | undefined {
    return this.#index;
  }

  /**
   * The entries that end in this chunk's data; an entry may begin in the one before.
   * @throws AppError `damaged`.
   */
  *push(data: Uint8Array): Generator<CommitLogEntry> {
    const joined = this.#rest.length === 0 ? data : Buffer.concat([this.#rest, data]);
    let start = 0;
    for (;;) {
      const frame = readFrame(joined, start);
      if (frame === undefined) break;
      start = frame.end;
      const message = joined.subarray(frame.start, frame.end);
      if (this.#index === undefined) this.#index = decodeLogIndex(message);
      else yield this.#decodeEntry(message);
    }
    this.#rest = joined.slice(start);
  }

  #decodeEntry(message: Uint8Array): CommitLogEntry {
    // By hand, not by a schema: this runs for each point of a log.
    const [series, created, metadata, timestamp, value] =
      decodeRootObject(message, LOG_ENTRY_TYPE)?.fields ?? [];
    if (!isInteger(series) || !isInteger(created) || !isInteger(timestamp)) throw noEntry();
    if (typeof value !== "number") throw noEntry();
    let described = this.#series.get(Number(series));
    if (described === undefined && metadata instanceof Uint8Array) {
      described = decodeSeries(metadata);
      this.#series.set(Number(series), described);
    }
    if (described === undefined) throw damaged(`an entry of series ${series}, never described`);
    return {
      series: described,
      timestampNs: BigInt(timestamp),
      value,
      createdNs: BigInt(created),
      bytes: message,
    };
  }
}

/**
 * The entries of a log on disk, up to `sizeBytes`: the cut of `findCommitLogCut`.
 * @throws AppError `damaged` at the first chunk that contradicts a checksum or ends too early, after
 *   all entries before it.
 */
export function* readCommitLogEntries(
  files: FileSystem,
  path: string,
  sizeBytes: number,
): Generator<CommitLogEntry> {
  const handle = files.open(path, "r");
  try {
    const decoder = new CommitLogDecoder();
    const header = new Uint8Array(CHUNK_HEADER_SIZE_BYTES);
    for (let offset = 0; offset < sizeBytes;) {
      readFully(files, handle, { target: header, offset });
      const parsed = parseChunkHeader(header, 0);
      if (parsed === undefined || parsed.sizeBytes > SIZE_BYTES_MAX) throw badChunk(offset);
      const data = new Uint8Array(parsed.sizeBytes);
      readFully(files, handle, { target: data, offset: offset + CHUNK_HEADER_SIZE_BYTES });
      if (adler32(data) !== parsed.dataChecksum) throw badChunk(offset);
      yield* decoder.push(data);
      offset += CHUNK_HEADER_SIZE_BYTES + parsed.sizeBytes;
    }
  } finally {
    files.close(handle);
  }
}

/** Where the next message lies; undefined if its end has not come yet. */
function readFrame(
  joined: Uint8Array,
  offset: number,
): { readonly start: number; readonly end: number } | undefined {
  let size = 0;
  let scale = 1;
  for (let at = offset; ; at += 1) {
    const byte = joined[at];
    if (byte === undefined) return undefined;
    size += (byte & 0x7f) * scale;
    scale *= 128;
    if (size > SIZE_BYTES_MAX) throw damaged(`a message of ${size} bytes`);
    if (byte >= 0x80) continue;
    const start = at + 1;
    return start + size <= joined.length ? { start, end: start + size } : undefined;
  }
}

function isInteger(value: unknown): value is number | bigint {
  return typeof value === "bigint" || Number.isSafeInteger(value);
}

function noEntry(): AppError {
  return damaged("an entry that is none");
}

function decodeLogIndex(message: Uint8Array): number {
  const parsed = infoSchema.safeParse(decodeRootObject(message, LOG_INFO_TYPE)?.fields);
  if (parsed.success) return Number(parsed.data[2]);
  throw damaged("no index at its beginning");
}

/** M3 announces three fields and writes a fourth, the tags, behind them. */
function decodeSeries(metadata: Uint8Array): CommitLogSeries {
  const parsed = metadataSchema.safeParse(decodeRootObject(metadata, LOG_METADATA_TYPE)?.fields);
  if (!parsed.success) throw damaged("a series that nobody can read");
  const [id, namespace, shard] = parsed.data;
  return { id: byteString(id), namespace: byteString(namespace), shard: Number(shard) };
}

function readFully(
  files: FileSystem,
  handle: number,
  { target, offset }: { readonly target: Uint8Array; readonly offset: number },
): void {
  for (let filled = 0; filled < target.length;) {
    const count = files.read(handle, target.subarray(filled), offset + filled);
    if (count === 0) throw damaged(`a chunk that ends before its last byte (at byte ${offset})`);
    filled += count;
  }
}

function byteString(value: Uint8Array): string {
  return Buffer.from(value).toString("latin1");
}

function badChunk(offset: number): AppError {
  return damaged(`a chunk that contradicts its checksum (at byte ${offset})`);
}

function damaged(what: string): AppError {
  return new AppError("damaged", `The commit log has ${what}.`, {
    guidance: "M3 reads such a log up to there and asks replicas for the rest.",
  });
}
