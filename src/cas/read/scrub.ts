/**
 * Reads packs before anybody needs them, a few at a time, in the order of their ids: a cursor is one
 * id, and packs that come later fall anywhere. Every pack that the index names is read, retired ones
 * too, since a backup that is brought back needs them. A step never stops at a fault; what cleanups
 * have removed meanwhile is none. Memory: one pack.
 */
import type { FrameOpener } from "../keys/frame-opener.ts";
import type { Repository } from "../log/repository.ts";
import { isDeletedPack } from "../log/state.ts";
import { packKey } from "../format/pack.ts";
import { PackChecks } from "./verify-packs.ts";
import type { VerifyProblem } from "./verify-problems.ts";
import { ProblemBook } from "./verify-problems.ts";

/** Which packs of a site somebody reads: the `rank`-th of `count` equal parts of all ids. */
export type ScrubShare = { readonly rank: number; readonly count: number };

/** What to read in one step. */
export type ScrubStepOptions = {
  readonly repository: Repository;
  /** Opens frames of an encrypted repository; those it cannot open are checked closed. */
  readonly opener?: FrameOpener | undefined;
  /** The last id that was looked at; empty at the beginning. */
  readonly after: string;
  readonly share: ScrubShare;
  /** Ends with the pack that reaches it. */
  readonly sizeBytes: number;
  /** Told after each pack. */
  readonly onPack?: (sizeBytes: number) => void;
  readonly signal?: AbortSignal | undefined;
};

/** What a step has done. */
export type ScrubStep = {
  /** The last id that was looked at; undefined when there are no more. */
  readonly after: string | undefined;
  readonly packs: number;
  readonly bytes: number;
  /** Packs that are missing or damaged. */
  readonly problems: readonly VerifyProblem[];
};

const PAGE_COUNT = 512;

/**
 * Reads on from a cursor. Catches up first, so that what was repaired or removed is known.
 *
 * @example
 * const step = await scrubStep({ repository, after: "", share: WHOLE, sizeBytes: 64 << 20 });
 */
export async function scrubStep(options: ScrubStepOptions): Promise<ScrubStep> {
  const { repository, share, sizeBytes, opener, onPack, signal } = options;
  await repository.catchUp(signal);
  const problems = new ProblemBook();
  const { site, index } = repository;
  const totals = { packs: 0, bytes: 0 };
  const onRead = (length: number): void => {
    totals.bytes += length;
    onPack?.(length);
  };
  const checks = new PackChecks({ site, index, deep: true, problems, onRead, opener });
  let { after } = options;
  for (;;) {
    const ids = index.packIds({ after, count: PAGE_COUNT });
    for (const id of ids) {
      signal?.throwIfAborted();
      after = id;
      if (!isOfShare(id, share) || !isNamed(repository, id)) continue;
      await checks.check([id], signal);
      totals.packs += 1;
      if (totals.bytes < sizeBytes) continue;
      return { ...totals, after, problems: await stillWrong(repository, problems, signal) };
    }
    if (ids.length < PAGE_COUNT) break;
  }
  const found = await stillWrong(repository, problems, signal);
  return { ...totals, after: undefined, problems: found };
}

/** How far a cursor is, 0 to 1: ids are hashes, and so lie evenly. */
export function scrubPosition(after: string): number {
  return after === "" ? 0 : Number.parseInt(after.slice(0, 12), 16) / 2 ** 48;
}

/** True if the pack falls to this share, by its first bytes. */
export function isOfShare(pack: string, { rank, count }: ScrubShare): boolean {
  return Number.parseInt(pack.slice(0, 8), 16) % count === rank;
}

/** The pack that a key names; undefined for keys of other objects. */
export function packOfKey(key: string): string | undefined {
  return /^pack\/[0-9a-f]{2}\/([0-9a-f]{64})-[0-9]+$/.exec(key)?.[1];
}

function isNamed(repository: Repository, id: string): boolean {
  const pack = repository.index.findPack(id);
  return pack !== undefined && !isDeletedPack(repository.state, id, pack.birth);
}

/** Without what the log no longer names, or names elsewhere by now. */
async function stillWrong(
  repository: Repository,
  book: ProblemBook,
  signal: AbortSignal | undefined,
): Promise<VerifyProblem[]> {
  const problems = book.list();
  if (problems.length === 0) return [];
  await repository.catchUp(signal);
  return problems.filter(({ object }) => {
    const pack = packOfKey(object);
    if (pack === undefined || !isNamed(repository, pack)) return false;
    const now = repository.index.findPack(pack);
    return now !== undefined && packKey(pack, now.birth) === object;
  });
}
