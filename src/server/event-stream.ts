/**
 * Streams of events as HTTP answers: NDJSON, one JSON value a line, or server-sent events. A beat
 * goes out while nothing happens, so that a broken connection is told from a quiet one. Memory: a
 * reader that does not read costs at most `QUEUE_COUNT_MAX` events; what says only how far
 * something is may be left out for it.
 */
import type { Clock } from "../base/doors.ts";

/** How often a quiet stream says that it lives. */
export const BEAT_MS = 5_000;

const QUEUE_COUNT_MAX = 1_000;

/** Writes one event; `droppable` ones may be left out for a slow reader. */
export type WriteEvent = (event: object, options?: { readonly droppable?: boolean }) => void;

/** How lines look. */
export type StreamForm = "ndjson" | "sse";

const HEADERS: Readonly<Record<StreamForm, string>> = {
  ndjson: "application/x-ndjson",
  sse: "text/event-stream",
};

/** An answer that lasts as long as `produce`; `signal` aborts when the client goes. */
export function eventResponse(
  options: { readonly clock: Clock; readonly form: StreamForm; readonly signal: AbortSignal },
  produce: (write: WriteEvent, signal: AbortSignal) => Promise<void>,
): Response {
  const { clock, form } = options;
  const gone = new AbortController();
  const signal = AbortSignal.any([options.signal, gone.signal]);
  const encoder = new TextEncoder();
  const stream = new ReadableStream<Uint8Array>(
    {
      start(controller) {
        const send = (text: string): void => {
          if (!signal.aborted) controller.enqueue(encoder.encode(text));
        };
        const write: WriteEvent = (event, how) => {
          const isFull = (controller.desiredSize ?? 0) <= 0;
          if (isFull && how?.droppable === true) return;
          send(form === "sse" ? sseText(event) : `${JSON.stringify(event)}\n`);
        };
        const beat = form === "sse" ? ": beat\n\n" : '{"beat":true}\n';
        const done = new AbortController();
        const beats = sendBeats(clock, () => send(beat), AbortSignal.any([signal, done.signal]));
        const end = async (): Promise<void> => {
          try {
            await produce(write, signal);
          } finally {
            done.abort();
            await beats;
            if (!signal.aborted) controller.close();
          }
        };
        end().catch((thrown: unknown) => {
          if (!signal.aborted) controller.error(thrown);
        });
      },
      cancel: () => gone.abort(),
    },
    new CountQueuingStrategy({ highWaterMark: QUEUE_COUNT_MAX }),
  );
  return new Response(stream, {
    headers: { "content-type": HEADERS[form], "cache-control": "no-store" },
  });
}

async function sendBeats(clock: Clock, beat: () => void, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await clock.sleep(BEAT_MS, signal);
    } catch {
      return;
    }
    beat();
  }
}

function sseText(event: object): string {
  const type = "type" in event && typeof event.type === "string" ? event.type : "message";
  return `event: ${type}\ndata: ${JSON.stringify(event)}\n\n`;
}
