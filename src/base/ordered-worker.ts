/**
 * A Bun Worker that is asked and answers, in order, so that questions need no numbers. The other
 * side answers each message with one `WorkerAnswer`.
 */
import { AppError } from "./error.ts";
import type { AppErrorJson } from "./error.ts";

/** One message from a worker: the answer to the oldest question that has none. */
export type WorkerAnswer = { readonly answer: unknown } | { readonly error: AppErrorJson };

/**
 * One worker; `what` names it in errors.
 *
 * @example
 * const worker = new OrderedWorker(new URL("plane-worker.ts", import.meta.url), "backup worker");
 * const packs = (await worker.call({ call: "flush" })) as SentPack[];
 */
export class OrderedWorker {
  readonly #worker: Worker;
  readonly #what: string;
  readonly #waiting: PromiseWithResolvers<unknown>[] = [];
  #failure: AppError | undefined;

  constructor(module: URL, what: string) {
    this.#what = what;
    // `smol`: what a worker allocates beside its buffers is small and short-lived.
    this.#worker = new Worker(module.href, { smol: true });
    this.#worker.addEventListener("message", (event: MessageEvent<WorkerAnswer>) =>
      this.#accept(event.data),
    );
    this.#worker.addEventListener("error", (event) => {
      this.#fail(new AppError("internal", `A ${what} ended: ${event.message}.`));
    });
  }

  /** The answer. Throws the AppError of the other side, or why there is no worker any more. */
  async call(ask: object, transfer: ArrayBuffer[] = []): Promise<unknown> {
    if (this.#failure !== undefined) throw this.#failure;
    const waiting = Promise.withResolvers<unknown>();
    this.#waiting.push(waiting);
    this.#worker.postMessage(ask, transfer);
    return await waiting.promise;
  }

  /** Tells without waiting. If it fails, so does every other call. */
  tell(ask: object, transfer: ArrayBuffer[] = []): void {
    this.call(ask, transfer).catch(() => undefined);
  }

  /** Ends the worker; what waits for it is cancelled. */
  close(): void {
    this.#fail(new AppError("cancelled", `The ${this.#what} was closed.`));
    this.#worker.terminate();
  }

  #accept(message: WorkerAnswer): void {
    const waiting = this.#waiting.shift();
    if (waiting === undefined) return;
    if ("answer" in message) return waiting.resolve(message.answer);
    const { kind, message: text, ...options } = message.error;
    waiting.reject(new AppError(kind, text, options));
  }

  #fail(error: AppError): void {
    this.#failure ??= error;
    for (const waiting of this.#waiting.splice(0)) waiting.reject(this.#failure);
  }
}
