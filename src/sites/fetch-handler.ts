/**
 * How the S3 SDK's requests are sent with `transport: fetch`: by the runtime, which costs a third of the CPU of Node's client
 * for a pack of 32 MiB and half of it for small objects (docs/decisions.md). Bodies are whole
 * buffers in both directions; each answer is read before it is handed on, so that an abort or a
 * broken connection shows in one place. Connections are kept alive by the runtime.
 */
import assert from "node:assert/strict";
import { cancelledBy } from "./object-key.ts";
import { TransferDeadline } from "./transfer-deadline.ts";

/** The network between us and the store. */
export type FetchHandlerOptions = {
  /** `http://user:password@host:port`. */
  readonly proxy?: string;
  /** Hosts that are reached directly, separated by commas: `localhost,.example.com,10.0.0.1:9000`. */
  readonly noProxy?: string;
  /** The longest wait for an answer, and again for its body, beside the time for their bytes. */
  readonly timeoutMs: number;
  /** PEM with the authorities to trust instead of the system's. */
  readonly authorities?: string;
};

/** What a site needs of whatever sends its requests. */
export interface S3Transport {
  /** The bytes of an object that the SDK handed out as `Body`. */
  bytesOf(body: object | undefined): Uint8Array;
}

/** The parts of the SDK's request that are sent. */
type SdkRequest = {
  readonly method: string;
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number;
  readonly path: string;
  readonly query?: Readonly<Record<string, string | readonly string[] | null>>;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: unknown;
};

type SdkAnswer = {
  readonly response: {
    readonly statusCode: number;
    readonly reason: string;
    readonly headers: Record<string, string>;
    readonly body: Uint8Array | ReadableStream;
  };
};

/** What the SDK calls to send a request. */
export class FetchHandler implements S3Transport {
  readonly metadata = { handlerProtocol: "http/1.1" };
  readonly #options: FetchHandlerOptions;
  /** The SDK wants a stream for an object's bytes; here is what such a stream stands for. */
  readonly #bodies = new WeakMap<object, Uint8Array>();

  constructor(options: FetchHandlerOptions) {
    this.#options = options;
  }

  async handle(
    request: SdkRequest,
    options: { readonly abortSignal?: unknown } = {},
  ): Promise<SdkAnswer> {
    const { abortSignal } = options;
    const outer = abortSignal instanceof AbortSignal ? abortSignal : undefined;
    using deadline = new TransferDeadline(outer, this.#options.timeoutMs);
    try {
      deadline.allow(sizeOf(request.body));
      const answer = await this.#send(request, deadline.signal);
      deadline.allow(Number(answer.headers.get("content-length") ?? 0));
      const bytes = await answer.bytes();
      const headers = Object.fromEntries(answer.headers.entries());
      const isObject = isGetObject(request.query) && answer.ok;
      const body = isObject ? this.#standIn(bytes) : bytes;
      const { status: statusCode, statusText: reason } = answer;
      return { response: { statusCode, reason, headers, body } };
    } catch (thrown) {
      throw deadline.signal.aborted ? cancelledBy(deadline.signal) : thrown;
    }
  }

  bytesOf(body: object | undefined): Uint8Array {
    assert(body !== undefined);
    const bytes = this.#bodies.get(body);
    assert(bytes !== undefined, "the SDK hands out another stream than it was given");
    return bytes;
  }

  // The SDK calls these two and needs nothing from them.
  updateHttpClientConfig(): void {
    // All settings are ours.
  }

  httpHandlerConfigs(): Record<string, never> {
    return {};
  }

  async #send(request: SdkRequest, signal: AbortSignal): Promise<Response> {
    const { authorities } = this.#options;
    const proxy = this.#proxyFor(request);
    return await fetch(urlOf(request), {
      method: request.method,
      headers: headersOf(request),
      body: bodyOf(request),
      redirect: "manual",
      decompress: false,
      signal,
      ...(proxy === undefined ? {} : { proxy }),
      ...(authorities === undefined ? {} : { tls: { ca: authorities } }),
    });
  }

  #standIn(bytes: Uint8Array): ReadableStream {
    const stream = new ReadableStream();
    this.#bodies.set(stream, bytes);
    return stream;
  }

  #proxyFor({ hostname, port }: SdkRequest): string | undefined {
    const { proxy, noProxy = "" } = this.#options;
    return proxy === undefined || isDirect(hostname, port, noProxy) ? undefined : proxy;
  }
}

/** True for the one request whose answer is an object's bytes and not text: the SDK names it. */
export function isGetObject(query: SdkRequest["query"]): boolean {
  return query?.["x-id"] === "GetObject";
}

/** True if a host is named by a NO_PROXY list: `*`, a host, or a domain; each with or without port. */
export function isDirect(hostname: string, port: number | undefined, noProxy: string): boolean {
  const host = hostname.toLowerCase();
  return noProxy
    .toLowerCase()
    .split(/[\s,]+/)
    .filter((entry) => entry !== "")
    .some((entry) => {
      const [, name = "", wantedPort] = /^(.*?)(?::(\d+))?$/.exec(entry) ?? [];
      if (wantedPort !== undefined && Number(wantedPort) !== port) return false;
      const domain = name.replace(/^\*?\./, "");
      return name === "*" || host === domain || host.endsWith(`.${domain}`);
    });
}

function urlOf({ protocol, hostname, port, path, query = {} }: SdkRequest): string {
  const pairs = Object.entries(query).flatMap(([name, value]) =>
    [value ?? ""].flat().map((one) => `${escapeQuery(name)}=${escapeQuery(one)}`),
  );
  const address = port === undefined ? hostname : `${hostname}:${port}`;
  return `${protocol}//${address}${path}${pairs.length === 0 ? "" : `?${pairs.join("&")}`}`;
}

/** As the signature has it: everything but unreserved characters. */
function escapeQuery(value: string): string {
  const escaped = encodeURIComponent(value);
  return escaped.replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

/** `fetch` sets host and length itself; the answer shall not be compressed on its way. */
function headersOf({ headers }: SdkRequest): Record<string, string> {
  const { host: _host, "content-length": _length, ...rest } = headers;
  return { ...rest, "accept-encoding": "identity" };
}

function bodyOf({ body }: SdkRequest): string | Uint8Array | null {
  if (body === undefined || body === null || body === "") return null;
  assert(typeof body === "string" || body instanceof Uint8Array);
  return body;
}

function sizeOf(body: unknown): number {
  return body instanceof Uint8Array ? body.length : 0;
}
