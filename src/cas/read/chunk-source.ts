/**
 * Chunks back from a site. Whatever is handed out matches its id; a damaged or missing copy is passed
 * over as long as another pack holds the chunk, here or at the next site (failover.ts). Memory: the cache, and for each `fetchMany` at most
 * `concurrency` ranges of 2 MiB with one decoded frame each.
 */
import assert from "node:assert/strict";
import { AppError } from "../../base/error.ts";
import { toHex } from "../../base/hex.ts";
import { forEachConcurrent, Semaphore } from "../../base/semaphore.ts";
import type { Site } from "../../sites/site.ts";
import { damagedError, idKey } from "../format/bytes.ts";
import type { ChunkIndex, ChunkPlace } from "../catalog/catalog-index.ts";
import { Failover, mayBeElsewhere } from "./failover.ts";
import type { FailoverOptions, ReadFault } from "./failover.ts";
import { FrameCache } from "./frame-cache.ts";
import type { FrameDecoder } from "../format/frame-decoder.ts";
import type { ChunkRef } from "../format/listing.ts";
import { decodeFrame, packKey } from "../format/pack.ts";
import { FRAME_KEY_SIZE_BYTES } from "../format/seal.ts";
import { isSealedFor, PLAIN_OPENER } from "../keys/frame-opener.ts";
import type { FrameOpener } from "../keys/frame-opener.ts";
import { isDeletedPack, type RepositoryState } from "../log/state.ts";

/** What a source reads through. */
export type ChunkSourceOptions = {
  readonly site: Pick<Site, "get"> & Partial<Pick<Site, "name">>;
  readonly index: Pick<ChunkIndex, "find"> & Partial<Pick<ChunkIndex, "findMany" | "findPack">>;
  /** Tells which packs are on their way out; asked anew at each call. */
  readonly state: () => Pick<RepositoryState, "retired" | "deleted">;
  /** Requests at once, over all calls. */
  readonly concurrency: number;
  /** Bytes of decoded frames that are kept. */
  readonly cacheBytes: number;
  /** Opens what an encrypted repository has sealed; needless for a plain one. */
  readonly opener?: FrameOpener | undefined;
  /** How frames are decoded; in line unless told. */
  readonly decode?: FrameDecoder;
  /** Told of the bytes of each answer of the site. */
  readonly onBytes?: (sizeBytes: number) => void;
  /** The same chunks at another site, for what this one does not give. */
  readonly failover?: FailoverOptions<ChunkSource>;
  /** Told of whatever this site should have given and did not, whoever gave it then. */
  readonly onFault?: (fault: ReadFault) => void;
};

/** Takes a chunk for the ref of this index; ranges are read in parallel, so calls may overlap. */
export type ChunkTaker = (index: number, bytes: Uint8Array) => void | Promise<void>;

/** Frames that lie no further apart are read with one request. */
export const RANGE_GAP_BYTES_MAX = 256 * 1024;

/** No request asks for more, unless one frame is larger: larger answers cost memory and gain nothing. */
export const RANGE_SIZE_BYTES_MAX = 2 * 1024 * 1024;

/**
 * Reads chunks by id.
 *
 * @example
 * const source = new ChunkSource({ site, index, state, concurrency: 8, cacheBytes: 64 << 20 });
 * const bytes = await source.fetch(id, length);
 * await source.fetchMany(file.chunks, (index, bytes) => write(offsets[index], bytes));
 */
export class ChunkSource {
  /** Opens the frames of this source, and the manifests beside them. */
  readonly opener: FrameOpener;
  readonly #options: ChunkSourceOptions;
  readonly #gate: Semaphore;
  readonly #cache: FrameCache;
  readonly #decode: FrameDecoder;
  readonly #loading = new Map<string, Loading>();
  readonly #failover: Failover<ChunkSource> | undefined;

  constructor(options: ChunkSourceOptions) {
    this.#options = options;
    this.opener = options.opener ?? PLAIN_OPENER;
    this.#gate = new Semaphore(options.concurrency);
    this.#cache = new FrameCache(options.cacheBytes);
    this.#decode = options.decode ?? decodeFrame;
    this.#failover = options.failover && new Failover(options.failover);
  }

  /** One chunk, in a buffer of its own. AppError `damaged` if no pack has it whole. */
  async fetch(id: Uint8Array, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    const here = (inner?: AbortSignal): Promise<Uint8Array> => this.#fetchHere(id, length, inner);
    if (this.#failover === undefined) return await here(signal);
    return await this.#failover.read(
      {
        here,
        there: (next, inner) => next.fetch(id, length, inner),
        onSilent: (kind) => this.#noteSilence(kind, `chunk ${toHex(id)}`),
      },
      signal,
    );
  }

  /**
   * Many chunks, in the order in which they lie in packs. The bytes may be views of a larger buffer;
   * who keeps them keeps that.
   */
  async fetchMany(
    refs: readonly ChunkRef[],
    onChunk: ChunkTaker,
    signal?: AbortSignal,
  ): Promise<void> {
    await forEachConcurrent(
      this.planRanges(refs),
      this.#options.concurrency,
      async (range, innerSignal) => {
        const failed = await this.#readRange(range, onChunk, innerSignal);
        for (const { id, indexes, place } of failed) {
          const bytes = await this.fetch(id, place.length, innerSignal);
          for (const index of indexes) await onChunk(index, bytes);
        }
      },
      signal,
    );
  }

  /** Requests at once, over all calls. */
  get concurrency(): number {
    return this.#options.concurrency;
  }

  /**
   * The ranges of packs that hold these chunks, in the order of packs; for whoever decodes and
   * checks elsewhere, and asks `fetch` for what turns out to be damaged.
   */
  planRanges(refs: readonly ChunkRef[]): ChunkRange[] {
    const { index } = this.#options;
    const ids = refs.map(({ id }) => id);
    const known = index.findMany?.(ids) ?? ids.map((id) => index.find(id));
    return planRanges([...this.#wantedFrames(refs, known).values()]);
  }

  /**
   * The bytes of a range, as stored and unchecked; undefined if they cannot be had as a range, here
   * or from the same pack at the next site: then `fetch` may still find the chunks.
   */
  async readRange(range: ChunkRange, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    const [first] = range.frames;
    if (first === undefined || first.place.pack === NOWHERE) return undefined;
    const { frameOffset: offset, pack } = first.place;
    const bytes = { offset, length: rangeEnd(range.frames) - offset };
    if (this.#failover === undefined) return await this.#get(range.key, bytes, signal);
    const mustHave = (found: Uint8Array | undefined): Uint8Array => {
      if (found === undefined) throw damagedError(range.key, "is not there", { missing: true });
      return found;
    };
    try {
      return await this.#failover.read(
        {
          here: async (inner) => mustHave(await this.#get(range.key, bytes, inner)),
          there: async (next, inner) => mustHave(await next.#getOfPack(pack, bytes, inner)),
          onSilent: (kind) => this.#noteSilence(kind, range.key, pack),
        },
        signal,
      );
    } catch (error) {
      signal?.throwIfAborted();
      if (!mayBeElsewhere(error)) throw error;
      return undefined;
    }
  }

  /** A part of the same pack, under whatever birth it has here. */
  async #getOfPack(
    pack: string,
    bytes: ByteRange,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array | undefined> {
    const known = this.#options.index.findPack?.(pack);
    if (known === undefined) return undefined;
    return await this.#get(packKey(pack, known.birth), bytes, signal);
  }

  async #fetchHere(
    id: Uint8Array,
    length: number,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array> {
    let fault: AppError | undefined;
    let sealed: AppError | undefined;
    for (const place of this.#places({ id, length })) {
      try {
        const frame = await this.#frame(place, signal);
        const bytes = this.#checkChunk(frame, place, id);
        if (bytes !== undefined) return new Uint8Array(bytes);
        throw damagedError(frameKey(place), "does not hold a chunk as it was stored");
      } catch (error) {
        if (isSealedFor(error)) {
          sealed ??= error;
          continue;
        }
        if (!isDamaged(error)) throw error;
        this.#cache.delete(frameKey(place));
        this.#noteDamage(error, place);
        fault ??= atPlace(error, { id, place });
      }
    }
    const why = sealed ?? fault;
    assert(why !== undefined);
    throw why;
  }

  /**
   * What opens each frame of a range, in columns (`Sealer.frameOpening`), for whoever decodes
   * elsewhere; undefined in a plain repository. A frame whose key is lost gets zeros, which open nothing.
   */
  async openings(
    range: ChunkRange,
    signal?: AbortSignal,
  ): Promise<Uint8Array<ArrayBuffer> | undefined> {
    if (this.opener.sealer.isPlain) return undefined;
    const openings = new Uint8Array(range.frames.length * FRAME_KEY_SIZE_BYTES);
    for (const [index, { place }] of range.frames.entries()) {
      try {
        const opening = await this.#openingOf(place, signal);
        if (opening !== undefined) openings.set(opening, index * FRAME_KEY_SIZE_BYTES);
      } catch (error) {
        if (!isDamaged(error)) throw error;
      }
    }
    return openings;
  }

  #openingOf(
    place: ChunkPlace,
    signal: AbortSignal | undefined,
  ): Uint8Array | undefined | Promise<Uint8Array> {
    return this.opener.opening(place.seal, signal === undefined ? {} : { signal });
  }

  /** The chunk in a raw frame if it matches its id. */
  #checkChunk(raw: Uint8Array, place: ChunkPlace, id: Uint8Array): Uint8Array | undefined {
    const bytes = raw.subarray(place.offset, place.offset + place.length);
    return this.opener.sealer.isChunk(bytes, id) ? bytes : undefined;
  }

  #noteDamage(error: AppError, { pack, birth }: ChunkPlace): void {
    const kind = error.context["missing"] === true ? "missing" : "damaged";
    this.#note({ key: packKey(pack, birth), pack, kind });
  }

  #noteSilence(kind: "unavailable" | "slow", key: string, pack?: string): void {
    this.#note(pack === undefined ? { key, kind } : { key, pack, kind });
  }

  #note(fault: Omit<ReadFault, "site">): void {
    this.#options.onFault?.({ site: this.#options.site.name ?? "", ...fault });
  }

  /** All places of a chunk, best first; never empty. */
  #places(ref: ChunkRef, known = this.#options.index.find(ref.id)): ChunkPlace[] {
    const places = known.filter(({ length }) => length === ref.length);
    if (places.length === 0) {
      const fault = known.length === 0 ? "is in no pack" : "is known with another length only";
      this.#note({ key: `chunk ${toHex(ref.id)}`, kind: "missing" });
      throw damagedError(`Chunk ${toHex(ref.id)}`, fault, { chunk: toHex(ref.id) });
    }
    if (places.length === 1) return places;
    const state = this.#options.state();
    const rank = ({ pack, birth }: ChunkPlace): number =>
      isDeletedPack(state, pack, birth) ? 2 : state.retired.has(pack) ? 1 : 0;
    return places.toSorted((one, other) => rank(one) - rank(other));
  }

  /** Where a chunk is best read; nowhere if only the next site may know it. */
  #bestPlace(ref: ChunkRef, known: ChunkPlace[] | undefined): ChunkPlace {
    try {
      const [place] = this.#places(ref, known);
      assert(place !== undefined);
      return place;
    } catch (error) {
      if (this.#failover === undefined || !isDamaged(error)) throw error;
      return nowhere(ref);
    }
  }

  #wantedFrames(
    refs: readonly ChunkRef[],
    known: readonly ChunkPlace[][],
  ): Map<string, WantedFrame> {
    const frames = new Map<string, WantedFrame>();
    for (const [index, ref] of refs.entries()) {
      const place = this.#bestPlace(ref, known[index]);
      const key = frameKey(place);
      const frame = frames.get(key) ?? { key, place, chunks: new Map<string, RangeChunk>() };
      frames.set(key, frame);
      const chunkKey = idKey(ref.id);
      const chunk = frame.chunks.get(chunkKey);
      if (chunk === undefined) frame.chunks.set(chunkKey, { id: ref.id, place, indexes: [index] });
      else chunk.indexes.push(index);
    }
    return frames;
  }

  /** Hands out the chunks of a range; returns those that it could not. */
  async #readRange(
    range: ChunkRange,
    onChunk: ChunkTaker,
    signal: AbortSignal,
  ): Promise<RangeChunk[]> {
    const failed: RangeChunk[] = [];
    const cached = new Map(range.frames.map(({ key }) => [key, this.#cache.get(key)]));
    const missing = range.frames.filter(({ key }) => cached.get(key) === undefined);
    const first = missing[0]?.place.frameOffset ?? 0;
    const wanted = { key: range.key, frames: missing };
    const stored = missing.length === 0 ? undefined : await this.readRange(wanted, signal);
    for (const frame of range.frames) {
      const raw = cached.get(frame.key) ?? (await this.#cutFrame(frame, { stored, first }, signal));
      for (const chunk of frame.chunks.values()) {
        const bytes = raw === undefined ? undefined : this.#checkChunk(raw, chunk.place, chunk.id);
        if (bytes === undefined) failed.push(chunk);
        else for (const index of chunk.indexes) await onChunk(index, bytes);
      }
    }
    return failed;
  }

  /** A frame out of the bytes of a range; undefined if it is damaged. */
  async #cutFrame(
    frame: WantedFrame,
    { stored, first }: { readonly stored: Uint8Array | undefined; readonly first: number },
    signal: AbortSignal,
  ): Promise<Uint8Array | undefined> {
    const { place } = frame;
    if (stored === undefined) return undefined;
    const start = place.frameOffset - first;
    let raw: Uint8Array;
    try {
      const bytes = stored.subarray(start, start + place.storedLength);
      const opening = await this.#openingOf(place, signal);
      raw = await this.#decode(bytes, place, frame.key, opening);
    } catch (error) {
      if (isDamaged(error) || isSealedFor(error)) return undefined;
      throw error;
    }
    // What is left of the frame is probably wanted next. A view would keep the whole range.
    const isPartial = usedBytes(frame) < place.rawLength;
    if (isPartial) this.#cache.set(frame.key, place.codec === 0 ? new Uint8Array(raw) : raw);
    return raw;
  }

  /** One decoded frame: from the cache, from who is loading it, or from the site. */
  async #frame(place: ChunkPlace, signal: AbortSignal | undefined): Promise<Uint8Array> {
    const key = frameKey(place);
    for (;;) {
      signal?.throwIfAborted();
      const cached = this.#cache.get(key);
      if (cached !== undefined) return cached;
      const loading = this.#loading.get(key);
      // A load that was cancelled may take its time to end.
      if (loading === undefined || isCancelled(loading)) {
        return await this.#load(key, place, signal);
      }
      try {
        return await loading.frame;
      } catch (error) {
        // That the other was cancelled is no reason for us to fail.
        if (!isCancelled(loading)) throw error;
      }
    }
  }

  async #load(
    key: string,
    place: ChunkPlace,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array> {
    const frame = this.#readFrame(key, place, signal);
    const loading = { frame, signal };
    this.#loading.set(key, loading);
    try {
      const raw = await frame;
      this.#cache.set(key, raw);
      return raw;
    } finally {
      if (this.#loading.get(key) === loading) this.#loading.delete(key);
    }
  }

  async #readFrame(
    key: string,
    place: ChunkPlace,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array> {
    const { pack, birth, frameOffset, storedLength } = place;
    const range = { offset: frameOffset, length: storedLength };
    const stored = await this.#get(packKey(pack, birth), range, signal);
    if (stored === undefined) throw damagedError(key, "is not there", { missing: true });
    return await this.#decode(stored, place, key, await this.#openingOf(place, signal));
  }

  async #get(
    key: string,
    range: ByteRange,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array | undefined> {
    const options = signal === undefined ? range : { ...range, signal };
    const bytes = await this.#gate.run(() => this.#options.site.get(key, options), signal);
    if (bytes !== undefined) this.#options.onBytes?.(bytes.length);
    return bytes;
  }
}

type ByteRange = { readonly offset: number; readonly length: number };

type Loading = {
  readonly frame: Promise<Uint8Array>;
  readonly signal: AbortSignal | undefined;
};

function isCancelled({ signal }: Loading): boolean {
  return signal?.aborted === true;
}

/** One chunk that is wanted for some refs. */
type RangeChunk = {
  readonly id: Uint8Array;
  readonly place: ChunkPlace;
  readonly indexes: number[];
};

/** One frame of a range. */
export type WantedFrame = {
  readonly key: string;
  /** Of any of its chunks: the frame is what counts. */
  readonly place: ChunkPlace;
  readonly chunks: Map<string, RangeChunk>;
};

/** Frames of one pack that are read with one request. */
export type ChunkRange = { readonly key: string; readonly frames: WantedFrame[] };

/** Frames that lie close to each other, as ranges; in the order of packs and offsets. */
function planRanges(frames: WantedFrame[]): ChunkRange[] {
  const ranges: ChunkRange[] = [];
  for (const frame of frames.toSorted((one, other) => compareFrames(one.place, other.place))) {
    const key = packKey(frame.place.pack, frame.place.birth);
    const range = ranges.at(-1);
    if (range?.key === key && fitsRange(range, frame.place)) range.frames.push(frame);
    else ranges.push({ key, frames: [frame] });
  }
  return ranges;
}

function fitsRange(range: ChunkRange, place: ChunkPlace): boolean {
  const start = range.frames[0]?.place.frameOffset ?? 0;
  const gapBytes = place.frameOffset - rangeEnd(range.frames);
  const sizeBytes = place.frameOffset + place.storedLength - start;
  return gapBytes <= RANGE_GAP_BYTES_MAX && sizeBytes <= RANGE_SIZE_BYTES_MAX;
}

/** In place of a pack's id: the site's index does not know the chunk. */
const NOWHERE = "";

/** A place that gives nothing, so that the chunk is asked for by its id. */
function nowhere({ length }: ChunkRef): ChunkPlace {
  const frame = { frame: 0, frameOffset: 0, storedLength: 0, rawLength: length, codec: 0 } as const;
  return { pack: NOWHERE, birth: 0, offset: 0, length, ...frame };
}

function rangeEnd(frames: readonly WantedFrame[]): number {
  const last = frames.at(-1)?.place;
  return last === undefined ? 0 : last.frameOffset + last.storedLength;
}

function compareFrames(one: ChunkPlace, other: ChunkPlace): number {
  if (one.pack !== other.pack) return one.pack < other.pack ? -1 : 1;
  return one.birth - other.birth || one.frameOffset - other.frameOffset;
}

function usedBytes(frame: WantedFrame): number {
  return frame.chunks.values().reduce((sum, { place }) => sum + place.length, 0);
}

function frameKey(place: ChunkPlace): string {
  return `Frame ${place.frame} of ${packKey(place.pack, place.birth)}`;
}

/** The error with everything that helps to find the place. */
function atPlace(
  error: AppError,
  at: { readonly id: Uint8Array; readonly place: ChunkPlace },
): AppError {
  const { pack, birth, frame } = at.place;
  const where = { pack: packKey(pack, birth), frame, chunk: toHex(at.id) };
  return new AppError("damaged", `Chunk ${where.chunk} cannot be read: ${error.message}`, {
    ...(error.guidance === undefined ? {} : { guidance: error.guidance }),
    context: { ...error.context, ...where },
    cause: error,
  });
}

function isDamaged(error: unknown): error is AppError {
  return error instanceof AppError && error.kind === "damaged";
}
