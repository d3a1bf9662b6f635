/**
 * The checksum that each chunk row of the catalog carries, so that a bad page is noticed at the hit.
 */
import { SHA256_SIZE_BYTES } from "../../base/hex.ts";

// The pack's id and not its number is bound, so that exchanged rows of packs are noticed as well.
const checksumInput = new Uint8Array(2 * SHA256_SIZE_BYTES + 12);
const checksumView = new DataView(checksumInput.buffer);

/** The checksum of a chunk row over its id, the id of its pack, and its place there. */
export function chunkChecksum(
  id: Uint8Array,
  packId: Uint8Array,
  row: { readonly frame: number; readonly start: number; readonly length: number },
): number {
  checksumInput.set(id, 0);
  checksumInput.set(packId, SHA256_SIZE_BYTES);
  checksumView.setUint32(2 * SHA256_SIZE_BYTES, row.frame);
  checksumView.setUint32(2 * SHA256_SIZE_BYTES + 4, row.start);
  checksumView.setUint32(2 * SHA256_SIZE_BYTES + 8, row.length);
  return Bun.hash.xxHash32(checksumInput);
}
