/**
 * Checks what is not a backup's own: the header, the chain of the log, the newest checkpoint and the
 * current index segments, as objects at the site. The last entry is held against the hash that this
 * node has read, the others against the entry behind them. Memory: `BATCH_COUNT` entries, and two
 * segments.
 */
import { sha256Hex } from "../../base/hex.ts";
import { forEachConcurrent, mapConcurrent } from "../../base/semaphore.ts";
import type { SiteCall } from "../../sites/site.ts";
import { decodeCheckpoint } from "../log/checkpoint.ts";
import { decodeEntry, entryHash } from "../log/entry.ts";
import { HEADER_KEY, headerHash } from "../format/header.ts";
import { checkpointKey, keyKey, logCopyKey, logKey } from "../format/ids.ts";
import { decodeSegment, segmentKey } from "../format/index-segment.ts";
import type { Repository } from "../log/repository.ts";
import type { RepositoryState } from "../log/state.ts";
import type { ProblemBook } from "./verify-problems.ts";

const BATCH_COUNT = 128;
const REQUEST_CONCURRENCY = 16;
const SEGMENT_CONCURRENCY = 2;

/** What a check of the log needs. */
export type LogCheckOptions = {
  readonly repository: Repository;
  readonly state: RepositoryState;
  /** Reads all entries and segments; else the header, the last entry and sizes. */
  readonly deep: boolean;
  readonly problems: ProblemBook;
  readonly onRead: (sizeBytes: number) => void;
  readonly signal?: AbortSignal | undefined;
};

/** Checks all that a reader needs before the first backup; returns how many entries were read. */
export async function verifyLog(options: LogCheckOptions): Promise<number> {
  await verifyHeader(options);
  const entries = await verifyEntries(options);
  await verifyCheckpoint(options);
  await verifyKeys(options);
  await verifySegments(options);
  return entries;
}

async function verifyHeader(options: LogCheckOptions): Promise<void> {
  const bytes = await getObject(options, HEADER_KEY);
  if (bytes === undefined || headerHash(bytes) === options.state.headerHash) return;
  options.problems.add(HEADER_KEY, "damaged", "The header is not the one that entry 1 names.");
}

/** From the last entry back, since each one proves the one before it. */
async function verifyEntries(options: LogCheckOptions): Promise<number> {
  const { state, deep, problems } = options;
  let expected: string | undefined = state.entryHash;
  const lowest = deep ? 1 : state.sequence;
  for (let to = state.sequence; to >= lowest; to -= BATCH_COUNT) {
    const from = Math.max(lowest, to - BATCH_COUNT + 1);
    const batch = await getEntries(options, from, to);
    for (let sequence = to; sequence >= from; sequence--) {
      const wanted: string | undefined = expected;
      expected = undefined;
      const key = logKey(sequence);
      const bytes: Uint8Array | undefined =
        batch.get(sequence) ?? (await getLogCopy(options, sequence, wanted));
      if (bytes === undefined) {
        problems.add(key, "missing", `${key} is missing.`);
        continue;
      }
      if (wanted !== undefined && entryHash(bytes) !== wanted) {
        problems.add(key, "damaged", `${key} is not the entry that was read or follows it.`);
        continue;
      }
      try {
        expected = decodeEntry(bytes, sequence, options.repository.sealer).previous;
      } catch (thrown) {
        problems.addThrown(thrown, key);
      }
    }
  }
  const isChecked = deep && expected !== undefined && expected !== state.headerHash;
  if (isChecked) problems.add(logKey(1), "damaged", `${logKey(1)} does not follow the header.`);
  return state.sequence - lowest + 1;
}

async function getEntries(
  options: LogCheckOptions,
  from: number,
  to: number,
): Promise<Map<number, Uint8Array>> {
  const sequences = Array.from({ length: to - from + 1 }, (_, index) => from + index);
  const found = new Map<number, Uint8Array>();
  await forEachConcurrent(
    sequences,
    REQUEST_CONCURRENCY,
    async (sequence) => {
      const bytes = await options.repository.site.get(logKey(sequence), callOf(options.signal));
      if (bytes === undefined) return;
      options.onRead(bytes.length);
      found.set(sequence, bytes);
    },
    options.signal,
  );
  return found;
}

/** A lost entry that somebody has put back: readers find it by the hash in the entry behind it. */
async function getLogCopy(
  options: LogCheckOptions,
  sequence: number,
  hash: string | undefined,
): Promise<Uint8Array | undefined> {
  if (hash === undefined || sequence === options.state.sequence) return undefined;
  const bytes = await options.repository.site.get(logCopyKey(hash), callOf(options.signal));
  if (bytes === undefined || entryHash(bytes) !== hash) return undefined;
  options.onRead(bytes.length);
  return bytes;
}

/** Without its key object, what was sealed under a session key is lost. */
async function verifyKeys(options: LogCheckOptions): Promise<void> {
  const { state, deep, problems, signal } = options;
  if (!deep) return;
  await forEachConcurrent(
    [...state.keys],
    REQUEST_CONCURRENCY,
    async ([id, { birth, hash }]) => {
      const key = keyKey(id, birth);
      const bytes = await getObject(options, key);
      if (bytes === undefined || sha256Hex(bytes) === hash) return;
      problems.add(key, "damaged", `${key} does not match the hash that the log has of it.`);
    },
    signal,
  );
}

async function verifyCheckpoint(options: LogCheckOptions): Promise<void> {
  const { checkpoint } = options.state;
  if (checkpoint === undefined) return;
  const key = checkpointKey(checkpoint.sequence, checkpoint.hash);
  const bytes = await getObject(options, key);
  if (bytes === undefined) return;
  try {
    decodeCheckpoint(bytes, checkpoint, options.repository.sealer);
  } catch (thrown) {
    options.problems.addThrown(thrown, key);
  }
}

async function verifySegments(options: LogCheckOptions): Promise<void> {
  const { state, signal } = options;
  const checks = mapConcurrent(
    state.segments.values(),
    options.deep ? SEGMENT_CONCURRENCY : REQUEST_CONCURRENCY,
    (segment) => verifySegment(options, segment),
    signal,
  );
  for await (const _ of checks) {
    // What was found is in the book.
  }
}

async function verifySegment(
  options: LogCheckOptions,
  segment: { readonly id: string; readonly birth: number; readonly sizeBytes: number },
): Promise<void> {
  const { repository, deep, problems, signal } = options;
  const key = segmentKey(segment.id, segment.birth);
  if (deep) {
    const bytes = await getObject(options, key);
    if (bytes === undefined) return;
    try {
      for (const _ of decodeSegment(bytes, segment.id, repository.sealer).chunks()) {
        // Each row is checked as it is decoded.
      }
    } catch (thrown) {
      problems.addThrown(thrown, key);
    }
    return;
  }
  const head = await repository.site.head(key, callOf(signal));
  if (head === undefined) problems.add(key, "missing", `${key} is missing.`);
  else if (head.sizeBytes !== segment.sizeBytes) {
    const message = `${key} has ${head.sizeBytes} bytes instead of ${segment.sizeBytes}.`;
    problems.add(key, "damaged", message);
  }
}

/** An object's bytes; what is missing is noted. */
async function getObject(options: LogCheckOptions, key: string): Promise<Uint8Array | undefined> {
  const bytes = await options.repository.site.get(key, callOf(options.signal));
  if (bytes === undefined) options.problems.add(key, "missing", `${key} is missing.`);
  else options.onRead(bytes.length);
  return bytes;
}

function callOf(signal: AbortSignal | undefined): SiteCall {
  return signal === undefined ? {} : { signal };
}
