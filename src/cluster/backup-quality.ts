/**
 * The three qualities of a backup. Apart from everything else, since the command line loads it each
 * time that it starts.
 */

/** How good a backup is, in a word. */
export function qualityOf(backup: {
  readonly complete: boolean;
  readonly degraded: boolean;
}): "complete" | "degraded" | "incomplete" {
  if (!backup.complete) return "incomplete";
  return backup.degraded ? "degraded" : "complete";
}
