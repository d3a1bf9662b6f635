/**
 * Calls between nodes with patience: a request that got no answer is repeated until the node has
 * been silent for too long, because every method may be repeated and a phase attaches to the work
 * that is under way. Answers pass their schema here and nowhere else.
 */
import type { z } from "zod";
import type { Clock, Network } from "../base/doors.ts";
import { AppError, toAppError } from "../base/error.ts";

/**
 * A node that dies is noticed within this time, since an answer that is long in coming carries beats
 * (src/server/http-network.ts): a try that lasted longer had a living node at its other end.
 */
const SILENCE_SEEN_WITHIN_MS = 30_000;

/** First pause between two tries, doubled up to the second figure. */
const PAUSE_MS_MIN = 200;
const PAUSE_MS_MAX = 5_000;

/** How one call is made. */
export type CallOptions = {
  /** How long one try may take. */
  readonly timeoutMs: number;
  /** How long a node may be silent before the call fails. */
  readonly patienceMs: number;
  readonly signal: AbortSignal;
  readonly onEvent?: (event: unknown) => void;
};

/** A node, by name and address. */
export type NodeAddress = {
  readonly name: string;
  readonly address: string;
  readonly zone: string;
};

/** Calls a method on a node until it answers, refuses, or was silent for `patienceMs`. */
export async function callNode<T>(
  doors: { readonly network: Network; readonly clock: Clock },
  node: NodeAddress,
  call: { readonly method: string; readonly body: unknown; readonly answer: z.ZodType<T> },
  options: CallOptions,
): Promise<T> {
  let silentSince = doors.clock.monotonic();
  let pauseMs = PAUSE_MS_MIN;
  for (;;) {
    options.signal.throwIfAborted();
    const triedAt = doors.clock.monotonic();
    try {
      const answer = await doors.network.call(node.address, call.method, call.body, {
        timeoutMs: options.timeoutMs,
        signal: options.signal,
        onEvent: (event) => {
          silentSince = doors.clock.monotonic();
          options.onEvent?.(event);
        },
      });
      return parseAnswer(node, call.method, call.answer, answer);
    } catch (thrown) {
      options.signal.throwIfAborted();
      const error = toAppError(thrown);
      // What a node has said itself is an answer, though trying all of it again may help.
      if (!error.retryable || error.context["answered"] === true) throw error;
      const nowMs = doors.clock.monotonic();
      const wasAlive = nowMs - triedAt > SILENCE_SEEN_WITHIN_MS;
      if (wasAlive) silentSince = Math.max(silentSince, nowMs - SILENCE_SEEN_WITHIN_MS);
      if (wasAlive) pauseMs = PAUSE_MS_MIN;
      const silentMs = nowMs - silentSince;
      if (silentMs >= options.patienceMs) throw nodeSilent(node, silentMs, error);
      await doors.clock.sleep(Math.min(pauseMs, options.patienceMs), options.signal);
      pauseMs = Math.min(pauseMs * 2, PAUSE_MS_MAX);
    }
  }
}

function parseAnswer<T>(
  node: NodeAddress,
  method: string,
  schema: z.ZodType<T>,
  answer: unknown,
): T {
  const parsed = schema.safeParse(answer);
  if (parsed.success) return parsed.data;
  throw new AppError("refused", `Node ${node.name} answered ${method} in a form we do not know.`, {
    guidance: "It may run another version: bring all nodes to the same one.",
    context: { node: node.name, method, problem: parsed.error.issues[0]?.message ?? "" },
  });
}

function nodeSilent(node: NodeAddress, silentMs: number, cause: AppError): AppError {
  const seconds = Math.round(silentMs / 1000);
  // It answered, and knows best what it waits for.
  const isUp = cause.context["reason"] === "not-ready";
  const what = isUp ? "was not ready" : "did not answer";
  return new AppError(
    "unavailable",
    `Node ${node.name} (${node.address}) ${what} for ${seconds} s: ${cause.message}`,
    {
      guidance:
        isUp && cause.guidance !== undefined
          ? cause.guidance
          : "Is `astacus server` running there, and does its address in the configuration lead to it?",
      context: { node: node.name, reason: "node-silent" },
      cause,
    },
  );
}
