/**
 * Lets nothing be written to a store before it has shown that it creates objects only where nothing
 * is: a store that accepts the condition and overwrites all the same would lose backups in silence.
 * Four small requests, once for each opening that writes; who only reads pays nothing.
 */
import type { Random } from "../base/doors.ts";
import { probeCreateIfAbsent } from "./probe.ts";
import { extrasOf } from "./site.ts";
import type { Site } from "./site.ts";

/** A site that is not written to before it was proved. */
export type GuardedSite = Site & {
  /** Proves it now; throws if the store fails, or cannot be asked. */
  prove(): Promise<void>;
};

/** Wraps a site. It belongs below the retries: an attempt that failed for a while is made again. */
export function guardedSite(site: Site, random: Random): GuardedSite {
  let proof: Promise<void> | undefined;
  const prove = async (): Promise<void> => {
    proof ??= probeCreateIfAbsent(site, random);
    try {
      await proof;
    } catch (thrown) {
      proof = undefined;
      throw thrown;
    }
  };
  return {
    ...extrasOf(site),
    name: site.name,
    location: site.location,
    prove,
    get: async (key, call) => await site.get(key, call),
    async put(key, bytes, call) {
      // Probes are what certification makes, and it judges better.
      if (!key.startsWith("probe/")) await prove();
      return await site.put(key, bytes, call);
    },
    head: async (key, call) => await site.head(key, call),
    delete: async (keys, call) => await site.delete(keys, call),
    list: (prefix, call) => site.list(prefix, call),
    [Symbol.asyncDispose]: async () => await site[Symbol.asyncDispose](),
  };
}
