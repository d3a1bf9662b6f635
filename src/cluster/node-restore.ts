/**
 * A node's share of a restore: what would be done (plan), and doing it (place). Both read the same
 * manifest and walk the same listings; the plan touches nothing.
 */
import { AppError } from "../base/error.ts";
import { pathFromText, textFromPath } from "../base/path.ts";
import type { Manifest } from "../cas/format/manifest.ts";
import { RestoredRows } from "../cas/catalog/restored-rows.ts";
import { planVolumeRestore, runVolumeRestore } from "../cas/read/restore.ts";
import type { NodePhaseContext, NodeRestoreChoice, RestoreTarget } from "../products/product.ts";
import type { NodeParts } from "./node-parts.ts";
import type { JsonValue, PhaseEvent, Placed, VolumePlan } from "./protocol.ts";

type Share = {
  readonly volume: Manifest["nodes"][number]["volumes"][number];
  readonly target: RestoreTarget;
};

/** What a restore of `from`'s share onto this node would do, volume by volume. */
export async function planOnNode(
  parts: NodeParts,
  request: NodeRestoreChoice & {
    readonly backup: string;
    readonly from: string;
    readonly identities?: readonly string[];
  },
  signal: AbortSignal,
): Promise<VolumePlan[]> {
  const context = planContext(parts, request, signal);
  const shares = await sharesOf(parts, request, context);
  const plans: VolumePlan[] = [];
  const source = parts.openSource({ identities: request.identities });
  for (const { volume, target } of shares) {
    const plan = await planVolumeRestore({
      listing: volume.listing,
      source,
      files: parts.doors.files,
      target: target.root,
      filter: request.paths,
      ownerPolicy: parts.config.restore.owner,
      extra: request.paths.length === 0 ? target.extra : "keep",
      captureFolders: [parts.config.scratchFolder],
      locate: (ids) => parts.repository.index.findMany(ids).map(([place]) => place),
      pause: () => parts.doors.clock.sleep(0, signal),
      signal,
    });
    const links = plan.symlinks + plan.hardlinks;
    plans.push({
      volume: volume.name,
      target: textFromPath(target.root),
      files: plan.files,
      bytes: plan.bytes,
      filesKept: plan.filesKept,
      bytesKept: plan.bytesKept,
      filesToWrite: plan.filesToWrite,
      bytesToWrite: plan.bytesToWrite,
      bytesToFetch: plan.bytesToFetch,
      directories: plan.directories,
      ...(links === 0 ? {} : { links }),
      extraFiles: plan.extraFiles,
      extraSample: plan.extraSample.map(textFromPath),
      extraRemoved: target.extra === "remove" && request.paths.length === 0,
      refusals: [...plan.refusals],
    });
  }
  return plans;
}

/** Puts `from`'s share in place on this node. */
export async function placeOnNode(
  parts: NodeParts,
  options: {
    readonly input: {
      readonly backup: string;
      readonly from: string;
      readonly paths: readonly string[];
      readonly identities?: readonly string[];
    };
    readonly context: NodePhaseContext;
    readonly emit: (event: PhaseEvent) => void;
    readonly signal: AbortSignal;
  },
): Promise<JsonValue> {
  const { input, signal } = options;
  const shares = await sharesOf(parts, input, options.context);
  const total = { files: 0, bytes: 0 };
  const filesTotal = shares.reduce((sum, share) => sum + share.volume.files, 0);
  const bytesTotal = shares.reduce((sum, share) => sum + share.volume.bytes, 0);
  const placed: Placed = {
    filesWritten: 0,
    bytesWritten: 0,
    filesKept: 0,
    filesRemoved: 0,
    ownersNotSet: 0,
    fetchedBytes: 0,
  };
  const source = parts.openSource({ identities: input.identities });
  for (const { volume, target } of shares) {
    using rows = new RestoredRows(parts.catalog, parts.doors, volume.name);
    const result = await runVolumeRestore({
      listing: volume.listing,
      source,
      files: parts.doors.files,
      random: parts.doors.random,
      target: target.root,
      filter: input.paths,
      ownerPolicy: parts.config.restore.owner,
      extra: input.paths.length === 0 ? target.extra : "keep",
      captureFolders: [parts.config.scratchFolder],
      ...(target.group === undefined ? {} : { restoreOrder: target.group }),
      ...(parts.openLanes === undefined ? {} : { openLanes: parts.openLanes }),
      signal,
      onFile: (record, stat) => rows.add(record, stat),
      pause: () => parts.doors.clock.sleep(0, signal),
      onProgress: (progress) =>
        options.emit({
          files: total.files + progress.files,
          bytes: total.bytes + progress.bytes,
          filesTotal,
          bytesTotal,
        }),
    });
    total.files += volume.files;
    total.bytes += volume.bytes;
    placed.filesWritten += result.filesWritten;
    placed.bytesWritten += result.bytesWritten;
    placed.filesKept += result.filesKept;
    placed.filesRemoved += result.filesRemoved;
    placed.ownersNotSet += result.ownersNotSet;
    placed.fetchedBytes += result.fetchedBytes;
  }
  return { ...placed, faults: parts.sites.faults.take() };
}

async function sharesOf(
  parts: NodeParts,
  request: {
    readonly backup: string;
    readonly from: string;
    readonly identities?: readonly string[];
  },
  context: NodePhaseContext,
): Promise<Share[]> {
  const state = await parts.repository.catchUp(context.signal);
  const backup = state.backups.get(request.backup);
  if (backup === undefined) {
    throw new AppError(
      "not-found",
      `Backup ${request.backup} is not in this repository any more.`,
      {
        guidance: "`astacus list` shows what there is.",
      },
    );
  }
  const manifest = await parts.readManifest(backup, context.signal, request.identities);
  const node = manifest.nodes.find((candidate) => candidate.name === request.from);
  if (node === undefined) {
    throw new AppError("not-found", `Backup ${backup.name} has no node ${request.from}.`, {
      guidance: `Its nodes are ${manifest.nodes.map((one) => one.name).join(", ")}.`,
    });
  }
  const targets = parts.product.targets(context);
  return node.volumes.map((volume) => {
    const target = targets.find((candidate) => candidate.volume === volume.name);
    if (target === undefined) {
      throw new AppError(
        "refused",
        `This node's configuration has no place for volume ${volume.name}.`,
        {
          guidance: `Configure a root for it; in the backup it was ${volume.root}.`,
        },
      );
    }
    return { volume, target: { ...target, root: target.root || pathFromText(volume.root) } };
  });
}

function planContext(
  parts: NodeParts,
  { isPartial, paths, from }: NodeRestoreChoice & { readonly from: string },
  signal: AbortSignal,
): NodePhaseContext {
  const { config, doors } = parts;
  return {
    doors,
    operation: "plan",
    signal,
    say: () => undefined,
    node: config.node,
    zone: config.nodes.find((node) => node.name === config.node)?.zone ?? "",
    scratch: config.scratchFolder,
    input: null,
    restore: { isPartial, paths, from },
  };
}
