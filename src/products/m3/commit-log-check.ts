/**
 * The content check `m3-commit-log`: while a backup reads a log, each chunk's header and data are held
 * against their checksums. Of a log that has grown only what was appended is proved; it begins at a
 * chunk's boundary because that is where the last backup cut it.
 */
import type { ContentCheck, ContentCheckStart } from "../../cas/write/content-check.ts";
import { Adler32 } from "./adler32.ts";
import { CHUNK_HEADER_SIZE_BYTES, parseChunkHeader } from "./commit-log-format.ts";

/** What the check says of a log. */
export type CommitLogFinding = {
  /** Whole chunks whose checksums match, of those that were looked at. */
  readonly chunks: number;
  /** Where the first chunk begins whose header or data contradict a checksum. */
  readonly firstBadOffset?: number;
  /** The end of the last good chunk before any bad one. */
  readonly endsAt: number;
  /** All bytes that were shown, with what lies before them: more than `endsAt` if a tail is torn. */
  readonly sizeBytes: number;
};

/** Checks a log from `verifiedBytes` on, a boundary of chunks. */
export class CommitLogCheck implements ContentCheck {
  readonly #header = new Uint8Array(CHUNK_HEADER_SIZE_BYTES);
  readonly #data = new Adler32();
  /** Bytes still to pass over: an earlier backup has proved them. */
  #skipBytes: number;
  #position: number;
  #chunkStart: number;
  #headerBytes = 0;
  #dataBytesLeft = 0;
  #dataChecksum = 0;
  #chunks = 0;
  #firstBadOffset: number | undefined;

  constructor({ offset, verifiedBytes }: ContentCheckStart) {
    this.#skipBytes = Math.max(0, verifiedBytes - offset);
    this.#position = offset;
    this.#chunkStart = Math.max(offset, verifiedBytes);
  }

  update(bytes: Uint8Array): void {
    const skipped = Math.min(this.#skipBytes, bytes.length);
    this.#skipBytes -= skipped;
    this.#position += bytes.length;
    let rest = bytes.subarray(skipped);
    // Without a good header nobody knows where the next chunk begins.
    while (rest.length > 0 && this.#firstBadOffset === undefined) {
      const isInHeader = this.#headerBytes < CHUNK_HEADER_SIZE_BYTES;
      const taken = isInHeader ? this.#takeHeader(rest) : this.#takeData(rest);
      rest = rest.subarray(taken);
    }
  }

  finish(): CommitLogFinding {
    return {
      chunks: this.#chunks,
      ...(this.#firstBadOffset === undefined ? {} : { firstBadOffset: this.#firstBadOffset }),
      endsAt: this.#chunkStart,
      sizeBytes: this.#position,
    };
  }

  #takeHeader(bytes: Uint8Array): number {
    const taken = Math.min(CHUNK_HEADER_SIZE_BYTES - this.#headerBytes, bytes.length);
    this.#header.set(bytes.subarray(0, taken), this.#headerBytes);
    this.#headerBytes += taken;
    if (this.#headerBytes < CHUNK_HEADER_SIZE_BYTES) return taken;
    const header = parseChunkHeader(this.#header, 0);
    if (header === undefined) {
      this.#firstBadOffset = this.#chunkStart;
      return taken;
    }
    this.#dataBytesLeft = header.sizeBytes;
    this.#dataChecksum = header.dataChecksum;
    this.#data.reset();
    if (header.sizeBytes === 0) this.#endChunk();
    return taken;
  }

  #takeData(bytes: Uint8Array): number {
    const taken = Math.min(this.#dataBytesLeft, bytes.length);
    this.#data.update(bytes.subarray(0, taken));
    this.#dataBytesLeft -= taken;
    if (this.#dataBytesLeft === 0) this.#endChunk();
    return taken;
  }

  #endChunk(): void {
    if (this.#data.value !== this.#dataChecksum) {
      this.#firstBadOffset = this.#chunkStart;
      return;
    }
    const sizeBytes = new DataView(this.#header.buffer).getUint32(0, true);
    this.#chunkStart += CHUNK_HEADER_SIZE_BYTES + sizeBytes;
    this.#chunks += 1;
    this.#headerBytes = 0;
  }
}

/** What is wrong with a log, in words; undefined if nothing is. A torn tail is not damage. */
export function commitLogProblem(finding: CommitLogFinding): string | undefined {
  const { firstBadOffset, chunks } = finding;
  if (firstBadOffset === undefined) return undefined;
  return (
    `The chunk at byte ${firstBadOffset} of this commit log contradicts its checksum ` +
    `(${chunks} chunks before it are good): the file is damaged on the node's disk.`
  );
}
