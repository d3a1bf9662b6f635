/**
 * The commit of a backup, decided again at each entry of the log that comes in between: every pack
 * of every list must be live, retired (and is then revived), or new in the segments that the backup
 * brings, with a birth above the floor. So a writer that slept for a week cannot commit a hole.
 */
import { Arrivals, packsGone } from "./arrivals.ts";
import type { BackupBody, EntryDraft } from "../log/entry.ts";
import { type CommitRules, COMMIT_RULES } from "./commit-rules.ts";
import { AppError } from "../../base/error.ts";
import { decideMoving } from "../clean/moved-on.ts";
import { getNamedPack } from "../clean/pack-standing.ts";
import { readBackupUses, type UseSource } from "../clean/pack-uses.ts";
import type { Repository } from "../log/repository.ts";
import { newBirths } from "../log/state-rules.ts";
import type { BackupRecord, RepositoryState } from "../log/state.ts";
import { listedBackups } from "../log/state.ts";

/** A backup as its coordinator knows it; which packs it revives is found here. */
export type BackupDraft = Omit<BackupBody, "revived">;

/** A commit that was won. */
export type WonCommit = { readonly sequence: number; readonly state: RepositoryState };

/**
 * Commits a backup. AppError `conflict` with `context.reason` "packs-gone" if it needs packs that
 * were deleted meanwhile: then they are to be sent again.
 *
 * @example
 * const { sequence } = await commitBackup(repository, source, draft, { operation, signal });
 */
export async function commitBackup(
  repository: Repository,
  source: UseSource,
  draft: BackupDraft,
  options: {
    readonly operation: string;
    readonly signal?: AbortSignal | undefined;
    readonly rules?: CommitRules;
  },
): Promise<WonCommit> {
  const { operation, signal, rules = COMMIT_RULES } = options;
  const arrivals = new Arrivals(repository, draft.segments, source, signal);
  let first: EntryDraft | undefined;
  const decide = async (state: RepositoryState): Promise<EntryDraft> => {
    if (first !== undefined && !rules.redecide) return first;
    const decideAt = (at: RepositoryState): Promise<EntryDraft> =>
      decideBackup(repository, at, draft, { arrivals, signal });
    first = await decideMoving(repository, state, { signal, decide: decideAt });
    return first;
  };
  const result = await repository.commit(decide, {
    operation,
    ...(signal === undefined ? {} : { signal }),
  });
  if (result.outcome === "won") return result;
  throw new AppError("internal", "A backup was decided and not committed.");
}

async function decideBackup(
  repository: Repository,
  state: RepositoryState,
  draft: BackupDraft,
  options: { readonly arrivals: Arrivals; readonly signal: AbortSignal | undefined },
): Promise<EntryDraft> {
  const { arrivals, signal } = options;
  await arrivals.load(state);
  const check = new PackCheck(repository, state, arrivals);
  check.addArrivals();
  mustHaveKeys(state, draft, arrivals);
  check.add(draft.listPacks);
  // The lists lie in these packs: without them there is nothing to read.
  check.mustHaveAll();
  const known = knownRoots(state);
  const lists = draft.lists.filter(({ root }) => !known.has(root.id));
  // A commit made after a repack may not lean on its move: the list is read as it stands.
  const record = { ...draft, lists, revived: [], sequence: 0, time: "", operation: "" };
  const unmoved = { ...state, moves: new Map<string, never>() };
  const uses = readBackupUses(unmoved, record satisfies BackupRecord, arrivals, {
    frameCountOf: () => 0,
    signal,
  });
  for await (const batch of uses) check.add(batch.map(({ pack }) => pack));
  check.mustHaveAll();
  const body = { ...draft, revived: [...check.revived].toSorted() };
  const births = [...newBirths(state, { kind: "backup", body }), ...check.births];
  return { kind: "backup", body, births: spanOf(births) };
}

/** What nobody could ever open may not be listed: each pack's key is in the log, or comes with it. */
function mustHaveKeys(state: RepositoryState, draft: BackupDraft, arrivals: Arrivals): void {
  const named = new Set(draft.keys?.map(({ id }) => id));
  const missing = [...arrivals.sessions].find((id) => !state.keys.has(id) && !named.has(id));
  if (missing === undefined) return;
  throw new AppError("internal", `A backup would not name session key ${missing} of its packs.`);
}

/**
 * Roots of lists whose packs are all live: those of listed backups. A list that a repack speaks for
 * is read, because its old packs are retired.
 */
function knownRoots(state: RepositoryState): ReadonlySet<string> {
  const unmoved = listedBackups(state).filter(({ backup }) => !state.moves.has(backup));
  return new Set(unmoved.flatMap(({ lists }) => lists.map(({ root }) => root.id)));
}

/** What becomes of each pack that a backup needs. */
class PackCheck {
  readonly revived = new Set<string>();
  readonly #gone = new Set<string>();
  /** Of packs that the backup newly names. */
  readonly births: number[] = [];
  readonly #repository: Repository;
  readonly #state: RepositoryState;
  readonly #arrivals: Arrivals;

  constructor(repository: Repository, state: RepositoryState, arrivals: Arrivals) {
    this.#repository = repository;
    this.#state = state;
    this.#arrivals = arrivals;
  }

  /**
   * All packs that the segments bring, used or not: one below the floor would make the entry void,
   * and one that the state has under another birth must be used under that one.
   */
  addArrivals(): void {
    for (const [pack, birth] of this.#arrivals.births) {
      const named = getNamedPack(this.#repository, this.#state, pack);
      if (named === undefined && birth > this.#state.floor) this.births.push(birth);
      // One that was repaired lies where the state says, whatever segments say.
      else if (named?.birth !== birth && !this.#state.repairs.has(pack)) this.#gone.add(pack);
    }
  }

  /** Throws if anything is gone. */
  mustHaveAll(): void {
    const { size } = this.#gone;
    if (size === 0) return;
    throw packsGone(size, `${size} packs that this backup needs are not in the site any more.`);
  }

  add(packs: readonly string[]): void {
    for (const pack of packs) {
      if (getNamedPack(this.#repository, this.#state, pack) === undefined) {
        if (!this.#arrivals.births.has(pack)) this.#gone.add(pack);
      } else if (this.#state.retired.has(pack)) {
        this.revived.add(pack);
      }
    }
  }
}

function spanOf(births: readonly number[]): readonly [number, number] | null {
  let span: [number, number] | null = null;
  for (const birth of births) {
    span = span === null ? [birth, birth] : [Math.min(span[0], birth), Math.max(span[1], birth)];
  }
  return span;
}
