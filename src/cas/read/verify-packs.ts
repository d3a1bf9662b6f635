/**
 * Checks packs, each once, however many backups use it: that the object is there and as long as the
 * index says, and if asked that every frame and every chunk in it is what its id says. Memory: an
 * entry for each pack, and for `READ_CONCURRENCY` packs all their bytes.
 */
import { forEachConcurrent } from "../../base/semaphore.ts";
import type { Site, SiteCall } from "../../sites/site.ts";
import { damagedError } from "../format/bytes.ts";
import type { ChunkIndex, IndexedPack } from "../catalog/catalog-index.ts";
import { segmentFramesOf } from "../format/index-segment.ts";
import { bitmapSizeBytes, hasFrame, setFrame } from "../format/pack-list.ts";
import type { FrameRow, PackDirectory } from "../format/pack.ts";
import { decodeFrame, isStoredFrame, openPack, packKey } from "../format/pack.ts";
import { PLAIN_OPENER } from "../keys/frame-opener.ts";
import type { FrameOpener } from "../keys/frame-opener.ts";
import type { ProblemBook } from "./verify-problems.ts";

const HEAD_CONCURRENCY = 16;
const READ_CONCURRENCY = 4;

/** What a check needs. */
export type PackCheckOptions = {
  readonly site: Site;
  readonly index: Pick<ChunkIndex, "findPack">;
  readonly deep: boolean;
  /** Opens frames of an encrypted repository, as far as its identities reach. */
  readonly opener?: FrameOpener | undefined;
  readonly problems: ProblemBook;
  /** Told of bytes that were read. */
  readonly onRead: (sizeBytes: number) => void;
  /** Told of each pack that is missing or damaged, perhaps more than once. */
  readonly onBad?: ((pack: string) => void) | undefined;
};

/** How a frame stands: `doubtful` ones may still give their chunks. */
export type FrameStanding = "good" | "doubtful" | "gone";

/** The packs that were checked, and what is wrong with them. */
export class PackChecks {
  readonly #options: PackCheckOptions;
  readonly #checked = new Set<string>();
  readonly #gone = new Set<string>();
  /** Frames that cannot be believed. */
  readonly #doubtful = new Map<string, Uint8Array>();
  packBytes = 0;
  /** Frames that were checked and not opened, for want of an identity. */
  closedFrames = 0;

  constructor(options: PackCheckOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#checked.size;
  }

  /** Checks those packs that were not. */
  async check(packs: Iterable<string>, signal: AbortSignal | undefined): Promise<void> {
    const fresh = [...packs].filter((pack) => !this.#checked.has(pack));
    const concurrency = this.#options.deep ? READ_CONCURRENCY : HEAD_CONCURRENCY;
    await forEachConcurrent(
      fresh,
      concurrency,
      async (pack, innerSignal) => {
        this.#checked.add(pack);
        await this.#check(pack, { signal: innerSignal });
      },
      signal,
    );
  }

  standing(place: { readonly pack: string; readonly frame: number }): FrameStanding {
    if (this.#gone.has(place.pack)) return "gone";
    const frames = this.#doubtful.get(place.pack);
    return frames === undefined || !hasFrame(frames, place.frame) ? "good" : "doubtful";
  }

  async #check(id: string, call: SiteCall): Promise<void> {
    const { index, problems, deep } = this.#options;
    const pack = index.findPack(id);
    if (pack === undefined) {
      this.#gone.add(id);
      problems.add(`pack ${id}`, "missing", `Pack ${id} is in no current index segment.`);
      return;
    }
    this.packBytes += pack.sizeBytes;
    if (deep) await this.#read(pack, call);
    else await this.#ask(pack, call);
  }

  async #ask(pack: IndexedPack, call: SiteCall): Promise<void> {
    const { site, problems } = this.#options;
    const key = packKey(pack.id, pack.birth);
    const head = await site.head(key, call);
    if (head === undefined) return this.#lose(pack, key);
    if (head.sizeBytes === pack.sizeBytes) return;
    const message = `${key} has ${head.sizeBytes} bytes instead of ${pack.sizeBytes}.`;
    problems.add(key, "damaged", message);
    this.#doubtAll(pack);
  }

  async #read(pack: IndexedPack, call: SiteCall): Promise<void> {
    const { site, problems, onRead, opener = PLAIN_OPENER } = this.#options;
    const key = packKey(pack.id, pack.birth);
    const bytes = await site.get(key, call);
    if (bytes === undefined) return this.#lose(pack, key);
    onRead(bytes.length);
    let directory: PackDirectory;
    try {
      directory = openPack(bytes, pack.id, key, opener.sealer);
      checkAgainstIndex(directory, pack, key);
    } catch (thrown) {
      problems.addThrown(thrown, key);
      this.#doubtAll(pack);
      return;
    }
    for (const [number, frame] of directory.frames.entries()) {
      try {
        const what = `Frame ${number} of ${key}`;
        if (opener.canOpen(frame.seal?.origin)) {
          checkFrame(bytes, frame, {
            what,
            opener,
            opening: await opener.opening(frame.seal, call),
          });
        } else {
          checkClosedFrame(bytes, frame, { what, opener });
          this.closedFrames += 1;
        }
      } catch (thrown) {
        problems.addThrown(thrown, key);
        this.#doubt(pack, number);
      }
    }
  }

  #lose(pack: IndexedPack, key: string): void {
    this.#gone.add(pack.id);
    this.#options.onBad?.(pack.id);
    this.#options.problems.add(key, "missing", `${key} is missing.`);
  }

  #doubtAll(pack: IndexedPack): void {
    for (const number of pack.frames.keys()) this.#doubt(pack, number);
  }

  #doubt(pack: IndexedPack, frame: number): void {
    this.#options.onBad?.(pack.id);
    const size = bitmapSizeBytes(pack.frames.length);
    const frames = this.#doubtful.get(pack.id) ?? new Uint8Array(size);
    setFrame(frames, frame);
    this.#doubtful.set(pack.id, frames);
  }
}

function checkAgainstIndex(directory: PackDirectory, pack: IndexedPack, key: string): void {
  const isSame = Bun.deepEquals(segmentFramesOf(directory), [...pack.frames], true);
  if (!isSame) throw damagedError(key, "is not divided as the index says", { key });
}

type FrameCheck = { readonly what: string; readonly opener: FrameOpener };

function checkFrame(
  bytes: Uint8Array,
  frame: FrameRow,
  { what, opener, opening }: FrameCheck & { readonly opening: Uint8Array | undefined },
): void {
  const stored = bytes.subarray(frame.offset, frame.offset + frame.storedLength);
  if (opening !== undefined) checkClosedFrame(bytes, frame, { what, opener });
  const raw = decodeFrame(stored, frame, what, opening);
  for (const { id, offset, length } of frame.chunks) {
    if (opener.sealer.isChunk(raw.subarray(offset, offset + length), id)) continue;
    throw damagedError(what, "has a chunk that does not match its id");
  }
}

/** What shows without a key: the stored bytes are those of the directory. */
function checkClosedFrame(bytes: Uint8Array, frame: FrameRow, { what, opener }: FrameCheck): void {
  const stored = bytes.subarray(frame.offset, frame.offset + frame.storedLength);
  if (isStoredFrame(stored, frame, opener.sealer)) return;
  throw damagedError(what, "does not match its checksum");
}
