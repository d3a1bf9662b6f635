/**
 * Records of file listings (docs/format.md section 7). A decoded record is safe to act on: its path
 * stays below the volume's root, its hard link points backwards, and its chunks add up to its size.
 * Nothing that a hard link or a reboot changes is in a record, so that it is the same in the next
 * backup as long as the file is.
 */
import assert from "node:assert/strict";
import { fromHex, SHA256_SIZE_BYTES, toHex } from "../../base/hex.ts";
import { isSafeRelativePath } from "../../base/path.ts";
import { ByteReader, ByteWriter } from "./bytes.ts";
import type { TreeRoot } from "./tree.ts";

/** A chunk as a file names it. */
export type ChunkRef = { readonly id: Uint8Array; readonly length: number };

/** Where the bytes of a file are: named in the record, or in a tree of chunk records. */
export type FileContent =
  | { readonly form: "inline"; readonly chunks: readonly ChunkRef[] }
  | { readonly form: "tree"; readonly root: TreeRoot };

/** What every record has. */
export type FileAttributes = {
  /** A byte string, relative to the volume's root. */
  readonly path: string;
  /** Permission bits, 0o7777 masked. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeNs: bigint;
  /** Runs of zeros were holes. */
  readonly sparse: boolean;
  /** Names are byte strings. */
  readonly xattrs: ReadonlyMap<string, Uint8Array>;
};

/** One file, directory or link of a listing. */
export type FileRecord = FileAttributes &
  (
    | { readonly type: "file"; readonly sizeBytes: number; readonly content: FileContent }
    | { readonly type: "directory" }
    | { readonly type: "symlink"; readonly target: string }
    | { readonly type: "hardlink"; readonly target: string }
  );

/** A file of more chunks than this names a tree of them. */
export const INLINE_CHUNK_COUNT_MAX = 1024;

const TYPES = ["file", "directory", "symlink", "hardlink"] as const;
const FLAG_SPARSE = 1;
const FORM_INLINE = 0;
const FORM_TREE = 1;
const MODE_MAX = 0o7777;
const NS_PER_SECOND = 1_000_000_000;
const NS_PER_SECOND_BIG = 1_000_000_000n;

/** Reused by every record; `finish` copies out of it. */
const scratch = new ByteWriter(4096);

/** The bytes of a record; its key in the tree is its path. */
export function encodeRecord(record: FileRecord): Uint8Array<ArrayBuffer> {
  assert(isSafeRelativePath(record.path));
  assert(record.mode <= MODE_MAX);
  const writer = scratch;
  writer.reset();
  writer.text(record.path);
  writer.u8(TYPES.indexOf(record.type));
  writer.u8(record.sparse ? FLAG_SPARSE : 0);
  writer.varint(record.mode);
  writer.varint(record.uid);
  writer.varint(record.gid);
  encodeTime(writer, record.mtimeNs);
  encodeXattrs(writer, record.xattrs);
  if (record.type === "file") encodeContent(writer, record.sizeBytes, record.content);
  else if (record.type !== "directory") writer.text(record.target);
  return writer.finish();
}

/** A record back from its bytes; AppError `damaged` if anything in it could do harm. */
export function decodeRecord(bytes: Uint8Array): FileRecord {
  const reader = new ByteReader(bytes, "A record of a file listing");
  const path = reader.text();
  if (!isSafeRelativePath(path)) throw reader.damaged("has a path that leaves its volume");
  const type = TYPES[reader.u8()];
  const flags = reader.u8();
  if (type === undefined) throw reader.damaged("has an unknown type");
  if ((flags & ~FLAG_SPARSE) !== 0) throw reader.damaged("has an unknown flag");
  const mode = reader.varint();
  if (mode > MODE_MAX) throw reader.damaged("has a mode of more than 12 bits");
  const attributes: FileAttributes = {
    path,
    mode,
    uid: reader.varint(),
    gid: reader.varint(),
    mtimeNs: decodeTime(reader),
    sparse: flags === FLAG_SPARSE,
    xattrs: decodeXattrs(reader),
  };
  const record = { ...attributes, ...decodeBody(reader, type, path) };
  reader.end();
  return record;
}

/** The path alone, which comes first: what a tree of records calls its key. */
export function pathOfRecord(bytes: Uint8Array): string {
  return new ByteReader(bytes, "A record of a file listing").text();
}

/** A record of a chunk list (form 1); its key in the tree is the id. */
export function encodeChunkRef(chunk: ChunkRef): Uint8Array<ArrayBuffer> {
  const writer = new ByteWriter(SHA256_SIZE_BYTES + 8);
  writeChunkRef(writer, chunk);
  return writer.finish();
}

/** A record of a chunk list back from its bytes. */
export function decodeChunkRef(bytes: Uint8Array): ChunkRef {
  const reader = new ByteReader(bytes, "A record of a chunk list");
  const chunk = readChunkRef(reader);
  reader.end();
  return chunk;
}

/** What comes after the attributes. */
function decodeBody(reader: ByteReader, type: (typeof TYPES)[number], path: string) {
  switch (type) {
    case "file":
      return { type, ...decodeContent(reader) };
    case "directory":
      return { type };
    case "symlink":
      return { type, target: reader.text() };
    case "hardlink": {
      const target = reader.text();
      if (!isSafeRelativePath(target)) throw reader.damaged("has a hard link out of its volume");
      if (target >= path) throw reader.damaged("has a hard link to what comes after it");
      return { type, target };
    }
  }
}

function encodeContent(writer: ByteWriter, sizeBytes: number, content: FileContent): void {
  writer.varint(sizeBytes);
  if (content.form === "tree") {
    writer.u8(FORM_TREE);
    writer.raw(fromHex(content.root.id));
    writer.varint(content.root.length);
    writer.varint(content.root.count);
    return;
  }
  assert(content.chunks.length <= INLINE_CHUNK_COUNT_MAX);
  writer.u8(FORM_INLINE);
  writer.varint(content.chunks.length);
  let total = 0;
  for (const chunk of content.chunks) {
    writeChunkRef(writer, chunk);
    total += chunk.length;
  }
  assert.equal(total, sizeBytes);
}

function decodeContent(reader: ByteReader): { sizeBytes: number; content: FileContent } {
  const sizeBytes = reader.varint();
  const form = reader.u8();
  if (form === FORM_TREE) {
    const id = toHex(reader.raw(SHA256_SIZE_BYTES));
    const root = { id, length: reader.varint(), count: reader.varint() };
    return { sizeBytes, content: { form: "tree", root } };
  }
  if (form !== FORM_INLINE) throw reader.damaged("has an unknown form of contents");
  const count = reader.varint();
  const chunks: ChunkRef[] = [];
  let total = 0;
  for (let index = 0; index < count; index++) {
    const chunk = readChunkRef(reader);
    chunks.push(chunk);
    total += chunk.length;
  }
  if (total !== sizeBytes) throw reader.damaged("has chunks that do not add up to its size");
  return { sizeBytes, content: { form: "inline", chunks } };
}

function writeChunkRef(writer: ByteWriter, chunk: ChunkRef): void {
  assert.equal(chunk.id.length, SHA256_SIZE_BYTES);
  writer.raw(chunk.id);
  writer.varint(chunk.length);
}

function readChunkRef(reader: ByteReader): ChunkRef {
  return { id: reader.raw(SHA256_SIZE_BYTES), length: reader.varint() };
}

/** Seconds are rounded down, so that nanoseconds are positive before 1970 too. */
function encodeTime(writer: ByteWriter, timeNs: bigint): void {
  let seconds = Number(timeNs / NS_PER_SECOND_BIG);
  let nanoseconds = Number(timeNs % NS_PER_SECOND_BIG);
  if (nanoseconds < 0) {
    seconds -= 1;
    nanoseconds += NS_PER_SECOND;
  }
  writer.zigzag(seconds);
  writer.varint(nanoseconds);
}

function decodeTime(reader: ByteReader): bigint {
  const seconds = reader.zigzag();
  const nanoseconds = reader.varint();
  if (nanoseconds >= NS_PER_SECOND) throw reader.damaged("has a time of too many nanoseconds");
  return BigInt(seconds) * NS_PER_SECOND_BIG + BigInt(nanoseconds);
}

/** Ascending by name: the same attributes are the same bytes. */
function encodeXattrs(writer: ByteWriter, xattrs: ReadonlyMap<string, Uint8Array>): void {
  writer.varint(xattrs.size);
  if (xattrs.size === 0) return;
  for (const [name, value] of [...xattrs].toSorted(([one], [other]) => (one < other ? -1 : 1))) {
    writer.text(name);
    writer.bytes(value);
  }
}

const NO_XATTRS: ReadonlyMap<string, Uint8Array> = new Map();

function decodeXattrs(reader: ByteReader): ReadonlyMap<string, Uint8Array> {
  const count = reader.varint();
  if (count === 0) return NO_XATTRS;
  const xattrs = new Map<string, Uint8Array>();
  for (let index = 0; index < count; index++) {
    const name = reader.text();
    if (xattrs.has(name)) throw reader.damaged("has an extended attribute twice");
    xattrs.set(name, reader.bytes());
  }
  return xattrs;
}
