/**
 * One HTTP request and its whole answer, for sites that speak HTTP themselves or lend their SDK a
 * client: sent by the runtime, with a deadline, through a proxy or past it, never redirected, never
 * repeated, never compressed on its way. Connections are kept alive by the runtime.
 *
 * Memory: one body sent, one received. A URL may hold a signature, so errors never carry its query.
 */
import { readFile } from "node:fs/promises";
import { AppError } from "../base/error.ts";
import { isDirect, type FetchHandlerOptions } from "./fetch-handler.ts";
import { cancelledBy } from "./object-key.ts";
import { TransferDeadline } from "./transfer-deadline.ts";

/** What is sent; header names in any case. */
export type HttpRequest = {
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
  readonly signal?: AbortSignal;
};

/** What came back, whole. */
export type HttpAnswer = {
  readonly status: number;
  readonly headers: Headers;
  readonly bytes: Uint8Array;
};

/** Sends requests by the settings of one site. */
export class HttpExchange {
  readonly #options: FetchHandlerOptions;

  constructor(options: FetchHandlerOptions) {
    this.#options = options;
  }

  /** Throws `cancelled` or `timeout`, or what the runtime says of the connection. */
  async send(request: HttpRequest): Promise<HttpAnswer> {
    const { body } = request;
    using deadline = new TransferDeadline(request.signal, this.#options.timeoutMs);
    try {
      deadline.allow(body?.length ?? 0);
      const answer = await this.#fetch(request, deadline.signal);
      const expected = Number(answer.headers.get("content-length") ?? 0);
      deadline.allow(expected);
      const bytes = await answer.bytes();
      if (request.method !== "HEAD" && bytes.length < expected) {
        throw new AppError("unavailable", `The answer broke off after ${bytes.length} bytes.`);
      }
      return { status: answer.status, headers: answer.headers, bytes };
    } catch (thrown) {
      throw deadline.signal.aborted ? cancelledBy(deadline.signal) : withoutQuery(thrown);
    }
  }

  async #fetch(request: HttpRequest, signal: AbortSignal): Promise<Response> {
    const { proxy, noProxy = "", authorities } = this.#options;
    const { hostname, port } = new URL(request.url);
    const isProxied =
      proxy !== undefined && !isDirect(hostname, port === "" ? undefined : Number(port), noProxy);
    return await fetch(request.url, {
      method: request.method,
      headers: headersOf(request.headers),
      body: request.body ?? null,
      redirect: "manual",
      decompress: false,
      signal,
      ...(isProxied ? { proxy } : {}),
      ...(authorities === undefined ? {} : { tls: { ca: authorities } }),
    });
  }
}

/** The authorities that a site trusts, as PEM. */
export async function readAuthorities(site: string, caFile: string): Promise<string> {
  try {
    return await readFile(caFile, "utf8");
  } catch (thrown) {
    throw new AppError("config", `The caFile ${caFile} of site ${site} cannot be read.`, {
      guidance: "Name a PEM file with the certificates of the authorities to trust.",
      context: { site },
      cause: thrown,
    });
  }
}

/** `fetch` sets host and length itself. */
function headersOf(headers: Readonly<Record<string, string>>): Record<string, string> {
  const own = Object.entries(headers).filter(([name]) => !/^(host|content-length)$/i.test(name));
  return { ...Object.fromEntries(own), "accept-encoding": "identity" };
}

/** The runtime names the address in its errors; what follows the question mark may be a secret. */
function withoutQuery(thrown: unknown): unknown {
  if (thrown instanceof Error && "path" in thrown && typeof thrown.path === "string") {
    thrown.path = thrown.path.replace(/\?.*$/s, "");
  }
  return thrown;
}
