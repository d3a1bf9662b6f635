/**
 * The captured files of a node as volumes: read at their links, named as in M3's folders, and held
 * against M3's own checksums in the same pass. What a capture only noted is taken from its stat.
 */
import type { FileSystem } from "../../base/doors.ts";
import { toAppError } from "../../base/error.ts";
import { joinPath } from "../../base/path.ts";
import type { Finding } from "../../cas/write/content-check.ts";
import type { Problem, VolumeSource, WalkEntry } from "../../cas/write/volume-source.ts";
import { readCaptureList } from "./capture-list.ts";
import { captureListPath, M3_VOLUMES } from "./capture-options.ts";
import type { M3Volume } from "./capture-options.ts";
import type { CapturedLog } from "./capture-logs.ts";
import { commitLogProblem } from "./commit-log-check.ts";
import type { CommitLogFinding } from "./commit-log-check.ts";
import { FilesetJudge } from "./fileset-judge.ts";
import { readSmallFile } from "./small-file.ts";

/** What was captured, and where. */
export type CapturedFiles = {
  readonly files: FileSystem;
  /** M3's `filePathPrefix`. */
  readonly root: string;
  /** The folder of the links and lists. */
  readonly scratch: string;
  /** Commit logs as the capture found them, where that is known. */
  readonly logs?: readonly CapturedLog[];
};

/** Problems beyond these are counted by their files alone. */
const PROBLEM_COUNT_MAX = 100_000;

/** All volumes of a capture, in the order in which they are stored. */
export function capturedM3Volumes(captured: CapturedFiles): VolumeSource[] {
  return M3_VOLUMES.map((volume) =>
    volume === "commitlogs" ? logVolume(captured) : filesetVolume(captured, volume),
  );
}

function logVolume(captured: CapturedFiles): VolumeSource {
  const problems: Problem[] = damagedTails(captured.logs ?? []);
  return {
    ...volumeOf(captured, "commitlogs"),
    nature: () => "append-only",
    check: () => "m3-commit-log",
    checked: (path, finding) => {
      const message = commitLogProblem(finding as CommitLogFinding);
      if (message !== undefined) problems.push({ path, kind: "damaged", message });
    },
    // What headers and data both tell is told once.
    problems: () => [...new Map(problems.map((problem) => [problem.path, problem])).values()],
  };
}

/** Known from the walk over the headers, also of a log whose bytes are in the repository already. */
function damagedTails(logs: readonly CapturedLog[]): Problem[] {
  return logs
    .filter(({ tail }) => tail === "damaged")
    .map(({ name }) => ({
      path: name,
      kind: "damaged",
      message: "A chunk's header contradicts its checksum; M3 reads this log only up to there.",
    }));
}

function filesetVolume(captured: CapturedFiles, volume: Exclude<M3Volume, "commitlogs">) {
  const judge = new FilesetJudge(volume === "index" ? "index" : "data", (path) =>
    readCaptured(captured, volume, path),
  );
  const problems: Problem[] = [];
  return {
    ...volumeOf(captured, volume),
    nature: () => "immutable" as const,
    check: () => "adler32",
    checked: (path: string, finding: Finding) => {
      if (problems.length >= PROBLEM_COUNT_MAX) return;
      problems.push(...judge.judge(path, finding as number));
    },
    problems: () => problems,
  };
}

function volumeOf(captured: CapturedFiles, volume: M3Volume) {
  return {
    name: volume,
    root: joinPath(captured.root, volume),
    entries: entriesOf(captured, volume),
    // Links come and go, and each changes the ctime.
    ctimeCounts: false,
    onUnreadable: "fail" as const,
  };
}

function* entriesOf(captured: CapturedFiles, volume: M3Volume): Generator<WalkEntry> {
  const { files, root, scratch } = captured;
  const links = joinPath(scratch, volume);
  const originals = joinPath(root, volume);
  for (const entry of readCaptureList(files, captureListPath(scratch, volume))) {
    const { path, stat, isLinked, sizeBytesCaptured } = entry;
    yield {
      path,
      stat,
      readPath: joinPath(isLinked ? links : originals, path),
      ...(sizeBytesCaptured === undefined ? {} : { sizeBytesCaptured }),
    };
  }
}

/** A small file at its link, or where M3 has it; undefined if it is gone. */
function readCaptured(
  { files, root, scratch }: CapturedFiles,
  volume: M3Volume,
  path: string,
): Uint8Array | undefined {
  for (const base of [joinPath(scratch, volume), joinPath(root, volume)]) {
    try {
      return readSmallFile(files, joinPath(base, path));
    } catch (thrown) {
      if (toAppError(thrown).kind !== "not-found") throw thrown;
    }
  }
  return undefined;
}
