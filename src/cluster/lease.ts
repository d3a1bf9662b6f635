/**
 * A node's lease: at most one backup or restore works on a node at a time. A lease has a random id,
 * compared for equality at each request, and a time to live; whoever holds an old id is refused,
 * whatever it believes. When a lease ends (released, expired, taken down) everything that runs under
 * it is aborted and awaited before the next one is given.
 */
import type { Clock } from "../base/doors.ts";
import { AppError } from "../base/error.ts";
import type { LeaseRequest } from "./protocol.ts";

/** What lives as long as a lease. */
export type Leased = {
  readonly request: LeaseRequest;
  readonly signal: AbortSignal;
  /** Called once at the end, after the signal. */
  onEnd(cleanUp: () => Promise<void>): void;
};

type Held = {
  readonly request: LeaseRequest;
  readonly abort: AbortController;
  readonly cleanUps: (() => Promise<void>)[];
  expiresAt: number;
  ended: Promise<void> | undefined;
};

/** The one lease that a node gives at a time. */
export class LeaseHolder {
  readonly #clock: Clock;
  #held: Held | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The lease in force. */
  get current(): LeaseRequest | undefined {
    const held = this.#held;
    return held !== undefined && held.ended === undefined ? held.request : undefined;
  }

  /** Gives the lease, or the same one again; refuses while another operation holds it. */
  async take(request: LeaseRequest): Promise<void> {
    const held = this.#held;
    if (held !== undefined) {
      if (held.ended === undefined && held.request.lease === request.lease) {
        held.expiresAt = this.#clock.monotonic() + request.ttlMs;
        return;
      }
      if (held.ended === undefined && this.#clock.monotonic() < held.expiresAt) {
        throw busy(held.request);
      }
      await this.#end(held, expired(held.request));
    }
    const fresh: Held = {
      request,
      abort: new AbortController(),
      cleanUps: [],
      expiresAt: this.#clock.monotonic() + request.ttlMs,
      ended: undefined,
    };
    if (this.#held !== undefined && this.#held.ended === undefined) throw busy(this.#held.request);
    this.#held = fresh;
    void this.#watch(fresh);
  }

  /** Prolongs; refuses a lease that is not in force. */
  renew(lease: string): void {
    const held = this.#mustHold(lease);
    held.expiresAt = this.#clock.monotonic() + held.request.ttlMs;
  }

  /** What the holder of `lease` may use; refuses anybody else. */
  use(lease: string): Leased {
    const held = this.#mustHold(lease);
    return {
      request: held.request,
      signal: held.abort.signal,
      onEnd: (cleanUp) => held.cleanUps.push(cleanUp),
    };
  }

  /** Ends the lease; a lease that is not in force is fine (it ended already). */
  async release(lease: string): Promise<void> {
    const held = this.#held;
    if (held === undefined || held.request.lease !== lease) return;
    await this.#end(held, new AppError("cancelled", "The operation on this node has ended."));
  }

  /** For shutdown. */
  async close(): Promise<void> {
    const held = this.#held;
    if (held !== undefined) {
      await this.#end(held, new AppError("unavailable", "This server is shutting down."));
    }
  }

  #mustHold(lease: string): Held {
    const held = this.#held;
    if (held !== undefined && held.ended === undefined && held.request.lease === lease) return held;
    throw new AppError("conflict", "This lease is not in force on this node.", {
      guidance: "The node restarted, or the lease expired while its coordinator was silent.",
      context: { reason: "lease-lost" },
    });
  }

  async #watch(held: Held): Promise<void> {
    while (held.ended === undefined) {
      const leftMs = held.expiresAt - this.#clock.monotonic();
      if (leftMs <= 0) {
        await this.#end(held, expired(held.request));
        return;
      }
      try {
        await this.#clock.sleep(leftMs, held.abort.signal);
      } catch {
        return; // ended while we slept
      }
    }
  }

  #end(held: Held, reason: AppError): Promise<void> {
    held.ended ??= (async () => {
      held.abort.abort(reason);
      for (const cleanUp of held.cleanUps.toReversed()) await cleanUp();
      if (this.#held === held) this.#held = undefined;
    })();
    return held.ended;
  }
}

function busy(request: LeaseRequest): AppError {
  return new AppError(
    "conflict",
    `This node is busy with a ${request.kind} (operation ${request.operation}).`,
    {
      guidance: "Wait for it to end, or cancel it with `astacus cancel`.",
      context: { reason: "lease-held", operation: request.operation },
    },
  );
}

function expired(request: LeaseRequest): AppError {
  return new AppError("timeout", `The coordinator of ${request.kind} ${request.operation} fell silent.`, {
    retryable: false,
    guidance: "Run the same command again; what was stored is reused.",
    context: { reason: "lease-expired" },
  });
}
