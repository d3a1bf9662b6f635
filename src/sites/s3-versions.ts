/**
 * Versions of objects in a bucket that keeps them. Our objects have one version each, since nothing is
 * overwritten; but a plain DELETE would only lay a marker over it. So what is removed is the version
 * itself, unless it is locked; and a marker that somebody else laid over an object is taken away.
 */
import { AppError } from "../base/error.ts";
import { lockEndText } from "./lock-period.ts";
import { isAnswer } from "./s3-bucket.ts";
import type { S3Bucket } from "./s3-bucket.ts";
import { s3FailureError } from "./s3-error.ts";
import type { DeleteCall, SiteCall } from "./site.ts";

/** One version of a key, or a marker over it. */
type VersionId = { readonly Key: string; readonly VersionId?: string };

/** Keys of one request. */
const PAGE_KEY_COUNT = 1000;

/** What a HEAD tells of the version that is the current one. */
type Current = { readonly versionId?: string; readonly untilMs?: number };

/** The removal of objects from a bucket, with or without versions. */
export class S3Versions {
  readonly #bucket: S3Bucket;
  readonly #isLocked: boolean;
  #isVersioned: boolean | undefined;

  constructor(bucket: S3Bucket, isLocked: boolean) {
    this.#bucket = bucket;
    this.#isLocked = isLocked;
    if (isLocked) this.#isVersioned = true;
  }

  /** Learns from the answer to a put or get. */
  note(versionId: string | undefined): void {
    if (versionId !== undefined && versionId !== "null") this.#isVersioned = true;
  }

  /** Removes objects; on a bucket with versions, all their versions but the locked ones. */
  async remove(keys: readonly string[], options: DeleteCall): Promise<void> {
    const isVersioned = keys.length > 0 && (await this.#hasVersions(options));
    for (let start = 0; start < keys.length; start += PAGE_KEY_COUNT) {
      const page = keys.slice(start, start + PAGE_KEY_COUNT);
      const whole = isVersioned ? page.map((key) => this.#versionsOf(key, options)) : [];
      const ids = isVersioned
        ? (await Promise.all(whole)).flat()
        : page.map((key) => ({ Key: this.#bucket.at(key).Key }));
      for (let first = 0; first < ids.length; first += PAGE_KEY_COUNT) {
        await this.#removeIds(ids.slice(first, first + PAGE_KEY_COUNT), options);
      }
    }
  }

  /** When the current version's lock ends; undefined if it has none or there is no version. */
  async lockedUntil(key: string, options: SiteCall): Promise<number | undefined> {
    return (await this.#current(key, options))?.untilMs;
  }

  /**
   * Takes away markers that lie over an object. Returns the version below them, or undefined if there
   * is none. Without the right to remove markers the version can be read all the same.
   */
  async heal(key: string, options: SiteCall): Promise<string | undefined> {
    const { versions, markers } = await this.#listVersions(key, options);
    const [newest] = versions;
    if (newest === undefined) return undefined;
    try {
      if (markers.length > 0) await this.#removeIds(markers, options);
    } catch (thrown) {
      if (!(thrown instanceof AppError && thrown.kind === "permission")) throw thrown;
    }
    return newest.VersionId;
  }

  /** What has to be named to remove a key, without what is locked. */
  async #versionsOf(key: string, options: DeleteCall): Promise<VersionId[]> {
    const current = await this.#current(key, options);
    if (current === undefined) {
      const { versions, markers } = await this.#listVersions(key, options);
      return [...versions, ...markers];
    }
    const { versionId, untilMs } = current;
    const isLocked = untilMs !== undefined && untilMs > this.#bucket.now();
    if (isLocked && options.evenLocked !== true) {
      this.#tellLocked(key, untilMs, options);
      return [];
    }
    const { Key } = this.#bucket.at(key);
    return [versionId === undefined ? { Key } : { Key, VersionId: versionId }];
  }

  /** Undefined if no version is the current one: absent, or under a marker. */
  async #current(key: string, options: SiteCall): Promise<Current | undefined> {
    const { sdk, client } = this.#bucket;
    const command = new sdk.HeadObjectCommand(this.#bucket.at(key));
    return await this.#bucket.request(key, options, async (how) => {
      try {
        const answer = await client.send(command, how);
        const { VersionId: versionId, ObjectLockRetainUntilDate: until } = answer;
        const isHeld = answer.ObjectLockLegalHoldStatus === "ON";
        const untilMs = isHeld ? Number.POSITIVE_INFINITY : until?.getTime();
        return {
          ...(versionId === undefined ? {} : { versionId }),
          ...(untilMs === undefined ? {} : { untilMs }),
        };
      } catch (thrown) {
        // 405 is the answer for a marker that is asked for by itself.
        if (isAnswer(thrown, 404, 405)) return undefined;
        throw thrown;
      }
    });
  }

  async #listVersions(
    key: string,
    options: SiteCall,
  ): Promise<{ readonly versions: VersionId[]; readonly markers: VersionId[] }> {
    const { sdk, client, bucket } = this.#bucket;
    const { Key } = this.#bucket.at(key);
    const command = new sdk.ListObjectVersionsCommand({ Bucket: bucket, Prefix: Key });
    const answer = await this.#bucket.request(
      key,
      options,
      async (how) => await client.send(command, how),
    );
    // The prefix fits longer keys too; this key's own versions come before theirs, newest first.
    const own = (
      rows: readonly { Key?: string | undefined; VersionId?: string | undefined }[] = [],
    ) =>
      rows
        .filter((row) => row.Key === Key)
        .map(({ VersionId }) => ({ Key, ...(VersionId === undefined ? {} : { VersionId }) }));
    return { versions: own(answer.Versions), markers: own(answer.DeleteMarkers) };
  }

  async #removeIds(ids: readonly VersionId[], options: DeleteCall): Promise<void> {
    const { sdk, client, bucket, prefix } = this.#bucket;
    const command = new sdk.DeleteObjectsCommand({
      Bucket: bucket,
      Delete: { Quiet: true, Objects: [...ids] },
    });
    const first = ids[0]?.Key.slice(prefix.length);
    const answer = await this.#bucket.request(
      first,
      options,
      async (how) => await client.send(command, how),
    );
    for (const { Key = "", Code: code = "", Message: message = "" } of answer.Errors ?? []) {
      if (code === "NoSuchKey" || code === "NoSuchVersion") continue;
      const key = Key.slice(prefix.length);
      const failure = { code, status: undefined, message };
      const error = s3FailureError(failure, this.#bucket.place(key));
      if (!this.#isLocked) throw error;
      const untilMs = await this.lockedUntil(key, options);
      if (untilMs === undefined || untilMs <= this.#bucket.now()) throw error;
      this.#tellLocked(key, untilMs, options);
    }
  }

  #tellLocked(key: string, untilMs: number, options: DeleteCall): void {
    if (options.onLocked !== undefined) return options.onLocked(key, untilMs);
    const { name, location } = this.#bucket;
    throw new AppError("refused", `${location} keeps ${key} until ${lockEndText(untilMs)}.`, {
      guidance: "It is locked; a cleanup after that removes it.",
      context: { site: name, key },
    });
  }

  async #hasVersions(options: SiteCall): Promise<boolean> {
    this.#isVersioned ??= await this.#askVersioning(options);
    return this.#isVersioned;
  }

  async #askVersioning(options: SiteCall): Promise<boolean> {
    const { sdk, client, bucket } = this.#bucket;
    const command = new sdk.GetBucketVersioningCommand({ Bucket: bucket });
    return await this.#bucket.request(undefined, options, async (how) => {
      try {
        // Where they are suspended, older objects still have theirs.
        return (await client.send(command, how)).Status !== undefined;
      } catch (thrown) {
        // Not told: a HEAD before each removal finds out.
        if (isAnswer(thrown, 403)) return true;
        // A store that knows no such question has no versions; should it, an answer to a put tells.
        if (isAnswer(thrown, 400, 404, 405, 501) && !isAnswer(thrown, "NoSuchBucket")) return false;
        throw thrown;
      }
    });
  }
}
