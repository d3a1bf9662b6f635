/**
 * Copies that an S3 store makes by itself. It knows two ways: CopyObject, one request, whose condition
 * AWS keeps and many others ignore (versitygw and MinIO overwrite); and an upload of one part that is
 * copied, three requests, whose condition is the last one's, which stores keep that keep it for PUTs.
 * Which way is safe is proved before it is used (probe.ts).
 *
 * An upload that this process does not live to end stays in the bucket, where it shows in no listing
 * and costs its size until a lifecycle rule (AbortIncompleteMultipartUpload) removes it; docs/sites/s3.md
 * says so.
 */
import type { CopyObjectCommandInput } from "@aws-sdk/client-s3";
import { AppError } from "../base/error.ts";
import { assertObjectKey, throwIfCancelled } from "./object-key.ts";
import { isAnswer } from "./s3-bucket.ts";
import type { S3Bucket } from "./s3-bucket.ts";
import type { S3SiteOptions } from "./s3-options.ts";
import { impossibleCopy } from "./store-error.ts";
import type { CopyCall, CopyOutcome, CopyPlace, CopyWay, SiteCopying } from "./site.ts";

/** How an object is to be kept: headers that all requests that create one know. */
export type S3KeepHeaders = Pick<
  CopyObjectCommandInput,
  | "ObjectLockMode"
  | "ObjectLockRetainUntilDate"
  | "ServerSideEncryption"
  | "SSEKMSKeyId"
  | "StorageClass"
>;

/** Of an upload that is given up, on a store that may be silent. */
const ABORT_TIMEOUT_MS = 3_000;

const WHOLE: CopyWay = { name: "CopyObject", requests: 1 };
const PART: CopyWay = { name: "UploadPartCopy", requests: 3 };

/** Keys that may lie under a delete marker, which the store's condition does not see: never copied. */
const LOG_PREFIX = "log/";

/** What tells a copy, in its user metadata. */
export const COPY_MARK = "astacus-copied";

const MARKED = { ContentType: "application/octet-stream", Metadata: { [COPY_MARK]: "1" } };

/** Copies within one store. */
export class S3Copying implements SiteCopying {
  readonly place: CopyPlace;
  readonly ways: readonly CopyWay[] = [WHOLE, PART];
  readonly #bucket: S3Bucket;
  readonly #headersOf: (key: string) => S3KeepHeaders;

  constructor(bucket: S3Bucket, options: S3SiteOptions, headersOf: (key: string) => S3KeepHeaders) {
    const { endpoint = "", region = "", accessKeyId = "" } = options;
    const root = `${bucket.bucket}/${bucket.prefix}`;
    this.place = {
      // Without a key of their own both take the credentials of this process.
      store: JSON.stringify(["s3", endpoint, region, accessKeyId]),
      root,
      // Keys and prefixes have no letter that would have to be escaped.
      addressOf: (key) => root + key,
    };
    this.#bucket = bucket;
    this.#headersOf = headersOf;
  }

  reaches(source: CopyPlace): boolean {
    return source.store === this.place.store;
  }

  async copyFrom(
    source: CopyPlace,
    fromKey: string,
    toKey: string,
    call: CopyCall = {},
  ): Promise<CopyOutcome> {
    assertObjectKey(fromKey);
    assertObjectKey(toKey);
    throwIfCancelled(call.signal);
    if (!this.reaches(source) || toKey.startsWith(LOG_PREFIX)) return "impossible";
    const from = source.addressOf(fromKey);
    try {
      if (call.way === PART.name) return await this.#copyPart(from, toKey, call);
      return await this.#copyWhole(from, toKey, call);
    } catch (thrown) {
      if (thrown instanceof AppError && thrown.context["code"] === "NoSuchKey") return "absent";
      return impossibleCopy(thrown);
    }
  }

  async #copyWhole(from: string, toKey: string, call: CopyCall): Promise<CopyOutcome> {
    const { sdk, client } = this.#bucket;
    const command = new sdk.CopyObjectCommand({
      ...this.#bucket.at(toKey),
      CopySource: from,
      IfNoneMatch: "*",
      // Of the copy, by the store, from what it has read.
      ChecksumAlgorithm: "SHA256",
      MetadataDirective: "REPLACE",
      ...this.#headersOf(toKey),
      ...MARKED,
    });
    return await this.#bucket.request(toKey, call, async (how) => {
      try {
        await client.send(command, how);
        return "created";
      } catch (thrown) {
        if (isAnswer(thrown, 412)) return "exists";
        throw thrown;
      }
    });
  }

  async #copyPart(from: string, toKey: string, call: CopyCall): Promise<CopyOutcome> {
    const { sdk, client } = this.#bucket;
    const at = this.#bucket.at(toKey);
    const create = new sdk.CreateMultipartUploadCommand({
      ...at,
      ...this.#headersOf(toKey),
      ...MARKED,
    });
    const { UploadId } = await this.#bucket.request(
      toKey,
      call,
      async (how) => await client.send(create, how),
    );
    let outcome: CopyOutcome | undefined;
    try {
      const upload = { ...at, UploadId, PartNumber: 1 };
      const copy = new sdk.UploadPartCopyCommand({ ...upload, CopySource: from });
      const { CopyPartResult: part } = await this.#bucket.request(
        toKey,
        call,
        async (how) => await client.send(copy, how),
      );
      const Parts = [{ PartNumber: 1, ETag: part?.ETag }];
      const complete = new sdk.CompleteMultipartUploadCommand({
        ...at,
        UploadId,
        IfNoneMatch: "*",
        MultipartUpload: { Parts },
      });
      outcome = await this.#bucket.request(toKey, call, async (how) => {
        try {
          await client.send(complete, how);
          return "created" as const;
        } catch (thrown) {
          if (isAnswer(thrown, 412)) return "exists" as const;
          throw thrown;
        }
      });
      return outcome;
    } finally {
      if (outcome !== "created") await this.#abort({ ...at, UploadId });
    }
  }

  /** Also where the end was acknowledged and the answer lost: then there is nothing to abort. */
  async #abort(upload: {
    readonly Bucket: string;
    readonly Key: string;
    readonly UploadId: string | undefined;
  }): Promise<void> {
    const { sdk, client } = this.#bucket;
    const command = new sdk.AbortMultipartUploadCommand(upload);
    try {
      // Without the caller's signal: who gives up leaves nothing behind either, if the store answers.
      const signal = AbortSignal.timeout(ABORT_TIMEOUT_MS);
      await this.#bucket.request(undefined, { signal }, async (how) => {
        await client.send(command, how);
      });
    } catch (thrown) {
      // What stays is for the bucket's lifecycle; the outcome of the copy counts.
      if (!(thrown instanceof AppError)) throw thrown;
    }
  }
}
