/** Files of a stored share, read for verification. */
import { AppError } from "../../base/error.ts";
import { textFromPath } from "../../base/path.ts";
import type { StoredFile } from "../share-verifier.ts";
import { Adler32 } from "./adler32.ts";
import { SMALL_FILE_SIZE_BYTES_MAX } from "./small-file.ts";

/**
 * All bytes of a small file.
 * @throws AppError `damaged` if it is larger than any such file of M3.
 */
export async function readStored(file: StoredFile): Promise<Uint8Array> {
  if (file.sizeBytes > SMALL_FILE_SIZE_BYTES_MAX) {
    throw new AppError("damaged", `${textFromPath(file.path)} has ${file.sizeBytes} bytes.`, {
      guidance: "M3 writes no such file of that size: look at it before you restore it.",
    });
  }
  const pieces: Uint8Array[] = [];
  // Pieces may be overwritten by the next one.
  for await (const bytes of file.read({})) pieces.push(bytes.slice());
  return Buffer.concat(pieces);
}

/** The Adler-32 of a file of any size. */
export async function adler32Of(file: StoredFile): Promise<number> {
  const sum = new Adler32();
  for await (const bytes of file.read({})) sum.update(bytes);
  return sum.value;
}
