/**
 * zstd as the repository uses it: one frame with its content size in the header (docs/format.md
 * section 1). What a frame claims is read before anything is decompressed, so that a few bytes of a
 * hostile or damaged object cannot ask for gigabytes, and nothing may follow the frame.
 */
import { damagedError } from "./bytes.ts";

const MAGIC = 0xfd2f_b528;
const HEADER_SIZE_BYTES_MIN = 6;
const BLOCK_HEADER_SIZE_BYTES = 3;
const CHECKSUM_SIZE_BYTES = 4;
/** Block type of a run of one byte, whose size counts the output, not the input. */
const BLOCK_RUN = 1;
const BLOCK_RESERVED = 3;

/** What a frame says of itself. */
export type ZstdFrame = {
  /** Bytes after decompression. */
  readonly contentSizeBytes: number;
  /** Bytes of the frame itself, from its magic number to its end. */
  readonly frameSizeBytes: number;
};

/** Compresses into one frame that states its content size. */
export function compressZstd(bytes: Uint8Array, level: number): Uint8Array {
  return plain(Bun.zstdCompressSync(bytes, { level }));
}

/** The content, which must be exactly `contentSizeBytes` long. */
export function decompressExactly(
  bytes: Uint8Array,
  contentSizeBytes: number,
  what: string,
): Uint8Array {
  mustClaim(bytes, contentSizeBytes, what);
  return decompress(bytes, contentSizeBytes, what);
}

/** Like `decompressExactly`, in a thread of the runtime; the bytes must not change meanwhile. */
export async function decompressExactlyAside(
  bytes: Uint8Array,
  contentSizeBytes: number,
  what: string,
): Promise<Uint8Array> {
  mustClaim(bytes, contentSizeBytes, what);
  let content: Uint8Array;
  try {
    content = plain(await Bun.zstdDecompress(bytes));
  } catch (error) {
    throw damagedError(what, "does not decompress", { reason: String(error) });
  }
  return mustHave(content, contentSizeBytes, what);
}

/** The content, which must not be longer than `contentSizeBytesMax`. */
export function decompressAtMost(
  bytes: Uint8Array,
  contentSizeBytesMax: number,
  what: string,
): Uint8Array {
  const claimed = onlyFrame(bytes, what).contentSizeBytes;
  if (claimed > contentSizeBytesMax) {
    throw damagedError(
      what,
      `claims ${claimed} bytes of content, more than ${contentSizeBytesMax}`,
    );
  }
  return decompress(bytes, claimed, what);
}

/** Reads a frame's header and walks its blocks; undefined if that is no whole, plain frame. */
export function parseZstdFrame(bytes: Uint8Array): ZstdFrame | undefined {
  if (bytes.length < HEADER_SIZE_BYTES_MIN) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== MAGIC) return undefined;
  const descriptor = view.getUint8(4);
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const hasChecksum = (descriptor & 0x04) !== 0;
  // A dictionary or a reserved bit: not ours.
  if ((descriptor & 0x0b) !== 0) return undefined;
  const sizeOffset = isSingleSegment ? 5 : 6;
  const sizeFieldBytes = contentSizeFieldBytes(descriptor >> 6, isSingleSegment);
  if (sizeFieldBytes === 0 || sizeOffset + sizeFieldBytes > bytes.length) return undefined;
  const contentSizeBytes = readContentSize(view, sizeOffset, sizeFieldBytes);
  const blocksEnd = findBlocksEnd(bytes, sizeOffset + sizeFieldBytes);
  if (blocksEnd === undefined) return undefined;
  const frameSizeBytes = blocksEnd + (hasChecksum ? CHECKSUM_SIZE_BYTES : 0);
  return frameSizeBytes <= bytes.length ? { contentSizeBytes, frameSizeBytes } : undefined;
}

function onlyFrame(bytes: Uint8Array, what: string): ZstdFrame {
  const frame = parseZstdFrame(bytes);
  if (frame === undefined) throw damagedError(what, "is not a zstd frame with a content size");
  if (frame.frameSizeBytes !== bytes.length) {
    throw damagedError(what, "has bytes after its zstd frame");
  }
  return frame;
}

function mustClaim(bytes: Uint8Array, contentSizeBytes: number, what: string): void {
  const claimed = onlyFrame(bytes, what).contentSizeBytes;
  if (claimed === contentSizeBytes) return;
  throw damagedError(what, `claims ${claimed} bytes of content instead of ${contentSizeBytes}`);
}

function mustHave(content: Uint8Array, sizeBytes: number, what: string): Uint8Array {
  if (content.length === sizeBytes) return content;
  throw damagedError(what, `has ${content.length} bytes of content instead of ${sizeBytes}`);
}

function decompress(bytes: Uint8Array, sizeBytes: number, what: string): Uint8Array {
  let content: Uint8Array;
  try {
    content = plain(Bun.zstdDecompressSync(bytes));
  } catch (error) {
    throw damagedError(what, "does not decompress", { reason: String(error) });
  }
  return mustHave(content, sizeBytes, what);
}

/** `slice` of a Buffer does not copy, which nobody who is given a Uint8Array expects. */
function plain(buffer: Buffer): Uint8Array {
  return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
}

function contentSizeFieldBytes(flag: number, isSingleSegment: boolean): number {
  if (flag === 0) return isSingleSegment ? 1 : 0;
  return 2 ** flag;
}

function readContentSize(view: DataView, offset: number, fieldBytes: number): number {
  if (fieldBytes === 1) return view.getUint8(offset);
  if (fieldBytes === 2) return view.getUint16(offset, true) + 256;
  if (fieldBytes === 4) return view.getUint32(offset, true);
  return view.getUint32(offset, true) + view.getUint32(offset + 4, true) * 2 ** 32;
}

/** Follows the block headers; undefined if they lead out of the bytes. */
function findBlocksEnd(bytes: Uint8Array, start: number): number | undefined {
  let at = start;
  for (;;) {
    if (at + BLOCK_HEADER_SIZE_BYTES > bytes.length) return undefined;
    const header = (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16);
    const type = (header >> 1) & 3;
    if (type === BLOCK_RESERVED) return undefined;
    at += BLOCK_HEADER_SIZE_BYTES + (type === BLOCK_RUN ? 1 : header >> 3);
    if ((header & 1) === 1) return at <= bytes.length ? at : undefined;
  }
}
