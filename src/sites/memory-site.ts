/**
 * A site in memory, for tests and the simulator. It copies bytes on the way in and out, so that
 * nobody can change a stored object by writing to a buffer that he still holds.
 */
import type { Clock } from "../base/doors.ts";
import { AppError } from "../base/error.ts";
import { sha256Hex } from "../base/hex.ts";
import { lockEndMs, lockEndText } from "./lock-period.ts";
import { assertKeyPrefix, assertObjectBody, assertObjectKey } from "./object-key.ts";
import { cutRange, throwIfCancelled } from "./object-key.ts";
import type { DeleteCall, LockMode, ObjectHead, ObjectRow, PutCall } from "./site.ts";
import type { Site, SiteCall, SiteCopying, SiteLock } from "./site.ts";

/** The kinds of request that a site answers. */
export type RequestKind = "get" | "put" | "head" | "delete" | "list";

/** How a site in memory locks what it creates. */
export type MemoryLock = {
  readonly mode: LockMode;
  readonly periodMs: number;
  readonly clock: Clock;
};

/** Sites in memory between which copies are made: the objects of each, by its name. */
export type MemoryStore = Map<string, ReadonlyMap<string, Uint8Array>>;

/** The keys of copies, for all openings of the same store. */
const COPIES = new WeakMap<Map<string, Uint8Array>, Set<string>>();

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

  /** When the locks of objects end. */
  readonly locks: Map<string, number> = new Map<string, number>();
  readonly lock?: SiteLock;
  /** Where it belongs to a store. */
  readonly copying?: SiteCopying;
  readonly #copies: Set<string>;
  readonly #clock: Clock | undefined;

  /** Sites that share `objects` are two openings of the same store. */
  constructor(
    name = "memory",
    objects: Map<string, Uint8Array> = new Map<string, Uint8Array>(),
    lock?: MemoryLock,
    store?: MemoryStore,
  ) {
    this.name = name;
    this.location = `memory:${name}`;
    this.objects = objects;
    this.#copies = copiesOf(objects);
    this.#clock = lock?.clock;
    if (lock !== undefined) this.lock = this.#lockOf(lock);
    store?.set(name, objects);
    if (store !== undefined) this.copying = this.#copyingWithin(store);
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

  async put(key: string, bytes: Uint8Array, options: PutCall = {}): Promise<"created" | "exists"> {
    this.#begin("put", key, options);
    assertObjectBody(bytes);
    return this.#create(key, bytes, options);
  }

  async head(key: string, options: SiteCall = {}): Promise<ObjectHead | undefined> {
    this.#begin("head", key, options);
    const bytes = this.objects.get(key);
    if (bytes === undefined) return undefined;
    const mark = this.#copies.has(key) ? { isCopy: true } : {};
    return { sizeBytes: bytes.length, sha256: sha256Hex(bytes), ...mark };
  }

  async delete(keys: readonly string[], options: DeleteCall = {}): Promise<void> {
    this.requests.delete += 1;
    throwIfCancelled(options.signal);
    for (const key of keys) assertObjectKey(key);
    for (const key of keys) {
      const untilMs = this.locks.get(key) ?? 0;
      if (untilMs > (this.#clock?.now() ?? Infinity)) this.#tellLocked(key, untilMs, options);
      else this.#remove(key);
    }
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

  #lockOf({ mode, periodMs, clock }: MemoryLock): SiteLock {
    return {
      mode,
      periodMs,
      nowMs: () => clock.now(),
      endMs: () => lockEndMs(clock.now(), periodMs),
      lockedUntil: async (key, options = {}) => {
        this.#begin("head", key, options);
        return this.objects.has(key) ? this.locks.get(key) : undefined;
      },
      lockUntil: async (key, untilMs, options = {}) => {
        this.#begin("put", key, options);
        const before = this.locks.get(key) ?? 0;
        if (this.objects.has(key) && untilMs >= before) this.locks.set(key, untilMs);
        else
          throw new AppError("refused", `${key} cannot be locked until ${lockEndText(untilMs)}.`);
      },
    };
  }

  #create(key: string, bytes: Uint8Array, options: PutCall): "created" | "exists" {
    if (this.objects.has(key)) return "exists";
    this.objects.set(key, Uint8Array.from(bytes));
    const isProbe = key.startsWith("probe/");
    const untilMs = options.lockUntilMs ?? (isProbe ? 0 : (this.lock?.endMs() ?? 0));
    if (this.lock !== undefined && untilMs > 0) this.locks.set(key, untilMs);
    return "created";
  }

  #remove(key: string): void {
    this.objects.delete(key);
    this.#copies.delete(key);
  }

  #copyingWithin(store: MemoryStore): SiteCopying {
    return {
      place: { store: "memory", root: this.name, addressOf: (key) => `${this.name}/${key}` },
      ways: [{ name: "copy", requests: 1 }],
      // The sites of another store have other names.
      reaches: (source) => store.has(source.root),
      copyFrom: async (source, fromKey, toKey, call = {}) => {
        this.#begin("put", toKey, call);
        assertObjectKey(fromKey);
        const from = store.get(source.root);
        if (from === undefined) return "impossible";
        const bytes = from.get(fromKey);
        if (bytes === undefined) return "absent";
        const outcome = this.#create(toKey, bytes, {});
        if (outcome === "created") this.#copies.add(toKey);
        return outcome;
      },
    };
  }

  #tellLocked(key: string, untilMs: number, { onLocked }: DeleteCall): void {
    if (onLocked !== undefined) return onLocked(key, untilMs);
    throw new AppError("refused", `${key} is kept until ${lockEndText(untilMs)}.`);
  }

  #begin(kind: RequestKind, key: string, options: SiteCall): void {
    this.requests[kind] += 1;
    throwIfCancelled(options.signal);
    assertObjectKey(key);
  }
}

function copiesOf(objects: Map<string, Uint8Array>): Set<string> {
  const copies = COPIES.get(objects) ?? new Set<string>();
  COPIES.set(objects, copies);
  return copies;
}
