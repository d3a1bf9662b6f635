/**
 * Reads a stream of JSON objects, one a line, as they arrive. A stream that is silent for too long
 * is broken, whatever the connection says. Memory: one line, of at most 64 MiB.
 */
import type { Clock } from "../base/doors.ts";
import { AppError } from "../base/error.ts";

const LINE_LENGTH_MAX = 64 * 1024 * 1024;

/** One line. */
export type JsonLine = Readonly<Record<string, unknown>>;

/** Yields the objects of a stream; throws AppError `unavailable` where it breaks or falls silent. */
export async function* readJsonLines(
  body: ReadableStream<Uint8Array>,
  options: { readonly clock: Clock; readonly idleMs: number; readonly from: string },
): AsyncGenerator<JsonLine> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await readWithin(reader, options);
      const text = done ? decoder.decode() : decoder.decode(value, { stream: true });
      const lines = text.split("\n");
      lines[0] = rest + (lines[0] ?? "");
      rest = lines.pop() ?? "";
      for (const line of lines) if (line.trim() !== "") yield parseLine(line, options.from);
      if (rest.length > LINE_LENGTH_MAX) throw broken(options.from, "sent a line without an end");
      if (!done) continue;
      if (rest.trim() !== "") throw broken(options.from, "broke off in the middle of a line");
      return;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

type Reader = {
  read(): Promise<{ readonly done: boolean; readonly value?: Uint8Array | undefined }>;
};

async function readWithin(
  reader: Reader,
  options: { readonly clock: Clock; readonly idleMs: number; readonly from: string },
): Promise<{ readonly done: boolean; readonly value?: Uint8Array | undefined }> {
  const arrived = new AbortController();
  const silent = options.clock.sleep(options.idleMs, arrived.signal).then(() => {
    throw broken(options.from, `said nothing for ${Math.round(options.idleMs / 1000)} s`);
  });
  try {
    return await Promise.race([reader.read(), silent]);
  } catch (thrown) {
    if (thrown instanceof AppError) throw thrown;
    throw broken(options.from, "broke off the connection", thrown);
  } finally {
    silent.catch(() => undefined);
    arrived.abort();
  }
}

function parseLine(line: string, from: string): JsonLine {
  try {
    const value: unknown = JSON.parse(line);
    if (typeof value === "object" && value !== null) return value as JsonLine;
  } catch {
    // Falls through: whoever sent this is not one of ours.
  }
  throw broken(from, "sent something that is not JSON");
}

function broken(from: string, what: string, cause?: unknown): AppError {
  return new AppError("unavailable", `${from} ${what}.`, {
    guidance: "Look at the network between, and at the log of the server there.",
    cause,
  });
}
