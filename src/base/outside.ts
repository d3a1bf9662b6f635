/**
 * Door 7, the real one: commands and HTTP calls to databases. Every call ends within its time; a
 * command that must end takes all its children along (`nodetool` is a shell that starts a JVM), and
 * no output fills the memory.
 */
import type { Outside } from "./doors.ts";
import { AppError } from "./error.ts";

/** No stream of a command may be longer. */
export const OUTPUT_SIZE_BYTES_MAX = 64 * 1024 * 1024;

/** How long a command may take to end after SIGTERM; then comes SIGKILL. */
const GRACE_MS = 2_000;

/** Commands and databases as this machine reaches them. */
export const realOutside: Outside = { run: runCommand, fetch: fetchWithin };

type RunOptions = Parameters<Outside["run"]>[1];
type RunResult = Awaited<ReturnType<Outside["run"]>>;
type Process = Bun.Subprocess<Uint8Array<ArrayBuffer> | "ignore", "pipe", "pipe">;

async function runCommand(command: readonly string[], options: RunOptions): Promise<RunResult> {
  options.signal?.throwIfAborted();
  const name = command[0] ?? "";
  const process = spawn(command, options.input);
  const { promise: stopped, reject: stop } = Promise.withResolvers<never>();
  const timer = setTimeout(() => stop(timeoutError(name, options.timeoutMs)), options.timeoutMs);
  const onAbort = (): void => stop(options.signal?.reason);
  options.signal?.addEventListener("abort", onAbort, { once: true });
  const stdout = process.stdout.getReader();
  const stderr = process.stderr.getReader();
  const done = Promise.all([readBounded(stdout, name), readBounded(stderr, name), process.exited]);
  try {
    const [output, errors, exitCode] = await Promise.race([done, stopped]);
    return { exitCode, stdout: output, stderr: errors };
  } catch (thrown) {
    await endGroup(process);
    // A grandchild that left the group may hold the pipes open: nobody waits for it.
    await Promise.allSettled([stdout.cancel(), stderr.cancel()]);
    throw thrown;
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener("abort", onAbort);
  }
}

function spawn(command: readonly string[], input: Uint8Array | undefined): Process {
  try {
    return Bun.spawn([...command], {
      stdin: input === undefined ? "ignore" : new Uint8Array(input),
      stdout: "pipe",
      stderr: "pipe",
      // A group of its own, so that all of it can be ended.
      detached: true,
    });
  } catch (thrown) {
    const name = command[0] ?? "";
    const code = thrown instanceof Error && "code" in thrown ? String(thrown.code) : "unknown";
    const kind = code === "ENOENT" ? "not-found" : "permission";
    throw new AppError(kind, `Cannot start the command ${name} (${code}).`, {
      guidance: "Install it, or correct its path in the configuration, or its mode.",
      context: { command: name, code },
      cause: thrown,
    });
  }
}

type Reader = { read(): Promise<{ done: boolean; value?: Uint8Array | undefined }> };

async function readBounded(reader: Reader, name: string): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let sizeBytes = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (value !== undefined) {
      parts.push(value);
      sizeBytes += value.byteLength;
    }
    if (sizeBytes > OUTPUT_SIZE_BYTES_MAX) {
      throw new AppError("refused", `The command ${name} wrote more than 64 MiB.`, {
        guidance: "Run it by hand and look at what it writes.",
        context: { command: name },
      });
    }
    if (done) return Buffer.concat(parts);
  }
}

async function endGroup(child: Process): Promise<void> {
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    if (!signalGroup(child, signal)) return;
    await Promise.race([child.exited, Bun.sleep(GRACE_MS)]);
  }
}

/** False if nobody of the group is left. */
function signalGroup(child: Process, signal: NodeJS.Signals): boolean {
  try {
    process.kill(-child.pid, signal);
    return true;
  } catch {
    return false;
  }
}

function timeoutError(name: string, timeoutMs: number): AppError {
  return new AppError("timeout", `The command ${name} did not end within ${timeoutMs} ms.`, {
    guidance: "Look at what it waits for, or allow it more time in the configuration.",
    context: { command: name, timeoutMs },
  });
}

type FetchInit = Parameters<Outside["fetch"]>[1];

/** `timeoutMs` holds for the whole exchange, the body included; the body is streamed. */
async function fetchWithin(url: string, init: FetchInit): Promise<Response> {
  const { timeoutMs, signal: outer, ...rest } = init;
  const within = AbortSignal.timeout(timeoutMs);
  const signal = outer === undefined || outer === null ? within : AbortSignal.any([outer, within]);
  const describe = (thrown: unknown): unknown => fetchError(url, timeoutMs, thrown, outer);
  let response: Response;
  try {
    response = await fetch(url, { ...rest, signal });
  } catch (thrown) {
    throw describe(thrown);
  }
  if (response.body === null) return response;
  return new Response(withErrors(response.body, describe), {
    status: response.status,
    statusText: response.statusText,
    headers: response.headers,
  });
}

/** The same stream, whose errors are those of `describe`. */
function withErrors(
  source: ReadableStream<Uint8Array<ArrayBuffer>>,
  describe: (thrown: unknown) => unknown,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const reader = source.getReader();
  return new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (done) controller.close();
        else controller.enqueue(value);
      } catch (thrown) {
        controller.error(describe(thrown));
      }
    },
    async cancel(reason) {
      await reader.cancel(reason);
    },
  });
}

function fetchError(
  url: string,
  timeoutMs: number,
  cause: unknown,
  outer: AbortSignal | null | undefined,
): unknown {
  if (outer?.aborted === true) return outer.reason;
  const place = withoutSecrets(url);
  const context = { url: place, timeoutMs };
  if (cause instanceof Error && cause.name === "TimeoutError") {
    return new AppError("timeout", `${place} did not answer within ${timeoutMs} ms.`, {
      guidance: "Check that the service is up and not overloaded, or allow it more time.",
      context,
      cause,
    });
  }
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new AppError("unavailable", `Cannot reach ${place}: ${reason.replaceAll(url, place)}`, {
    guidance: "Check the address, and that the service runs and can be reached from here.",
    context,
    cause,
  });
}

/** Origin and path: user names and queries may hold secrets. */
function withoutSecrets(url: string): string {
  const parsed = URL.parse(url);
  return parsed === null ? "(no valid address)" : parsed.origin + parsed.pathname;
}
