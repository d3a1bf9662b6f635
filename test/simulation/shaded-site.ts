/**
 * A site some of whose objects are not as they should be, for as long as somebody says so: hidden (not
 * listed, not readable, yet their names are taken), torn (the first half of their bytes) with a
 * flipped bit, failing (each read fails) or silent (no read ends). All who read through one `Shades`
 * see the same; the objects themselves stay whole.
 */
import { AppError } from "../../src/base/error.ts";
import type { ObjectHead, ObjectRow, Site, SiteCall } from "../../src/sites/site.ts";

/** What can be wrong with an object. */
export type Shade =
  | { readonly kind: "hidden" }
  | { readonly kind: "torn" }
  | { readonly kind: "flipped"; readonly bit: number }
  | { readonly kind: "failing" | "silent" };

/** Objects by key. */
export type Shades = Map<string, Shade>;

/** A view of a site through shades. */
export class ShadedSite implements Site {
  readonly name: string;
  readonly location: string;
  readonly #site: Site;
  readonly #shades: Shades;

  constructor(site: Site, shades: Shades) {
    this.name = site.name;
    this.location = site.location;
    this.#site = site;
    this.#shades = shades;
  }

  async get(
    key: string,
    options: SiteCall & { readonly offset?: number; readonly length?: number } = {},
  ): Promise<Uint8Array | undefined> {
    const shade = this.#shades.get(key);
    if (shade === undefined) return await this.#site.get(key, options);
    const { signal, offset = 0, length = Number.POSITIVE_INFINITY } = options;
    if (shade.kind === "silent") return await silence(signal);
    if (shade.kind === "failing") throw new AppError("unavailable", `${key} cannot be read`);
    const whole = await this.#site.get(key, signal === undefined ? {} : { signal });
    return whole === undefined ? undefined : shaded(whole, shade)?.slice(offset, offset + length);
  }

  async put(
    key: string,
    bytes: Uint8Array,
    options: SiteCall & { readonly sha256?: string } = {},
  ): Promise<"created" | "exists"> {
    return await this.#site.put(key, bytes, options);
  }

  async head(key: string, options: SiteCall = {}): Promise<ObjectHead | undefined> {
    const head = await this.#site.head(key, options);
    const shade = this.#shades.get(key);
    if (head === undefined || shade === undefined) return head;
    if (shade.kind === "hidden") return undefined;
    return { sizeBytes: shade.kind === "torn" ? head.sizeBytes >>> 1 : head.sizeBytes };
  }

  async delete(keys: readonly string[], options: SiteCall = {}): Promise<void> {
    await this.#site.delete(keys, options);
  }

  async *list(
    prefix: string,
    options: SiteCall & { readonly after?: string } = {},
  ): AsyncIterable<ObjectRow> {
    for await (const row of this.#site.list(prefix, options)) {
      if (this.#shades.get(row.key)?.kind !== "hidden") yield row;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#site[Symbol.asyncDispose]();
  }
}

/** An answer that never comes: it ends only when the caller does. */
function silence(signal: AbortSignal | undefined): Promise<never> {
  return new Promise<never>((_resolve, reject) => {
    signal?.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
  });
}

function shaded(bytes: Uint8Array, shade: Shade): Uint8Array | undefined {
  if (shade.kind === "hidden") return undefined;
  if (shade.kind === "torn") return bytes.slice(0, bytes.length >>> 1);
  if (shade.kind !== "flipped") return bytes;
  const copy = bytes.slice();
  const at = (shade.bit >>> 3) % Math.max(1, copy.length);
  if (at < copy.length) copy[at] = copy[at]! ^ (1 << (shade.bit & 7));
  return copy;
}
