/**
 * Which packs a backup needs: the records of its pack lists, read with the moves of the repacks that
 * spoke for it, and the packs that hold the lists and listings themselves. Lists are trees of chunks
 * whose hashes were checked, so nothing here believes a row of the catalog; what is named may be too
 * much and is never too little. Memory: a few nodes of one tree.
 */
import { SHA256_SIZE_BYTES } from "../../base/hex.ts";
import { latin1FromBytes } from "../format/bytes.ts";
import type { ChunkSource } from "../read/chunk-source.ts";
import type { PackUse } from "../format/pack-list.ts";
import { bitmapSizeBytes, decodePackUse, setFrame } from "../format/pack-list.ts";
import type { BackupRecord, Move, RepositoryState } from "../log/state.ts";
import { readTree } from "../format/tree.ts";

/** What reading uses needs of a ChunkSource. */
export type UseSource = Pick<ChunkSource, "fetch">;

/** One pack that a backup needs; `isWhole` where all its frames count as used. */
export type BackupUse = PackUse & { readonly isWhole: boolean };

/**
 * The packs that a backup needs, in batches, some of them more than once. `frameCountOf` tells how
 * many frames a pack has, for those that are named whole.
 *
 * @example
 * for await (const uses of readBackupUses(state, backup, source, { frameCountOf, signal })) …
 */
export async function* readBackupUses(
  state: RepositoryState,
  backup: BackupRecord,
  source: UseSource,
  options: {
    readonly frameCountOf: (pack: string) => number;
    readonly signal?: AbortSignal | undefined;
  },
): AsyncGenerator<BackupUse[], void, undefined> {
  const { frameCountOf, signal } = options;
  const moved = movedPacks(state.moves.get(backup.backup) ?? []);
  const whole = (packs: readonly string[]): BackupUse[] =>
    packs.map((pack) => wholeUse(pack, frameCountOf(pack)));
  yield whole(backup.listPacks.flatMap((pack) => moved.get(pack) ?? [pack]));
  const roots = new Map(backup.lists.map(({ root }) => [root.id, root]));
  for (const root of roots.values()) {
    const fetch = (id: Uint8Array, length: number): Promise<Uint8Array> =>
      source.fetch(id, length, signal);
    for await (const records of readTree(root, fetch, { keyOf: useKeyOf, signal })) {
      yield records.flatMap((record) => {
        const use = decodePackUse(record);
        const targets = moved.get(use.pack);
        return targets === undefined ? [{ ...use, isWhole: false }] : whole(targets);
      });
    }
  }
}

/**
 * Each pack that the moves took the place of, with the packs that stand for it now. Moves apply in
 * order: what was moved to may have been moved on.
 */
export function movedPacks(moves: readonly Move[]): ReadonlyMap<string, readonly string[]> {
  const places = new Map<string, Set<string>>();
  const originsOf = new Map<string, Set<string>>();
  for (const { from, to } of moves) {
    for (const pack of from) {
      for (const origin of originsOf.get(pack) ?? []) place(origin, pack, to);
      originsOf.delete(pack);
      if (!places.has(pack)) place(pack, undefined, to);
    }
  }
  return new Map([...places].map(([origin, targets]) => [origin, [...targets]]));

  function place(origin: string, former: string | undefined, targets: readonly string[]): void {
    const now = places.get(origin) ?? new Set<string>();
    if (former !== undefined) now.delete(former);
    for (const target of targets) {
      now.add(target);
      const origins = originsOf.get(target) ?? new Set<string>();
      originsOf.set(target, origins.add(origin));
    }
    places.set(origin, now);
  }
}

function wholeUse(pack: string, frameCount: number): BackupUse {
  const frames = new Uint8Array(bitmapSizeBytes(frameCount));
  for (let frame = 0; frame < frameCount; frame++) setFrame(frames, frame);
  return { pack, frameCount, frames, isWhole: true };
}

function useKeyOf(record: Uint8Array): string {
  return latin1FromBytes(record.subarray(0, SHA256_SIZE_BYTES));
}
