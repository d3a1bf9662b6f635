/**
 * How a restore calls a file until it is whole. Whoever finds such a name later knows that it was
 * left by a restore that died.
 */
import type { Random } from "../../base/doors.ts";
import { toHex } from "../../base/hex.ts";

const TEMPORARY_PREFIX = ".astacus-restore-";
const TEMPORARY_RANDOM_SIZE_BYTES = 8;

/** What the temporary names of one restore begin with; no other restore has it. */
export function drawTemporaryPrefix(random: Random): string {
  return `${TEMPORARY_PREFIX}${toHex(random.bytes(TEMPORARY_RANDOM_SIZE_BYTES))}-`;
}

/** A name for a file that is not whole yet; each number is used once. */
export function temporaryName(prefix: string, number: number): string {
  return prefix + number.toString(36);
}

/** True for a name that a restore, perhaps a dead one, has given. */
export function isTemporaryName(name: string): boolean {
  return name.startsWith(TEMPORARY_PREFIX);
}
