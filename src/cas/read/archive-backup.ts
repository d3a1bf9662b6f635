/**
 * An archive of a backup that somebody names: finds the backup, picks the volumes of the wanted
 * nodes, and hands them to archive.ts. Reads the repository only.
 */
import { AppError } from "../../base/error.ts";
import type { Archive, ArchiveFormat } from "./archive.ts";
import { archiveFiles } from "./archive.ts";
import type { ArchiveVolume } from "./archive-entry.ts";
import type { ChunkSource } from "./chunk-source.ts";
import { findBackup } from "../log/find-backup.ts";
import type { Manifest } from "../format/manifest.ts";
import { readManifest } from "../format/manifest.ts";
import type { Repository } from "../log/repository.ts";
import type { BackupRecord } from "../log/state.ts";

/** What somebody asks for. */
export type BackupArchiveRequest = {
  /** Name or id; the newest complete one of the cluster by default. */
  readonly backup?: string;
  readonly format: ArchiveFormat;
  /** Shares of these nodes only. */
  readonly nodes?: readonly string[];
  /** Globs of paths. */
  readonly paths?: readonly string[];
  /** Takes a backup that is marked incomplete, too. */
  readonly incomplete?: boolean;
};

/** An archive and the backup that it is of. */
export type BackupArchive = Archive & {
  readonly backup: { readonly id: string; readonly name: string; readonly complete: boolean };
};

/** Where to read from. */
export type BackupArchiveParts = {
  readonly repository: Pick<Repository, "state" | "site">;
  readonly source: ChunkSource;
  /** In place of reading it from the repository's site. */
  readonly readManifest?: (backup: BackupRecord, signal?: AbortSignal) => Promise<Manifest>;
  readonly cluster: string;
};

/**
 * Promises an archive of a backup; all refusals come from here, before its first byte.
 *
 * @example
 * const archive = await archiveBackup({ backup: "nightly", format: "tar" }, parts, signal);
 */
export async function archiveBackup(
  request: BackupArchiveRequest,
  parts: BackupArchiveParts,
  signal?: AbortSignal,
): Promise<BackupArchive> {
  const { repository, source, cluster } = parts;
  const record = findBackup(repository.state, request.backup, cluster, { forgotten: true });
  const { backup: id, name, complete } = record;
  if (!complete && request.incomplete !== true) {
    throw new AppError("refused", `Backup ${name} is marked incomplete.`, {
      guidance: "`astacus show` lists its problems; --incomplete takes what it has.",
      context: { reason: "backup-incomplete", problems: record.problems },
    });
  }
  const manifest = await (parts.readManifest?.(record, signal) ??
    readManifest(repository.site, record, signal, parts.source.opener));
  const archive = await archiveFiles({
    volumes: chooseVolumes(manifest, request.nodes),
    source,
    format: request.format,
    foldersMtimeNs: BigInt(Date.parse(manifest.ended)) * 1_000_000n,
    ...(request.paths === undefined ? {} : { paths: request.paths }),
    signal,
  });
  return { ...archive, backup: { id, name, complete } };
}

function chooseVolumes(manifest: Manifest, nodes: readonly string[] | undefined): ArchiveVolume[] {
  for (const name of nodes ?? []) {
    if (manifest.nodes.some((node) => node.name === name)) continue;
    throw new AppError("not-found", `The backup has no node ${name}.`, {
      guidance: `Its nodes are ${manifest.nodes.map((node) => node.name).join(", ")}.`,
    });
  }
  return manifest.nodes
    .filter(({ name }) => nodes === undefined || nodes.includes(name))
    .toSorted((one, other) => (one.name < other.name ? -1 : 1))
    .flatMap(({ name, volumes }) =>
      volumes.map(({ name: volume, listing }) => ({ node: name, volume, listing })),
    );
}
