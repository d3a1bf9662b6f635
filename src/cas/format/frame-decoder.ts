/**
 * Frames decoded beside the thread that asks: zstd in the runtime's own threads, so that a restore
 * hashes and writes one frame while it unpacks the next. Whoever must know the order of things (the
 * simulator) decodes in line instead; the results are the same.
 */
import { decodeFrame, FRAME_RAW_BYTES_MAX } from "./pack.ts";
import type { StoredFrame } from "./pack.ts";
import { decompressExactlyAside } from "./zstd.ts";

/** The raw bytes of a stored frame, checked as `decodeFrame` does. */
export type FrameDecoder = (
  stored: Uint8Array,
  row: StoredFrame,
  what: string,
) => Uint8Array | Promise<Uint8Array>;

/**
 * Decodes in another thread what has to be decompressed, and the rest in line. The stored bytes must
 * not change meanwhile.
 *
 * @example
 * const source = new ChunkSource({ ...options, decode: decodeFrameAside });
 */
export async function decodeFrameAside(
  stored: Uint8Array,
  row: StoredFrame,
  what: string,
): Promise<Uint8Array> {
  const isCompressed = row.codec === 1 && row.checksum === undefined;
  const hasLengths = stored.length === (row.storedLength ?? stored.length);
  if (isCompressed && hasLengths && row.rawLength <= FRAME_RAW_BYTES_MAX) {
    return await decompressExactlyAside(stored, row.rawLength, what);
  }
  return decodeFrame(stored, row, what);
}
