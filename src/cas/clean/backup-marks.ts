/**
 * Marks on backups: forgotten, brought back, pinned. Each is one entry, decided again at each entry
 * of the log that comes in between. Nothing here removes anything: a forgotten backup can be brought
 * back as long as every pack of its lists is live or retired.
 */
import { AppError } from "../../base/error.ts";
import type { WonCommit } from "../write/backup-commit.ts";
import { packsGone } from "../write/arrivals.ts";
import { type CommitRules, COMMIT_RULES } from "../write/commit-rules.ts";
import type { EntryDraft, ForgetRef } from "../log/entry.ts";
import { decideMoving } from "./moved-on.ts";
import { packStanding } from "./pack-standing.ts";
import { readBackupUses, type UseSource } from "./pack-uses.ts";
import type { Repository } from "../log/repository.ts";
import { hasUndone } from "../log/state.ts";
import type { BackupRecord, RepositoryState } from "../log/state.ts";

/** What all marks need. */
export type MarkOptions = {
  readonly operation: string;
  readonly signal?: AbortSignal | undefined;
  readonly rules?: CommitRules;
};

/** Opens a source when one is needed. */
export type OpenSource = () => UseSource;

/**
 * Forgets listed backups, all or none. One that is pinned is refused.
 *
 * @example
 * await forgetBackups(repository, { backups: [id], reason: "by name", scope: "all", operation });
 */
export async function forgetBackups(
  repository: Repository,
  options: MarkOptions & {
    /** Ids. */
    readonly backups: readonly string[];
    readonly reason: string;
    readonly scope: "site" | "all";
    /**
     * The forget of another site that is carried here: it passes over what has undone it, and buries
     * what was never here, so that no third site brings it.
     */
    readonly origin?: ForgetRef | undefined;
  },
): Promise<WonCommit | undefined> {
  const { reason, scope, origin } = options;
  const carried = origin === undefined ? {} : { origin };
  const wanted = [...new Set(options.backups)];
  return await commitMark(repository, options, async (state) => {
    const isNew = (id: string): boolean => origin !== undefined && !state.everIds.has(id);
    const known = wanted.filter((id) => !isNew(id));
    const records = known.map((id) => mustGetBackup(state, id));
    for (const record of records) mustNotBePinned(state, record);
    const backups = records.filter(
      (record) => record.forgotten === undefined && !hasUndone(record, origin),
    );
    const ids = [...backups.map(({ backup }) => backup), ...wanted.filter(isNew)];
    if (ids.length === 0) return undefined;
    return { kind: "forget", body: { backups: ids, reason, scope, ...carried } };
  });
}

/** Lists a forgotten backup again; AppError `conflict` ("packs-gone") if part of it was deleted. */
export async function undoForget(
  repository: Repository,
  openSource: OpenSource,
  options: MarkOptions & { readonly backup: string },
): Promise<WonCommit | undefined> {
  const { backup, signal, rules = COMMIT_RULES } = options;
  const source = openSource();
  return await commitMark(repository, options, async (state) => {
    const record = mustGetBackup(state, backup);
    if (record.forgotten === undefined) return undefined;
    const retired = await findRetired(repository, state, record, { source, signal, rules });
    const { sequence } = record.forgotten;
    return { kind: "undo", body: { backup, forget: sequence, revived: retired } };
  });
}

/** Pins a backup, listed or forgotten: neither it nor its packs are deleted while the pin stands. */
export async function pinBackup(
  repository: Repository,
  openSource: OpenSource,
  options: MarkOptions & {
    readonly backup: string;
    /** The id of the pin: of an operation, or drawn for a person. */
    readonly pin: string;
    readonly reason: string;
  },
): Promise<WonCommit | undefined> {
  const { backup, pin, reason, signal, rules = COMMIT_RULES } = options;
  const source = openSource();
  return await commitMark(repository, options, async (state) => {
    const record = mustGetBackup(state, backup);
    if (state.pins.get(pin)?.backup === backup) return undefined;
    if (record.forgotten !== undefined) {
      await findRetired(repository, state, record, { source, signal, rules });
    }
    return { kind: "pin", body: { pin, backup, reason } };
  });
}

/** Ends a pin; one that has ended already is fine. */
export async function dropPin(
  repository: Repository,
  options: MarkOptions & { readonly pin: string },
): Promise<WonCommit | undefined> {
  const { pin } = options;
  return await commitMark(repository, options, async (state) =>
    state.pins.has(pin) ? { kind: "drop", body: { keeps: [], pins: [pin] } } : undefined,
  );
}

async function commitMark(
  repository: Repository,
  { operation, signal, rules = COMMIT_RULES }: MarkOptions,
  decide: (state: RepositoryState) => Promise<EntryDraft | undefined>,
): Promise<WonCommit | undefined> {
  let first: EntryDraft | undefined;
  const result = await repository.commit(
    async (state) => {
      if (rules.redecide || first === undefined) {
        first = await decideMoving(repository, state, { signal, decide });
      }
      return first;
    },
    { operation, ...(signal === undefined ? {} : { signal }) },
  );
  return result.outcome === "won" ? result : undefined;
}

/** The retired packs of a backup; throws if any of its packs has gone. */
async function findRetired(
  repository: Repository,
  state: RepositoryState,
  record: BackupRecord,
  options: {
    readonly source: UseSource;
    readonly signal: AbortSignal | undefined;
    readonly rules: CommitRules;
  },
): Promise<string[]> {
  const retired = new Set<string>();
  const uses = readBackupUses(state, record, options.source, {
    frameCountOf: () => 0,
    signal: options.signal,
  });
  for await (const batch of uses) {
    for (const { pack } of batch) {
      const standing = packStanding(repository, state, pack);
      if (standing === "retired") retired.add(pack);
      if (standing === "gone" && options.rules.undoNeedsPacks) {
        throw packsGone(1, `Packs of backup ${record.name} were deleted.`, {
          guidance: "It cannot be listed again. Another site may still have the backup.",
        });
      }
    }
  }
  return [...retired].toSorted();
}

function mustGetBackup(state: RepositoryState, id: string): BackupRecord {
  const record = state.backups.get(id);
  if (record !== undefined) return record;
  const was = state.everIds.has(id) ? "was deleted" : "is not known";
  throw new AppError("not-found", `Backup ${id} ${was}.`, {
    guidance: "`astacus list` shows what there is.",
    context: { backup: id },
  });
}

function mustNotBePinned(state: RepositoryState, { backup, name }: BackupRecord): void {
  const pin = state.pins.values().find((one) => one.backup === backup);
  if (pin === undefined) return;
  throw new AppError("refused", `Backup ${name} is pinned: ${pin.reason}.`, {
    guidance: "Wait for the operation that holds it, or end the pin with `astacus unpin`.",
    context: { backup },
  });
}
