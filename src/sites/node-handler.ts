/**
 * How the S3 SDK's requests are sent by default: the SDK's own handler over Node's HTTP client, with
 * connections kept alive, as many sockets as the site has requests, and limits on every wait. Answers
 * are read whole before they are handed on, as fetch-handler.ts does, so that a broken connection
 * shows in one place. Proxies come with the runtime's `proxyEnv`.
 */
import type { NodeHttpHandler } from "@smithy/node-http-handler";
import assert from "node:assert/strict";
import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { Writable } from "node:stream";
import { freeBytes } from "../base/free-bytes.ts";
import { isGetObject } from "./fetch-handler.ts";
import type { FetchHandlerOptions, S3Transport } from "./fetch-handler.ts";
import { cancelledBy } from "./object-key.ts";
import { OBJECT_SIZE_BYTES_MAX } from "./site.ts";
import { TransferDeadline } from "./transfer-deadline.ts";

const CONNECT_TIMEOUT_MS = 10_000;
const IDLE_TIMEOUT_MS = 60_000;

type Handled = Parameters<NodeHttpHandler["handle"]>;

/** The SDK's own handler, tuned for whole objects. */
export class NodeHandler implements S3Transport {
  readonly metadata = { handlerProtocol: "http/1.1" };
  readonly #inner: NodeHttpHandler;
  readonly #timeoutMs: number;
  /** The SDK wants a stream for an object's bytes; here is what such a stream stands for. */
  readonly #bodies = new WeakMap<object, Uint8Array>();

  private constructor(inner: NodeHttpHandler, timeoutMs: number) {
    this.#inner = inner;
    this.#timeoutMs = timeoutMs;
  }

  /** Loads the handler's package, which costs who has no S3 site nothing. */
  static async open(
    options: FetchHandlerOptions & { readonly concurrency: number },
  ): Promise<NodeHandler> {
    const { NodeHttpHandler } = await import("@smithy/node-http-handler");
    const { proxy, noProxy, authorities } = options;
    const agent = {
      keepAlive: true,
      maxSockets: options.concurrency,
      ...(authorities === undefined ? {} : { ca: authorities }),
      ...(proxy === undefined ? {} : { proxyEnv: proxyVariables(proxy, noProxy) }),
    };
    const inner = new NodeHttpHandler({
      connectionTimeout: CONNECT_TIMEOUT_MS,
      socketTimeout: IDLE_TIMEOUT_MS,
      httpAgent: withoutJoining(new HttpAgent(agent)),
      httpsAgent: withoutJoining(new HttpsAgent(agent)),
    });
    return new NodeHandler(inner, options.timeoutMs);
  }

  async handle(
    request: Handled[0],
    options: { readonly abortSignal?: unknown } = {},
  ): Promise<Awaited<ReturnType<NodeHttpHandler["handle"]>>> {
    const outer = options.abortSignal instanceof AbortSignal ? options.abortSignal : undefined;
    const body: unknown = request.body;
    const sentBytes = body instanceof Uint8Array ? body.length : 0;
    using deadline = new TransferDeadline(outer, this.#timeoutMs);
    try {
      deadline.allow(sentBytes);
      const { response } = await this.#inner.handle(request, { abortSignal: deadline.signal });
      deadline.allow(Number(response.headers["content-length"] ?? 0));
      const parts = response.body as AsyncIterable<Uint8Array>;
      const sizeBytes = expectedSize(request.method, response.headers["content-length"]);
      const bytes = await collect(parts, { sizeBytes, signal: deadline.signal });
      const isObject = isGetObject(request.query) && response.statusCode < 300;
      response.body = isObject ? this.#standIn(bytes) : bytes;
      return { response };
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

  destroy(): void {
    this.#inner.destroy();
  }

  // The SDK calls these two and needs nothing from them.
  updateHttpClientConfig(): void {
    // All settings are ours.
  }

  httpHandlerConfigs(): Record<string, never> {
    return {};
  }

  #standIn(bytes: Uint8Array): ReadableStream {
    const stream = new ReadableStream();
    this.#bodies.set(stream, bytes);
    return stream;
  }
}

/** What the answer says of its body, as far as it is to be believed. */
function expectedSize(method: string, header: string | undefined): number {
  const sizeBytes = method === "HEAD" ? 0 : Number(header ?? 0);
  return Number.isSafeInteger(sizeBytes) && sizeBytes <= OBJECT_SIZE_BYTES_MAX ? sizeBytes : 0;
}

/**
 * The whole body; fails when the signal fires, even if the stream stays silent. Each part is copied
 * and its memory given back as it comes: all parts and their sum would be twice the body, and what
 * the runtime frees it frees late.
 */
async function collect(
  body: AsyncIterable<Uint8Array>,
  { sizeBytes, signal }: { readonly sizeBytes: number; readonly signal: AbortSignal },
): Promise<Uint8Array> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(cancelledBy(signal));
  signal.addEventListener("abort", onAbort, { once: true });
  const read = async (): Promise<Uint8Array> => {
    let bytes = new Uint8Array(sizeBytes);
    let filled = 0;
    for await (const part of body) {
      if (filled + part.length > bytes.length) {
        const grown = new Uint8Array(Math.max(filled + part.length, 2 * bytes.length));
        grown.set(bytes.subarray(0, filled));
        bytes = grown;
      }
      bytes.set(part, filled);
      filled += part.length;
      freeBytes(part);
    }
    return filled === bytes.length ? bytes : bytes.slice(0, filled);
  };
  try {
    if (signal.aborted) throw cancelledBy(signal);
    return await Promise.race([read(), aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/**
 * The runtime's sockets join what waits to be written, the head of a request and its body, in a new
 * buffer. For an object's bytes that doubles memory and what a request costs (8 MB bodies: 2.2 CPU
 * seconds a GB, 1.2 without); without `_writev` a stream writes one buffer after the other.
 */
function withoutJoining<A extends HttpAgent>(agent: A): A {
  const connect = agent.createConnection.bind(agent);
  agent.createConnection = (options, callback) => {
    const socket = connect(options, callback);
    if (socket instanceof Writable) Object.assign(socket, { _writev: undefined });
    return socket;
  };
  return agent;
}

function proxyVariables(proxy: string, noProxy: string | undefined): Record<string, string> {
  return {
    HTTP_PROXY: proxy,
    HTTPS_PROXY: proxy,
    ...(noProxy === undefined ? {} : { NO_PROXY: noProxy }),
  };
}
