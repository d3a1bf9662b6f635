/**
 * Checks one backup: that its manifest, lists and listings can be read, that every chunk of every
 * file lies in a pack that the lists name (so that no cleanup removes it), that those packs are sound
 * (verify-packs.ts), and if they are not, which files that hits. Memory: the frames that are named
 * and needed as bitmaps, one a pack.
 */
import { sha256Hex, toHex } from "../../base/hex.ts";
import { textFromPath } from "../../base/path.ts";
import type { ChunkPlace } from "../catalog/catalog-index.ts";
import type { ChunkSource } from "./chunk-source.ts";
import { manifestKey } from "../format/ids.ts";
import type { ChunkRef } from "../format/listing.ts";
import { decodeChunkRef, decodeRecord } from "../format/listing.ts";
import type { Manifest } from "../format/manifest.ts";
import { readManifest } from "../format/manifest.ts";
import { hasFrame } from "../format/pack-list.ts";
import { packKey } from "../format/pack.ts";
import { readBackupUses } from "../clean/pack-uses.ts";
import type { Repository } from "../log/repository.ts";
import type { BackupRecord, RepositoryState } from "../log/state.ts";
import type { TreeRoot } from "../format/tree.ts";
import { getNamedPack } from "../clean/pack-standing.ts";
import type { PackChecks } from "./verify-packs.ts";
import type { ProblemBook } from "./verify-problems.ts";
import { visitTree } from "./verify-tree.ts";

/** What a check of backups shares. */
export type BackupCheckOptions = {
  readonly repository: Repository;
  readonly state: RepositoryState;
  readonly source: Pick<ChunkSource, "fetch"> & Partial<Pick<ChunkSource, "opener">>;
  readonly packs: PackChecks;
  readonly problems: ProblemBook;
  /** Told of files whose chunks were looked up. */
  readonly onFiles: (files: number, bytes: number) => void;
  readonly signal?: AbortSignal | undefined;
};

/** What became of one backup. */
export type VerifiedBackup = {
  readonly id: string;
  readonly name: string;
  /** Everything can be restored and will stay. */
  readonly ok: boolean;
  readonly files: number;
  readonly bytes: number;
  readonly chunks: number;
  readonly packs: number;
  /** Files that cannot be restored from this site as far as was seen. */
  readonly filesLost: number;
  /** Encrypted, and no identity was given: what can be checked without opening it was. */
  readonly closed?: true;
};

const PACK_PAGE_COUNT = 1000;

/** Which frames somebody names or needs: by pack, true for all of them. */
type Frames = Map<string, Uint8Array | true>;

type Walk = "structure" | "losses";

/** Checks a backup, noting problems. */
export async function verifyOneBackup(
  backup: BackupRecord,
  options: BackupCheckOptions,
): Promise<VerifiedBackup> {
  const check = new BackupCheck(backup, options);
  await check.readLists();
  const manifest = check.isClosed ? await check.checkManifest() : await check.readManifest();
  if (manifest !== undefined) await check.walk(manifest, "structure");
  await check.checkPacks();
  if (manifest !== undefined && !check.isSound) await check.walk(manifest, "losses");
  return check.result();
}

class BackupCheck {
  readonly #backup: BackupRecord;
  readonly #options: BackupCheckOptions;
  /** What the lists name; undefined if they cannot be read. */
  #named: Frames | undefined = new Map();
  readonly #needed = new Set<string>();
  #isSound = true;
  #files = 0;
  #bytes = 0;
  #chunks = 0;
  #filesLost = 0;

  constructor(backup: BackupRecord, options: BackupCheckOptions) {
    this.#backup = backup;
    this.#options = options;
  }

  /** True if its manifest and listings can be checked and not opened. */
  get isClosed(): boolean {
    return this.#options.source.opener?.canOpen() === false;
  }

  /** False if anything that the backup needs is wrong. */
  get isSound(): boolean {
    return this.#isSound;
  }

  async readLists(): Promise<void> {
    const { repository, state, source, signal } = this.#options;
    const named: Frames = new Map();
    const frameCountOf = (pack: string): number =>
      repository.index.findPack(pack)?.frames.length ?? 0;
    try {
      const reading = { frameCountOf, signal };
      for await (const uses of readBackupUses(state, this.#backup, source, reading)) {
        for (const use of uses) {
          this.#needed.add(use.pack);
          named.set(use.pack, use.isWhole ? true : joined(named.get(use.pack), use.frames));
        }
      }
      this.#named = named;
    } catch (thrown) {
      this.#note(this.#options.problems.addThrown(thrown, "A pack list"));
      this.#named = undefined;
    }
  }

  /** That the object is there and has the hash that its name says. */
  async checkManifest(): Promise<undefined> {
    const { repository, problems, signal } = this.#options;
    const { id, birth } = this.#backup.manifest;
    const key = manifestKey(id, birth);
    const bytes = await repository.site.get(key, signal === undefined ? {} : { signal });
    if (bytes !== undefined && sha256Hex(bytes) === id) return;
    const message = `${key} ${bytes === undefined ? "is missing" : "does not match its name"}.`;
    problems.add(key, bytes === undefined ? "missing" : "damaged", message);
    this.#note(key);
    this.#filesLost = this.#backup.totals.files;
    problems.addFile(key, "everything", this.#backup.totals.files);
  }

  async readManifest(): Promise<Manifest | undefined> {
    const { repository, problems, signal } = this.#options;
    const { id, birth, sizeBytes } = this.#backup.manifest;
    const key = manifestKey(id, birth);
    try {
      const { opener } = this.#options.source;
      const manifest = await readManifest(repository.site, this.#backup, signal, opener);
      const head = await repository.site.head(key, signal === undefined ? {} : { signal });
      if (head === undefined || head.sizeBytes === sizeBytes) return manifest;
      problems.add(key, "damaged", `${key} is not as long as the log says.`);
      this.#note(key);
      return manifest;
    } catch (thrown) {
      problems.addThrown(thrown, key);
      // Whatever names it, the object that is wrong is this one.
      problems.add(key, "damaged", `${key} cannot be read: nothing of the backup can be found.`);
      this.#note(key);
      this.#filesLost = this.#backup.totals.files;
      problems.addFile(key, "everything", this.#backup.totals.files);
      return undefined;
    }
  }

  /** Looks at every chunk of every file: where it lies, or whether it is lost. */
  async walk(manifest: Manifest, walk: Walk): Promise<void> {
    for (const node of manifest.nodes) {
      for (const volume of node.volumes) {
        const where = `${node.name}/${volume.name}`;
        await this.#walkTree(volume.listing, {
          where: `${where} (listing)`,
          walk,
          onLost: (object, count) => {
            this.#filesLost += count;
            this.#options.problems.addFile(object, `${where}: a part of its listing`, count);
          },
          onRecords: (records) => this.#walkRecords(records, where, walk),
        });
      }
    }
  }

  async checkPacks(): Promise<void> {
    const { packs, problems, signal } = this.#options;
    await packs.check(this.#needed, signal);
    if (this.#named === undefined) await this.#checkAllPacks();
    this.#checkRetired();
    if (problems.count === 0) return;
    for (const pack of this.#needed) {
      const object = this.#objectOf(pack);
      if (problems.addBackup(object, this.#backup.name)) this.#isSound = false;
    }
  }

  /** A list that cannot be read counts as naming every pack that there is. */
  async #checkAllPacks(): Promise<void> {
    const { repository, state, packs, signal } = this.#options;
    const { index } = repository;
    for (let after = ""; ;) {
      const page = index.packIds({ after, count: PACK_PAGE_COUNT });
      const named = page.filter((id) => getNamedPack(repository, state, id) !== undefined);
      await packs.check(named, signal);
      if (page.length < PACK_PAGE_COUNT) return;
      after = page.at(-1) ?? "";
    }
  }

  result(): VerifiedBackup {
    const { backup: id, name } = this.#backup;
    return {
      id,
      name,
      ok: this.#isSound,
      files: this.#files,
      bytes: this.#bytes,
      chunks: this.#chunks,
      packs: this.#needed.size,
      filesLost: this.#filesLost,
      ...(this.isClosed ? { closed: true as const } : {}),
    };
  }

  async #walkRecords(records: readonly Uint8Array[], where: string, walk: Walk): Promise<void> {
    this.#options.signal?.throwIfAborted();
    let files = 0;
    let bytes = 0;
    for (const encoded of records) {
      const record = decodeRecord(encoded);
      if (record.type !== "file") continue;
      files += 1;
      bytes += record.sizeBytes;
      const file = `${where}/${textFromPath(record.path)}`;
      const lost = new Set<string>();
      const onChunks = async (refs: readonly ChunkRef[]): Promise<void> => {
        for (const ref of refs) await this.#takeChunk(ref, { walk, lost, where: file });
      };
      if (record.content.form === "inline") await onChunks(record.content.chunks);
      else {
        await this.#walkTree(record.content.root, {
          where: `${file} (chunk list)`,
          walk,
          onLost: (object) => lost.add(object),
          onRecords: (chunks) => onChunks(chunks.map((chunk) => decodeChunkRef(chunk))),
        });
      }
      if (walk === "structure" || lost.size === 0) continue;
      this.#filesLost += 1;
      for (const object of lost) this.#options.problems.addFile(object, file);
    }
    if (walk === "losses") return;
    this.#files += files;
    this.#bytes += bytes;
    this.#options.onFiles(files, bytes);
  }

  async #walkTree(
    root: TreeRoot,
    visit: {
      readonly where: string;
      readonly walk: Walk;
      readonly onLost: (object: string, count: number) => void;
      readonly onRecords: (records: readonly Uint8Array[]) => Promise<void>;
    },
  ): Promise<void> {
    const { source, problems, signal } = this.#options;
    await visitTree(root, {
      fetch: (id, length) => source.fetch(id, length, signal),
      onNode: (node) => {
        if (visit.walk === "structure") this.#place(node, visit.where);
      },
      onRecords: visit.onRecords,
      onFault: (node, thrown) => {
        const object = problems.addThrown(thrown, `chunk ${toHex(node.id)}`);
        this.#note(object);
        if (visit.walk === "losses") visit.onLost(object, node.count);
      },
    });
  }

  async #takeChunk(
    ref: ChunkRef,
    at: { readonly walk: Walk; readonly lost: Set<string>; readonly where: string },
  ): Promise<void> {
    if (at.walk === "structure") {
      this.#chunks += 1;
      this.#place(ref, at.where);
      return;
    }
    const { packs, source, signal } = this.#options;
    const places = this.#placesOf(ref);
    const standings = new Set(places.map((place) => packs.standing(place)));
    if (standings.has("good")) return;
    const [place] = places;
    const object =
      place === undefined ? `chunk ${toHex(ref.id)}` : packKey(place.pack, place.birth);
    if (standings.has("doubtful")) {
      try {
        await source.fetch(ref.id, ref.length, signal);
        return;
      } catch (thrown) {
        this.#options.problems.addThrown(thrown, object);
      }
    }
    at.lost.add(object);
  }

  /** Notes where a chunk lies, and whether the lists name that. */
  #place(ref: ChunkRef, where: string): void {
    const { problems } = this.#options;
    const places = this.#placesOf(ref);
    const [first] = places;
    if (first === undefined) {
      const object = `chunk ${toHex(ref.id)}`;
      problems.add(object, "missing", `Chunk ${toHex(ref.id)} of ${where} is in no pack.`);
      this.#note(object);
      return;
    }
    const named = this.#named;
    if (named === undefined) {
      this.#needed.add(first.pack);
      return;
    }
    if (places.some((place) => isNamed(named, place))) return;
    const key = packKey(first.pack, first.birth);
    const message = `The lists of the backup do not name frame ${first.frame} of ${key}, which ${where} needs.`;
    problems.add(key, "unlisted", message);
    this.#note(key);
    this.#needed.add(first.pack);
  }

  /** A pack that a listed backup needs must be live, or cleanups remove it. */
  #checkRetired(): void {
    const { state, problems } = this.#options;
    if (this.#backup.forgotten !== undefined) return;
    for (const pack of this.#needed) {
      if (!state.retired.has(pack)) continue;
      const object = this.#objectOf(pack);
      problems.add(object, "retired", `${object} is retired: the next cleanups remove it.`);
    }
  }

  #objectOf(pack: string): string {
    const known = this.#options.repository.index.findPack(pack);
    return known === undefined ? `pack ${pack}` : packKey(pack, known.birth);
  }

  #placesOf({ id, length }: ChunkRef): ChunkPlace[] {
    return this.#options.repository.index.find(id).filter((place) => place.length === length);
  }

  #note(object: string): void {
    this.#isSound = false;
    this.#options.problems.addBackup(object, this.#backup.name);
  }
}

function isNamed(named: Frames, place: { readonly pack: string; readonly frame: number }): boolean {
  const frames = named.get(place.pack);
  return frames === true || (frames !== undefined && hasFrame(frames, place.frame));
}

function joined(known: Uint8Array | true | undefined, frames: Uint8Array): Uint8Array | true {
  if (known === true) return true;
  if (known === undefined) return frames.slice();
  for (const [index, byte] of frames.entries()) known[index] = (known[index] ?? 0) | byte;
  return known;
}
