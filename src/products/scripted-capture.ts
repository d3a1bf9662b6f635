/**
 * The toy's capture: hard links of its logs, its newest complete snapshot and its complete filesets,
 * in the order in which the toy itself moves records (log, snapshot, fileset). A record that leaves
 * a group before that group is linked is found in a later one, so nothing acknowledged before the
 * capture can be missing. What vanishes between list and link means that it was superseded: the
 * capture begins again. Filesets that are stored already are captured by their stat alone.
 */
import { z } from "zod";
import type { FileStat, FileSystem } from "../base/doors.ts";
import { AppError } from "../base/error.ts";
import { joinPath } from "../base/path.ts";
import type { FileNature, Problem, VolumeSource, WalkEntry } from "../cas/write/volume-source.ts";
import type { Json, NodePhaseContext } from "./product.ts";
import { checkpointOf, hasSum, judgeSum, TOY_CHECK } from "./scripted-checksum.ts";
import { readText, replaceText } from "./scripted-registry.ts";

/** The toy's folders below its root, in the order of capture; also the names of the volumes. */
export const TOY_GROUPS = ["logs", "snapshots", "filesets"] as const;

/** One of the toy's folders. */
export type ToyGroup = (typeof TOY_GROUPS)[number];

const CHECKPOINT_SUFFIX = ".checkpoint";
const DATA_SUFFIX = ".data";
const LOG_SUFFIX = ".log";

/** A stat as JSON. */
const statSchema = z.strictObject({
  type: z.literal("file"),
  sizeBytes: z.int(),
  mode: z.int(),
  uid: z.int(),
  gid: z.int(),
  linkCount: z.int(),
  allocatedBytes: z.int().exactOptional(),
  mtimeNs: z.coerce.bigint(),
  ctimeNs: z.coerce.bigint(),
  birthtimeNs: z.coerce.bigint(),
  inode: z.coerce.bigint(),
  device: z.coerce.bigint(),
});

const capturedSchema = z.strictObject({
  /** Sizes at the time of the link: logs grow on. */
  logs: z.record(z.string(), z.int().min(0)),
  snapshots: z.array(z.string()),
  filesets: z.array(z.string()),
  /** Of `filesets` those that were not linked, as they were then. */
  stored: z.record(z.string(), statSchema),
});

/** What was captured, by name. */
export type Captured = z.infer<typeof capturedSchema>;

/** True for files that say: all that I speak for is there. */
export function isCheckpoint(path: string): boolean {
  return path.endsWith(CHECKPOINT_SUFFIX);
}

/** Links everything aside; begins again, `tries` times at most, when something is superseded. */
export function capture(root: string, tries: number, context: NodePhaseContext): Json {
  const { files } = context.doors;
  for (let attempt = 1; attempt <= tries; attempt += 1) {
    context.signal.throwIfAborted();
    dropCapture(context);
    try {
      const captured = captureOnce(root, context);
      const text = JSON.stringify(captured, (_, value: unknown) =>
        typeof value === "bigint" ? value.toString() : value,
      );
      replaceText(files, joinPath(context.scratch, "captured.json"), text);
      const { logs, snapshots, filesets, stored } = captured;
      const storedCount = Object.keys(stored).length;
      return { logs, snapshots, filesets, stored: storedCount, tries: attempt };
    } catch (thrown) {
      if (!(thrown instanceof AppError) || thrown.kind !== "not-found") throw thrown;
      context.say(`Superseded while capturing (try ${attempt}): ${thrown.message}`);
    }
  }
  throw new AppError("incomplete", `The toy would not hold still for ${tries} tries.`, {
    guidance: "Run the backup again when the toy makes fewer snapshots.",
    retryable: true,
  });
}

/** Removes the links of this operation; fine if there are none. */
export function dropCapture(context: NodePhaseContext): void {
  const { files } = context.doors;
  for (const group of TOY_GROUPS) {
    const folder = joinPath(context.scratch, group);
    if (files.lstat(folder) === undefined) continue;
    for (const name of files.readDirectory(folder)) files.unlink(joinPath(folder, name));
    files.removeDirectory(folder);
  }
  const note = joinPath(context.scratch, "captured.json");
  if (files.lstat(note) !== undefined) files.unlink(note);
}

/** The captured files as volumes that are read at the links and named as in the toy's folders. */
export function capturedVolumes(root: string, context: NodePhaseContext): VolumeSource[] {
  const { files } = context.doors;
  const text = readText(files, joinPath(context.scratch, "captured.json"));
  const captured = capturedSchema.parse(JSON.parse(text));
  return TOY_GROUPS.map((group) => {
    const problems: Problem[] = [];
    const placeOf = (path: string): string => {
      const isLinked = group !== "filesets" || captured.stored[path] === undefined;
      return joinPath(joinPath(isLinked ? context.scratch : root, group), path);
    };
    return {
      name: group,
      root: joinPath(root, group),
      entries: entriesOf(files, { captured, group, placeOf }),
      nature: (): FileNature => (group === "logs" ? "append-only" : "immutable"),
      // Links come and go, and each changes the ctime.
      ctimeCounts: false,
      onUnreadable: "fail",
      check: (path) => (hasSum(path) ? TOY_CHECK : undefined),
      checked: (path, sum) => {
        const problem = judgeSum(files, placeOf(checkpointOf(path)), { path, sum });
        if (problem !== undefined) problems.push(problem);
      },
      problems: () => problems,
    };
  });
}

function captureOnce(root: string, context: NodePhaseContext): Captured {
  const { files } = context.doors;
  const captured: Captured = { logs: {}, snapshots: [], filesets: [], stored: {} };
  for (const group of TOY_GROUPS) files.makeDirectory(joinPath(context.scratch, group));
  const link = (group: ToyGroup, name: string): string => {
    const created = joinPath(joinPath(context.scratch, group), name);
    files.link(joinPath(joinPath(root, group), name), created);
    return created;
  };
  for (const name of listNames(files, root, "logs").filter((one) => one.endsWith(LOG_SUFFIX))) {
    const stat = files.lstat(link("logs", name));
    captured.logs[name] = stat?.sizeBytes ?? 0;
  }
  const newest = completeSets(listNames(files, root, "snapshots")).at(-1);
  captured.snapshots = newest === undefined ? [] : filesOfSet(newest);
  for (const name of captured.snapshots) link("snapshots", name);
  captured.filesets = completeSets(listNames(files, root, "filesets")).flatMap(filesOfSet);
  for (const name of captured.filesets) {
    const stat = storedStat(joinPath(joinPath(root, "filesets"), name), name, context);
    if (stat === undefined) link("filesets", name);
    else captured.stored[name] = stat;
  }
  return captured;
}

/** The stat of a fileset's file that need not be linked. */
function storedStat(
  path: string,
  name: string,
  { doors, isStored }: NodePhaseContext,
): Captured["stored"][string] | undefined {
  if (isStored === undefined) return undefined;
  const stat = doors.files.lstat(path);
  if (stat?.type !== "file" || !isStored("filesets", name, stat)) return undefined;
  return { ...stat, type: "file" };
}

function* entriesOf(
  files: FileSystem,
  from: {
    readonly captured: Captured;
    readonly group: ToyGroup;
    readonly placeOf: (path: string) => string;
  },
): Generator<WalkEntry> {
  const { captured, group, placeOf } = from;
  const names = group === "logs" ? Object.keys(captured.logs) : captured[group];
  for (const path of names.toSorted()) {
    const readPath = placeOf(path);
    const known: FileStat | undefined = group === "filesets" ? captured.stored[path] : undefined;
    const stat = known ?? files.lstat(readPath);
    if (stat === undefined) continue;
    const sizeBytesCaptured = group === "logs" ? captured.logs[path] : undefined;
    yield {
      path,
      stat,
      readPath,
      ...(sizeBytesCaptured === undefined ? {} : { sizeBytesCaptured }),
    };
  }
}

function listNames(files: FileSystem, root: string, group: ToyGroup): string[] {
  return files.readDirectory(joinPath(root, group)).toSorted();
}

/** Sets (`0007`) whose checkpoint is there, oldest first. */
function completeSets(names: readonly string[]): string[] {
  return names.filter(isCheckpoint).map((name) => name.slice(0, -CHECKPOINT_SUFFIX.length));
}

function filesOfSet(set: string): string[] {
  return [`${set}${CHECKPOINT_SUFFIX}`, `${set}${DATA_SUFFIX}`];
}
