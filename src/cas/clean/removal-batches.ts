/**
 * Removals gathered into requests of bounded size. What the site has locked stays, and is counted.
 */
import type { Site } from "../../sites/site.ts";
import type { LockedTally } from "./locked-tally.ts";

const KEY_COUNT_MAX = 1000;

/** How removals are sent. */
export type RemovalOptions = {
  readonly signal?: AbortSignal | undefined;
  /** Told of what stays; without it a locked object is an error. */
  readonly locked?: LockedTally | undefined;
};

/** Collects keys and removes them, a thousand a request; `finish` sends the rest. */
export class RemovalBatches {
  readonly #site: Site;
  readonly #options: RemovalOptions;
  /** Keys with their sizes, 0 where those are not known. */
  #sizes = new Map<string, number>();

  constructor(site: Site, options: RemovalOptions = {}) {
    this.#site = site;
    this.#options = options;
  }

  async add(key: string, sizeBytes = 0): Promise<void> {
    this.#sizes.set(key, sizeBytes);
    if (this.#sizes.size >= KEY_COUNT_MAX) await this.finish();
  }

  async finish(): Promise<void> {
    if (this.#sizes.size === 0) return;
    const sizes = this.#sizes;
    this.#sizes = new Map();
    const { signal, locked } = this.#options;
    const onLocked = (key: string, untilMs: number): void =>
      locked?.add(untilMs, sizes.get(key) ?? 0);
    await this.#site.delete([...sizes.keys()], {
      ...(signal === undefined ? {} : { signal }),
      ...(locked === undefined ? {} : { onLocked }),
    });
  }
}
