/**
 * Decoded frames in memory, so that chunks of one frame cost one request and one decoding.
 */

/** Decoded frames, the least recently used dropped first; bounded by bytes. */
export class FrameCache {
  readonly #sizeBytesMax: number;
  readonly #frames = new Map<string, Uint8Array>();
  #sizeBytes = 0;

  constructor(sizeBytesMax: number) {
    this.#sizeBytesMax = sizeBytesMax;
  }

  get(key: string): Uint8Array | undefined {
    const frame = this.#frames.get(key);
    if (frame === undefined) return undefined;
    this.#frames.delete(key);
    this.#frames.set(key, frame);
    return frame;
  }

  set(key: string, frame: Uint8Array): void {
    this.delete(key);
    if (frame.length > this.#sizeBytesMax) return;
    this.#frames.set(key, frame);
    this.#sizeBytes += frame.length;
    for (const oldest of this.#frames.keys()) {
      if (this.#sizeBytes <= this.#sizeBytesMax) return;
      this.delete(oldest);
    }
  }

  delete(key: string): void {
    const frame = this.#frames.get(key);
    if (frame === undefined) return;
    this.#frames.delete(key);
    this.#sizeBytes -= frame.length;
  }
}
