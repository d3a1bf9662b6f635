/**
 * Packs as they are made: chunks are gathered into frames, frames compressed (and sealed) into packs.
 */
import assert from "node:assert/strict";
import { SHA256_SIZE_BYTES } from "../../base/hex.ts";
import {
  type Compression,
  isCompressedEnough,
  type LevelChoice,
  LevelChooser,
  looksCompressible,
  OWN_FRAME_BYTES_MIN,
  sharedLevelOf,
} from "./compression.ts";
import {
  assemblePack,
  DIRECTORY_BYTES_PER_CHUNK,
  encodeDirectory,
  FRAME_RAW_BYTES_MAX,
  FRAME_SIZE_BYTES_DEFAULT,
  frameChecksum,
  needsChecksum,
  PACK_CHUNK_COUNT_MAX,
  PACK_SIZE_BYTES_MAX,
  PACK_TRAILER_SIZE_BYTES,
  packIdOf,
  plainArray,
  writeTail,
} from "./pack.ts";
import type { FrameChunk, FrameCodec, FrameRow, SealedPack } from "./pack.ts";
import type { PackKind } from "./pack-kind.ts";
import { PackSealer, PLAIN_SEALER, TAG_SIZE_BYTES } from "./seal.ts";
import type { FrameSealing } from "./seal.ts";
import { compressedSizeMax, compressZstdInto } from "./zstd-context.ts";

/** Smaller chunks share a frame whatever is in them: a frame each would cost more than it saves. */
const PROBED_CHUNK_SIZE_BYTES_MIN = 16 * 1024;

/** What a `PackBuilder` is made with. */
export type PackBuilderOptions = {
  readonly kind: PackKind;
  /** A pack is sealed when it has grown to this; it may pass it by one frame and its directory. */
  readonly packSizeBytes: number;
  /** Raw bytes of a frame that small chunks share. */
  readonly frameSizeBytes?: number;
  /** No chunk is larger, which decides how much room a pack's buffer has behind `packSizeBytes`. */
  readonly chunkSizeBytesMax?: number;
  readonly compression: Compression;
  /** 16 random bytes for each pack. */
  readonly salt: () => Uint8Array;
  /** How frames are sealed; undefined in plain repositories. */
  readonly sealing?: FrameSealing | undefined;
  /**
   * A buffer of at least so many bytes for a pack to be, which then leaves with it. New memory costs
   * more than all the copying here, so whoever makes many packs hands the same buffers out again.
   */
  readonly takeBuffer?: (sizeBytes: number) => Uint8Array;
};

/**
 * Gathers chunks into frames and frames into packs. A large chunk is a frame of its own, and a plain
 * one if it would not shrink: copied once and hashed once, as its id is the checksum. Small chunks
 * share frames.
 *
 * @example
 * const builder = new PackBuilder({ kind: "data", packSizeBytes: 32 << 20, compression, salt });
 * for (const chunk of chunks) { const full = builder.add(sha256(chunk), chunk); … }
 * const last = builder.finish();
 */
export class PackBuilder {
  readonly #kind: PackKind;
  readonly #packSizeBytes: number;
  readonly #frameSizeBytes: number;
  readonly #chunkSizeBytesMax: number;
  readonly #compression: Compression;
  readonly #levels: LevelChooser;
  readonly #salt: () => Uint8Array;
  readonly #takeBuffer: ((sizeBytes: number) => Uint8Array) | undefined;
  /** Stored frames of the pack that is open. */
  #out: Uint8Array | undefined;
  #outLength = 0;
  #frames: FrameRow[] = [];
  #chunkCount = 0;
  readonly #sealing: FrameSealing | undefined;
  /** Of the pack that is open. */
  #sealer: PackSealer | undefined;
  /** Raw chunks of the frame that is open. */
  readonly #gather: Uint8Array;
  #gatherLength = 0;
  #gathered: FrameChunk[] = [];

  constructor(options: PackBuilderOptions) {
    this.#frameSizeBytes = options.frameSizeBytes ?? FRAME_SIZE_BYTES_DEFAULT;
    this.#chunkSizeBytesMax = options.chunkSizeBytesMax ?? FRAME_RAW_BYTES_MAX;
    assert(options.packSizeBytes >= 1);
    assert(options.packSizeBytes <= PACK_SIZE_BYTES_MAX);
    assert(this.#frameSizeBytes >= 1);
    assert(this.#frameSizeBytes <= FRAME_RAW_BYTES_MAX / 2);
    assert(this.#chunkSizeBytesMax <= FRAME_RAW_BYTES_MAX);
    this.#kind = options.kind;
    this.#packSizeBytes = options.packSizeBytes;
    this.#compression = options.compression;
    this.#levels = new LevelChooser(options.compression);
    this.#salt = options.salt;
    this.#sealing = options.sealing;
    this.#takeBuffer = options.takeBuffer;
    this.#gather = new Uint8Array(Buffer.allocUnsafeSlow(2 * this.#frameSizeBytes).buffer);
  }

  /** Bytes that are in no sealed pack yet. */
  get pendingBytes(): number {
    return this.#outLength + this.#gatherLength;
  }

  /**
   * Takes a copy of a chunk; returns the pack that became full by it. `isNext`: it is of the same file
   * as the last one, and so perhaps of the same kind.
   */
  add(id: Uint8Array, bytes: Uint8Array, isNext = false): SealedPack | undefined {
    assert.equal(id.length, SHA256_SIZE_BYTES);
    assert(bytes.length > 0);
    assert(bytes.length <= this.#chunkSizeBytesMax);
    if (!isNext) this.#levels.begin();
    const length = bytes.length;
    const chunk = { id: new Uint8Array(id), length };
    if (length >= Math.min(OWN_FRAME_BYTES_MIN, this.#frameSizeBytes)) {
      this.#storeAlone(chunk, bytes);
    } else if (length >= PROBED_CHUNK_SIZE_BYTES_MIN && !looksCompressible(bytes)) {
      this.#storePlain(bytes, [{ ...chunk, offset: 0 }]);
    } else {
      this.#gatherChunk(chunk, bytes);
    }
    this.#chunkCount += 1;
    return this.#isFull() ? this.#seal() : undefined;
  }

  /** Seals what is pending; undefined if nothing is. */
  finish(): SealedPack | undefined {
    return this.#chunkCount === 0 ? undefined : this.#seal();
  }

  #isFull(): boolean {
    const directoryBytes = this.#chunkCount * DIRECTORY_BYTES_PER_CHUNK;
    return (
      this.pendingBytes + directoryBytes >= this.#packSizeBytes ||
      this.#chunkCount >= PACK_CHUNK_COUNT_MAX
    );
  }

  /** A chunk that is large enough for a frame of its own. */
  #storeAlone(chunk: Omit<FrameChunk, "offset">, bytes: Uint8Array): void {
    const chunks = [{ ...chunk, offset: 0 }];
    if (bytes.length < PROBED_CHUNK_SIZE_BYTES_MIN) {
      this.#storeFrame(bytes, chunks, this.#atLevel());
      return;
    }
    const choice = this.#levels.choose(bytes);
    if (choice === undefined) {
      this.#storePlain(bytes, chunks);
    } else {
      const { level, packedLength } = this.#storeFrame(bytes, chunks, choice);
      this.#levels.took(level, packedLength / bytes.length);
    }
  }

  #atLevel(level = this.#compression.level): LevelChoice {
    return { level, sizeBytesMax: Infinity };
  }

  #gatherChunk({ id, length }: Omit<FrameChunk, "offset">, bytes: Uint8Array): void {
    this.#gather.set(bytes, this.#gatherLength);
    this.#gathered.push({ id, offset: this.#gatherLength, length });
    this.#gatherLength += length;
    if (this.#gatherLength >= this.#frameSizeBytes) this.#flushFrame();
  }

  #flushFrame(): void {
    if (this.#gathered.length === 0) return;
    const raw = this.#gather.subarray(0, this.#gatherLength);
    this.#storeFrame(raw, this.#gathered, this.#atLevel(sharedLevelOf(this.#compression)));
    this.#gathered = [];
    this.#gatherLength = 0;
  }

  /** Tells what it was compressed to, and how. */
  #storeFrame(
    raw: Uint8Array,
    chunks: readonly FrameChunk[],
    choice: LevelChoice,
  ): { readonly level: number; readonly packedLength: number } {
    this.#out ??= this.#openBuffer();
    const target = this.#out.subarray(this.#outLength);
    let { level } = choice;
    let packedLength = compressZstdInto(target, raw, level);
    if (packedLength > choice.sizeBytesMax) {
      ({ level } = this.#compression);
      packedLength = compressZstdInto(target, raw, level);
    }
    if (isCompressedEnough(raw.length, packedLength)) {
      this.#enterFrame(1, target.subarray(0, packedLength), raw.length, chunks);
    } else {
      this.#storePlain(raw, chunks);
    }
    return { level, packedLength };
  }

  #storePlain(raw: Uint8Array, chunks: readonly FrameChunk[]): void {
    this.#out ??= this.#openBuffer();
    // Sealing puts the bytes there, so that they are not copied twice.
    if (this.#sealing === undefined) this.#out.set(raw, this.#outLength);
    this.#enterFrame(0, raw, raw.length, chunks);
  }

  /** The frame's bytes lie at the end of the open pack, unless it is sealed. */
  #enterFrame(
    codec: FrameCodec,
    stored: Uint8Array,
    rawLength: number,
    chunks: readonly FrameChunk[],
  ): void {
    const offset = this.#outLength;
    if (this.#sealing !== undefined) {
      assert(this.#out !== undefined);
      this.#sealer ??= new PackSealer(this.#sealing, this.#kind, new Uint8Array(this.#salt()));
      const sealed = this.#sealer.seal(this.#out.subarray(offset), stored, this.#frames.length);
      this.#outLength += sealed.storedLength;
      this.#frames.push({ offset, codec, rawLength, chunks, ...sealed });
      return;
    }
    this.#outLength += stored.length;
    const checksum = needsChecksum(codec, chunks.length) ? frameChecksum(stored) : undefined;
    this.#frames.push({ offset, codec, storedLength: stored.length, rawLength, checksum, chunks });
  }

  #seal(): SealedPack {
    this.#flushFrame();
    const directory = {
      kind: this.#kind,
      salt: this.#sealer?.origin.salt ?? new Uint8Array(this.#salt()),
      frames: this.#frames,
    };
    const directoryBytes = encodeDirectory(directory);
    const pack = { id: packIdOf(directoryBytes), bytes: this.#closeBuffer(directoryBytes) };
    this.#frames = [];
    this.#sealer = undefined;
    this.#outLength = 0;
    this.#chunkCount = 0;
    return { ...pack, kind: this.#kind, directory, directoryBytes };
  }

  #openBuffer(): Uint8Array {
    const tagBytes = this.#sealing === undefined ? 0 : TAG_SIZE_BYTES;
    // Pages that are never written cost nothing, but memory that comes again is cleared first.
    const frameBytes = Math.max(this.#chunkSizeBytesMax, 2 * this.#frameSizeBytes);
    const sizeBytes = this.#packSizeBytes + compressedSizeMax(frameBytes) + tagBytes;
    if (this.#takeBuffer !== undefined) return this.#takeBuffer(sizeBytes);
    return new Uint8Array(Buffer.allocUnsafeSlow(sizeBytes).buffer);
  }

  /** The open pack as a whole object: in its own buffer, if that leaves with it, else in a copy. */
  #closeBuffer(directoryBytes: Uint8Array): Uint8Array {
    const out = this.#out;
    assert(out !== undefined);
    const sealer = this.#sealing?.sealer ?? PLAIN_SEALER;
    const tail = sealer.sealObject("directory", plainArray(directoryBytes));
    const sizeBytes = this.#outLength + tail.length + PACK_TRAILER_SIZE_BYTES;
    if (this.#takeBuffer === undefined || sizeBytes > out.length) {
      return assemblePack(out.subarray(0, this.#outLength), directoryBytes, sealer).bytes;
    }
    this.#out = undefined;
    writeTail(out, this.#outLength, { directory: tail, isSealed: !sealer.isPlain });
    return out.subarray(0, sizeBytes);
  }
}
