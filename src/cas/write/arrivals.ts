/**
 * What a backup brings along: the packs of index segments that were sent and that no entry names
 * yet. They are read back from the site, hash-checked, before the commit: the lists of the backup lie
 * in them, and no index knows them. Memory: places of metadata chunks (nodes of listings and lists),
 * not of data, and a few frames.
 */
import { toHex } from "../../base/hex.ts";
import { AppError } from "../../base/error.ts";
import { damagedError, idKey } from "../format/bytes.ts";
import type { EntryBodies } from "../log/entry.ts";
import type { DecodedSegment, SegmentFrame } from "../format/index-segment.ts";
import { decodeSegment, segmentKey } from "../format/index-segment.ts";
import { decodeFrame, packKey } from "../format/pack.ts";
import { originsOf } from "../format/seal.ts";
import type { FrameOpener } from "../keys/frame-opener.ts";
import type { UseSource } from "../clean/pack-uses.ts";
import type { Repository } from "../log/repository.ts";
import type { RepositoryState } from "../log/state.ts";

type SegmentRefs = EntryBodies["keep"]["segments"];

type Place = {
  readonly key: string;
  readonly frame: SegmentFrame;
  readonly offset: number;
  readonly length: number;
};

const FRAME_CACHE_COUNT = 8;

/**
 * Packs on their way into the state.
 *
 * @example
 * const arrivals = new Arrivals(repository, draft.segments, source, signal);
 * await arrivals.load(state);
 */
export class Arrivals implements UseSource {
  /** Births by pack. */
  readonly births = new Map<string, number>();
  readonly #repository: Repository;
  /** Of what every node can open: lists are never under a session key. */
  readonly #opener: FrameOpener;
  /** Session keys that the packs of the segments are under. */
  readonly sessions = new Set<string>();
  readonly #segments: SegmentRefs;
  readonly #source: UseSource;
  readonly #signal: AbortSignal | undefined;
  readonly #loaded = new Set<string>();
  readonly #places = new Map<string, Place>();
  readonly #frames = new Map<string, Uint8Array>();

  constructor(
    repository: Repository,
    segments: SegmentRefs,
    source: UseSource,
    signal?: AbortSignal,
  ) {
    this.#repository = repository;
    this.#opener = repository.openerFor();
    this.#segments = segments;
    this.#source = source;
    this.#signal = signal;
  }

  /** Reads the segments that this state does not name; what it names is in the index. */
  async load(state: RepositoryState): Promise<void> {
    for (const { id, birth } of this.#segments) {
      if (state.segments.has(id)) continue;
      if (birth <= state.floor) throw packsGone(1, `Index segment ${id} was removed.`);
      if (this.#loaded.has(id)) continue;
      const bytes = await this.#repository.site.get(segmentKey(id, birth), this.#options());
      if (bytes === undefined) throw this.#notHere(segmentKey(id, birth));
      this.#add(decodeSegment(bytes, id, this.#repository.sealer));
      this.#loaded.add(id);
    }
  }

  /** A chunk of the new metadata packs, or of those that `source` knows. */
  async fetch(id: Uint8Array, length: number, signal = this.#signal): Promise<Uint8Array> {
    const place = this.#places.get(idKey(id));
    if (place === undefined) return await this.#source.fetch(id, length, signal);
    const raw = await this.#readFrame(place);
    const chunk = raw.subarray(place.offset, place.offset + place.length);
    if (!this.#repository.sealer.isChunk(chunk, id)) {
      throw damagedError(place.key, `holds other bytes than chunk ${toHex(id)}`);
    }
    return chunk;
  }

  #add(segment: DecodedSegment): void {
    for (const { id, birth, frames } of segment.packs) {
      this.births.set(id, birth);
      for (const { session } of originsOf(frames).origins) {
        if (session !== undefined) this.sessions.add(session);
      }
    }
    if (!segment.packs.some(({ kind }) => kind === "metadata")) return;
    for (const { id, pack, frame, offset, length } of segment.chunks()) {
      const named = segment.packs[pack];
      const row = named?.frames[frame];
      if (named?.kind !== "metadata" || row === undefined) continue;
      const key = packKey(named.id, named.birth);
      this.#places.set(idKey(id), { key, frame: row, offset, length });
    }
  }

  async #readFrame({ key, frame }: Place): Promise<Uint8Array> {
    const { offset, storedLength: length } = frame;
    const name = `${key}/${offset}`;
    const cached = this.#frames.get(name);
    if (cached !== undefined) return cached;
    const stored = await this.#repository.site.get(key, { offset, length, ...this.#options() });
    if (stored === undefined) throw this.#notHere(key);
    const opening = await this.#opener.opening(frame.seal, this.#options());
    const raw = decodeFrame(stored, frame, key, opening);
    for (const oldest of this.#frames.keys()) {
      if (this.#frames.size < FRAME_CACHE_COUNT) break;
      this.#frames.delete(oldest);
    }
    this.#frames.set(name, raw);
    return raw;
  }

  /** No cleanup takes what is above the floor: a node has stored it where we do not look. */
  #notHere(key: string): AppError {
    const { location } = this.#repository.site;
    return new AppError(
      "conflict",
      `${key}, which a node has just stored, is not at ${location}.`,
      {
        guidance:
          "Do all nodes see one directory or bucket, and not copies of it? Compare what they mount; " +
          "then run the backup again.",
        context: { reason: "packs-gone", key },
      },
    );
  }

  #options(): { readonly signal?: AbortSignal } {
    return this.#signal === undefined ? {} : { signal: this.#signal };
  }
}

/** Packs that a backup needs are gone: what was in them must be sent again. */
export function packsGone(
  count: number,
  what: string,
  options: { readonly guidance?: string } = {},
): AppError {
  return new AppError("conflict", `${what} A cleanup has run.`, {
    guidance:
      options.guidance ??
      "Run the backup again: what is gone is read and sent again, all else is reused.",
    context: { reason: "packs-gone", count },
  });
}
