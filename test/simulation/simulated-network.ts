/**
 * Calls between simulated nodes: JSON in and out, delivered late, twice or never, with answers that
 * get lost, between nodes that may be cut off from each other. Like the real one it notices within
 * seconds that the other end of a long call has fallen silent, and it never repeats anything.
 */
import type { Clock, Network, Random } from "../../src/base/doors.ts";
import { AppError, toAppError } from "../../src/base/error.ts";
import type { AppErrorJson } from "../../src/base/error.ts";
import type { JsonValue, PhaseEvent } from "../../src/cluster/protocol.ts";
import type { ProcessLife } from "./simulated-process.ts";
import { never } from "./virtual-clock.ts";

/** Who answers at an address; undefined while no process listens there. */
export type Listener = {
  readonly life: ProcessLife;
  handle(
    method: string,
    body: unknown,
    options: { readonly signal: AbortSignal; readonly emit: (event: PhaseEvent) => void },
  ): Promise<JsonValue>;
};

/** Chance of each fault, for each call. */
export type NetworkRates = {
  readonly dropped: number;
  readonly answerLost: number;
  readonly duplicated: number;
  readonly delayed: number;
};

/** No faults. */
export const CALM_NETWORK: NetworkRates = {
  dropped: 0,
  answerLost: 0,
  duplicated: 0,
  delayed: 0,
};

const LATENCY_MS = 4;
const DELAY_MS_MAX = 4000;
/** A duplicate may come long after the call that it belongs to. */
const DUPLICATE_DELAY_MS_MAX = 90_000;
/** How often the two ends look whether the other one is there, and when they give up. */
const BEAT_MS = 5000;
const SILENT_MS = 20_000;

type Call = {
  readonly from: string;
  readonly address: string;
  readonly method: string;
  readonly text: string;
};

/** The wires between all nodes. */
export class SimulatedNetwork {
  rates: NetworkRates = CALM_NETWORK;
  readonly counts: Record<string, number> = {};
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #listeners = new Map<string, Listener>();
  readonly #cuts = new Set<string>();
  readonly #note: (line: string) => void;

  constructor(clock: Clock, random: Random, note: (line: string) => void) {
    this.#clock = clock;
    this.#random = random;
    this.#note = note;
  }

  listen(address: string, listener: Listener): void {
    this.#listeners.set(address, listener);
  }

  /** Nothing passes between the two until `heal`. */
  cut(one: string, other: string): void {
    this.#cuts.add(pairOf(one, other));
  }

  heal(): void {
    this.#cuts.clear();
  }

  /** The door of one process. */
  doorOf(from: string, life: ProcessLife): Network {
    return {
      call: (address, method, body, options) =>
        life.async("network", `${method} ${address}`, async () => {
          const call = { from, address, method, text: JSON.stringify(body) };
          return await this.#call(call, life, options);
        }),
    };
  }

  async #call(
    call: Call,
    life: ProcessLife,
    options: Parameters<Network["call"]>[3],
  ): Promise<unknown> {
    options.signal?.throwIfAborted();
    this.#note(`call ${call.from} ${call.address} ${call.method}`);
    const broken = new AbortController();
    const onAbort = (): void => broken.abort(options.signal?.reason);
    options.signal?.addEventListener("abort", onAbort, { once: true });
    this.#breakAfter(options.timeoutMs, call, broken);
    this.#watch(call, life, broken);
    try {
      const delivered = this.#deliver(call, broken, (event) => {
        if (life.isAlive && !broken.signal.aborted) options.onEvent?.(event);
      });
      return await Promise.race([delivered, rejection(broken.signal)]);
    } finally {
      options.signal?.removeEventListener("abort", onAbort);
      broken.abort(unreachable(call, "the call is over"));
    }
  }

  async #deliver(
    call: Call,
    broken: AbortController,
    onEvent: (event: unknown) => void,
  ): Promise<unknown> {
    await this.#clock.sleep(this.#random.fraction() * LATENCY_MS);
    if (this.#draw("delayed")) await this.#clock.sleep(this.#random.fraction() * DELAY_MS_MAX);
    if (this.#isCut(call) || this.#draw("dropped")) return await this.#silence(call, broken);
    if (this.#draw("duplicated")) this.#duplicate(call);
    const answer = await this.#handle(call, broken.signal, onEvent);
    await this.#clock.sleep(this.#random.fraction() * LATENCY_MS);
    if (this.#isCut(call) || this.#draw("answerLost")) return await this.#silence(call, broken);
    if ("result" in answer) return JSON.parse(answer.result);
    const { kind, message, ...rest } = JSON.parse(answer.error) as AppErrorJson;
    throw new AppError(kind, message, rest);
  }

  /** The other end at work; its answer as text. A node that dies resets its connections. */
  async #handle(
    call: Call,
    signal: AbortSignal,
    onEvent: (event: unknown) => void,
  ): Promise<{ readonly result: string } | { readonly error: string }> {
    const listener = this.#listeners.get(call.address);
    if (listener?.life.isAlive !== true) throw unreachable(call, "nobody listens there");
    const died = Promise.withResolvers<never>();
    died.promise.catch(() => undefined);
    listener.life.onDeath(() => died.reject(unreachable(call, "the connection was reset")));
    const emit = (event: PhaseEvent): void => {
      if (listener.life.isAlive && !this.#isCut(call)) onEvent(JSON.parse(JSON.stringify(event)));
    };
    const handled = listener
      .handle(call.method, JSON.parse(call.text), { signal, emit })
      .then((result) => ({ result: JSON.stringify(result) }))
      .catch((thrown: unknown) => ({ error: JSON.stringify(toAppError(thrown)) }))
      // What a dead process answers nobody hears.
      .then((answer) => (listener.life.isAlive ? answer : never<typeof answer>()));
    return await Promise.race([handled, died.promise]);
  }

  #duplicate(call: Call): void {
    const delayMs = this.#random.fraction() * DUPLICATE_DELAY_MS_MAX;
    this.#clock.sleep(delayMs).then(
      async () => {
        if (this.#isCut(call)) return;
        this.#note(`again ${call.from} ${call.address} ${call.method}`);
        await this.#handle(call, new AbortController().signal, () => undefined).catch(() => {});
      },
      () => undefined,
    );
  }

  /** Nothing comes: the caller gives up when its patience for silence ends. */
  async #silence(call: Call, broken: AbortController): Promise<never> {
    await this.#clock.sleep(SILENT_MS);
    broken.abort(unreachable(call, "it is silent"));
    return await rejection(broken.signal);
  }

  #breakAfter(timeoutMs: number, call: Call, broken: AbortController): void {
    const late = new AppError("timeout", `${call.address} took too long: ${call.method}.`);
    this.#clock.sleep(timeoutMs, broken.signal).then(
      () => broken.abort(late),
      () => undefined,
    );
  }

  /** Both ends of a long call look after each other. */
  #watch(call: Call, life: ProcessLife, broken: AbortController): void {
    const look = async (): Promise<void> => {
      for (let silentMs = 0; silentMs < SILENT_MS;) {
        await this.#clock.sleep(BEAT_MS, broken.signal);
        if (!life.isAlive) return broken.abort(unreachable(call, "the caller died"));
        silentMs = this.#isCut(call) ? silentMs + BEAT_MS : 0;
      }
      broken.abort(unreachable(call, "it fell silent"));
    };
    look().catch(() => undefined);
  }

  #isCut({ from, address }: Call): boolean {
    return this.#cuts.has(pairOf(from, address));
  }

  #draw(fault: keyof NetworkRates): boolean {
    const rate = this.rates[fault];
    if (rate === 0 || this.#random.fraction() >= rate) return false;
    this.counts[fault] = (this.counts[fault] ?? 0) + 1;
    return true;
  }
}

function pairOf(one: string, other: string): string {
  return [one, other].toSorted().join(" ");
}

function rejection(signal: AbortSignal): Promise<never> {
  return new Promise<never>((_, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
}

function unreachable(call: Call, why: string): AppError {
  return new AppError("unavailable", `${call.address} cannot be reached: ${why}.`);
}
