/**
 * Holds a node's files still by hard links, in the order in which Folio moves documents: log, then
 * segment. What leaves the logs before they are linked lies in a sealed segment by then, and segments
 * are linked later: nothing that was acknowledged before the capture began is missing.
 */
import type { FileSystem } from "../../../src/base/doors.ts";
import { AppError } from "../../../src/base/error.ts";
import { joinPath } from "../../../src/base/path.ts";
import type { Problem, VolumeSource } from "../../../src/cas/write/volume-source.ts";
import { walkVolume } from "../../../src/cas/write/walk.ts";
import type { Json, NodePhaseContext } from "../../../src/products/product.ts";
import { readText } from "../../../src/products/scripted-registry.ts";
import { docsOf, isDocs, isSeal, judgeDocs, sealOf } from "./folio-seal.ts";

/** Folio's folders, in the order of capture; also the names of the volumes. */
export const FOLIO_VOLUMES = ["wal", "segments"] as const;

const CAPTURE_TRIES_MAX = 20;

/** Links all that belongs to a backup into the scratch folder; may be run again from its start. */
export function captureFolio(root: string, context: NodePhaseContext): Json {
  const logs = linkLogs(root, context);
  const segmentFiles = linkSegments(root, context);
  return { logs, segmentFiles };
}

/** A log that vanishes was sealed into a segment, which is linked after the logs. */
function linkLogs(root: string, { doors: { files }, scratch }: NodePhaseContext): number {
  const links = emptyFolder(files, joinPath(scratch, "wal"));
  const folder = joinPath(root, "wal");
  const names = files.readDirectory(folder).filter((name) => name.endsWith(".wal"));
  return names.filter((name) => isLinked(files, joinPath(folder, name), joinPath(links, name)))
    .length;
}

/** Segments that vanish were merged into one that is sealed: it is found by listing again. */
function linkSegments(root: string, context: NodePhaseContext): number {
  const { files } = context.doors;
  const folder = joinPath(root, "segments");
  for (let tries = 1; tries <= CAPTURE_TRIES_MAX; tries += 1) {
    context.signal.throwIfAborted();
    const links = emptyFolder(files, joinPath(context.scratch, "segments"));
    const seals = files.readDirectory(folder).filter(isSeal);
    const names = seals.flatMap((seal) => [docsOf(seal), seal]);
    if (names.every((name) => isLinked(files, joinPath(folder, name), joinPath(links, name)))) {
      return names.length;
    }
    context.say(`Folio merged segments during the capture (try ${tries}): again.`);
  }
  throw new AppError("incomplete", "Folio merges segments faster than they can be linked.", {
    guidance: "Run the backup again when Folio merges less.",
    retryable: true,
  });
}

/** The links as volumes, named and placed as Folio has them. */
export function capturedVolumes(root: string, context: NodePhaseContext): VolumeSource[] {
  const { files } = context.doors;
  return FOLIO_VOLUMES.map((name) => {
    const links = joinPath(context.scratch, name);
    const problems: Problem[] = [];
    const onProblem = (problem: Problem): void => void problems.push(problem);
    return {
      name,
      root: joinPath(root, name),
      entries: walkVolume({ files, root: links, onProblem, signal: context.signal }),
      nature: () => (name === "wal" ? "append-only" : "immutable"),
      // Links come and go, and each changes the ctime.
      ctimeCounts: false,
      onUnreadable: "fail",
      check: (path) => (isDocs(path) ? "adler32" : undefined),
      checked: (path, sum) => {
        const problem = judgeDocs(path, sum, readText(files, joinPath(links, sealOf(path))));
        if (problem !== undefined) problems.push(problem);
      },
      problems: () => problems,
    };
  });
}

/** False if the file is gone. */
function isLinked(files: FileSystem, path: string, link: string): boolean {
  try {
    files.link(path, link);
    return true;
  } catch (thrown) {
    if (thrown instanceof AppError && thrown.kind === "not-found") return false;
    throw thrown;
  }
}

/** The folder, empty: what an earlier try left in it goes. */
function emptyFolder(files: FileSystem, path: string): string {
  if (files.lstat(path) === undefined) files.makeDirectory(path, 0o700);
  for (const name of files.readDirectory(path)) files.unlink(joinPath(path, name));
  return path;
}
