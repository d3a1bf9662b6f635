/**
 * Packs that a copy has brought to a site and that no entry of its log names yet: written into index
 * segments when they are many, named by a `keep` every so many bytes or by the `backup` that needs
 * them. Memory: the directories of packs that are in no segment, at most `SEGMENT_CHUNK_COUNT` chunks
 * and one batch; ids of those since the last entry.
 */
import { packsGone } from "../write/arrivals.ts";
import { SEGMENT_CHUNK_COUNT } from "../write/backup-settings.ts";
import { encodeSegment, segmentFramesOf, segmentKey } from "../format/index-segment.ts";
import { storedDirectoryLength } from "../format/index-segment.ts";
import type { SegmentPack } from "../format/index-segment.ts";
import type { PackDirectory } from "../format/pack.ts";
import { decodeDirectory } from "../format/pack.ts";
import { originsOf } from "../format/seal.ts";
import { getNamedPack } from "../clean/pack-standing.ts";
import type { EntryBodies } from "../log/entry.ts";
import type { Repository } from "../log/repository.ts";
import type { RepositoryState } from "../log/state.ts";
import type { PackArrived } from "./transfer-pack.ts";
import type { CopiedKeys } from "./copy-keys.ts";
import { callOf } from "./copy-side.ts";

type SegmentRef = EntryBodies["keep"]["segments"][number];
type Row = { readonly pack: SegmentPack; readonly directory: PackDirectory };

/** What a copy has sent and not named. */
export class UnnamedPacks {
  readonly #repository: Repository;
  readonly #operation: string;
  readonly #signal: AbortSignal | undefined;
  readonly #keys: CopiedKeys;
  /** In no segment. */
  readonly #rows = new Map<string, Row>();
  #rowChunkCount = 0;
  #written: SegmentRef[] = [];
  /** In rows and written segments. */
  readonly #held = new Set<string>();
  /** Births of all of them, also of those that were given up: they need not be sent again. */
  readonly #births = new Map<string, number>();
  /** Bytes since the last entry that named any. */
  sizeBytes = 0;

  constructor(
    repository: Repository,
    options: {
      readonly operation: string;
      readonly keys: CopiedKeys;
      readonly signal: AbortSignal | undefined;
    },
  ) {
    this.#repository = repository;
    this.#operation = options.operation;
    this.#keys = options.keys;
    this.#signal = options.signal;
  }

  /** Segments that the next entry must name. */
  get segments(): SegmentRef[] {
    return [...this.#written];
  }

  /** True if the next entry names the pack. */
  has(pack: string): boolean {
    return this.#held.has(pack);
  }

  /** The birth under which this copy has sent a pack. */
  birthOf(pack: string): number | undefined {
    return this.#births.get(pack);
  }

  /** Takes packs that lie at the site now. */
  async add(arrived: readonly PackArrived[]): Promise<void> {
    for (const { pack: id, birth, sizeBytes, directoryBytes } of arrived) {
      const directory = decodeDirectory(directoryBytes, `Pack ${id}`);
      const frames = segmentFramesOf(directory);
      const { origins } = originsOf(frames);
      await this.#keys.bring(origins.flatMap(({ session }) => session ?? []));
      const { kind } = directory;
      const directoryLength = storedDirectoryLength({ directory, bytes: { length: sizeBytes } });
      const pack = { id, birth, sizeBytes, directoryLength, kind, frames };
      this.#rows.set(id, { pack, directory });
      this.#births.set(id, birth);
      this.#held.add(id);
      this.sizeBytes += sizeBytes;
      this.#rowChunkCount += directory.frames.reduce((sum, { chunks }) => sum + chunks.length, 0);
      if (this.#rowChunkCount >= SEGMENT_CHUNK_COUNT) await this.writeAll();
    }
  }

  /** Writes a segment of what is in none. */
  async writeAll(): Promise<void> {
    const rows = [...this.#rows.values()];
    if (rows.length === 0) return;
    const segment = encodeSegment(rows, this.#repository.sealer);
    const birth = this.#repository.state.sequence;
    const sent = { sha256: segment.id, ...callOf(this.#signal) };
    await this.#repository.putObject(segmentKey(segment.id, birth), segment.bytes, sent);
    const { id, packs, chunks, bytes } = segment;
    const ref = { id, birth, sizeBytes: bytes.length, packs, chunks };
    this.#written.push(ref);
    this.#rows.clear();
    this.#rowChunkCount = 0;
  }

  /** Commits a `keep` of everything; from then on it survives whatever happens to us. */
  async keep(): Promise<void> {
    await this.writeAll();
    if (this.#written.length === 0) return;
    await this.#repository.commit(
      (state) => {
        this.mustHold(state);
        return { kind: "keep", body: { segments: this.segments, ...this.#keys.named } };
      },
      { operation: this.#operation, ...callOf(this.#signal) },
    );
    this.named();
  }

  /**
   * Throws `packs-gone` if something may have been removed, or if others have named a pack of ours
   * under another birth: then that one is to be used.
   */
  mustHold(state: RepositoryState): void {
    const isHeld = (pack: string): boolean => {
      const birth = this.#births.get(pack) ?? 0;
      const named = getNamedPack(this.#repository, state, pack);
      if (named !== undefined) return named.birth === birth || state.repairs.has(pack);
      return birth > state.floor;
    };
    const gone = [...this.#held].filter((pack) => !isHeld(pack));
    const isOld = this.#written.some(({ birth }) => birth <= state.floor);
    if (gone.length > 0 || isOld) throw packsGone(gone.length, "Packs of this copy were removed.");
  }

  /** An entry has named everything. */
  named(): void {
    this.giveUp();
    this.#births.clear();
    this.sizeBytes = 0;
  }

  /** Begins again with what the next entry names; what was sent need not be sent again. */
  giveUp(): void {
    this.#rows.clear();
    this.#rowChunkCount = 0;
    this.#written = [];
    this.#held.clear();
  }
}
