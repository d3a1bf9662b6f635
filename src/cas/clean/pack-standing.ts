/**
 * How a pack stands in the state: live, retired, or gone (deleted, or never named). Asked of the
 * index, whose rows carry checksums, and of the state.
 */
import type { IndexedPack } from "../catalog/catalog-index.ts";
import type { Repository } from "../log/repository.ts";
import { isDeletedPack } from "../log/state.ts";
import type { RepositoryState } from "../log/state.ts";

/** The standing of a pack. */
export type PackStanding = "live" | "retired" | "gone";

/** The pack as the state names it; undefined if it does not, or not any more. */
export function getNamedPack(
  repository: Pick<Repository, "index">,
  state: RepositoryState,
  pack: string,
): IndexedPack | undefined {
  const place = repository.index.findPack(pack);
  if (place === undefined || isDeletedPack(state, pack, place.birth)) return undefined;
  return place;
}

/** How the pack stands at this state. */
export function packStanding(
  repository: Pick<Repository, "index">,
  state: RepositoryState,
  pack: string,
): PackStanding {
  if (getNamedPack(repository, state, pack) === undefined) return "gone";
  return state.retired.has(pack) ? "retired" : "live";
}
