/**
 * The primitives of docs/format.md section 1 (u8, u32, varint, zigzag, bytes), written and read. A
 * reader never goes past its end and accepts one spelling of each number, so that a structure has
 * one encoding only and a damaged one is told from a whole one. Text is latin1: a char is a byte.
 */
import assert from "node:assert/strict";
import { AppError } from "../../base/error.ts";

const VARINT_SIZE_BYTES_MAX = 8;
const CAPACITY_DEFAULT = 256;
const BITS_7 = 128;

/** Appends primitives to a buffer that grows; `reset` keeps the buffer for the next structure. */
export class ByteWriter {
  #buffer: Buffer;
  #length = 0;

  constructor(capacity: number = CAPACITY_DEFAULT) {
    this.#buffer = Buffer.allocUnsafeSlow(Math.max(capacity, VARINT_SIZE_BYTES_MAX));
  }

  /** Bytes written since the start or the last `reset`. */
  get length(): number {
    return this.#length;
  }

  u8(value: number): void {
    assert(Number.isInteger(value));
    assert(value >= 0);
    assert(value <= 0xff);
    this.#reserve(1);
    this.#buffer[this.#length] = value;
    this.#length += 1;
  }

  u32(value: number): void {
    this.#reserve(4);
    this.#length = this.#buffer.writeUInt32LE(value, this.#length);
  }

  varint(value: number): void {
    assert(Number.isSafeInteger(value));
    assert(value >= 0);
    this.#reserve(VARINT_SIZE_BYTES_MAX);
    const buffer = this.#buffer;
    let rest = value;
    let at = this.#length;
    // Beyond 31 bits the bit operators would cut the number.
    while (rest > 0x7fff_ffff) {
      buffer[at++] = (rest % BITS_7) + BITS_7;
      rest = Math.floor(rest / BITS_7);
    }
    while (rest >= BITS_7) {
      buffer[at++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    buffer[at++] = rest;
    this.#length = at;
  }

  zigzag(value: number): void {
    this.varint(value >= 0 ? 2 * value : -2 * value - 1);
  }

  /** The bytes alone, without their length. */
  raw(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#buffer.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /** The length, then the bytes. */
  bytes(bytes: Uint8Array): void {
    this.varint(bytes.length);
    this.raw(bytes);
  }

  /** The length, then one byte a char. */
  text(text: string): void {
    assert(isLatin1(text), "a byte string has a char above 255");
    this.varint(text.length);
    this.rawText(text);
  }

  /** One byte a char, without the length; the caller knows that the text is latin1. */
  rawText(text: string): void {
    this.#reserve(text.length);
    this.#length += this.#buffer.write(text, this.#length, "latin1");
  }

  /** A copy of what was written. */
  finish(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.view());
  }

  /** What was written, in place: valid until the next write or `reset`. */
  view(): Uint8Array {
    return this.#buffer.subarray(0, this.#length);
  }

  reset(): void {
    this.#length = 0;
  }

  #reserve(sizeBytes: number): void {
    const needed = this.#length + sizeBytes;
    if (needed <= this.#buffer.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, 2 * this.#buffer.length));
    grown.set(this.view());
    this.#buffer = grown;
  }
}

/** Reads primitives; whatever does not fit is an AppError (`damaged`) that names `what`. */
export class ByteReader {
  readonly #bytes: Buffer;
  readonly #what: string;
  #position = 0;

  constructor(bytes: Uint8Array, what: string) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#what = what;
  }

  get position(): number {
    return this.#position;
  }

  get remaining(): number {
    return this.#bytes.length - this.#position;
  }

  u8(): number {
    const value = this.#bytes[this.#position];
    if (value === undefined) throw this.damaged("ends too early");
    this.#position += 1;
    return value;
  }

  u32(): number {
    return this.#bytes.readUInt32LE(this.#take(4));
  }

  varint(): number {
    const bytes = this.#bytes;
    const start = this.#position;
    let value = 0;
    let scale = 1;
    for (let at = start; at < start + VARINT_SIZE_BYTES_MAX; at++) {
      const byte = bytes[at];
      if (byte === undefined) throw this.damaged("ends within a number");
      value += (byte & 0x7f) * scale;
      if (byte < BITS_7) {
        if (byte === 0 && at > start)
          throw this.damaged("has a number that is not in its short form");
        if (value > Number.MAX_SAFE_INTEGER) throw this.damaged("has a number above 2^53");
        this.#position = at + 1;
        return value;
      }
      scale *= BITS_7;
    }
    throw this.damaged("has a number that does not end");
  }

  zigzag(): number {
    const value = this.varint();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }

  /** A view of the next bytes. */
  raw(sizeBytes: number): Uint8Array {
    const start = this.#take(sizeBytes);
    const bytes = this.#bytes;
    return new Uint8Array(bytes.buffer, bytes.byteOffset + start, sizeBytes);
  }

  /** A view of the next bytes, whose length comes first. */
  bytes(): Uint8Array {
    return this.raw(this.varint());
  }

  /** The next bytes as latin1, their length first. */
  text(): string {
    const sizeBytes = this.varint();
    const start = this.#take(sizeBytes);
    return this.#bytes.toString("latin1", start, start + sizeBytes);
  }

  /** Throws unless everything was read. */
  end(): void {
    if (this.remaining > 0) throw this.damaged(`has ${this.remaining} bytes too many`);
  }

  /** An error about what is being read, with the place. */
  damaged(fault: string): AppError {
    return damagedError(this.#what, fault, { offset: this.#position });
  }

  #take(sizeBytes: number): number {
    const start = this.#position;
    if (sizeBytes > this.#bytes.length - start) throw this.damaged("ends too early");
    this.#position = start + sizeBytes;
    return start;
  }
}

/** The one error for stored bytes that are not what they should be. */
export function damagedError(
  what: string,
  fault: string,
  context: Readonly<Record<string, string | number | boolean>> = {},
): AppError {
  return new AppError("damaged", `${what} ${fault}.`, {
    guidance:
      "Run `astacus verify` to see what else is damaged; another site may hold a good copy.",
    context: { what, ...context },
  });
}

/** 32 bytes as a latin1 string: the form of an id as a key of a Map. */
export function idKey(id: Uint8Array): string {
  return latin1FromBytes(id);
}

/** The bytes as a latin1 string. */
export function latin1FromBytes(bytes: Uint8Array): string {
  // Wrapping a small array in a Buffer first would cost twenty times as much.
  return Buffer.prototype.toString.call(bytes, "latin1");
}

/** The bytes of a latin1 string. */
export function bytesFromLatin1(text: string): Uint8Array<ArrayBuffer> {
  assert(isLatin1(text), "a byte string has a char above 255");
  return new Uint8Array(Buffer.from(text, "latin1"));
}

/** A regular expression costs four times as much here. */
function isLatin1(text: string): boolean {
  let bits = 0;
  for (let index = 0; index < text.length; index++) bits |= text.charCodeAt(index);
  return bits <= 0xff;
}
