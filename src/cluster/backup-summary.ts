/**
 * Backups as people and programs see them: one row for a list, one page for a single backup. Made
 * from the replayed log and, for the page, from the manifest; no request to the site for a list.
 */
import type { Manifest } from "../cas/format/manifest.ts";
import { readManifest } from "../cas/format/manifest.ts";
import { isSealedFor } from "../cas/keys/frame-opener.ts";
import { findBackup } from "../cas/log/find-backup.ts";
import type { Repository } from "../cas/log/repository.ts";
import type { RetentionPolicy } from "../cas/clean/retention.ts";
import { planRetention } from "../cas/clean/retention.ts";
import type { BackupRecord, RepositoryState } from "../cas/log/state.ts";
import { byStart, isPinned, listedBackups } from "../cas/log/state.ts";

/**
 * Where a backup stands at a site: read whole and right, listed, to come, or not meant to be there.
 */
export type PlaceState = "verified" | "acknowledged" | "lagging" | "-";

/** One row of `list`. */
export type BackupSummary = {
  readonly id: string;
  readonly name: string;
  readonly cluster: string;
  readonly product: string;
  readonly started: string;
  readonly ended: string;
  readonly complete: boolean;
  /** Complete, with fewer copies of the data than there should be. */
  readonly degraded: boolean;
  readonly nodes: readonly string[];
  readonly files: number;
  readonly bytes: number;
  readonly newBytes: number;
  readonly storedBytes: number;
  readonly problemCount: number;
  readonly pinned: boolean;
  readonly forgotten?: { readonly time: string; readonly reason: string };
  /** What retention would do now, and why. */
  readonly keep: boolean;
  readonly reasons: readonly string[];
  readonly sequence: number;
  /** The site that it is read from. */
  readonly site: string;
  /** What each site has of it, by name. */
  readonly sites: Readonly<Record<string, PlaceState>>;
  /** When all that it needs was last read whole there, and was right; ISO. */
  readonly provedAt?: string;
};

/** One backup, whole. */
export type BackupDetail = BackupSummary & {
  readonly shares: Manifest["nodes"];
  readonly problems: Manifest["problems"];
  readonly state: Manifest["state"];
  /** Why it is not the primary that was read. */
  readonly notice?: string;
  /** Encrypted, and nobody here can open it: what the log says is all there is. */
  readonly closed?: true;
};

type SummaryOptions = {
  readonly retention: RetentionPolicy;
  readonly site: string;
  readonly forgotten: boolean;
};

/** Rows for a list, oldest first. */
export function summarize(state: RepositoryState, options: SummaryOptions): BackupSummary[] {
  const listed = listedBackups(state);
  const verdicts = new Map(
    planRetention(
      listed.map((backup) => ({
        id: backup.backup,
        name: backup.name,
        cluster: backup.cluster,
        startMs: Date.parse(backup.started),
        endMs: Date.parse(backup.ended),
        complete: backup.complete,
        pinned: isPinned(state, backup.backup),
        sequence: backup.sequence,
      })),
      options.retention,
    ).map((verdict) => [verdict.id, verdict]),
  );
  const shown = options.forgotten ? [...state.backups.values()] : listed;
  return shown
    .toSorted(byStart)
    .map((backup) => rowOf(state, backup, verdicts.get(backup.backup), options.site));
}

/** One backup by name or id, listed or forgotten. */
export async function detailOf(
  repository: Repository,
  wanted: string,
  options: {
    readonly retention: RetentionPolicy;
    readonly cluster?: string;
    readonly site: string;
    /** In place of reading it from the repository's site. */
    readonly readManifest?: (backup: BackupRecord) => Promise<Manifest>;
  },
): Promise<BackupDetail> {
  const state = repository.state;
  const backup = findBackup(state, wanted, options.cluster, { forgotten: true });
  const row = summarize(state, { ...options, forgotten: true }).find(
    (candidate) => candidate.id === backup.backup,
  )!;
  const manifest = await orClosed(
    options.readManifest?.(backup) ??
      readManifest(repository.site, backup, undefined, repository.openerFor()),
  );
  if (manifest === undefined) return { ...row, shares: [], problems: [], state: {}, closed: true };
  return { ...row, shares: manifest.nodes, problems: manifest.problems, state: manifest.state };
}

/** The manifest; undefined if it is encrypted, and nobody here has an identity that opens it. */
async function orClosed(reading: Promise<Manifest>): Promise<Manifest | undefined> {
  try {
    return await reading;
  } catch (thrown) {
    if (isSealedFor(thrown)) return undefined;
    throw thrown;
  }
}

function rowOf(
  state: RepositoryState,
  backup: BackupRecord,
  verdict: { readonly keep: boolean; readonly reasons: readonly string[] } | undefined,
  site: string,
): BackupSummary {
  const forgotten = backup.forgotten;
  return {
    id: backup.backup,
    name: backup.name,
    cluster: backup.cluster,
    product: backup.product,
    started: backup.started,
    ended: backup.ended,
    complete: backup.complete,
    degraded: backup.degraded === true,
    nodes: backup.lists.map((list) => list.node),
    files: backup.totals.files,
    bytes: backup.totals.bytes,
    newBytes: backup.totals.newBytes,
    storedBytes: backup.totals.storedBytes,
    problemCount: backup.problems,
    pinned: isPinned(state, backup.backup),
    ...(forgotten === undefined
      ? {}
      : { forgotten: { time: forgotten.time, reason: forgotten.reason } }),
    keep: verdict?.keep ?? false,
    reasons: verdict?.reasons ?? ["forgotten: `astacus undelete` brings it back"],
    sequence: backup.sequence,
    site,
    sites: { [site]: forgotten === undefined ? "acknowledged" : "-" },
  };
}
