/**
 * What sites did not give as they should have: counted for whoever watches, and remembered by object
 * until somebody repairs it. Memory: `OBJECT_COUNT_MAX` ids; what is beyond is found again.
 */
import type { RepairTarget } from "../cas/copy/repair-objects.ts";
import type { ReadFault, ReadFaultKind } from "../cas/read/failover.ts";

/** Counts of one site since the start. */
export type FaultCounts = Readonly<Record<ReadFaultKind, number>>;

/** An object that was missing or damaged at the site of this id: names may differ between nodes. */
export type FaultyObject = RepairTarget & { readonly site: string };

/** Objects that are remembered, and that one answer names. */
export const OBJECT_COUNT_MAX = 10_000;

const NOTHING: FaultCounts = { missing: 0, damaged: 0, unavailable: 0, slow: 0 };

/** The faults of all sites of a node. */
export class ReadFaults {
  readonly #counts = new Map<string, Record<ReadFaultKind, number>>();
  readonly #objects = new Map<string, FaultyObject>();

  /** Faults by the site's name. */
  get counts(): ReadonlyMap<string, FaultCounts> {
    return this.#counts;
  }

  /** Counts a fault. */
  count({ site, kind }: ReadFault): void {
    const counts = this.#counts.get(site) ?? { ...NOTHING };
    counts[kind] += 1;
    this.#counts.set(site, counts);
  }

  /** Counts a fault of the site with this id, and remembers it for repair. */
  note(site: string, fault: ReadFault): void {
    this.count(fault);
    const { kind, pack, manifest } = fault;
    if (kind === "unavailable" || kind === "slow") return;
    if (pack !== undefined) this.#remember({ site, kind: "pack", id: pack });
    if (manifest !== undefined) this.#remember({ site, kind: "manifest", id: manifest });
  }

  /** What was missing or damaged since the last time; it is the caller's from then on. */
  take(): FaultyObject[] {
    const objects = [...this.#objects.values()];
    this.#objects.clear();
    return objects;
  }

  #remember(object: FaultyObject): void {
    const key = `${object.site} ${object.id}`;
    if (this.#objects.size < OBJECT_COUNT_MAX) this.#objects.set(key, object);
  }
}
