/**
 * The product for plain files: a tree on each node, read where it lies. No captures: a file that
 * changes while it is read is read again, and named in the backup's problems if it will not hold
 * still. The simplest product there can be; start here to write another.
 */
import picomatch from "picomatch";
import { AppError, toAppError } from "../base/error.ts";
import { joinPath, pathFromText, textFromPath } from "../base/path.ts";
import type { FileNature, Problem, VolumeSource } from "../cas/write/volume-source.ts";
import { walkVolume } from "../cas/write/walk.ts";
import type { FilesConfig } from "./files-config.ts";
import type {
  NodePhaseContext,
  Phase,
  PhaseContext,
  Product,
  ProductCheck,
  RestoreTarget,
} from "./product.ts";

/** Plain files under one root. */
export function createFilesProduct(config: FilesConfig): Product {
  const root = config.root;
  const backupPhases: readonly Phase[] = [{ on: "core", name: "store" }];
  const restorePhases: readonly Phase[] = [{ on: "core", name: "place" }];
  return {
    kind: "files",
    backupPhases,
    restorePhases,
    volumes: (context) => [volumeOf(config, context)],
    targets: (): readonly RestoreTarget[] => [{ volume: config.volume, root, extra: "keep" }],
    completeness: (context, present) => {
      const absent = context.nodes.filter((node) => !present.includes(node.name));
      const problems = absent.map((node) => `node ${node.name} stored nothing`);
      return { complete: problems.length === 0, problems };
    },
    check: (context) => checkRoot(root, context),
  };
}

function volumeOf(config: FilesConfig, context: NodePhaseContext): VolumeSource {
  const { files } = context.doors;
  mustBeDirectory(config.root, context);
  const problems: Problem[] = [];
  return {
    name: config.volume,
    root: config.root,
    entries: walkVolume({
      files,
      root: config.root,
      ...(config.include === undefined ? {} : { include: config.include }),
      ...(config.exclude === undefined ? {} : { exclude: config.exclude }),
      onProblem: (problem) => problems.push(problem),
      signal: context.signal,
    }),
    nature: natureOf(config),
    ctimeCounts: true,
    onUnreadable: config.unreadable,
    problems: () => problems,
  };
}

function natureOf(config: FilesConfig): (path: string) => FileNature {
  const immutable = matcher(config.immutable);
  const appendOnly = matcher(config.appendOnly);
  return (path) => (immutable(path) ? "immutable" : appendOnly(path) ? "append-only" : "plain");
}

function matcher(globs: readonly string[] | undefined): (path: string) => boolean {
  if (globs === undefined || globs.length === 0) return () => false;
  return picomatch(globs.map(pathFromText), { dot: true });
}

function mustBeDirectory(root: string, context: PhaseContext): void {
  const stat = context.doors.files.lstat(root);
  if (stat?.type === "directory") return;
  const what = stat === undefined ? "does not exist" : `is a ${stat.type}`;
  throw new AppError("not-found", `The root ${textFromPath(root)} ${what}.`, {
    guidance: "Mend product.root in the configuration, or mount the file system.",
  });
}

/** Tries to list, to write and to link where restores will. */
function checkRoot(root: string, context: PhaseContext): readonly ProductCheck[] {
  const { files, random } = context.doors;
  const what = `root ${textFromPath(root)}`;
  const tryIt = (action: string, attempt: () => void): ProductCheck => {
    try {
      attempt();
      return { what, ok: true, message: `can ${action}` };
    } catch (thrown) {
      const error = toAppError(thrown);
      const advice = error.guidance === undefined ? {} : { guidance: error.guidance };
      return { what, ok: false, message: `cannot ${action}: ${error.message}`, ...advice };
    }
  };
  const probe = joinPath(root, `.astacus-check-${Buffer.from(random.bytes(6)).toString("hex")}`);
  const linked = `${probe}-link`;
  const checks = [
    tryIt("be read", () => {
      mustBeDirectory(root, context);
      files.readDirectory(root);
    }),
    tryIt("be written (restores need it)", () => files.close(files.open(probe, "create"))),
    tryIt("hold hard links", () => files.link(probe, linked)),
  ];
  for (const path of [linked, probe]) {
    if (files.lstat(path) !== undefined) tryIt("be cleaned up", () => files.unlink(path));
  }
  return checks;
}
