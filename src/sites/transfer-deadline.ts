/**
 * How long one transfer may take: the time for an answer, and the time that its bytes need at the
 * slowest rate that is not taken for death.
 */
import { AppError } from "../base/error.ts";

/** Who is slower than this is taken for dead; a pack of 32 MiB has two minutes. */
const BYTES_PER_MS_MIN = 256;

/** Aborts with the outer signal, or when a transfer takes longer than its bytes may. */
export class TransferDeadline implements Disposable {
  readonly #limit = new AbortController();
  readonly #outer: AbortSignal | undefined;
  readonly #timeoutMs: number;
  readonly #onAbort = (): void => this.#limit.abort(this.#outer?.reason);
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(outer: AbortSignal | undefined, timeoutMs: number) {
    this.#outer = outer;
    this.#timeoutMs = timeoutMs;
    if (outer?.aborted === true) this.#onAbort();
    outer?.addEventListener("abort", this.#onAbort, { once: true });
  }

  get signal(): AbortSignal {
    return this.#limit.signal;
  }

  /** Gives the next transfer its time. */
  allow(sizeBytes: number): void {
    clearTimeout(this.#timer);
    const limitMs = this.#timeoutMs + sizeBytes / BYTES_PER_MS_MIN;
    this.#timer = setTimeout(() => {
      const message = `The store did not answer within ${Math.ceil(limitMs)} ms.`;
      const guidance = "Check endpoint, network and proxy, or raise the timeout.";
      this.#limit.abort(new AppError("timeout", message, { guidance }));
    }, limitMs);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#outer?.removeEventListener("abort", this.#onAbort);
  }
}
