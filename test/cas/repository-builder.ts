/**
 * Small repositories for tests, built with the codecs alone: files are cut at fixed lengths, packs
 * and tree nodes are tiny, so that a few KiB have every kind of object and tree. What the site holds
 * already is not sent again, as in a real backup.
 */
import { FORMAT_VERSION } from "../../src/cas/format/header.ts";
import { Database } from "bun:sqlite";
import type { Databases } from "../../src/base/doors.ts";
import { toHex } from "../../src/base/hex.ts";
import { idKey } from "../../src/cas/format/bytes.ts";
import { Catalog } from "../../src/cas/catalog/catalog.ts";
import { ChunkSource } from "../../src/cas/read/chunk-source.ts";
import type { ChunkSourceOptions } from "../../src/cas/read/chunk-source.ts";
import { manifestKey } from "../../src/cas/format/ids.ts";
import type { SegmentPack } from "../../src/cas/format/index-segment.ts";
import { encodeSegment, segmentKey, segmentPackOf } from "../../src/cas/format/index-segment.ts";
import type {
  ChunkRef,
  FileAttributes,
  FileContent,
  FileRecord,
} from "../../src/cas/format/listing.ts";
import { encodeChunkRef, encodeRecord } from "../../src/cas/format/listing.ts";
import type { Manifest, ManifestNode, ManifestVolume } from "../../src/cas/format/manifest.ts";
import { encodeManifest } from "../../src/cas/format/manifest.ts";
import type { PackUse } from "../../src/cas/format/pack-list.ts";
import {
  bitmapSizeBytes,
  encodePackUse,
  packUseKey,
  setFrame,
} from "../../src/cas/format/pack-list.ts";
import type { PackDirectory, PackKind, SealedPack } from "../../src/cas/format/pack.ts";
import { PackBuilder } from "../../src/cas/format/pack-builder.ts";
import { packKey } from "../../src/cas/format/pack.ts";
import type { RepositoryEncryption } from "../../src/cas/keys/repository-encryption.ts";
import type { WriteSession } from "../../src/cas/keys/write-session.ts";
import { refsOf } from "../../src/cas/write/segment-writer.ts";
import { Repository } from "../../src/cas/log/repository.ts";
import type { BackupRecord } from "../../src/cas/log/state.ts";
import type { TreeRoot } from "../../src/cas/format/tree.ts";
import { TreeWriter } from "../../src/cas/format/tree.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import type { Site } from "../../src/sites/site.ts";
import { seededRandom, StillClock } from "../sites/still-clock.ts";

/** One path of a volume; a file if it has content, else a directory unless `type` says more. */
export type TestFile = Partial<Omit<FileAttributes, "path">> & {
  readonly path: string;
  readonly content?: Uint8Array;
  readonly symlink?: string;
  readonly hardlink?: string;
  /** Names its chunks by a tree. */
  readonly isTree?: boolean;
};

/** Volumes by name, by node. */
export type TestNodes = Readonly<Record<string, Readonly<Record<string, readonly TestFile[]>>>>;

/** How finely things are cut. */
export type BuilderOptions = {
  readonly site?: Site;
  readonly chunkSizeBytes?: number;
  readonly packSizeBytes?: number;
  readonly frameSizeBytes?: number;
  readonly nodeSizeBytes?: number;
  readonly seed?: number;
  readonly encryption?: RepositoryEncryption | undefined;
};

const TIME = "2026-11-22T18:00:00.000Z";
const MTIME_NS = 1_700_000_000_123_456_789n;

/** SQLite in memory, a new database at each opening. */
export const memoryDatabases: Databases = {
  open: () => new Database(":memory:", { strict: true }),
  remove: () => undefined,
};

/** What an encrypted repository is read with. */
export type ReaderKeys = {
  readonly encryption?: RepositoryEncryption | undefined;
  readonly identities?: readonly string[];
};

/** A reader with no local state, as `-c FILE` has. */
export async function openReader(
  site: Site,
  options: Partial<ChunkSourceOptions> & ReaderKeys = {},
): Promise<Disposable & { readonly repository: Repository; readonly source: ChunkSource }> {
  const { encryption, identities, ...own } = options;
  const catalog = Catalog.open(memoryDatabases, "/catalog");
  try {
    const doors = { clock: new StillClock(), random: seededRandom(7) };
    const repository = await Repository.open({
      site,
      catalog,
      doors,
      node: "reader",
      readOnly: true,
      encryption,
    });
    const source = sourceOf(repository, { opener: repository.openerFor(identities), ...own });
    return { repository, source, [Symbol.dispose]: () => catalog[Symbol.dispose]() };
  } catch (thrown) {
    catalog[Symbol.dispose]();
    throw thrown;
  }
}

/** A source over a repository. */
export function sourceOf(
  repository: Repository,
  options: Partial<ChunkSourceOptions> = {},
): ChunkSource {
  return new ChunkSource({
    site: repository.site,
    index: repository.index,
    state: () => repository.state,
    concurrency: 4,
    cacheBytes: 1 << 20,
    ...options,
  });
}

/** Builds backups in one repository. */
export class RepositoryBuilder implements Disposable {
  readonly site: Site;
  readonly repository: Repository;
  readonly catalog: Catalog;
  readonly #options: BuilderOptions;
  readonly #random: ReturnType<typeof seededRandom>;

  private constructor(catalog: Catalog, repository: Repository, options: BuilderOptions) {
    this.catalog = catalog;
    this.repository = repository;
    this.site = repository.site;
    this.#options = options;
    this.#random = seededRandom(options.seed ?? 1);
  }

  static async create(options: BuilderOptions = {}): Promise<RepositoryBuilder> {
    const site = options.site ?? new MemorySite();
    const doors = { clock: new StillClock(), random: seededRandom(options.seed ?? 1) };
    const chunker = { rule: "astacus-cdc-1", averageSizeBytes: 262_144 };
    const { encryption } = options;
    await Repository.init(site, { doors, chunker, keys: encryption?.keys });
    const catalog = Catalog.open(memoryDatabases, "/catalog");
    const node = "builder";
    const repository = await Repository.open({ site, catalog, doors, node, encryption });
    return new RepositoryBuilder(catalog, repository, options);
  }

  [Symbol.dispose](): void {
    this.catalog[Symbol.dispose]();
  }

  source(options: Partial<ChunkSourceOptions> = {}): ChunkSource {
    return sourceOf(this.repository, { opener: this.repository.openerFor(), ...options });
  }

  /** Stores and commits a backup. */
  async backup(name: string, nodes: TestNodes): Promise<BackupRecord> {
    const stored = await this.store(name, nodes);
    const operation = toHex(this.#random.bytes(16));
    await this.repository.commit(() => ({ kind: "backup", body: stored }), { operation });
    const record = this.repository.state.backups.get(stored.backup);
    if (record === undefined) throw new Error("the backup is not listed");
    return record;
  }

  /** Stores a backup; what its entry would say. */
  async store(name: string, nodes: TestNodes) {
    const birth = this.repository.state.sequence;
    using session = this.repository.beginSession();
    const keys = session === undefined ? [] : refsOf([await session.store()]);
    const how = { ...this.#options, session };
    const store = new StoreOfOne(this.repository, how, this.#random);
    const manifestNodes: ManifestNode[] = [];
    const totals = { files: 0, bytes: 0, newBytes: 0, storedBytes: 0 };
    for (const [node, volumes] of Object.entries(nodes)) {
      const manifestVolumes = Object.entries(volumes).map(([volume, files]) =>
        store.addVolume(volume, files),
      );
      for (const { files, bytes } of manifestVolumes) {
        totals.files += files;
        totals.bytes += bytes;
      }
      store.seal();
      const list = store.writeList();
      const version = "0.1.0";
      manifestNodes.push({ name: node, zone: "", version, volumes: manifestVolumes, list, totals });
    }
    const { segments, listPacks } = await store.send(birth);
    const manifest: Manifest = {
      v: FORMAT_VERSION,
      backup: toHex(this.#random.bytes(16)),
      name,
      cluster: "test",
      product: "files",
      started: TIME,
      ended: TIME,
      complete: true,
      state: {},
      nodes: manifestNodes,
      problems: [],
      problemCount: 0,
      totals,
    };
    const { id, bytes } = encodeManifest(manifest, session);
    await this.site.put(manifestKey(id, birth), bytes);
    const { backup, cluster, product, started, ended, complete } = manifest;
    return {
      backup,
      name,
      cluster,
      product,
      started,
      ended,
      complete,
      problems: 0,
      plannedAt: birth,
      manifest: { id, birth, sizeBytes: bytes.length },
      segments,
      revived: [],
      lists: manifestNodes.map((node) => ({ node: node.name, root: node.list })),
      listPacks,
      totals,
      ...(keys.length === 0 ? {} : { keys }),
    };
  }
}

/** What one backup sends. */
class StoreOfOne {
  readonly #repository: Repository;
  readonly #options: BuilderOptions;
  readonly #builders: Readonly<Record<PackKind | "open", PackBuilder>>;
  readonly #sealed: SealedPack[] = [];
  /** New chunks by id: in which pack once it is sealed. */
  readonly #places = new Map<string, { readonly pack: string; readonly frame: number }>();
  readonly #pending = new Set<string>();
  /** Chunks that the node at hand uses. */
  #used = new Set<string>();
  readonly #listPacks = new Set<string>();

  constructor(
    repository: Repository,
    options: BuilderOptions & { readonly session: WriteSession | undefined },
    random: ReturnType<typeof seededRandom>,
  ) {
    this.#repository = repository;
    this.#options = options;
    const { session } = options;
    const builder = (kind: PackKind, sealing = session?.sealing): PackBuilder =>
      new PackBuilder({
        kind,
        packSizeBytes: options.packSizeBytes ?? 16 * 1024,
        frameSizeBytes: options.frameSizeBytes ?? 4096,
        compression: { level: 1 },
        salt: () => random.bytes(16),
        sealing,
      });
    const metadata = builder("metadata");
    const open = session === undefined ? metadata : builder("metadata", session.nodeSealing);
    this.#builders = { data: builder("data"), metadata, open };
  }

  addVolume(name: string, files: readonly TestFile[]): ManifestVolume {
    const listing = this.#writer();
    const sorted = files.toSorted((one, other) => (one.path < other.path ? -1 : 1));
    for (const file of sorted) listing.add(file.path, encodeRecord(this.#recordOf(file)));
    const contents = files.flatMap(({ content }) => (content === undefined ? [] : [content]));
    return {
      name,
      root: `/original/${name}`,
      listing: listing.finish(),
      files: contents.length,
      directories: files.filter((file) => this.#recordOf(file).type === "directory").length,
      bytes: contents.reduce((sum, { length }) => sum + length, 0),
    };
  }

  seal(): void {
    for (const builder of Object.values(this.#builders)) this.#take(builder.finish());
  }

  /** The pack list of what was used since the last one. */
  writeList(): TreeRoot {
    const uses = new Map<string, PackUse>();
    for (const key of this.#used) {
      const { pack, frame } = this.#placeOf(key);
      const frameCount = this.#frameCountOf(pack);
      const frames = new Uint8Array(bitmapSizeBytes(frameCount));
      const use = uses.get(pack) ?? { pack, frameCount, frames };
      setFrame(use.frames, frame);
      uses.set(pack, use);
    }
    this.#used = new Set();
    const list = this.#writer("open");
    for (const use of [...uses.values()].toSorted((a, b) => (a.pack < b.pack ? -1 : 1))) {
      list.add(packUseKey(use), encodePackUse(use));
    }
    const root = list.finish();
    this.seal();
    for (const key of this.#used) this.#listPacks.add(this.#placeOf(key).pack);
    this.#used = new Set();
    return root;
  }

  async send(birth: number) {
    const { site } = this.#repository;
    const rows: { pack: SegmentPack; directory: PackDirectory }[] = [];
    for (const sealed of this.#sealed) {
      await site.put(packKey(sealed.id, birth), sealed.bytes);
      rows.push({ pack: segmentPackOf(sealed, birth), directory: sealed.directory });
    }
    const listPacks = [...this.#listPacks];
    if (rows.length === 0) return { segments: [], listPacks };
    const { id, bytes, packs, chunks } = encodeSegment(rows, this.#repository.sealer);
    await site.put(segmentKey(id, birth), bytes);
    return { segments: [{ id, birth, sizeBytes: bytes.length, packs, chunks }], listPacks };
  }

  #writer(kind: "metadata" | "open" = "metadata"): TreeWriter {
    const targetSizeBytes = this.#options.nodeSizeBytes ?? 1024;
    return new TreeWriter((bytes) => this.#put(kind, bytes).id, {
      targetSizeBytes,
    });
  }

  #put(kind: PackKind | "open", bytes: Uint8Array): ChunkRef {
    const id = this.#repository.sealer.chunkId(bytes);
    const key = idKey(id);
    this.#used.add(key);
    const isKnown = this.#places.has(key) || this.#pending.has(key);
    if (!isKnown && this.#repository.index.find(id).length === 0) {
      this.#pending.add(key);
      this.#take(this.#builders[kind].add(id, bytes));
    }
    return { id, length: bytes.length };
  }

  #take(sealed: SealedPack | undefined): void {
    if (sealed === undefined) return;
    this.#sealed.push(sealed);
    for (const [frame, { chunks }] of sealed.directory.frames.entries()) {
      for (const { id } of chunks) this.#places.set(idKey(id), { pack: sealed.id, frame });
    }
  }

  #placeOf(key: string): { readonly pack: string; readonly frame: number } {
    const place =
      this.#places.get(key) ?? this.#repository.index.find(Buffer.from(key, "latin1"))[0];
    if (place === undefined) throw new Error("a chunk has no place");
    return place;
  }

  #frameCountOf(pack: string): number {
    const sealed = this.#sealed.find(({ id }) => id === pack);
    return (sealed?.directory ?? this.#repository.index.findPack(pack))?.frames.length ?? 0;
  }

  #recordOf(file: TestFile): FileRecord {
    const { path, content, symlink, hardlink } = file;
    const attributes: FileAttributes = {
      path,
      mode: file.mode ?? (content === undefined ? 0o755 : 0o644),
      uid: file.uid ?? 0,
      gid: file.gid ?? 0,
      mtimeNs: file.mtimeNs ?? MTIME_NS,
      sparse: file.sparse ?? false,
      xattrs: file.xattrs ?? new Map(),
    };
    if (symlink !== undefined) return { ...attributes, type: "symlink", target: symlink };
    if (hardlink !== undefined) return { ...attributes, type: "hardlink", target: hardlink };
    if (content === undefined) return { ...attributes, type: "directory" };
    const sizeBytes = content.length;
    return { ...attributes, type: "file", sizeBytes, content: this.#contentOf(file, content) };
  }

  #contentOf(file: TestFile, content: Uint8Array): FileContent {
    const step = this.#options.chunkSizeBytes ?? 2000;
    const chunks: ChunkRef[] = [];
    for (let offset = 0; offset < content.length; offset += step) {
      chunks.push(this.#put("data", content.subarray(offset, offset + step)));
    }
    if (file.isTree !== true) return { form: "inline", chunks };
    const list = this.#writer("open");
    for (const chunk of chunks) list.add(idKey(chunk.id), encodeChunkRef(chunk));
    return { form: "tree", root: list.finish() };
  }
}
