/**
 * Door 5, the real one: calls from node to node over HTTP. An answer is a stream of lines: events,
 * beats while nothing happens, and at the end a result or an error. A stream that says nothing for
 * `IDLE_MS` is taken for broken, so that a machine which lost its power is noticed long before the
 * call's own time is over. Nothing is repeated here; src/cluster/network.ts does that.
 */
import type { Clock, Network } from "../base/doors.ts";
import { AppError } from "../base/error.ts";
import type { AppErrorJson } from "../base/error.ts";
import type { Secret } from "../base/secret.ts";
import { errorFromAnswer } from "./error-answer.ts";
import { describeFetchFailure } from "./fetch-failure.ts";
import { readJsonLines } from "./json-lines.ts";

/** Four beats. */
const IDLE_MS = 20_000;

/** How this node reaches others. */
export type HttpNetworkOptions = {
  readonly fetch: (url: string, init: BunFetchRequestInit) => Promise<Response>;
  readonly clock: Clock;
  /** The node token; asked at each call, since it may be reloaded. */
  readonly token: () => Secret | undefined;
  /** PEM of the authority that signed the nodes' certificates, where it is our own. */
  readonly authority?: () => string | undefined;
};

/** Calls other nodes. */
export function createHttpNetwork(options: HttpNetworkOptions): Network {
  return {
    async call(address, method, body, how) {
      const { clock } = options;
      const ended = new AbortController();
      const broken = new AbortController();
      const answered = new AbortController();
      const outer = how.signal === undefined ? [] : [how.signal];
      const signal = AbortSignal.any([broken.signal, ...outer]);
      breakAfter(clock, how.timeoutMs, { ended: ended.signal, broken, address, method });
      try {
        const silent = { ended: answered.signal, broken, address, method };
        breakAfter(clock, Math.min(IDLE_MS, how.timeoutMs), silent);
        const response = await send(options, { address, method, body, signal });
        answered.abort();
        return await readAnswer(response, { clock, broken, address, ...how });
      } catch (thrown) {
        how.signal?.throwIfAborted();
        if (broken.signal.aborted) throw broken.signal.reason;
        throw thrown instanceof AppError ? thrown : unreachable(address, thrown);
      } finally {
        answered.abort();
        ended.abort();
        broken.abort();
      }
    },
  };
}

async function send(
  options: HttpNetworkOptions,
  call: {
    readonly address: string;
    readonly method: string;
    readonly body: unknown;
    readonly signal: AbortSignal;
  },
): Promise<Response> {
  const token = options.token();
  const authority = options.authority?.();
  return await options.fetch(`${call.address}/v1/node/${call.method}`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      ...(token === undefined ? {} : { authorization: `Bearer ${token.reveal()}` }),
    },
    body: JSON.stringify(call.body),
    signal: call.signal,
    redirect: "error",
    ...(authority === undefined ? {} : { tls: { ca: authority } }),
  });
}

type Answering = {
  readonly clock: Clock;
  readonly broken: AbortController;
  readonly address: string;
  readonly onEvent?: (event: unknown) => void;
};

async function readAnswer(response: Response, how: Answering): Promise<unknown> {
  const { address } = how;
  const isStream = response.headers.get("content-type")?.includes("x-ndjson") === true;
  if (!response.ok || !isStream || response.body === null) {
    const body: unknown = await response.json().catch(() => undefined);
    throw errorFromAnswer(response.status, body, address);
  }
  const lines = readJsonLines(response.body, { clock: how.clock, idleMs: IDLE_MS, from: address });
  for await (const line of lines) {
    if ("event" in line) how.onEvent?.(line["event"]);
    if ("result" in line) return line["result"];
    if ("error" in line) throw revive(line["error"], address);
  }
  throw new AppError("unavailable", `${address} ended its answer before the result.`, {
    guidance: "Look at the log of the server there.",
  });
}

/** Ends a call whose time is over. */
function breakAfter(
  clock: Clock,
  timeoutMs: number,
  call: {
    readonly ended: AbortSignal;
    readonly broken: AbortController;
    readonly address: string;
    readonly method: string;
  },
): void {
  const { address, method, broken } = call;
  const late = new AppError("timeout", `${address} took longer than ${timeoutMs} ms: ${method}.`);
  clock.sleep(timeoutMs, call.ended).then(
    () => broken.abort(late),
    () => undefined,
  );
}

function revive(error: unknown, address: string): AppError {
  const { kind, message, ...rest } = error as AppErrorJson;
  const isWhole = typeof kind === "string" && typeof message === "string";
  if (isWhole) return new AppError(kind, message, rest);
  return new AppError("unavailable", `${address} answered with an error that we do not know.`);
}

function unreachable(address: string, thrown: unknown): AppError {
  const why = describeFetchFailure(thrown);
  return new AppError("unavailable", `${address} cannot be reached: ${why}.`, {
    guidance: "Is `astacus server` running there, and is the address right?",
    cause: thrown,
  });
}
