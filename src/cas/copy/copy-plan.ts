/**
 * What a copy would do: which backups, packs, bytes and requests. Reads logs and pack lists, and
 * changes nothing. Memory: none that grows; the packs are counted in a temporary table.
 */
import { canCopyWithin } from "../../sites/site.ts";
import { getNamedPack } from "../clean/pack-standing.ts";
import { chooseBackups } from "./copy-backups.ts";
import { readUses } from "./copy-lists.ts";
import type { CopySide, CopyState } from "./copy-side.ts";
import { copyStateOf, mustBeSitesOfOne, mustNotBeForeign } from "./copy-side.ts";
import { PackTable } from "./pack-table.ts";

/** One backup of a plan. */
export type CopyPlanRow = {
  readonly id: string;
  readonly name: string;
  readonly state: CopyState;
  /** That no earlier backup of the plan brings. */
  readonly packs: number;
  readonly bytes: number;
};

/** What a copy would do. */
export type CopyPlan = {
  readonly backups: readonly CopyPlanRow[];
  readonly packs: number;
  readonly bytes: number;
  /** Both sites lie in one store, which copies packs by itself: they are read once, from the copy. */
  readonly isWithinStore: boolean;
  /** About: retries and what is found to be there are not foreseen. */
  readonly requests: { readonly get: number; readonly put: number; readonly head: number };
};

/** What to plan. */
export type CopyPlanOptions = {
  /** Ids; all unless given. */
  readonly backups?: readonly string[];
  /** Only backups that ended then (ms since 1970) or later. */
  readonly since?: number;
  /** Also counts what is read back; true unless told. */
  readonly readBack?: boolean;
  /** Bytes between two keeps. */
  readonly keepEveryBytes?: number;
  readonly signal?: AbortSignal | undefined;
};

const KEEP_EVERY_BYTES_DEFAULT = 8 * 1024 ** 3;
/** Segment, manifest and entry at the target; its log is read before. */
const PUTS_OF_A_BACKUP = 3;
const GETS_OF_A_BACKUP = 6;
/** Segment and entry. */
const PUTS_OF_A_KEEP = 2;

/** Plans a copy. */
export async function planCopy(
  from: CopySide,
  to: CopySide,
  options: CopyPlanOptions = {},
): Promise<CopyPlan> {
  const { since = -Infinity, readBack = true, signal } = options;
  mustBeSitesOfOne(from, to);
  const state = await from.repository.catchUp(signal);
  const target = await to.repository.catchUp(signal);
  using seen = new PackTable(to.repository.catalog);
  const backups: CopyPlanRow[] = [];
  const wanted = chooseBackups(state, options.backups).filter(
    ({ ended }) => Date.parse(ended) >= since,
  );
  for (const record of wanted) {
    const { backup: id, name } = record;
    const standing = copyStateOf(target, id);
    let packs = 0;
    let bytes = 0;
    if (standing === "copy") {
      mustNotBeForeign(state, target, record);
      for await (const uses of readUses(from, state, record, signal)) {
        for (const { pack } of seen.add(uses)) {
          if (getNamedPack(to.repository, target, pack) !== undefined) continue;
          packs += 1;
          bytes += getNamedPack(from.repository, state, pack)?.sizeBytes ?? 0;
        }
      }
    }
    backups.push({ id, name, state: standing, packs, bytes });
  }
  const copies = backups.filter(({ state: standing }) => standing === "copy").length;
  const packs = backups.reduce((sum, row) => sum + row.packs, 0);
  const bytes = backups.reduce((sum, row) => sum + row.bytes, 0);
  const keeps = Math.floor(bytes / (options.keepEveryBytes ?? KEEP_EVERY_BYTES_DEFAULT));
  const [source, sink] = [from.repository.site, to.repository.site];
  const isWithinStore = canCopyWithin(source, sink);
  const perCopy = isWithinStore ? (sink.copying?.ways[0]?.requests ?? 1) : 1;
  const reads = readBack ? 2 : 1;
  const requests = {
    get: (isWithinStore ? 1 : reads) * packs + reads * copies + GETS_OF_A_BACKUP * (copies + keeps),
    put: perCopy * packs + PUTS_OF_A_BACKUP * copies + PUTS_OF_A_KEEP * keeps,
    head: 0,
  };
  return { backups, packs, bytes, isWithinStore, requests };
}
