/**
 * How the locks of a site stand, from one HEAD of its header: renewals reach the header last
 * (renew-locks.ts), so nothing that lives there is locked for less long. Two things may be, until the
 * next renewal: what was retired, or sent and not yet named, at the last one, and is used since.
 *
 * A period that was made shorter leaves the header its old end, since locks are never made shorter, and
 * what is written from then on ends before it. So an end is believed as far as the present period
 * reaches, and what was believed holds until the header's end grows or this node renews itself.
 */
import type { LockMode, Site, SiteCall, SiteLock } from "../../sites/site.ts";
import { HEADER_KEY } from "../format/header.ts";

/** The locks of a site, as they were last asked for. */
export type LockStanding = {
  readonly mode: LockMode;
  readonly periodMs: number;
  /** What lives is locked until then (ms since 1970), or `ENDLESS_MS`; undefined if nobody knows. */
  readonly untilMs?: number | undefined;
  /** The end of the header's own lock, which may be later. */
  readonly headerMs?: number | undefined;
};

/** The end of a legal hold, which has none; JSON has no infinity. */
export const ENDLESS_MS: number = Number.MAX_SAFE_INTEGER;

/** Asks; undefined for a site that does not lock. `known` is what was heard before. */
export async function readLockStanding(
  { lock }: Pick<Site, "lock">,
  call: SiteCall = {},
  known?: LockStanding,
): Promise<LockStanding | undefined> {
  if (lock === undefined) return undefined;
  return heardStanding(lock, await lock.lockedUntil(HEADER_KEY, call), known);
}

/** What a renewal that has ended leaves, whatever longer lock the header had. */
export function renewedStanding(
  { mode, periodMs }: SiteLock,
  renewedMs: number,
  known?: LockStanding,
): LockStanding {
  const headerMs = Math.max(renewedMs, known?.headerMs ?? 0);
  const untilMs = headerMs === ENDLESS_MS ? ENDLESS_MS : renewedMs;
  return { mode, periodMs, untilMs, headerMs };
}

/** A header that somebody has hidden says nothing, and its versions are locked all the same. */
function heardStanding(
  lock: SiteLock,
  heardMs: number | undefined,
  known: LockStanding | undefined,
): LockStanding {
  const { mode, periodMs } = lock;
  const before = known?.headerMs ?? known?.untilMs;
  const headerMs = heardMs === undefined ? before : Math.min(heardMs, ENDLESS_MS);
  if (headerMs === undefined) return { mode, periodMs };
  if (headerMs === ENDLESS_MS) return { mode, periodMs, untilMs: headerMs, headerMs };
  const believedMs = headerMs === before ? (known?.untilMs ?? headerMs) : headerMs;
  return { mode, periodMs, untilMs: Math.min(headerMs, believedMs, lock.endMs()), headerMs };
}

/** True if less than a period is left: then no renewal has ended within the last one. */
export function isLockEnding({ periodMs, untilMs }: LockStanding, nowMs: number): boolean {
  return untilMs === undefined || untilMs - nowMs < periodMs;
}
