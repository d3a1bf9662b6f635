/**
 * Repacking: frames that are still in use move out of packs that are mostly dead, so that the old
 * packs can go. Frames are copied as stored, never opened, and checked by their checksums. At the
 * entry that commits it the new pack holds every frame of the old ones that the list of a listed or
 * pinned backup uses, and no keep names an old one; the entry retires the old ones. Memory: one new
 * pack and its parts.
 */
import { sha256 } from "../../base/hex.ts";
import { type CommitRules, COMMIT_RULES } from "../write/commit-rules.ts";
import type { IndexedPack } from "../catalog/catalog-index.ts";
import { damagedError } from "../format/bytes.ts";
import {
  encodeSegment,
  segmentFramesOf,
  segmentKey,
  storedDirectoryLength,
} from "../format/index-segment.ts";
import type { SegmentPack } from "../format/index-segment.ts";
import type { FrameRow, PackDirectory, PackKind } from "../format/pack.ts";
import { assemblePack, cutDirectory, decodeDirectory, directoryRange } from "../format/pack.ts";
import {
  encodeDirectory,
  isStoredFrame,
  packIdOf,
  packKey,
  SALT_SIZE_BYTES,
} from "../format/pack.ts";
import { hasFrame } from "../format/pack-list.ts";
import { getNamedPack } from "./pack-standing.ts";
import type { Sealer } from "../format/seal.ts";
import type { Repository } from "../log/repository.ts";
import type { RepositoryState } from "../log/state.ts";
import type { ListUse, UsedPacks } from "./used-packs.ts";

/** A pack that is mostly dead, and how much of it is not. */
export type RepackCandidate = { readonly pack: IndexedPack; readonly usedBytes: number };

/** Old packs whose live frames become one new pack. */
export type RepackGroup = readonly RepackCandidate[];

/** One repack that was committed. */
export type RepackResult = {
  readonly from: number;
  /** Bytes of the old packs that will go. */
  readonly bytesFreed: number;
  readonly bytesMoved: number;
};

/** Packs of which less is in use are repacked. */
export const USED_SHARE_MIN = 0.5;

/** Bytes of a new pack; it may pass this by one frame. */
export const REPACK_SIZE_BYTES = 32 * 1024 * 1024;

/** What one repack needs. */
export type RepackOptions = {
  readonly used: UsedPacks;
  readonly operation: string;
  readonly signal?: AbortSignal | undefined;
  readonly rules?: CommitRules;
};

/** Live packs that are mostly dead, into groups that make a pack each; at most `movedBytesMax`. */
export function planRepacks(
  repository: Repository,
  used: UsedPacks,
  options: { readonly movedBytesMax: number; readonly usedShareMin?: number },
): RepackGroup[] {
  const { movedBytesMax, usedShareMin = USED_SHARE_MIN } = options;
  const groups = new Map<PackKind, RepackCandidate[][]>();
  let movedBytes = 0;
  for (const pack of repository.index.packs()) {
    const use = mostlyDeadUse(repository, used, pack);
    if (use === undefined) continue;
    const usedBytes = bytesOf(pack, use);
    const framesBytes = pack.frames.reduce((sum, { storedLength }) => sum + storedLength, 0);
    if (usedBytes === 0 || usedBytes >= usedShareMin * framesBytes) continue;
    if (movedBytes + usedBytes > movedBytesMax) continue;
    movedBytes += usedBytes;
    const ofKind = groups.get(pack.kind) ?? [];
    groups.set(pack.kind, ofKind);
    const last = ofKind.at(-1);
    const lastBytes = last?.reduce((sum, one) => sum + one.usedBytes, 0) ?? 0;
    if (last === undefined || lastBytes + usedBytes > REPACK_SIZE_BYTES) ofKind.push([]);
    ofKind.at(-1)?.push({ pack, usedBytes });
  }
  return [...groups.values()].flat();
}

/** Moves the live frames of a group, and commits it; undefined if nothing of it holds any more. */
export async function runRepack(
  repository: Repository,
  group: RepackGroup,
  options: RepackOptions,
): Promise<RepackResult | undefined> {
  const { used, operation, signal, rules = COMMIT_RULES } = options;
  const birth = repository.state.sequence;
  const moved = await gatherFrames(repository, group, used, signal);
  if (moved.frames.length === 0) return undefined;
  const made = makePack(moved, operation, repository.sealer);
  await repository.putObject(packKey(made.id, birth), made.bytes, call(signal));
  const pack: SegmentPack = {
    id: made.id,
    birth,
    sizeBytes: made.bytes.length,
    directoryLength: made.directoryLength,
    kind: made.directory.kind,
    frames: segmentFramesOf(made.directory),
  };
  const row = { pack, directory: made.directory };
  const segment = encodeSegment([row], repository.sealer);
  const segmentName = segmentKey(segment.id, birth);
  await repository.putObject(segmentName, segment.bytes, { sha256: segment.id, ...call(signal) });
  const { id, packs, chunks, bytes } = segment;
  const ref = { id, birth, sizeBytes: bytes.length, packs, chunks };
  let from: string[] = [];
  let first = true;
  const result = await repository.commit(
    async (state) => {
      if (birth <= state.floor || state.segments.has(id)) return undefined;
      if (rules.redecide || first) await used.refresh(state, { signal });
      first = false;
      from = group
        .filter(({ pack: old }) => isCovered(repository, state, { old, moved, used, rules }))
        .map(({ pack: old }) => old.id);
      if (from.length === 0) return undefined;
      const body = { from, to: [made.id], segments: [ref] };
      return { kind: "repack", body, births: [birth, birth] };
    },
    { operation, ...call(signal) },
  );
  if (result.outcome !== "won") return undefined;
  const gone = group.filter(({ pack: old }) => from.includes(old.id));
  return {
    from: from.length,
    bytesFreed: gone.reduce((sum, { pack: old }) => sum + old.sizeBytes, 0) - made.bytes.length,
    bytesMoved: made.bytes.length,
  };
}

/** Frames on their way into a new pack. */
type Moved = {
  readonly kind: PackKind;
  readonly frames: FrameRow[];
  readonly stored: Uint8Array[];
  /** Which frames of which pack are among them. */
  readonly of: Map<string, ReadonlySet<number>>;
};

/** How lists use a live pack that may be repacked; undefined for all others. */
function mostlyDeadUse(
  repository: Repository,
  used: UsedPacks,
  pack: IndexedPack,
): Uint8Array | undefined {
  const { state } = repository;
  if (state.retired.has(pack.id)) return undefined;
  const named = getNamedPack(repository, state, pack.id);
  if (named?.birth !== pack.birth || used.isKept(pack.id)) return undefined;
  const use = used.framesOf(pack.id);
  return use === "all" ? undefined : use;
}

/** True if the old pack may go: all that lists use of it was moved, and no keep holds it. */
function isCovered(
  repository: Repository,
  state: RepositoryState,
  at: {
    readonly old: IndexedPack;
    readonly moved: Moved;
    readonly used: UsedPacks;
    readonly rules: CommitRules;
  },
): boolean {
  const { old, moved, used, rules } = at;
  const named = getNamedPack(repository, state, old.id);
  if (named?.birth !== old.birth || state.retired.has(old.id)) return false;
  if (!rules.repackCovers) return true;
  if (used.isKept(old.id)) return false;
  const use = used.framesOf(old.id);
  const of = moved.of.get(old.id);
  if (use === undefined) return of !== undefined;
  return of !== undefined && old.frames.every((_, frame) => !isUsed(use, frame) || of.has(frame));
}

async function gatherFrames(
  repository: Repository,
  group: RepackGroup,
  used: UsedPacks,
  signal: AbortSignal | undefined,
): Promise<Moved> {
  const kind = group[0]?.pack.kind ?? "data";
  const moved: Moved = { kind, frames: [], stored: [], of: new Map() };
  let offset = 0;
  for (const { pack } of group) {
    const use = used.framesOf(pack.id);
    if (use === undefined) continue;
    const directory = await readDirectory(repository, pack, signal);
    const frames = new Set<number>();
    for (const [index, frame] of directory.frames.entries()) {
      if (!isUsed(use, index)) continue;
      const stored = await readStored(repository, pack, frame, signal);
      moved.frames.push({ ...frame, offset });
      moved.stored.push(stored);
      offset += stored.length;
      frames.add(index);
    }
    moved.of.set(pack.id, frames);
  }
  return moved;
}

function makePack(
  moved: Moved,
  operation: string,
  sealer: Sealer,
): {
  readonly id: string;
  readonly bytes: Uint8Array;
  readonly directory: PackDirectory;
  readonly directoryLength: number;
} {
  const { kind, frames } = moved;
  const plain = encodeDirectory({ kind, salt: new Uint8Array(SALT_SIZE_BYTES), frames });
  // The id of the operation is random, so its hash with the contents never comes twice.
  const seed = Buffer.concat([Buffer.from(operation, "latin1"), plain]);
  const directory = { kind, salt: sha256(seed).slice(0, SALT_SIZE_BYTES), frames };
  const directoryBytes = encodeDirectory(directory);
  const pack = assemblePack(Buffer.concat(moved.stored), directoryBytes, sealer);
  return { ...pack, directory, directoryLength: storedDirectoryLength({ ...pack, directory }) };
}

async function readDirectory(
  repository: Repository,
  pack: IndexedPack,
  signal: AbortSignal | undefined,
): Promise<PackDirectory> {
  const key = packKey(pack.id, pack.birth);
  const range = directoryRange(pack.sizeBytes, pack.directoryLength);
  const tail = await repository.site.get(key, { ...range, ...call(signal) });
  if (tail === undefined) throw damagedError(`Pack ${key}`, "is missing", { pack: key });
  const bytes = cutDirectory(tail, `Pack ${key}`, repository.sealer);
  if (packIdOf(bytes) !== pack.id) {
    throw damagedError(`Pack ${key}`, "has a directory that does not match its name");
  }
  return decodeDirectory(bytes, `Pack ${key}`);
}

/** A frame as it is stored; what lies in it is never damaged further by being moved. */
async function readStored(
  repository: Repository,
  pack: IndexedPack,
  frame: FrameRow,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  const key = packKey(pack.id, pack.birth);
  const range = { offset: frame.offset, length: frame.storedLength };
  const stored = await repository.site.get(key, { ...range, ...call(signal) });
  if (stored !== undefined && isStoredFrame(stored, frame, repository.sealer)) return stored;
  throw damagedError(`Frame at ${frame.offset} of pack ${key}`, "does not match its checksum");
}

function isUsed(use: ListUse, frame: number): boolean {
  return use === "all" || hasFrame(use, frame);
}

function bytesOf(pack: IndexedPack, use: Uint8Array): number {
  return pack.frames.reduce(
    (sum, { storedLength }, frame) => sum + (isUsed(use, frame) ? storedLength : 0),
    0,
  );
}

function call(signal: AbortSignal | undefined): { readonly signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}
