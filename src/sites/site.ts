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
  /** The store has copied it by itself (`SiteCopying`), so nobody has checked these bytes. */
  readonly isCopy?: boolean;
};

/** One row of a listing, in ascending byte order of keys. */
export type ObjectRow = { readonly key: string; readonly sizeBytes: number };

/** How long what is created here cannot be removed, and by whom. */
export type LockMode = "governance" | "compliance";

/**
 * Locks of a site that puts one on all that it creates (but `probe/`). Time goes in periods, and a
 * lock lasts to the end of the period after next; so what lives is renewed once a period, and what is
 * no longer renewed can be removed two to three periods later.
 */
export interface SiteLock {
  readonly mode: LockMode;
  readonly periodMs: number;
  /** The store's time as far as it is known, in ms since 1970. */
  nowMs(): number;
  /** When the lock ends of what is created or renewed now. */
  endMs(): number;
  /** When an object's lock ends; undefined if it has none, or if there is no such object. */
  lockedUntil(key: string, options?: SiteCall): Promise<number | undefined>;
  /** Lets an object's lock end at a time (ms since 1970) that is later than its present end. */
  lockUntil(key: string, untilMs: number, options?: SiteCall): Promise<void>;
}

/** One thing that a store says of itself, or that was tried on it. */
export type SiteFinding = {
  /** `bad`: no repository may live here. `warning`: an operator should know. */
  readonly level: "ok" | "warning" | "bad";
  readonly what: string;
  readonly guidance?: string;
};

/** Options of `put`. */
export type PutCall = SiteCall & {
  /** Lower-case hex of the bytes; spares a hash if it is known. */
  readonly sha256?: string;
  /** Instead of the lock that the site would put on it: another end, or 0 for none. */
  readonly lockUntilMs?: number;
};

/** Options of `delete`. */
export type DeleteCall = SiteCall & {
  /** Told of each object that stays, since it is locked until then. Without it that is an error. */
  readonly onLocked?: (key: string, untilMs: number) => void;
  /** Asks the store to remove what seems to be locked, too: a canary proves so that it refuses. */
  readonly evenLocked?: boolean;
};

/** Where a store finds the objects of a site by itself. Never to be shown: it may hold a secret. */
export type CopyPlace = {
  /** Equal for sites between which the store can copy: one provider, endpoint and credentials. */
  readonly store: string;
  /** Tells places of one store apart. */
  readonly root: string;
  /** One object, in the store's own words. */
  addressOf(key: string): string;
};

/** One of the requests by which a store may copy an object. */
export type CopyWay = {
  readonly name: string;
  /** How many requests it takes; each is charged as a PUT. */
  readonly requests: number;
};

/** `absent`: there is no such source. `impossible`: the store will not do it; read and put instead. */
export type CopyOutcome = "created" | "exists" | "absent" | "impossible";

/** Options of `copyFrom`. */
export type CopyCall = SiteCall & {
  /** One of `ways`; the first unless given. */
  readonly way?: string;
};

/**
 * Copies of immutable objects that a store makes by itself, so that no byte passes through us. As
 * `put` it creates only what is absent, whole, and under the site's lock, encryption and storage
 * class; what it copied is as good as the source, which it does not check, so `head` tells it. Whether the store keeps
 * the condition is for `findCopyWay` (probe.ts) to prove before anything is copied.
 */
export interface SiteCopying {
  /** Where the objects of this site are, as a source of copies to others. */
  readonly place: CopyPlace;
  /** The cheapest first; after a proof the one that keeps the condition, or none. */
  readonly ways: readonly CopyWay[];
  /** Whether copies from there may work as far as is known. Asks nobody. */
  reaches(source: CopyPlace): boolean;
  /** Creates `toKey` here with the bytes of `fromKey` there, unless the key is taken. */
  copyFrom(
    source: CopyPlace,
    fromKey: string,
    toKey: string,
    call?: CopyCall,
  ): Promise<CopyOutcome>;
}

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
  put(key: string, bytes: Uint8Array, options?: PutCall): Promise<"created" | "exists">;
  head(key: string, options?: SiteCall): Promise<ObjectHead | undefined>;
  /** Removes objects; what is absent is fine. On a versioned bucket the bytes go, not just the name. */
  delete(keys: readonly string[], options?: DeleteCall): Promise<void>;
  /** All objects whose key starts with `prefix` and is greater than `after`, ascending. */
  list(prefix: string, options?: SiteCall & { readonly after?: string }): AsyncIterable<ObjectRow>;
  /** Where what is created is locked. */
  readonly lock?: SiteLock;
  /** Where the store can copy objects by itself. */
  readonly copying?: SiteCopying;
  /** Why two writers must never be here at once, where that is so and was asked for by name. */
  readonly weakness?: string;
  /** Objects that somebody had deleted and that were found again since the site was opened. */
  readonly healed?: ReadonlySet<string>;
  /** For `site check`: what the store is set to that matters to backups. */
  inspect?(options?: SiteCall): Promise<readonly SiteFinding[]>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** What only some kinds of site have, for whoever wraps one; copies are wrapped by `aroundCopies`. */
export function extrasOf(site: Site): Pick<Site, "lock" | "weakness" | "healed" | "inspect"> {
  const { lock, weakness, healed } = site;
  return {
    ...(lock === undefined ? {} : { lock }),
    ...(weakness === undefined ? {} : { weakness }),
    // The same set, which grows.
    ...(healed === undefined ? {} : { healed }),
    inspect: async (options) => (await site.inspect?.(options)) ?? [],
  };
}

/** The copies of a site with something around each; nothing where it has none. */
export function aroundCopies(
  site: Site,
  around: (
    toKey: string,
    call: CopyCall | undefined,
    copy: (call?: CopyCall) => Promise<CopyOutcome>,
  ) => Promise<CopyOutcome>,
): Pick<Site, "copying"> {
  const { copying } = site;
  if (copying === undefined) return {};
  return {
    copying: {
      place: copying.place,
      // They are fewer after a proof.
      get ways() {
        return copying.ways;
      },
      reaches: (source) => copying.reaches(source),
      copyFrom: async (source, fromKey, toKey, call) =>
        await around(
          toKey,
          call,
          async (inner) => await copying.copyFrom(source, fromKey, toKey, inner ?? call),
        ),
    },
  };
}

/** Whether a store can be asked to copy from one site to another by itself. */
export function canCopyWithin(from: Pick<Site, "copying">, to: Pick<Site, "copying">): boolean {
  return from.copying !== undefined && to.copying?.reaches(from.copying.place) === true;
}

/** Objects are never larger than this: one PUT each, no multipart. */
export const OBJECT_SIZE_BYTES_MAX = 64 * 1024 * 1024;
