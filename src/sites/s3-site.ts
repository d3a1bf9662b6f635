/**
 * A site in S3 or a store that speaks its protocol. Every object is one PUT with `If-None-Match: *`
 * and the SHA-256 of its bytes, which the server verifies; so it is created once, whole, and as it
 * was meant, or not at all. Where the bucket locks objects or keeps versions of them, s3-versions.ts
 * removes them.
 *
 * Memory: `concurrency` bodies of at most one object.
 */
import type { PutObjectCommandInput } from "@aws-sdk/client-s3";
import { AppError } from "../base/error.ts";
import { fromHex, sha256, toHex } from "../base/hex.ts";
import { lockEndMs } from "./lock-period.ts";
import { assertKeyPrefix, assertObjectBody, assertObjectKey } from "./object-key.ts";
import { isObjectKey, throwIfCancelled } from "./object-key.ts";
import { headerOf, isAnswer, S3Bucket } from "./s3-bucket.ts";
import { COPY_MARK, S3Copying } from "./s3-copying.ts";
import type { S3KeepHeaders } from "./s3-copying.ts";
import { s3Failure } from "./s3-error.ts";
import { inspectBucket } from "./s3-inspect.ts";
import type { S3SiteOptions } from "./s3-options.ts";
import { S3Versions } from "./s3-versions.ts";
import type { DeleteCall, ObjectHead, ObjectRow, PutCall, Site, SiteCall } from "./site.ts";
import type { SiteCopying, SiteFinding, SiteLock } from "./site.ts";

const PAGE_KEY_COUNT = 1000;

/** Whoever hides more than this is known well enough. */
const HEALED_COUNT_MAX = 100_000;

/** Objects of checks: never locked unless they say so, since they shall go again. */
const PROBE_PREFIX = "probe/";

const LOG_PREFIX = "log/";

/** Where the data lies; some small objects of metadata are packs too. */
const DATA_PREFIX = "pack/";

/**
 * Opens a bucket as a site. Nothing is sent yet: a missing bucket shows at the first call.
 *
 * @example
 * await using site = await openS3Site({ name: "primary", bucket: "backup", region: "eu-north-1" });
 * await site.put("log/000000000002", bytes);
 */
export async function openS3Site(options: S3SiteOptions): Promise<Site> {
  return new S3Site(await S3Bucket.open(options), options);
}

class S3Site implements Site {
  readonly name: string;
  readonly location: string;
  readonly lock?: SiteLock;
  readonly weakness?: string;
  readonly copying?: SiteCopying;
  readonly healed: Set<string> = new Set<string>();
  readonly #bucket: S3Bucket;
  readonly #options: S3SiteOptions;
  readonly #versions: S3Versions;

  constructor(bucket: S3Bucket, options: S3SiteOptions) {
    this.name = bucket.name;
    this.location = bucket.location;
    this.#bucket = bucket;
    this.#options = options;
    this.#versions = new S3Versions(bucket, options.lock !== undefined);
    if (options.lock !== undefined) this.lock = this.#lockOf(options.lock);
    if (options.unsafeCreate !== undefined) {
      this.weakness = "unsafeCreate: two writers at once overwrite each other's backups";
    } else {
      this.copying = new S3Copying(bucket, options, (key) => ({
        ...this.#lockHeaders(key, {}),
        ...this.#keepHeaders(key),
      }));
    }
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
    const end = options.length === undefined ? undefined : offset + options.length;
    const range = isPart ? `bytes=${offset}-${end === undefined ? "" : end - 1}` : undefined;
    const { bytes, isRange } = await this.#read(key, options, range);
    // A server may ignore the range and send the whole.
    return isPart && !isRange ? bytes?.subarray(offset, end) : bytes;
  }

  async put(key: string, bytes: Uint8Array, options: PutCall = {}): Promise<"created" | "exists"> {
    assertObjectKey(key);
    assertObjectBody(bytes);
    throwIfCancelled(options.signal);
    const isUnsafe = this.#options.unsafeCreate !== undefined;
    // The store's condition does not see what lies under a marker, and the log must not fork.
    const isHideable = this.lock !== undefined && key.startsWith(LOG_PREFIX);
    if ((isUnsafe || isHideable) && (await this.head(key, options)) !== undefined) return "exists";
    const hash = options.sha256 === undefined ? sha256(bytes) : fromHex(options.sha256);
    const { sdk, client } = this.#bucket;
    const command = new sdk.PutObjectCommand({
      ...this.#bucket.at(key),
      Body: bytes,
      ContentLength: bytes.length,
      ContentType: "application/octet-stream",
      ...(isUnsafe ? {} : { IfNoneMatch: "*" }),
      ChecksumSHA256: hash.toBase64(),
      ...this.#lockHeaders(key, options),
      ...this.#keepHeaders(key),
    });
    return await this.#bucket.request(key, options, async (how) => {
      try {
        this.#versions.note((await client.send(command, how)).VersionId);
        return "created";
      } catch (thrown) {
        if (isAnswer(thrown, 412)) return "exists";
        throw thrown;
      }
    });
  }

  async head(key: string, options: SiteCall = {}): Promise<ObjectHead | undefined> {
    assertObjectKey(key);
    const { sdk, client } = this.#bucket;
    const command = new sdk.HeadObjectCommand({ ...this.#bucket.at(key), ChecksumMode: "ENABLED" });
    const head = await this.#bucket.request(key, options, async (how) => {
      try {
        const answer = await client.send(command, how);
        const hash = wholeSha256(answer.ChecksumSHA256);
        return {
          sizeBytes: answer.ContentLength ?? 0,
          ...(hash === undefined ? {} : { sha256: hash }),
          ...(answer.Metadata?.[COPY_MARK] === undefined ? {} : { isCopy: true }),
        };
      } catch (thrown) {
        if (!isAnswer(thrown, 404)) throw thrown;
        return undefined;
      }
    });
    if (head !== undefined) return head;
    // The answer to a HEAD has no text, so its 404 may also mean the bucket, or even the user. The
    // first byte tells, and it heals what lies under a marker.
    const { bytes, totalBytes } = await this.#read(key, options, "bytes=0-0");
    if (bytes === undefined) return undefined;
    // Not known to be none: whoever asks looks at all of its bytes.
    if (totalBytes !== undefined) return { sizeBytes: totalBytes, isCopy: true };
    throw new AppError("unavailable", `${this.location} says that ${key} is there and is not.`, {
      context: { site: this.name, key },
    });
  }

  async delete(keys: readonly string[], options: DeleteCall = {}): Promise<void> {
    for (const key of keys) assertObjectKey(key);
    throwIfCancelled(options.signal);
    await this.#versions.remove(keys, options);
  }

  async *list(
    prefix: string,
    options: SiteCall & { readonly after?: string } = {},
  ): AsyncIterable<ObjectRow> {
    assertKeyPrefix(prefix);
    const { sdk, client, bucket, prefix: before } = this.#bucket;
    let after = options.after ?? "";
    for (;;) {
      const command = new sdk.ListObjectsV2Command({
        Bucket: bucket,
        Prefix: before + prefix,
        MaxKeys: PAGE_KEY_COUNT,
        ...(after === "" ? {} : { StartAfter: before + after }),
      });
      const page = await this.#bucket.request(
        undefined,
        options,
        async (how) => await client.send(command, how),
      );
      const pageStart = after;
      for (const { Key: full = "", Size: sizeBytes = 0 } of page.Contents ?? []) {
        const key = full.slice(before.length);
        if (key <= after) throw this.#unordered(key);
        after = key;
        if (isObjectKey(key)) yield { key, sizeBytes };
      }
      if (page.IsTruncated !== true) return;
      if (after === pageStart) throw this.#unordered(after);
    }
  }

  async inspect(options: SiteCall = {}): Promise<readonly SiteFinding[]> {
    return await inspectBucket(this.#bucket, this.lock, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#bucket.close();
  }

  /** The bytes of an object or of a range, also of one under a marker, which is then taken away. */
  async #read(key: string, options: SiteCall, range: string | undefined): Promise<Found> {
    const { sdk, client, handler } = this.#bucket;
    const send = async (VersionId?: string): Promise<Found | "hidden"> => {
      const part = range === undefined ? {} : { Range: range };
      const version = VersionId === undefined ? {} : { VersionId };
      const command = new sdk.GetObjectCommand({ ...this.#bucket.at(key), ...part, ...version });
      return await this.#bucket.request(key, options, async (how) => {
        try {
          const answer = await client.send(command, how);
          const bytes = handler.bytesOf(answer.Body);
          if (bytes.length !== answer.ContentLength) throw this.#truncated(key, bytes.length);
          this.#versions.note(answer.VersionId);
          const totalBytes = totalOf(answer.ContentRange) ?? answer.ContentLength;
          return { bytes, isRange: answer.ContentRange !== undefined, totalBytes };
        } catch (thrown) {
          const empty = { bytes: new Uint8Array(), isRange: true };
          if (isAnswer(thrown, 416)) {
            const totalBytes = totalOf(headerOf(thrown, "content-range"));
            return totalBytes === undefined ? empty : { ...empty, totalBytes };
          }
          // Any other 404 (bucket, user, a proxy's page) must not look like an absent object.
          if (s3Failure(thrown).code !== "NoSuchKey") throw thrown;
          return headerOf(thrown, "x-amz-delete-marker") === "true" ? "hidden" : ABSENT;
        }
      });
    };
    const found = await send();
    if (found !== "hidden") return found;
    const versionId = await this.#versions.heal(key, options);
    if (versionId === undefined) return ABSENT;
    if (this.healed.size < HEALED_COUNT_MAX) this.healed.add(key);
    const below = await send(versionId);
    return below === "hidden" ? ABSENT : below;
  }

  #lockOf({ mode, periodMs }: NonNullable<S3SiteOptions["lock"]>): SiteLock {
    const { sdk, client } = this.#bucket;
    return {
      mode,
      periodMs,
      nowMs: () => this.#bucket.now(),
      endMs: () => lockEndMs(this.#bucket.now(), periodMs),
      lockedUntil: async (key, options = {}) => await this.#versions.lockedUntil(key, options),
      lockUntil: async (key, untilMs, options = {}) => {
        const command = new sdk.PutObjectRetentionCommand({
          ...this.#bucket.at(key),
          Retention: { Mode: lockMode(mode), RetainUntilDate: new Date(untilMs) },
        });
        await this.#bucket.request(key, options, async (how) => await client.send(command, how));
      },
    };
  }

  #lockHeaders(key: string, { lockUntilMs }: PutCall): S3KeepHeaders {
    if (this.lock === undefined || lockUntilMs === 0) return {};
    if (lockUntilMs === undefined && key.startsWith(PROBE_PREFIX)) return {};
    const until = new Date(lockUntilMs ?? this.lock.endMs());
    return { ObjectLockMode: lockMode(this.lock.mode), ObjectLockRetainUntilDate: until };
  }

  /** How the store shall keep it. */
  #keepHeaders(key: string): S3KeepHeaders {
    const { sse, kmsKeyId, storageClass = {} } = this.#options;
    const kept = key.startsWith(DATA_PREFIX) ? storageClass.data : storageClass.metadata;
    return {
      ...(sse === undefined ? {} : { ServerSideEncryption: sse }),
      ...(kmsKeyId === undefined ? {} : { SSEKMSKeyId: kmsKeyId }),
      // The SDK's type knows the classes of AWS; other stores have their own.
      ...(kept === undefined ? {} : { StorageClass: kept as StorageClass }),
    };
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

type StorageClass = NonNullable<PutObjectCommandInput["StorageClass"]>;

type Found = {
  readonly bytes: Uint8Array | undefined;
  /** The server sent the range, not the whole. */
  readonly isRange: boolean;
  /** Of the whole object. */
  readonly totalBytes?: number | undefined;
};

const ABSENT: Found = { bytes: undefined, isRange: true };

function lockMode(mode: "governance" | "compliance"): "GOVERNANCE" | "COMPLIANCE" {
  return mode === "governance" ? "GOVERNANCE" : "COMPLIANCE";
}

/** `bytes 0-0/1234` and `bytes *\/1234`. */
function totalOf(contentRange: string | undefined): number | undefined {
  const total = /\/(\d+)$/.exec(contentRange ?? "")?.[1];
  return total === undefined ? undefined : Number(total);
}

/** The checksum of a whole object; those of multipart uploads cover hashes, not bytes. */
function wholeSha256(checksum: string | undefined): string | undefined {
  if (checksum === undefined || checksum.includes("-")) return undefined;
  return toHex(Uint8Array.fromBase64(checksum));
}
