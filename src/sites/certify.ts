/**
 * What `site check` asks of a store before it may hold backups: creation only where nothing is (twice
 * in a row, and by many at once), reading of parts, sizes and checksums, listing after a put, removal,
 * copies by the store itself, locks that hold, and what the store says of its own settings. A step that fails throws `refused`
 * with what it means; what an operator should know besides is a finding.
 */
import type { Random } from "../base/doors.ts";
import { AppError } from "../base/error.ts";
import { sha256Hex, toHex } from "../base/hex.ts";
import { findCopyWay, probeCreateIfAbsent, raceCreateIfAbsent } from "./probe.ts";
import type { Site, SiteFinding } from "./site.ts";

/** One thing that is tried. */
export type CertificationStep = {
  readonly name: string;
  run(): Promise<readonly SiteFinding[]>;
};

const WRITERS = 20;
const PROBE_SIZE_BYTES = 100_000;
const CANARY_PREFIX = "probe/canary-";

/** Long enough to try a removal, short enough that nobody pays for it. */
const CANARY_MS = 60_000;

/** All that is tried on a site, in order. */
export function listCertificationSteps(site: Site, random: Random): CertificationStep[] {
  const nothing = async (work: Promise<void>): Promise<readonly SiteFinding[]> => {
    await work;
    return [];
  };
  const { weakness } = site;
  return [
    {
      name: "create if absent",
      run: async () => await nothing(probeCreateIfAbsent(site, random)),
    },
    weakness === undefined
      ? {
          name: `${WRITERS} racing writers`,
          run: async () => await nothing(raceCreateIfAbsent(site, random, WRITERS)),
        }
      : { name: "one writer at a time", run: async () => [{ level: "warning", what: weakness }] },
    { name: "write, read, list, remove", run: async () => await tryRoundTrip(site, random) },
    ...(site.copying === undefined
      ? []
      : [{ name: "copies by the store", run: async () => await tryCopies(site, random) }]),
    ...(site.lock === undefined
      ? []
      : [{ name: "lock", run: async () => await nothing(proveLock(site, random)) }]),
    { name: "settings", run: async () => await mustBeSound(site) },
  ];
}

/**
 * Proves that locked objects stay: one is created, removed by force, and must be there still; its lock
 * is made longer, as a renewal does. What stays of it goes with a later check.
 */
export async function proveLock(site: Site, random: Random): Promise<void> {
  const { lock } = site;
  if (lock === undefined) return;
  const key = `${CANARY_PREFIX}${toHex(random.bytes(16))}`;
  const bytes = random.bytes(64);
  // This asks the store first, which so tells its time.
  await removeOldCanaries(site);
  const untilMs = Math.ceil((lock.nowMs() + CANARY_MS) / 1000) * 1000;
  await site.put(key, bytes, { lockUntilMs: untilMs });
  const told: number[] = [];
  await site.delete([key], { evenLocked: true, onLocked: (_, until) => told.push(until) });
  mustEqual(site, "keeps a locked object that somebody removes", await site.get(key), bytes);
  mustBe(site, "says that a locked object is locked", told.length === 1);
  const before = await lock.lockedUntil(key);
  mustBe(site, "tells when a lock ends", before !== undefined && before >= untilMs);
  await lock.lockUntil(key, untilMs + 1000);
  const after = (await lock.lockedUntil(key)) ?? 0;
  mustBe(site, "makes a lock longer", after >= untilMs + 1000);
}

/** Canaries whose locks have ended. */
async function removeOldCanaries(site: Site): Promise<void> {
  const keys: string[] = [];
  for await (const { key } of site.list(CANARY_PREFIX)) keys.push(key);
  await site.delete(keys, { onLocked: () => undefined });
}

async function tryRoundTrip(site: Site, random: Random): Promise<readonly SiteFinding[]> {
  const bytes = random.bytes(PROBE_SIZE_BYTES);
  const hash = sha256Hex(bytes);
  const key = `probe/${toHex(random.bytes(16))}`;
  let hasChecksum = false;
  try {
    await site.put(key, bytes, { sha256: hash });
    const [whole, part, head] = await Promise.all([
      site.get(key),
      site.get(key, { offset: 1000, length: 5000 }),
      site.head(key),
    ]);
    mustEqual(site, "reads back what was written", whole, bytes);
    mustEqual(site, "reads a part of an object", part, bytes.subarray(1000, 6000));
    mustBe(site, "knows an object's size", head?.sizeBytes === bytes.byteLength);
    hasChecksum = head?.sha256 !== undefined;
    if (hasChecksum) mustBe(site, "keeps the right checksum", head?.sha256 === hash);
    let isListed = false;
    for await (const row of site.list("probe/")) isListed ||= row.key === key;
    mustBe(site, "lists a new object", isListed);
  } finally {
    await site.delete([key]);
  }
  mustBe(site, "removes an object", (await site.head(key)) === undefined);
  for await (const row of site.list("probe/")) {
    mustBe(site, "lists no object that was removed", row.key !== key);
  }
  if (hasChecksum) return [{ level: "ok", what: "the store keeps SHA-256 checksums" }];
  return [{ level: "ok", what: "the store keeps no SHA-256; what was sent twice is read back" }];
}

/** Nobody needs such copies; but it is good to know why a migration takes longer than it might. */
async function tryCopies(site: Site, random: Random): Promise<readonly SiteFinding[]> {
  const isSafe = (await findCopyWay(site, random)) !== undefined;
  const [way] = site.copying?.ways ?? [];
  if (isSafe && way !== undefined) {
    return [{ level: "ok", what: `the store copies objects by itself (${way.name})` }];
  }
  const what = "the store's own copies might overwrite: between its sites nodes read and send";
  return [{ level: "ok", what }];
}

/** What the store says of itself; the first thing that forbids a repository is an error. */
async function mustBeSound(site: Site): Promise<readonly SiteFinding[]> {
  const findings = (await site.inspect?.()) ?? [];
  const bad = findings.find(({ level }) => level === "bad");
  if (bad === undefined) return findings;
  throw new AppError("refused", `${site.location} cannot hold backups safely: ${bad.what}.`, {
    guidance: bad.guidance ?? "Change the bucket's settings.",
    context: { site: site.name },
  });
}

function mustEqual(
  site: Site,
  what: string,
  found: Uint8Array | undefined,
  expected: Uint8Array,
): void {
  mustBe(site, what, found !== undefined && Buffer.compare(found, expected) === 0);
}

function mustBe(site: Site, what: string, isTrue: boolean): void {
  if (isTrue) return;
  throw new AppError("refused", `${site.location} fails here: ${what}.`, {
    guidance: "Such a store cannot hold backups safely.",
    context: { site: site.name },
  });
}
