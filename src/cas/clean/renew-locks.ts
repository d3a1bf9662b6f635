/**
 * Locks of what lives, renewed once a period: every object that the state names gets a lock to the end
 * of the period after next, unless its lock ends then already. What is retired, forgotten or garbage is
 * left to the end of its lock. So an object that a backup needs is locked for at least one whole period
 * at any time, if a cleanup runs in each.
 *
 * It costs a LIST of the site, a HEAD for each object and a PUT for those whose lock ends too soon.
 * Stopped in the middle it goes on with the next cleanup: what was renewed costs a HEAD then.
 *
 * A live pack that the LIST lacks may lie below a marker that somebody laid over it: a HEAD of the site
 * takes that away. What is absent then is an alarm.
 *
 * The header comes last. It is the oldest object of a site, and all that is created has a lock from the
 * beginning; so the end of the header's lock is the first end of all that lives, and one HEAD tells it
 * to any node (lock-standing.ts).
 */
import { AppError } from "../../base/error.ts";
import { forEachConcurrent } from "../../base/semaphore.ts";
import type { SiteLock } from "../../sites/site.ts";
import type { IndexedPack } from "../catalog/catalog-index.ts";
import { HEADER_KEY } from "../format/header.ts";
import { parseObjectKey } from "../format/object-name.ts";
import { packKey } from "../format/pack.ts";
import type { Repository } from "../log/repository.ts";
import { isPinned } from "../log/state.ts";
import type { RepositoryState } from "../log/state.ts";
import { getNamedPack, packStanding } from "./pack-standing.ts";

/** What was renewed, or would be. */
export type LockRenewal = {
  /** Objects that live: each costs a HEAD. */
  readonly objects: number;
  readonly bytes: number;
  /** Of them, those whose lock was made longer: a PUT each. A plan does not ask, and tells all. */
  readonly renewed: number;
  /** When their locks end, in ms since 1970. */
  readonly untilMs: number;
  /** About, without retries. */
  readonly requests: LockRequests;
  /** What should be locked and cannot be. */
  readonly alarms: readonly string[];
};

/** What a renewal asks of a site. */
export type LockRequests = { readonly list: number; readonly head: number; readonly put: number };

/** The requests of a renewal: of so many objects at the site some live, and of these some are renewed. */
export function lockRequests(listed: number, live: number, renewed = live): LockRequests {
  return { list: Math.max(1, Math.ceil(listed / LIST_PAGE_COUNT)), head: live, put: renewed };
}

const RENEWED_KEY = "locks-renewed";
/** Keys of one page of a LIST. */
const LIST_PAGE_COUNT = 1000;
const CONCURRENCY = 16;
const BATCH_COUNT = 1000;
/** Absent packs that are named. */
const ALARM_COUNT_MAX = 100;
const MORE_ALARMS = "and more packs were not locked: backups need them and they are not there";
/** Above all ids in hex. */
const PAST_ALL_IDS = "g";

/** True if the site locks, and nobody with this catalog has renewed in this period, of this length. */
export function isRenewalDue(repository: Repository): boolean {
  const { lock } = repository.site;
  if (lock === undefined) return false;
  const renewed = repository.catalog.get(RENEWED_KEY);
  if (renewed === undefined) return true;
  // Earlier builds noted the number of the period alone, which another length makes worthless.
  const [untilMs = 0, periodMs] = renewed.split(" ").map(Number);
  return periodMs !== lock.periodMs || untilMs < lock.endMs();
}

/**
 * Renews the locks of all that lives; undefined if there is nothing to do in this period. A header that
 * cannot be locked is an alarm, and the next cleanup tries again.
 *
 * @example
 * const renewal = await renewLocks(repository, { signal });
 */
export async function renewLocks(
  repository: Repository,
  options: { readonly isDryRun?: boolean; readonly signal?: AbortSignal | undefined } = {},
): Promise<LockRenewal | undefined> {
  const { site, state } = repository;
  const { lock } = site;
  if (lock === undefined || !isRenewalDue(repository)) return undefined;
  const { signal, isDryRun = false } = options;
  const call = signal === undefined ? {} : { signal };
  const run = new Renewal(repository, lock, signal);
  const isLive = liveness(repository, state);
  const unlisted = new UnlistedPacks(repository, state);
  let listed = 0;
  let isHeaderListed = false;
  for await (const { key, sizeBytes } of site.list("", call)) {
    listed += 1;
    if (!isLive(key)) continue;
    if (!isDryRun) await run.seek(unlisted.upTo(key));
    run.objects += 1;
    run.bytes += sizeBytes;
    if (key === HEADER_KEY) isHeaderListed = true;
    else if (!isDryRun) await run.add(key);
  }
  const { objects, bytes, untilMs } = run;
  if (isDryRun) {
    const requests = lockRequests(listed, objects);
    return { objects, bytes, renewed: objects, untilMs, requests, alarms: [] };
  }
  await run.seek(unlisted.rest());
  await run.flush();
  if (await run.renewHeader(isHeaderListed)) {
    repository.catalog.set(RENEWED_KEY, `${untilMs} ${lock.periodMs}`);
  }
  return run.result(listed);
}

/** One run: what it has counted, and the keys that wait for their turn. */
class Renewal {
  /** Taken before the first request: should the period end meanwhile, the next run sees it. */
  readonly untilMs: number;
  objects = 0;
  bytes = 0;
  readonly #repository: Repository;
  readonly #lock: SiteLock;
  readonly #signal: AbortSignal | undefined;
  readonly #alarms: string[] = [];
  #batch: string[] = [];
  #renewed = 0;
  #sought = 0;

  constructor(repository: Repository, lock: SiteLock, signal: AbortSignal | undefined) {
    this.#repository = repository;
    this.#lock = lock;
    this.#signal = signal;
    this.untilMs = lock.endMs();
  }

  async add(key: string): Promise<void> {
    this.#batch.push(key);
    if (this.#batch.length >= BATCH_COUNT) await this.flush();
  }

  async flush(): Promise<void> {
    const batch = this.#batch;
    this.#batch = [];
    await forEachConcurrent(
      batch,
      CONCURRENCY,
      async (key, signal) => await this.#renew(key, signal),
      this.#signal,
    );
  }

  /** Packs that were not listed: a HEAD heals what a marker hides. */
  async seek(packs: Iterable<IndexedPack>): Promise<void> {
    await forEachConcurrent(
      packs,
      CONCURRENCY,
      async ({ id, birth }, signal) => {
        const key = packKey(id, birth);
        this.#sought += 1;
        const found = await this.#repository.site.head(key, { signal });
        if (found === undefined) return await this.#tellAbsent(id, birth, signal);
        this.objects += 1;
        this.bytes += found.sizeBytes;
        await this.#renew(key, signal);
      },
      this.#signal,
    );
  }

  /** True if the header is locked as long as the rest. */
  async renewHeader(isListed: boolean): Promise<boolean> {
    const { site } = this.#repository;
    const call = this.#signal === undefined ? {} : { signal: this.#signal };
    try {
      if (!isListed) {
        this.#sought += 1;
        const found = await site.head(HEADER_KEY, call);
        if (found === undefined) throw new AppError("damaged", "it is not there");
        this.objects += 1;
        this.bytes += found.sizeBytes;
      }
      await this.#renew(HEADER_KEY, this.#signal);
      return true;
    } catch (thrown) {
      this.#signal?.throwIfAborted();
      if (!(thrown instanceof AppError)) throw thrown;
      this.#alarms.push(`${HEADER_KEY} was not locked: ${thrown.message}`);
      return false;
    }
  }

  result(listed: number): LockRenewal {
    const { objects, bytes, untilMs } = this;
    const { list, head, put } = lockRequests(listed, objects, this.#renewed);
    const requests = { list, head: head + this.#sought, put };
    const alarms = this.#alarms.toSorted();
    return { objects, bytes, renewed: this.#renewed, untilMs, requests, alarms };
  }

  async #renew(key: string, signal: AbortSignal | undefined): Promise<void> {
    const call = signal === undefined ? {} : { signal };
    const until = await this.#lock.lockedUntil(key, call);
    if (until !== undefined && until >= this.untilMs) return;
    await this.#lock.lockUntil(key, this.untilMs, call);
    this.#renewed += 1;
  }

  /** Unless another cleanup has removed it meanwhile. */
  async #tellAbsent(id: string, birth: number, signal: AbortSignal): Promise<void> {
    if (this.#alarms.length > ALARM_COUNT_MAX) return;
    const state = await this.#repository.catchUp(signal);
    if (packStanding(this.#repository, state, id) !== "live") return;
    const alarm = `${packKey(id, birth)} was not locked: backups need it and it is not there`;
    if (this.#alarms.length < ALARM_COUNT_MAX) this.#alarms.push(alarm);
    else if (this.#alarms.length === ALARM_COUNT_MAX) this.#alarms.push(MORE_ALARMS);
  }
}

/** The live packs that a LIST lacks, found beside it: both go by id. */
class UnlistedPacks {
  readonly #repository: Repository;
  readonly #state: RepositoryState;
  #after = "";
  #page: string[] = [];
  #next = 0;

  constructor(repository: Repository, state: RepositoryState) {
    this.#repository = repository;
    this.#state = state;
  }

  /** Those that the LIST should have shown before a live object; nothing unless that is a pack. */
  *upTo(key: string): Generator<IndexedPack, void, undefined> {
    const { kind, id } = parseObjectKey(key);
    if (kind !== "pack" || id === undefined) return;
    yield* this.#below(id);
    if (this.#peek() === id) this.#next += 1;
  }

  /** Those after the last one. */
  *rest(): Generator<IndexedPack, void, undefined> {
    yield* this.#below(PAST_ALL_IDS);
  }

  *#below(id: string): Generator<IndexedPack, void, undefined> {
    for (let own = this.#peek(); own !== undefined && own < id; own = this.#peek()) {
      this.#next += 1;
      if (this.#state.retired.has(own)) continue;
      const pack = getNamedPack(this.#repository, this.#state, own);
      if (pack !== undefined) yield pack;
    }
  }

  #peek(): string | undefined {
    if (this.#next < this.#page.length) return this.#page[this.#next];
    this.#page = this.#repository.index.packIds({ after: this.#after, count: BATCH_COUNT });
    this.#next = 0;
    this.#after = this.#page.at(-1) ?? this.#after;
    return this.#page[0];
  }
}

/** Whether the state needs an object. Log entries and keys always; packs by the index. */
function liveness(repository: Repository, state: RepositoryState): (key: string) => boolean {
  const manifests = new Set(
    [...state.backups.values()]
      .filter(({ backup, forgotten }) => forgotten === undefined || isPinned(state, backup))
      .map(({ manifest }) => `${manifest.id}-${manifest.birth}`),
  );
  return (key) => {
    const { kind, id, birth } = parseObjectKey(key);
    switch (kind) {
      case "header":
      case "log":
      case "key":
        return true;
      case "checkpoint":
        return id === state.checkpoint?.hash;
      case "index":
        return id !== undefined && state.segments.get(id)?.birth === birth;
      case "manifest":
        return manifests.has(`${id}-${birth}`);
      case "pack":
        if (id === undefined || state.retired.has(id)) return false;
        return getNamedPack(repository, state, id)?.birth === birth;
      default:
        return false;
    }
  };
}
