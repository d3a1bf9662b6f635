/**
 * Proves that a site creates an object only if it is absent. All safety of the repository's log
 * stands on this one primitive, and some stores accept the condition and overwrite all the same.
 */
import type { Random } from "../base/doors.ts";
import { AppError } from "../base/error.ts";
import { toHex } from "../base/hex.ts";
import type { CopyWay, Site, SiteCall, SiteCopying } from "./site.ts";

const PROBE_SIZE_BYTES = 64;
const WRITERS = 20;
const ROUNDS_MAX = 3;

/**
 * The cheap check at each writer's start: two writes in a row, and the second must be refused.
 *
 * @example
 * await probeCreateIfAbsent(site, doors.random);
 */
export async function probeCreateIfAbsent(
  site: Site,
  random: Random,
  options: SiteCall = {},
): Promise<void> {
  const key = probeKey(random);
  const first = random.bytes(PROBE_SIZE_BYTES);
  const second = random.bytes(PROBE_SIZE_BYTES);
  try {
    // An answer of `exists` to the first write is a retry after a lost acknowledgement.
    await site.put(key, first, options);
    if ((await site.put(key, second, options)) !== "exists") {
      throw notAtomic(site, "a second write to the same key was accepted");
    }
    await mustHold(site, key, first, options);
  } finally {
    await removeProbe(site, key);
  }
}

/**
 * The hard check of `site check`: many writers at once, of which exactly one must win.
 *
 * @example
 * await raceCreateIfAbsent(site, doors.random, 20);
 */
export async function raceCreateIfAbsent(
  site: Site,
  random: Random,
  writers: number = WRITERS,
  options: SiteCall = {},
): Promise<void> {
  for (let round = 1; round <= ROUNDS_MAX; round += 1) {
    if (await raceOnce(site, random, writers, options)) return;
  }
  throw new AppError(
    "unavailable",
    `${site.location} answered none of ${ROUNDS_MAX} races well enough to judge it.`,
    { guidance: "Try again when the store answers all requests.", context: { site: site.name } },
  );
}

/**
 * The first of the ways in which a store copies within itself that creates only what is absent, and
 * creates it whole; undefined if there is none. What is refused is no way; trouble that passes is
 * thrown. About ten small requests.
 *
 * Overwriting would not matter where the bytes are the same; but a source may be damaged that nobody
 * has looked at yet, and then a good object would be lost. So a way that overwrites is never used.
 */
export async function findCopyWay(
  site: Site,
  random: Random,
  options: SiteCall = {},
): Promise<CopyWay | undefined> {
  const { copying } = site;
  if (copying === undefined) return undefined;
  for (const way of copying.ways) {
    if (await isSafeWay(site, { copying, way }, random, options)) return way;
  }
  return undefined;
}

async function isSafeWay(
  site: Site,
  { copying, way }: { readonly copying: SiteCopying; readonly way: CopyWay },
  random: Random,
  options: SiteCall,
): Promise<boolean> {
  const [from, taken, free] = [probeKey(random), probeKey(random), probeKey(random)];
  const first = random.bytes(PROBE_SIZE_BYTES);
  const second = random.bytes(PROBE_SIZE_BYTES);
  const call = { ...options, way: way.name };
  try {
    await site.put(from, first, options);
    await site.put(taken, second, options);
    if ((await copying.copyFrom(copying.place, from, taken, call)) !== "exists") {
      // A bucket with versions has two now, and a removal takes one.
      await removeProbe(site, taken);
      return false;
    }
    // Of a copy that is sent twice the first one may have landed.
    const how = await copying.copyFrom(copying.place, from, free, call);
    if (how !== "created" && how !== "exists") return false;
    // Who drops the mark of copies would have one that nobody checked taken for one that was sent.
    if ((await site.head(free, options))?.isCopy !== true) return false;
    return (
      isSame(await site.get(taken, options), second) && isSame(await site.get(free, options), first)
    );
  } catch (thrown) {
    if (thrown instanceof AppError && !thrown.retryable && thrown.kind !== "cancelled")
      return false;
    throw thrown;
  } finally {
    await removeProbe(site, from, taken, free);
  }
}

function isSame(found: Uint8Array | undefined, expected: Uint8Array): boolean {
  return found !== undefined && Buffer.compare(found, expected) === 0;
}

/** False if calls failed so that the winner cannot be known. */
async function raceOnce(
  site: Site,
  random: Random,
  writers: number,
  options: SiteCall,
): Promise<boolean> {
  const key = probeKey(random);
  const bodies = Array.from({ length: writers }, () => random.bytes(PROBE_SIZE_BYTES));
  try {
    const outcomes = await Promise.allSettled(
      bodies.map(async (body) => await site.put(key, body, options)),
    );
    const winners: Uint8Array[] = [];
    let unknownCount = 0;
    for (const [index, outcome] of outcomes.entries()) {
      if (outcome.status === "rejected") {
        const reason: unknown = outcome.reason;
        if (!(reason instanceof AppError && reason.retryable)) throw reason;
        unknownCount += 1;
      } else if (outcome.value === "created") {
        winners.push(bodies[index] ?? new Uint8Array());
      }
    }
    if (winners.length > 1) {
      throw notAtomic(site, `${winners.length} of ${writers} racing writers were told they won`);
    }
    const [winner] = winners;
    if (winner !== undefined) {
      await mustHold(site, key, winner, options);
      return true;
    }
    if (unknownCount === 0) throw notAtomic(site, "no racing writer was told that it won");
    return false;
  } finally {
    await removeProbe(site, key);
  }
}

async function mustHold(
  site: Site,
  key: string,
  expected: Uint8Array,
  options: SiteCall,
): Promise<void> {
  const found = await site.get(key, options);
  if (found === undefined) throw notAtomic(site, "an object that was written is not there");
  if (Buffer.compare(found, expected) !== 0) {
    throw notAtomic(site, "the object does not hold what its winner wrote");
  }
}

function notAtomic(site: Site, what: string): AppError {
  return new AppError("refused", `${site.location} does not create objects atomically: ${what}.`, {
    guidance:
      "Use a store that honours If-None-Match (or a file system with hard links; Google Cloud " +
      "Storage as type gcs): two writers on this one could overwrite each other's backups. If there " +
      "is only ever one, `unsafeCreate: single-writer` accepts that.",
    context: { site: site.name },
  });
}

function probeKey(random: Random): string {
  return `probe/${toHex(random.bytes(16))}`;
}

/** Credentials that may write and not remove are legitimate, and a probe is a few bytes. */
async function removeProbe(site: Site, ...keys: readonly string[]): Promise<void> {
  try {
    await site.delete(keys);
  } catch (thrown) {
    if (!(thrown instanceof AppError)) throw thrown;
  }
}
