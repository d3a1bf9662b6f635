/**
 * One commit: an entry is made from a decision, checked against the state that it will be replayed
 * on, and sent as the same bytes until the slot is seen. Only `won` counts; `lost` is decided again
 * by the caller; what cannot be seen is AppError `unavailable` with `context.outcome = "unknown"`,
 * and the journaled bytes settle it later.
 */
import { FORMAT_VERSION } from "../format/header.ts";
import type { Clock, Random } from "../../base/doors.ts";
import { AppError, toAppError } from "../../base/error.ts";
import type { Site, SiteCall } from "../../sites/site.ts";
import { decodeEntry, encodeEntry, entryHash } from "./entry.ts";
import type { EntryDraft, EntryEnvelope, KnownEntry } from "./entry.ts";
import { drawId, logKey } from "../format/ids.ts";
import type { Sealer } from "../format/seal.ts";
import { applyEntry } from "./replay.ts";
import type { CheckpointRef, RepositoryState } from "./state.ts";

/** Whose bytes are in the slot. */
export type SlotOutcome = "won" | "lost";

/** An entry that is ready to be sent, and the state that it makes. */
export type PreparedEntry = {
  readonly sequence: number;
  readonly bytes: Uint8Array;
  readonly state: RepositoryState;
};

/** What an entry carries besides its decision. */
export type EntryContext = {
  readonly clock: Clock;
  readonly random: Random;
  readonly operation: string;
  readonly writer: EntryEnvelope["writer"];
  readonly checkpoint: CheckpointRef | undefined;
  /** The lowest and highest birth of all that it newly names, those of packs included. */
  readonly births: readonly [lowest: number, highest: number] | null;
  readonly sealer?: Sealer;
};

const SEND_COUNT_MAX = 4;
const SEND_WAIT_MS = 200;

/**
 * The next entry on a state. An entry that would be void is refused here, since it would be void for
 * all who read it, and look committed.
 */
export function prepareEntry(
  state: RepositoryState,
  draft: EntryDraft,
  context: EntryContext,
): PreparedEntry {
  const sequence = state.sequence + 1;
  const checkpoint = newerCheckpoint(state.checkpoint, context.checkpoint);
  // Body and kind come from one draft, which the type system cannot follow through the spread.
  const entry = {
    v: FORMAT_VERSION,
    sequence,
    previous: state.entryHash,
    id: drawId(context.random),
    operation: context.operation,
    time: new Date(context.clock.now()).toISOString(),
    writer: context.writer,
    kind: draft.kind,
    critical: draft.kind !== "note",
    reader: FORMAT_VERSION,
    committer: FORMAT_VERSION,
    checkpoint: checkpoint ?? null,
    births: context.births === null ? null : [...context.births],
    body: draft.body,
  } as KnownEntry;
  const bytes = encodeEntry(entry, context.sealer);
  const next = applyEntry(state, decodeEntry(bytes, sequence, context.sealer), entryHash(bytes));
  if (next.void === undefined) return { sequence, bytes, state: next.state };
  throw new AppError("refused", `Nothing was committed: the entry would be void (${next.void}).`, {
    guidance:
      "What the operation planned with has changed in the meantime; run it again. What was sent for " +
      "it is not lost.",
    context: { sequence, kind: draft.kind, operation: context.operation },
  });
}

/** Sends an entry's bytes until its slot is seen. */
export async function sendEntry(
  site: Site,
  entry: { readonly sequence: number; readonly bytes: Uint8Array },
  options: SiteCall & { readonly clock: Clock; readonly random: Random },
): Promise<SlotOutcome> {
  const call: SiteCall = options.signal === undefined ? {} : { signal: options.signal };
  let failure: AppError | undefined;
  for (let count = 1; count <= SEND_COUNT_MAX; count += 1) {
    try {
      if ((await site.put(logKey(entry.sequence), entry.bytes, call)) === "created") return "won";
      const outcome = await seeSlot(site, entry, call);
      if (outcome !== undefined) return outcome;
    } catch (thrown) {
      failure = toAppError(thrown);
      if (!failure.retryable && failure.kind !== "cancelled") {
        return await seeAfter(site, entry, failure);
      }
      if (failure.kind === "cancelled") break;
    }
    if (count === SEND_COUNT_MAX) break;
    try {
      await options.clock.sleep(
        options.random.fraction() * SEND_WAIT_MS * 2 ** count,
        options.signal,
      );
    } catch (thrown) {
      failure = toAppError(thrown);
      break;
    }
  }
  throw unknownOutcome(site, entry.sequence, failure);
}

/** Whose bytes are in the slot of an entry; undefined if it is empty. */
export async function seeSlot(
  site: Site,
  entry: { readonly sequence: number; readonly bytes: Uint8Array },
  call: SiteCall = {},
): Promise<SlotOutcome | undefined> {
  // Twice where they differ: bytes that were hurt on the way must not hide that they are ours.
  for (const isLast of [false, true]) {
    const found = await site.get(logKey(entry.sequence), call);
    if (found === undefined) return undefined;
    if (Buffer.compare(found, entry.bytes) === 0) return "won";
    if (isLast) return "lost";
  }
}

/** The newer of two checkpoints. */
export function newerCheckpoint(
  one: CheckpointRef | undefined,
  other: CheckpointRef | undefined,
): CheckpointRef | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return other.sequence > one.sequence ? other : one;
}

/** A put that was refused for good: seldom, an earlier try of the same bytes has landed. */
async function seeAfter(
  site: Site,
  entry: { readonly sequence: number; readonly bytes: Uint8Array },
  failure: AppError,
): Promise<SlotOutcome> {
  let outcome: SlotOutcome | undefined;
  try {
    outcome = await seeSlot(site, entry);
  } catch {
    throw unknownOutcome(site, entry.sequence, failure);
  }
  if (outcome === undefined) throw failure;
  return outcome;
}

function unknownOutcome(site: Site, sequence: number, cause: AppError | undefined): AppError {
  const message = `It is not known whether ${logKey(sequence)} was committed to ${site.location}`;
  return new AppError(
    cause?.kind === "cancelled" ? "cancelled" : "unavailable",
    cause === undefined ? `${message}.` : `${message}: ${cause.message}`,
    {
      guidance:
        "The entry is journaled: this node settles it before anything else as soon as the site " +
        "answers. List the backups then, to see which way it went.",
      retryable: true,
      context: { outcome: "unknown", sequence, site: site.name },
      cause,
    },
  );
}
