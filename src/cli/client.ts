/**
 * Talks HTTP with a server. Errors of the server come back as the AppErrors that they were; a server
 * that cannot be reached is an AppError of its own, which decides the exit code.
 */
import { realClock } from "../base/clock.ts";
import { AppError } from "../base/error.ts";
import { errorFromAnswer } from "../server/error-answer.ts";
import { describeFetchFailure } from "../server/fetch-failure.ts";
import { readJsonLines } from "../server/json-lines.ts";
import type { JsonLine } from "../server/json-lines.ts";

/** A quiet stream beats every 5 s. */
const IDLE_MS = 20_000;

/** Where the server is, and how it knows us. */
export type ClientOptions = {
  readonly url: string;
  readonly token?: string;
  /** PEM of the authority of its certificate. */
  readonly authority?: string;
};

/** A client of one server. */
export class Client {
  readonly url: string;
  readonly #options: ClientOptions;

  constructor(options: ClientOptions) {
    this.url = options.url.replace(/\/+$/, "");
    this.#options = options;
  }

  /** Asks; `query` leaves out what is undefined. */
  async get<T>(
    path: string,
    query: Readonly<Record<string, string | number | boolean | undefined>> = {},
  ): Promise<T> {
    const search = new URLSearchParams();
    for (const [key, value] of Object.entries(query)) {
      if (value !== undefined) search.set(key, String(value));
    }
    return await this.#json<T>(search.size === 0 ? path : `${path}?${search.toString()}`, {
      method: "GET",
    });
  }

  /** Has something done. */
  async post<T>(path: string, body: object = {}): Promise<T> {
    return await this.#json<T>(path, { method: "POST", body: JSON.stringify(body) });
  }

  /** Has something forgotten or stopped. */
  async delete<T>(path: string, body: object = {}): Promise<T> {
    return await this.#json<T>(path, { method: "DELETE", body: JSON.stringify(body) });
  }

  /** The lines of a stream, without its beats. */
  async *stream(path: string, signal: AbortSignal): AsyncGenerator<JsonLine> {
    const response = await this.#send(path, { method: "GET", signal });
    if (!response.ok || response.body === null) throw await this.#error(response);
    const lines = readJsonLines(response.body, {
      clock: realClock,
      idleMs: IDLE_MS,
      from: this.url,
    });
    for await (const line of lines) if (!("beat" in line)) yield line;
  }

  /** The answer to a GET as it comes, for what is no JSON, with its headers. */
  async download(
    path: string,
    query: URLSearchParams,
    signal: AbortSignal,
  ): Promise<{ readonly body: ReadableStream<Uint8Array>; readonly headers: Headers }> {
    const response = await this.#send(`${path}?${query.toString()}`, { method: "GET", signal });
    if (!response.ok || response.body === null) throw await this.#error(response);
    const { body, headers } = response;
    return { body, headers };
  }

  async #json<T>(path: string, init: BunFetchRequestInit): Promise<T> {
    const response = await this.#send(path, init);
    if (!response.ok) throw await this.#error(response);
    try {
      return (await response.json()) as T;
    } catch {
      // Another program's page, or an answer that was cut off.
      throw errorFromAnswer(response.status, undefined, this.url);
    }
  }

  async #error(response: Response): Promise<AppError> {
    const body: unknown = await response.json().catch(() => undefined);
    const error = errorFromAnswer(response.status, body, this.url);
    const { status } = response;
    if (status !== 401 && status !== 403) return error;
    return new AppError(error.kind, error.message, {
      ...(error.guidance === undefined ? {} : { guidance: error.guidance }),
      context: { ...error.context, status },
    });
  }

  async #send(path: string, init: BunFetchRequestInit): Promise<Response> {
    const { token, authority } = this.#options;
    const headers: Record<string, string> = { "content-type": "application/json" };
    if (token !== undefined) headers["authorization"] = `Bearer ${token}`;
    try {
      // No time limit of its own: a plan may walk for minutes, and a stream beats.
      return await fetch(this.url + path, {
        ...init,
        headers,
        timeout: false,
        ...(authority === undefined ? {} : { tls: { ca: authority } }),
      });
    } catch (thrown) {
      init.signal?.throwIfAborted();
      const why = describeFetchFailure(thrown);
      throw new AppError("unavailable", `No server answers at ${this.url}: ${why}.`, {
        guidance: "Is `astacus server` running? -u URL says where; -c FILE reads it from the file.",
        context: { reason: "server-unreachable", url: this.url },
        cause: thrown,
      });
    }
  }
}
