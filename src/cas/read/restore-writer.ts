/**
 * Files under temporary names, from their first byte until they are durable: written to in any
 * order, given their attributes when they are whole, synced together. Open files:
 * OPEN_FILE_COUNT_MAX.
 */
import assert from "node:assert/strict";
import type { FileStat, FileSystem } from "../../base/doors.ts";
import type { RestoreAttributes } from "./restore-attributes.ts";
import type { PlainFile } from "./restore-job.ts";

const OPEN_FILE_COUNT_MAX = 256;

/** Runs of zeros are found in steps of this size: a hole of less saves nothing on most disks. */
const HOLE_SIZE_BYTES = 4096;
const ZEROS = new Uint8Array(HOLE_SIZE_BYTES);

/** A file under its temporary name. */
export type TemporaryFile = {
  readonly record: PlainFile;
  readonly temporary: string;
  isCreated: boolean;
  /** What it was made with; undefined if somebody else made it. */
  modeAsked: number | undefined;
};

/** Writes files; nothing of it shows before somebody renames them. */
export class FileWriter {
  readonly #files: FileSystem;
  readonly #attributes: RestoreAttributes;
  /** Files that are being written, by use, the latest last. */
  readonly #handles = new Map<TemporaryFile, number>();
  /** Files that are written and wait to be synced together. */
  #written: number[] = [];

  constructor(files: FileSystem, attributes: RestoreAttributes) {
    this.#files = files;
    this.#attributes = attributes;
  }

  /** Makes the file if it is not there. */
  create(file: TemporaryFile): void {
    if (!file.isCreated) this.#open(file);
  }

  write(file: TemporaryFile, bytes: Uint8Array, offset: number): void {
    writeParts(this.#files, this.#open(file), { bytes, offset, isSparse: file.record.sparse });
  }

  /** All bytes are written: nothing changes the file any more but its name. */
  finish(file: TemporaryFile): void {
    const handle = this.#open(file);
    // A hole at the end is written by nobody.
    if (file.record.sparse) this.#files.truncate(handle, file.record.sizeBytes);
    const look = (): FileStat => this.#files.stat(handle);
    this.#attributes.giveFile(file.temporary, file.record, { mode: file.modeAsked, look });
    this.#handles.delete(file);
    this.#written.push(handle);
  }

  /** Leaves a file to somebody else. */
  letGo(file: TemporaryFile): void {
    const handle = this.#handles.get(file);
    if (handle === undefined) return;
    this.#handles.delete(file);
    this.#files.close(handle);
  }

  /** Makes everything durable that is finished. */
  sync(): void {
    const handles = this.#written;
    if (handles.length === 0) return;
    if (this.#files.syncAll === undefined) for (const handle of handles) this.#files.sync(handle);
    else this.#files.syncAll(handles);
    this.#written = [];
    for (const handle of handles) this.#files.close(handle);
  }

  /** Closes what is open, as far as the disk lets us. */
  abandon(): void {
    for (const handle of [...this.#handles.values(), ...this.#written]) {
      ignoreFailure(() => this.#files.close(handle));
    }
    this.#handles.clear();
    this.#written = [];
  }

  #open(file: TemporaryFile): number {
    const open = this.#handles.get(file);
    this.#handles.delete(file);
    const handle = open ?? this.#openOrCreate(file);
    this.#handles.set(file, handle);
    if (this.#handles.size + this.#written.length > OPEN_FILE_COUNT_MAX) this.#closeSome();
    return handle;
  }

  #openOrCreate(file: TemporaryFile): number {
    if (file.isCreated) return this.#files.open(file.temporary, "write");
    file.modeAsked = this.#attributes.modeToCreate(file.temporary, file.record);
    const handle = this.#files.open(file.temporary, "create", file.modeAsked);
    file.isCreated = true;
    return handle;
  }

  /** Files that are done, or the one that was written to longest ago. */
  #closeSome(): void {
    if (this.#written.length > 0) return this.sync();
    const [oldest] = this.#handles;
    assert(oldest !== undefined);
    this.#handles.delete(oldest[0]);
    this.#files.close(oldest[1]);
  }
}

/** Writes bytes at an offset; of a sparse file only what is not a hole. */
export function writeParts(
  files: Pick<FileSystem, "write">,
  handle: number,
  what: { readonly bytes: Uint8Array; readonly offset: number; readonly isSparse: boolean },
): void {
  const { bytes, offset, isSparse } = what;
  if (!isSparse) return files.write(handle, bytes, offset);
  for (const { start, end } of findData(bytes)) {
    files.write(handle, bytes.subarray(start, end), offset + start);
  }
}

/** On the way out of a failure: what matters is thrown already, and the next run mends the rest. */
export function ignoreFailure(attempt: () => void): void {
  try {
    attempt();
  } catch {
    // Said above.
  }
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
