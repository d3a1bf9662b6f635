/**
 * Cleanup: what gives space back. `planCleanup` says what would happen and changes nothing;
 * `runCleanup` does it in steps, each of which is one entry or a few, decided again at the entry of
 * the log where it lands, so that it never gets in the way of a backup and may be stopped anywhere:
 * forget by policy, drop what dead operations held, retire what nobody uses, delete what was retired
 * long ago, remove its objects, merge small segments, repack packs that are mostly dead, sweep,
 * renew the locks of what lives.
 */
import type { CleanupPolicy, DropRow, ForgetPlan, ForgetRow } from "./cleanup-plan.ts";
import { clockDoubt, planDrops, planForget } from "./cleanup-plan.ts";
import { type CommitRules, COMMIT_RULES } from "../write/commit-rules.ts";
import { sweepGarbage } from "./garbage.ts";
import { LockedTally } from "./locked-tally.ts";
import { isClearingDue, planMerges, runMerges } from "./merge.ts";
import type { PackCleanupOptions, PackTotal } from "./pack-cleanup.ts";
import { deletePacks, listUnused, planDelete, retirePacks } from "./pack-cleanup.ts";
import type { UseSource } from "./pack-uses.ts";
import { planRepacks, runRepack } from "./repack.ts";
import type { LockRenewal } from "./renew-locks.ts";
import { isRenewalDue, renewLocks } from "./renew-locks.ts";
import type { Repository } from "../log/repository.ts";
import type { RepositoryState } from "../log/state.ts";
import { UsedPacks } from "./used-packs.ts";

/** What a cleanup works on, and its policy. */
export type CleanupOptions = CleanupPolicy & {
  readonly repository: Repository;
  readonly source: UseSource;
  readonly operation: string;
  /** Also LISTs all packs; else that is done once in a while only. */
  readonly sweep?: boolean;
  /** How many bytes a run repacks at most. */
  readonly repackBytesMax?: number;
  readonly signal?: AbortSignal | undefined;
  readonly onStep?: (step: CleanupStep) => void;
  readonly rules?: CommitRules;
};

/** The steps, in order. */
export type CleanupStep =
  | "forget"
  | "drop"
  | "read lists"
  | "retire"
  | "delete"
  | "merge"
  | "repack"
  | "sweep"
  | "renew locks";

/** What a cleanup did, or would do. */
export type CleanupReport = {
  readonly isDryRun: boolean;
  readonly forgotten: readonly ForgetRow[];
  readonly dropped: readonly DropRow[];
  readonly retired: PackTotal;
  readonly deleted: PackTotal & { readonly backups: readonly string[] };
  readonly floor: { readonly before: number; readonly after: number };
  readonly merges: readonly { readonly inputs: number; readonly chunks: number }[];
  readonly repacks: readonly { readonly from: number; readonly bytesFreed: number }[];
  /** Objects that no entry names. */
  readonly garbage: { readonly objects: number; readonly bytes: number };
  /** Locks that were made longer, where the site locks and this period's renewal was due. */
  readonly locks?: LockRenewal;
  /** What must wait, and why. */
  readonly waits: readonly string[];
  /** What is wrong with the repository; something was left alone because of it. */
  readonly alarms: readonly string[];
};

/** Bytes that a run repacks at most, unless told. */
export const REPACK_BYTES_MAX_DEFAULT = 1024 * 1024 * 1024;

const NOTHING: ForgetPlan = { rows: [], waits: [] };
const SWEPT_KEY = "cleanup-swept";
const SWEEP_ENTRY_COUNT = 512;

/** Says what a cleanup would do now. */
export async function planCleanup(options: CleanupOptions): Promise<CleanupReport> {
  const { repository, source, signal } = options;
  const state = await repository.catchUp(signal);
  const doubt = clockDoubt(state, options);
  const isClockGood = doubt === undefined;
  const { rows: forgotten, waits } = isClockGood ? planForget(state, options) : NOTHING;
  const dropped = planDrops(state, { ...options, isClockGood });
  using used = new UsedPacks(repository, source);
  const keeps = dropped.filter(({ kind }) => kind === "keep").map(({ name }) => name);
  const without = { backups: new Set(forgotten.map(({ id }) => id)), keeps: new Set(keeps) };
  await used.refresh(state, { without, signal });
  const retired: PackTotal = { packs: 0, bytes: 0 };
  for (const { sizeBytes } of listUnused(repository, used)) {
    retired.packs += 1;
    retired.bytes += sizeBytes;
  }
  const deleted = planDelete(repository, stepOptions(options, state, { used, isClockGood }));
  const clearing = isClearingDue(state) ? [{ inputs: state.segments.size, chunks: 0 }] : [];
  const merges = planMerges(state).map((group) => ({
    inputs: group.length,
    chunks: group.reduce((sum, { chunks }) => sum + chunks, 0),
  }));
  const groups = planRepacks(repository, used, { movedBytesMax: repackBytesMax(options) });
  const repacks = groups.map((group) => ({
    from: group.length,
    bytesFreed: group.reduce((sum, one) => sum + one.pack.sizeBytes - one.usedBytes, 0),
  }));
  const packs = isSweepDue(options, state);
  const garbage = await sweepGarbage(repository, used, { packs, isDryRun: true, signal });
  const locks = await renewLocks(repository, { isDryRun: true, signal });
  return {
    isDryRun: true,
    forgotten,
    dropped,
    retired,
    deleted: { packs: deleted.packs, bytes: deleted.bytes, backups: deleted.backups },
    floor: { before: state.floor, after: deleted.floor },
    merges: [...merges, ...clearing],
    repacks,
    garbage: { objects: garbage.objects, bytes: garbage.bytes },
    ...(locks === undefined ? {} : { locks }),
    waits: [...(doubt === undefined ? [] : [retentionWaits(doubt)]), ...waits, ...deleted.waits],
    alarms: garbage.alarms,
  };
}

/**
 * Cleans up.
 *
 * @example
 * const report = await runCleanup({ repository, source, operation, policy, undoWindowMs, … });
 */
export async function runCleanup(options: CleanupOptions): Promise<CleanupReport> {
  const { repository, source, signal, onStep = () => undefined } = options;
  const start = await repository.catchUp(signal);
  const doubt = clockDoubt(start, options);
  const isClockGood = doubt === undefined;
  onStep("forget");
  const { rows: forgotten, waits } = isClockGood ? await forgetByPolicy(options) : NOTHING;
  onStep("drop");
  const dropped = await dropDead(options, isClockGood);
  onStep("read lists");
  using used = new UsedPacks(repository, source);
  await used.refresh(await repository.catchUp(signal), { signal });
  const locked = new LockedTally();
  const step = { ...stepOptions(options, start, { used, isClockGood }), locked };
  onStep("retire");
  const retired = await retirePacks(repository, step);
  onStep("delete");
  const deleted = await deletePacks(repository, step);
  onStep("merge");
  const { operation, rules = COMMIT_RULES } = options;
  const clear = options.sweep === true || isClearingDue(repository.state);
  const merges = await runMerges(repository, { clear, operation, signal, rules });
  onStep("repack");
  const repacks = await repackAll(options, used);
  onStep("sweep");
  await used.refresh(await repository.catchUp(signal), { signal });
  const packs = isSweepDue(options, repository.state);
  const { sequence } = repository.state;
  const garbage = await sweepGarbage(repository, used, { packs, signal, locked });
  if (packs) repository.catalog.set(SWEPT_KEY, String(sequence));
  if (isRenewalDue(repository)) onStep("renew locks");
  const locks = await renewLocks(repository, { signal });
  return {
    isDryRun: false,
    forgotten,
    dropped,
    retired,
    deleted: { packs: deleted.packs, bytes: deleted.bytes, backups: deleted.backups },
    floor: { before: start.floor, after: repository.state.floor },
    merges: merges.map(({ inputs, chunks }) => ({ inputs, chunks })),
    repacks,
    garbage: { objects: garbage.objects, bytes: garbage.bytes },
    ...(locks === undefined ? {} : { locks }),
    waits: [
      ...(doubt === undefined ? [] : [retentionWaits(doubt)]),
      ...waits,
      ...deleted.waits,
      ...locked.waits(),
    ],
    alarms: [...new Set([...deleted.alarms, ...garbage.alarms, ...(locks?.alarms ?? [])])],
  };
}

async function forgetByPolicy(options: CleanupOptions): Promise<ForgetPlan> {
  const { repository, operation, signal } = options;
  let { rows, waits } = NOTHING;
  const result = await repository.commit(
    (state) => {
      ({ rows, waits } = planForget(state, options));
      if (rows.length === 0) return undefined;
      const backups = rows.map(({ id }) => id);
      return { kind: "forget", body: { backups, reason: "retention", scope: "site" } };
    },
    { operation, ...(signal === undefined ? {} : { signal }) },
  );
  return { rows: result.outcome === "won" ? rows : [], waits };
}

async function dropDead(options: CleanupOptions, isClockGood: boolean): Promise<DropRow[]> {
  const { repository, operation, signal } = options;
  let rows: DropRow[] = [];
  const result = await repository.commit(
    (state) => {
      rows = planDrops(state, { ...options, isClockGood });
      if (rows.length === 0) return undefined;
      const names = (wanted: DropRow["kind"]): string[] =>
        rows.filter(({ kind }) => kind === wanted).map(({ name }) => name);
      return { kind: "drop", body: { keeps: names("keep"), pins: names("pin") } };
    },
    { operation, ...(signal === undefined ? {} : { signal }) },
  );
  return result.outcome === "won" ? rows : [];
}

async function repackAll(
  options: CleanupOptions,
  used: UsedPacks,
): Promise<{ from: number; bytesFreed: number }[]> {
  const { repository, operation, signal, rules = COMMIT_RULES } = options;
  await used.refresh(await repository.catchUp(signal), { signal });
  const results: { from: number; bytesFreed: number }[] = [];
  const groups = planRepacks(repository, used, { movedBytesMax: repackBytesMax(options) });
  for (const group of groups) {
    const result = await runRepack(repository, group, { used, operation, signal, rules });
    if (result !== undefined) results.push({ from: result.from, bytesFreed: result.bytesFreed });
  }
  return results;
}

function stepOptions(
  options: CleanupOptions,
  start: RepositoryState,
  how: { readonly used: UsedPacks; readonly isClockGood: boolean },
): PackCleanupOptions {
  const { operation, undoWindowMs, signal, rules = COMMIT_RULES } = options;
  const last = start.lastCleanup;
  // Begun before under this id: what the run before that one retired is not known any more.
  const before = last === undefined || last.operation === operation ? 0 : last.sequence;
  return { ...how, before, operation, undoWindowMs, signal, rules };
}

/** Only who asks pays for a LIST of all packs, and all of us once in a while. */
function isSweepDue(options: CleanupOptions, state: RepositoryState): boolean {
  if (options.sweep === true) return true;
  const swept = Number(options.repository.catalog.get(SWEPT_KEY) ?? 0);
  return state.sequence - swept >= SWEEP_ENTRY_COUNT;
}

function repackBytesMax(options: CleanupOptions): number {
  return options.repackBytesMax ?? REPACK_BYTES_MAX_DEFAULT;
}

function retentionWaits(doubt: string): string {
  return `nothing is forgotten or deleted by age: ${doubt}`;
}
