/**
 * A site in Google Cloud Storage, by its JSON API. Every object is one upload with the condition
 * `ifGenerationMatch=0` and the MD5 of its bytes, which the service verifies; so it is created
 * once, whole, and as it was meant, or not at all. The service keeps no SHA-256: ours is computed
 * from the bytes that are sent and lies beside them as metadata, where `head` finds it. Requests
 * are never repeated here (retrying-site.ts does that), and at most `concurrency` are under way,
 * each with a deadline. (Its S3-compatible API takes `If-None-Match` and overwrites: never use that
 * one.)
 *
 * Memory: `concurrency` bodies of at most one object, and a copy of those that are sent.
 */
import { createHash } from "node:crypto";
import { AppError } from "../base/error.ts";
import { sha256Hex } from "../base/hex.ts";
import { Semaphore } from "../base/semaphore.ts";
import { openGcsCredentials } from "./gcs-credentials.ts";
import type { GcsAccount, GcsCredentials } from "./gcs-credentials.ts";
import { gcsError, gcsFailure, gcsNetworkError } from "./gcs-error.ts";
import { GCS_BUCKET_FIELDS, judgeGcsBucket } from "./gcs-inspect.ts";
import { HttpExchange, readAuthorities } from "./http-exchange.ts";
import type { HttpAnswer, HttpRequest } from "./http-exchange.ts";
import { assertKeyPrefix, assertObjectBody, assertObjectKey } from "./object-key.ts";
import { isObjectKey, throwIfCancelled } from "./object-key.ts";
import { parseSitePrefix } from "./site-prefix.ts";
import type { CopyCall, CopyOutcome, CopyPlace, ObjectHead, ObjectRow, Site } from "./site.ts";
import type { SiteCall, SiteCopying, SiteFinding } from "./site.ts";
import { impossibleCopy } from "./store-error.ts";
import type { StorePlace } from "./store-error.ts";

/** Where new objects lie: what is read seldom is cheaper to keep and dearer to read. */
export type GcsStorageClass = "STANDARD" | "NEARLINE" | "COLDLINE" | "ARCHIVE";

/** Where the bucket is and how to talk to it. */
export type GcsSiteOptions = GcsAccount & {
  readonly bucket: string;
  /** Keys begin with it and a slash. */
  readonly prefix?: string;
  /** `https://storage.googleapis.com` if left out; otherwise an emulator or a private endpoint. */
  readonly endpoint?: string;
  /** The bucket's own default if left out. */
  readonly storageClass?: GcsStorageClass;
  /** PEM file with the authorities to trust instead of the system's. */
  readonly caFile?: string;
  /** `http://user:password@host:port`. */
  readonly proxy?: string;
  /** Hosts that are reached directly, as in NO_PROXY. */
  readonly noProxy?: string;
  /** Requests at once. */
  readonly concurrency?: number;
  /** The longest wait for an answer, beside the time for its bytes (256 KiB a second at least). */
  readonly requestTimeoutMs?: number;
};

const ENDPOINT = "https://storage.googleapis.com";
const CONCURRENCY = 16;
const REQUEST_TIMEOUT_MS = 60_000;
const PAGE_KEY_COUNT = 1000;
/** What tells a copy, in its metadata; our SHA-256 is left behind, since nobody has checked it. */
const COPY_MARK = "astacus-copied";
/** A rewrite between classes or places may need several requests. */
const REWRITE_COUNT_MAX = 100;

/**
 * Opens a bucket as a site. Nothing is sent yet: a missing bucket shows at the first call.
 *
 * @example
 * await using site = await openGcsSite({ name: "google", bucket: "backup", credentialsFile });
 * await site.put("log/000000000002", bytes);
 */
export async function openGcsSite(options: GcsSiteOptions): Promise<Site> {
  const { name, proxy, noProxy, caFile } = options;
  const exchange = new HttpExchange({
    timeoutMs: options.requestTimeoutMs ?? REQUEST_TIMEOUT_MS,
    ...(proxy === undefined ? {} : { proxy }),
    ...(noProxy === undefined ? {} : { noProxy }),
    ...(caFile === undefined ? {} : { authorities: await readAuthorities(name, caFile) }),
  });
  return new GcsSite(options, exchange, await openGcsCredentials(options, exchange));
}

type GcsRequest = Omit<HttpRequest, "headers" | "url"> & {
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
};

class GcsSite implements Site {
  readonly name: string;
  readonly location: string;
  readonly copying: SiteCopying;
  readonly #options: GcsSiteOptions;
  readonly #prefix: string;
  readonly #endpoint: string;
  readonly #exchange: HttpExchange;
  readonly #credentials: GcsCredentials;
  readonly #permits: Semaphore;

  constructor(options: GcsSiteOptions, exchange: HttpExchange, credentials: GcsCredentials) {
    const prefix = parseSitePrefix(options.name, options.prefix);
    this.name = options.name;
    this.location = `gs://${options.bucket}${prefix === "" ? "" : `/${prefix}`}`;
    this.#options = options;
    this.#prefix = prefix === "" ? "" : `${prefix}/`;
    this.#endpoint = (options.endpoint ?? ENDPOINT).replace(/\/+$/, "");
    this.#exchange = exchange;
    this.#credentials = credentials;
    this.#permits = new Semaphore(options.concurrency ?? CONCURRENCY);
    this.copying = this.#copyingOf(options);
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
    const request: GcsRequest = {
      method: "GET",
      path: this.#objectPath(key),
      query: { alt: "media" },
      ...(isPart ? { headers: { range: `bytes=${offset}-${last}` } } : {}),
    };
    const answer = await this.#call(key, request, options, [200, 206, 404, 416]);
    if (answer.status === 416) return new Uint8Array();
    if (answer.status === 404) return await this.#absent(key, answer, options);
    const { bytes } = answer;
    // A server may ignore the range and send the whole.
    const isWhole = isPart && answer.status === 200;
    return isWhole ? bytes.subarray(offset, offset + (options.length ?? bytes.length)) : bytes;
  }

  async put(
    key: string,
    bytes: Uint8Array,
    options: SiteCall & { readonly sha256?: string } = {},
  ): Promise<"created" | "exists"> {
    assertObjectKey(key);
    assertObjectBody(bytes);
    throwIfCancelled(options.signal);
    // The service verifies only the MD5: that it is the MD5 of what was meant is verified here.
    const sha256 = sha256Hex(bytes);
    if (options.sha256 !== undefined && options.sha256 !== sha256) throw this.#altered(key);
    const { storageClass } = this.#options;
    const about = {
      name: this.#prefix + key,
      contentType: "application/octet-stream",
      md5Hash: createHash("md5").update(bytes).digest("base64"),
      metadata: { sha256 },
      ...(storageClass === undefined ? {} : { storageClass }),
    };
    const request: GcsRequest = {
      method: "POST",
      path: `/upload${this.#objectsPath()}`,
      query: { uploadType: "multipart", ifGenerationMatch: "0", fields: "generation" },
      ...relatedParts(about, bytes, sha256),
    };
    const answer = await this.#call(key, request, options, [200, 412]);
    return answer.status === 412 ? "exists" : "created";
  }

  async head(key: string, options: SiteCall = {}): Promise<ObjectHead | undefined> {
    assertObjectKey(key);
    const request: GcsRequest = {
      method: "GET",
      path: this.#objectPath(key),
      query: { fields: "size,metadata" },
    };
    const answer = await this.#call(key, request, options, [200, 404]);
    if (answer.status === 404) return await this.#absent(key, answer, options);
    const { size, metadata } = this.#parse(answer) as {
      readonly size?: unknown;
      readonly metadata?: { readonly sha256?: unknown; readonly [COPY_MARK]?: unknown };
    };
    const sizeBytes = Number(size);
    if (!Number.isSafeInteger(sizeBytes)) throw this.#strange();
    const sha256 = metadata?.sha256;
    const isHash = typeof sha256 === "string" && /^[0-9a-f]{64}$/.test(sha256);
    const isCopy = metadata?.[COPY_MARK] !== undefined;
    return { sizeBytes, ...(isHash ? { sha256 } : {}), ...(isCopy ? { isCopy } : {}) };
  }

  async delete(keys: readonly string[], options: SiteCall = {}): Promise<void> {
    for (const key of keys) assertObjectKey(key);
    throwIfCancelled(options.signal);
    // One request a key: a batch costs the service, and its user, just as many operations.
    const slice = this.#options.concurrency ?? CONCURRENCY;
    for (let start = 0; start < keys.length; start += slice) {
      const results = await Promise.allSettled(
        keys.slice(start, start + slice).map(async (key) => await this.#deleteOne(key, options)),
      );
      const failed = results.find((result) => result.status === "rejected");
      if (failed !== undefined) throw failed.reason;
    }
  }

  async *list(
    prefix: string,
    options: SiteCall & { readonly after?: string } = {},
  ): AsyncIterable<ObjectRow> {
    assertKeyPrefix(prefix);
    const { after = "" } = options;
    let last = after;
    let pageToken: string | undefined;
    do {
      const request: GcsRequest = {
        method: "GET",
        path: this.#objectsPath(),
        query: {
          prefix: this.#prefix + prefix,
          maxResults: String(PAGE_KEY_COUNT),
          fields: "items(name,size),nextPageToken",
          // This key itself comes, too, if it is there.
          ...(after === "" ? {} : { startOffset: this.#prefix + after }),
          ...(pageToken === undefined ? {} : { pageToken }),
        },
      };
      const page = this.#parse(await this.#call(undefined, request, options, [200])) as {
        readonly items?: readonly { readonly name: string; readonly size: string }[];
        readonly nextPageToken?: string;
      };
      for (const { name, size } of page.items ?? []) {
        const key = name.slice(this.#prefix.length);
        if (key === after) continue;
        if (key <= last) throw this.#unordered(key);
        last = key;
        if (isObjectKey(key)) yield { key, sizeBytes: Number(size) };
      }
      pageToken = page.nextPageToken;
    } while (pageToken !== undefined && pageToken !== "");
  }

  async inspect(options: SiteCall = {}): Promise<readonly SiteFinding[]> {
    const request: GcsRequest = {
      method: "GET",
      path: `/storage/v1/b/${encodeURIComponent(this.#options.bucket)}`,
      query: { fields: GCS_BUCKET_FIELDS },
    };
    const answer = await this.#call(undefined, request, options, [200, 403]);
    if (answer.status === 200) return judgeGcsBucket(this.#parse(answer), this.#prefix);
    return [
      { level: "warning", what: "the bucket's settings may not be read (storage.buckets.get)" },
    ];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Connections belong to the runtime, which closes idle ones.
  }

  #copyingOf({ credentials, credentialsFile, anonymous }: GcsSiteOptions): SiteCopying {
    const right = credentials === undefined ? [credentialsFile, anonymous] : hashOf(credentials);
    const store = JSON.stringify(["gcs", this.#endpoint, right]);
    const root = `/b/${encodeURIComponent(this.#options.bucket)}/o/`;
    return {
      place: {
        store,
        root: root + this.#prefix,
        addressOf: (key) => root + encodeURIComponent(this.#prefix + key),
      },
      ways: [{ name: "rewrite", requests: 1 }],
      reaches: (source) => source.store === store,
      copyFrom: async (source, fromKey, toKey, call = {}) => {
        assertObjectKey(fromKey);
        assertObjectKey(toKey);
        if (source.store !== store) return "impossible";
        try {
          return await this.#rewrite(source, fromKey, toKey, call);
        } catch (thrown) {
          return impossibleCopy(thrown);
        }
      },
    };
  }

  async #rewrite(
    source: CopyPlace,
    fromKey: string,
    toKey: string,
    options: CopyCall,
  ): Promise<CopyOutcome> {
    const { storageClass, bucket } = this.#options;
    const to = `/b/${encodeURIComponent(bucket)}/o/${encodeURIComponent(this.#prefix + toKey)}`;
    const about = {
      contentType: "application/octet-stream",
      metadata: { [COPY_MARK]: "1" },
      ...(storageClass === undefined ? {} : { storageClass }),
    };
    let rewriteToken: string | undefined;
    for (let count = 1; count <= REWRITE_COUNT_MAX; count += 1) {
      const request: GcsRequest = {
        method: "POST",
        path: `/storage/v1${source.addressOf(fromKey)}/rewriteTo${to}`,
        query: {
          ifGenerationMatch: "0",
          fields: "done,rewriteToken",
          ...(rewriteToken === undefined ? {} : { rewriteToken }),
        },
        headers: { "content-type": "application/json" },
        body: JSON.stringify(about),
      };
      const answer = await this.#call(toKey, request, options, [200, 404, 412]);
      if (answer.status === 412) return "exists";
      // Or one of the buckets: who reads and puts will hear.
      if (answer.status === 404) return "absent";
      const progress = this.#parse(answer) as {
        readonly done?: unknown;
        readonly rewriteToken?: unknown;
      };
      if (progress.done === true) return "created";
      if (typeof progress.rewriteToken !== "string") throw this.#strange();
      rewriteToken = progress.rewriteToken;
    }
    throw this.#strange();
  }

  async #deleteOne(key: string, options: SiteCall): Promise<void> {
    const request: GcsRequest = { method: "DELETE", path: this.#objectPath(key) };
    const answer = await this.#call(key, request, options, [200, 204, 404]);
    if (answer.status === 404) await this.#absent(key, answer, options);
  }

  /** A 404 may also mean the bucket, or that this is no such service. */
  async #absent(key: string, answer: HttpAnswer, options: SiteCall): Promise<undefined> {
    if (gcsFailure(answer).message.startsWith("No such object:")) return undefined;
    const query = { prefix: this.#prefix + key, maxResults: "1", fields: "items(name)" };
    const request: GcsRequest = { method: "GET", path: this.#objectsPath(), query };
    this.#parse(await this.#call(key, request, options, [200]));
    return undefined;
  }

  /** One request: a permit, a token, and errors that say what they mean. */
  async #call(
    key: string | undefined,
    { path, query = {}, headers = {}, ...request }: GcsRequest,
    options: SiteCall,
    expected: readonly number[],
  ): Promise<HttpAnswer> {
    throwIfCancelled(options.signal);
    const { signal } = options;
    const url = `${this.#endpoint}${path}?${new URLSearchParams(query).toString()}`;
    try {
      // The deadline of a request begins after the wait, which is not the server's fault.
      using _permit = await this.#permits.acquire(signal);
      const proof = await this.#credentials(url);
      throwIfCancelled(signal);
      const answer = await this.#exchange.send({
        ...request,
        url,
        headers: { ...headers, ...proof },
        ...(signal === undefined ? {} : { signal }),
      });
      if (expected.includes(answer.status)) return answer;
      throw this.#failed(answer, key);
    } catch (thrown) {
      throwIfCancelled(signal);
      throw gcsNetworkError(thrown, this.#place(key));
    }
  }

  #failed(answer: HttpAnswer, key: string | undefined): AppError {
    const failure = gcsFailure(answer);
    const isBucket = answer.status === 404 && failure.code === "notFound";
    return gcsError(isBucket ? { ...failure, code: "bucketMissing" } : failure, this.#place(key));
  }

  #parse({ bytes }: HttpAnswer): object {
    try {
      const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
      if (typeof value === "object" && value !== null) return value;
    } catch {
      // Not what this service sends.
    }
    throw this.#strange();
  }

  #objectsPath(): string {
    return `/storage/v1/b/${encodeURIComponent(this.#options.bucket)}/o`;
  }

  #objectPath(key: string): string {
    return `${this.#objectsPath()}/${encodeURIComponent(this.#prefix + key)}`;
  }

  #place(key?: string): StorePlace {
    const place = { site: this.name, location: this.location, bucket: this.#options.bucket };
    return key === undefined ? place : { ...place, key };
  }

  #altered(key: string): AppError {
    return new AppError("damaged", `The bytes of ${key} are not those that were meant.`, {
      guidance: "They were altered in this machine's memory. If it happens again, test the memory.",
      retryable: true,
      context: { site: this.name, key },
    });
  }

  #strange(): AppError {
    return new AppError("config", `${this.location} does not answer as this service does.`, {
      guidance: "Check endpoint and proxy.",
      context: { site: this.name },
    });
  }

  #unordered(key: string): AppError {
    return new AppError("refused", `${this.location} lists its keys out of order.`, {
      guidance: "Such a store cannot hold a repository.",
      context: { site: this.name, key },
    });
  }
}

/** Tells secrets apart without keeping them. */
function hashOf(secret: string): string {
  return sha256Hex(new TextEncoder().encode(secret));
}

/**
 * What is said of an object, and its bytes, as one body. The line between them is the hash of the
 * bytes, which therefore cannot hold it but by intent of nobody.
 */
function relatedParts(
  about: object,
  bytes: Uint8Array,
  sha256: string,
): { readonly headers: Readonly<Record<string, string>>; readonly body: Uint8Array } {
  const line = `--${sha256}`;
  const head =
    `${line}\r\nContent-Type: application/json\r\n\r\n${JSON.stringify(about)}\r\n` +
    `${line}\r\nContent-Type: application/octet-stream\r\n\r\n`;
  const body = Buffer.concat([Buffer.from(head), bytes, Buffer.from(`\r\n${line}--\r\n`)]);
  return { headers: { "content-type": `multipart/related; boundary=${sha256}` }, body };
}
