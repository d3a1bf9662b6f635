/**
 * Locks of what lives, renewed once a period: every object that the state names gets a lock to the end
 * of the period after next, unless its lock ends then already. What is retired, forgotten or garbage is
 * left to the end of its lock. So an object that a backup needs is locked for at least one whole period
 * at any time, if a cleanup runs in each.
 *
 * It costs a LIST of the site, a HEAD for each object and a PUT for those whose lock ends too soon.
 * Stopped in the middle it goes on with the next cleanup: what was renewed costs a HEAD then.
 *
 * The header comes last. It is the oldest object of a site, and all that is created has a lock from the
 * beginning; so the end of the header's lock is the first end of all that lives, and one HEAD tells it
 * to any node (lock-standing.ts).
 */
import { forEachConcurrent } from "../../base/semaphore.ts";
import { lockPeriodAt } from "../../sites/lock-period.ts";
import type { SiteLock } from "../../sites/site.ts";
import { HEADER_KEY } from "../format/header.ts";
import { parseObjectKey } from "../format/object-name.ts";
import type { Repository } from "../log/repository.ts";
import { isPinned } from "../log/state.ts";
import type { RepositoryState } from "../log/state.ts";
import { getNamedPack } from "./pack-standing.ts";

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

/** True if the site locks, and nobody with this catalog has renewed in this period. */
export function isRenewalDue(repository: Repository): boolean {
  const { lock } = repository.site;
  if (lock === undefined) return false;
  const renewed = repository.catalog.get(RENEWED_KEY);
  return renewed === undefined || Number(renewed) < periodOf(lock);
}

/**
 * Renews the locks of all that lives; undefined if there is nothing to do in this period.
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
  // Taken before the first request: should the period end meanwhile, the next run sees it.
  const period = periodOf(lock);
  const untilMs = lock.endMs();
  const isLive = liveness(repository, state);
  let [listed, objects, bytes, renewed] = [0, 0, 0, 0];
  let batch: string[] = [];
  const renew = async (): Promise<void> => {
    await forEachConcurrent(
      batch,
      CONCURRENCY,
      async (key, innerSignal) => {
        if (await renewOne(lock, key, { untilMs, signal: innerSignal })) renewed += 1;
      },
      signal,
    );
    batch = [];
  };
  for await (const { key, sizeBytes } of site.list("", call)) {
    listed += 1;
    if (!isLive(key)) continue;
    objects += 1;
    bytes += sizeBytes;
    if (isDryRun || key === HEADER_KEY) continue;
    batch.push(key);
    if (batch.length >= BATCH_COUNT) await renew();
  }
  if (isDryRun) {
    const requests = lockRequests(listed, objects);
    return { objects, bytes, renewed: objects, untilMs, requests };
  }
  await renew();
  batch.push(HEADER_KEY);
  await renew();
  repository.catalog.set(RENEWED_KEY, String(period));
  return { objects, bytes, renewed, untilMs, requests: lockRequests(listed, objects, renewed) };
}

async function renewOne(
  lock: SiteLock,
  key: string,
  how: { readonly untilMs: number; readonly signal: AbortSignal },
): Promise<boolean> {
  const { untilMs, signal } = how;
  const until = await lock.lockedUntil(key, { signal });
  if (until !== undefined && until >= untilMs) return false;
  await lock.lockUntil(key, untilMs, { signal });
  return true;
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

function periodOf(lock: SiteLock): number {
  return lockPeriodAt(lock.nowMs(), lock.periodMs);
}
