/**
 * Lets nothing be written to a store before it has shown that it creates objects only where nothing
 * is: a store that accepts the condition and overwrites all the same would lose backups in silence.
 * Four small requests, once for each opening that writes; who only reads pays nothing.
 *
 * Copies within the store are proved by themselves, before the first one: stores that honour the
 * condition where bytes are sent may ignore it where they are copied. Where no way keeps it, and for
 * a source that the store has refused to copy from, there are no copies for as long as the site is
 * open: callers read and put.
 */
import type { Random } from "../base/doors.ts";
import { findCopyWay, probeCreateIfAbsent } from "./probe.ts";
import { extrasOf } from "./site.ts";
import type { CopyWay, Site, SiteCopying } from "./site.ts";

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
    ...(site.copying === undefined
      ? {}
      : { copying: guardedCopying(site, site.copying, { random, prove }) }),
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

function guardedCopying(
  site: Site,
  copying: SiteCopying,
  { random, prove }: { readonly random: Random; readonly prove: () => Promise<void> },
): SiteCopying {
  let proof: Promise<CopyWay | undefined> | undefined;
  let { ways } = copying;
  /** Sources that the store would not copy from. */
  const refused = new Set<string>();
  const findWay = async (): Promise<CopyWay | undefined> => {
    proof ??= findCopyWay(site, random);
    try {
      const way = await proof;
      ways = way === undefined ? [] : [way];
      return way;
    } catch (thrown) {
      proof = undefined;
      throw thrown;
    }
  };
  return {
    place: copying.place,
    get ways() {
      return ways;
    },
    reaches: (source) => ways.length > 0 && !refused.has(source.root) && copying.reaches(source),
    async copyFrom(source, fromKey, toKey, call) {
      if (refused.has(source.root) || !copying.reaches(source)) return "impossible";
      await prove();
      const way = await findWay();
      if (way === undefined) return "impossible";
      const outcome = await copying.copyFrom(source, fromKey, toKey, { ...call, way: way.name });
      if (outcome === "impossible") refused.add(source.root);
      return outcome;
    },
  };
}
