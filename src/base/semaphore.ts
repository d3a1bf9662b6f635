/**
 * Bounded concurrency, the only kind that we have. Waiters are served in order. Whatever runs
 * through here has ended when the call returns or throws: an error or a consumer that leaves early
 * aborts the rest and waits for it.
 */
import assert from "node:assert/strict";

/** A number of permits; who has one may go. */
export class Semaphore {
  #free: number;
  /** In order of arrival; a set, so that one that gives up leaves cheaply. */
  readonly #waiters = new Set<() => void>();

  constructor(permits: number) {
    assert(Number.isSafeInteger(permits));
    assert(permits >= 1);
    this.#free = permits;
  }

  /** Waits for a permit, which goes back when it is disposed of; rejects when the signal aborts. */
  async acquire(signal?: AbortSignal): Promise<Disposable> {
    signal?.throwIfAborted();
    if (this.#free > 0) this.#free -= 1;
    else await this.#wait(signal);
    let isHeld = true;
    return {
      [Symbol.dispose]: () => {
        if (isHeld) this.#release();
        isHeld = false;
      },
    };
  }

  /** Runs `fn` while holding a permit. */
  async run<Result>(fn: () => Promise<Result> | Result, signal?: AbortSignal): Promise<Result> {
    using _permit = await this.acquire(signal);
    return await fn();
  }

  #wait(signal: AbortSignal | undefined): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onAbort = (): void => {
      this.#waiters.delete(onTurn);
      reject(signal?.reason);
    };
    const onTurn = (): void => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    };
    this.#waiters.add(onTurn);
    signal?.addEventListener("abort", onAbort, { once: true });
    return promise;
  }

  /** Hands the permit to the next waiter directly, so that nobody slips in between. */
  #release(): void {
    for (const next of this.#waiters) {
      this.#waiters.delete(next);
      next();
      return;
    }
    this.#free += 1;
  }
}

/** What `mapConcurrent` can walk. */
export type Items<Item> = Iterable<Item> | AsyncIterable<Item>;

/**
 * Maps items with at most `concurrency` at work or waiting to be taken, and yields results as they
 * come. `fn` gets a signal that also aborts when another item failed or nobody wants more.
 */
export async function* mapConcurrent<Item, Result>(
  items: Items<Item>,
  concurrency: number,
  fn: (item: Item, signal: AbortSignal) => Promise<Result>,
  signal?: AbortSignal,
): AsyncGenerator<Result, void, undefined> {
  assert(Number.isSafeInteger(concurrency));
  assert(concurrency >= 1);
  signal?.throwIfAborted();
  const crew = new Crew(items, concurrency, fn);
  const onAbort = (): void => crew.fail(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    for (;;) {
      const taken = await crew.take();
      if (taken === undefined) return;
      yield taken.value;
    }
  } finally {
    signal?.removeEventListener("abort", onAbort);
    await crew.end();
  }
}

/** `mapConcurrent` for effects: returns when all items are done, throws the first error. */
export async function forEachConcurrent<Item>(
  items: Items<Item>,
  concurrency: number,
  fn: (item: Item, signal: AbortSignal) => Promise<unknown>,
  signal?: AbortSignal,
): Promise<void> {
  for await (const _ of mapConcurrent(items, concurrency, fn, signal)) {
    // The results are of no interest.
  }
}

/** The state of one `mapConcurrent`. */
class Crew<Item, Result> {
  readonly #iterator: Iterator<Item> | AsyncIterator<Item>;
  readonly #concurrency: number;
  readonly #fn: (item: Item, signal: AbortSignal) => Promise<Result>;
  readonly #stop = new AbortController();
  readonly #running = new Set<Promise<void>>();
  readonly #results: { readonly value: Result }[] = [];
  #failure: { readonly error: unknown } | undefined;
  #isPulling = false;
  #isExhausted = false;
  #changed = Promise.withResolvers<void>();

  constructor(
    items: Items<Item>,
    concurrency: number,
    fn: (item: Item, signal: AbortSignal) => Promise<Result>,
  ) {
    this.#iterator =
      Symbol.asyncIterator in items ? items[Symbol.asyncIterator]() : items[Symbol.iterator]();
    this.#concurrency = concurrency;
    this.#fn = fn;
  }

  /** The next result; undefined when all are taken. */
  async take(): Promise<{ readonly value: Result } | undefined> {
    for (;;) {
      this.#fill();
      if (this.#failure !== undefined) throw this.#failure.error;
      const result = this.#results.shift();
      if (result !== undefined) return result;
      if (this.#isExhausted && this.#running.size === 0) return undefined;
      await this.#changed.promise;
      this.#changed = Promise.withResolvers<void>();
    }
  }

  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#stop.abort(error);
    this.#changed.resolve();
  }

  /** Aborts what still runs and waits for it; lets the source go. */
  async end(): Promise<void> {
    const isAsked = !this.#isExhausted;
    this.#isExhausted = true;
    this.#stop.abort(new DOMException("No more results are wanted.", "AbortError"));
    while (this.#running.size > 0) await Promise.all(this.#running);
    if (!isAsked) return;
    const returned = this.#iterator.return?.();
    // A source that still owes an item may never give it: then nobody waits for its end.
    if (this.#isPulling) void Promise.resolve(returned).catch(() => undefined);
    else await returned;
  }

  #fill(): void {
    while (
      !this.#isExhausted &&
      !this.#isPulling &&
      this.#failure === undefined &&
      this.#running.size + this.#results.length < this.#concurrency
    ) {
      this.#pull();
    }
  }

  #pull(): void {
    try {
      const next = this.#iterator.next();
      if (!(next instanceof Promise)) return this.#accept(next);
      this.#isPulling = true;
      next.then(
        (result) => {
          this.#isPulling = false;
          this.#accept(result);
          this.#changed.resolve();
        },
        (error: unknown) => {
          this.#isPulling = false;
          this.#isExhausted = true;
          this.fail(error);
        },
      );
    } catch (error) {
      this.#isExhausted = true;
      this.fail(error);
    }
  }

  #accept(next: IteratorResult<Item>): void {
    if (next.done === true) this.#isExhausted = true;
    else if (!this.#isExhausted) this.#start(next.value);
  }

  #start(item: Item): void {
    const task: Promise<void> = this.#work(item).finally(() => {
      this.#running.delete(task);
      this.#changed.resolve();
    });
    this.#running.add(task);
  }

  async #work(item: Item): Promise<void> {
    try {
      this.#results.push({ value: await this.#fn(item, this.#stop.signal) });
    } catch (error) {
      this.fail(error);
    }
  }
}
