/**
 * A small HTTP server that stands before a real S3 server and lets things go wrong on the line, request
 * by request: connections cut at chosen moments, bodies that are altered or end early, storms, delays,
 * and a store that takes the condition of a put and overwrites all the same. What is not meddled with
 * passes unchanged, signature and all.
 */
import { DeleteObjectCommand } from "@aws-sdk/client-s3";
import { createServer, request as sendRequest } from "node:http";
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { clientOf } from "../../scripts/real/s3.ts";
import type { RealS3 } from "../../scripts/real/s3.ts";

/** A request, as who meddles sees it. */
export type Passing = {
  readonly method: string;
  /** Path and query. */
  readonly url: string;
  /** Bucket and key, unescaped. */
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  /** Counts all requests from 0. */
  readonly index: number;
};

/** What can go wrong with it. */
export type Meddling =
  /** The server is not asked; this is the answer. */
  | { readonly act: "answer"; readonly status: number; readonly code: string }
  /** The connection breaks when so many bytes of the request's body have come. */
  | { readonly act: "cut-upload"; readonly afterBytes: number }
  /** The server does it, and the connection breaks before its answer. */
  | { readonly act: "cut-answer" }
  /** The answer says its length, and ends halfway. */
  | { readonly act: "cut-body" }
  /** The answer's length is right, and one of its bytes is not. */
  | { readonly act: "alter" }
  | { readonly act: "delay"; readonly ms: number }
  /** A put's condition is taken and not honoured. */
  | { readonly act: "overwrite" };

/** The line to a server. */
export type Meddler = AsyncDisposable & {
  /** The server, reached through here. */
  readonly real: RealS3;
  /** Decides about each request; may be set again. */
  meddle: (passing: Passing) => Meddling | undefined;
  /** How often something was done, by what. */
  readonly done: ReadonlyMap<Meddling["act"], number>;
  readonly requestCount: number;
};

/** Stands before a server, or serves as the HTTP proxy on the way to it, whatever its name is. */
export async function meddleWith(real: RealS3): Promise<Meddler> {
  const done = new Map<Meddling["act"], number>();
  let requestCount = 0;
  const server = createServer((incoming, answer) => {
    const index = requestCount;
    requestCount += 1;
    const { method = "", headers } = incoming;
    // Who takes this for an HTTP proxy sends the whole address.
    const url = (incoming.url ?? "").replace(/^http:\/\/[^/]+/, "");
    const path = decodeURIComponent(url.split("?", 1)[0] ?? "").slice(1);
    const meddling = meddler.meddle({ method, url, path, headers, index });
    if (meddling !== undefined) done.set(meddling.act, (done.get(meddling.act) ?? 0) + 1);
    pass(real, { incoming, answer, url, path, meddling }).catch(() => incoming.socket.destroy());
  });
  server.listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  const meddler: Meddler = {
    real: { ...real, endpoint: `http://127.0.0.1:${port}` },
    meddle: () => undefined,
    done,
    get requestCount() {
      return requestCount;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return meddler;
}

type Exchange = {
  readonly incoming: IncomingMessage;
  readonly answer: ServerResponse;
  readonly url: string;
  readonly path: string;
  readonly meddling: Meddling | undefined;
};

async function pass(real: RealS3, exchange: Exchange): Promise<void> {
  const { incoming, answer, path, meddling } = exchange;
  const { socket } = incoming;
  const body: Buffer[] = [];
  let sizeBytes = 0;
  for await (const part of incoming as AsyncIterable<Buffer>) {
    body.push(part);
    sizeBytes += part.length;
    if (meddling?.act === "cut-upload" && sizeBytes >= meddling.afterBytes) {
      socket.destroy();
      return;
    }
  }
  if (meddling?.act === "answer") {
    const { status, code } = meddling;
    const text = `<Error><Code>${code}</Code><Message>from the line</Message></Error>`;
    answer.writeHead(status, { "content-type": "application/xml" }).end(text);
    return;
  }
  if (meddling?.act === "delay") await Bun.sleep(meddling.ms);
  if (meddling?.act === "overwrite") await remove(real, path);
  const found = await forward(real.endpoint, exchange, Buffer.concat(body));
  if (meddling?.act === "cut-answer") {
    socket.destroy();
    return;
  }
  const { bytes } = found;
  if (meddling?.act === "alter" && bytes.length > 0) {
    const middle = bytes.length >>> 1;
    bytes[middle] = (bytes[middle] ?? 0) ^ 0x10;
  }
  answer.writeHead(found.status, found.headers);
  if (meddling?.act === "cut-body") {
    answer.write(bytes.subarray(0, bytes.length >>> 1), () => socket.destroy());
  } else answer.end(bytes);
}

async function forward(
  endpoint: string,
  { incoming, url }: Exchange,
  body: Buffer,
): Promise<{ status: number; headers: string[]; bytes: Buffer }> {
  const { hostname, port } = new URL(endpoint);
  const { method, rawHeaders } = incoming;
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  // The Host header is the client's, since it is signed.
  const sent = sendRequest({
    hostname,
    port,
    method,
    path: url,
    headers: rawHeaders,
    agent: false,
  });
  sent.once("response", resolve);
  sent.once("error", reject);
  sent.end(body);
  const response = await promise;
  const parts: Buffer[] = [];
  for await (const part of response as AsyncIterable<Buffer>) parts.push(part);
  const { statusCode: status = 500, rawHeaders: headers } = response;
  return { status, headers, bytes: Buffer.concat(parts) };
}

async function remove(real: RealS3, path: string): Promise<void> {
  const slash = path.indexOf("/");
  const client = clientOf(real);
  const [Bucket, Key] = [path.slice(0, slash), path.slice(slash + 1)];
  await client.send(new DeleteObjectCommand({ Bucket, Key }));
  client.destroy();
}
