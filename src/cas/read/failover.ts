/**
 * One site, and the next where the first one fails: what is missing or damaged here, what the site
 * does not answer after all its retries, and what takes too long, is read from the next site. Whoever
 * is slow is not given up: the first of both that has it is believed (callers check what they get).
 * A site that did not answer is asked again only after a rest, so that not every read pays its retries.
 */
import type { Clock } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import type { ErrorKind } from "../../base/error.ts";

/** How a read failed at a site. */
export type ReadFaultKind = "missing" | "damaged" | "unavailable" | "slow";

/** Something that a site should have given and did not. */
export type ReadFault = {
  /** The site's name. */
  readonly site: string;
  /** Of the object; for a chunk that the site's index does not know, `chunk` and its id. */
  readonly key: string;
  /** The pack's id, where a pack is at fault. */
  readonly pack?: string;
  /** The manifest's id, where that is at fault. */
  readonly manifest?: string;
  readonly kind: ReadFaultKind;
};

/** Where to go on, and when. */
export type FailoverOptions<Next> = {
  /** Opened at the first need; undefined if no other site answers. */
  readonly next: () => Promise<Next | undefined>;
  readonly clock: Clock;
  /** No answer for so long, and the next site is asked too. */
  readonly slowMs?: number;
};

/** One read, at either site. */
export type Ask<Next, Result> = {
  readonly here: (signal: AbortSignal | undefined) => Promise<Result>;
  readonly there: (next: Next, signal: AbortSignal | undefined) => Promise<Result>;
  /** Told when this site does not answer, or not in time; what is bad in an answer is seen elsewhere. */
  readonly onSilent: (kind: "unavailable" | "slow") => void;
};

/** A range of 2 MiB that takes longer is not worth waiting for alone. */
export const SLOW_MS_DEFAULT = 20_000;

/** How long a site that did not answer is left alone. */
export const REST_MS = 60_000;

type Outcome<Result> = { readonly value: Result } | { readonly error: unknown };

/** The way from one site to the next. */
export class Failover<Next> {
  readonly #options: FailoverOptions<Next>;
  #next: Promise<Next | undefined> | undefined;
  #opensAtMs = Number.NEGATIVE_INFINITY;
  #restsUntilMs = Number.NEGATIVE_INFINITY;

  constructor(options: FailoverOptions<Next>) {
    this.#options = options;
  }

  /** Reads here, or else there. If neither has it, the error is that of this site. */
  async read<Result>(ask: Ask<Next, Result>, signal?: AbortSignal): Promise<Result> {
    if (this.#nowMs >= this.#restsUntilMs) return await this.#readEither(ask, signal);
    const there = await outcomeOf(this.#readThere(ask, signal));
    if ("value" in there) return there.value;
    if (!mayBeElsewhere(there.error)) throw there.error;
    return await this.#readHere(ask, signal);
  }

  async #readHere<Result>(
    ask: Ask<Next, Result>,
    signal: AbortSignal | undefined,
  ): Promise<Result> {
    try {
      return await ask.here(signal);
    } catch (error) {
      this.#note(ask, error);
      throw error;
    }
  }

  async #readThere<Result>(
    ask: Ask<Next, Result>,
    signal: AbortSignal | undefined,
  ): Promise<Result> {
    const next = await this.#open();
    signal?.throwIfAborted();
    if (next === undefined) throw new AppError("unavailable", "No other site answers.");
    return await ask.there(next, signal);
  }

  async #readEither<Result>(
    ask: Ask<Next, Result>,
    outer: AbortSignal | undefined,
  ): Promise<Result> {
    const ended = new AbortController();
    const signal = outer === undefined ? ended.signal : AbortSignal.any([outer, ended.signal]);
    try {
      const here = outcomeOf(ask.here(signal));
      const first = await Promise.race([here, this.#patience(signal)]);
      if (first === "slow") {
        ask.onSilent("slow");
        this.#rest();
        return await firstGood(here, outcomeOf(this.#readThere(ask, signal)));
      }
      if ("value" in first) return first.value;
      outer?.throwIfAborted();
      if (!mayBeElsewhere(first.error)) throw first.error;
      this.#note(ask, first.error);
      return await firstGood(here, outcomeOf(this.#readThere(ask, signal)));
    } finally {
      // Whoever lost need not go on, nor need the timer.
      ended.abort(new AppError("cancelled", "Another site was faster."));
    }
  }

  /** Resolves when a read has taken too long; never, if nobody can tell. */
  async #patience(signal: AbortSignal): Promise<"slow"> {
    const { clock, slowMs = SLOW_MS_DEFAULT } = this.#options;
    try {
      await clock.sleep(slowMs, signal);
      return "slow";
    } catch {
      // The read is over, or will be as soon as it sees the signal.
      return await new Promise<never>(() => undefined);
    }
  }

  #note<Result>(ask: Ask<Next, Result>, error: unknown): void {
    if (!mayBeElsewhere(error) || error.kind === "damaged") return;
    ask.onSilent("unavailable");
    this.#rest();
  }

  #rest(): void {
    this.#restsUntilMs = this.#nowMs + REST_MS;
  }

  get #nowMs(): number {
    return this.#options.clock.monotonic();
  }

  /** The next site; if none could be opened, that is tried again after a rest. */
  async #open(): Promise<Next | undefined> {
    if (this.#next !== undefined) return await this.#next;
    if (this.#nowMs < this.#opensAtMs) return undefined;
    this.#next = this.#options.next().catch((thrown: unknown) => {
      if (!mayBeElsewhere(thrown)) throw thrown;
      return undefined;
    });
    const next = await this.#next;
    if (next === undefined) {
      this.#next = undefined;
      this.#opensAtMs = this.#nowMs + REST_MS;
    }
    return next;
  }
}

const ELSEWHERE: ReadonlySet<ErrorKind> = new Set([
  "damaged",
  "unavailable",
  "timeout",
  "permission",
  "not-found",
]);

/** True if another site may give what this error is about. */
export function mayBeElsewhere(error: unknown): error is AppError {
  if (!(error instanceof AppError) || !ELSEWHERE.has(error.kind)) return false;
  // A damaged catalog is built again; no site can help.
  return error.context["catalog"] !== true;
}

/** What has a value first; if neither has, the error of the first site, unless the other's is worse. */
async function firstGood<Result>(
  here: Promise<Outcome<Result>>,
  there: Promise<Outcome<Result>>,
): Promise<Result> {
  const faster = await Promise.race([here, there]);
  if ("value" in faster) return faster.value;
  const [one, other] = await Promise.all([here, there]);
  if ("value" in one) return one.value;
  if ("value" in other) return other.value;
  throw mayBeElsewhere(other.error) ? one.error : other.error;
}

async function outcomeOf<Result>(work: Promise<Result>): Promise<Outcome<Result>> {
  try {
    return { value: await work };
  } catch (error) {
    return { error };
  }
}
