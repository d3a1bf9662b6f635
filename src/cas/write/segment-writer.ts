/**
 * Names the packs of an operation: index segments are written of the journaled packs, and a long
 * operation commits a `keep` of them, so that it loses little if it dies. A pack that is in no current
 * segment and whose birth the floor has passed may be gone: that ends the operation, and the next
 * attempt sends its chunks again.
 */
import { AppError } from "../../base/error.ts";
import { checkMemory } from "../../base/memory-guard.ts";
import { SEGMENT_CHUNK_COUNT } from "./backup-settings.ts";
import type { EntryBodies } from "../log/entry.ts";
import { encodeSegment, segmentKey } from "../format/index-segment.ts";
import type { SegmentPack } from "../format/index-segment.ts";
import { originsOf } from "../format/seal.ts";
import { damagedCatalog } from "../catalog/catalog.ts";
import type { KeyRef } from "../keys/write-session.ts";
import type { PackJournal } from "../catalog/pack-journal.ts";
import type { Repository } from "../log/repository.ts";

/** A segment as entries name it. */
export type SegmentRef = EntryBodies["keep"]["segments"][number];

/** Key objects as entries name them. */
export type EntryKeys = NonNullable<EntryBodies["keep"]["keys"]>;

/** Writes the segments of one operation. */
export class SegmentWriter {
  readonly #repository: Repository;
  readonly #journal: PackJournal;
  readonly #operation: string;
  readonly #signal: AbortSignal | undefined;
  /** In the site, and not named by an entry. */
  #unnamed: SegmentRef[] = [];
  /** Session keys that packs of unnamed segments are under, and the log does not know. */
  #keys = new Map<string, KeyRef>();
  /** In packs that are in no segment, about. */
  #chunkCount = 0;

  constructor(options: {
    readonly repository: Repository;
    readonly journal: PackJournal;
    readonly operation: string;
    readonly signal?: AbortSignal | undefined;
  }) {
    this.#repository = options.repository;
    this.#journal = options.journal;
    this.#operation = options.operation;
    this.#signal = options.signal;
  }

  /** Segments that the `backup` entry must name. */
  get unnamed(): readonly SegmentRef[] {
    return this.#unnamed;
  }

  /** Key objects that the `backup` entry must name. */
  get keys(): readonly KeyRef[] {
    const { keys } = this.#repository.state;
    return [...this.#keys.values()].filter(({ id }) => !keys.has(id));
  }

  /** Says that a pack with so many chunks was acknowledged. */
  note(chunkCount: number): void {
    this.#chunkCount += chunkCount;
  }

  /** Writes segments if there are chunks for a large one. */
  async writeFull(): Promise<void> {
    if (this.#chunkCount >= SEGMENT_CHUNK_COUNT) await this.writeAll();
  }

  /** Writes segments of all packs that are acknowledged now. */
  async writeAll(): Promise<void> {
    this.#chunkCount = 0;
    let isWritten = true;
    while (isWritten) isWritten = await this.#writeOne();
  }

  /** Commits a `keep` of everything that is acknowledged; from then on it is in the index. */
  async keep(): Promise<void> {
    await this.writeAll();
    const segments = this.#unnamed;
    if (segments.length === 0) return;
    await this.#repository.commit(
      async () => {
        this.throwIfGone();
        const { keys } = this;
        const body = keys.length === 0 ? { segments } : { segments, keys: refsOf(keys) };
        return { kind: "keep", body };
      },
      { operation: this.#operation, ...this.#call },
    );
    await this.#repository.catchUp(this.#signal);
    const named = segments.filter(({ id }) => this.#repository.index.hasSegment(id));
    this.#journal.dropSegments(named.map(({ id }) => id));
    this.#unnamed = [];
    this.#keys.clear();
  }

  /** Throws if something that no entry names may be gone. */
  throwIfGone(): void {
    const { floor } = this.#repository.state;
    const packCount = this.#journal.countBelow(this.#operation, floor);
    const segmentCount = this.#unnamed.filter(({ birth }) => birth <= floor).length;
    if (packCount + segmentCount === 0) return;
    this.#journal.dropBelow(floor);
    throw new AppError("conflict", `Cleanup has passed ${packCount} packs of this backup.`, {
      guidance: "Run the backup again: it reads those files again and reuses all the rest.",
      retryable: true,
      context: { reason: "packs-gone", count: packCount },
    });
  }

  /** A key that nobody knows makes its packs worthless: they are to be sent again. */
  #noteKeys({ id: pack, frames }: SegmentPack): void {
    const { keys } = this.#repository.state;
    for (const { session } of originsOf(frames).origins) {
      if (session === undefined || keys.has(session) || this.#keys.has(session)) continue;
      const ref = this.#journal.getKey(session);
      if (ref === undefined) {
        throw damagedCatalog(`it has lost the session key ${session} of pack ${pack}`);
      }
      this.#keys.set(session, ref);
    }
  }

  get #call(): { readonly signal?: AbortSignal } {
    return this.#signal === undefined ? {} : { signal: this.#signal };
  }

  /** False if there was nothing to write. */
  async #writeOne(): Promise<boolean> {
    this.#signal?.throwIfAborted();
    const rows = this.#journal.listUnnamed(this.#operation, SEGMENT_CHUNK_COUNT);
    if (rows.length === 0) return false;
    checkMemory();
    const segment = encodeSegment(rows, this.#repository.sealer);
    checkMemory();
    const birth = this.#repository.state.sequence;
    await this.#repository.putObject(segmentKey(segment.id, birth), segment.bytes, {
      sha256: segment.id,
      ...this.#call,
    });
    for (const { pack } of rows) this.#noteKeys(pack);
    const { id, packs, chunks, bytes } = segment;
    this.#journal.setSegment(
      rows.map(({ pack }) => pack.id),
      id,
    );
    this.#unnamed.push({ id, birth, sizeBytes: bytes.length, packs, chunks });
    return true;
  }
}

/** Key objects, copied for an entry. */
export function refsOf(keys: readonly KeyRef[]): EntryKeys {
  return keys.map(({ recipients, ...key }) => ({ ...key, recipients: [...recipients] }));
}
