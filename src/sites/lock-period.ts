/**
 * When locks end. Time is cut into periods, counted from 1970; a lock lasts to the end of the period
 * after next, so all that is created or renewed within one period ends at once, what lives needs one
 * renewal a period, and between two renewals at least one whole period is left.
 */
import assert from "node:assert/strict";

/** The number of the period in which a time lies. */
export function lockPeriodAt(timeMs: number, periodMs: number): number {
  assert(periodMs > 0);
  return Math.floor(timeMs / periodMs);
}

/** When a lock ends that is set at a time: after two to three periods. */
export function lockEndMs(timeMs: number, periodMs: number): number {
  return (lockPeriodAt(timeMs, periodMs) + 3) * periodMs;
}

/** A lock's end as people read it: `2026-12-24 00:00 UTC`. */
export function lockEndText(untilMs: number): string {
  // A legal hold has no end.
  if (!Number.isFinite(untilMs)) return "somebody lifts its legal hold";
  return `${new Date(untilMs).toISOString().slice(0, 16).replace("T", " ")} UTC`;
}
