/**
 * Files on their way into place. Each is written under a temporary name beside its place, chunk by
 * chunk as verified bytes arrive in the order of packs, then gets its attributes, is synced and
 * renamed; the directories are synced once for the whole window. So a path holds either what was
 * there before or the whole file, whatever happens. Memory: the chunk ids of one window
 * (WINDOW_CHUNK_COUNT_MAX); contents pass through. Open files: OPEN_FILE_COUNT_MAX.
 */
import assert from "node:assert/strict";
import type { FileStat, FileSystem, Random } from "../../base/doors.ts";
import { joinPath, parentPath } from "../../base/path.ts";
import { idKey } from "../format/bytes.ts";
import type { ChunkRef, FileRecord } from "../format/listing.ts";
import type { RestoreAttributes } from "./restore-attributes.ts";
import { readChunkRefs } from "./restore-content.ts";
import { drawTemporaryName } from "./restore-extra.ts";
import type { RestoreSource } from "./restore-options.ts";
import type { RegularFile } from "./restore-records.ts";

/** What one window holds at most; a larger file passes through several of its own. */
export const WINDOW_SIZE_BYTES = 64 * 1024 * 1024;
const WINDOW_FILE_COUNT_MAX = 4096;
const WINDOW_CHUNK_COUNT_MAX = 65_536;
const OPEN_FILE_COUNT_MAX = 256;

/** Runs of zeros are found in steps of this size: a hole of less saves nothing on most disks. */
const HOLE_SIZE_BYTES = 4096;
const ZEROS = new Uint8Array(HOLE_SIZE_BYTES);

/** What a window works with. */
export type WindowOptions = {
  readonly files: FileSystem;
  readonly source: RestoreSource;
  readonly random: Random;
  readonly attributes: RestoreAttributes;
  /** Told of each file that is in place and durable. */
  readonly onPlaced: (record: FileRecord, path: string) => void;
  readonly signal?: AbortSignal | undefined;
};

/** A file under its temporary name. */
type OpenFile = {
  readonly record: RegularFile;
  readonly path: string;
  readonly temporary: string;
  isCreated: boolean;
  /** Bytes that have not come yet. */
  missingBytes: number;
};

type Link = { readonly record: FileRecord; readonly path: string; readonly existing: string };

/** One chunk and all places that want it. */
type Wanted = { readonly ref: ChunkRef; readonly places: { file: OpenFile; offset: number }[] };

/**
 * Gathers files and puts them in place together.
 *
 * @example
 * window.add(record, path);
 * if (window.isFull) await window.flush();
 */
export class RestoreWindow {
  fetchedBytes = 0;
  readonly #options: WindowOptions;
  #files: OpenFile[] = [];
  #links: Link[] = [];
  #wanted = new Map<string, Wanted>();
  #sizeBytes = 0;
  #placeCount = 0;
  /** Directories in which names changed. */
  readonly #changed = new Set<string>();
  /** Files that are being written, by use, the latest last. */
  readonly #handles = new Map<OpenFile, number>();
  /** Files that are written and wait to be synced together. */
  #written: number[] = [];
  #isAbandoned = false;

  constructor(options: WindowOptions) {
    this.#options = options;
  }

  get isFull(): boolean {
    return (
      this.#sizeBytes >= WINDOW_SIZE_BYTES ||
      this.#files.length + this.#links.length >= WINDOW_FILE_COUNT_MAX ||
      this.#changed.size >= WINDOW_FILE_COUNT_MAX ||
      this.#placeCount >= WINDOW_CHUNK_COUNT_MAX
    );
  }

  /** True for a file that must pass through windows of its own. */
  isLarge(record: RegularFile): boolean {
    return record.content.form === "tree" || record.sizeBytes > WINDOW_SIZE_BYTES;
  }

  /** Takes a file that is not large; its place is an absolute path. */
  async add(record: RegularFile, path: string): Promise<void> {
    assert(!this.isLarge(record));
    const file = this.#begin(record, path);
    let offset = 0;
    for await (const refs of readChunkRefs(record, this.#options)) {
      for (const ref of refs) {
        this.#want(file, ref, offset);
        offset += ref.length;
      }
    }
  }

  /** Puts a large file in place, after everything that was added. */
  async placeLarge(record: RegularFile, path: string): Promise<void> {
    await this.flush();
    const file = this.#begin(record, path);
    let offset = 0;
    for await (const refs of readChunkRefs(record, this.#options)) {
      for (const ref of refs) {
        this.#want(file, ref, offset);
        offset += ref.length;
        if (this.isFull) await this.#fetchWanted();
      }
    }
    await this.flush();
  }

  /** Takes a hard link to a file that was placed or added before. */
  addLink(record: FileRecord, path: string, existing: string): void {
    this.#links.push({ record, path, existing });
  }

  /** Puts a symbolic link in place at once. */
  placeSymlink(record: FileRecord & { readonly type: "symlink" }, path: string): void {
    const { files, attributes } = this.#options;
    const temporary = this.#temporaryFor(path);
    files.symlink(record.target, temporary);
    this.#orRemove(temporary, () => {
      attributes.give(temporary, record);
      files.rename(temporary, path);
    });
    this.noteChanged(parentPath(path));
  }

  /** Says that names changed in a directory, which the next flush makes durable. */
  noteChanged(directory: string): void {
    this.#changed.add(directory);
  }

  /** Says that a directory is gone, changes and all. */
  noteRemoved(directory: string): void {
    this.#changed.delete(directory);
  }

  /** Fetches, writes and renames everything that was added. */
  async flush(): Promise<void> {
    await this.#fetchWanted();
    const { files, onPlaced } = this.#options;
    const placed = this.#files;
    for (const file of placed) {
      assert.equal(file.missingBytes, 0);
      if (!file.isCreated) this.#finish(file);
    }
    this.#syncWritten();
    for (const file of placed) {
      files.rename(file.temporary, file.path);
      file.isCreated = false;
      this.noteChanged(parentPath(file.path));
    }
    const links = this.#links;
    this.#files = [];
    this.#links = [];
    for (const link of links) this.#placeLink(link);
    this.syncChanged();
    for (const { record, path } of [...placed, ...links]) onPlaced(record, path);
  }

  /** Makes all changes of names durable. */
  syncChanged(): void {
    for (const directory of this.#changed) this.#options.files.syncDirectory(directory);
    this.#changed.clear();
  }

  /** Gives up: closes what is open and removes what has no name yet, as far as the disk lets us. */
  abandon(): void {
    this.#isAbandoned = true;
    for (const handle of [...this.#handles.values(), ...this.#written]) {
      ignoreFailure(() => this.#options.files.close(handle));
    }
    this.#handles.clear();
    this.#written = [];
    for (const { isCreated, temporary } of this.#files) {
      if (isCreated) ignoreFailure(() => this.#options.files.unlink(temporary));
    }
    this.#files = [];
  }

  #begin(record: RegularFile, path: string): OpenFile {
    const file: OpenFile = {
      record,
      path,
      temporary: this.#temporaryFor(path),
      isCreated: false,
      missingBytes: record.sizeBytes,
    };
    this.#files.push(file);
    return file;
  }

  #want(file: OpenFile, ref: ChunkRef, offset: number): void {
    const key = idKey(ref.id);
    const wanted = this.#wanted.get(key) ?? { ref, places: [] };
    wanted.places.push({ file, offset });
    this.#wanted.set(key, wanted);
    this.#sizeBytes += ref.length;
    this.#placeCount += 1;
  }

  async #fetchWanted(): Promise<void> {
    const { source, signal } = this.#options;
    const wanted = [...this.#wanted.values()];
    this.#wanted = new Map();
    this.#sizeBytes = 0;
    this.#placeCount = 0;
    if (wanted.length === 0) return;
    const refs = wanted.map(({ ref }) => ref);
    await source.fetchMany(refs, (index, bytes) => this.#onChunk(wanted[index], bytes), signal);
  }

  #onChunk(wanted: Wanted | undefined, bytes: Uint8Array): void {
    assert(wanted !== undefined);
    if (this.#isAbandoned) return;
    assert.equal(bytes.length, wanted.ref.length);
    this.fetchedBytes += bytes.length;
    for (const { file, offset } of wanted.places) {
      this.#write(file, bytes, offset);
      file.missingBytes -= bytes.length;
      if (file.missingBytes === 0) this.#finish(file);
    }
  }

  #write(file: OpenFile, bytes: Uint8Array, offset: number): void {
    const { files } = this.#options;
    const handle = this.#open(file);
    if (!file.record.sparse) return files.write(handle, bytes, offset);
    for (const { start, end } of findData(bytes)) {
      files.write(handle, bytes.subarray(start, end), offset + start);
    }
  }

  /** All bytes are written: nothing changes the file any more but its name. */
  #finish(file: OpenFile): void {
    const { files, attributes } = this.#options;
    const handle = this.#open(file);
    // A hole at the end is written by nobody.
    if (file.record.sparse) files.truncate(handle, file.record.sizeBytes);
    attributes.give(file.temporary, file.record, files.stat(handle));
    this.#handles.delete(file);
    this.#written.push(handle);
  }

  #syncWritten(): void {
    const { files } = this.#options;
    const handles = this.#written;
    if (handles.length === 0) return;
    if (files.syncAll === undefined) for (const handle of handles) files.sync(handle);
    else files.syncAll(handles);
    this.#written = [];
    for (const handle of handles) files.close(handle);
  }

  #open(file: OpenFile): number {
    const { files } = this.#options;
    const open = this.#handles.get(file);
    this.#handles.delete(file);
    const handle = open ?? files.open(file.temporary, file.isCreated ? "write" : "create");
    file.isCreated = true;
    this.#handles.set(file, handle);
    if (this.#handles.size + this.#written.length > OPEN_FILE_COUNT_MAX) this.#closeSome();
    return handle;
  }

  /** Files that are done, or the one that was written to longest ago. */
  #closeSome(): void {
    if (this.#written.length > 0) return this.#syncWritten();
    const [oldest] = this.#handles;
    assert(oldest !== undefined);
    this.#handles.delete(oldest[0]);
    this.#options.files.close(oldest[1]);
  }

  #placeLink({ path, existing }: Link): void {
    const { files } = this.#options;
    const target = files.lstat(existing);
    const present = files.lstat(path);
    // Renaming one name of a file over another does nothing, and would leave the temporary.
    if (target !== undefined && present !== undefined && isSameFile(target, present)) return;
    const temporary = this.#temporaryFor(path);
    files.link(existing, temporary);
    this.#orRemove(temporary, () => files.rename(temporary, path));
    this.noteChanged(parentPath(path));
  }

  #orRemove(temporary: string, attempt: () => void): void {
    try {
      attempt();
    } catch (thrown) {
      ignoreFailure(() => this.#options.files.unlink(temporary));
      throw thrown;
    }
  }

  #temporaryFor(path: string): string {
    return joinPath(parentPath(path), drawTemporaryName(this.#options.random));
  }
}

function isSameFile(one: FileStat, other: FileStat): boolean {
  return one.inode === other.inode && one.device === other.device;
}

/** The parts of a chunk that are not runs of zeros. */
function findData(bytes: Uint8Array): { readonly start: number; readonly end: number }[] {
  const parts: { readonly start: number; readonly end: number }[] = [];
  let start: number | undefined;
  for (let offset = 0; offset < bytes.length; offset += HOLE_SIZE_BYTES) {
    const block = bytes.subarray(offset, offset + HOLE_SIZE_BYTES);
    const isZero = Buffer.compare(block, ZEROS.subarray(0, block.length)) === 0;
    if (!isZero) start ??= offset;
    else if (start !== undefined) {
      parts.push({ start, end: offset });
      start = undefined;
    }
  }
  if (start !== undefined) parts.push({ start, end: bytes.length });
  return parts;
}

/** On the way out of a failure: what matters is thrown already. */
function ignoreFailure(attempt: () => void): void {
  try {
    attempt();
  } catch {
    // The next run removes what is left.
  }
}
