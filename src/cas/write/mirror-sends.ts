/**
 * Packs on their way to the mirrors, from the buffer that goes to the primary. A mirror never fails
 * a backup: one that refuses a pack, or is slower with it than our patience, is left out for the rest
 * of the operation, and lacks from then on what `copyBackups` brings later. Nothing is journaled: what
 * a mirror was sent is found there again, under the birth that the coordinator announced.
 *
 * Memory: none but the buffers of packs that wait for a mirror; one that is left out may hold on to
 * those that were on their way to it when that happened, until the planes are closed.
 */
import type { Clock } from "../../base/doors.ts";
import { AppError, toAppError } from "../../base/error.ts";
import type { Site } from "../../sites/site.ts";
import { packKey } from "../format/pack.ts";
import type { SealedPack } from "../format/pack.ts";

/** A site that is to have what the primary gets. */
export type MirrorTarget = {
  /** For messages. */
  readonly name: string;
  readonly site: Pick<Site, "put" | "head">;
  /** Of the packs that are put there: what the coordinator has read of that site's log. */
  readonly birth: number;
};

/** What one mirror was sent of a node's packs. */
export type MirrorSent = {
  readonly name: string;
  readonly packs: number;
  readonly bytes: number;
  /** Why it was left out; what it lacks is copied later. */
  readonly failed?: string;
};

/** A put of 8 MiB that takes longer is slower than any link that one would mirror over. */
export const MIRROR_PATIENCE_MS_DEFAULT = 60_000;

/** The mirrors of one node's backup. */
export class MirrorSends {
  readonly #lanes: readonly Lane[];

  constructor(
    mirrors: readonly MirrorTarget[],
    options: { readonly clock: Clock; readonly patienceMs: number },
  ) {
    this.#lanes = mirrors.map((mirror) => new Lane(mirror, options));
  }

  /** What became of each mirror, in their order. */
  get sent(): readonly MirrorSent[] {
    return this.#lanes.map((lane) => lane.sent);
  }

  /**
   * Sends a pack to all mirrors that are left; never throws. False if a mirror may still read the
   * buffer when this ends: then it is not to be used again.
   */
  async send(pack: SealedPack): Promise<boolean> {
    const ended = await Promise.all(this.#lanes.map((lane) => lane.send(pack)));
    return ended.every((isFree) => isFree);
  }

  /** Ends what is on its way: the backup has failed. */
  stop(): void {
    for (const lane of this.#lanes) lane.leaveOut("The backup ended before.");
  }
}

/** One mirror. */
class Lane {
  readonly #mirror: MirrorTarget;
  readonly #clock: Clock;
  readonly #patienceMs: number;
  readonly #out = new AbortController();
  #packs = 0;
  #bytes = 0;
  #failed: string | undefined;

  constructor(
    mirror: MirrorTarget,
    options: { readonly clock: Clock; readonly patienceMs: number },
  ) {
    this.#mirror = mirror;
    this.#clock = options.clock;
    this.#patienceMs = options.patienceMs;
  }

  get sent(): MirrorSent {
    const counts = { name: this.#mirror.name, packs: this.#packs, bytes: this.#bytes };
    return this.#failed === undefined ? counts : { ...counts, failed: this.#failed };
  }

  leaveOut(reason: string): void {
    if (this.#failed !== undefined) return;
    this.#failed = reason;
    this.#out.abort(new AppError("cancelled", reason));
  }

  async send(pack: SealedPack): Promise<boolean> {
    if (this.#failed !== undefined) return true;
    let isPut = false;
    const put = this.#put(pack).finally(() => {
      isPut = true;
    });
    const waiting = new AbortController();
    const signal = AbortSignal.any([waiting.signal, this.#out.signal]);
    const patience = this.#clock.sleep(this.#patienceMs, signal).then(
      () => this.leaveOut(`It did not take a pack within ${this.#patienceMs / 1000} s.`),
      () => undefined,
    );
    await Promise.race([put, patience]);
    waiting.abort();
    return isPut;
  }

  async #put(pack: SealedPack): Promise<void> {
    const sizeBytes = pack.bytes.length;
    try {
      await this.#putWhole(pack);
      this.#packs += 1;
      this.#bytes += sizeBytes;
    } catch (thrown) {
      this.leaveOut(toAppError(thrown).message);
    }
  }

  async #putWhole({ id, bytes, sha256 }: SealedPack): Promise<void> {
    const { site, birth } = this.#mirror;
    const { signal } = this.#out;
    const key = packKey(id, birth);
    const sizeBytes = bytes.length;
    const call = sha256 === undefined ? { signal } : { signal, sha256 };
    if ((await site.put(key, bytes, call)) === "created") return;
    // A put that was tried again meets its own first try.
    const head = await site.head(key, { signal });
    const isSame =
      head?.sizeBytes === sizeBytes &&
      (head.sha256 === undefined || sha256 === undefined || head.sha256 === sha256);
    if (isSame) return;
    throw new AppError("conflict", `${key} is there with other bytes.`, { context: { key } });
  }
}
