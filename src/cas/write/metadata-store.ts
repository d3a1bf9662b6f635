/**
 * Stores the nodes of trees: a node that the site has is not sent again, the others go into metadata
 * packs. In an encrypted repository the nodes of listings are sealed under the session key, those of
 * lists under the key that every node has. `put` is synchronous, as tree writers need it; sealed packs go to the upload queue, whose
 * `room` the owner awaits between records.
 */
import type { ChunkLookup, FoundPlace } from "./chunk-lookup.ts";
import { PackBuilder } from "../format/pack-builder.ts";
import type { SealedPack } from "../format/pack.ts";
import { PLAIN_SEALER } from "../format/seal.ts";
import type { FrameSealing, Sealer } from "../format/seal.ts";
import type { WriteSession } from "../keys/write-session.ts";
import type { UploadQueue } from "./upload-queue.ts";

/** What a metadata store is made with. */
export type MetadataStoreOptions = {
  readonly lookup: ChunkLookup;
  readonly uploads: UploadQueue;
  readonly packSizeBytes: number;
  readonly compressionLevel: number;
  readonly salt: () => Uint8Array;
  /** In an encrypted repository. */
  readonly session?: WriteSession | undefined;
  /** A node that the site has. */
  readonly onFound: (place: FoundPlace) => void;
  /** A new pack of nodes. */
  readonly onSealed?: (pack: SealedPack) => void;
};

/** The nodes of one operation's trees. */
export class MetadataStore {
  readonly #options: MetadataStoreOptions;
  readonly #sealer: Sealer;
  /** Of nodes that only identities open; plain repositories have no others. */
  readonly #builder: PackBuilder;
  /** Of nodes that every node of the repository opens. */
  readonly #openBuilder: PackBuilder;

  constructor(options: MetadataStoreOptions) {
    this.#options = options;
    const { session } = options;
    this.#sealer = session?.sealer ?? PLAIN_SEALER;
    this.#builder = this.#makeBuilder(session?.sealing);
    this.#openBuilder =
      session === undefined ? this.#builder : this.#makeBuilder(session.nodeSealing);
  }

  /** Stores a node of a listing; its id. */
  put(bytes: Uint8Array): Uint8Array {
    return this.#put(bytes, false);
  }

  /** Stores a node that backups of any node read again, without an identity; its id. */
  putOpen(bytes: Uint8Array): Uint8Array {
    return this.#put(bytes, true);
  }

  #put(bytes: Uint8Array, isOpen: boolean): Uint8Array {
    const id = this.#sealer.chunkId(bytes);
    const { lookup } = this.#options;
    if (lookup.isUnderWay(id)) return id;
    const place = lookup.find(id, { isOpen });
    if (place !== undefined) {
      this.#options.onFound(place);
      return id;
    }
    lookup.begin(id);
    this.#send((isOpen ? this.#openBuilder : this.#builder).add(id, bytes));
    return id;
  }

  /** Seals what is pending. */
  flush(): void {
    this.#send(this.#builder.finish());
    if (this.#openBuilder !== this.#builder) this.#send(this.#openBuilder.finish());
  }

  #makeBuilder(sealing: FrameSealing | undefined): PackBuilder {
    const { packSizeBytes, compressionLevel, salt } = this.#options;
    const compression = { level: compressionLevel };
    return new PackBuilder({ kind: "metadata", packSizeBytes, compression, salt, sealing });
  }

  #send(pack: SealedPack | undefined): void {
    if (pack === undefined) return;
    this.#options.onSealed?.(pack);
    this.#options.uploads.push(pack);
  }
}
