/**
 * Until when what lives on each site that locks is surely locked, as this node last heard it: one HEAD
 * of the site's header, at a look that comes anyway, and at most once in a while. Locks are never made
 * shorter, so what was heard long ago holds still; it is kept in the node's catalog for when a site is
 * away.
 */
import { z } from "zod";
import type { Clock } from "../base/doors.ts";
import { AppError } from "../base/error.ts";
import type { LockStanding } from "../cas/clean/lock-standing.ts";
import { isLockEnding, readLockStanding, renewedStanding } from "../cas/clean/lock-standing.ts";
import type { LockRequests } from "../cas/clean/renew-locks.ts";
import { lockEndText } from "../sites/lock-period.ts";
import { NO_USAGE } from "../sites/prices.ts";
import type { SiteCatalogs } from "./site-catalogs.ts";
import type { OpenSite } from "./site-views.ts";
import type { SiteUsage } from "./usage.ts";
import { within } from "./within.ts";

/** How long what was heard is not asked for again. */
const ASK_AGAIN_MS = 600_000;
/** The same where locks end soon: another node may have renewed them meanwhile. */
const ASK_SOON_MS = 15_000;
const ASK_TIMEOUT_MS = 5_000;

const standingSchema = z.strictObject({
  mode: z.enum(["governance", "compliance"]),
  periodMs: z.number(),
  untilMs: z.number().exactOptional(),
  headerMs: z.number().exactOptional(),
});

/** The locks of a site, as status and metrics show them. */
export type LockStatus = {
  readonly mode: LockStanding["mode"];
  /**
   * What backups need is locked until then, ISO 8601. Left out while the site's header has no lock
   * (`ending`), or one without an end: a legal hold.
   */
  readonly until?: string;
  /** Less than one period is left, or nothing: no cleanup has renewed the locks within the last period. */
  readonly ending: boolean;
  /** Packs that backups need, where locks end and the site is open. */
  readonly packs?: number;
};

/** See the file's header. */
export class SiteLocks {
  readonly #clock: Clock;
  readonly #catalogs: SiteCatalogs;
  /** When each site was asked, by id. */
  readonly #askedMs = new Map<string, number>();

  constructor(clock: Clock, catalogs: SiteCatalogs) {
    this.#clock = clock;
    this.#catalogs = catalogs;
  }

  /**
   * Asks the site if that was long ago, and waits for so many ms at most. One that does not say leaves
   * what was heard before.
   */
  async refresh({ id, repository }: OpenSite, maxMs: number, signal?: AbortSignal): Promise<void> {
    if (repository.site.lock === undefined) return this.#keep(id, undefined);
    const known = this.of(id);
    const nowMs = this.#clock.monotonic();
    const isEnding = known === undefined || isLockEnding(known, this.#clock.now());
    const waitMs = isEnding ? ASK_SOON_MS : ASK_AGAIN_MS;
    if (nowMs - (this.#askedMs.get(id) ?? -Infinity) < waitMs) return;
    const ms = Math.min(maxMs, ASK_TIMEOUT_MS);
    if (ms <= 0) return;
    this.#askedMs.set(id, nowMs);
    const bound = { clock: this.#clock, ms, what: "The site", signal };
    try {
      const said = await within(bound, (inner) =>
        readLockStanding(repository.site, { signal: inner }, known),
      );
      if (said !== undefined) this.#keep(id, said);
    } catch (thrown) {
      signal?.throwIfAborted();
      // Nobody asked for it, and what was heard before holds still.
      if (!(thrown instanceof AppError)) throw thrown;
    }
  }

  /** Notes what a renewal has just reached. */
  note({ id, repository }: OpenSite, untilMs: number): void {
    const { lock } = repository.site;
    if (lock !== undefined) this.#keep(id, renewedStanding(lock, untilMs, this.of(id)));
  }

  /** What was last heard of a site; undefined if it does not lock, or was never asked. */
  of(id: string): LockStanding | undefined {
    const text = this.#catalogs.main.get(keyOf(id));
    if (text === undefined) return undefined;
    return standingSchema.parse(JSON.parse(text));
  }

  #keep(id: string, standing: LockStanding | undefined): void {
    const { main } = this.#catalogs;
    const text = standing === undefined ? undefined : JSON.stringify(standing);
    if (main.get(keyOf(id)) !== text) main.set(keyOf(id), text);
  }
}

/** The status of a site's locks; `open` where packs can be counted. */
export function lockStatusOf(
  standing: LockStanding,
  how: { readonly nowMs: number; readonly open: OpenSite | undefined },
): LockStatus {
  const { mode, untilMs } = standing;
  const ending = isLockEnding(standing, how.nowMs);
  const isShown = untilMs !== undefined && untilMs <= DATE_MS_MAX;
  return {
    mode,
    ...(isShown ? { until: new Date(untilMs).toISOString() } : {}),
    ending,
    ...(ending && how.open !== undefined ? { packs: countLive(how.open) } : {}),
  };
}

/** Why somebody should look after the locks of a site; undefined while all is well. */
export function lockWarning(
  site: { readonly name: string; readonly role: string; readonly lock?: LockStatus },
  nowMs: number,
): string | undefined {
  const { name, role, lock } = site;
  if (lock === undefined || !lock.ending || !isCleaned(role)) return undefined;
  const packs =
    lock.packs === undefined
      ? "what backups need"
      : lock.packs === 1
        ? "1 pack"
        : `${lock.packs} packs`;
  const next = "run `astacus cleanup`.";
  if (lock.until === undefined) return `Site ${name} is to lock ${packs} and has not yet: ${next}`;
  const untilMs = Date.parse(lock.until);
  const ends = untilMs > nowMs ? "end on" : "ended on";
  return `The locks of ${packs} at site ${name} ${ends} ${lockEndText(untilMs)}: ${next}`;
}

/** Cleanups pass over archives, and over what is retired. */
function isCleaned(role: string): boolean {
  return role === "primary" || role === "mirror";
}

/** The requests of a renewal at a site. */
export function renewalUsage(site: string, requests: LockRequests): SiteUsage {
  return { site, ...NO_USAGE, requests: { ...NO_USAGE.requests, ...requests } };
}

/** What JavaScript's dates can say. */
const DATE_MS_MAX = 8.64e15;

/** Retired packs are in the index until they are deleted. */
function countLive({ repository }: OpenSite): number {
  return Math.max(0, repository.index.countPacks() - repository.state.retired.size);
}

function keyOf(id: string): string {
  return `locks ${id}`;
}
