/**
 * The one switch of all loops over crash points. A loop knows all its points; how many of them it
 * tries is decided here: a few by default, every one with ASTACUS_CRASH_POINTS=all (`bun run
 * crash-points`), so many a loop with a number. Which ones depends on nothing else: the first, the
 * last, and others at even distances between.
 */
const WANTED = process.env["ASTACUS_CRASH_POINTS"] ?? "";

if (!/^(all|[1-9][0-9]*|)$/.test(WANTED)) {
  throw new Error(`ASTACUS_CRASH_POINTS is neither a number nor all: ${WANTED}`);
}

/** How long a loop may take; with all points nobody waits for it. */
export const CRASH_LOOP_MS_MAX = WANTED === "" ? 300_000 : 4 * 3_600_000;

/** The points to try of all; `usual` of them unless told. */
export function choosePoints<T>(all: readonly T[], usual: number): T[] {
  return WANTED === "all" ? [...all] : spreadEvenly(all, WANTED === "" ? usual : Number(WANTED));
}

/** So many of them, or all if there are no more: the first, the last, and evenly between. */
export function spreadEvenly<T>(all: readonly T[], count: number): T[] {
  if (count >= all.length) return [...all];
  const stride = (all.length - 1) / Math.max(1, count - 1);
  return Array.from({ length: count }, (_, index) => all[Math.round(index * stride)]!);
}

/** What a loop prints at its end: tried of those to try, and of how many that is a choice. */
export function describeCount(tried: number, chosen: number, all: number): string {
  return chosen === all ? `${tried}/${all}` : `${tried}/${chosen}, of ${all}`;
}
