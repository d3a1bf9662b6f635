/**
 * A bucket and the requests to it: the SDK's client, a permit for each request, and errors that say
 * what they mean. Requests are never repeated here (retrying-site.ts does that), at most `concurrency`
 * are under way, each with a deadline. The SDK is loaded when the first bucket opens.
 *
 * Two things are learned from answers: how far the store's clock is from ours, which the ends of locks
 * follow, and that credentials which the store gave for a time have ended: new ones are fetched then,
 * and the error says that the request may be sent again.
 */
import type * as Sdk from "@aws-sdk/client-s3";
import type { S3Client } from "@aws-sdk/client-s3";
import { realClock } from "../base/clock.ts";
import type { Clock } from "../base/doors.ts";
import { AppError } from "../base/error.ts";
import { toHex } from "../base/hex.ts";
import { Semaphore } from "../base/semaphore.ts";
import { FetchHandler } from "./fetch-handler.ts";
import type { S3Transport } from "./fetch-handler.ts";
import { NodeHandler } from "./node-handler.ts";
import { throwIfCancelled } from "./object-key.ts";
import { mayBeExpiry, s3Error, s3Failure } from "./s3-error.ts";
import type { StorePlace } from "./store-error.ts";
import { readAuthorities, s3Credentials, s3KeyPrefix } from "./s3-options.ts";
import type { S3SiteOptions } from "./s3-options.ts";
import type { SiteCall } from "./site.ts";

const CONCURRENCY = 16;
const REQUEST_TIMEOUT_MS = 60_000;

/** Credentials that were fetched within this time and are refused are not refused for their age. */
const RENEWAL_PAUSE_MS = 1_000;

/** One request's options for the SDK. */
export type SdkCall = { readonly abortSignal?: AbortSignal };

/** A bucket that can be asked. */
export class S3Bucket {
  readonly name: string;
  readonly location: string;
  readonly bucket: string;
  /** Before every key; empty, or with a slash at its end. */
  readonly prefix: string;
  readonly sdk: typeof Sdk;
  readonly client: S3Client;
  readonly handler: S3Transport;
  readonly #permits: Semaphore;
  readonly #clock: Clock;
  readonly #isRenewable: boolean;
  /** How often credentials were fetched because the store refused the former ones. */
  #renewals = 0;
  #renewedAtMs = Number.NEGATIVE_INFINITY;
  #skewMs: number | undefined;

  private constructor(
    options: S3SiteOptions,
    prefix: string,
    { sdk, client, handler }: Pick<S3Bucket, "sdk" | "client" | "handler">,
  ) {
    this.name = options.name;
    this.bucket = options.bucket;
    this.prefix = prefix;
    this.location = `s3://${options.bucket}${prefix === "" ? "" : `/${prefix.slice(0, -1)}`}`;
    this.sdk = sdk;
    this.client = client;
    this.handler = handler;
    this.#permits = new Semaphore(options.concurrency ?? CONCURRENCY);
    this.#clock = options.clock ?? realClock;
    this.#isRenewable = options.accessKeyId === undefined;
    this.#learnSkew();
  }

  /** Makes a client; sends nothing. */
  static async open(options: S3SiteOptions): Promise<S3Bucket> {
    // 70 ms of CPU: who has only directory sites does not pay for it.
    const sdk = await import("@aws-sdk/client-s3");
    const prefix = s3KeyPrefix(options);
    const { proxy, noProxy, caFile } = options;
    const network = {
      timeoutMs: options.requestTimeoutMs ?? REQUEST_TIMEOUT_MS,
      ...(proxy === undefined ? {} : { proxy }),
      ...(noProxy === undefined ? {} : { noProxy }),
      ...(caFile === undefined ? {} : { authorities: await readAuthorities(options.name, caFile) }),
    };
    const handler =
      options.transport === "fetch"
        ? new FetchHandler(network)
        : await NodeHandler.open({ ...network, concurrency: options.concurrency ?? CONCURRENCY });
    const client = new sdk.S3Client({
      region: options.region ?? "us-east-1",
      ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint }),
      forcePathStyle: options.forcePathStyle ?? false,
      ...s3Credentials(options),
      requestHandler: handler,
      maxAttempts: 1,
      requestChecksumCalculation: "WHEN_REQUIRED",
      responseChecksumValidation: "WHEN_REQUIRED",
      expectContinueHeader: false,
      logger: SILENT,
    });
    signWithKnownHash(client);
    return new S3Bucket(options, prefix, { sdk, client, handler });
  }

  /** Now, by the store's clock as its last answer told it, in ms since 1970. */
  now(): number {
    return this.#clock.now() + (this.#skewMs ?? 0);
  }

  /** How far the store's clock is ahead of ours, to a second; undefined before its first answer. */
  get skewMs(): number | undefined {
    return this.#skewMs;
  }

  /** Bucket and full key, as most requests want them. */
  at(key: string): { readonly Bucket: string; readonly Key: string } {
    return { Bucket: this.bucket, Key: this.prefix + key };
  }

  /** One request: a permit, and errors that say what they mean. */
  async request<T>(
    key: string | undefined,
    options: SiteCall,
    work: (how: SdkCall) => Promise<T>,
  ): Promise<T> {
    throwIfCancelled(options.signal);
    let renewals = this.#renewals;
    try {
      // The deadline of a request begins after the wait, which is not the server's fault.
      using _permit = await this.#permits.acquire(options.signal);
      renewals = this.#renewals;
      return await work(options.signal === undefined ? {} : { abortSignal: options.signal });
    } catch (thrown) {
      throwIfCancelled(options.signal);
      const error = s3Error(thrown, this.place(key));
      throw mayBeExpiry(thrown) && (await this.#renew(renewals)) ? againWith(error) : error;
    }
  }

  /** Where something happened, for messages. */
  place(key?: string): StorePlace {
    const place = { site: this.name, location: this.location, bucket: this.bucket };
    return key === undefined ? place : { ...place, key };
  }

  close(): void {
    this.client.destroy();
  }

  /**
   * Fetches new credentials where they come from a role, once for all requests that failed with the
   * same old ones. False if there are no newer ones than those that failed, or if those are as new as
   * can be, so that the store means what it says.
   */
  async #renew(renewalsBefore: number): Promise<boolean> {
    if (!this.#isRenewable) return false;
    if (this.#renewals !== renewalsBefore) return true;
    const nowMs = this.#clock.monotonic();
    if (nowMs - this.#renewedAtMs < RENEWAL_PAUSE_MS) return false;
    try {
      const { credentials } = this.client.config;
      const old = await credentials();
      const fresh = await credentials({ forceRefresh: true });
      if (fresh.accessKeyId === old.accessKeyId && fresh.sessionToken === old.sessionToken) {
        return false;
      }
    } catch {
      // What the store said about the old ones tells more.
      return false;
    }
    this.#renewals += 1;
    this.#renewedAtMs = nowMs;
    return true;
  }

  #learnSkew(): void {
    this.client.middlewareStack.add(
      (next) => async (args) => {
        const answer = await next(args);
        const date = dateOf(answer.response);
        if (date !== undefined) this.#skewMs = roughly(date - this.#clock.now());
        return answer;
      },
      // Inside of what turns answers into errors, so that a refusal tells its time too.
      { step: "deserialize", name: "learnSkew", priority: "low" },
    );
  }
}

/** The header has whole seconds, and the answer was under way: less than that is no difference. */
function roughly(skewMs: number): number {
  return Math.abs(skewMs) < 5_000 ? 0 : skewMs;
}

function dateOf(response: unknown): number | undefined {
  if (!hasHeaders(response)) return undefined;
  const time = Date.parse(response.headers["date"] ?? "");
  return Number.isNaN(time) ? undefined : time;
}

function againWith(error: AppError): AppError {
  return new AppError(error.kind, `${error.message} (new credentials were fetched)`, {
    retryable: true,
    context: error.context,
    cause: error,
  });
}

const SILENT = {
  trace: ignore,
  debug: ignore,
  info: ignore,
  warn: ignore,
  error: ignore,
};

function ignore(): void {
  // The SDK talks to the console otherwise; all that it says also comes as an error.
}

/** The signature needs the body's SHA-256 too: it is taken from the checksum, not computed again. */
function signWithKnownHash(client: S3Client): void {
  client.middlewareStack.add(
    (next) => async (args) => {
      const { request } = args;
      if (hasHeaders(request)) {
        const checksum = request.headers["x-amz-checksum-sha256"];
        if (checksum !== undefined) {
          request.headers["x-amz-content-sha256"] = toHex(Uint8Array.fromBase64(checksum));
        }
      }
      return await next(args);
    },
    { step: "build", name: "signWithKnownHash", priority: "low" },
  );
}

function hasHeaders(request: unknown): request is { headers: Record<string, string | undefined> } {
  return typeof request === "object" && request !== null && "headers" in request;
}

/** True if an error is the answer with a code or status, whatever the SDK calls it. */
export function isAnswer(thrown: unknown, ...wanted: readonly (string | number)[]): boolean {
  const { code, status } = s3Failure(thrown);
  return wanted.includes(code) || (status !== undefined && wanted.includes(status));
}

/** A header of the answer that an error of the SDK stands for. */
export function headerOf(thrown: unknown, name: string): string | undefined {
  if (typeof thrown !== "object" || thrown === null || !("$response" in thrown)) return undefined;
  const response: unknown = thrown.$response;
  return hasHeaders(response) ? response.headers[name] : undefined;
}
