/**
 * What the parts of a capture share: the volumes of a node, what a capture works on, and where its
 * lists lie.
 */
import type { FileStat, FileSystem } from "../../base/doors.ts";
import { joinPath } from "../../base/path.ts";

/** The volumes of an M3 node, in the order of capture. */
export const M3_VOLUMES = ["commitlogs", "snapshots", "data", "index"] as const;

/** One of them; also its folder below `filePathPrefix`, and in the scratch folder. */
export type M3Volume = (typeof M3_VOLUMES)[number];

/** What a capture works on. */
export type CaptureOptions = {
  readonly files: FileSystem;
  /** M3's `filePathPrefix`. */
  readonly root: string;
  /** Where the links and the lists go: on the same file system, emptied first. */
  readonly scratch: string;
  readonly triesMax: number;
  /** Where the chunks of each log were found whole before. */
  readonly cuts: CutMemory;
  readonly isStored?: (volume: string, path: string, stat: FileStat) => boolean;
  readonly say: (message: string) => void;
  /** Lets other work of the process have its turn. */
  readonly pause: () => Promise<void>;
  readonly signal: AbortSignal;
};

/** Up to where each log was found whole; kept between captures, lost with the process. */
export interface CutMemory {
  get(stat: FileStat): number;
  set(stat: FileStat, cutBytes: number): void;
}

/** Where the list of a volume lies, which the store phase reads. */
export function captureListPath(scratch: string, volume: M3Volume): string {
  return joinPath(scratch, `${volume}.list`);
}
