/**
 * Door 2, the real one: the system's random generator. Also the jitter comes from there, so that
 * machines started from one image do not move in step.
 */
import { randomFillSync } from "node:crypto";
import type { Random } from "./doors.ts";

/** The chance of this machine. */
export const realRandom: Random = {
  bytes: (size) => randomFillSync(new Uint8Array(size)),
  fraction() {
    const [high = 0, low = 0] = randomFillSync(new Uint32Array(2));
    // 53 bits, all that a double in [0, 1) can hold.
    return ((high >>> 5) * 2 ** 26 + (low >>> 6)) / 2 ** 53;
  },
};
