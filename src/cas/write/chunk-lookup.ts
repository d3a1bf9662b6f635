/**
 * Is this chunk in the site already? Asked of the index (packs that the log names and that were not
 * deleted, live ones first), of the journal (packs that only we know), and of the chunks that are on
 * their way in this operation. Packs that are distrusted count as not there. What is found is entered as
 * a use. Memory: the ids of chunks between
 * the decision to send them and the acknowledgement of their pack.
 */
import { idKey } from "../format/bytes.ts";
import type { ChunkIndex } from "../catalog/catalog-index.ts";
import type { PackJournal } from "../catalog/pack-journal.ts";
import type { SealedPack } from "../format/pack.ts";
import { isDeletedPack } from "../log/state.ts";
import type { RepositoryState } from "../log/state.ts";
import type { UseTable } from "./use-table.ts";

/** A place of a chunk in an acknowledged pack. */
export type FoundPlace = {
  readonly pack: string;
  readonly birth: number;
  readonly frame: number;
  readonly frameCount: () => number;
  /** Other live packs of the log that hold it as well, if there are any. */
  readonly others?: readonly FoundPlace[];
};

/** Where the chunks of one operation are looked up. */
export class ChunkLookup {
  readonly #index: ChunkIndex;
  readonly #journal: PackJournal;
  readonly #state: () => RepositoryState;
  readonly #uses: UseTable;
  readonly #operation: string;
  readonly #isDistrusted: (pack: string, birth: number) => boolean;
  readonly #underWay = new Set<string>();

  constructor(options: {
    readonly index: ChunkIndex;
    readonly journal: PackJournal;
    readonly state: () => RepositoryState;
    readonly uses: UseTable;
    readonly operation: string;
    /** Of packs that may not be relied on; none unless told. */
    readonly isDistrusted?: (pack: string, birth: number) => boolean;
  }) {
    this.#index = options.index;
    this.#journal = options.journal;
    this.#state = options.state;
    this.#uses = options.uses;
    this.#operation = options.operation;
    this.#isDistrusted = options.isDistrusted ?? (() => false);
  }

  /** False if the chunk is surely not in the site; hardly ever asks the catalog. */
  mayFind(id: Uint8Array): boolean {
    return this.#index.mayHave(id) || this.#journal.mayHave(id);
  }

  /**
   * The best place of a chunk; a journaled pack becomes one of this operation. With `isOpen`, one that
   * every node of the repository can open.
   */
  find(id: Uint8Array, how: { readonly isOpen?: boolean } = {}): FoundPlace | undefined {
    if (!this.mayFind(id)) return undefined;
    const state = this.#state();
    let retired: FoundPlace | undefined;
    const live: FoundPlace[] = [];
    for (const { pack, birth, frame, seal } of this.#index.find(id)) {
      if (isDeletedPack(state, pack, birth) || this.#isDistrusted(pack, birth)) continue;
      if (how.isOpen === true && seal?.origin.session !== undefined) continue;
      const found = { pack, birth, frame, frameCount: () => this.frameCountOf(pack) };
      if (state.retired.has(pack)) retired = found;
      else live.push(found);
    }
    const [best, ...others] = live;
    if (best !== undefined) return others.length === 0 ? best : { ...best, others };
    if (retired !== undefined) return retired;
    const place = this.#journal.find(id, how);
    if (place === undefined || place.birth <= state.floor) return undefined;
    if (this.#isDistrusted(place.pack, place.birth)) return undefined;
    if (place.operation !== this.#operation) this.#journal.adopt(place.pack, this.#operation);
    return { ...place, frameCount: () => place.frameCount };
  }

  /** True if the chunk is in the site; its place is then entered as a use. */
  use(id: Uint8Array): boolean {
    const place = this.find(id);
    if (place === undefined) return false;
    this.#uses.addFrame(place.pack, place.frame, place.frameCount);
    return true;
  }

  /** True if this operation has decided to send the chunk, and its pack is not acknowledged. */
  isUnderWay(id: Uint8Array): boolean {
    return this.#underWay.has(idKey(id));
  }

  /** The chunk will be sent: nobody else needs to. */
  begin(id: Uint8Array): void {
    this.#underWay.add(idKey(id));
  }

  /** The chunk will not be sent by us. */
  cancel(id: Uint8Array): void {
    this.#underWay.delete(idKey(id));
  }

  /** The pack is acknowledged and journaled: its chunks are found there from now on. */
  acknowledge(pack: SealedPack): void {
    for (const frame of pack.directory.frames) {
      for (const chunk of frame.chunks) this.#underWay.delete(idKey(chunk.id));
    }
  }

  /** Frames of a pack of the index. */
  frameCountOf(pack: string): number {
    return this.#index.findPack(pack)?.frames.length ?? 0;
  }
}
