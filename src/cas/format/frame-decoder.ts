/**
 * Frames decoded beside the thread that asks: zstd in the runtime's own threads, so that a restore
 * hashes and writes one frame while it unpacks the next. Whoever must know the order of things (the
 * simulator) decodes in line instead; the results are the same.
 */
import { decodeFrame, FRAME_RAW_BYTES_MAX } from "./pack.ts";
import type { FrameOpening, StoredFrame } from "./pack.ts";
import { openFrame } from "./seal.ts";
import { decompressExactlyAside } from "./zstd.ts";

/** The raw bytes of a stored frame, checked as `decodeFrame` does. */
export type FrameDecoder = (
  stored: Uint8Array,
  row: StoredFrame,
  what: string,
  opening?: FrameOpening,
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
  opening?: FrameOpening,
): Promise<Uint8Array> {
  const isCompressed = row.codec === 1 && (row.checksum === undefined || opening !== undefined);
  const hasLengths = stored.length === (row.storedLength ?? stored.length);
  if (isCompressed && hasLengths && row.rawLength <= FRAME_RAW_BYTES_MAX) {
    const packed = opening === undefined ? stored : openFrame(stored, opening, what);
    return await decompressExactlyAside(packed, row.rawLength, what);
  }
  return decodeFrame(stored, row, what, opening);
}
