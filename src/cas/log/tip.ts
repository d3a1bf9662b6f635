/**
 * Reading the log of a site: where it ends, and the entries in between. Requests sent at once are no
 * snapshot (others commit meanwhile), so a missing slot with something behind it is asked again
 * before anything is called damaged. A LIST is never needed. Nothing is believed without its hash:
 * an entry is proved by its successor, the last one by being read twice.
 */
import assert from "node:assert/strict";
import { AppError } from "../../base/error.ts";
import { forEachConcurrent } from "../../base/semaphore.ts";
import type { Site, SiteCall } from "../../sites/site.ts";
import type { RawEntry } from "../catalog/catalog-log.ts";
import { entryHash, previousOf } from "./entry.ts";
import { logCopyKey, logKey, SEQUENCE_MAX } from "../format/ids.ts";

/** How a tip is looked for. */
export type TipOptions = SiteCall & {
  /** How many slots are asked at once: N+1, N+2, N+4 … */
  readonly probeCount?: number;
};

/** The end of a log, and the entries that were read on the way to it. */
export type Tip = { readonly sequence: number; readonly found: ReadonlyMap<number, Uint8Array> };

const PROBE_COUNT = 3;
const FIRST_PROBE_POWER_MAX = 39;
const NARROW_COUNT = 15;
const READ_CONCURRENCY = 16;
const READ_BATCH_COUNT = 256;

/**
 * The end of the log for a reader who knows entry `known`: one round of requests if there is nothing
 * new.
 */
export async function findTip(site: Site, known: number, options: TipOptions = {}): Promise<Tip> {
  const found = new Map<number, Uint8Array>();
  for (let base = known; ;) {
    const [highest] = await Promise.all([
      findHighest(base, { probeCount: options.probeCount ?? PROBE_COUNT, has }),
      base === known ? undefined : provePresent(base),
    ]);
    if (highest === base) return { sequence: base, found };
    base = highest;
  }

  async function has(sequence: number): Promise<boolean> {
    if (found.has(sequence)) return true;
    const bytes = await site.get(logKey(sequence), callOf(options));
    if (bytes !== undefined) found.set(sequence, bytes);
    return bytes !== undefined;
  }

  /** No successor proves the last entry yet, so it is read twice, in the round that confirms it. */
  async function provePresent(sequence: number): Promise<void> {
    const first = found.get(sequence);
    const second = await site.get(logKey(sequence), callOf(options));
    if (second === undefined) throw vanished(site, sequence);
    if (first === undefined || entryHash(first) !== entryHash(second)) {
      const third = await site.get(logKey(sequence), callOf(options));
      if (third === undefined) throw vanished(site, sequence);
      const isSecondRight = entryHash(third) === entryHash(second);
      if (!isSecondRight && (first === undefined || entryHash(third) !== entryHash(first))) {
        throw damagedLog(site, sequence, "answers with other bytes each time it is read");
      }
      found.set(sequence, third);
    }
  }
}

/**
 * The end of the log for a reader who has seen nothing: slots 1, 2, 4 … 2^39 at once, then narrowed
 * down. 0 if the log is empty.
 */
export async function findFirstTip(site: Site, options: TipOptions = {}): Promise<Tip> {
  const has = async (sequence: number): Promise<boolean> =>
    (await site.head(logKey(sequence), callOf(options))) !== undefined;
  const powers = Array.from({ length: FIRST_PROBE_POWER_MAX + 1 }, (_, power) => 2 ** power);
  const bounds = await ask(powers, has);
  const highest = bounds.present === 0 ? 0 : await narrow(bounds, has);
  if (highest === 0) return { sequence: 0, found: new Map() };
  // From one below: so the last entry itself is read, and confirmed as the last.
  const tip = await findTip(site, highest - 1, options);
  if (tip.sequence < highest) throw vanished(site, highest);
  return tip;
}

/**
 * The entries `from` … `to` in order, in batches, read in parallel. A lost one is taken from its
 * log copy if there is one: its successor's hash proves it.
 */
export async function* readEntries(
  site: Site,
  range: { readonly from: number; readonly to: number },
  options: SiteCall & { readonly found?: ReadonlyMap<number, Uint8Array> } = {},
): AsyncGenerator<RawEntry[], void, undefined> {
  let known = options.found ?? new Map<number, Uint8Array>();
  for (let from = range.from; from <= range.to; from += READ_BATCH_COUNT) {
    const to = Math.min(range.to, from + READ_BATCH_COUNT - 1);
    // One more than the batch, since an entry is proved by the one after it.
    const end = Math.min(range.to, to + 1);
    const sequences = Array.from({ length: end - from + 1 }, (_, index) => from + index);
    const slots = new Map<number, Uint8Array>();
    const before = known;
    await forEachConcurrent(
      sequences,
      READ_CONCURRENCY,
      async (sequence, signal) => {
        const slot = { sequence, to: range.to };
        slots.set(sequence, before.get(sequence) ?? (await readSlot(site, slot, { signal })));
      },
      options.signal,
    );
    const entries = await proveChain(site, sequences, slots, callOf(options));
    known = new Map([...(options.found ?? []), ...slots]);
    yield entries.filter(({ sequence }) => sequence <= to);
  }
}

/** Puts an entry back that the site has lost, where readers look for it. */
export async function putLogCopy(site: Site, bytes: Uint8Array, options?: SiteCall): Promise<void> {
  await site.put(logCopyKey(entryHash(bytes)), bytes, options);
}

type Has = (sequence: number) => Promise<boolean>;

/** The highest slot known to be present, and the lowest above it known to be missing. */
type Bounds = { readonly present: number; readonly missing: number };

async function findHighest(
  base: number,
  options: { readonly probeCount: number; readonly has: Has },
): Promise<number> {
  assert(options.probeCount >= 1);
  let power = 0;
  let present = base;
  for (;;) {
    const first = power;
    const slots = Array.from({ length: options.probeCount }, (_, i) => base + 2 ** (first + i));
    const bounds = await ask(slots, options.has, present);
    ({ present } = bounds);
    if (Number.isFinite(bounds.missing)) return narrow(bounds, options.has);
    power += options.probeCount;
  }
}

/** A missing slot below a present one is a gap, and the business of who reads the entries. */
async function ask(slots: readonly number[], has: Has, known = 0): Promise<Bounds> {
  let present = known;
  const missing: number[] = [];
  const valid = slots.filter((slot) => slot <= SEQUENCE_MAX);
  if (valid.length < slots.length) missing.push(SEQUENCE_MAX + 1);
  await forEachConcurrent(valid, FIRST_PROBE_POWER_MAX + 1, async (slot) => {
    if (await has(slot)) present = Math.max(present, slot);
    else missing.push(slot);
  });
  const above = missing.filter((slot) => slot > present);
  return { present, missing: Math.min(Infinity, ...above) };
}

async function narrow(bounds: Bounds, has: Has): Promise<number> {
  let { present, missing } = bounds;
  while (missing - present > 1) {
    const count = Math.min(NARROW_COUNT, missing - present - 1);
    const width = (missing - present) / (count + 1);
    const low = present;
    const slots = Array.from({ length: count }, (_, i) => low + Math.round(width * (i + 1)));
    const next = await ask([...new Set(slots)], has, present);
    present = next.present;
    missing = Math.min(missing, next.missing);
  }
  return present;
}

/** One entry that must be there, since something lies at or behind it. */
async function readSlot(
  site: Site,
  slot: { readonly sequence: number; readonly to: number },
  options: SiteCall,
): Promise<Uint8Array> {
  const { sequence, to } = slot;
  const key = logKey(sequence);
  // Twice: between two of the requests that found something behind it, it may have been filled.
  const bytes = (await site.get(key, options)) ?? (await site.get(key, options));
  if (bytes !== undefined) return bytes;
  if (sequence === to) throw vanished(site, sequence);
  const next = await readSlot(site, { sequence: sequence + 1, to }, options);
  const previous = previousOf(next, sequence + 1);
  const copy = await site.get(logCopyKey(previous), options);
  if (copy !== undefined && entryHash(copy) === previous) return copy;
  throw damagedLog(site, sequence, "is missing, though later entries are there", previous);
}

/** Reads again where an entry does not fit its successor: the fault may be on the way. */
async function proveChain(
  site: Site,
  sequences: readonly number[],
  slots: Map<number, Uint8Array>,
  options: SiteCall,
): Promise<RawEntry[]> {
  for (const sequence of sequences) {
    const bytes = slots.get(sequence);
    const next = slots.get(sequence + 1);
    assert(bytes !== undefined);
    if (next === undefined || fits(bytes, next, sequence + 1)) continue;
    for (const again of [sequence, sequence + 1]) {
      const second = await site.get(logKey(again), options);
      if (second !== undefined) slots.set(again, second);
    }
  }
  return sequences.map((sequence) => {
    const bytes = slots.get(sequence);
    assert(bytes !== undefined);
    return { sequence, bytes };
  });
}

function fits(bytes: Uint8Array, next: Uint8Array, nextSequence: number): boolean {
  try {
    return previousOf(next, nextSequence) === entryHash(bytes);
  } catch (thrown) {
    if (thrown instanceof AppError && thrown.kind === "damaged") return false;
    throw thrown;
  }
}

function vanished(site: Site, sequence: number): AppError {
  return damagedLog(site, sequence, "was there a moment ago and is missing now");
}

function damagedLog(site: Site, sequence: number, what: string, hash?: string): AppError {
  const copy = hash === undefined ? "" : ` as ${logCopyKey(hash)}`;
  return new AppError("damaged", `${logKey(sequence)} at ${site.location} ${what}.`, {
    guidance:
      "The log is damaged, and nothing is written to it. An entry is never removed: look for an " +
      "expiry rule, a delete marker or a half-restored copy. Whoever has read the entry (a node's " +
      `catalog, another copy of the site) can put its bytes back${copy}.`,
    context: {
      site: site.name,
      key: logKey(sequence),
      sequence,
      ...(hash === undefined ? {} : { hash }),
    },
  });
}

function callOf(options: SiteCall): SiteCall {
  return options.signal === undefined ? {} : { signal: options.signal };
}
