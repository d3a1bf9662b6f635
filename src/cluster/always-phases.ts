/**
 * Phases that must run whatever happens. Those of nodes run on the node itself when its lease ends,
 * since the coordinator may be dead (node-service.ts); those of the cluster run here, after a
 * failure, even if the operation was cancelled.
 */
import { toAppError } from "../base/error.ts";
import type { ClusterPhaseContext, Phase } from "../products/product.ts";

/** Runs the cluster's share of them; their own failures are only said. */
export async function runAlways(
  phases: readonly Phase[],
  context: ClusterPhaseContext,
): Promise<void> {
  const { signal } = new AbortController();
  for (const phase of phases) {
    if (phase.on !== "cluster" || phase.always !== true) continue;
    try {
      await phase.run({ ...context, signal });
    } catch (thrown) {
      context.say(`${phase.name} after the failure: ${toAppError(thrown).message}`);
    }
  }
}
