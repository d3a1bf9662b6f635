/**
 * Tar as POSIX has it: ustar headers, and before them a pax header where ustar is too small, for
 * times below a second, long names, names beyond ASCII, large numbers and extended attributes.
 * Nothing that a listing can say is lost, but that runs of zeros were holes. Memory: one header.
 */
import assert from "node:assert/strict";
import { isUtf8 } from "node:buffer";
import type { ArchiveEntry, ArchiveWriter } from "./archive-entry.ts";
import { bytesFromLatin1 } from "../format/bytes.ts";
import type { FileRecord } from "../format/listing.ts";

const BLOCK_SIZE_BYTES = 512;
const NAME_SIZE_BYTES_MAX = 100;
const END_BLOCK_COUNT = 2;
const CHECKSUM_OFFSET = 148;
const CHECKSUM_SIZE_BYTES = 8;
const NS_PER_SECOND = 1_000_000_000n;

const TYPE_FLAGS: Readonly<Record<FileRecord["type"], string>> = {
  file: "0",
  hardlink: "1",
  symlink: "2",
  directory: "5",
};
const TYPE_FLAG_PAX = "x";

/** What a pax header is called where somebody unpacks it as a file. */
const PAX_NAME = "PaxHeader/entry";
const PAX_MODE = 0o644;

// oxlint-disable-next-line no-control-regex -- the range is the whole of ASCII
const ASCII = /^[\x00-\x7f]*$/;

type Header = {
  readonly name: string;
  readonly linkName: string;
  readonly typeFlag: string;
  readonly sizeBytes: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSeconds: number;
};

/** Writes a tar archive. */
export class TarWriter implements ArchiveWriter {
  readonly #emit: (bytes: Uint8Array) => void;
  #missingBytes = 0;
  #paddingBytes = 0;

  constructor(emit: (bytes: Uint8Array) => void) {
    this.#emit = emit;
  }

  open(entry: ArchiveEntry): void {
    this.#close();
    const { record } = entry;
    const name = record.type === "directory" ? `${entry.name}/` : entry.name;
    const mtimeSeconds = Number(record.mtimeNs / NS_PER_SECOND);
    const header: Header = {
      name,
      linkName: entry.target ?? "",
      typeFlag: TYPE_FLAGS[record.type],
      sizeBytes: record.type === "file" ? record.sizeBytes : 0,
      mode: record.type === "symlink" ? 0o777 : record.mode,
      uid: record.uid,
      gid: record.gid,
      mtimeSeconds,
    };
    const extended = encodePaxRecords(paxRecordsOf(header, record));
    if (extended.length > 0) {
      const sizeBytes = extended.length;
      const pax = { ...header, name: PAX_NAME, linkName: "", typeFlag: TYPE_FLAG_PAX };
      this.#emit(encodeHeader({ ...pax, mode: PAX_MODE, sizeBytes }));
      this.#emit(extended);
      this.#pad(paddingOf(sizeBytes));
    }
    this.#emit(encodeHeader(header));
    this.#missingBytes = header.sizeBytes;
    this.#paddingBytes = paddingOf(header.sizeBytes);
  }

  write(bytes: Uint8Array): void {
    this.#missingBytes -= bytes.length;
    assert(this.#missingBytes >= 0);
    this.#emit(bytes);
  }

  finish(): void {
    this.#close();
    this.#pad(END_BLOCK_COUNT * BLOCK_SIZE_BYTES);
  }

  #close(): void {
    assert.equal(this.#missingBytes, 0);
    this.#pad(this.#paddingBytes);
    this.#paddingBytes = 0;
  }

  #pad(sizeBytes: number): void {
    if (sizeBytes > 0) this.#emit(new Uint8Array(sizeBytes));
  }
}

/** What the ustar header cannot say, as keys and values of bytes. */
function paxRecordsOf(header: Header, record: FileRecord): [key: string, value: string][] {
  const records: [string, string][] = [];
  const texts = (["path", "linkpath"] as const).map((key) => {
    const value = key === "path" ? header.name : header.linkName;
    const isLong = value.length > NAME_SIZE_BYTES_MAX;
    const isText = isUtf8(bytesFromLatin1(value));
    // A short name that is no text is what it is in ustar; in pax it would have to be text.
    return { key, value, isText, isNeeded: isLong || (isText && !ASCII.test(value)) };
  });
  const needed = texts.filter(({ isNeeded }) => isNeeded);
  if (needed.some(({ isText }) => !isText)) records.push(["hdrcharset", "BINARY"]);
  for (const { key, value } of needed) records.push([key, value]);
  if (!fitsOctal(header.sizeBytes, 11)) records.push(["size", String(header.sizeBytes)]);
  if (!fitsOctal(header.uid, 7)) records.push(["uid", String(header.uid)]);
  if (!fitsOctal(header.gid, 7)) records.push(["gid", String(header.gid)]);
  if (record.mtimeNs % NS_PER_SECOND !== 0n || !fitsOctal(header.mtimeSeconds, 11)) {
    records.push(["mtime", decimalSeconds(record.mtimeNs)]);
  }
  if (record.type === "file" || record.type === "directory") {
    for (const [name, value] of record.xattrs) {
      const key = name.replaceAll("%", "%25").replaceAll("=", "%3D");
      records.push([`SCHILY.xattr.${key}`, Buffer.from(value).toString("latin1")]);
    }
  }
  return records;
}

/** Each as `length key=value\n`, where the length counts itself. */
function encodePaxRecords(records: readonly (readonly [string, string])[]): Uint8Array {
  const texts = records.map(([key, value]) => {
    const rest = ` ${key}=${value}\n`;
    let length = rest.length;
    while (String(length).length + rest.length !== length) {
      length = String(length).length + rest.length;
    }
    return `${length}${rest}`;
  });
  return bytesFromLatin1(texts.join(""));
}

function encodeHeader(header: Header): Uint8Array {
  const block = Buffer.alloc(BLOCK_SIZE_BYTES);
  block.write(header.name.slice(0, NAME_SIZE_BYTES_MAX), 0, "latin1");
  block.write(octal(header.mode, 7), 100, "latin1");
  block.write(octal(header.uid, 7), 108, "latin1");
  block.write(octal(header.gid, 7), 116, "latin1");
  block.write(octal(header.sizeBytes, 11), 124, "latin1");
  block.write(octal(header.mtimeSeconds, 11), 136, "latin1");
  block.fill(" ", CHECKSUM_OFFSET, CHECKSUM_OFFSET + CHECKSUM_SIZE_BYTES);
  block.write(header.typeFlag, 156, "latin1");
  block.write(header.linkName.slice(0, NAME_SIZE_BYTES_MAX), 157, "latin1");
  block.write("ustar\x0000", 257, "latin1");
  let checksum = 0;
  for (const byte of block) checksum += byte;
  block.write(`${octal(checksum, 6)}\0 `, CHECKSUM_OFFSET, "latin1");
  return block;
}

/** What does not fit is in the pax header, which goes first. */
function octal(value: number, digitCount: number): string {
  const fitting = fitsOctal(value, digitCount) ? value : 0;
  return fitting.toString(8).padStart(digitCount, "0");
}

function fitsOctal(value: number, digitCount: number): boolean {
  return value >= 0 && value < 8 ** digitCount;
}

function decimalSeconds(timeNs: bigint): string {
  const magnitudeNs = timeNs < 0n ? -timeNs : timeNs;
  const nanoseconds = String(magnitudeNs % NS_PER_SECOND).padStart(9, "0");
  return `${timeNs < 0n ? "-" : ""}${magnitudeNs / NS_PER_SECOND}.${nanoseconds}`;
}

function paddingOf(sizeBytes: number): number {
  return (BLOCK_SIZE_BYTES - (sizeBytes % BLOCK_SIZE_BYTES)) % BLOCK_SIZE_BYTES;
}
