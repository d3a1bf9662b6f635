/**
 * Door 4: an object store, reduced to what a write-once repository needs. Keys are ASCII paths
 * (`log/000000000001`); objects are immutable once created and at most 64 MiB, so bodies are whole
 * buffers. `put` is create-if-absent and atomic: of many racing writers exactly one is told
 * `created`, and nobody ever sees a part of an object. One contract suite (test/sites) runs against
 * every kind.
 */

/** What `head` tells of an object. */
export type ObjectHead = {
  readonly sizeBytes: number;
  /** Lower-case hex SHA-256 of the bytes where the store keeps or can compute one cheaply. */
  readonly sha256?: string;
};

/** One row of a listing, in ascending byte order of keys. */
export type ObjectRow = { readonly key: string; readonly sizeBytes: number };

/** Options of every call: the signal ends the wait, and leaves the store correct. */
export type SiteCall = { readonly signal?: AbortSignal };

/**
 * One object store. All methods throw AppError: `unavailable`/`timeout` (retryable; the outcome of a
 * `put` is then unknown), `permission`, `no-space`, `not-found` for a missing bucket or directory
 * (never for a missing object), `damaged` where the store itself reports corruption.
 *
 * @example
 * const how = await site.put("log/000000000002", bytes);
 * if (how === "exists") console.log("somebody was faster");
 */
export interface Site {
  /** The name from the configuration, for messages. */
  readonly name: string;
  /** Where it is, for messages: `file:/backup` or `s3://bucket/prefix`. Never a secret. */
  readonly location: string;
  /** The object's bytes or a part of them; undefined if it does not exist. A range past the end is cut. */
  get(
    key: string,
    options?: SiteCall & { readonly offset?: number; readonly length?: number },
  ): Promise<Uint8Array | undefined>;
  /** Creates the object unless the key is taken. `sha256` (hex), if known, spares a hash. Durable when it returns. */
  put(
    key: string,
    bytes: Uint8Array,
    options?: SiteCall & { readonly sha256?: string },
  ): Promise<"created" | "exists">;
  head(key: string, options?: SiteCall): Promise<ObjectHead | undefined>;
  /** Removes objects; what is absent is fine. */
  delete(keys: readonly string[], options?: SiteCall): Promise<void>;
  /** All objects whose key starts with `prefix` and is greater than `after`, ascending. */
  list(prefix: string, options?: SiteCall & { readonly after?: string }): AsyncIterable<ObjectRow>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Objects are never larger than this: one PUT each, no multipart. */
export const OBJECT_SIZE_BYTES_MAX = 64 * 1024 * 1024;
