/**
 * What cleanups left because the site has locked it: counted, and said with the time when it can go.
 * Such objects are garbage like any other, and a later sweep finds them.
 */
import { lockEndText } from "../../sites/lock-period.ts";
import { formatSize } from "../../base/units.ts";

/** Locked objects of one cleanup. */
export class LockedTally {
  #objects = 0;
  #bytes = 0;
  #lastMs = 0;

  /** Counts one. `sizeBytes` is 0 where it is not known. */
  add(untilMs: number, sizeBytes: number): void {
    this.#objects += 1;
    this.#bytes += sizeBytes;
    this.#lastMs = Math.max(this.#lastMs, untilMs);
  }

  get objects(): number {
    return this.#objects;
  }

  /** What waits, in words; nothing if nothing does. */
  waits(): string[] {
    if (this.#objects === 0) return [];
    const what = this.#objects === 1 ? "1 object" : `${this.#objects} objects`;
    const size = this.#bytes === 0 ? "" : ` (${formatSize(this.#bytes)})`;
    return [`${what}${size} stay locked; all can be removed from ${lockEndText(this.#lastMs)}`];
  }
}
