/**
 * Bytes as lower-case hex, and SHA-256. Only lower case is read back: an id that could be spelled
 * in two ways would be two ids in every map and key.
 */
import { AppError } from "./error.ts";

/** Bytes of a SHA-256. */
export const SHA256_SIZE_BYTES = 32;

const HEX = /^(?:[0-9a-f]{2})*$/;

/** Lower-case hex of the bytes. */
export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex");
}

/** The bytes of a lower-case hex text; anything else is an AppError (`damaged`). */
export function fromHex(hex: string): Uint8Array<ArrayBuffer> {
  if (!HEX.test(hex)) {
    throw new AppError("damaged", "A text that should be lower-case hex is not.", {
      guidance: "The record that holds it is damaged or was written by something else.",
      context: { text: hex.slice(0, 80) },
    });
  }
  return Uint8Array.fromHex(hex);
}

/** SHA-256 of the bytes, in an array of its own. */
export function sha256(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const digest = new Uint8Array(SHA256_SIZE_BYTES);
  Bun.SHA256.hash(bytes, digest);
  return digest;
}

/** SHA-256 of the bytes as lower-case hex. */
export function sha256Hex(bytes: Uint8Array): string {
  return toHex(sha256(bytes));
}
