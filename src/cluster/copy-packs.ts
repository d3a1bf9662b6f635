/**
 * A node's side of `copy-packs`: brings packs from one of its sites to another. It holds no lease and
 * remembers nothing, so it runs beside backups and may be asked twice. Memory: `PACKS_AT_ONCE` packs,
 * each twice while it is read back.
 */
import { mapConcurrent } from "../base/semaphore.ts";
import type { PackArrived, PackOrder } from "../cas/copy/transfer-pack.ts";
import { transferPack } from "../cas/copy/transfer-pack.ts";
import type { Sealer } from "../cas/format/seal.ts";
import type { Site } from "../sites/site.ts";
import { copyPacksRequestSchema } from "./copy-protocol.ts";
import type { CopyPacksAnswer } from "./copy-protocol.ts";
import { parseRequest } from "./protocol.ts";
import type { PhaseEvent } from "./protocol.ts";
import type { SiteSet } from "./site-set.ts";
import type { OpenSite } from "./site-views.ts";
import { meterUsage } from "./usage.ts";

/** Packs that one node has under way. */
export const PACKS_AT_ONCE = 4;

/** Answers a call of `copy-packs`; refuses where this node cannot reach one of the sites. */
export async function copyPacks(
  sites: SiteSet,
  body: unknown,
  options: { readonly signal: AbortSignal; readonly emit: (event: PhaseEvent) => void },
): Promise<CopyPacksAnswer> {
  const request = parseRequest(copyPacksRequestSchema, "copy-packs", body);
  const { signal, emit } = options;
  const from = await findSite(sites, request.from, signal);
  const to = await findSite(sites, request.to, signal);
  const measure = meterUsage(sites.configured);
  let bytes = 0;
  const arrived = await transferAll(from.repository.site, to.repository.site, {
    orders: request.orders,
    sealer: from.repository.sealer,
    signal,
    onArrived(one) {
      bytes += one.sizeBytes;
      emit({ bytes });
    },
  });
  return {
    arrived: arrived.map(({ directoryBytes, ...rest }) => ({
      ...rest,
      directory: Buffer.from(directoryBytes).toString("base64"),
    })),
    usage: measure(),
  };
}

/** Brings packs over, a few at once, and says each as it arrives. */
export async function transferAll(
  from: Site,
  to: Site,
  options: {
    readonly orders: readonly PackOrder[];
    readonly sealer: Sealer;
    readonly signal: AbortSignal;
    readonly onArrived: (one: PackArrived) => void;
  },
): Promise<PackArrived[]> {
  const { orders, sealer, signal, onArrived } = options;
  const all: PackArrived[] = [];
  const transfer = (order: PackOrder, inner: AbortSignal): Promise<PackArrived> =>
    transferPack(from, to, order, { sealer, signal: inner });
  for await (const one of mapConcurrent(orders, PACKS_AT_ONCE, transfer, signal)) {
    onArrived(one);
    all.push(one);
  }
  return all;
}

/** Without a look at the site where it is open: packs need no log. */
async function findSite(sites: SiteSet, id: string, signal: AbortSignal): Promise<OpenSite> {
  const open = sites.opened.find((one) => one.id === id);
  return open ?? (await sites.bySiteId(id, { signal }));
}
