/**
 * One pack from a site to another, as it is: read, checked whole, put under the birth of the other
 * site's log, and read back if asked. Needs no catalog, so that any node can do it. Memory: the pack,
 * twice while it is read back.
 *
 * Where both sites lie in one store, it copies the pack by itself, and the copy is read once and
 * checked whole, whether that was asked for or not: nobody has looked at the source, and what is
 * damaged there must not count as brought. That is a third of the bytes where packs are read back,
 * and half of them otherwise. A copy that is not good leaves the way by reading and sending, which
 * finds out whose fault it is. It stays under a name that no log knows; so of what is found at a
 * target, copies are read whole too.
 */
import { AppError } from "../../base/error.ts";
import { freeBytes } from "../../base/free-bytes.ts";
import { mapConcurrent } from "../../base/semaphore.ts";
import { canCopyWithin } from "../../sites/site.ts";
import type { Site } from "../../sites/site.ts";
import { damagedError } from "../format/bytes.ts";
import type { PackDirectory } from "../format/pack.ts";
import {
  cutDirectory,
  directoryRange,
  isStoredFrame,
  openPack,
  packIdOf,
  packKey,
} from "../format/pack.ts";
import type { Sealer } from "../format/seal.ts";
import { putObject } from "../log/put-object.ts";
import { callOf } from "./copy-side.ts";

/** A pack that is to be brought to another site. */
export type PackOrder = {
  readonly pack: string;
  readonly fromBirth: number;
  /** Under which it is to lie at the other site. */
  readonly toBirth: number;
  readonly sizeBytes: number;
  readonly directoryLength: number;
  /** A node, or an earlier try, may have sent it under `toBirth`. */
  readonly mayBeThere: boolean;
  /** Reads it from the other site and compares. */
  readonly readBack: boolean;
};

/** A pack that lies at the other site now. */
export type PackArrived = {
  readonly pack: string;
  readonly birth: number;
  readonly sizeBytes: number;
  /** The plain directory, whose hash is the id. */
  readonly directoryBytes: Uint8Array;
  /** False if it was there already. */
  readonly isSent: boolean;
};

/** Brings packs to another site; in any order, all or an error. */
export type PackTransfer = (
  orders: readonly PackOrder[],
  signal?: AbortSignal,
) => Promise<readonly PackArrived[]>;

/** How packs are read. */
export type TransferOptions = {
  /** Of the repository: in an encrypted one it opens directories. */
  readonly sealer: Sealer;
  readonly signal?: AbortSignal | undefined;
};

type Reader = Pick<Site, "location" | "get">;

type Target = Pick<Site, "name" | "location" | "get" | "put" | "head" | "copying">;

/** A transfer by this process. */
export function localTransfer(
  from: Site,
  to: Site,
  options: { readonly concurrency: number; readonly sealer: Sealer },
): PackTransfer {
  const { concurrency, ...rest } = options;
  return async (orders, signal) => {
    const arrived: PackArrived[] = [];
    const transfer = (order: PackOrder, inner: AbortSignal): Promise<PackArrived> =>
      transferPack(from, to, order, { ...rest, signal: inner });
    for await (const one of mapConcurrent(orders, concurrency, transfer, signal)) arrived.push(one);
    return arrived;
  };
}

/**
 * Brings one pack to another site. AppError `damaged` if `from` does not give it whole; `conflict`
 * with `context.reason` "taken" if the name at `to` has other bytes.
 */
export async function transferPack(
  from: Reader & Pick<Site, "copying">,
  to: Target,
  order: PackOrder,
  options: TransferOptions,
): Promise<PackArrived> {
  const { pack, toBirth, readBack } = order;
  const { signal } = options;
  const found = order.mayBeThere ? await findThere(to, order, options) : undefined;
  if (found !== undefined) return found;
  const copied = await copyWithin(from, to, order, options);
  if (copied !== undefined) return copied;
  const source = { pack, birth: order.fromBirth };
  const { bytes, directoryBytes } = await readPack(from, source, options);
  const key = packKey(pack, toBirth);
  const isSent = await putObject(to, key, bytes, callOf(signal));
  if (readBack) {
    const back = await to.get(key, callOf(signal));
    if (back === undefined || Buffer.compare(back, bytes) !== 0) throw cameBackOther(to, key);
    freeBytes(back);
  }
  const arrived = { pack, birth: toBirth, sizeBytes: bytes.length, isSent };
  const kept = { ...arrived, directoryBytes: new Uint8Array(directoryBytes) };
  // The collector sees small objects, and would let the packs pile up behind them. A store that said
  // "exists" may have said so before it took all bytes.
  if (isSent) freeBytes(bytes);
  return kept;
}

/** A whole pack from a site, checked; read twice before it is called damaged. */
export async function readPack(
  from: Reader,
  { pack, birth }: { readonly pack: string; readonly birth: number },
  options: TransferOptions,
): Promise<{ readonly bytes: Uint8Array; readonly directoryBytes: Uint8Array }> {
  const key = packKey(pack, birth);
  for (let isLast = false; ; isLast = true) {
    const bytes = await from.get(key, callOf(options.signal));
    if (bytes === undefined) {
      throw damagedError(`${key} at ${from.location}`, "is missing", { pack: key, missing: true });
    }
    try {
      checkWholePack(bytes, pack, `${key} at ${from.location}`, options.sealer);
      return { bytes, directoryBytes: cutDirectory(bytes, key, options.sealer) };
    } catch (thrown) {
      if (isLast || !(thrown instanceof AppError)) throw thrown;
    }
  }
}

/** Checks every stored byte of a pack against its id. */
export function checkWholePack(
  bytes: Uint8Array,
  id: string,
  what: string,
  sealer: Sealer,
): PackDirectory {
  const directory = openPack(bytes, id, what, sealer);
  for (const frame of directory.frames) {
    const stored = bytes.subarray(frame.offset, frame.offset + frame.storedLength);
    if (isStoredFrame(stored, frame, sealer)) continue;
    throw damagedError(`Frame at ${frame.offset} of ${what}`, "does not match its checksum");
  }
  return directory;
}

/** Has the store copy a pack by itself; undefined if it cannot, or if the copy is not good. */
async function copyWithin(
  from: Pick<Site, "copying">,
  to: Target,
  order: PackOrder,
  options: TransferOptions,
): Promise<PackArrived | undefined> {
  const { pack, fromBirth, toBirth } = order;
  const source = from.copying?.place;
  if (to.copying === undefined || source === undefined || !canCopyWithin(from, to))
    return undefined;
  const keys = [packKey(pack, fromBirth), packKey(pack, toBirth)] as const;
  const outcome = await to.copying.copyFrom(source, ...keys, callOf(options.signal));
  if (outcome === "absent" || outcome === "impossible") return undefined;
  const found = await readThere(to, order, { ...options, isWhole: true });
  return found === undefined ? undefined : { ...found, isSent: outcome === "created" };
}

/** A pack that lies under this birth already. */
async function findThere(
  to: Target,
  order: PackOrder,
  options: TransferOptions,
): Promise<PackArrived | undefined> {
  if (order.readBack) return await readThere(to, order, { ...options, isWhole: true });
  // Also where this opening makes no copies: another one may have made this.
  const head = await to.head(packKey(order.pack, order.toBirth), callOf(options.signal));
  if (head === undefined) return undefined;
  return await readThere(to, order, { ...options, isWhole: head.isCopy === true });
}

/**
 * A pack that was sent or copied under this birth. Every byte is read and checked, or only the
 * directory, and a byte more than it may have: so one request shows that what somebody has checked
 * before he sent it is there, as long as it must be, and the right one.
 */
async function readThere(
  to: Reader,
  order: PackOrder,
  { sealer, signal, isWhole }: TransferOptions & { readonly isWhole: boolean },
): Promise<PackArrived | undefined> {
  const { pack, toBirth: birth, sizeBytes } = order;
  const key = packKey(pack, birth);
  const { offset, length } = directoryRange(sizeBytes, order.directoryLength);
  const range = isWhole ? {} : { offset, length: length + 1 };
  const bytes = await to.get(key, { ...range, ...callOf(signal) });
  if (bytes === undefined) return undefined;
  try {
    if (bytes.length !== (isWhole ? sizeBytes : length)) return undefined;
    const directoryBytes = new Uint8Array(cutDirectory(bytes, key, sealer));
    if (packIdOf(directoryBytes) !== pack) return undefined;
    if (isWhole) checkWholePack(bytes, pack, key, sealer);
    return { pack, birth, sizeBytes, directoryBytes, isSent: false };
  } catch (thrown) {
    if (thrown instanceof AppError && thrown.kind === "damaged") return undefined;
    throw thrown;
  } finally {
    freeBytes(bytes);
  }
}

function cameBackOther(to: Pick<Site, "name" | "location">, key: string): AppError {
  return new AppError("conflict", `${key} came back from ${to.location} other than it was sent.`, {
    guidance: "The site does not keep what it acknowledges: run `astacus site check` on it.",
    context: { reason: "taken", site: to.name, key },
  });
}
