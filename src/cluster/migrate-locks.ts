/**
 * What a target that locks what it gets means for a migration: until when nothing that is copied can
 * be removed, and what each period's renewal asks of the store from then on.
 */
import { lockRequests } from "../cas/clean/renew-locks.ts";
import type { CopyPlan } from "../cas/copy/copy-plan.ts";
import type { LockMode } from "../sites/site.ts";
import { renewalUsage } from "./site-locks.ts";
import type { OpenSite } from "./site-views.ts";
import type { CountedSite, SiteUsage } from "./usage.ts";
import { priceUsages } from "./usage.ts";

/** The locks of a target. */
export type TargetLocks = {
  readonly mode: LockMode;
  readonly periodMs: number;
  /** What is copied now cannot be removed before, ISO 8601. */
  readonly until: string;
  /** About, once a period, for what lies there and what comes; with money where prices are. */
  readonly renewal: SiteUsage;
};

/** Of a copied backup: segment, manifest and entry. */
const OBJECTS_OF_A_BACKUP = 3;

/** Undefined where the target does not lock. */
export function planTargetLocks(
  to: OpenSite,
  copy: CopyPlan,
  target: CountedSite | undefined,
): TargetLocks | undefined {
  const { site, state, index } = to.repository;
  if (site.lock === undefined) return undefined;
  const copies = copy.backups.filter((row) => row.state === "copy").length;
  // Log entries and the header stay for ever.
  const there = 1 + state.sequence + state.segments.size + state.backups.size + index.countPacks();
  const objects = there + copy.packs + OBJECTS_OF_A_BACKUP * copies;
  const usage = renewalUsage(to.name, lockRequests(objects, objects));
  const [renewal = usage] = priceUsages([usage], target === undefined ? [] : [target]);
  const { mode, periodMs } = site.lock;
  return { mode, periodMs, until: new Date(site.lock.endMs()).toISOString(), renewal };
}
