/**
 * How the scrubbing of a site stands, as people and monitors see it. Pure: scrub.ts does the work.
 */
import { scrubPosition } from "../cas/read/scrub.ts";
import type { ScrubRow, ScrubStart } from "./scrub-journal.ts";

/** How the scrubbing of one site stands on this node. */
export type ScrubFigures = {
  readonly site: string;
  /** Read by this node since it began. */
  readonly bytesTotal: number;
  /** Of the cycle under way: its begin, and how far it is, 0 to 1. */
  readonly cycleStarted?: string;
  readonly position: number;
  readonly problems: number;
  readonly repaired: number;
  /** The last cycle that came to its end. */
  readonly lastCycle?: {
    readonly started: string;
    readonly ended: string;
    readonly packs: number;
    readonly bytes: number;
    readonly problems: number;
  };
  /** All that was here then has been read since, by all nodes, and was right. */
  readonly provedAt?: string;
};

/** The figures of one site; undefined if it was never scrubbed here. */
export function figuresOf(known: {
  readonly share: ScrubRow | undefined;
  readonly whole: ScrubRow | undefined;
  readonly proofs: readonly ScrubStart[];
}): ScrubFigures | undefined {
  const { share, whole, proofs } = known;
  const row = share ?? whole;
  if (row === undefined) return undefined;
  const { cycle } = row;
  const [last] = [share?.last, whole?.last]
    .filter((one) => one !== undefined)
    .toSorted((a, b) => b.endedMs - a.endedMs);
  return {
    site: row.name,
    bytesTotal: (share?.bytesTotal ?? 0) + (whole?.bytesTotal ?? 0),
    ...(cycle === undefined ? {} : { cycleStarted: isoOf(cycle.startedMs) }),
    position: cycle === undefined ? 0 : scrubPosition(cycle.after),
    problems: cycle?.problems ?? 0,
    repaired: cycle?.repaired ?? 0,
    ...(last === undefined
      ? {}
      : {
          lastCycle: {
            started: isoOf(last.startedMs),
            ended: isoOf(last.endedMs),
            packs: last.packs,
            bytes: last.bytes,
            problems: last.problems,
          },
        }),
    ...(proofs.length === 0
      ? {}
      : { provedAt: isoOf(Math.max(...proofs.map(({ startedMs }) => startedMs))) }),
  };
}

function isoOf(ms: number): string {
  return new Date(ms).toISOString();
}
