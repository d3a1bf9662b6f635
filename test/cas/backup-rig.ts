/**
 * A node with a real folder to back up and a site in memory: makes backups through the whole write
 * path, counts what is read and sent, and reads backups back with a catalog of their own.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { realClock } from "../../src/base/clock.ts";
import { realDatabases } from "../../src/base/databases.ts";
import type { Clock, FileSystem } from "../../src/base/doors.ts";
import { realFileSystem } from "../../src/base/file-system.ts";
import { sha256Hex } from "../../src/base/hex.ts";
import { realRandom } from "../../src/base/random.ts";
import { commitBackup } from "../../src/cas/write/backup-commit.ts";
import { BACKUP_SETTINGS_DEFAULT } from "../../src/cas/write/backup-settings.ts";
import { NodeBackup } from "../../src/cas/write/backup-writer.ts";
import type {
  BackupSettings,
  Claims,
  MirrorTarget,
  NodeStored,
} from "../../src/cas/write/backup-writer.ts";
import { Catalog } from "../../src/cas/catalog/catalog.ts";
import { ChunkSource } from "../../src/cas/read/chunk-source.ts";
import { localClaims } from "../../src/cas/write/claims.ts";
import type { CheckSource } from "../../src/cas/write/content-check.ts";
import { drawId, manifestKey } from "../../src/cas/format/ids.ts";
import { decodeChunkRef, decodeRecord } from "../../src/cas/format/listing.ts";
import type { ChunkRef, FileRecord } from "../../src/cas/format/listing.ts";
import { openPlane } from "../../src/cas/write/plane.ts";
import type { RepositoryEncryption } from "../../src/cas/keys/repository-encryption.ts";
import { refsOf } from "../../src/cas/write/segment-writer.ts";
import { Repository } from "../../src/cas/log/repository.ts";
import { readTree } from "../../src/cas/format/tree.ts";
import type { TreeRoot } from "../../src/cas/format/tree.ts";
import type { Problem, VolumeSource } from "../../src/cas/write/volume-source.ts";
import { walkVolume } from "../../src/cas/write/walk.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import type { Site } from "../../src/sites/site.ts";
import { temporaryFolder } from "./temporary-folder.ts";

/** Small enough that small files make many chunks, batches and packs. */
export const RIG_SETTINGS: BackupSettings = {
  ...BACKUP_SETTINGS_DEFAULT,
  workers: 0,
  packSizeBytes: 400_000,
  frameSizeBytes: 50_000,
  batchSizeBytes: 600_000,
  lookUpEvery: 0,
  racyMs: 0,
};

/** A `FileSystem` of the real disk with some calls replaced, which counts the bytes that are read. */
export class RiggedFiles {
  readBytes = 0;
  readonly door: FileSystem;

  constructor(replaced: Partial<FileSystem> = {}) {
    const bound: Record<string, unknown> = {};
    for (const name of Object.getOwnPropertyNames(Object.getPrototypeOf(realFileSystem))) {
      const call = (realFileSystem as unknown as Record<string, unknown>)[name];
      if (typeof call === "function") bound[name] = call.bind(realFileSystem);
    }
    this.door = {
      ...(bound as unknown as FileSystem),
      read: (handle, target, position) => {
        const count = realFileSystem.read(handle, target, position);
        this.readBytes += count;
        return count;
      },
      ...replaced,
    };
  }
}

/** What a backup is made with, beside the rig's own. */
export type RigOptions = {
  readonly settings?: Partial<BackupSettings>;
  readonly volume?: Partial<VolumeSource>;
  readonly volumes?: readonly VolumeSource[];
  readonly files?: FileSystem;
  readonly lookUpAll?: boolean;
  readonly claims?: Claims;
  readonly contentChecks?: CheckSource;
  readonly mirrors?: readonly MirrorTarget[];
  readonly operation?: string;
  readonly signal?: AbortSignal;
  /** Between the reading and the barrier. */
  readonly beforeSettle?: () => void | Promise<void>;
};

/** A backup that was committed. */
export type RigBackup = {
  readonly id: string;
  readonly stored: NodeStored;
  readonly sequence: number;
};

/** The node. */
export class Rig implements AsyncDisposable {
  readonly folder = temporaryFolder();
  readonly root = join(this.folder.path, "data");
  readonly site: MemorySite;
  /** What backups go through; reads go to the site itself. */
  door: Site;
  catalog = Catalog.open(realDatabases, ":memory:");
  readonly node: string;
  /** In an encrypted repository: what the node has, and who can read. */
  readonly encryption: RepositoryEncryption | undefined;
  identities: readonly string[] = [];
  clock: Clock = realClock;

  constructor(
    options: {
      site?: MemorySite;
      door?: Site;
      node?: string;
      encryption?: RepositoryEncryption | undefined;
      identities?: readonly string[];
    } = {},
  ) {
    this.encryption = options.encryption;
    this.identities = options.identities ?? [];
    this.site = options.site ?? new MemorySite();
    this.door = options.door ?? this.site;
    this.node = options.node ?? "a";
    fs.mkdirSync(this.root);
  }

  static async open(options: ConstructorParameters<typeof Rig>[0] = {}): Promise<Rig> {
    const rig = new Rig(options);
    if (options.site === undefined) {
      await Repository.init(rig.site, {
        doors: { clock: realClock, random: realRandom },
        chunker: { rule: "astacus-cdc-1", averageSizeBytes: 65_536 },
        keys: options.encryption?.keys,
      });
    }
    return rig;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.catalog[Symbol.dispose]();
    this.folder[Symbol.dispose]();
  }

  /** Writes a file that was last changed long ago. */
  write(path: string, content: Uint8Array | string, ageSeconds = 100): void {
    const full = join(this.root, path);
    fs.mkdirSync(join(full, ".."), { recursive: true });
    fs.writeFileSync(full, content);
    this.age(path, ageSeconds);
  }

  append(path: string, content: Uint8Array | string, ageSeconds = 50): void {
    fs.appendFileSync(join(this.root, path), content);
    this.age(path, ageSeconds);
  }

  age(path: string, ageSeconds: number): void {
    const seconds = Math.floor(Date.now() / 1000) - ageSeconds;
    fs.utimesSync(join(this.root, path), seconds, seconds);
  }

  volume(files: FileSystem, changes: Partial<VolumeSource> = {}): VolumeSource {
    const problems: Problem[] = [];
    return {
      name: "data",
      root: this.root,
      entries: walkVolume({ files, root: this.root, onProblem: (found) => problems.push(found) }),
      nature: () => "plain",
      ctimeCounts: false,
      onUnreadable: "incomplete",
      problems: () => problems,
      ...changes,
    };
  }

  openRepository(): Promise<Repository> {
    const doors = { clock: this.clock, random: realRandom };
    const { door: site, catalog, node, encryption } = this;
    return Repository.open({ site, catalog, doors, node, encryption });
  }

  /** A whole backup of one node. */
  async backup(options: RigOptions = {}): Promise<RigBackup> {
    const operation = options.operation ?? drawId(realRandom);
    const repository = await this.openRepository();
    const source = openSource(repository);
    const { backup, stored } = await this.store(repository, { ...options, operation });
    using _backup = backup;
    const id = drawId(realRandom);
    const sequence = await commit(repository, source, {
      id,
      operation,
      complete: stored.problemCount === 0,
      nodes: [{ node: this.node, stored }],
    });
    backup.committed(id);
    return { id, stored, sequence };
  }

  /** Everything up to the commit. */
  async store(
    repository: Repository,
    options: RigOptions & { readonly operation: string },
  ): Promise<{ backup: NodeBackup; stored: NodeStored }> {
    const files = options.files ?? realFileSystem;
    const settings = { ...RIG_SETTINGS, ...options.settings };
    const doors = { clock: this.clock, random: realRandom, files };
    await using plane = openPlane(
      doors,
      { rule: "astacus-cdc-1", averageSizeBytes: repository.header.chunker.averageSizeBytes },
      {
        ...settings,
        ...(options.contentChecks === undefined ? {} : { contentChecks: options.contentChecks }),
      },
    );
    const backup = new NodeBackup({
      repository,
      catalog: this.catalog,
      doors,
      plane,
      settings,
      node: this.node,
      source: openSource(repository),
      claims: options.claims ?? localClaims(),
      operation: options.operation,
      lookUpAll: options.lookUpAll ?? false,
      mirrors: options.mirrors ?? [],
      signal: options.signal,
    });
    for (const volume of options.volumes ?? [this.volume(files, options.volume)]) {
      await backup.storeVolume(volume);
    }
    await options.beforeSettle?.();
    await backup.settle();
    return { backup, stored: await backup.finish() };
  }

  /** The records of a volume with the contents of its files, read with an empty catalog. */
  async read(
    root: TreeRoot,
    site: Site = this.site,
  ): Promise<Map<string, FileRecord & { bytes?: Buffer }>> {
    using catalog = Catalog.open(realDatabases, ":memory:");
    const repository = await Repository.open({
      site,
      catalog,
      node: "reader",
      readOnly: true,
      doors: { clock: realClock, random: realRandom },
      encryption: this.encryption,
    });
    const source = openSource(repository, this.identities);
    const fetch = (id: Uint8Array, length: number) => source.fetch(id, length);
    const found = new Map<string, FileRecord & { bytes?: Buffer }>();
    for await (const records of readTree(root, fetch)) {
      for (const bytes of records) {
        const record = decodeRecord(bytes);
        if (record.type !== "file") {
          found.set(record.path, record);
          continue;
        }
        const parts: Uint8Array[] = [];
        for (const { id, length } of await chunksOf(record, fetch)) {
          parts.push(await fetch(id, length));
        }
        found.set(record.path, { ...record, bytes: Buffer.concat(parts) });
      }
    }
    return found;
  }

  /** What is in the folder, by relative path. */
  contents(): Map<string, Buffer> {
    const entries = fs.readdirSync(this.root, { recursive: true, withFileTypes: true });
    const files = entries.filter((entry) => entry.isFile());
    return new Map(
      files.map((entry) => {
        const full = join(entry.parentPath, entry.name);
        return [full.slice(this.root.length + 1), fs.readFileSync(full)];
      }),
    );
  }
}

/** Commits the shares of nodes as one backup; the sequence of its entry. */
export async function commit(
  repository: Repository,
  source: ChunkSource,
  made: {
    readonly id: string;
    readonly operation: string;
    readonly complete: boolean;
    readonly nodes: readonly { readonly node: string; readonly stored: NodeStored }[];
  },
): Promise<number> {
  using session = repository.beginSession();
  const bytes = repository.sealer.sealObject(
    "manifest",
    new TextEncoder().encode(`manifest of ${made.id}`),
    session?.session,
  );
  const keys = made.nodes.flatMap(({ stored }) => stored.keys ?? []);
  if (session !== undefined) keys.push(...refsOf([await session.store()]));
  const birth = repository.state.sequence;
  const manifest = { id: sha256Hex(bytes), birth, sizeBytes: bytes.length };
  await repository.putObject(manifestKey(manifest.id, birth), bytes);
  const { sequence } = await commitBackup(
    repository,
    source,
    {
      backup: made.id,
      name: made.id,
      cluster: "c",
      product: "files",
      manifest,
      started: "2026-11-22T18:00:00Z",
      ended: "2026-11-22T18:01:00Z",
      complete: made.complete,
      problems: 0,
      plannedAt: Math.min(...made.nodes.map(({ stored }) => stored.plannedAt)),
      segments: made.nodes.flatMap(({ stored }) => stored.segments),
      lists: made.nodes.map(({ node, stored }) => ({ node, root: stored.list })),
      listPacks: [...new Set(made.nodes.flatMap(({ stored }) => stored.listPacks))].toSorted(),
      totals: { files: 0, bytes: 0, newBytes: 0, storedBytes: 0 },
      ...(keys.length === 0 ? {} : { keys }),
    },
    { operation: made.operation },
  );
  return sequence;
}

/** A source of chunks with a small cache. */
export function openSource(repository: Repository, identities?: readonly string[]): ChunkSource {
  const { site, index } = repository;
  const state = () => repository.state;
  const opener = repository.openerFor(identities);
  return new ChunkSource({ site, index, state, opener, concurrency: 4, cacheBytes: 8_000_000 });
}

async function chunksOf(
  record: Extract<FileRecord, { type: "file" }>,
  fetch: (id: Uint8Array, length: number) => Promise<Uint8Array>,
): Promise<readonly ChunkRef[]> {
  if (record.content.form === "inline") return record.content.chunks;
  const chunks: ChunkRef[] = [];
  for await (const records of readTree(record.content.root, fetch)) {
    chunks.push(...records.map(decodeChunkRef));
  }
  return chunks;
}
