/**
 * Backups from one site of a repository to another, as they are: no database is touched, packs and
 * manifests keep their bytes and ids. Running it again does what is left. Two that run at once do no
 * harm: each pack that the other has brought is used.
 */
import { AppError } from "../../base/error.ts";
import type { AppErrorJson } from "../../base/error.ts";
import { forgetBackups } from "../clean/backup-marks.ts";
import type { ForgetRef } from "../log/entry.ts";
import { hasUndone, isPinned } from "../log/state.ts";
import type { BackupRecord, RepositoryState } from "../log/state.ts";
import type { CopiedState } from "./copy-backup.ts";
import { BackupCopier } from "./copy-backup.ts";
import type { CopySide } from "./copy-side.ts";
import {
  backupsToHold,
  callOf,
  copyStateOf,
  isUndoneElsewhere,
  mustBeSitesOfOne,
} from "./copy-side.ts";
import type { PackArrived, PackTransfer } from "./transfer-pack.ts";
import { localTransfer } from "./transfer-pack.ts";

/** How a copy is done. */
export type CopyOptions = {
  /** Ids; all that the source lists, and those it has pinned, unless given. */
  readonly backups?: readonly string[];
  readonly operation: string;
  /** Packs on their way at once, unless `transfer` is given. */
  readonly concurrency: number;
  /** Every object is read from the target and compared. */
  readonly readBack: boolean;
  /** A `keep` is committed when so much was sent since the last one. */
  readonly keepEveryBytes: number;
  /** The birth (at the target) under which nodes may have sent packs already. */
  readonly sentUnder?: number;
  /** Who carries packs; this process unless given. */
  readonly transfer?: PackTransfer;
  /** Brings back what the target has forgotten, of `backups`; "site": if it did so by itself. */
  readonly override?: boolean | "site";
  readonly onProgress?: (progress: CopyProgress) => void;
  readonly signal?: AbortSignal | undefined;
};

/** How far a copy has come. */
export type CopyProgress = {
  /** The one that is copied now. */
  readonly backup: { readonly id: string; readonly name: string };
  readonly backupsDone: number;
  readonly backupsTotal: number;
  /** Packs that lie at the target now, and did not before. */
  readonly packs: number;
  readonly bytes: number;
};

/** What became of one backup. */
export type CopiedBackup = {
  readonly id: string;
  readonly name: string;
  readonly state: CopiedState | "failed";
  /** Why it failed: the source is damaged. */
  readonly error?: AppErrorJson;
};

/** What a copy did. */
export type CopyReport = {
  readonly backups: readonly CopiedBackup[];
  /** Backups that were forgotten at the target, because they were forgotten for all sites. */
  readonly forgotten: readonly string[];
  readonly packs: number;
  readonly bytes: number;
  /** Of the packs: those that somebody had sent already. */
  readonly packsFound: number;
};

/**
 * Copies backups to another site, oldest first. A backup that the source does not give whole is
 * reported as failed, and the others are copied; whatever else goes wrong ends the copy.
 *
 * @example
 * const report = await copyBackups(from, to, { operation, concurrency: 4, readBack: true, … });
 */
export async function copyBackups(
  from: CopySide,
  to: CopySide,
  options: CopyOptions,
): Promise<CopyReport> {
  const { operation, concurrency, onProgress, signal } = options;
  mustBeSitesOfOne(from, to);
  await from.repository.catchUp(signal);
  await to.repository.catchUp(signal);
  const forgotten = await forgetForAll(from, to, options);
  const wanted = chooseBackups(from.repository.state, options.backups);
  const total = { packs: 0, bytes: 0, packsFound: 0 };
  const backups: CopiedBackup[] = [];
  let now: Pick<BackupRecord, "backup" | "name"> = { backup: "", name: "" };
  const report = (): void =>
    onProgress?.({
      backup: { id: now.backup, name: now.name },
      backupsDone: backups.length,
      backupsTotal: wanted.length,
      packs: total.packs,
      bytes: total.bytes,
    });
  const onArrived = (arrived: readonly PackArrived[]): void => {
    total.packs += arrived.length;
    total.bytes += arrived.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    total.packsFound += arrived.filter(({ isSent }) => !isSent).length;
    report();
  };
  const sites = [from.repository.site, to.repository.site] as const;
  const copier = new BackupCopier({
    from,
    to,
    operation,
    transfer:
      options.transfer ?? localTransfer(...sites, { concurrency, sealer: to.repository.sealer }),
    readBack: options.readBack,
    keepEveryBytes: options.keepEveryBytes,
    sentUnder: options.sentUnder,
    onArrived,
    signal,
  });
  for (const record of wanted) {
    now = record;
    report();
    backups.push(await copyOne(copier, record, options));
  }
  await endKeep(to, options);
  return { backups, forgotten, ...total };
}

/** The backups to copy, oldest first; one that is asked for and is not there is AppError `not-found`. */
export function chooseBackups(
  state: RepositoryState,
  ids: readonly string[] | undefined,
): BackupRecord[] {
  const all = backupsToHold(state);
  if (ids === undefined) return all;
  const known = new Set(all.map(({ backup }) => backup));
  const missing = ids.find((id) => !known.has(id));
  if (missing === undefined) return all.filter(({ backup }) => ids.includes(backup));
  throw new AppError("not-found", `There is no backup ${missing} to copy.`, {
    guidance: "`astacus list` shows what there is; a forgotten backup must be listed again first.",
    context: { backup: missing },
  });
}

/** A forget that the source has, for all sites, and the target does not. */
export type ForgetToCarry = { readonly backup: string; readonly reason: string } & {
  readonly origin: ForgetRef;
};

/**
 * Which forgets for all sites the target is still to get: of what it lists, unless that is pinned or
 * has undone this very forget; and of what it never had, so that no third site brings it there.
 */
export function forgottenForAll(from: RepositoryState, to: RepositoryState): ForgetToCarry[] {
  const all: ForgetToCarry[] = Array.from(from.buried, ([backup, origin]) => {
    return { backup, reason: "deleted by name", origin };
  });
  for (const { backup, forgotten } of from.backups.values()) {
    if (forgotten?.scope === "all") all.push({ backup, ...forgotten });
  }
  return all.filter(({ backup, origin }) => {
    if (!to.everIds.has(backup)) return true;
    if (copyStateOf(to, backup) !== "there" || isPinned(to, backup)) return false;
    return !hasUndone(to.backups.get(backup), origin);
  });
}

/** Ids of what is forgotten now and was listed. */
async function forgetForAll(
  from: CopySide,
  to: CopySide,
  { operation, signal }: CopyOptions,
): Promise<string[]> {
  const done: string[] = [];
  const { repository } = to;
  for (const { backup, reason, origin } of forgottenForAll(
    from.repository.state,
    repository.state,
  )) {
    const isListed = repository.state.everIds.has(backup);
    const how = { reason, scope: "all", origin, operation, signal } as const;
    try {
      await forgetBackups(repository, { backups: [backup], ...how });
      if (isListed) done.push(backup);
    } catch (thrown) {
      // Pinned or deleted since we looked.
      const left = forgottenForAll(from.repository.state, repository.state);
      const isLeft = left.some((one) => one.backup === backup);
      if (isLeft || !(thrown instanceof AppError)) throw thrown;
    }
  }
  return done;
}

async function copyOne(
  copier: BackupCopier,
  { backup: id, name }: BackupRecord,
  options: Pick<CopyOptions, "backups" | "override">,
): Promise<CopiedBackup> {
  const asked = options.backups !== undefined && (options.override ?? false);
  // Decided again whenever one of the sites has moved on.
  const override = (from: RepositoryState, to: RepositoryState): boolean =>
    asked === true ||
    (asked === "site" && to.backups.get(id)?.forgotten?.scope === "site") ||
    isUndoneElsewhere(from, to, id);
  try {
    return { id, name, state: await copier.copy(id, { override }) };
  } catch (thrown) {
    if (!(thrown instanceof AppError) || thrown.kind !== "damaged") throw thrown;
    return { id, name, state: "failed", error: thrown.toJSON() };
  }
}

/** A keep of ours that no backup has ended: what it holds is of no use. */
async function endKeep(to: CopySide, { operation, signal }: CopyOptions): Promise<void> {
  if (!to.repository.state.keeps.has(operation)) return;
  await to.repository.commit(
    ({ keeps }) =>
      keeps.has(operation) ? { kind: "drop", body: { keeps: [operation], pins: [] } } : undefined,
    { operation, ...callOf(signal) },
  );
}
