/**
 * Replays the log: one pure function from a state and an entry to the next state. An entry is void
 * only by its own bytes and by the state, never by anything that must be fetched, so that whoever
 * replays from entry 1 and whoever starts at a checkpoint see one history. A replay of many entries
 * copies each table at most once.
 */
import { AppError } from "../../base/error.ts";
import type { Entry, UnknownEntry } from "./entry.ts";
import { FORMAT_VERSION } from "../format/header.ts";
import { logKey } from "../format/ids.ts";
import { act, endFault, StateDraft } from "./state-rules.ts";
import type { RepositoryState } from "./state.ts";

/** The state after an entry with this hash, and why the entry is void if it is. */
export function applyEntry(
  state: RepositoryState,
  entry: Entry,
  hash: string,
): { readonly state: RepositoryState; readonly void?: string } {
  const replay = new Replay(state);
  const why = replay.apply(entry, hash);
  return why === undefined ? { state: replay.state } : { state: replay.state, void: why };
}

/** Replays many entries on one private copy. */
export class Replay {
  readonly #draft: StateDraft;

  constructor(state: RepositoryState) {
    this.#draft = new StateDraft(state);
  }

  /** The state now. Nothing may be applied to this replay any more once it is handed on. */
  get state(): RepositoryState {
    return this.#draft.state;
  }

  /** Applies the next entry; returns why it is void, if it is. Throws `damaged` if the chain breaks. */
  apply(entry: Entry, hash: string): string | undefined {
    checkChain(this.state, entry);
    const why =
      endFault(this.state) ??
      (entry.kind === "unknown" ? skip(this.#draft, entry) : act(this.#draft, entry));
    this.#draft.set({ sequence: entry.sequence, entryHash: hash });
    return why;
  }
}

function checkChain(state: RepositoryState, entry: Entry): void {
  const { sequence } = entry;
  const isNext = sequence === state.sequence + 1 && entry.previous === state.entryHash;
  const isFirst = sequence === 1;
  const namesHeader = entry.kind === "note" && entry.body.header === state.headerHash;
  if (isNext && (!isFirst || namesHeader)) return;
  const what = isFirst
    ? "does not carry the hash of the header"
    : `does not follow entry ${state.sequence} as this node read it`;
  throw new AppError("damaged", `${logKey(sequence)} ${what}: the chain of the log is broken.`, {
    guidance:
      "Nothing was changed. Check that the site is the one that it should be, and compare it with " +
      "its other copies (`astacus site check`).",
    context: { key: logKey(sequence), sequence, known: state.sequence, hash: state.entryHash },
  });
}

/** A kind that this code does not know: it may list and restore what it knows, and not commit. */
function skip(draft: StateDraft, entry: UnknownEntry): undefined {
  const what = `${logKey(entry.sequence)} is of the kind \`${entry.name}\``;
  if (entry.reader > FORMAT_VERSION) {
    throw new AppError("refused", `${what}, which needs format version ${entry.reader}.`, {
      guidance: "Upgrade Astacus on this node.",
      context: { sequence: entry.sequence, kind: entry.name, reader: entry.reader },
    });
  }
  if (draft.state.blocked !== undefined) return;
  if (entry.critical || entry.committer > FORMAT_VERSION) {
    draft.set({ blocked: `${what}, which this version of Astacus does not know.` });
  }
}
