/**
 * Captures of a toy M3 that runs on meanwhile: between any two file operations of a capture the toy
 * does some of its own. Beside Astacus' own capture there are two that are wrong in ways in which
 * others are: they must lose points, or the test could not tell.
 */
import type { FileSystem } from "../../src/base/doors.ts";
import { AppError, toAppError } from "../../src/base/error.ts";
import { makeFolders } from "../../src/base/folders.ts";
import { joinPath, parentPath } from "../../src/base/path.ts";
import { LogCuts } from "../../src/products/m3/capture-logs.ts";
import { captureM3 } from "../../src/products/m3/capture.ts";
import { readSmallFile } from "../../src/products/m3/small-file.ts";
import { newestCompleteSnapshot } from "../../src/products/m3/snapshot-metadata.ts";
import type { Json } from "../../src/products/product.ts";
import { namesOf } from "./toy-m3-disk.ts";

/** What a capture left in its scratch folder, laid out as M3's own. */
export type CaptureResult = {
  /** How much of each log belongs to it, by name; all of a log that is not named. */
  readonly logSizes: ReadonlyMap<string, number>;
  readonly tries: number;
  /** What the capture says of itself, where it does; for the verifier. */
  readonly note?: Json;
};

/** A way to capture; `files` lets the toy run between its calls. */
export type Capture = (
  files: FileSystem,
  root: string,
  scratch: string,
) => CaptureResult | Promise<CaptureResult>;

/** As many as the default of the configuration. */
const TRIES_MAX = 10;

const TREES = ["commitlogs", "snapshots", "data", "index"] as const;

/** A door that calls `before` before each call. */
export function interleaved(files: FileSystem, before: () => void): FileSystem {
  return new Proxy(files, {
    get(target, property: keyof FileSystem) {
      const method: unknown = Reflect.get(target, property, target);
      if (typeof method !== "function") return method;
      return (...parameters: unknown[]): unknown => {
        before();
        return Reflect.apply(method, target, parameters);
      };
    },
  });
}

/** Astacus' own. */
export async function captureInOrder(
  files: FileSystem,
  root: string,
  scratch: string,
): Promise<CaptureResult> {
  const captured = await captureM3({
    files,
    root,
    scratch,
    triesMax: TRIES_MAX,
    cuts: new LogCuts(),
    say: () => undefined,
    pause: () => Promise.resolve(),
    signal: new AbortController().signal,
  });
  const { logs, tries } = captured;
  return {
    note: captured,
    tries,
    logSizes: new Map(logs.map(({ name, sizeBytes }) => [name, sizeBytes])),
  };
}

/** Lists everything, and links it then; what has vanished is passed over. */
export function captureListedFirst(
  files: FileSystem,
  root: string,
  scratch: string,
): CaptureResult {
  const paths = TREES.flatMap((tree) => [...walk(files, root, tree)]);
  waitAsForLargeTree(files, root);
  for (const path of paths) linkIfThere(files, joinPath(root, path), joinPath(scratch, path));
  return { logSizes: new Map(), tries: 1 };
}

/** Each tree is listed and linked at once, against the direction in which M3 moves data. */
export function captureAgainstFlow(
  files: FileSystem,
  root: string,
  scratch: string,
): CaptureResult {
  for (const tree of TREES.toReversed()) {
    waitAsForLargeTree(files, root);
    for (const path of walk(files, root, tree)) {
      linkIfThere(files, joinPath(root, path), joinPath(scratch, path));
    }
  }
  return { logSizes: new Map(), tries: 1 };
}

/** In order, but a snapshot that is superseded meanwhile is passed over instead of begun again. */
export function captureWithoutAgain(
  files: FileSystem,
  root: string,
  scratch: string,
): CaptureResult {
  const chosen = newestCompleteSnapshot(files, joinPath(root, "snapshots"));
  waitAsForLargeTree(files, root);
  for (const tree of TREES) {
    for (const path of walk(files, root, tree)) {
      const isOther = path.includes("-metadata") && !path.includes(chosen?.uuid ?? "none");
      if (!isOther) linkIfThere(files, joinPath(root, path), joinPath(scratch, path));
    }
  }
  return { logSizes: new Map(), tries: 1 };
}

/** Reading a large tree takes M3's time for a few snapshots. */
function waitAsForLargeTree(files: FileSystem, root: string): void {
  for (let count = 0; count < 200; count += 1) files.lstat(root);
}

function* walk(files: FileSystem, root: string, folder: string): Generator<string> {
  const path = joinPath(root, folder);
  for (const name of namesOf(files, path).toSorted()) {
    const child = joinPath(folder, name);
    if (name.endsWith(".db")) yield child;
    else yield* walk(files, root, child);
  }
}

function linkIfThere(files: FileSystem, existing: string, created: string): void {
  makeFolders(files, parentPath(created));
  try {
    files.link(existing, created);
  } catch (thrown) {
    const error = toAppError(thrown);
    if (!(error instanceof AppError) || error.kind !== "not-found") throw thrown;
  }
}

/** Everything that a capture holds, as its share of a backup would. */
export function shareFilesOf(
  files: FileSystem,
  scratch: string,
  logSizes: ReadonlyMap<string, number>,
): Map<string, Uint8Array> {
  const share = new Map<string, Uint8Array>();
  for (const path of TREES.flatMap((tree) => [...walk(files, scratch, tree)])) {
    const bytes = readSmallFile(files, joinPath(scratch, path));
    share.set(path, bytes.subarray(0, logSizes.get(path.replace("commitlogs/", ""))));
  }
  return share;
}
