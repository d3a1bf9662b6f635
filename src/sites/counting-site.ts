/**
 * Counts what passes to a site: requests by kind, bytes in both directions. What a request costs
 * is paid by the customer, so tests hold operations to a number of them.
 */
import type { RequestKind } from "./memory-site.ts";
import { aroundCopies, extrasOf } from "./site.ts";
import type { ObjectRow, Site, SiteCall, SiteLock } from "./site.ts";

/** A site that counts. The numbers grow as calls begin, whatever becomes of them. */
export type CountingSite = Site & {
  readonly requests: Readonly<Record<RequestKind, number>>;
  /** Bytes of objects that were handed out. */
  readonly bytesRead: number;
  /** Bytes of objects that were sent and created; what the store copied by itself is not sent. */
  readonly bytesWritten: number;
  /** Objects that the store copied by itself. */
  readonly copies: number;
};

// Stores answer listings and removals in pages of a thousand, and charge for each.
const PAGE_KEY_COUNT = 1000;

/**
 * Wraps a site and counts. Closing the wrapper closes the site.
 *
 * @example
 * const counted = countRequests(site);
 * await backUp(counted);
 * console.log(counted.requests.put, counted.bytesWritten);
 */
export function countRequests(site: Site): CountingSite {
  const requests: Record<RequestKind, number> = { get: 0, put: 0, head: 0, delete: 0, list: 0 };
  let bytesRead = 0;
  let bytesWritten = 0;
  let copies = 0;
  return {
    ...extrasOf(site),
    ...(site.lock === undefined ? {} : { lock: countRenewals(site.lock, requests) }),
    ...aroundCopies(site, async (_, call, copy) => {
      const ways = site.copying?.ways ?? [];
      // Charged as PUTs.
      requests.put += (ways.find(({ name }) => name === call?.way) ?? ways[0])?.requests ?? 1;
      const outcome = await copy();
      if (outcome === "created") copies += 1;
      return outcome;
    }),
    name: site.name,
    location: site.location,
    requests,
    get copies() {
      return copies;
    },
    get bytesRead() {
      return bytesRead;
    },
    get bytesWritten() {
      return bytesWritten;
    },
    async get(key, options) {
      requests.get += 1;
      const bytes = await site.get(key, options);
      bytesRead += bytes?.length ?? 0;
      return bytes;
    },
    async put(key, bytes, options) {
      requests.put += 1;
      const outcome = await site.put(key, bytes, options);
      if (outcome === "created") bytesWritten += bytes.length;
      return outcome;
    },
    async head(key, options) {
      requests.head += 1;
      return await site.head(key, options);
    },
    async delete(keys, options) {
      requests.delete += Math.ceil(keys.length / PAGE_KEY_COUNT);
      await site.delete(keys, options);
    },
    list: (prefix, options) => countRows(site, requests, prefix, options),
    async [Symbol.asyncDispose]() {
      await site[Symbol.asyncDispose]();
    },
  };
}

async function* countRows(
  site: Site,
  requests: Record<RequestKind, number>,
  prefix: string,
  options?: SiteCall & { readonly after?: string },
): AsyncIterable<ObjectRow> {
  let rowCount = 0;
  requests.list += 1;
  for await (const row of site.list(prefix, options)) {
    if (rowCount > 0 && rowCount % PAGE_KEY_COUNT === 0) requests.list += 1;
    rowCount += 1;
    yield row;
  }
}

/** A renewal is charged as a PUT, a look at a lock as a HEAD. */
function countRenewals(lock: SiteLock, requests: Record<RequestKind, number>): SiteLock {
  return {
    ...lock,
    async lockedUntil(key, options) {
      requests.head += 1;
      return await lock.lockedUntil(key, options);
    },
    async lockUntil(key, untilMs, options) {
      requests.put += 1;
      await lock.lockUntil(key, untilMs, options);
    },
  };
}
