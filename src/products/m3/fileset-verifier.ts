/**
 * Proves the filesets of a stored volume one after the other: files come ascending by path, so those
 * of a fileset follow each other, and the volumes of a block as well. A fileset that lacks parts is
 * no problem if another volume of its block is whole and newer: M3 was deleting it.
 */
import { parentPath } from "../../base/path.ts";
import type { Problem } from "../../cas/write/volume-source.ts";
import type { StoredFile, StoredVolumeReader } from "../share-verifier.ts";
import { adler32 } from "./adler32.ts";
import { contradiction, parseDigests } from "./fileset-judge.ts";
import type { FilesetKind } from "./fileset-judge.ts";
import {
  filesetPartKey,
  missingDataParts,
  missingIndexParts,
  parseFilesetName,
} from "./fileset-names.ts";
import type { FilesetName } from "./fileset-names.ts";
import { parseCheckpoint } from "./fileset.ts";
import type { FilesetDigests } from "./fileset.ts";
import { adler32Of, readStored } from "./stored-file.ts";

type StoredFileset = {
  readonly folder: string;
  readonly name: FilesetName;
  /** By part. */
  readonly files: Map<string, StoredFile>;
};

type Unfinished = { readonly volume: number; readonly problem: Problem };

/** Problems of all filesets of a volume; other files are passed over. */
export async function* verifyFilesets(
  volume: StoredVolumeReader,
  { kind, signal }: { readonly kind: FilesetKind; readonly signal: AbortSignal },
): AsyncGenerator<Problem> {
  let block = "";
  let newestWhole = -1;
  let unfinished: Unfinished[] = [];
  for await (const fileset of filesetsOf(volume)) {
    signal.throwIfAborted();
    const { folder, name } = fileset;
    if (block !== `${folder}/${name.blockStartNs}`) {
      yield* openProblems(unfinished, newestWhole);
      block = `${folder}/${name.blockStartNs}`;
      newestWhole = -1;
      unfinished = [];
    }
    const lacking = lackingParts(kind, fileset.files);
    if (lacking.length === 0) {
      newestWhole = Math.max(newestWhole, name.volume);
      yield* verifyFileset(fileset, { kind, volume: volume.name });
      continue;
    }
    const first = fileset.files.values().next().value;
    const path = `${volume.name}/${first?.path ?? folder}`;
    const message = `Its fileset lacks ${lacking.join(", ")}: M3 cannot read the block from it.`;
    unfinished.push({ volume: name.volume, problem: { path, kind: "damaged", message } });
  }
  yield* openProblems(unfinished, newestWhole);
}

function* openProblems(unfinished: readonly Unfinished[], newestWhole: number): Generator<Problem> {
  for (const { volume, problem } of unfinished) if (volume > newestWhole) yield problem;
}

async function* filesetsOf(volume: StoredVolumeReader): AsyncGenerator<StoredFileset> {
  let current: StoredFileset | undefined;
  for await (const file of volume.files()) {
    const name = parseFilesetName(file.path.slice(file.path.lastIndexOf("/") + 1));
    if (name === undefined) continue;
    const folder = parentPath(file.path);
    const isSame =
      current?.folder === folder &&
      current.name.blockStartNs === name.blockStartNs &&
      current.name.volume === name.volume &&
      current.name.isLegacy === name.isLegacy;
    if (!isSame) {
      if (current !== undefined) yield current;
      current = { folder, name, files: new Map() };
    }
    current?.files.set(filesetPartKey(name), file);
  }
  if (current !== undefined) yield current;
}

function lackingParts(kind: FilesetKind, names: ReadonlyMap<string, unknown>): string[] {
  const fileset = { names: new Map([...names.keys()].map((key) => [key, key])) };
  return kind === "data" ? missingDataParts(fileset) : missingIndexParts(fileset);
}

async function* verifyFileset(
  { files }: StoredFileset,
  of: { readonly kind: FilesetKind; readonly volume: string },
): AsyncGenerator<Problem> {
  const problemAt = (file: StoredFile | undefined, message: string): Problem => ({
    path: `${of.volume}/${file?.path ?? ""}`,
    kind: "damaged",
    message,
  });
  const digestFile = files.get("digest");
  const checkpointFile = files.get("checkpoint");
  if (digestFile === undefined || checkpointFile === undefined) return;
  const digest = await readStored(digestFile);
  const sum = parseCheckpoint(await readStored(checkpointFile));
  if (sum === undefined) {
    yield problemAt(checkpointFile, "The checkpoint is not whole: M3 ignores this fileset.");
    return;
  }
  const digests = adler32(digest) === sum ? parseDigests(of.kind, digest) : undefined;
  if (digests === undefined) {
    yield problemAt(
      digestFile,
      "The digest file contradicts its checkpoint: M3 ignores this fileset.",
    );
    return;
  }
  for (const { part, file, expected } of expectedFiles(digests, files)) {
    if (file === undefined) {
      yield problemAt(digestFile, `The digest file names ${part}, which is missing.`);
      continue;
    }
    const found = await adler32Of(file);
    if (found !== expected) yield problemAt(file, contradiction(found, expected));
  }
}

function expectedFiles(digests: FilesetDigests, files: ReadonlyMap<string, StoredFile>) {
  return [...digests].map(([part, expected]) => ({ part, expected, file: files.get(part) }));
}
