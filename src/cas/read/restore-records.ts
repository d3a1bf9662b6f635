/**
 * The records of a listing that a restore acts on. Every directory on the way to a path comes before
 * it, whether it was asked for, was left out by the filter or is missing in the listing; a file
 * below something that is no directory is damage. So whoever creates what comes here, in order,
 * never walks through a link. Memory: one node of each level of the tree, and with a filter the
 * records of files that were left out while a hard link to them was not.
 */
import { AppError } from "../../base/error.ts";
import { parentPath, textFromPath } from "../../base/path.ts";
import { damagedError } from "../format/bytes.ts";
import type { PathFilter } from "./file-filter.ts";
import { everyPath } from "./file-filter.ts";
import type { FileRecord } from "../format/listing.ts";
import { decodeRecord, pathOfRecord } from "../format/listing.ts";
import { OpenPaths } from "../write/open-paths.ts";
import type { ChunkSource } from "./chunk-source.ts";
import type { TreeRoot } from "../format/tree.ts";
import { readTree } from "../format/tree.ts";

/** A regular file of a listing. */
export type RegularFile = Extract<FileRecord, { readonly type: "file" }>;

/** One record to act on; `isImplied` if it is a directory that nobody asked for. */
export type SelectedRecord = { readonly record: FileRecord; readonly isImplied: boolean };

/** What is open: what was recorded of a path, and whether it was handed out. */
type OpenRecord = { readonly record: FileRecord; isGiven: boolean };

/** Hard links whose first path is left out, at most. */
const HELD_COUNT_MAX = 100_000;

const IMPLIED_MODE = 0o755;

/** Where to read a listing from, and what of it. */
export type SelectionOptions = {
  readonly listing: TreeRoot;
  readonly source: Pick<ChunkSource, "fetch">;
  readonly filter: PathFilter;
  readonly signal?: AbortSignal | undefined;
};

/**
 * The records that a filter lets through; may be walked many times.
 *
 * @example
 * const selection = await Selection.open({ listing, source, filter, signal });
 * for await (const batch of selection.records()) …
 */
export class Selection {
  readonly #options: SelectionOptions;
  /** First paths of hard links that are needed though the filter leaves them out. */
  readonly #linked: ReadonlySet<string>;

  private constructor(options: SelectionOptions, linked: ReadonlySet<string>) {
    this.#options = options;
    this.#linked = linked;
  }

  static async open(options: SelectionOptions): Promise<Selection> {
    return new Selection(options, await findLeftOutTargets(options));
  }

  /** The records, in the order of their paths but for implied directories. */
  async *records(): AsyncGenerator<readonly SelectedRecord[], void, undefined> {
    const walk = new SelectionWalk(this.#options.filter, this.#linked);
    for await (const records of readListing(this.#options)) {
      const batch: SelectedRecord[] = [];
      for (const record of records) walk.take(record, batch);
      if (batch.length > 0) yield batch;
    }
  }
}

/** All records of a listing, whose paths ascend. */
export async function* readListing(
  options: Pick<SelectionOptions, "listing" | "source" | "signal">,
): AsyncGenerator<FileRecord[], void, undefined> {
  const { listing, source, signal } = options;
  const fetch = (id: Uint8Array, length: number): Promise<Uint8Array> =>
    source.fetch(id, length, signal);
  for await (const leaf of readTree(listing, fetch, { keyOf: pathOfRecord, signal })) {
    yield leaf.map(decodeRecord);
  }
}

/** The state of one walk. */
class SelectionWalk {
  readonly #filter: PathFilter;
  readonly #linked: ReadonlySet<string>;
  readonly #open = new OpenPaths<OpenRecord>();
  /** Files of `#linked` whose first link has not come yet. */
  readonly #held = new Map<string, RegularFile>();
  /** By the first path of the set: the path that stands for it. */
  readonly #aliases = new Map<string, string>();

  constructor(filter: PathFilter, linked: ReadonlySet<string>) {
    this.#filter = filter;
    this.#linked = linked;
  }

  take(record: FileRecord, batch: SelectedRecord[]): void {
    const { path } = record;
    this.#open.advance(path);
    const isGiven = this.#filter(path);
    if (isGiven) {
      this.#giveParents(record, batch);
      batch.push({ record: this.#resolve(record), isImplied: false });
    } else if (record.type === "file" && this.#linked.has(path)) {
      this.#held.set(path, record);
    }
    this.#open.open(path, { record, isGiven });
  }

  #giveParents(child: FileRecord, batch: SelectedRecord[]): void {
    const missing: SelectedRecord[] = [];
    for (let path = parentPath(child.path); path !== ""; path = parentPath(path)) {
      const open = this.#open.get(path);
      if (open?.isGiven === true && open.record.type === "directory") break;
      if (open !== undefined && open.record.type !== "directory") {
        throw damagedListing(`has ${textFromPath(child.path)} below what is no directory`);
      }
      const record = open?.record ?? impliedDirectory(path, child);
      missing.push({ record, isImplied: true });
      if (open === undefined) this.#open.open(path, { record, isGiven: true });
      else open.isGiven = true;
    }
    batch.push(...missing.toReversed());
  }

  /** A hard link, if its first path was left out, as the file itself or as a link to who stands for it. */
  #resolve(record: FileRecord): FileRecord {
    if (record.type !== "hardlink" || this.#filter(record.target)) return record;
    const alias = this.#aliases.get(record.target);
    if (alias !== undefined) return { ...record, target: alias };
    const file = this.#held.get(record.target);
    if (file === undefined) {
      const message = `has a hard link ${textFromPath(record.path)} to what is no file`;
      throw damagedListing(message);
    }
    this.#held.delete(record.target);
    this.#aliases.set(record.target, record.path);
    return { ...file, path: record.path };
  }
}

/** A directory that the walk of the backup did not record. */
function impliedDirectory(path: string, child: FileRecord): FileRecord {
  const { uid, gid, mtimeNs } = child;
  const attributes = { path, mode: IMPLIED_MODE, uid, gid, mtimeNs };
  return { ...attributes, sparse: false, xattrs: new Map(), type: "directory" };
}

async function findLeftOutTargets(options: SelectionOptions): Promise<ReadonlySet<string>> {
  const { filter } = options;
  const targets = new Set<string>();
  if (filter === everyPath) return targets;
  for await (const records of readListing(options)) {
    for (const record of records) {
      if (record.type !== "hardlink" || !filter(record.path) || filter(record.target)) continue;
      targets.add(record.target);
      if (targets.size <= HELD_COUNT_MAX) continue;
      throw new AppError(
        "refused",
        "Too many files that were asked for are hard links to others.",
        {
          guidance: "Ask for the directories that hold the first links as well.",
          context: { limit: HELD_COUNT_MAX },
        },
      );
    }
  }
  return targets;
}

function damagedListing(fault: string): AppError {
  return damagedError("The file listing", fault);
}
