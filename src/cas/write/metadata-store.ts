/**
 * Stores the nodes of trees: a node that the site has is not sent again, the others go into metadata
 * packs. `put` is synchronous, as tree writers need it; sealed packs go to the upload queue, whose
 * `room` the owner awaits between records.
 */
import { sha256 } from "../../base/hex.ts";
import type { ChunkLookup, FoundPlace } from "./chunk-lookup.ts";
import { PackBuilder } from "../format/pack-builder.ts";
import type { SealedPack } from "../format/pack.ts";
import type { UploadQueue } from "./upload-queue.ts";

/** What a metadata store is made with. */
export type MetadataStoreOptions = {
  readonly lookup: ChunkLookup;
  readonly uploads: UploadQueue;
  readonly packSizeBytes: number;
  readonly compressionLevel: number;
  readonly salt: () => Uint8Array;
  /** A node that the site has. */
  readonly onFound: (place: FoundPlace) => void;
  /** A new pack of nodes. */
  readonly onSealed?: (pack: SealedPack) => void;
};

/** The nodes of one operation's trees. */
export class MetadataStore {
  readonly #options: MetadataStoreOptions;
  readonly #builder: PackBuilder;

  constructor(options: MetadataStoreOptions) {
    this.#options = options;
    this.#builder = new PackBuilder({
      kind: "metadata",
      packSizeBytes: options.packSizeBytes,
      compression: { level: options.compressionLevel },
      salt: options.salt,
    });
  }

  /** Stores a node; its id. */
  put(bytes: Uint8Array): Uint8Array {
    const id = sha256(bytes);
    const { lookup } = this.#options;
    if (lookup.isUnderWay(id)) return id;
    const place = lookup.find(id);
    if (place !== undefined) {
      this.#options.onFound(place);
      return id;
    }
    lookup.begin(id);
    this.#send(this.#builder.add(id, bytes));
    return id;
  }

  /** Seals what is pending. */
  flush(): void {
    this.#send(this.#builder.finish());
  }

  #send(pack: SealedPack | undefined): void {
    if (pack === undefined) return;
    this.#options.onSealed?.(pack);
    this.#options.uploads.push(pack);
  }
}
