/**
 * What sites did not give as they should have: counted for whoever watches, and remembered by pack
 * until somebody repairs it. Memory: `PACK_COUNT_MAX` ids a site; what is beyond is found again.
 */
import type { ReadFault, ReadFaultKind } from "../cas/read/failover.ts";

/** Counts of one site since the start. */
export type FaultCounts = Readonly<Record<ReadFaultKind, number>>;

const PACK_COUNT_MAX = 10_000;

const NOTHING: FaultCounts = { missing: 0, damaged: 0, unavailable: 0, slow: 0 };

/** The faults of all sites of a node. */
export class ReadFaults {
  readonly #counts = new Map<string, Record<ReadFaultKind, number>>();
  /** Missing or damaged packs by the site's name. */
  readonly #packs = new Map<string, Set<string>>();

  /** Faults by the site's name. */
  get counts(): ReadonlyMap<string, FaultCounts> {
    return this.#counts;
  }

  note({ site, kind, pack }: ReadFault): void {
    const counts = this.#counts.get(site) ?? { ...NOTHING };
    counts[kind] += 1;
    this.#counts.set(site, counts);
    if (pack === undefined || kind === "unavailable" || kind === "slow") return;
    const packs = this.#packs.get(site) ?? new Set();
    this.#packs.set(site, packs);
    if (packs.size < PACK_COUNT_MAX) packs.add(pack);
  }

  /** The packs of a site that were missing or damaged; they are the caller's from then on. */
  takePacks(site: string): string[] {
    const packs = [...(this.#packs.get(site) ?? [])].toSorted();
    this.#packs.delete(site);
    return packs;
  }

  /** Sites of which packs were missing or damaged. */
  get harmedSites(): string[] {
    return [...this.#packs.keys()];
  }
}
