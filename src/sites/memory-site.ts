/**
 * A site in memory, for tests and the simulator. It copies bytes on the way in and out, so that
 * nobody can change a stored object by writing to a buffer that he still holds.
 */
import { sha256Hex } from "../base/hex.ts";
import { assertKeyPrefix, assertObjectBody, assertObjectKey } from "./object-key.ts";
import { cutRange, throwIfCancelled } from "./object-key.ts";
import type { ObjectHead, ObjectRow, Site, SiteCall } from "./site.ts";

/** The kinds of request that a site answers. */
export type RequestKind = "get" | "put" | "head" | "delete" | "list";

/**
 * A site whose objects are a Map.
 *
 * @example
 * await using site = new MemorySite("primary");
 * await site.put("log/000000000001", bytes);
 */
export class MemorySite implements Site {
  readonly name: string;
  readonly location: string;
  /** How many requests of each kind were made; a `delete` of many keys is one. */
  readonly requests: Record<RequestKind, number> = { get: 0, put: 0, head: 0, delete: 0, list: 0 };
  /** The objects themselves, for tests that damage them or count bytes. */
  readonly objects: Map<string, Uint8Array>;

  /** Sites that share `objects` are two openings of the same store. */
  constructor(name = "memory", objects: Map<string, Uint8Array> = new Map<string, Uint8Array>()) {
    this.name = name;
    this.location = `memory:${name}`;
    this.objects = objects;
  }

  async get(
    key: string,
    options: SiteCall & { readonly offset?: number; readonly length?: number } = {},
  ): Promise<Uint8Array | undefined> {
    this.#begin("get", key, options);
    const bytes = this.objects.get(key);
    if (bytes === undefined) return undefined;
    const { start, end } = cutRange(options, bytes.length);
    return bytes.slice(start, end);
  }

  async put(
    key: string,
    bytes: Uint8Array,
    options: SiteCall & { readonly sha256?: string } = {},
  ): Promise<"created" | "exists"> {
    this.#begin("put", key, options);
    assertObjectBody(bytes);
    if (this.objects.has(key)) return "exists";
    this.objects.set(key, Uint8Array.from(bytes));
    return "created";
  }

  async head(key: string, options: SiteCall = {}): Promise<ObjectHead | undefined> {
    this.#begin("head", key, options);
    const bytes = this.objects.get(key);
    if (bytes === undefined) return undefined;
    return { sizeBytes: bytes.length, sha256: sha256Hex(bytes) };
  }

  async delete(keys: readonly string[], options: SiteCall = {}): Promise<void> {
    this.requests.delete += 1;
    throwIfCancelled(options.signal);
    for (const key of keys) assertObjectKey(key);
    for (const key of keys) this.objects.delete(key);
  }

  async *list(
    prefix: string,
    options: SiteCall & { readonly after?: string } = {},
  ): AsyncIterable<ObjectRow> {
    this.requests.list += 1;
    assertKeyPrefix(prefix);
    const after = options.after ?? "";
    const keys = [...this.objects.keys()].filter((key) => key.startsWith(prefix) && key > after);
    for (const key of keys.toSorted()) {
      throwIfCancelled(options.signal);
      const bytes = this.objects.get(key);
      if (bytes !== undefined) yield { key, sizeBytes: bytes.length };
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Nothing is held: the Map outlives the site, as a bucket would.
  }

  #begin(kind: RequestKind, key: string, options: SiteCall): void {
    this.requests[kind] += 1;
    throwIfCancelled(options.signal);
    assertObjectKey(key);
  }
}
