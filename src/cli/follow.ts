/**
 * Follows an operation to its end. A lost connection does not cancel it: it is picked up again where
 * it is by then. Ctrl-C does cancel it, and a second one leaves at once.
 */
import { realClock } from "../base/clock.ts";
import { AppError, toAppError } from "../base/error.ts";
import type { OperationEvent, OperationRecord } from "../cluster/operations.ts";
import type { Client } from "./client.ts";
import type { CommandRun } from "./command.ts";
import { openProgressView } from "./progress-view.ts";
import type { ProgressView } from "./progress-view.ts";

/** How long a server may be away before the command gives up on it. */
const AWAY_MS_MAX = 120_000;
const PAUSE_MS = 500;
const PAUSE_MS_MAX = 5_000;

/**
 * Waits for the end of an operation, or returns the record as it is: with `--no-wait` at once, after
 * the time of `--wait-completion`, or after a second Ctrl-C.
 */
export async function follow(
  run: CommandRun,
  client: Client,
  record: OperationRecord,
): Promise<OperationRecord> {
  if (!run.options.wait) return record;
  const leave = new AbortController();
  const view = await openProgressView(run.terminal, () => realClock.monotonic());
  const interrupt = onInterrupt(run, client, { id: record.id, view, leave });
  const { waitCompletion } = run.options;
  const timer =
    waitCompletion === undefined
      ? undefined
      : setTimeout(() => leave.abort(), waitCompletion * 1000);
  try {
    return await untilEnd(client, record, { view, signal: leave.signal });
  } finally {
    clearTimeout(timer);
    process.off("SIGINT", interrupt);
    view.close();
  }
}

function onInterrupt(
  run: CommandRun,
  client: Client,
  watched: {
    readonly id: string;
    readonly view: ProgressView;
    readonly leave: AbortController;
  },
): () => void {
  let hits = 0;
  const listener = (): void => {
    hits += 1;
    if (hits > 1) return watched.leave.abort();
    watched.view.say("Cancelling; once more to leave without waiting for it.");
    client
      .post(`/v1/operations/${watched.id}/cancel`, { reason: "Ctrl-C" })
      .catch((thrown: unknown) => run.terminal.say(toAppError(thrown).message));
  };
  process.on("SIGINT", listener);
  return listener;
}

async function untilEnd(
  client: Client,
  record: OperationRecord,
  how: { readonly view: ProgressView; readonly signal: AbortSignal },
): Promise<OperationRecord> {
  const { view, signal } = how;
  let awaySinceMs: number | undefined;
  let pauseMs = PAUSE_MS;
  const path = `/v1/operations/${record.id}`;
  while (!signal.aborted) {
    try {
      for await (const line of client.stream(`${path}/events`, signal)) {
        awaySinceMs = undefined;
        pauseMs = PAUSE_MS;
        const event = line as OperationEvent;
        if (event.type === "end") return event.record;
        if (event.type === "progress") view.show(event.progress);
        else view.say(event.message);
      }
      awaySinceMs ??= realClock.monotonic();
    } catch (thrown) {
      if (signal.aborted) break;
      const error = toAppError(thrown);
      const isPassing = error.retryable || error.context["reason"] === "server-unreachable";
      if (!isPassing) throw error;
      if (awaySinceMs === undefined) {
        view.say(`The connection was lost, the operation goes on: ${error.message}`);
      }
      awaySinceMs ??= realClock.monotonic();
      if (realClock.monotonic() - awaySinceMs > AWAY_MS_MAX) throw lost(record, error);
    }
    await realClock.sleep(pauseMs, signal).catch(() => undefined);
    pauseMs = Math.min(pauseMs * 2, PAUSE_MS_MAX);
  }
  return record;
}

function lost(record: OperationRecord, cause: AppError): AppError {
  return new AppError("unavailable", `The server is away; operation ${record.id} may go on.`, {
    guidance: "`astacus status` shows what became of it, once the server is back.",
    context: { reason: "server-unreachable", operation: record.id },
    cause,
  });
}
