/**
 * What goes into an archive, in order: a folder for each node and volume, then what the listings
 * name and the filter lets through, called `node/volume/path`. Names come from a manifest and could
 * lead anywhere; whatever is handed out here stays below the folder that somebody unpacks into. What a
 * directory holds comes right behind it, as in the order of a listing it does not (`a`, `a-b`, `a/c`):
 * tar sets a directory's mode and time when it meets what lies elsewhere.
 * Memory: what a `Selection` holds (restore-records.ts), for each volume.
 */
import { AppError } from "../../base/error.ts";
import { parentPath, pathFromText } from "../../base/path.ts";
import type { PathFilter } from "./file-filter.ts";
import { compileFilter, everyPath } from "./file-filter.ts";
import type { FileRecord } from "../format/listing.ts";
import { OpenPaths } from "../write/open-paths.ts";
import type { ContentSource } from "./restore-options.ts";
import { Selection } from "./restore-records.ts";
import type { TreeRoot } from "../format/tree.ts";

/** One volume of one node. */
export type ArchiveVolume = {
  readonly node: string;
  readonly volume: string;
  readonly listing: TreeRoot;
};

/** What to put into an archive. */
export type ArchiveSelection = {
  readonly volumes: readonly ArchiveVolume[];
  readonly source: ContentSource;
  /** Globs of paths relative to a volume's root; none means everything. */
  readonly paths?: readonly string[];
  /** When the folders of nodes and volumes were changed, of which nothing is recorded. */
  readonly foldersMtimeNs: bigint;
  readonly signal?: AbortSignal | undefined;
};

/** One thing in an archive. Names are byte strings. */
export type ArchiveEntry = {
  /** `node/volume/path`, without a slash at the end. */
  readonly name: string;
  /** What a symbolic link says, or the name of the entry that a hard link is another name of. */
  readonly target: string | undefined;
  readonly record: FileRecord;
};

/** Turns entries and their contents into the bytes of an archive. */
export type ArchiveWriter = {
  /** Begins an entry, and ends the one before. */
  readonly open: (entry: ArchiveEntry) => void;
  /** A piece of the contents of the file that was opened last. */
  readonly write: (bytes: Uint8Array) => Promise<void> | void;
  /** Ends the archive. */
  readonly finish: () => void;
};

const FOLDER_MODE = 0o755;

/** The entries of a selection; may be walked many times. */
export class ArchiveEntries {
  readonly #foldersMtimeNs: bigint;
  readonly #filter: PathFilter;
  readonly #parts: readonly (ArchiveVolume & { readonly selection: Selection })[];

  private constructor(
    filter: PathFilter,
    foldersMtimeNs: bigint,
    parts: readonly (ArchiveVolume & { readonly selection: Selection })[],
  ) {
    this.#filter = filter;
    this.#foldersMtimeNs = foldersMtimeNs;
    this.#parts = parts;
  }

  static async open(options: ArchiveSelection): Promise<ArchiveEntries> {
    const { source, signal, foldersMtimeNs } = options;
    const filter = compileFilter(options.paths);
    const parts: (ArchiveVolume & { readonly selection: Selection })[] = [];
    for (const volume of options.volumes) {
      mustBeFolderName(volume.node);
      mustBeFolderName(volume.volume);
      const { listing } = volume;
      const selection = await Selection.open({ listing, source, filter, signal });
      parts.push({ ...volume, selection });
    }
    return new ArchiveEntries(filter, foldersMtimeNs, parts);
  }

  /** The entries, some at a time. With a filter, volumes that have nothing of it are left out. */
  async *batches(): AsyncGenerator<readonly ArchiveEntry[], void, undefined> {
    const given = new Set<string>();
    for (const { node, volume, selection } of this.#parts) {
      const folder = pathFromText(`${node}/${volume}`);
      const folders = [pathFromText(node), folder].map((name) => this.#folder(name));
      const missing = (): ArchiveEntry[] => {
        const found = folders.filter(({ name }) => !given.has(name));
        for (const { name } of found) given.add(name);
        return found;
      };
      if (this.#filter === everyPath) yield missing();
      const order = new DirectoryOrder();
      for await (const batch of selection.records()) {
        const entries = missing();
        for (const { record } of batch) order.take(entryOf(folder, record), entries);
        yield entries;
      }
      yield order.end();
    }
  }

  #folder(name: string): ArchiveEntry {
    const attributes = { path: name, mode: FOLDER_MODE, uid: 0, gid: 0, sparse: false };
    const record = { ...attributes, mtimeNs: this.#foldersMtimeNs, xattrs: new Map() };
    return { name, target: undefined, record: { ...record, type: "directory" } };
  }
}

type OpenDirectory = { readonly entry: ArchiveEntry; isGiven: boolean };

/** Holds a directory back until something in it comes, or nothing can any more. */
class DirectoryOrder {
  readonly #open = new OpenPaths<OpenDirectory>();

  take(entry: ArchiveEntry, entries: ArchiveEntry[]): void {
    const { path, type } = entry.record;
    entries.push(...leftOf(this.#open.advance(path)));
    this.#giveParents(path, entries);
    if (type === "directory") this.#open.open(path, { entry, isGiven: false });
    else entries.push(entry);
  }

  end(): ArchiveEntry[] {
    return leftOf(this.#open.end());
  }

  #giveParents(child: string, entries: ArchiveEntry[]): void {
    const missing: ArchiveEntry[] = [];
    for (let path = parentPath(child); path !== ""; path = parentPath(path)) {
      const open = this.#open.get(path);
      if (open === undefined || open.isGiven) break;
      open.isGiven = true;
      missing.push(open.entry);
    }
    entries.push(...missing.toReversed());
  }
}

function leftOf(closed: readonly OpenDirectory[]): ArchiveEntry[] {
  return closed.filter(({ isGiven }) => !isGiven).map(({ entry }) => entry);
}

function entryOf(folder: string, record: FileRecord): ArchiveEntry {
  const name = `${folder}/${record.path}`;
  switch (record.type) {
    case "symlink":
      return { name, target: record.target, record };
    case "hardlink":
      return { name, target: `${folder}/${record.target}`, record };
    default:
      return { name, target: undefined, record };
  }
}

function mustBeFolderName(name: string): void {
  if (!/^\.{0,2}$|[/\0]/.test(name)) return;
  throw new AppError("refused", `The backup has a node or volume called ${name}.`, {
    guidance: "It was not made by this program; look into it with `astacus show`.",
  });
}
