/**
 * The backup of one node, from files to a pack list: `storeVolume` for each volume, `settle` after all
 * nodes have stored, `finish`, and `committed` once the log has the backup. It commits nothing itself
 * but `keep`s. Nothing is forgotten before `committed`: whatever fails leaves packs that the next
 * attempt finds in the journal, and rows whose chunks it looks up.
 *
 * Memory, whatever the size of the volumes: the planes' buffers and packs (backup-settings.ts), the
 * window of one volume, bounded tables that spill to the catalog, and one metadata pack.
 */
import type { Clock, FileSystem, Random } from "../../base/doors.ts";
import { emptyTotals, ProblemList } from "./backup-context.ts";
import type { BackupContext, NodeProgress, NodeTotals } from "./backup-context.ts";
import { KEEP_EVERY_CHUNK_COUNT } from "./backup-settings.ts";
import type { BackupSettings } from "./backup-settings.ts";
import type { Catalog } from "../catalog/catalog.ts";
import { ChunkLookup } from "./chunk-lookup.ts";
import type { FoundPlace } from "./chunk-lookup.ts";
import { DistrustedPacks, isDistrusted } from "../catalog/distrusted-packs.ts";
import type { DistrustedPack } from "../catalog/distrusted-packs.ts";
import type { ChunkSource } from "../read/chunk-source.ts";
import { ForeignChunks } from "./claims.ts";
import type { Claims } from "./claims.ts";
import { MetadataStore } from "./metadata-store.ts";
import { MIRROR_PATIENCE_MS_DEFAULT, MirrorSends } from "./mirror-sends.ts";
import type { MirrorSent, MirrorTarget } from "./mirror-sends.ts";
import {
  addNodeLists,
  ListNodeCache,
  TrustedLists,
  trustsNobody,
  writeNodeList,
} from "./node-list.ts";
import { PackJournal } from "../catalog/pack-journal.ts";
import { packKey, SALT_SIZE_BYTES } from "../format/pack.ts";
import type { SealedPack } from "../format/pack.ts";
import type { DataPlane } from "./plane.ts";
import type { Repository } from "../log/repository.ts";
import type { WriteSession } from "../keys/write-session.ts";
import { refsOf, SegmentWriter } from "./segment-writer.ts";
import type { EntryKeys, SegmentRef } from "./segment-writer.ts";
import { settleForeignChunks } from "./settle-chunks.ts";
import { StatCache } from "../catalog/stat-cache.ts";
import type { TreeRoot } from "../format/tree.ts";
import { UploadQueue } from "./upload-queue.ts";
import { UseTable } from "./use-table.ts";
import type { Problem, VolumeSource } from "./volume-source.ts";
import { storeVolume } from "./volume-writer.ts";
import type { StoredVolume } from "./volume-writer.ts";

export type { NodeProgress, NodeTotals } from "./backup-context.ts";
export type { BackupSettings } from "./backup-settings.ts";
export type { Claims } from "./claims.ts";
export type { MirrorSent, MirrorTarget } from "./mirror-sends.ts";
export type { Problem, VolumeSource, WalkEntry } from "./volume-source.ts";

/** What a node has stored: its share of the manifest and of the `backup` entry. */
export type NodeStored = {
  readonly volumes: readonly StoredVolume[];
  readonly list: TreeRoot;
  /** Packs that hold the list itself. */
  readonly listPacks: readonly string[];
  /** New segments that no `keep` has named. */
  readonly segments: readonly SegmentRef[];
  readonly totals: NodeTotals;
  readonly problems: readonly Problem[];
  readonly problemCount: number;
  readonly plannedAt: number;
  /** Key objects that the entry must name; none in a plain repository. */
  readonly keys?: EntryKeys;
  /** What each mirror was sent beside the primary. */
  readonly mirrors: readonly MirrorSent[];
};

/** What a node's backup is made with. */
export type NodeBackupOptions = {
  readonly repository: Repository;
  readonly catalog: Catalog;
  readonly doors: { readonly clock: Clock; readonly files: FileSystem; readonly random: Random };
  readonly plane: DataPlane;
  readonly source: ChunkSource;
  readonly claims: Claims;
  readonly settings: BackupSettings;
  /** Random id of the operation, 32 hex digits. */
  readonly operation: string;
  readonly node: string;
  /** Sites that get each pack beside the primary, as long as they keep up. */
  readonly mirrors?: readonly MirrorTarget[];
  /** Trust no earlier list: look every chunk up. */
  readonly lookUpAll?: boolean;
  /** Packs that other nodes found damaged or missing, beside those of this node's catalog. */
  readonly distrusted?: readonly DistrustedPack[];
  readonly onProgress?: ((progress: NodeProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
};

/** Metadata packs are small: a restore reads them first, and memory holds one. */
const METADATA_PACK_SIZE_BYTES_MAX = 4 * 1024 * 1024;

const PROGRESS_INTERVAL_MS = 250;

/**
 * One node's share of one backup.
 *
 * @example
 * using backup = new NodeBackup({ repository, catalog, doors, plane, source, claims, … });
 * await backup.storeVolume(volume);
 * await backup.settle();
 * const stored = await backup.finish();
 * // … the coordinator commits …
 * backup.committed(backupId);
 */
export class NodeBackup implements Disposable {
  readonly #options: NodeBackupOptions;
  /** In an encrypted repository. */
  readonly #session: WriteSession | undefined;
  readonly #journal: PackJournal;
  readonly #statCache: StatCache;
  readonly #uses: UseTable;
  readonly #lookup: ChunkLookup;
  readonly #uploads: UploadQueue;
  readonly #mirrors: MirrorSends;
  readonly #metadata: MetadataStore;
  readonly #segments: SegmentWriter;
  readonly #trusted: TrustedLists;
  readonly #listNodes: ListNodeCache;
  readonly #foreign: ForeignChunks;
  readonly #context: BackupContext;
  readonly #volumes: StoredVolume[] = [];
  readonly #number: number;
  readonly #plannedAt: number;
  /** Nodes of listings that lie in several packs, as when two nodes have equal folders. */
  readonly #manifold: FoundPlace[] = [];
  /** Packs that hold the list; undefined before the list is written. */
  #listPacks: Set<string> | undefined;
  #isBegun = false;
  #bytesSinceKeep = 0;
  #chunksSinceKeep = 0;
  #phase = "store";
  #progressMs = -Infinity;

  constructor(options: NodeBackupOptions) {
    const { repository, catalog, operation, settings, signal, source } = options;
    this.#options = options;
    this.#session = repository.beginSession();
    this.#plannedAt = repository.state.sequence;
    this.#journal = new PackJournal(catalog);
    this.#statCache = new StatCache(catalog);
    this.#number = this.#statCache.begin(operation);
    this.#uses = new UseTable(catalog);
    this.#foreign = new ForeignChunks(catalog);
    const state = () => repository.state;
    const { index } = repository;
    const [journal, uses] = [this.#journal, this.#uses];
    const distrusted = [
      ...new DistrustedPacks(catalog).list(repository.state),
      ...(options.distrusted ?? []),
    ];
    this.#lookup = new ChunkLookup({
      index,
      journal,
      state,
      uses,
      operation,
      isDistrusted: isDistrusted(distrusted),
    });
    this.#uploads = new UploadQueue((pack) => this.#send(pack), settings.uploadsMax);
    this.#mirrors = new MirrorSends(options.mirrors ?? [], {
      clock: options.doors.clock,
      patienceMs: settings.mirrorPatienceMs ?? MIRROR_PATIENCE_MS_DEFAULT,
    });
    this.#metadata = this.#openMetadata();
    this.#segments = new SegmentWriter({ repository, journal: this.#journal, operation, signal });
    this.#trusted = new TrustedLists({
      statCache: this.#statCache,
      state,
      node: options.node,
      // An earlier list may name packs that are not relied on any more.
      isOff:
        options.lookUpAll === true || distrusted.length > 0 || trustsNobody(this.#number, settings),
    });
    this.#listNodes = new ListNodeCache(catalog, source, repository.sealer);
    this.#context = this.#openContext();
  }

  /** Reads a volume into the repository; its rows and packs count once the backup is committed. */
  async storeVolume(volume: VolumeSource): Promise<void> {
    await this.#guard(async () => {
      await this.#begin();
      this.#volumes.push(await storeVolume(this.#context, volume));
    });
  }

  /** After all nodes have stored: everything that we use is in acknowledged packs then. */
  async settle(): Promise<void> {
    this.#phase = "settle";
    await this.#guard(async () => {
      await this.#begin();
      const { plane } = this.#options;
      for (let lane = 0; lane < plane.laneCount; lane++) {
        for (const pack of await plane.flush(lane)) this.#uploads.push(pack);
      }
      await this.#uploads.drain();
      await settleForeignChunks(this.#context, this.#uses);
    });
  }

  /** Writes list and segments. Everything that the entry will name is in the site then. */
  async finish(): Promise<NodeStored> {
    this.#phase = "finish";
    return await this.#guard(async () => {
      const { list, listPacks } = await this.#writeList();
      await this.#segments.writeAll();
      const { repository, signal } = this.#options;
      await repository.catchUp(signal);
      this.#segments.throwIfGone();
      return {
        volumes: this.#volumes,
        list,
        listPacks,
        segments: this.#segments.unnamed,
        totals: { ...this.#context.totals },
        problems: this.#context.problems.named,
        problemCount: this.#context.problems.count,
        plannedAt: this.#plannedAt,
        mirrors: this.#mirrors.sent,
        ...this.#newKeys(),
      };
    });
  }

  /** The log lists the backup: its rows are trusted from now on, its packs need no journal. */
  committed(backupId: string): void {
    const { state } = this.#options.repository;
    // Our list holds the lists of the trusted backups, and so covers whatever they cover.
    this.#statCache.cover([this.#number, ...this.#trusted.numbers], backupId);
    this.#statCache.prune((backup) => {
      const record = state.backups.get(backup);
      return backup === backupId || (record !== undefined && record.forgotten === undefined);
    });
    this.#listNodes.prune(this.#number);
    this.#journal.dropOperation(this.#options.operation);
  }

  /** The backup will not be committed: what was sent stays journaled for the next attempt. */
  abandon(): void {
    this[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.#uses[Symbol.dispose]();
    this.#foreign[Symbol.dispose]();
    this.#session?.[Symbol.dispose]();
  }

  /** When this returns or throws, nothing is on its way any more. */
  async #guard<Result>(work: () => Promise<Result>): Promise<Result> {
    try {
      const result = await work();
      this.#report(true);
      return result;
    } catch (error) {
      this.#mirrors.stop();
      await this.#uploads.stop(error);
      throw error;
    }
  }

  #newKeys(): Pick<NodeStored, "keys"> {
    const { keys } = this.#segments;
    return keys.length === 0 ? {} : { keys: refsOf(keys) };
  }

  async #writeList(): Promise<Pick<NodeStored, "list" | "listPacks">> {
    const { repository, node, signal } = this.#options;
    const { state } = repository;
    this.#metadata.flush();
    await this.#uploads.drain();
    this.#trusted.throwIfGone();
    await addNodeLists(this.#trusted.backups, this.#uses, {
      state,
      node,
      source: this.#listNodes,
      frameCountOf: (pack) => this.#lookup.frameCountOf(pack),
      signal,
    });
    this.#chooseNodes();
    const listPacks = new Set<string>();
    this.#listPacks = listPacks;
    const list = await writeNodeList(
      this.#uses,
      (bytes) => this.#putListNode(bytes),
      () => this.#uploads.room(),
    );
    this.#metadata.flush();
    await this.#uploads.drain();
    return { list, listPacks: [...listPacks].toSorted() };
  }

  async #begin(): Promise<void> {
    if (this.#isBegun) return;
    this.#isBegun = true;
    const { repository, plane } = this.#options;
    this.#journal.dropBelow(repository.state.floor);
    this.#journal.dropKnown((pack) => repository.index.findPack(pack) !== undefined);
    // This attempt names its own segments: what an earlier one wrote stands in none of them.
    this.#journal.reopen(this.#options.operation);
    this.#journal.dropKeys((id) => repository.state.keys.has(id));
    const { keys } = repository.sealer;
    const session = this.#session?.session;
    await plane.reset(keys === undefined || session === undefined ? undefined : { keys, session });
  }

  #openContext(): BackupContext {
    const { doors, settings, signal, plane, claims, source, catalog } = this.#options;
    return {
      doors,
      settings,
      signal,
      plane,
      claims,
      database: catalog.database,
      lookup: this.#lookup,
      uploads: this.#uploads,
      foreign: this.#foreign,
      statCache: this.#statCache,
      trust: this.#trusted,
      operation: this.#options.operation,
      number: this.#number,
      putNode: (bytes) => this.#metadata.put(bytes),
      putOpenNode: (bytes) => this.#metadata.putOpen(bytes),
      sealer: this.#options.repository.sealer,
      sealing: this.#session?.sealing,
      fetchNode: (id, length) => source.fetch(id, length, signal),
      totals: emptyTotals(),
      problems: new ProblemList(),
      tick: () => this.#tick(),
    };
  }

  #openMetadata(): MetadataStore {
    const { settings, doors } = this.#options;
    return new MetadataStore({
      lookup: this.#lookup,
      uploads: this.#uploads,
      packSizeBytes: Math.min(settings.packSizeBytes, METADATA_PACK_SIZE_BYTES_MAX),
      compressionLevel: settings.compressionLevel,
      salt: () => doors.random.bytes(SALT_SIZE_BYTES),
      session: this.#session,
      onFound: (place) => this.#useNode(place),
    });
  }

  /** Nodes of the list cannot stand in it: their packs are named beside it. */
  #useNode(place: FoundPlace): void {
    if (this.#listPacks !== undefined) this.#listPacks.add(place.pack);
    else if (place.others !== undefined) this.#manifold.push(place);
    else this.#uses.addFrame(place.pack, place.frame, place.frameCount);
  }

  /** Of several places the one in a pack that is used anyway: so an unchanged list stays the same. */
  #chooseNodes(): void {
    for (const place of this.#manifold.splice(0)) {
      const all = [place, ...(place.others ?? [])];
      const { pack, frame, frameCount } = all.find((one) => this.#uses.has(one.pack)) ?? place;
      this.#uses.addFrame(pack, frame, frameCount);
    }
  }

  #putListNode(bytes: Uint8Array): Uint8Array {
    const id = this.#metadata.putOpen(bytes);
    this.#listNodes.put(id, bytes, this.#number);
    return id;
  }

  /** Sends a pack to all sites at once; its buffer is free when none of them reads it any more. */
  async #send(pack: SealedPack): Promise<void> {
    const { repository, signal, plane } = this.#options;
    signal?.throwIfAborted();
    await this.#storeKey(pack);
    const birth = repository.state.sequence;
    const sizeBytes = pack.bytes.length;
    const mirrored = this.#mirrors.send(pack);
    try {
      await repository.putObject(packKey(pack.id, birth), pack.bytes, {
        ...(pack.sha256 === undefined ? {} : { sha256: pack.sha256 }),
        ...(signal === undefined ? {} : { signal }),
      });
      const freed = mirrored.then((isFree) => {
        if (isFree) plane.recycle(pack);
      });
      await this.#acknowledge(pack, { sizeBytes, birth });
      await freed;
    } catch (error) {
      this.#mirrors.stop();
      await mirrored;
      throw error;
    }
  }

  /** What is sealed under a key is worth nothing before the key is safe. */
  async #storeKey({ directory }: SealedPack): Promise<void> {
    // All frames of a new pack are under one key; that of all nodes is no session's.
    const id = directory.frames[0]?.seal?.origin.session;
    if (this.#session === undefined || id === undefined) return;
    const { signal } = this.#options;
    this.#journal.addKey(await this.#session.store(signal === undefined ? {} : { signal }));
  }

  /** Enters a pack in journal and uses, and settles the claims of its chunks. */
  async #acknowledge(
    pack: SealedPack,
    { sizeBytes, birth }: { readonly sizeBytes: number; readonly birth: number },
  ): Promise<void> {
    const { operation, claims } = this.#options;
    this.#journal.add({ ...pack, sizeBytes }, birth, operation);
    this.#lookup.acknowledge(pack);
    const { frames } = pack.directory;
    const chunkCount = frames.reduce((sum, { chunks }) => sum + chunks.length, 0);
    this.#segments.note(chunkCount);
    this.#chunksSinceKeep += chunkCount;
    if (this.#listPacks !== undefined) this.#listPacks.add(pack.id);
    else this.#uses.addPack(pack.id, frames.length);
    this.#context.totals.storedBytes += sizeBytes;
    this.#bytesSinceKeep += sizeBytes;
    if (pack.kind === "metadata") return;
    await claims.settle(
      frames.flatMap(({ chunks }, frame) =>
        chunks.map(({ id }) => {
          return { id, pack: pack.id, birth, frame, frameCount: frames.length };
        }),
      ),
    );
  }

  async #tick(): Promise<void> {
    this.#report(false);
    const { keepEveryBytes, keepEveryChunks = KEEP_EVERY_CHUNK_COUNT } = this.#options.settings;
    const isDue =
      this.#bytesSinceKeep >= keepEveryBytes || this.#chunksSinceKeep >= keepEveryChunks;
    if (!isDue) {
      await this.#segments.writeFull();
      return;
    }
    this.#bytesSinceKeep = 0;
    this.#chunksSinceKeep = 0;
    await this.#segments.keep();
  }

  #report(isDue: boolean): void {
    const { onProgress, doors } = this.#options;
    if (onProgress === undefined) return;
    const nowMs = doors.clock.monotonic();
    if (!isDue && nowMs - this.#progressMs < PROGRESS_INTERVAL_MS) return;
    this.#progressMs = nowMs;
    const { files, bytes, readBytes, newBytes, storedBytes } = this.#context.totals;
    onProgress({ phase: this.#phase, files, bytes, readBytes, newBytes, storedBytes });
  }
}
