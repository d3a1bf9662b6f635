/** Bytes for tests that no compressor shrinks: the same for the same seed. */

/** `sizeBytes` bytes that look random. */
export function noise(sizeBytes: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(sizeBytes);
  let state = Math.imul(seed + 1, 0x9e37_79b1);
  for (let index = 0; index < sizeBytes; index++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    bytes[index] = state >>> 24;
  }
  return bytes;
}
