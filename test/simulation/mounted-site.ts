/**
 * The site of a machine whose processes come and go: requests go to what the newest process has
 * opened, so that a request that is under way for long lands there too.
 */
import type { ObjectHead, ObjectRow, Site, SiteCall } from "../../src/sites/site.ts";

/** See the file's header. */
export class MountedSite implements Site {
  readonly name: string;
  readonly location: string;
  #site: Site | undefined;

  constructor(name: string, location: string) {
    this.name = name;
    this.location = location;
  }

  mount(site: Site): void {
    this.#site = site;
  }

  async get(
    key: string,
    options: SiteCall & { readonly offset?: number; readonly length?: number } = {},
  ): Promise<Uint8Array | undefined> {
    return await this.#mounted.get(key, options);
  }

  async put(
    key: string,
    bytes: Uint8Array,
    options: SiteCall & { readonly sha256?: string } = {},
  ): Promise<"created" | "exists"> {
    return await this.#mounted.put(key, bytes, options);
  }

  async head(key: string, options: SiteCall = {}): Promise<ObjectHead | undefined> {
    return await this.#mounted.head(key, options);
  }

  async delete(keys: readonly string[], options: SiteCall = {}): Promise<void> {
    await this.#mounted.delete(keys, options);
  }

  list(
    prefix: string,
    options: SiteCall & { readonly after?: string } = {},
  ): AsyncIterable<ObjectRow> {
    return this.#mounted.list(prefix, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Whoever opened the site owns it.
  }

  get #mounted(): Site {
    if (this.#site === undefined) throw new Error("No process has opened the site yet.");
    return this.#site;
  }
}
