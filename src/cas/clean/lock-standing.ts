/**
 * How the locks of a site stand, from one HEAD of its header: renewals reach the header last
 * (renew-locks.ts), so nothing that lives there is locked for less long. Two things may be, until the
 * next renewal: what was retired, or sent and not yet named, at the last one, and is used since.
 */
import type { LockMode, Site, SiteCall, SiteLock } from "../../sites/site.ts";
import { HEADER_KEY } from "../format/header.ts";

/** The locks of a site, as they were last asked for. They are never made shorter. */
export type LockStanding = {
  readonly mode: LockMode;
  readonly periodMs: number;
  /** What lives is locked until then (ms since 1970); undefined if the header has no lock. */
  readonly untilMs?: number | undefined;
};

/** Asks; undefined for a site that does not lock. */
export async function readLockStanding(
  { lock }: Pick<Site, "lock">,
  call: SiteCall = {},
): Promise<LockStanding | undefined> {
  if (lock === undefined) return undefined;
  return standingOf(lock, await lock.lockedUntil(HEADER_KEY, call));
}

/** What a renewal that has ended leaves. */
export function standingOf(lock: SiteLock, untilMs: number | undefined): LockStanding {
  const { mode, periodMs } = lock;
  return { mode, periodMs, ...(untilMs === undefined ? {} : { untilMs }) };
}

/** True if less than a period is left: then no renewal has ended within the last one. */
export function isLockEnding({ periodMs, untilMs }: LockStanding, nowMs: number): boolean {
  return untilMs === undefined || untilMs - nowMs < periodMs;
}
