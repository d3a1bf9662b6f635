/**
 * Plain ZIP as a stream, for whoever has nothing but a file manager. fflate lays out the archive;
 * contents are deflated chunk by chunk with zlib beside the event loop, eight times as fast as in
 * JavaScript. Every entry is deflated, because readers of streams refuse stored ones whose length
 * comes behind them. Modes, times and owners are kept, symbolic links are entries with their target,
 * hard links are copies. Memory: one chunk, and what fflate keeps of each entry for the directory at the
 * end: about 2 KiB, 120 MiB for ZIP_ENTRY_COUNT_MAX of them.
 */
import { promisify } from "node:util";
import { constants, crc32, deflateRaw } from "node:zlib";
import type { AsyncFlateStreamHandler, ZipInputFile } from "fflate";
import { Zip } from "fflate";
import { textFromPath } from "../../base/path.ts";
import type { ArchiveEntry, ArchiveWriter } from "./archive-entry.ts";
import { bytesFromLatin1 } from "../format/bytes.ts";
import { looksCompressible } from "../format/compression.ts";
import type { FileRecord } from "../format/listing.ts";

const deflate = promisify<Uint8Array, object, Uint8Array>(deflateRaw);

const LEVEL = 6;
const COMPRESSION_DEFLATE = 8;
const OS_UNIX = 3;
const DOS_DIRECTORY = 0x10;
const STORED_BLOCK_BYTES_MAX = 65_535;
/** Ends every entry: a last block with nothing in it. */
const LAST_BLOCK = Uint8Array.of(0x03, 0x00);

/** File types in the upper half of the attributes, as in a mode of Unix. */
const TYPE_BITS: Readonly<Record<FileRecord["type"], number>> = {
  file: 0o100_000,
  hardlink: 0o100_000,
  directory: 0o040_000,
  symlink: 0o120_000,
};

/** The calendar of MS-DOS, a day away from its ends in every time zone. */
const DOS_MS_MIN = Date.UTC(1980, 0, 2);
const DOS_MS_MAX = Date.UTC(2099, 11, 30);
const NS_PER_MS = 1_000_000n;
const MS_PER_SECOND = 1000;
const INT32_MAX = 0x7fff_ffff;
const EXTRA_TIMESTAMP = 0x5455;
const EXTRA_OWNER = 0x7875;
const HAS_MTIME = 1;
const ID_SIZE_BYTES = 4;

type OpenFile = ZipInputFile & { ondata: AsyncFlateStreamHandler };

/** Writes a ZIP archive, in which hard links must have become files. */
export class ZipWriter implements ArchiveWriter {
  readonly #zip: Zip;
  #open: OpenFile | undefined;

  constructor(emit: (bytes: Uint8Array) => void) {
    this.#zip = new Zip((error, bytes) => {
      if (error !== null) throw error;
      emit(bytes);
    });
  }

  open(entry: ArchiveEntry): void {
    this.#close();
    const { record } = entry;
    const file: ZipInputFile = {
      filename: zipNameOf(entry),
      size: 0,
      crc: 0,
      compression: COMPRESSION_DEFLATE,
      flag: 0,
      os: OS_UNIX,
      attrs: attributesOf(record),
      extra: extraFieldsOf(record),
      mtime: Math.min(Math.max(mtimeMsOf(record), DOS_MS_MIN), DOS_MS_MAX),
    };
    this.#zip.add(file);
    this.#open = file as OpenFile;
    if (record.type === "symlink") {
      const target = bytesFromLatin1(record.target);
      this.#push(target, storedBlocks(target));
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#push(bytes, await deflateChunk(bytes));
  }

  finish(): void {
    this.#close();
    this.#zip.end();
  }

  #push(raw: Uint8Array, deflated: Uint8Array): void {
    const file = this.#open;
    if (file === undefined) throw new Error("nothing is open");
    file.size += raw.length;
    file.crc = crc32(raw, file.crc);
    file.ondata(null, deflated as Uint8Array<ArrayBuffer>, false);
  }

  #close(): void {
    this.#open?.ondata(null, LAST_BLOCK, true);
    this.#open = undefined;
  }
}

/** An entry's name; a directory's ends with a slash. */
export function zipNameOf({ name, record }: ArchiveEntry): string {
  return textFromPath(record.type === "directory" ? `${name}/` : name);
}

/** Bytes of an entry in the archive at most, but for its contents. */
export function overheadBytesOf(entry: ArchiveEntry): number {
  const nameBytes = entry.name.length + 1;
  const extra = Object.values(extraFieldsOf(entry.record));
  const extraBytes = extra.reduce((sum, field) => sum + 4 + field.length, 0);
  // Header, descriptor, directory; and the last block.
  return 30 + 16 + 46 + 2 * (nameBytes + extraBytes) + LAST_BLOCK.length;
}

/** Bytes that contents become at most, in chunks of any size. */
export function deflatedBytesMax(sizeBytes: number, chunkCount: number): number {
  return sizeBytes + 5 * (chunkCount + Math.ceil(sizeBytes / STORED_BLOCK_BYTES_MAX));
}

/** Whole blocks that end at a byte, so that the next chunk's may follow; never many more than raw. */
async function deflateChunk(bytes: Uint8Array): Promise<Uint8Array> {
  if (!looksCompressible(bytes)) return storedBlocks(bytes);
  const options = { level: LEVEL, finishFlush: constants.Z_SYNC_FLUSH };
  const deflated = await deflate(bytes, options);
  return deflated.length <= bytes.length ? deflated : storedBlocks(bytes);
}

/** Blocks of deflate that hold the bytes as they are: 0, length, its complement, bytes. */
function storedBlocks(bytes: Uint8Array): Uint8Array {
  const blocks: Uint8Array[] = [];
  for (let offset = 0; offset < bytes.length; offset += STORED_BLOCK_BYTES_MAX) {
    const part = bytes.subarray(offset, offset + STORED_BLOCK_BYTES_MAX);
    const head = Buffer.alloc(5);
    head.writeUInt16LE(part.length, 1);
    head.writeUInt16LE(part.length ^ 0xffff, 3);
    blocks.push(head, part);
  }
  return Buffer.concat(blocks);
}

function attributesOf(record: FileRecord): number {
  const mode = record.type === "symlink" ? 0o777 : record.mode;
  const unix = ((TYPE_BITS[record.type] | mode) << 16) >>> 0;
  return record.type === "directory" ? unix + DOS_DIRECTORY : unix;
}

/** The time in UTC and to the second, where 32 bits hold it, and the owner, as Info-ZIP has them. */
function extraFieldsOf(record: FileRecord): Record<number, Uint8Array> {
  const fields: Record<number, Uint8Array> = {};
  const seconds = Math.floor(mtimeMsOf(record) / MS_PER_SECOND);
  if (Math.abs(seconds) <= INT32_MAX) {
    const field = Buffer.alloc(5);
    field.writeUInt8(HAS_MTIME, 0);
    field.writeInt32LE(seconds, 1);
    fields[EXTRA_TIMESTAMP] = field;
  }
  const { uid, gid } = record;
  if (Math.max(uid, gid) <= 0xffff_ffff) {
    const field = Buffer.alloc(11);
    field.writeUInt8(1, 0);
    field.writeUInt8(ID_SIZE_BYTES, 1);
    field.writeUInt32LE(uid, 2);
    field.writeUInt8(ID_SIZE_BYTES, 6);
    field.writeUInt32LE(gid, 7);
    fields[EXTRA_OWNER] = field;
  }
  return fields;
}

function mtimeMsOf(record: FileRecord): number {
  return Number(record.mtimeNs / NS_PER_MS);
}
