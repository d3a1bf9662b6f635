/**
 * What several sites mean to one node: which mirrors its packs go to, and which of its catalogs knows
 * its files. The stat cache follows the node to another primary, since the backups that vouch for its
 * rows keep their ids on every site; else the first backup there would read everything.
 */
import { toAppError } from "../base/error.ts";
import { carryStatCache } from "../cas/catalog/stat-carry.ts";
import type { MirrorTarget } from "../cas/write/backup-writer.ts";
import type { NodeParts } from "./node-parts.ts";
import type { LeaseMirror } from "./protocol.ts";

/** The site whose catalog has the newest stat cache. */
const STAT_SITE_KEY = "stat site";

/** The mirrors of a lease; one that this node cannot use fails with its first pack, and says why. */
export async function mirrorTargets(
  { sites }: Pick<NodeParts, "sites">,
  mirrors: readonly LeaseMirror[],
  signal: AbortSignal,
): Promise<MirrorTarget[]> {
  return await Promise.all(
    mirrors.map(async ({ site: id, name, birth }): Promise<MirrorTarget> => {
      try {
        const { repository } = await sites.bySiteId(id, { called: name, signal });
        return { name, birth, site: repository.site };
      } catch (thrown) {
        signal.throwIfAborted();
        const fail = (): Promise<never> => Promise.reject(toAppError(thrown));
        return { name, birth, site: { put: fail, head: fail } };
      }
    }),
  );
}

/** Brings the stat cache to the catalog of a site, from that of the site where the node last worked. */
export async function bringStatCache(
  { sites, catalog, doors }: Pick<NodeParts, "sites" | "catalog" | "doors">,
  site: string,
  signal: AbortSignal,
): Promise<void> {
  const { main } = sites.catalogs;
  const former = main.get(STAT_SITE_KEY);
  if (former === site) return;
  // Before there was a second site, the first catalog was the only one.
  const source = former === undefined ? main : sites.catalogs.of(former);
  if (source !== catalog) await carryStatCache(source, catalog, { clock: doors.clock, signal });
  main.set(STAT_SITE_KEY, site);
}
