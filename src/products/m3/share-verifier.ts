/**
 * Proves a node's share of an M3 backup in the repository, without a database: each fileset is whole
 * and as its digests say, the newest snapshot's metadata match their checkpoint, and the commit logs
 * from that snapshot on are all there, chunk by chunk. Memory: the files of one fileset and a line
 * for each commit log.
 */
import { z } from "zod";
import { AppError } from "../../base/error.ts";
import type { Problem } from "../../cas/write/volume-source.ts";
import type {
  ShareVerifier,
  StoredFile,
  StoredVolumeReader,
  VerifiableShare,
} from "../share-verifier.ts";
import { CommitLogCheck, commitLogProblem } from "./commit-log-check.ts";
import {
  parseCommitLogName,
  parseSnapshotMetadataName,
  snapshotMetadataNames,
} from "./fileset-names.ts";
import type { FilesetKind } from "./fileset-judge.ts";
import { verifyFilesets } from "./fileset-verifier.ts";
import { parseSnapshotMetadata } from "./snapshot-metadata.ts";
import type { SnapshotMetadata } from "./snapshot-metadata.ts";
import { readStored } from "./stored-file.ts";

/** What the capture wrote down, as far as it is held against the share; other fields are its own. */
const captureSchema = z.looseObject({
  snapshot: z.looseObject({ index: z.int(), uuid: z.string() }).nullish(),
  logs: z.array(z.looseObject({ name: z.string(), sizeBytes: z.int() })).default([]),
  droppedLogs: z.array(z.string()).default([]),
  logGaps: z.array(z.int()).default([]),
});
const capturesSchema = z.record(z.string(), captureSchema);

type CaptureNote = z.infer<typeof captureSchema>;

/** How many missing logs are named one by one. */
const MISSING_COUNT_MAX = 100;

/** Reads all of a share once, commit logs first. */
export const verifyM3Share: ShareVerifier = async function* verifyM3Share(share) {
  const note = captureOf(share);
  const volumes = new Map(share.volumes.map((volume) => [volume.name, volume]));
  const logs = new Map<number, string>();
  const commitLogs = volumes.get("commitlogs");
  if (commitLogs === undefined) yield missing("commitlogs", "The share has no commit logs.");
  else yield* verifyLogs(commitLogs, { share, note, logs });
  const snapshots = volumes.get("snapshots");
  const newest: { snapshot?: SnapshotMetadata } = {};
  if (snapshots !== undefined) yield* verifyMetadata(snapshots, newest);
  yield* verifySnapshotNote(note, newest.snapshot);
  yield* verifyContinuity(logs, { note, from: newest.snapshot?.commitLog.index });
  for (const [name, kind] of FILESET_VOLUMES) {
    const volume = volumes.get(name);
    if (volume === undefined) continue;
    yield* verifyFilesets(volume, { kind, signal: share.signal });
  }
};

const FILESET_VOLUMES: readonly (readonly [string, FilesetKind])[] = [
  ["snapshots", "data"],
  ["data", "data"],
  ["index", "index"],
];

function captureOf({ state, node }: VerifiableShare): CaptureNote | undefined {
  const parsed = capturesSchema.safeParse(state["captures"]);
  return parsed.success ? parsed.data[node] : undefined;
}

async function* verifyLogs(
  volume: StoredVolumeReader,
  of: {
    readonly share: VerifiableShare;
    readonly note: CaptureNote | undefined;
    /** Filled: names by index. */
    readonly logs: Map<number, string>;
  },
): AsyncGenerator<Problem> {
  const sizes = new Map<string, number>();
  for await (const file of volume.files()) {
    of.share.signal.throwIfAborted();
    sizes.set(file.path, file.sizeBytes);
    const name = parseCommitLogName(file.path);
    if (name === undefined) continue;
    of.logs.set(name.index, file.path);
    const message = await judgeLog(file);
    if (message !== undefined) yield damaged(`commitlogs/${file.path}`, message);
  }
  for (const { name, sizeBytes } of of.note?.logs ?? []) {
    const found = sizes.get(name);
    if (found === sizeBytes) continue;
    const message =
      found === undefined
        ? "The capture took this log, and the share lacks it."
        : `The capture took ${sizeBytes} bytes of this log, and the share has ${found}.`;
    yield damaged(`commitlogs/${name}`, message);
  }
}

async function judgeLog(file: StoredFile): Promise<string | undefined> {
  const check = new CommitLogCheck({ offset: 0, verifiedBytes: 0 });
  for await (const bytes of file.read({})) check.update(bytes);
  const finding = check.finish();
  const problem = commitLogProblem(finding);
  if (problem !== undefined || finding.endsAt === finding.sizeBytes) return problem;
  return `It ends inside a chunk: ${finding.sizeBytes - finding.endsAt} bytes too many.`;
}

/** Finds the newest complete snapshot; metadata that contradict their checkpoint are named. */
async function* verifyMetadata(
  volume: StoredVolumeReader,
  newest: { snapshot?: SnapshotMetadata },
): AsyncGenerator<Problem> {
  const small = new Map<string, Uint8Array>();
  for await (const file of volume.files("snapshot-")) {
    if (parseSnapshotMetadataName(file.path) === undefined) continue;
    small.set(file.path, await readStored(file));
  }
  for (const [name, metadata] of small) {
    const parsed = parseSnapshotMetadataName(name);
    if (parsed === undefined || parsed.isCheckpoint) continue;
    const path = `snapshots/${name}`;
    const checkpoint = small.get(snapshotMetadataNames(parsed).checkpoint);
    if (checkpoint === undefined) {
      yield damaged(path, "Its checkpoint is missing: M3 ignores this snapshot.");
      continue;
    }
    try {
      const snapshot = parseSnapshotMetadata(name, metadata, checkpoint);
      if (snapshot.index > (newest.snapshot?.index ?? -1)) newest.snapshot = snapshot;
    } catch (thrown) {
      if (!(thrown instanceof AppError) || thrown.kind !== "damaged") throw thrown;
      yield damaged(path, thrown.message);
    }
  }
}

function* verifySnapshotNote(
  note: CaptureNote | undefined,
  found: SnapshotMetadata | undefined,
): Generator<Problem> {
  const wanted = note?.snapshot;
  if (wanted === null || wanted === undefined || wanted.uuid === found?.uuid) return;
  const { metadata } = snapshotMetadataNames(wanted);
  yield missing(
    `snapshots/${metadata}`,
    "The capture took this snapshot, and the share does not have it complete.",
  );
}

/**
 * From the snapshot's index to the newest log none may be missing, but for those that M3 itself did
 * not have: after a kill it deletes logs in which it had not written anything yet.
 */
function* verifyContinuity(
  logs: ReadonlyMap<number, string>,
  { note, from }: { readonly note: CaptureNote | undefined; readonly from: number | undefined },
): Generator<Problem> {
  const indexes = [...logs.keys()].toSorted((one, other) => one - other);
  const first = from ?? indexes[0];
  const last = indexes.at(-1);
  if (first === undefined || last === undefined) return;
  const excused = new Set([
    ...(note?.logGaps ?? []),
    ...(note?.droppedLogs ?? []).map((name) => parseCommitLogName(name)?.index),
  ]);
  let count = 0;
  for (let index = first; index < last && count < MISSING_COUNT_MAX; index += 1) {
    if (logs.has(index) || excused.has(index)) continue;
    count += 1;
    yield missing(
      `commitlogs/commitlog-0-${index}.db`,
      `A commit log between ${first}, from which the snapshot needs them, and ${last} is missing.`,
    );
  }
}

function damaged(path: string, message: string): Problem {
  return { path, kind: "damaged", message };
}

function missing(path: string, message: string): Problem {
  return { path, kind: "vanished", message };
}
