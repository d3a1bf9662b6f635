/**
 * The commit logs of a capture: hard links, and how much of each belongs to the backup. M3 appends
 * chunks with checksums; what counts ends with the last whole chunk. Sizes are noted from the newest
 * log to the oldest, so what is captured is everything up to some instant and nothing written after
 * a hole.
 */
import type { FileStat, FileSystem } from "../../base/doors.ts";
import { toAppError } from "../../base/error.ts";
import { joinPath } from "../../base/path.ts";
import { CaptureListWriter } from "./capture-list.ts";
import { captureListPath } from "./capture-options.ts";
import type { CaptureOptions, CutMemory } from "./capture-options.ts";
import { findCommitLogCut } from "./commit-log.ts";
import { parseCommitLogName } from "./fileset-names.ts";

/** One commit log of a capture. */
export type CapturedLog = {
  readonly index: number;
  readonly name: string;
  /** How much of it is in the backup: up to the end of its last whole chunk, or all if damaged. */
  readonly sizeBytes: number;
  /** What follows: nothing, a chunk that M3 was writing, or bytes that are no chunk. */
  readonly tail: "whole" | "torn" | "damaged";
};

type Linked = { readonly name: string; readonly index: number };

const LOG_COUNT_REMEMBERED_MAX = 10_000;

/** Up to where each log was found whole, so that only what was appended is looked at again. */
export class LogCuts implements CutMemory {
  readonly #cuts = new Map<string, number>();

  get(stat: FileStat): number {
    const cut = this.#cuts.get(keyOf(stat)) ?? 0;
    return cut <= stat.sizeBytes ? cut : 0;
  }

  set(stat: FileStat, cutBytes: number): void {
    this.#cuts.delete(keyOf(stat));
    this.#cuts.set(keyOf(stat), cutBytes);
    for (const key of this.#cuts.keys()) {
      if (this.#cuts.size <= LOG_COUNT_REMEMBERED_MAX) break;
      this.#cuts.delete(key);
    }
  }
}

function keyOf({ device, inode, birthtimeNs }: FileStat): string {
  return `${device}:${inode}:${birthtimeNs}`;
}

/** The logs of one try. */
export class LogCapture {
  readonly #options: CaptureOptions;
  readonly #folder: string;
  readonly #links: string;
  readonly #linked = new Map<number, Linked>();

  constructor(options: CaptureOptions) {
    this.#options = options;
    this.#folder = joinPath(options.root, "commitlogs");
    this.#links = joinPath(options.scratch, "commitlogs");
    removeLinks(options.files, this.#links);
  }

  /** Lists the logs and links those from an index on that are not linked yet. */
  linkFrom(indexMin: number): void {
    const { files } = this.#options;
    for (const name of files.readDirectory(this.#folder).toSorted()) {
      const index = parseCommitLogName(name)?.index;
      if (index === undefined || index < indexMin || this.#linked.has(index)) continue;
      try {
        files.link(joinPath(this.#folder, name), joinPath(this.#links, name));
      } catch (thrown) {
        // A newer snapshot has made it superfluous; whether it did is asked when all is linked.
        if (toAppError(thrown).kind === "not-found") continue;
        throw thrown;
      }
      this.#linked.set(index, { name, index });
    }
  }

  /** Notes sizes and cuts, drops what is not needed, and writes the list. */
  finish(indexMin: number): {
    readonly logs: readonly CapturedLog[];
    readonly droppedLogs: readonly string[];
    readonly logGaps: readonly number[];
  } {
    const newestFirst = [...this.#linked.values()].toSorted((a, b) => b.index - a.index);
    const captured: { log: CapturedLog; stat: FileStat }[] = [];
    const droppedLogs: string[] = [];
    for (const linked of newestFirst) {
      const one = linked.index < indexMin ? undefined : this.#note(linked);
      if (one !== undefined && one.log.sizeBytes > 0) {
        captured.push(one);
        continue;
      }
      if (one !== undefined) droppedLogs.push(linked.name);
      this.#options.files.unlink(joinPath(this.#links, linked.name));
    }
    this.#writeList(captured);
    const indexes = newestFirst.map(({ index }) => index).filter((index) => index >= indexMin);
    return {
      logs: captured.map(({ log }) => log).toReversed(),
      droppedLogs: droppedLogs.toReversed(),
      logGaps: gapsOf(indexes.toReversed(), indexMin),
    };
  }

  #note({ name, index }: Linked): { log: CapturedLog; stat: FileStat } | undefined {
    const { files, cuts } = this.#options;
    const path = joinPath(this.#links, name);
    const stat = files.lstat(path);
    if (stat === undefined) return undefined;
    const { cutBytes, tail } = findCommitLogCut(files, path, stat.sizeBytes, cuts.get(stat));
    cuts.set(stat, cutBytes);
    // What lies behind damage may still be of use to somebody: it is kept, and named as damaged.
    const sizeBytes = tail === "damaged" ? stat.sizeBytes : cutBytes;
    return { log: { index, name, sizeBytes, tail }, stat };
  }

  #writeList(captured: readonly { readonly log: CapturedLog; readonly stat: FileStat }[]): void {
    const { files, scratch } = this.#options;
    using list = new CaptureListWriter(files, captureListPath(scratch, "commitlogs"));
    const byName = captured.toSorted((a, b) => (a.log.name < b.log.name ? -1 : 1));
    for (const { log, stat } of byName) {
      list.add({
        path: log.name,
        // The second name is ours.
        stat: { ...stat, linkCount: 1 },
        isLinked: true,
        sizeBytesCaptured: log.sizeBytes,
      });
    }
  }
}

function removeLinks(files: FileSystem, folder: string): void {
  if (files.lstat(folder) === undefined) files.makeDirectory(folder, 0o700);
  for (const name of files.readDirectory(folder)) files.unlink(joinPath(folder, name));
}

/** Indexes that are missing between the first that counts and the newest, at most 100 of them. */
function gapsOf(indexes: readonly number[], indexMin: number): number[] {
  const gaps: number[] = [];
  let expected = indexMin === 0 ? (indexes[0] ?? 0) : indexMin;
  for (const index of indexes) {
    for (; expected < index && gaps.length < 100; expected += 1) gaps.push(expected);
    expected = index + 1;
  }
  return gaps;
}
