/**
 * A route as data: method, path, schemas, one call. The same table registers with Hono, checks
 * requests, and renders OpenAPI, so that none of the three can say something else.
 */
import type { z } from "zod";
import { AppError } from "../base/error.ts";
import type { Clock } from "../base/doors.ts";
import type { Access } from "./auth.ts";
import type { ServerContext } from "./server-context.ts";

/** What a route's function gets. */
export type Call<Body = unknown, Query = unknown> = {
  readonly context: ServerContext;
  readonly request: Request;
  readonly parameters: Readonly<Record<string, string>>;
  readonly body: Body;
  readonly query: Query;
  /** Aborts when the client has gone. */
  readonly signal: AbortSignal;
  /** Lets this request take longer than an idle connection may. */
  readonly takeYourTime: () => void;
};

/** One route. `run` answers plain data, or a `Response` where that is not enough. */
export type Route<Body = unknown, Query = unknown> = {
  readonly method: "GET" | "POST" | "DELETE";
  /** With `:name` for parameters. */
  readonly path: string;
  readonly summary: string;
  readonly access: Access;
  readonly body?: z.ZodType<Body>;
  readonly query?: z.ZodType<Query>;
  /** What comes back, or the type of content where it is no JSON. */
  readonly answer: z.ZodType | string;
  /** Headers of the answer that say more than its content, with what they say. */
  readonly answerHeaders?: Readonly<Record<string, string>>;
  /** 200 unless told. */
  readonly status?: number;
  /** Larger bodies than the configuration's limit, for calls between nodes. */
  readonly bodyBytesMax?: number;
  readonly run: (call: Call<Body, Query>) => unknown;
};

/** A route whose function gets what its schemas say. */
export function defineRoute<Body, Query>(route: Route<Body, Query>): Route {
  // The table calls `run` with what these same schemas returned, and nothing else.
  return route as unknown as Route;
}

/** Reads a JSON body within a size and a time; an empty one is `{}`. */
export async function readJson(
  request: Request,
  limits: { readonly sizeBytes: number; readonly timeoutMs: number; readonly clock: Clock },
): Promise<unknown> {
  const declared = Number(request.headers.get("content-length") ?? 0);
  if (declared > limits.sizeBytes) throw tooLarge(limits.sizeBytes);
  if (request.body === null) return {};
  const read = new AbortController();
  const late = limits.clock.sleep(limits.timeoutMs, read.signal).then(() => {
    throw new AppError("timeout", "The request's body did not arrive in time.", {
      context: { status: 408 },
    });
  });
  try {
    const text = await Promise.race([readText(request.body, limits.sizeBytes), late]);
    return text.trim() === "" ? {} : parseText(text);
  } finally {
    late.catch(() => undefined);
    read.abort();
  }
}

/** Applies a schema to what a client sent; throws AppError `usage` that names every wrong part. */
export function mustParse<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) => {
    const place = issue.path.map(String).join(".");
    return place === "" ? issue.message : `${place}: ${issue.message}`;
  });
  throw new AppError("usage", `The ${what} is not as expected: ${problems.join("; ")}.`, {
    guidance: "/openapi.json and docs/http.md say what each route takes.",
    context: { reason: "invalid-request" },
  });
}

async function readText(
  body: ReadableStream<Uint8Array<ArrayBuffer>>,
  sizeBytesMax: number,
): Promise<string> {
  const parts: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const part of body) {
    sizeBytes += part.byteLength;
    if (sizeBytes > sizeBytesMax) throw tooLarge(sizeBytesMax);
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}

function parseText(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (thrown) {
    throw new AppError("usage", "The request's body is not JSON.", {
      context: { reason: "invalid-request" },
      cause: thrown,
    });
  }
}

function tooLarge(sizeBytes: number): AppError {
  return new AppError("usage", `The request is larger than ${sizeBytes} bytes.`, {
    guidance: "`limits.requestBody` of the configuration is the limit.",
    context: { status: 413, reason: "request-too-large" },
  });
}
