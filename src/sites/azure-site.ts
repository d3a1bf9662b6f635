/**
 * A site in Azure Blob Storage. Every object is one Put Blob with `If-None-Match: *` and the MD5 of
 * its bytes, which the service verifies; so it is created once, whole, and as it was meant, or not
 * at all. The service keeps no SHA-256: ours is computed from the bytes that are sent and lies
 * beside them as metadata, where `head` finds it. Requests are never repeated here
 * (retrying-site.ts does that), and at most `concurrency` are under way, each with a deadline.
 *
 * Memory: `concurrency` bodies of at most one object. The SDK is loaded when the first site opens.
 */
import type * as Sdk from "@azure/storage-blob";
import type { BlobServiceClient, BlockBlobClient, ContainerClient } from "@azure/storage-blob";
import { createHash } from "node:crypto";
import { AppError } from "../base/error.ts";
import { sha256Hex } from "../base/hex.ts";
import { Semaphore } from "../base/semaphore.ts";
import { openAzureService, type AzureAccount } from "./azure-client.ts";
import { AZURE_COPY_MARK, azureCopying } from "./azure-copying.ts";
import { azureError, azureFailure, azurePartError } from "./azure-error.ts";
import { judgeAzureSettings } from "./azure-inspect.ts";
import { HttpExchange, readAuthorities } from "./http-exchange.ts";
import { assertKeyPrefix, assertObjectBody, assertObjectKey } from "./object-key.ts";
import { isObjectKey, throwIfCancelled } from "./object-key.ts";
import { parseSitePrefix } from "./site-prefix.ts";
import type { ObjectHead, ObjectRow, Site, SiteCall, SiteCopying, SiteFinding } from "./site.ts";
import type { StorePlace } from "./store-error.ts";

/** Where new objects lie: what is read seldom is cheaper to keep and dearer to read. */
export type AzureAccessTier = "Hot" | "Cool" | "Cold";

/** Where the container is and how to talk to it. */
export type AzureSiteOptions = AzureAccount & {
  readonly container: string;
  /** Keys begin with it and a slash. */
  readonly prefix?: string;
  /** The account's own default if left out. */
  readonly accessTier?: AzureAccessTier;
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

const CONCURRENCY = 16;
const REQUEST_TIMEOUT_MS = 60_000;
const PAGE_KEY_COUNT = 1000;
/** A limit of the service. */
const BATCH_KEY_COUNT = 256;
/**
 * What the service may answer to a put whose key is taken: which of them depends on what protects
 * the blob, and on whether the token may write or only create.
 */
const TAKEN = new Set([
  "BlobAlreadyExists",
  "ConditionNotMet",
  "UnauthorizedBlobOverwrite",
  "BlobImmutableDueToPolicy",
  "BlobImmutableDueToLegalHold",
  "LeaseIdMissing",
  "BlobArchived",
  "BlobBeingRehydrated",
]);

/**
 * Opens a container as a site. Nothing is sent yet: a missing container shows at the first call.
 *
 * @example
 * const key = { account, accountKey };
 * await using site = await openAzureSite({ name: "azure", ...key, container: "backup" });
 * await site.put("log/000000000002", bytes);
 */
export async function openAzureSite(options: AzureSiteOptions): Promise<Site> {
  // 190 ms of CPU and 28 MiB: who has no such site does not pay for it.
  const sdk = await import("@azure/storage-blob");
  sdk.logger.info.enabled = false;
  const { proxy, noProxy, caFile } = options;
  const exchange = new HttpExchange({
    timeoutMs: options.requestTimeoutMs ?? REQUEST_TIMEOUT_MS,
    ...(proxy === undefined ? {} : { proxy }),
    ...(noProxy === undefined ? {} : { noProxy }),
    ...(caFile === undefined ? {} : { authorities: await readAuthorities(options.name, caFile) }),
  });
  return new AzureSite(options, openAzureService(sdk, options, exchange), sdk);
}

class AzureSite implements Site {
  readonly name: string;
  readonly location: string;
  readonly copying: SiteCopying;
  readonly #prefix: string;
  readonly #container: ContainerClient;
  readonly #tier: AzureAccessTier | undefined;
  readonly #permits: Semaphore;
  readonly #responseFormat: "Xml";

  constructor(options: AzureSiteOptions, service: BlobServiceClient, sdk: typeof Sdk) {
    const prefix = parseSitePrefix(options.name, options.prefix);
    this.name = options.name;
    const place = `azure://${service.accountName}/${options.container}`;
    this.location = prefix === "" ? place : `${place}/${prefix}`;
    this.#prefix = prefix === "" ? "" : `${prefix}/`;
    this.#container = service.getContainerClient(options.container);
    this.#tier = options.accessTier;
    this.#permits = new Semaphore(options.concurrency ?? CONCURRENCY);
    this.#responseFormat = sdk.StorageResponseFormat.Xml;
    this.copying = azureCopying({
      sdk,
      account: options,
      service,
      container: this.#container,
      prefix: this.#prefix,
      tier: this.#tier,
      isTaken,
      call: async (key, call, work) => await this.#call(key, call, work),
    });
  }

  async get(
    key: string,
    options: SiteCall & { readonly offset?: number; readonly length?: number } = {},
  ): Promise<Uint8Array | undefined> {
    const blob = this.#blob(key);
    const offset = options.offset ?? 0;
    if (options.length === 0) {
      // HTTP has no empty range; what remains to be known is whether the object is there.
      const found = await this.get(key, { ...options, length: 1 });
      return found?.subarray(0, 0);
    }
    const isPart = offset > 0 || options.length !== undefined;
    return await this.#call(key, options, async (signal) => {
      try {
        const how = { ...abortBy(signal), maxRetryRequests: 0 };
        const answer = await blob.download(offset, options.length, how);
        const body = await collect(answer.readableStreamBody);
        if (body.length !== answer.contentLength) throw this.#truncated(key, body.length);
        // A server may ignore the range and send the whole.
        const isWhole = isPart && answer.contentRange === undefined;
        return isWhole ? body.subarray(offset, offset + (options.length ?? body.length)) : body;
      } catch (thrown) {
        const { code, status } = azureFailure(thrown);
        if (status === 416) return new Uint8Array();
        // Any other 404 (container, account, a proxy's page) must not look like an absent object.
        if (code === "BlobNotFound") return undefined;
        throw thrown;
      }
    });
  }

  async put(
    key: string,
    bytes: Uint8Array,
    options: SiteCall & { readonly sha256?: string } = {},
  ): Promise<"created" | "exists"> {
    const blob = this.#blob(key);
    assertObjectBody(bytes);
    throwIfCancelled(options.signal);
    // The service verifies only the MD5: that it is the MD5 of what was meant is verified here.
    const sha256 = sha256Hex(bytes);
    if (options.sha256 !== undefined && options.sha256 !== sha256) throw this.#altered(key);
    return await this.#call(key, options, async (signal) => {
      try {
        await blob.upload(bytes, bytes.length, {
          conditions: { ifNoneMatch: "*" },
          blobHTTPHeaders: { blobContentType: "application/octet-stream" },
          transactionalContentMD5: createHash("md5").update(bytes).digest(),
          metadata: { sha256 },
          ...(this.#tier === undefined ? {} : { tier: this.#tier }),
          ...abortBy(signal),
        });
        return "created";
      } catch (thrown) {
        if (isTaken(thrown)) return "exists";
        throw thrown;
      }
    });
  }

  async head(key: string, options: SiteCall = {}): Promise<ObjectHead | undefined> {
    const blob = this.#blob(key);
    return await this.#call(key, options, async (signal) => {
      try {
        const { contentLength = 0, metadata } = await blob.getProperties(abortBy(signal));
        const sha256 = metadata?.["sha256"];
        const isHash = sha256 !== undefined && /^[0-9a-f]{64}$/.test(sha256);
        const isCopy = metadata?.[AZURE_COPY_MARK] !== undefined;
        return {
          sizeBytes: contentLength,
          ...(isHash ? { sha256 } : {}),
          ...(isCopy ? { isCopy } : {}),
        };
      } catch (thrown) {
        if (azureFailure(thrown).code !== "BlobNotFound") throw thrown;
        return undefined;
      }
    });
  }

  async delete(keys: readonly string[], options: SiteCall = {}): Promise<void> {
    for (const key of keys) assertObjectKey(key);
    throwIfCancelled(options.signal);
    const [only] = keys;
    if (keys.length === 1 && only !== undefined) {
      await this.#deleteOne(only, options);
      return;
    }
    for (let start = 0; start < keys.length; start += BATCH_KEY_COUNT) {
      await this.#deleteBatch(keys.slice(start, start + BATCH_KEY_COUNT), options);
    }
  }

  async *list(
    prefix: string,
    options: SiteCall & { readonly after?: string } = {},
  ): AsyncIterable<ObjectRow> {
    assertKeyPrefix(prefix);
    // The service has no way to begin after a key: what comes before it is listed and passed over.
    const { after = "" } = options;
    let last = "";
    let continuationToken: string | undefined;
    do {
      const page = await this.#call(undefined, options, async (signal) => {
        const how = { prefix: this.#prefix + prefix, responseFormat: this.#responseFormat };
        const paged = { maxPageSize: PAGE_KEY_COUNT };
        const rows = this.#container
          .listBlobsFlat({ ...how, ...abortBy(signal) })
          .byPage(
            continuationToken === undefined || continuationToken === ""
              ? paged
              : { ...paged, continuationToken },
          );
        return (await rows.next()).value;
      });
      for (const { name, properties } of page?.segment.blobItems ?? []) {
        const key = name.slice(this.#prefix.length);
        if (key <= last) throw this.#unordered(key);
        last = key;
        if (key <= after || !isObjectKey(key)) continue;
        yield { key, sizeBytes: properties.contentLength ?? 0 };
      }
      continuationToken = page?.continuationToken;
    } while (continuationToken !== undefined && continuationToken !== "");
  }

  async inspect(options: SiteCall = {}): Promise<readonly SiteFinding[]> {
    const container = this.#container;
    const ask = async <T>(work: (how: { abortSignal?: AbortSignal }) => Promise<T>) =>
      await this.#call(undefined, options, async (signal) => {
        try {
          return await work(abortBy(signal));
        } catch (thrown) {
          // A token for the container alone may read objects, and not what they lie in.
          if (azureFailure(thrown).status === 403) return undefined;
          throw thrown;
        }
      });
    return judgeAzureSettings({
      account: await ask(async (how) => await container.getAccountInfo(how)),
      container: await ask(async (how) => await container.getProperties(how)),
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Connections belong to the runtime, which closes idle ones.
  }

  async #deleteOne(key: string, options: SiteCall): Promise<void> {
    const blob = this.#blob(key);
    await this.#call(key, options, async (signal) => {
      try {
        await blob.delete(abortBy(signal));
      } catch (thrown) {
        if (azureFailure(thrown).code !== "BlobNotFound") throw thrown;
      }
    });
  }

  async #deleteBatch(keys: readonly string[], options: SiteCall): Promise<void> {
    await this.#call(keys[0], options, async (signal) => {
      const client = this.#container.getBlobBatchClient();
      const batch = client.createBatch();
      for (const key of keys) await batch.deleteBlob(this.#blob(key));
      const { subResponses } = await client.submitBatch(batch, abortBy(signal));
      for (const [index, key] of keys.entries()) {
        // In the order of what was asked; a hole where the answer does not speak of a key.
        const part = subResponses[index];
        if (part === undefined) throw this.#halfAnswered(key);
        const { status, errorCode: code = "", statusMessage: message } = part;
        if (status < 300 || code === "BlobNotFound") continue;
        throw azurePartError({ code, status, message }, this.#place(key));
      }
    });
  }

  #blob(key: string): BlockBlobClient {
    assertObjectKey(key);
    return this.#container.getBlockBlobClient(this.#prefix + key);
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
      throw azureError(thrown, this.#place(key));
    }
  }

  #place(key?: string): StorePlace {
    const bucket = this.#container.containerName;
    const place = { site: this.name, location: this.location, bucket };
    return key === undefined ? place : { ...place, key };
  }

  #truncated(key: string, sizeBytes: number): AppError {
    return new AppError(
      "unavailable",
      `${this.location} broke off after ${sizeBytes} bytes of ${key}.`,
      { context: { site: this.name, key } },
    );
  }

  #halfAnswered(key: string): AppError {
    return new AppError("unavailable", `${this.location} did not say whether ${key} is removed.`, {
      context: { site: this.name, key },
    });
  }

  #altered(key: string): AppError {
    return new AppError("damaged", `The bytes of ${key} are not those that were meant.`, {
      guidance: "They were altered in this machine's memory. If it happens again, test the memory.",
      retryable: true,
      context: { site: this.name, key },
    });
  }

  #unordered(key: string): AppError {
    return new AppError("refused", `${this.location} lists its keys out of order.`, {
      guidance: "Accounts with a hierarchical namespace cannot hold a repository.",
      context: { site: this.name, key },
    });
  }
}

function isTaken(thrown: unknown): boolean {
  const { code, status } = azureFailure(thrown);
  return status === 412 || (status !== undefined && TAKEN.has(code));
}

function abortBy(signal: AbortSignal | undefined): { abortSignal?: AbortSignal } {
  return signal === undefined ? {} : { abortSignal: signal };
}

/** The bytes of an object; our client hands them on in one piece, which is not copied. */
async function collect(body: NodeJS.ReadableStream | undefined): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const part of body ?? []) parts.push(part as unknown as Uint8Array);
  const [first] = parts;
  const { buffer, byteOffset, length } =
    parts.length === 1 && first !== undefined ? first : Buffer.concat(parts);
  // No Buffer, whose slices are views: who keeps one would keep the whole, or lose it.
  return new Uint8Array(buffer, byteOffset, length);
}
