/**
 * A site in S3 or a store that speaks its protocol. Every object is one PUT with `If-None-Match: *`
 * and the SHA-256 of its bytes, which the server verifies; so it is created once, whole, and as it
 * was meant, or not at all. Requests are never repeated here (retrying-site.ts does that), and at
 * most `concurrency` are under way, each with a deadline.
 *
 * Memory: `concurrency` bodies of at most one object. The SDK is loaded when the first site opens.
 */
import type * as Sdk from "@aws-sdk/client-s3";
import type { S3Client } from "@aws-sdk/client-s3";
import { readFile } from "node:fs/promises";
import { AppError } from "../base/error.ts";
import { fromHex, sha256, toHex } from "../base/hex.ts";
import { Semaphore } from "../base/semaphore.ts";
import type { S3Transport } from "./fetch-handler.ts";
import { FetchHandler } from "./fetch-handler.ts";
import { NodeHandler } from "./node-handler.ts";
import { assertKeyPrefix, assertObjectBody, assertObjectKey } from "./object-key.ts";
import { isObjectKey, throwIfCancelled } from "./object-key.ts";
import { s3Error, s3Failure, s3FailureError, type S3Place } from "./s3-error.ts";
import type { ObjectHead, ObjectRow, Site, SiteCall } from "./site.ts";

/** Where the bucket is and how to talk to it. */
export type S3SiteOptions = {
  readonly name: string;
  readonly bucket: string;
  /** Keys begin with it and a slash. */
  readonly prefix?: string;
  readonly region?: string;
  /** For stores other than AWS: `https://s3.example.com`. */
  readonly endpoint?: string;
  readonly forcePathStyle?: boolean;
  /** Without a key the SDK looks in its usual places (environment, files, the machine's role). */
  readonly accessKeyId?: string;
  readonly secretAccessKey?: string;
  readonly sessionToken?: string;
  /** PEM file with the authorities to trust instead of the system's. */
  readonly caFile?: string;
  /** `http://user:password@host:port`, the value of HTTPS_PROXY or HTTP_PROXY. */
  readonly proxy?: string;
  /** Hosts that are reached directly, as in NO_PROXY. */
  readonly noProxy?: string;
  /** Requests at once. */
  readonly concurrency?: number;
  /** `node` (the SDK's handler over Node's HTTP client) by default; `fetch` costs less CPU. */
  readonly transport?: "node" | "fetch";
  /** The longest wait for an answer, beside the time for its bytes (256 KiB a second at least). */
  readonly requestTimeoutMs?: number;
};

const CONCURRENCY = 16;
const REQUEST_TIMEOUT_MS = 60_000;
const PAGE_KEY_COUNT = 1000;

/**
 * Opens a bucket as a site. Nothing is sent yet: a missing bucket shows at the first call.
 *
 * @example
 * await using site = await openS3Site({ name: "primary", bucket: "backup", region: "eu-north-1" });
 * await site.put("log/000000000002", bytes);
 */
export async function openS3Site(options: S3SiteOptions): Promise<Site> {
  // 70 ms of CPU: who has only directory sites does not pay for it.
  const sdk = await import("@aws-sdk/client-s3");
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
    ...credentialsOf(options),
    requestHandler: handler,
    maxAttempts: 1,
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    expectContinueHeader: false,
    logger: SILENT,
  });
  signWithKnownHash(client);
  return new S3Site(options, sdk, client, handler);
}

class S3Site implements Site {
  readonly name: string;
  readonly location: string;
  readonly #bucket: string;
  readonly #prefix: string;
  readonly #sdk: typeof Sdk;
  readonly #client: S3Client;
  readonly #handler: S3Transport;
  readonly #permits: Semaphore;

  constructor(options: S3SiteOptions, sdk: typeof Sdk, client: S3Client, handler: S3Transport) {
    const prefix = (options.prefix ?? "").replace(/^\/+|\/+$/g, "");
    if (prefix !== "" && !isObjectKey(prefix)) {
      throw new AppError("config", `The prefix of site ${options.name} is not a key.`, {
        guidance: "Use letters, digits, '.', '_', '-' and single slashes.",
        context: { site: options.name, prefix },
      });
    }
    this.name = options.name;
    this.location = `s3://${options.bucket}${prefix === "" ? "" : `/${prefix}`}`;
    this.#bucket = options.bucket;
    this.#prefix = prefix === "" ? "" : `${prefix}/`;
    this.#sdk = sdk;
    this.#client = client;
    this.#handler = handler;
    this.#permits = new Semaphore(options.concurrency ?? CONCURRENCY);
  }

  async get(
    key: string,
    options: SiteCall & { readonly offset?: number; readonly length?: number } = {},
  ): Promise<Uint8Array | undefined> {
    assertObjectKey(key);
    const offset = options.offset ?? 0;
    if (options.length === 0) {
      // HTTP has no empty range; what remains to be known is whether the object is there.
      const found = await this.get(key, { ...options, length: 1 });
      return found?.subarray(0, 0);
    }
    const isPart = offset > 0 || options.length !== undefined;
    const last = options.length === undefined ? "" : offset + options.length - 1;
    const command = new this.#sdk.GetObjectCommand({
      Bucket: this.#bucket,
      Key: this.#prefix + key,
      ...(isPart ? { Range: `bytes=${offset}-${last}` } : {}),
    });
    return await this.#call(key, options, async (signal) => {
      try {
        const answer = await this.#client.send(command, abortBy(signal));
        const body = this.#handler.bytesOf(answer.Body);
        if (body.length !== answer.ContentLength) throw this.#truncated(key, body.length);
        // A server may ignore the range and send the whole.
        const isWhole = isPart && answer.ContentRange === undefined;
        return isWhole ? body.subarray(offset, offset + (options.length ?? body.length)) : body;
      } catch (thrown) {
        const { code, status } = s3Failure(thrown);
        if (status === 416) return new Uint8Array();
        // Any other 404 (bucket, user, a proxy's page) must not look like an absent object.
        if (code === "NoSuchKey") return undefined;
        throw thrown;
      }
    });
  }

  async put(
    key: string,
    bytes: Uint8Array,
    options: SiteCall & { readonly sha256?: string } = {},
  ): Promise<"created" | "exists"> {
    assertObjectKey(key);
    assertObjectBody(bytes);
    throwIfCancelled(options.signal);
    const hash = options.sha256 === undefined ? sha256(bytes) : fromHex(options.sha256);
    const command = new this.#sdk.PutObjectCommand({
      Bucket: this.#bucket,
      Key: this.#prefix + key,
      Body: bytes,
      ContentLength: bytes.length,
      ContentType: "application/octet-stream",
      IfNoneMatch: "*",
      ChecksumSHA256: hash.toBase64(),
    });
    return await this.#call(key, options, async (signal) => {
      try {
        await this.#client.send(command, abortBy(signal));
        return "created";
      } catch (thrown) {
        if (s3Failure(thrown).status === 412) return "exists";
        throw thrown;
      }
    });
  }

  async head(key: string, options: SiteCall = {}): Promise<ObjectHead | undefined> {
    assertObjectKey(key);
    const where = { Bucket: this.#bucket, Key: this.#prefix + key };
    const command = new this.#sdk.HeadObjectCommand({ ...where, ChecksumMode: "ENABLED" });
    const head = await this.#call(key, options, async (signal) => {
      try {
        const answer = await this.#client.send(command, abortBy(signal));
        const hash = wholeSha256(answer.ChecksumSHA256);
        return {
          sizeBytes: answer.ContentLength ?? 0,
          ...(hash === undefined ? {} : { sha256: hash }),
        };
      } catch (thrown) {
        if (s3Failure(thrown).status !== 404) throw thrown;
        return undefined;
      }
    });
    if (head !== undefined) return head;
    // The answer to a HEAD has no text, so its 404 may also mean the bucket, or even the user.
    if ((await this.get(key, { ...options, offset: 0, length: 1 })) === undefined) return undefined;
    throw new AppError("unavailable", `${this.location} says that ${key} is there and is not.`, {
      context: { site: this.name, key },
    });
  }

  async delete(keys: readonly string[], options: SiteCall = {}): Promise<void> {
    for (const key of keys) assertObjectKey(key);
    throwIfCancelled(options.signal);
    for (let start = 0; start < keys.length; start += PAGE_KEY_COUNT) {
      const page = keys.slice(start, start + PAGE_KEY_COUNT);
      const command = new this.#sdk.DeleteObjectsCommand({
        Bucket: this.#bucket,
        Delete: { Quiet: true, Objects: page.map((key) => ({ Key: this.#prefix + key })) },
      });
      await this.#call(page[0], options, async (signal) => {
        const answer = await this.#client.send(command, abortBy(signal));
        for (const { Key: key = "", Code: code = "", Message: message = "" } of answer.Errors ??
          []) {
          if (code === "NoSuchKey") continue;
          const place = this.#place(key.slice(this.#prefix.length));
          throw s3FailureError({ code, status: undefined, message }, place);
        }
      });
    }
  }

  async *list(
    prefix: string,
    options: SiteCall & { readonly after?: string } = {},
  ): AsyncIterable<ObjectRow> {
    assertKeyPrefix(prefix);
    let after = options.after ?? "";
    for (;;) {
      const command = new this.#sdk.ListObjectsV2Command({
        Bucket: this.#bucket,
        Prefix: this.#prefix + prefix,
        MaxKeys: PAGE_KEY_COUNT,
        ...(after === "" ? {} : { StartAfter: this.#prefix + after }),
      });
      const page = await this.#call(
        undefined,
        options,
        async (signal) => await this.#client.send(command, abortBy(signal)),
      );
      const before = after;
      for (const { Key: full = "", Size: sizeBytes = 0 } of page.Contents ?? []) {
        const key = full.slice(this.#prefix.length);
        if (key <= after) throw this.#unordered(key);
        after = key;
        if (isObjectKey(key)) yield { key, sizeBytes };
      }
      if (page.IsTruncated !== true) return;
      if (after === before) throw this.#unordered(after);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.destroy();
  }

  /** One request: a permit, and errors that say what they mean. */
  async #call<T>(
    key: string | undefined,
    options: SiteCall,
    work: (signal: AbortSignal | undefined) => Promise<T>,
  ): Promise<T> {
    throwIfCancelled(options.signal);
    try {
      // The deadline of a request begins after the wait, which is not the server's fault.
      using _permit = await this.#permits.acquire(options.signal);
      return await work(options.signal);
    } catch (thrown) {
      throwIfCancelled(options.signal);
      throw s3Error(thrown, this.#place(key));
    }
  }

  #place(key?: string): S3Place {
    const place = { site: this.name, location: this.location, bucket: this.#bucket };
    return key === undefined ? place : { ...place, key };
  }

  #truncated(key: string, sizeBytes: number): AppError {
    return new AppError(
      "unavailable",
      `${this.location} broke off after ${sizeBytes} bytes of ${key}.`,
      { context: { site: this.name, key } },
    );
  }

  #unordered(key: string): AppError {
    return new AppError("refused", `${this.location} lists its keys out of order.`, {
      guidance: "Directory buckets (S3 Express) and stores like them cannot hold a repository.",
      context: { site: this.name, key },
    });
  }
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

function abortBy(signal: AbortSignal | undefined): { abortSignal?: AbortSignal } {
  return signal === undefined ? {} : { abortSignal: signal };
}

async function readAuthorities(site: string, caFile: string): Promise<string> {
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

function credentialsOf(options: S3SiteOptions): {
  credentials?: { accessKeyId: string; secretAccessKey: string; sessionToken?: string };
} {
  const { accessKeyId, secretAccessKey, sessionToken } = options;
  if (accessKeyId === undefined && secretAccessKey === undefined) return {};
  if (accessKeyId === undefined || secretAccessKey === undefined) {
    throw new AppError("config", `Site ${options.name} has half of its credentials.`, {
      guidance: "Set both accessKeyId and secretAccessKey, or neither.",
      context: { site: options.name },
    });
  }
  return {
    credentials: {
      accessKeyId,
      secretAccessKey,
      ...(sessionToken === undefined ? {} : { sessionToken }),
    },
  };
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

/** The checksum of a whole object; those of multipart uploads cover hashes, not bytes. */
function wholeSha256(checksum: string | undefined): string | undefined {
  if (checksum === undefined || checksum.includes("-")) return undefined;
  return toHex(Uint8Array.fromBase64(checksum));
}
