/**
 * Ids and the names made of them, except those that belong to packs and segments. Hashes are 64
 * lower-case hex digits, random ids 32; nothing else is accepted, so that an id can always stand in
 * an object's name.
 */
import { z } from "zod";
import type { Random } from "../../base/doors.ts";
import { toHex } from "../../base/hex.ts";

const RANDOM_ID_SIZE_BYTES = 16;

/** A SHA-256 in hex: the id of a pack, segment, manifest or checkpoint, or an entry's hash. */
export const hashSchema = z.string().regex(/^[0-9a-f]{64}$/, "must be 64 lower-case hex digits");

/** A random id in hex: of a repository, site, backup, operation or entry. */
export const randomIdSchema = z
  .string()
  .regex(/^[0-9a-f]{32}$/, "must be 32 lower-case hex digits");

/** A sequence of the log, as far as its names reach. */
export const SEQUENCE_MAX = 999_999_999_999;

/** Draws a random id. */
export function drawId(random: Random): string {
  return toHex(random.bytes(RANDOM_ID_SIZE_BYTES));
}

/** The name of a log entry. */
export function logKey(sequence: number): string {
  return `log/${String(sequence).padStart(12, "0")}`;
}

/** The name under which a lost log entry may be put back: its hash proves it. */
export function logCopyKey(hash: string): string {
  return `log-copy/${hash}`;
}

/** The name of a manifest. */
export function manifestKey(id: string, birth: number): string {
  return `manifest/${id}-${birth}`;
}

/** The name of a key object. */
export function keyKey(id: string, birth: number): string {
  return `key/${id}-${birth}`;
}

/** The name of a checkpoint. */
export function checkpointKey(sequence: number, hash: string): string {
  return `checkpoint/${sequence}-${hash}`;
}
