/**
 * Restoring one volume of one node to a directory: a plan, then a run (restore-plan.ts,
 * restore-run.ts). A run refuses what the plan refuses, and leaves at each path either what was
 * there or exactly what was backed up. Memory: a few tree nodes, the chunk ids of one window
 * (restore-window.ts), and what the ChunkSource holds.
 */
import { AppError } from "../../base/error.ts";
import { textFromPath } from "../../base/path.ts";
import type {
  RestorePlan,
  RestorePlanOptions,
  RestoreResult,
  RestoreRunOptions,
} from "./restore-options.ts";
import { planRestore, surveyRestore } from "./restore-plan.ts";
import { executeRestore } from "./restore-run.ts";

/**
 * What a restore would do; touches nothing.
 *
 * @example
 * const plan = await planVolumeRestore({
 *   listing: volume.listing, source, files, target: "/var/lib/db", ownerPolicy: "recorded",
 *   extra: "keep", signal,
 * });
 * if (plan.refusals.length > 0) …
 */
export async function planVolumeRestore(options: RestorePlanOptions): Promise<RestorePlan> {
  return await planRestore(options);
}

/**
 * Restores. AppError `refused` if it may not; run again after any other failure, it goes on where
 * it was.
 *
 * @example
 * const result = await runVolumeRestore({ ...options, random });
 */
export async function runVolumeRestore(options: RestoreRunOptions): Promise<RestoreResult> {
  const survey = await surveyRestore(options);
  const { refusals } = survey.plan;
  if (refusals.length === 0) return await executeRestore(options, survey);
  const kind = survey.plan.isSpaceShort && refusals.length === 1 ? "no-space" : "refused";
  const more = refusals.length > 1 ? ` (and ${refusals.length - 1} more reasons)` : "";
  throw new AppError(kind, `Cannot restore: ${refusals[0]}${more}`, {
    guidance: "`--plan` shows all reasons. Clear the way, or restore to another target.",
    context: { target: textFromPath(options.target), refusals: refusals.length },
  });
}
