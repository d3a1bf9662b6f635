/**
 * Keeps the catalog's index of chunks in step with the state: segments that became current are read
 * and entered, those that did not stay current are dropped, deleted packs are forgotten. Being behind
 * is safe (a chunk that is not found is sent again); so is stopping anywhere, since what is to be
 * done is always computed from what both sides hold. Memory: `BATCH_SIZE_BYTES` of segments (or one),
 * decoded, and those that are being fetched.
 */
import { AppError } from "../../base/error.ts";
import { mapConcurrent } from "../../base/semaphore.ts";
import type { Site, SiteCall } from "../../sites/site.ts";
import type { CatalogLog } from "../catalog/catalog-log.ts";
import type { ChunkIndex, FoundSegment } from "../catalog/catalog-index.ts";
import { decodeSegment, segmentKey } from "../format/index-segment.ts";
import type { DecodedSegment } from "../format/index-segment.ts";
import { PLAIN_SEALER } from "../format/seal.ts";
import type { Sealer } from "../format/seal.ts";
import { isDeletedPack } from "./state.ts";
import type { RepositoryState } from "./state.ts";

const FETCH_CONCURRENCY = 2;

/**
 * Segments that are entered together: some 180,000 chunks. At eight million chunks the thread is held
 * for 4 s by twice as many.
 */
const BATCH_SIZE_BYTES = 8 * 1024 * 1024;

type Ref = { readonly id: string; readonly birth: number };
type Fetched = { readonly ref: Ref; readonly bytes: Uint8Array | undefined };

/** What follows the state with the index. */
export class IndexFollower {
  readonly #site: Site;
  readonly #index: ChunkIndex;
  readonly #log: CatalogLog;
  readonly #sealer: Sealer;
  readonly #batchSizeBytes: number;
  /** Current segments that cannot be read, by id: their chunks look new, and are sent again. */
  readonly #problems = new Map<string, AppError>();

  constructor(parts: {
    readonly site: Site;
    readonly index: ChunkIndex;
    readonly log: CatalogLog;
    readonly sealer?: Sealer;
    /** Of segments that are entered together. */
    readonly batchSizeBytes?: number;
  }) {
    this.#sealer = parts.sealer ?? PLAIN_SEALER;
    this.#site = parts.site;
    this.#index = parts.index;
    this.#log = parts.log;
    this.#batchSizeBytes = parts.batchSizeBytes ?? BATCH_SIZE_BYTES;
  }

  /** Current segments that are missing or damaged at the site, by id. */
  get problems(): ReadonlyMap<string, AppError> {
    return this.#problems;
  }

  /**
   * Lets the index answer by a state: forgets packs that were deleted, and finds those that were
   * repaired where they lie now. Needs no site, and must come before a new state is shown.
   */
  showState(state: RepositoryState): void {
    this.#index.setRepairs(state.repairs);
    this.forgetDeleted(state);
  }

  /** Forgets packs that were deleted. */
  forgetDeleted(state: RepositoryState): void {
    const indexed = this.#log.getBinding()?.indexed ?? 0;
    const deleted = state.deleted;
    const recent = [...deleted].filter(([, { sequence }]) => sequence > indexed);
    if (recent.length === 0) return;
    this.#index.removePacks(
      recent.map(([pack]) => pack),
      (pack) => deleted.get(pack)?.floor ?? 0,
    );
  }

  /**
   * Forgets deleted packs that a merge makes the state forget, before it does. Else a node that was
   * away would find them in a former segment for as long as it cannot read what replaced that one.
   */
  forgetDropped(state: RepositoryState, dropped: readonly string[]): void {
    if (dropped.length === 0) return;
    this.#index.removePacks(dropped, (pack) => state.deleted.get(pack)?.floor ?? 0);
  }

  /** Reads what became current and drops what did not stay; true if all of it could be read. */
  async follow(state: RepositoryState, options: SiteCall = {}): Promise<boolean> {
    const held = new Set(this.#index.listSegments());
    const wanted = [...state.segments.values()].filter(({ id }) => !held.has(id));
    this.#problems.clear();
    const fetched = mapConcurrent(
      wanted,
      FETCH_CONCURRENCY,
      (ref, signal) => this.#read(ref, { signal }),
      options.signal,
    );
    const batch: FoundSegment[] = [];
    let batchBytes = 0;
    for await (const found of fetched) {
      const { ref, bytes } = found;
      const segment = this.#decode(found);
      if (segment instanceof AppError) {
        this.#problems.set(ref.id, segment);
        continue;
      }
      const sizeBytes = bytes?.length ?? 0;
      if (batchBytes + sizeBytes > this.#batchSizeBytes) {
        this.#apply(state, batch.splice(0));
        batchBytes = 0;
      }
      batch.push({ ref, segment });
      batchBytes += sizeBytes;
    }
    this.#apply(state, batch);
    const stale = [...held].filter((id) => !state.segments.has(id));
    // What replaces a stale segment may be what could not be read.
    if (this.#problems.size > 0) return false;
    this.#index.removeSegments(stale);
    this.#log.setIndexed(state.sequence);
    return true;
  }

  /**
   * Births of the packs that segments would newly name. Reads the segments from the site, which also
   * shows that they are there.
   */
  async birthsOf(
    state: RepositoryState,
    refs: readonly Ref[],
    options: SiteCall = {},
  ): Promise<number[]> {
    const births: number[] = [];
    for await (const found of mapConcurrent(
      refs,
      FETCH_CONCURRENCY,
      (ref, signal) => this.#read(ref, { signal }),
      options.signal,
    )) {
      const segment = this.#decode(found);
      if (segment instanceof AppError) throw segment;
      for (const { id, birth } of segment.packs) {
        // Of a repaired pack that birth counts under which it lies now.
        if (state.repairs.has(id)) continue;
        if (this.#index.findPack(id)?.birth !== birth) births.push(birth);
      }
    }
    return births;
  }

  /** Many at once; one by one where one of them is not what its writer should have written. */
  #apply(state: RepositoryState, segments: readonly FoundSegment[]): void {
    const isDeleted = (pack: string, birth: number): boolean => isDeletedPack(state, pack, birth);
    try {
      this.#index.applySegments(segments, isDeleted);
    } catch (thrown) {
      if (!isBadSegment(thrown)) throw thrown;
      const [first, ...others] = segments;
      if (first !== undefined && others.length === 0) this.#problems.set(first.ref.id, thrown);
      else for (const segment of segments) this.#apply(state, [segment]);
    }
  }

  async #read(ref: Ref, options: SiteCall): Promise<Fetched> {
    return { ref, bytes: await this.#site.get(segmentKey(ref.id, ref.birth), options) };
  }

  /** Only when its turn has come: decoded, a segment takes up to three times the memory. */
  #decode({ ref, bytes }: Fetched): DecodedSegment | AppError {
    if (bytes === undefined) return missingSegment(this.#site, segmentKey(ref.id, ref.birth));
    try {
      return decodeSegment(bytes, ref.id, this.#sealer);
    } catch (thrown) {
      if (!isBadSegment(thrown)) throw thrown;
      return thrown;
    }
  }
}

/** What its bytes say makes no sense; the catalog itself is another matter. */
function isBadSegment(thrown: unknown): thrown is AppError {
  return (
    thrown instanceof AppError && thrown.kind === "damaged" && thrown.context["catalog"] !== true
  );
}

function missingSegment(site: Site, key: string): AppError {
  return new AppError("damaged", `${key} is missing at ${site.location}.`, {
    guidance:
      "`astacus verify --repair` on a node that has read it before writes it again from what that " +
      "node knows. If no node can, fill a new site from one that is whole.",
    context: { site: site.name, key },
  });
}
