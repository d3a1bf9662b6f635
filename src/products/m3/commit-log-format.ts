/**
 * How M3 frames its commit logs: chunks of a 12-byte header and data, each with a checksum. All
 * numbers are little-endian; the checksums are Adler-32 of the header's first four bytes and of the
 * data (chunk_reader.go and writer.go of M3 1.5). An entry may cross the border of two chunks.
 */
import { adler32 } from "./adler32.ts";

/** A chunk's header: size of its data, checksum of the size, checksum of the data; u32 each. */
export const CHUNK_HEADER_SIZE_BYTES = 12;

/** A parsed header whose size is proved by its checksum. */
export type ChunkHeader = {
  /** Size of the data after the header. */
  readonly sizeBytes: number;
  readonly dataChecksum: number;
};

/** Parses the 12 bytes at `offset`; undefined if the size contradicts its checksum. */
export function parseChunkHeader(bytes: Uint8Array, offset: number): ChunkHeader | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, CHUNK_HEADER_SIZE_BYTES);
  if (adler32(bytes.subarray(offset, offset + 4)) !== view.getUint32(4, true)) return undefined;
  return { sizeBytes: view.getUint32(0, true), dataChecksum: view.getUint32(8, true) };
}
