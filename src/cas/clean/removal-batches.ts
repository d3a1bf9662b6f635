/**
 * Removals gathered into requests of bounded size.
 */
import type { Site } from "../../sites/site.ts";

const KEY_COUNT_MAX = 1000;

/** Collects keys and removes them, a thousand a request; `finish` sends the rest. */
export class RemovalBatches {
  readonly #site: Site;
  readonly #signal: AbortSignal | undefined;
  #keys: string[] = [];

  constructor(site: Site, signal: AbortSignal | undefined) {
    this.#site = site;
    this.#signal = signal;
  }

  async add(key: string): Promise<void> {
    this.#keys.push(key);
    if (this.#keys.length >= KEY_COUNT_MAX) await this.finish();
  }

  async finish(): Promise<void> {
    if (this.#keys.length === 0) return;
    const keys = this.#keys;
    this.#keys = [];
    await this.#site.delete(keys, this.#signal === undefined ? {} : { signal: this.#signal });
  }
}
