/**
 * Large buffers that one thread fills, another reads and gives back, shared and not transferred: the
 * engine counts each transfer as new memory at both ends, and collected the garbage of three threads
 * 230 times in a backup that left next to none (docs/decisions.md, "What a transfer costs"). So each
 * buffer crosses once, and its number from then on.
 *
 * The memory of a buffer that its owner forgets goes when the other thread was told so, with the next
 * part, and both have collected. What never comes back stays until its owner ends.
 */

/** The front of a shared buffer, as it crosses to the other thread. */
export type SharedPart = {
  /** Of the buffer, among those of its owner. */
  readonly number: number;
  readonly sizeBytes: number;
  /** The buffer itself, the first time. */
  readonly memory?: SharedArrayBuffer;
  /** Buffers that will not come again. */
  readonly forgotten: readonly number[];
};

/** The thread that fills. */
export class SharedBuffers {
  readonly #numbers = new Map<ArrayBufferLike, number>();
  readonly #unsent = new Set<number>();
  #forgotten: number[] = [];
  #count = 0;

  make(sizeBytes: number): Uint8Array {
    const bytes = new Uint8Array(new SharedArrayBuffer(sizeBytes));
    this.#count += 1;
    this.#numbers.set(bytes.buffer, this.#count);
    this.#unsent.add(this.#count);
    return bytes;
  }

  /** What tells the other thread of bytes at the front of a buffer; undefined if it is none of ours. */
  share(bytes: Uint8Array): SharedPart | undefined {
    const { buffer, length: sizeBytes } = bytes;
    const number = this.#numbers.get(buffer);
    if (number === undefined || !(buffer instanceof SharedArrayBuffer)) return undefined;
    const forgotten = this.#forgotten;
    this.#forgotten = [];
    const memory = this.#unsent.delete(number) ? { memory: buffer } : {};
    return { number, sizeBytes, forgotten, ...memory };
  }

  /** The whole buffer of a number that came back. */
  get(number: number): Uint8Array | undefined {
    for (const [buffer, own] of this.#numbers) if (own === number) return new Uint8Array(buffer);
    return undefined;
  }

  forget(bytes: Uint8Array): void {
    const number = this.#numbers.get(bytes.buffer);
    if (number === undefined) return;
    this.#numbers.delete(bytes.buffer);
    if (!this.#unsent.delete(number)) this.#forgotten.push(number);
  }
}

/** The thread that reads. */
export class SharedViews {
  readonly #buffers = new Map<number, SharedArrayBuffer>();

  /** The bytes that the owner means; they stay as they are until their number goes back. */
  open({ number, sizeBytes, memory, forgotten }: SharedPart): Uint8Array {
    for (const gone of forgotten) this.#buffers.delete(gone);
    if (memory !== undefined) this.#buffers.set(number, memory);
    const buffer = this.#buffers.get(number);
    if (buffer === undefined) throw new Error(`A shared buffer ${number} was never sent.`);
    return new Uint8Array(buffer, 0, sizeBytes);
  }

  /** What the owner calls the buffer of bytes that it sent. */
  numberOf(bytes: Uint8Array): number | undefined {
    for (const [number, buffer] of this.#buffers) if (buffer === bytes.buffer) return number;
    return undefined;
  }
}
