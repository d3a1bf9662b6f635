/**
 * Holds an M3 node's files still by hard links, in the order in which M3 moves data: commit log,
 * snapshot, fileset, and the index last, which M3 can build again. Whatever leaves a group before
 * that group is linked has been completed in a later one by then, so nothing that was in the commit
 * log before the capture began can be missing (docs/products/m3.md has the argument, the simulator
 * the proof). Each directory is listed and linked at once; when the snapshot that was chosen is
 * superseded meanwhile, the capture begins again with the newer one.
 *
 * A fileset is immutable: what the store phase will take from its stat alone is only noted, not
 * linked, so an unchanged node costs a listing and a stat a file. Memory: the names of one directory.
 */
import { AppError } from "../../base/error.ts";
import { joinPath, textFromPath } from "../../base/path.ts";
import { LogCapture } from "./capture-logs.ts";
import type { CapturedLog } from "./capture-logs.ts";
import type { CaptureOptions } from "./capture-options.ts";
import { captureTree } from "./capture-tree.ts";
import type { TreeCounts } from "./capture-tree.ts";
import { newestCompleteSnapshot } from "./snapshot-metadata.ts";
import type { SnapshotMetadata } from "./snapshot-metadata.ts";

/** What was captured, in short; plain JSON. */
export type Captured = {
  readonly snapshot: {
    readonly index: number;
    readonly uuid: string;
    readonly logIndex: number;
  } | null;
  readonly logs: readonly CapturedLog[];
  /** Logs without one whole chunk: M3 opens one ahead, and has written nothing into it. */
  readonly droppedLogs: readonly string[];
  /** Indexes between the logs at which M3 keeps no file. */
  readonly logGaps: readonly number[];
  readonly counts: { readonly [volume: string]: TreeCounts };
  /** Shards that have a folder of filesets, by namespace. */
  readonly shards: { readonly [namespace: string]: readonly number[] };
  readonly tries: number;
};

/**
 * Captures one node.
 * @throws AppError `incomplete`, retryable, if M3 moved on `triesMax` times in a row; `not-found` if
 *   there are no M3 files; what the file system throws.
 */
export async function captureM3(options: CaptureOptions): Promise<Captured> {
  mustBeM3Root(options);
  for (let tries = 1; tries <= options.triesMax; tries += 1) {
    options.signal.throwIfAborted();
    const recovery = await captureRecoveryState(options);
    if (recovery === undefined) {
      options.say(`M3 completed a newer snapshot during the capture (try ${tries}): again.`);
      continue;
    }
    const data = await captureTree(options, "data");
    const index = await captureTree(options, "index");
    const { logs, snapshots, snapshot } = recovery;
    return {
      ...logs,
      snapshot:
        snapshot === undefined
          ? null
          : { index: snapshot.index, uuid: snapshot.uuid, logIndex: snapshot.commitLog.index },
      counts: { snapshots, data: data.counts, index: index.counts },
      shards: data.shards,
      tries,
    };
  }
  throw new AppError(
    "incomplete",
    `M3 completed a newer snapshot during each of ${options.triesMax} captures.`,
    {
      guidance:
        "Raise product.captureTries, or let M3 take snapshots less often (`bufferPast`, block size).",
      retryable: true,
    },
  );
}

type RecoveryState = {
  readonly logs: Pick<Captured, "logs" | "droppedLogs" | "logGaps">;
  readonly snapshots: TreeCounts;
  readonly snapshot: SnapshotMetadata | undefined;
};

/**
 * Commit logs and the newest complete snapshot, which belong together; undefined if the snapshot is
 * not the newest any more when all of it is linked. Until then M3 deletes neither its files nor a log
 * from its index on, so all of them were there.
 */
async function captureRecoveryState(options: CaptureOptions): Promise<RecoveryState | undefined> {
  const { files, root } = options;
  const folder = joinPath(root, "snapshots");
  const logs = new LogCapture(options);
  logs.linkFrom(0);
  const snapshot = newestCompleteSnapshot(files, folder);
  const { counts } = await captureTree(options, "snapshots", snapshot);
  logs.linkFrom(snapshot?.commitLog.index ?? 0);
  if (newestCompleteSnapshot(files, folder)?.uuid !== snapshot?.uuid) return undefined;
  return { logs: logs.finish(snapshot?.commitLog.index ?? 0), snapshots: counts, snapshot };
}

function mustBeM3Root({ files, root }: CaptureOptions): void {
  const commitLogs = joinPath(root, "commitlogs");
  if (files.lstat(commitLogs)?.type === "directory") return;
  throw new AppError("not-found", `${textFromPath(root)} holds no \`commitlogs\` of M3.`, {
    guidance:
      "product.root must be M3's `db.filesystem.filePathPrefix`, mounted, and M3 must have run there.",
    context: { path: textFromPath(root) },
  });
}
