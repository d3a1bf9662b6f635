/**
 * Backups straight from a site: no server, no cluster, no catalog. Lists, shows, verifies, and puts
 * files into a folder, on any machine that has the configuration. What the site does not give comes
 * from the others of the configuration. Reads only: nothing is written to a site, and the temporary
 * catalogs go with the reader.
 */
import type { Doors } from "../base/doors.ts";
import { AppError } from "../base/error.ts";
import { makeFolders } from "../base/folders.ts";
import { joinPath } from "../base/path.ts";
import type { BackupArchive, BackupArchiveRequest } from "../cas/read/archive-backup.ts";
import { archiveBackup } from "../cas/read/archive-backup.ts";
import { Catalog } from "../cas/catalog/catalog.ts";
import type { ChunkSource } from "../cas/read/chunk-source.ts";
import { findBackup } from "../cas/log/find-backup.ts";
import type { BackupRecord, RepositoryState } from "../cas/log/state.ts";
import { newestComplete } from "../cas/log/state.ts";
import type { Manifest } from "../cas/format/manifest.ts";
import type { NodeEncryption } from "./member-config.ts";
import { Repository } from "../cas/log/repository.ts";
import type { OpenLanes } from "../cas/read/restore-lanes.ts";
import { nothingMatches } from "../cas/read/file-filter.ts";
import { planVolumeRestore, runVolumeRestore } from "../cas/read/restore.ts";
import type { RestorePlan, RestoreResult } from "../cas/read/restore-options.ts";
import type { RetentionPolicy } from "../cas/clean/retention.ts";
import { verifyRepository } from "../cas/read/verify.ts";
import type { Site } from "../sites/site.ts";
import type { BackupDetail, BackupSummary } from "./backup-summary.ts";
import { detailOf, summarize } from "./backup-summary.ts";
import { OtherSites } from "./offline-sites.ts";
import type { OtherSite } from "./offline-sites.ts";
import { ReadFaults } from "./read-faults.ts";
import { SiteSources } from "./site-sources.ts";
import type { SourceHow, SourceSite } from "./site-sources.ts";
import { verifyShares } from "./verify-shares.ts";

/** What the reader is told. */
export type OfflineOptions = {
  readonly site: Site;
  /** Where to go on with what the site does not give. */
  readonly others?: readonly OtherSite[];
  readonly doors: Pick<Doors, "clock" | "random" | "files" | "databases">;
  /** An empty folder for the temporary catalog; its owner removes it. */
  readonly tempFolder: string;
  readonly cluster: string;
  readonly retention: RetentionPolicy;
  readonly concurrency: number;
  /** The threads of a restore; in this one unless told. */
  readonly openLanes?: OpenLanes;
  /** Where the repository is encrypted. */
  readonly encryption?: NodeEncryption | undefined;
  readonly signal?: AbortSignal;
};

/** What to put where. */
export type OfflineRestore = {
  /** Name or id; the newest complete one of the cluster by default. */
  readonly backup?: string;
  /** Shares of these nodes only. */
  readonly nodes?: readonly string[];
  readonly paths?: readonly string[];
  /** Absolute; each volume goes to `target/NODE/VOLUME`. */
  readonly target: string;
  readonly ownerPolicy: "recorded" | "parent" | "none";
  readonly incomplete?: boolean;
};

/** One volume of a restore, with what would be done or was done. */
export type OfflineVolume<Outcome> = {
  readonly node: string;
  readonly volume: string;
  readonly target: string;
  readonly outcome: Outcome;
};

/** What such a restore would do. */
export type OfflinePlan = {
  readonly backup: {
    readonly id: string;
    readonly name: string;
    readonly complete: boolean;
    readonly degraded: boolean;
  };
  readonly volumes: readonly OfflineVolume<RestorePlan>[];
  readonly refusals: readonly string[];
  /** Why it is not the primary that was read. */
  readonly notice?: string;
};

/** What it did. */
export type OfflineRestored = {
  readonly backup: OfflinePlan["backup"];
  readonly volumes: readonly OfflineVolume<RestoreResult>[];
};

type Share = {
  readonly node: string;
  readonly volume: Manifest["nodes"][number]["volumes"][number];
};

/** What a log calls the primary, where that is another site than its own. */
export function primaryElsewhere({
  roles,
  siteId,
}: Pick<RepositoryState, "roles" | "siteId">): string | undefined {
  if (roles === undefined || roles.primary === siteId) return undefined;
  return roles.sites.find(({ site }) => site === roles.primary)?.name;
}

/** What a log calls its own site; `site` where nobody has said what it is. */
export function roleHere({ roles, siteId }: Pick<RepositoryState, "roles" | "siteId">): string {
  return roles?.sites.find(({ site }) => site === siteId)?.role ?? "site";
}

/** Opens the repository of a site for reading. */
export async function openOffline(options: OfflineOptions): Promise<Offline> {
  const { site, doors, tempFolder, signal } = options;
  const catalog = Catalog.open(doors.databases, joinPath(tempFolder, "catalog.sqlite"));
  try {
    const repository = await Repository.open({
      site,
      catalog,
      doors,
      node: "offline",
      readOnly: true,
      encryption: options.encryption,
      ...(signal === undefined ? {} : { signal }),
    });
    return new Offline(options, repository, catalog);
  } catch (thrown) {
    catalog[Symbol.dispose]();
    throw thrown;
  }
}

/** A reader of one site; see the file's header. */
export class Offline implements Disposable {
  /** What sites did not give as they should have. */
  readonly faults = new ReadFaults();
  readonly #options: OfflineOptions;
  readonly #repository: Repository;
  readonly #catalog: Catalog;
  readonly #others: OtherSites;
  readonly #sources: SiteSources;

  constructor(options: OfflineOptions, repository: Repository, catalog: Catalog) {
    this.#options = options;
    this.#repository = repository;
    this.#catalog = catalog;
    const { others = [], doors, encryption } = options;
    const { repository: id } = repository.header;
    this.#others = new OtherSites({ ...options, others, repository: id });
    this.#sources = new SiteSources({
      clock: doors.clock,
      concurrency: options.concurrency,
      identities: encryption?.identities,
      faults: this.faults,
      next: others.length === 0 ? undefined : (used) => this.#others.next(used),
    });
  }

  /** What the site is, as its log says; `site` where nobody has said so. */
  get role(): string {
    return roleHere(this.#repository.state);
  }

  /** What the log calls the primary, where that is another site. */
  get primaryElsewhere(): string | undefined {
    return primaryElsewhere(this.#repository.state);
  }

  /** All backups of the site, of every cluster, oldest first. */
  listBackups(how: { readonly forgotten: boolean }): BackupSummary[] {
    const { retention, site } = this.#options;
    return summarize(this.#repository.state, { retention, site: site.name, ...how });
  }

  /** One backup, whole. */
  async showBackup(wanted: string): Promise<BackupDetail> {
    const { retention, cluster, site } = this.#options;
    return await detailOf(this.#repository, wanted, {
      retention,
      cluster,
      site: site.name,
      readManifest: (backup) => this.#readManifest(backup),
    });
  }

  /** Verifies one backup, or all. */
  async verify(how: {
    readonly backup?: string;
    readonly deep: boolean;
    readonly onProgress?: (progress: object) => void;
  }): ReturnType<typeof verifyRepository> {
    const { state } = this.#repository;
    const { cluster, signal } = this.#options;
    // What is wrong at this site must show.
    const source = this.#openSource({ alone: true });
    const backup =
      how.backup === undefined
        ? undefined
        : findBackup(state, how.backup, cluster, { forgotten: true });
    const report = await verifyRepository({
      repository: this.#repository,
      source,
      deep: how.deep,
      ...(backup === undefined ? {} : { backups: [backup] }),
      ...(signal === undefined ? {} : { signal }),
      onProgress: (progress: object) => how.onProgress?.(progress),
    });
    return await verifyShares(report, {
      repository: this.#repository,
      source,
      backup: backup ?? newestComplete(state, cluster),
      signal,
      onNode: (node) => how.onProgress?.({ phase: `checksums of ${node}` }),
    });
  }

  /** What `restoreTo` would do; touches nothing. */
  async planRestoreTo(request: OfflineRestore): Promise<OfflinePlan> {
    const { backup, shares } = await this.#choose(request);
    const source = this.#openSource();
    const volumes: OfflineVolume<RestorePlan>[] = [];
    for (const share of shares) {
      const target = targetOf(request, share);
      const outcome = await planVolumeRestore(this.#restoreOptions(request, share, source));
      volumes.push({ node: share.node, volume: share.volume.name, target, outcome });
    }
    const refusals = volumes.flatMap((volume) =>
      volume.outcome.refusals.map((refusal) => `${volume.node}/${volume.volume}: ${refusal}`),
    );
    const { paths = [] } = request;
    const isNothing = volumes.every(({ outcome }) => {
      const { files, directories, symlinks, hardlinks } = outcome;
      return files + directories + symlinks + hardlinks === 0;
    });
    if (paths.length > 0 && isNothing) refusals.push(nothingMatches(paths));
    return { backup, volumes, refusals };
  }

  /** Puts a backup's files into a folder. */
  async restoreTo(
    request: OfflineRestore,
    onProgress: (progress: {
      files: number;
      bytes: number;
      bytesTotal?: number;
    }) => void = () => {},
  ): Promise<OfflineRestored> {
    const { backup, shares } = await this.#choose(request);
    const sum = shares.reduce((total, share) => total + share.volume.bytes, 0);
    // How much of it a filter lets through is not known before.
    const total = (request.paths ?? []).length === 0 ? { bytesTotal: sum } : {};
    const before = { files: 0, bytes: 0 };
    const source = this.#openSource();
    const { openLanes } = this.#options;
    const volumes: OfflineVolume<RestoreResult>[] = [];
    for (const share of shares) {
      const target = targetOf(request, share);
      makeFolders(this.#options.doors.files, target, 0o755);
      const outcome = await runVolumeRestore({
        ...this.#restoreOptions(request, share, source),
        random: this.#options.doors.random,
        ...(openLanes === undefined ? {} : { openLanes }),
        onProgress: ({ files, bytes }) =>
          onProgress({ files: before.files + files, bytes: before.bytes + bytes, ...total }),
      });
      before.files += outcome.filesWritten + outcome.filesKept;
      before.bytes += outcome.bytesWritten + outcome.bytesKept;
      volumes.push({ node: share.node, volume: share.volume.name, target, outcome });
    }
    return { backup, volumes };
  }

  /** A backup's files as one archive. */
  async archive(request: BackupArchiveRequest): Promise<BackupArchive> {
    const { cluster, signal } = this.#options;
    const source = this.#openSource();
    const readManifest = (backup: BackupRecord): Promise<Manifest> => this.#readManifest(backup);
    const parts = { repository: this.#repository, source, readManifest, cluster };
    return await archiveBackup(request, parts, signal);
  }

  [Symbol.dispose](): void {
    this.#others[Symbol.dispose]();
    this.#catalog[Symbol.dispose]();
  }

  async #readManifest(backup: BackupRecord): Promise<Manifest> {
    return await this.#sources.readManifest(this.#here, backup, this.#options.signal);
  }

  get #here(): SourceSite {
    return { name: this.#options.site.name, repository: this.#repository };
  }

  async #choose(request: OfflineRestore): Promise<{
    readonly backup: OfflinePlan["backup"];
    readonly shares: readonly Share[];
  }> {
    const record = findBackup(this.#repository.state, request.backup, this.#options.cluster, {
      forgotten: true,
    });
    if (!record.complete && request.incomplete !== true) {
      throw new AppError("refused", `Backup ${record.name} is marked incomplete.`, {
        guidance: "`astacus show` lists its problems; --incomplete restores what it has.",
        context: { reason: "backup-incomplete", problems: record.problems },
      });
    }
    const manifest = await this.#readManifest(record);
    for (const name of request.nodes ?? []) mustHaveNode(manifest, name);
    const shares = manifest.nodes
      .toSorted((a, b) => (a.name < b.name ? -1 : 1))
      .filter((node) => request.nodes === undefined || request.nodes.includes(node.name))
      .flatMap((node) => node.volumes.map((volume) => ({ node: node.name, volume })));
    const { backup: id, name, complete, degraded = false } = record;
    return { backup: { id, name, complete, degraded }, shares };
  }

  #restoreOptions(request: OfflineRestore, share: Share, source: ChunkSource) {
    const { doors, signal } = this.#options;
    return {
      listing: share.volume.listing,
      source,
      files: doors.files,
      target: targetOf(request, share),
      filter: request.paths ?? [],
      ownerPolicy: request.ownerPolicy,
      extra: "keep",
      ...(signal === undefined ? {} : { signal }),
    } as const;
  }

  #openSource(how?: SourceHow): ChunkSource {
    return this.#sources.open(this.#here, how);
  }
}

/** Names come from a manifest: one that is not a plain name must not lead out of the target. */
function targetOf(request: OfflineRestore, share: Share): string {
  for (const name of [share.node, share.volume.name]) {
    if (/^\.{0,2}$|[/\0]/.test(name)) {
      throw new AppError("refused", `The backup has a node or volume called ${name}.`, {
        guidance: "It was not made by this program; look into it with `astacus show`.",
      });
    }
  }
  return joinPath(joinPath(request.target, share.node), share.volume.name);
}

function mustHaveNode(manifest: Manifest, name: string): void {
  if (manifest.nodes.some((node) => node.name === name)) return;
  const known = manifest.nodes.map((node) => node.name).join(", ");
  throw new AppError("not-found", `The backup has no node ${name}.`, {
    guidance: `Its nodes are ${known}.`,
  });
}
