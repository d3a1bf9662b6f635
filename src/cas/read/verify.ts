/**
 * Verification: is everything there that the log promises, and with `deep` is every byte what it
 * was? It never stops at the first fault; each problem names its object and what it hits. Only a
 * site that cannot be asked ends it. Packs are checked once for all backups. Memory: an entry for
 * each pack, the bitmaps of one backup, and with `deep` a few packs.
 */
import type { ChunkSource } from "./chunk-source.ts";
import type { Repository } from "../log/repository.ts";
import type { BackupRecord } from "../log/state.ts";
import { listedBackups } from "../log/state.ts";
import type { VerifiedBackup } from "./verify-backup.ts";
import { verifyOneBackup } from "./verify-backup.ts";
import { verifyLog } from "./verify-log.ts";
import { PackChecks } from "./verify-packs.ts";
import type { VerifyProblem } from "./verify-problems.ts";
import { ProblemBook } from "./verify-problems.ts";

/** How far a verification has come. */
export type VerifyProgress = {
  /** Of backups' listings, each backup's counted. */
  readonly files: number;
  readonly filesTotal: number;
  readonly bytes: number;
  readonly bytesTotal: number;
  /** Bytes of objects that were read. */
  readonly readBytes: number;
};

/** What to verify, and how. */
export type VerifyOptions = {
  readonly repository: Repository;
  readonly source: Pick<ChunkSource, "fetch"> & Partial<Pick<ChunkSource, "opener">>;
  /** Reads every byte of every pack; else sizes are asked for, and trees read. */
  readonly deep: boolean;
  readonly onProgress?: (progress: VerifyProgress) => void;
  /** Told of each pack that is missing or damaged, however many a report names. */
  readonly onBadPack?: (pack: string) => void;
  readonly signal?: AbortSignal | undefined;
};

/** What was found. */
export type VerifyReport = {
  readonly ok: boolean;
  readonly deep: boolean;
  readonly backups: readonly VerifiedBackup[];
  readonly packs: number;
  /** Sizes of these packs. */
  readonly packBytes: number;
  /** Frames that were checked and not opened: no identity was given. */
  readonly closedFrames?: number;
  readonly segments: number;
  /** Log entries that were read. */
  readonly entries: number;
  readonly readBytes: number;
  /** At most a thousand; all of them are counted. */
  readonly problems: readonly VerifyProblem[];
  readonly problemCount: number;
  /** Shares that the product proved by the database's own checksums. */
  readonly sharesProved?: number;
  /** Packs that backups do not rely on from now on, where a server has looked. */
  readonly distrusted?: number;
};

/**
 * Verifies one backup.
 *
 * @example
 * const report = await verifyBackup({ repository, source, backup, deep: true, signal });
 * for (const problem of report.problems) console.error(problem.object, problem.message);
 */
export async function verifyBackup(
  options: VerifyOptions & { readonly backup: BackupRecord },
): Promise<VerifyReport> {
  return await verifyRepository({ ...options, backups: [options.backup] });
}

/** Verifies the log, the index and all listed backups, or those that are named. */
export async function verifyRepository(
  options: VerifyOptions & { readonly backups?: readonly BackupRecord[] },
): Promise<VerifyReport> {
  const { repository, source, deep, onProgress, signal } = options;
  // One state for all: what is committed meanwhile is for the next verification.
  const { state } = repository;
  const backups = options.backups ?? listedBackups(state);
  const problems = new ProblemBook();
  const progress = {
    files: 0,
    filesTotal: backups.reduce((sum, { totals }) => sum + totals.files, 0),
    bytes: 0,
    bytesTotal: backups.reduce((sum, { totals }) => sum + totals.bytes, 0),
    readBytes: 0,
  };
  const onRead = (sizeBytes: number): void => {
    progress.readBytes += sizeBytes;
    onProgress?.({ ...progress });
  };
  const onFiles = (files: number, bytes: number): void => {
    progress.files += files;
    progress.bytes += bytes;
    onProgress?.({ ...progress });
  };
  const entries = await verifyLog({ repository, state, deep, problems, onRead, signal });
  const { site, index } = repository;
  const { opener } = source;
  const packs = new PackChecks({
    site,
    index,
    deep,
    problems,
    onRead,
    opener,
    onBad: options.onBadPack,
  });
  const verified: VerifiedBackup[] = [];
  for (const backup of backups) {
    const shared = { repository, state, source, packs, problems, onFiles, signal };
    verified.push(await verifyOneBackup(backup, shared));
  }
  return {
    ok: problems.count === 0,
    deep,
    backups: verified,
    packs: packs.count,
    packBytes: packs.packBytes,
    ...(packs.closedFrames === 0 ? {} : { closedFrames: packs.closedFrames }),
    segments: state.segments.size,
    entries,
    readBytes: progress.readBytes,
    problems: problems.list(),
    problemCount: problems.count,
  };
}
