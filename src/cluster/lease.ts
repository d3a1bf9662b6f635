/**
 * A node's lease: at most one backup or restore works on a node at a time. A lease has a random id,
 * compared for equality at each request, and a time to live; whoever holds an old id is refused,
 * whatever it believes. When a lease ends (released, expired, taken over, taken down) everything
 * that runs under it is aborted and awaited before the next one is given.
 */
import type { Clock } from "../base/doors.ts";
import { AppError } from "../base/error.ts";
import { LEASE_RENEWAL_COUNT } from "./protocol.ts";
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

/** A watch that wakes up so late was held up with all else in this process. */
const LATE_MS = 1000;

/** What lies in the sockets is heard within this time. */
const HEARING_MS = 1000;

/** Ids of ended leases that are remembered, so that a request which comes late takes nothing. */
const ENDED_COUNT_MAX = 100;

/** The one lease that a node gives at a time. */
export class LeaseHolder {
  readonly #clock: Clock;
  readonly #endedIds = new Set<string>();
  #held: Held | undefined;
  #isClosed = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The lease in force. */
  get current(): LeaseRequest | undefined {
    const held = this.#held;
    return held !== undefined && held.ended === undefined ? held.request : undefined;
  }

  /**
   * Gives the lease, or the same one again; refuses while another operation holds it. A coordinator
   * leads one operation at a time: whatever it led before has ended, and gives way.
   */
  async take(request: LeaseRequest): Promise<void> {
    for (;;) {
      if (this.#isClosed) throw shuttingDown();
      if (this.#endedIds.has(request.lease)) throw notInForce();
      const held = this.#held;
      if (held === undefined) break;
      if (held.ended === undefined && held.request.lease === request.lease) {
        held.expiresAt = this.#clock.monotonic() + request.ttlMs;
        return;
      }
      const isOfSame = held.request.coordinator === request.coordinator;
      if (held.ended === undefined && !isOfSame) throw busy(held.request);
      await this.#end(held, takenOver(request));
    }
    const fresh: Held = {
      request,
      abort: new AbortController(),
      cleanUps: [],
      expiresAt: this.#clock.monotonic() + request.ttlMs,
      ended: undefined,
    };
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
    this.#remember(lease);
    const held = this.#held;
    if (held === undefined || held.request.lease !== lease) return;
    await this.#end(held, new AppError("cancelled", "The operation on this node has ended."));
  }

  /** For shutdown. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const held = this.#held;
    if (held !== undefined) await this.#end(held, shuttingDown());
  }

  /** It is in force until it has ended: nobody else has it before, however late its holder is. */
  #mustHold(lease: string): Held {
    const held = this.#held;
    const isHeld = held !== undefined && held.ended === undefined && held.request.lease === lease;
    if (isHeld) return held;
    throw notInForce();
  }

  /**
   * Ends the lease when it was not renewed in time. While this process stood still (a blocked disk, a
   * machine that was paused) it could hear nobody: so what may have come by then is heard first, once.
   */
  async #watch(held: Held): Promise<void> {
    let heardUntil = 0;
    while (held.ended === undefined) {
      const nowMs = this.#clock.monotonic();
      const leftMs = held.expiresAt - nowMs;
      if (leftMs <= 0 && heardUntil === held.expiresAt) {
        await this.#end(held, expired(held.request));
        return;
      }
      if (leftMs <= 0) heardUntil = held.expiresAt;
      try {
        await this.#clock.sleep(leftMs > 0 ? leftMs : hearingMs(held, -leftMs), held.abort.signal);
      } catch {
        return; // ended while we slept
      }
    }
  }

  /** Never rejects: what a clean-up could not do is no reason to hold the lease for ever. */
  #end(held: Held, reason: AppError): Promise<void> {
    held.ended ??= (async () => {
      this.#remember(held.request.lease);
      held.abort.abort(reason);
      for (const cleanUp of held.cleanUps.toReversed()) await cleanUp().catch(() => undefined);
      if (this.#held === held) this.#held = undefined;
    })();
    return held.ended;
  }

  #remember(lease: string): void {
    this.#endedIds.add(lease);
    const [oldest] = this.#endedIds;
    if (this.#endedIds.size > ENDED_COUNT_MAX && oldest !== undefined)
      this.#endedIds.delete(oldest);
  }
}

/** How long a renewal is still waited for: the next one comes too, if connections broke meanwhile. */
function hearingMs({ request }: Held, lateMs: number): number {
  const renewalMs = request.ttlMs / LEASE_RENEWAL_COUNT;
  return lateMs < LATE_MS ? Math.min(HEARING_MS, renewalMs) : renewalMs;
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

function notInForce(): AppError {
  return new AppError("conflict", "This lease is not in force on this node.", {
    guidance:
      "The node restarted, or the lease expired while its coordinator was silent. Run the same " +
      "command again: what was done is not done twice.",
    context: { reason: "lease-lost" },
  });
}

function expired(request: LeaseRequest): AppError {
  return new AppError(
    "timeout",
    `The coordinator of ${request.kind} ${request.operation} fell silent.`,
    {
      retryable: false,
      guidance: "Run the same command again; what was stored is reused.",
      context: { reason: "lease-lost" },
    },
  );
}

function takenOver(request: LeaseRequest): AppError {
  return new AppError("cancelled", `Its coordinator went on to operation ${request.operation}.`, {
    context: { reason: "lease-lost" },
  });
}

function shuttingDown(): AppError {
  return new AppError("unavailable", "This server is shutting down.", {
    guidance: "Wait until it is back.",
    context: { reason: "shutting-down" },
  });
}
