/**
 * Packs on their way out: retired when nobody uses them, deleted when the undo window has passed, and
 * only then removed. Both entries are decided again at each entry of the log that comes in between,
 * against the lists of all listed and pinned backups and all keeps. No run deletes what it or the run
 * before it retired.
 */
import { manifestKey } from "../format/ids.ts";
import type { CleanupPolicy } from "./cleanup-plan.ts";
import { findExpired, planFloor } from "./cleanup-plan.ts";
import { type CommitRules, COMMIT_RULES } from "../write/commit-rules.ts";
import type { IndexedPack } from "../catalog/catalog-index.ts";
import type { EntryDraft } from "../log/entry.ts";
import { RETIRE_PACK_COUNT_MAX } from "../log/entry.ts";
import { removePacks } from "./garbage.ts";
import type { LockedTally } from "./locked-tally.ts";
import { getNamedPack } from "./pack-standing.ts";
import { RemovalBatches } from "./removal-batches.ts";
import type { Repository } from "../log/repository.ts";
import type { BackupRecord, RepositoryState } from "../log/state.ts";
import type { UsedPacks } from "./used-packs.ts";

/** Packs by number and size. */
export type PackTotal = { packs: number; bytes: number };

/** What a delete took, or would take. */
export type DeleteTotal = PackTotal & {
  backups: string[];
  floor: number;
  waits: readonly string[];
  alarms: string[];
};

/** What both steps need. */
export type PackCleanupOptions = Pick<CleanupPolicy, "undoWindowMs"> & {
  readonly used: UsedPacks;
  /** The first entry of the cleanup before this one. */
  readonly before: number;
  /** False if nothing may be deleted by age now. */
  readonly isClockGood: boolean;
  readonly operation: string;
  readonly signal?: AbortSignal | undefined;
  readonly locked?: LockedTally;
  readonly rules?: CommitRules;
};

/** Packs that are live and that nobody uses. */
export function* listUnused(
  repository: Repository,
  used: UsedPacks,
): Generator<IndexedPack, void, undefined> {
  if (used.alarms.length > 0) return;
  for (const pack of repository.index.packs()) {
    if (isUnused(repository, repository.state, used, pack)) yield pack;
  }
}

/** Retires what nobody uses. */
export async function retirePacks(
  repository: Repository,
  options: PackCleanupOptions,
): Promise<PackTotal> {
  const total: PackTotal = { packs: 0, bytes: 0 };
  let batch: IndexedPack[] = [];
  for (const pack of listUnused(repository, options.used)) {
    batch.push(pack);
    if (batch.length < RETIRE_PACK_COUNT_MAX) continue;
    await retireBatch(repository, batch, options, total);
    batch = [];
  }
  if (batch.length > 0) await retireBatch(repository, batch, options, total);
  return total;
}

/** Deletes what has been retired and forgotten for long enough, then removes the objects. */
export async function deletePacks(
  repository: Repository,
  options: PackCleanupOptions,
): Promise<DeleteTotal> {
  const total = emptyDelete(repository.state);
  for (;;) {
    const step = await deleteBatch(repository, options);
    total.waits = step.found.waits;
    total.floor = repository.state.floor;
    if (!step.isWon) return total;
    const { packs, backups } = step.found;
    await removeDeleted(repository, options, step.found, total);
    total.packs += packs.length;
    total.bytes += packs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    total.backups.push(...backups.map(({ name }) => name));
    if (packs.length === 0) return total;
  }
}

/** What `deletePacks` would take now. */
export function planDelete(repository: Repository, options: PackCleanupOptions): DeleteTotal {
  const { state } = repository;
  const found = findDeletable(repository, state, options, Infinity);
  return {
    packs: found.packs.length,
    bytes: found.packs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    backups: found.backups.map(({ name }) => name),
    floor: floorOf(state, options, found),
    waits: found.waits,
    alarms: [],
  };
}

type Deletable = {
  readonly packs: readonly IndexedPack[];
  readonly backups: readonly BackupRecord[];
  readonly waits: readonly string[];
};

async function retireBatch(
  repository: Repository,
  batch: readonly IndexedPack[],
  options: PackCleanupOptions,
  total: PackTotal,
): Promise<void> {
  const { used, operation, signal, rules = COMMIT_RULES } = options;
  let unused: readonly IndexedPack[] = [];
  const result = await repository.commit(
    async (state): Promise<EntryDraft | undefined> => {
      if (rules.redecide) await used.refresh(state, { signal });
      unused = batch.filter((pack) => isUnused(repository, state, used, pack));
      if (unused.length === 0) return undefined;
      return { kind: "retire", body: { packs: unused.map(({ id }) => id) } };
    },
    { operation, ...(signal === undefined ? {} : { signal }) },
  );
  if (result.outcome !== "won") return;
  total.packs += unused.length;
  total.bytes += unused.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
}

async function deleteBatch(
  repository: Repository,
  options: PackCleanupOptions,
): Promise<{ readonly isWon: boolean; readonly found: Deletable }> {
  const { used, operation, signal, rules = COMMIT_RULES } = options;
  let found: Deletable = { packs: [], backups: [], waits: [] };
  const result = await repository.commit(
    async (state): Promise<EntryDraft | undefined> => {
      if (rules.redecide) await used.refresh(state, { signal });
      found = findDeletable(repository, state, options, RETIRE_PACK_COUNT_MAX);
      const floor = floorOf(state, options, found);
      const packs = found.packs.map(({ id }) => id);
      const backups = found.backups.map(({ backup }) => backup);
      const isEmpty = packs.length + backups.length === 0;
      if (isEmpty && floor === state.floor && !isMarkNeeded(state, options)) return undefined;
      return { kind: "delete", body: { packs, backups, floor } };
    },
    { operation, ...(signal === undefined ? {} : { signal }) },
  );
  return { isWon: result.outcome === "won", found };
}

/**
 * True if something waits for one more cleanup to come by, and this one has left no entry yet: then
 * an empty `delete` says that it did.
 */
function isMarkNeeded(state: RepositoryState, options: PackCleanupOptions): boolean {
  if (state.lastCleanup?.operation === options.operation) return false;
  const isRecent = ({ sequence }: { readonly sequence: number }): boolean =>
    sequence >= options.before;
  return (
    state.retired.values().some(isRecent) ||
    state.backups.values().some(({ forgotten }) => forgotten !== undefined && isRecent(forgotten))
  );
}

function findDeletable(
  repository: Repository,
  state: RepositoryState,
  options: PackCleanupOptions,
  countMax: number,
): Deletable {
  const { used, before, undoWindowMs, isClockGood } = options;
  if (!isClockGood) {
    const waits = state.retired.size > 0 ? ["retired packs stay: the clock is not trusted"] : [];
    return { packs: [], backups: [], waits };
  }
  const expired = findExpired(state, { undoWindowMs, before });
  const packs: IndexedPack[] = [];
  let usedCount = 0;
  for (const id of expired.packs) {
    if (packs.length >= countMax) break;
    const pack = getNamedPack(repository, state, id);
    if (pack === undefined) continue;
    if (used.has(id)) usedCount += 1;
    else packs.push(pack);
  }
  const waits = [...expired.waits];
  if (usedCount > 0) waits.push(`${usedCount} retired packs stay: backups or operations use them`);
  return { packs, backups: expired.backups, waits };
}

function floorOf(state: RepositoryState, options: PackCleanupOptions, found: Deletable): number {
  const { undoWindowMs, isClockGood } = options;
  const births = [
    ...found.packs.map(({ birth }) => birth),
    ...found.backups.map(({ manifest }) => manifest.birth),
  ];
  return planFloor(state, { undoWindowMs: isClockGood ? undoWindowMs : Infinity, births });
}

/** The second look, by who removes: at the state of now, from what the lists say now. */
async function removeDeleted(
  repository: Repository,
  options: PackCleanupOptions,
  found: Deletable,
  total: DeleteTotal,
): Promise<void> {
  const { used, signal, locked, rules = COMMIT_RULES } = options;
  const state = await repository.catchUp(signal);
  if (rules.redecide) await used.refresh(state, { signal });
  if (state.closed !== undefined) return;
  const removal = await removePacks(repository, state, used, found.packs, { signal, locked });
  total.alarms.push(...removal.alarms);
  const manifests = new RemovalBatches(repository.site, { signal, locked });
  for (const { backup, manifest } of found.backups) {
    if (state.backups.get(backup)?.manifest.id === manifest.id) continue;
    await manifests.add(manifestKey(manifest.id, manifest.birth));
  }
  await manifests.finish();
}

function isUnused(
  repository: Repository,
  state: RepositoryState,
  used: UsedPacks,
  pack: IndexedPack,
): boolean {
  if (state.retired.has(pack.id) || used.has(pack.id)) return false;
  return getNamedPack(repository, state, pack.id)?.birth === pack.birth;
}

function emptyDelete(state: RepositoryState): DeleteTotal {
  return { packs: 0, bytes: 0, backups: [], floor: state.floor, waits: [], alarms: [] };
}
