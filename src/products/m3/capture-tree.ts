/**
 * One of M3's trees of filesets, held still: `data`, `index` or `snapshots`. Each directory is listed
 * and linked at once. A fileset counts when its checkpoint is there, which M3 writes last; others are
 * being written, or deleted, and are left out and counted. A fileset that vanishes while it is linked
 * was replaced by a complete newer volume or has expired: the directory is listed again.
 */
import type { FileStat } from "../../base/doors.ts";
import { AppError, toAppError } from "../../base/error.ts";
import { removeFolder } from "../../base/folders.ts";
import { joinPath, textFromPath } from "../../base/path.ts";
import { CaptureListWriter } from "./capture-list.ts";
import { captureListPath } from "./capture-options.ts";
import type { CaptureOptions, M3Volume } from "./capture-options.ts";
import {
  CHECKPOINT_SIZE_BYTES,
  DATA_PARTS,
  parseFilesetName,
  parseSnapshotMetadataName,
  SEAL_PARTS,
} from "./fileset-names.ts";
import type { FilesetName } from "./fileset-names.ts";
import type { SnapshotMetadata } from "./snapshot-metadata.ts";

/** What a tree held. */
export type TreeCounts = {
  /** Filesets that were taken. */
  readonly filesets: number;
  /** Filesets without a checkpoint, left out on purpose. */
  readonly incompleteFilesets: number;
  readonly files: number;
  /** Of these, files that are linked because they must be read. */
  readonly linkedFiles: number;
  /** Files whose names this version does not know; they are taken as they are. */
  readonly otherFiles: number;
};

/** A tree that was captured. */
export type CapturedTree = {
  readonly counts: TreeCounts;
  /** Shards that have a folder, by namespace; only of trees that have shards. */
  readonly shards: { readonly [namespace: string]: readonly number[] };
};

const DIRECTORY_TRIES_MAX = 100;
/** Then a fileset that lacks parts is not being deleted: it is taken as it is, and named as damaged. */
const HALF_TRIES_MAX = 20;
const DATA_PART_COUNT = DATA_PARTS.length + SEAL_PARTS.length;
const INDEX_PART_COUNT = 1 + SEAL_PARTS.length;
const PAUSE_FILE_COUNT = 2000;

/**
 * Captures the tree below a folder of M3's root, and writes its list.
 * @param snapshot - For `snapshots`: the one that was chosen; metadata of others is left out.
 */
export async function captureTree(
  options: CaptureOptions,
  volume: M3Volume,
  snapshot?: SnapshotMetadata,
): Promise<CapturedTree> {
  const { files, scratch, pause } = options;
  await removeFolder(files, joinPath(scratch, volume), pause);
  using list = new CaptureListWriter(files, captureListPath(scratch, volume));
  const capture = new TreeCapture(options, { volume, snapshot, list });
  await capture.run();
  return { counts: capture.counts, shards: capture.shards };
}

/** A name of a directory, to be captured or entered in the order of whole paths. */
type Step = { readonly key: string; readonly run: () => void | Promise<void> };

class TreeCapture {
  readonly #options: CaptureOptions;
  readonly #volume: M3Volume;
  readonly #snapshot: SnapshotMetadata | undefined;
  readonly #list: CaptureListWriter;
  readonly counts = {
    filesets: 0,
    incompleteFilesets: 0,
    files: 0,
    linkedFiles: 0,
    otherFiles: 0,
  };
  readonly shards: { [namespace: string]: number[] } = {};
  #sincePause = 0;

  constructor(
    options: CaptureOptions,
    of: {
      readonly volume: M3Volume;
      readonly snapshot: SnapshotMetadata | undefined;
      readonly list: CaptureListWriter;
    },
  ) {
    this.#options = options;
    this.#volume = of.volume;
    this.#snapshot = of.snapshot;
    this.#list = of.list;
  }

  async run(): Promise<void> {
    const { files, root, scratch } = this.#options;
    files.makeDirectory(joinPath(scratch, this.#volume), 0o700);
    if (files.lstat(joinPath(root, this.#volume)) === undefined) return;
    await this.#enter("");
  }

  /** Files and folders of one directory, in the order of the bytes of whole paths. */
  async #enter(directory: string): Promise<void> {
    this.#options.signal.throwIfAborted();
    const { entries, folders } = this.#linkDirectory(directory);
    this.#noteShard(directory);
    const steps: Step[] = [
      ...entries.map((entry) => ({ key: entry.path, run: () => this.#list.add(entry) })),
      // A folder's own entry, then whatever sorts between `a` and `a/`, then what it holds.
      ...folders.map((path) => ({ key: `${path}/`, run: () => this.#enter(path) })),
    ];
    for (const { run } of steps.toSorted((a, b) => (a.key < b.key ? -1 : 1))) await run();
    if (this.#sincePause < PAUSE_FILE_COUNT) return;
    this.#sincePause = 0;
    await this.#options.pause();
  }

  #linkDirectory(directory: string): DirectoryContent {
    for (let tries = 1; tries <= DIRECTORY_TRIES_MAX; tries += 1) {
      try {
        return this.#linkOnce(directory, { takesHalves: tries > HALF_TRIES_MAX });
      } catch (thrown) {
        if (!(thrown instanceof Vanished)) throw thrown;
        unlinkFiles(this.#options, this.#linkFolder(directory));
      }
    }
    const path = textFromPath(joinPath(this.#volume, directory));
    throw new AppError("incomplete", `Files in ${path} vanish faster than they can be listed.`, {
      guidance: "Run the backup again; if it happens always, see what else deletes files there.",
      retryable: true,
    });
  }

  #linkOnce(
    directory: string,
    { takesHalves }: { readonly takesHalves: boolean },
  ): DirectoryContent {
    const { files, root } = this.#options;
    const folder = joinPath(joinPath(root, this.#volume), directory);
    const names = namesOf(this.#options, folder);
    const { wanted, counts, hasHalves } = this.#choose(directory, folder, names);
    if (hasHalves && !takesHalves) throw new Vanished();
    const links = this.#linkFolder(directory);
    if (files.lstat(links) === undefined) files.makeDirectory(links, 0o700);
    const content: DirectoryContent = { entries: [], folders: [] };
    let linkedFiles = 0;
    let fileCount = 0;
    for (const name of wanted) {
      const path = joinPath(directory, name);
      const source = joinPath(folder, name);
      const found = files.lstat(source);
      if (found === undefined) throw new Vanished();
      // A second name of a file is a capture's: M3 makes none.
      const stat: FileStat = found.type === "file" ? { ...found, linkCount: 1 } : found;
      if (stat.type === "directory") {
        content.folders.push(path);
        content.entries.push({ path, stat, isLinked: false });
        continue;
      }
      const isStored = this.#options.isStored?.(this.#volume, path, stat) ?? false;
      const isLinked = stat.type === "file" && !isStored;
      if (isLinked) this.#link(source, joinPath(links, name));
      content.entries.push({ path, stat, isLinked });
      fileCount += 1;
      if (isLinked) linkedFiles += 1;
    }
    this.counts.filesets += counts.filesets;
    this.counts.incompleteFilesets += counts.incompleteFilesets;
    this.counts.otherFiles += counts.otherFiles;
    this.counts.files += fileCount;
    this.counts.linkedFiles += linkedFiles;
    this.#sincePause += fileCount;
    return content;
  }

  #link(source: string, link: string): void {
    try {
      this.#options.files.link(source, link);
    } catch (thrown) {
      if (toAppError(thrown).kind === "not-found") throw new Vanished();
      throw thrown;
    }
  }

  #linkFolder(directory: string): string {
    return joinPath(joinPath(this.#options.scratch, this.#volume), directory);
  }

  /** What of a directory is taken: folders, complete filesets, the chosen snapshot's metadata. */
  #choose(directory: string, folder: string, names: readonly string[]): Choice {
    const all = new Set<string>();
    const complete = new Set<string>();
    const partCounts = new Map<string, number>();
    for (const name of names) {
      const parsed = parseFilesetName(name);
      if (parsed === undefined) continue;
      const key = filesetKey(parsed);
      all.add(key);
      if (parsed.part !== "segment") partCounts.set(key, (partCounts.get(key) ?? 0) + 1);
      if (parsed.part === "checkpoint" && this.#isCheckpoint(joinPath(folder, name))) {
        complete.add(key);
      }
    }
    let otherFiles = 0;
    const wanted = names.filter((name) => {
      const fileset = parseFilesetName(name);
      if (fileset !== undefined) return complete.has(filesetKey(fileset));
      const metadata = parseSnapshotMetadataName(name);
      if (metadata !== undefined) return directory === "" && metadata.uuid === this.#snapshot?.uuid;
      if (name.endsWith(".db")) otherFiles += 1;
      return true;
    });
    const incompleteFilesets = all.size - complete.size;
    // M3 deletes in the order of names: a part goes before the checkpoint does.
    const partCount = this.#volume === "index" ? INDEX_PART_COUNT : DATA_PART_COUNT;
    const hasHalves = [...complete].some((key) => (partCounts.get(key) ?? 0) < partCount);
    return {
      wanted,
      hasHalves,
      counts: { filesets: complete.size, incompleteFilesets, otherFiles },
    };
  }

  /** M3 creates the file and then writes it: an emptier one speaks for nothing yet. */
  #isCheckpoint(path: string): boolean {
    const stat = this.#options.files.lstat(path);
    if (stat === undefined) throw new Vanished();
    return stat.sizeBytes === CHECKPOINT_SIZE_BYTES;
  }

  /** `default/17` is shard 17 of namespace `default`. */
  #noteShard(directory: string): void {
    const slash = directory.indexOf("/");
    if (this.#volume !== "data" || slash < 0) return;
    const shard = Number(directory.slice(slash + 1));
    if (!Number.isSafeInteger(shard)) return;
    (this.shards[textFromPath(directory.slice(0, slash))] ??= []).push(shard);
  }
}

type DirectoryContent = {
  readonly entries: Parameters<CaptureListWriter["add"]>[0][];
  readonly folders: string[];
};

type Choice = {
  readonly wanted: readonly string[];
  /** A fileset has its checkpoint and lacks another part. */
  readonly hasHalves: boolean;
  readonly counts: Pick<TreeCounts, "filesets" | "incompleteFilesets" | "otherFiles">;
};

function filesetKey({ blockStartNs, volume, isLegacy }: FilesetName): string {
  return `${blockStartNs}-${isLegacy ? "legacy" : volume}`;
}

/** A listed file was gone when it was asked for. */
class Vanished extends Error {}

/** Ascending; none where the folder has gone meanwhile. */
function namesOf({ files }: CaptureOptions, folder: string): string[] {
  try {
    return files.readDirectory(folder).toSorted();
  } catch (thrown) {
    if (toAppError(thrown).kind === "not-found") return [];
    throw thrown;
  }
}

function unlinkFiles({ files }: CaptureOptions, folder: string): void {
  if (files.lstat(folder) === undefined) return;
  for (const name of files.readDirectory(folder)) {
    const path = joinPath(folder, name);
    if (files.lstat(path)?.type !== "directory") files.unlink(path);
  }
}
