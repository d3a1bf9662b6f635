/**
 * Packs on their way to the site: a bounded number at once, in the order in which they were sealed.
 * A pack counts only when the site has acknowledged it; the first failure ends the queue. Callers
 * wait for `room` before they make more packs, which bounds the memory that waiting packs take.
 */
import { Semaphore } from "../../base/semaphore.ts";
import type { SealedPack } from "../format/pack.ts";

/** Sends one pack and enters it wherever it must stand. */
export type SendPack = (pack: SealedPack) => Promise<void>;

/** The queue of one operation. */
export class UploadQueue {
  readonly #send: SendPack;
  readonly #permits: Semaphore;
  readonly #uploadsMax: number;
  readonly #running = new Set<Promise<void>>();
  #failure: { readonly error: unknown } | undefined;
  #changed = Promise.withResolvers<void>();

  constructor(send: SendPack, uploadsMax: number) {
    this.#send = send;
    this.#uploadsMax = uploadsMax;
    this.#permits = new Semaphore(uploadsMax);
  }

  /** Takes a pack at once; it is sent when its turn comes. */
  push(pack: SealedPack): void {
    const task: Promise<void> = this.#run(pack).finally(() => {
      this.#running.delete(task);
      this.#changed.resolve();
      this.#changed = Promise.withResolvers<void>();
    });
    this.#running.add(task);
  }

  /** Waits until no pack waits for its turn. */
  async room(): Promise<void> {
    while (this.#failure === undefined && this.#running.size >= this.#uploadsMax) {
      await this.#changed.promise;
    }
    this.throwIfFailed();
  }

  /** Waits until all packs are acknowledged. */
  async drain(): Promise<void> {
    while (this.#running.size > 0) await this.#changed.promise;
    this.throwIfFailed();
  }

  /** Sends nothing more, and waits for what is on its way. */
  async stop(error: unknown): Promise<void> {
    this.#failure ??= { error };
    while (this.#running.size > 0) await this.#changed.promise;
  }

  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async #run(pack: SealedPack): Promise<void> {
    try {
      using _permit = await this.#permits.acquire();
      if (this.#failure === undefined) await this.#send(pack);
    } catch (error) {
      this.#failure ??= { error };
    }
  }
}
