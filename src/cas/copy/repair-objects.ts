/**
 * Repair of one site from others: the same pack or manifest, checked whole, is put under a new birth
 * beside the bad object, and a `repair` entry says that it counts from then on. The bad one becomes
 * garbage by the usual rule. Index segments carry births and are the same nowhere else: those are
 * written again from the rows of this node's catalog, if it has them whole. Memory: one pack, or the
 * rows of one segment.
 */
import { AppError } from "../../base/error.ts";
import { sha256Hex } from "../../base/hex.ts";
import { segmentFromRows } from "../catalog/indexed-segment.ts";
import { manifestKey } from "../format/ids.ts";
import { segmentKey } from "../format/index-segment.ts";
import { packKey } from "../format/pack.ts";
import { getNamedPack } from "../clean/pack-standing.ts";
import type { EntryBodies } from "../log/entry.ts";
import type { RepositoryState } from "../log/state.ts";
import type { CopySide } from "./copy-side.ts";
import { callOf, mustBeSitesOfOne } from "./copy-side.ts";
import type { CommitHow } from "./roles.ts";
import { readPack } from "./transfer-pack.ts";

/** An object that seems to be bad, by its id. */
export type RepairTarget = {
  readonly kind: "pack" | "manifest" | "index";
  readonly id: string;
};

/** What became of what was to be repaired. */
export type RepairReport = {
  /** Ids that lie under a new birth now. */
  readonly repaired: readonly string[];
  /** Ids whose object is right: whoever called them bad met a bad line. */
  readonly sound: readonly string[];
  /** What could not be repaired, or need not be any more, and why. */
  readonly left: readonly { readonly id: string; readonly why: string }[];
};

type Repaired = EntryBodies["repair"]["objects"][number] & { readonly badBirth: number };

/** So many objects are named by one entry. */
const BATCH_COUNT = 200;

/** Repairs packs; see `repairObjects`. */
export async function repairPacks(
  to: CopySide,
  from: readonly CopySide[],
  packs: Iterable<string>,
  how: CommitHow,
): Promise<RepairReport> {
  const targets = Array.from(packs, (id): RepairTarget => ({ kind: "pack", id }));
  return await repairObjects(to, from, targets, how);
}

/**
 * Repairs what is bad at `to` from the first of `from` that has it whole. Each object is read first:
 * one that is right stays. A `from` that does not answer is passed over.
 *
 * @example
 * const { repaired, left } = await repairPacks(mirror, [primary], badPacks, { operation, signal });
 */
export async function repairObjects(
  to: CopySide,
  from: readonly CopySide[],
  targets: readonly RepairTarget[],
  how: CommitHow,
): Promise<RepairReport> {
  const { signal } = how;
  for (const side of from) mustBeSitesOfOne(side, to);
  await to.repository.catchUp(signal);
  const repaired: string[] = [];
  const sound: string[] = [];
  const left: { id: string; why: string }[] = [];
  let batch: Repaired[] = [];
  const commit = async (): Promise<void> => {
    const named = await commitRepair(to, batch, how);
    repaired.push(...named);
    const lost = batch.filter(({ id }) => !named.includes(id));
    left.push(...lost.map(({ id }) => ({ id, why: "it is named otherwise meanwhile" })));
    batch = [];
  };
  for (const target of new Map(targets.map((one) => [one.id, one])).values()) {
    const found = await bring(to, from, target, how);
    if (typeof found === "object") batch.push(found);
    else if (found === "sound") sound.push(target.id);
    else left.push({ id: target.id, why: found });
    if (batch.length >= BATCH_COUNT) await commit();
  }
  if (batch.length > 0) await commit();
  return { repaired, sound, left };
}

/** Puts a good object beside a bad one; `sound` if it is not bad, or why it cannot be done. */
async function bring(
  to: CopySide,
  from: readonly CopySide[],
  target: RepairTarget,
  how: CommitHow,
): Promise<Repaired | string> {
  const { signal } = how;
  const { repository } = to;
  const badBirth = birthOf(to, repository.state, target);
  if (badBirth === undefined) return `${repository.site.location} does not name it`;
  if ((await readObject(to, target, badBirth, signal)) !== undefined) return "sound";
  for (const side of target.kind === "index" ? [to] : from) {
    const bytes =
      target.kind === "index"
        ? segmentFromRows(repository.catalog, target.id, repository.sealer)
        : await readFrom(side, target, signal);
    if (bytes === undefined) continue;
    // The bad object has its name for good, and another birth is another name.
    if (repository.state.sequence <= badBirth) {
      const body = { text: `repair of ${target.kind} ${target.id}` };
      await repository.commit(() => ({ kind: "note", body }), callOfHow(how));
    }
    const birth = repository.state.sequence;
    await repository.putObject(keyOf(target, birth), bytes, {
      sha256: sha256Hex(bytes),
      ...callOf(signal),
    });
    if ((await readObject(to, target, birth, signal)) !== undefined) {
      return { ...target, birth, badBirth };
    }
    return `${repository.site.location} does not keep what it acknowledges`;
  }
  return target.kind === "index"
    ? "this node's catalog does not have it whole; another node's may: repair from there"
    : "no other site has it whole";
}

/** Names the objects of which the bad one is still named; their ids. */
async function commitRepair(
  to: CopySide,
  batch: readonly Repaired[],
  how: CommitHow,
): Promise<readonly string[]> {
  let named: readonly Repaired[] = [];
  const result = await to.repository.commit((state) => {
    named = batch.filter(
      (one) => one.birth > state.floor && birthOf(to, state, one) === one.badBirth,
    );
    if (named.length === 0) return undefined;
    const objects = named.map(({ kind, id, birth }) => ({ kind, id, birth }));
    return { kind: "repair", body: { objects } };
  }, callOfHow(how));
  return result.outcome === "won" ? named.map(({ id }) => id) : [];
}

/** Under which birth the state names an object. */
function birthOf(
  side: CopySide,
  state: RepositoryState,
  { kind, id }: { readonly kind: string; readonly id: string },
): number | undefined {
  if (kind === "pack") return getNamedPack(side.repository, state, id)?.birth;
  if (kind === "index") return state.segments.get(id)?.birth;
  return state.backups.values().find(({ manifest }) => manifest.id === id)?.manifest.birth;
}

async function readFrom(
  side: CopySide,
  target: RepairTarget,
  signal: AbortSignal | undefined,
): Promise<Uint8Array | undefined> {
  try {
    const state = await side.repository.catchUp(signal);
    const birth = birthOf(side, state, target);
    return birth === undefined ? undefined : await readObject(side, target, birth, signal);
  } catch (thrown) {
    if (thrown instanceof AppError && thrown.kind !== "cancelled") return undefined;
    throw thrown;
  }
}

/** An object that is right in every byte; undefined if it is not, or missing. */
async function readObject(
  side: CopySide,
  target: RepairTarget,
  birth: number,
  signal: AbortSignal | undefined,
): Promise<Uint8Array | undefined> {
  const { site, sealer } = side.repository;
  if (target.kind !== "pack") {
    const bytes = await site.get(keyOf(target, birth), callOf(signal));
    return bytes !== undefined && sha256Hex(bytes) === target.id ? bytes : undefined;
  }
  try {
    return (await readPack(site, { pack: target.id, birth }, { sealer, signal })).bytes;
  } catch (thrown) {
    if (thrown instanceof AppError && thrown.kind === "damaged") return undefined;
    throw thrown;
  }
}

function keyOf({ kind, id }: RepairTarget, birth: number): string {
  if (kind === "pack") return packKey(id, birth);
  return kind === "index" ? segmentKey(id, birth) : manifestKey(id, birth);
}

function callOfHow({ operation, signal }: CommitHow): {
  readonly operation: string;
  readonly signal?: AbortSignal;
} {
  return { operation, ...callOf(signal) };
}
