/**
 * Tiny backups for tests of the protocol: a backup is a set of chunks, each with a number, stored with
 * the real codecs in packs of a few hundred bytes. Storing and committing are two calls, so that a
 * writer can sleep in between.
 */
import { Database } from "bun:sqlite";
import type { Databases, Doors, Random } from "../../src/base/doors.ts";
import { sha256, toHex } from "../../src/base/hex.ts";
import type { BackupDraft } from "../../src/cas/write/backup-commit.ts";
import { idKey } from "../../src/cas/format/bytes.ts";
import { Catalog } from "../../src/cas/catalog/catalog.ts";
import { ChunkSource } from "../../src/cas/read/chunk-source.ts";
import { drawId, manifestKey } from "../../src/cas/format/ids.ts";
import type { SegmentPack } from "../../src/cas/format/index-segment.ts";
import { encodeSegment, segmentKey, segmentPackOf } from "../../src/cas/format/index-segment.ts";
import { bitmapSizeBytes, encodePackUse, setFrame } from "../../src/cas/format/pack-list.ts";
import { packUseKey } from "../../src/cas/format/pack-list.ts";
import type { PackUse } from "../../src/cas/format/pack-list.ts";
import type { PackDirectory, PackKind, SealedPack } from "../../src/cas/format/pack.ts";
import { PackBuilder } from "../../src/cas/format/pack-builder.ts";
import { packKey } from "../../src/cas/format/pack.ts";
import type { FrameSealing } from "../../src/cas/format/seal.ts";
import type { RepositoryEncryption } from "../../src/cas/keys/repository-encryption.ts";
import type { WriteSession } from "../../src/cas/keys/write-session.ts";
import { refsOf } from "../../src/cas/write/segment-writer.ts";
import { Repository } from "../../src/cas/log/repository.ts";
import type { TreeRoot } from "../../src/cas/format/tree.ts";
import { readTree, TreeWriter } from "../../src/cas/format/tree.ts";
import type { Site } from "../../src/sites/site.ts";

const CHUNK_SIZE_BYTES_MIN = 90;
const PACK_SIZE_BYTES = 700;
const FRAME_SIZE_BYTES = 100;
const NODE_SIZE_BYTES = 256;

/** A node that works on a site: a catalog of its own, and what it reads through. */
export type SmallNode = Disposable & {
  readonly repository: Repository;
  readonly source: ChunkSource;
  readonly catalog: Catalog;
};

/** A backup that was sent and not committed. */
export type SmallBackup = {
  readonly draft: BackupDraft;
  /** Names the chunks. */
  readonly listing: TreeRoot;
  readonly numbers: readonly number[];
};

/** SQLite in memory; `image` is what the next opening finds. */
export function memoryDatabases(image?: Uint8Array): Databases {
  return {
    open: () =>
      image === undefined
        ? new Database(":memory:", { strict: true })
        : Database.deserialize(image, { strict: true }),
    remove: () => undefined,
  };
}

/** Opens a node; `image` is a catalog that was serialized before. */
export async function openNode(
  site: Site,
  doors: Pick<Doors, "clock" | "random">,
  options: {
    readonly node?: string;
    readonly image?: Uint8Array;
    readonly encryption?: RepositoryEncryption | undefined;
    /** Of a reader; nodes that work have none. */
    readonly identities?: readonly string[];
  } = {},
): Promise<SmallNode> {
  const catalog = Catalog.open(memoryDatabases(options.image), "/catalog");
  try {
    const node = options.node ?? "a";
    const { encryption, identities } = options;
    const repository = await Repository.open({ site, catalog, doors, node, encryption });
    const source = openSource(repository, identities);
    return { repository, source, catalog, [Symbol.dispose]: close };
  } catch (thrown) {
    close();
    throw thrown;
  }

  function close(): void {
    catalog[Symbol.dispose]();
  }
}

/** A source that keeps nothing, so that each read is of the site. */
export function openSource(repository: Repository, identities?: readonly string[]): ChunkSource {
  const { site, index } = repository;
  const state = (): Repository["state"] => repository.state;
  const opener = repository.openerFor(identities);
  return new ChunkSource({ site, index, state, opener, concurrency: 2, cacheBytes: 1 });
}

/** The contents of a chunk. */
export function smallChunk(number: number): Uint8Array {
  const seed = sha256(new TextEncoder().encode(`chunk ${number}`));
  const parts = [seed];
  while (parts.length * seed.length < CHUNK_SIZE_BYTES_MIN) parts.push(sha256(parts.at(-1)!));
  return new Uint8Array(Buffer.concat(parts));
}

/** One builder of each kind for all: a builder has a large buffer. */
const BUILDERS = new Map<PackKind, PackBuilder>();
let salt = (): Uint8Array => new Uint8Array(16);

/** Decides what to send for a set of chunks, and sends it. */
export async function storeSmall(
  repository: Repository,
  numbers: readonly number[],
  options: {
    readonly random: Random;
    readonly ended: string;
    readonly name?: string;
    readonly operation?: string;
    readonly isKept?: boolean;
    /** What happens between sending and knowing what to commit. */
    readonly onSent?: () => Promise<void>;
  },
): Promise<SmallBackup> {
  const { random, ended, name = "small", isKept = false } = options;
  const birth = repository.state.sequence;
  using session = repository.beginSession();
  const keys = session === undefined ? [] : refsOf([await session.store()]);
  const named = keys.length === 0 ? {} : { keys };
  const made = makeSmall(repository, numbers, { random, session });
  const rows: { pack: SegmentPack; directory: PackDirectory }[] = [];
  for (const sealed of made.sealed) {
    await repository.putObject(packKey(sealed.id, birth), sealed.bytes);
    rows.push({ pack: segmentPackOf(sealed, birth), directory: sealed.directory });
  }
  const segments: BackupDraft["segments"] = [];
  for (const row of rows) {
    const { id, bytes, packs, chunks } = encodeSegment([row], repository.sealer);
    await repository.putObject(segmentKey(id, birth), bytes);
    segments.push({ id, birth, sizeBytes: bytes.length, packs, chunks });
  }
  if (isKept && segments.length > 0) {
    const operation = options.operation ?? drawId(random);
    await repository.commit(() => ({ kind: "keep", body: { segments, ...named } }), { operation });
  }
  const backup = drawId(random);
  const text = new TextEncoder().encode(`manifest of ${backup}`);
  const manifest = repository.sealer.sealObject("manifest", text, session?.session);
  const id = toHex(sha256(manifest));
  const manifestBirth = repository.state.sequence;
  await repository.putObject(manifestKey(id, manifestBirth), manifest);
  await options.onSent?.();
  const draft: BackupDraft = {
    backup,
    name,
    cluster: "test",
    product: "files",
    started: ended,
    ended,
    complete: true,
    problems: 0,
    plannedAt: birth,
    manifest: { id, birth: manifestBirth, sizeBytes: manifest.length },
    segments,
    lists: [{ node: "a", root: made.list }],
    listPacks: made.listPacks,
    totals: { files: 0, bytes: 0, newBytes: 0, storedBytes: 0 },
    ...named,
  };
  return { draft, listing: made.listing, numbers };
}

/** Throws unless every chunk of a backup can be read, and is what was stored. */
export async function readSmall(
  node: Pick<SmallNode, "repository" | "source">,
  backup: Pick<SmallBackup, "listing" | "numbers" | "draft">,
): Promise<void> {
  const { manifest } = backup.draft;
  const key = manifestKey(manifest.id, manifest.birth);
  if ((await node.repository.site.head(key)) === undefined) throw new Error(`${key} is missing`);
  const found: string[] = [];
  const fetch = (id: Uint8Array, length: number): Promise<Uint8Array> =>
    node.source.fetch(id, length);
  for await (const records of readTree(backup.listing, fetch)) {
    for (const record of records) {
      const bytes = await node.source.fetch(record.subarray(0, 32), record[32] ?? 0);
      found.push(idKey(sha256(bytes)));
    }
  }
  const wanted = backup.numbers.map((number) => idKey(sha256(smallChunk(number))));
  if (found.toSorted().join() !== wanted.toSorted().join()) throw new Error("other chunks came");
}

/** All that is decided without waiting, so that the builders can be shared. */
function makeSmall(
  repository: Repository,
  numbers: readonly number[],
  { random, session }: { readonly random: Random; readonly session: WriteSession | undefined },
) {
  salt = () => random.bytes(16);
  const own = session === undefined ? undefined : sealingBuilders(session);
  const builderOf = (kind: BuilderKind): PackBuilder => own?.[kind] ?? sharedBuilder(kind);
  const sealed: SealedPack[] = [];
  const places = new Map<string, { readonly pack: string; readonly frame: number }>();
  const known = (id: Uint8Array): { readonly pack: string; readonly frame: number } | undefined =>
    places.get(idKey(id)) ?? repository.index.find(id)[0];
  const take = (pack: SealedPack | undefined): void => {
    if (pack === undefined) return;
    sealed.push(pack);
    for (const [frame, { chunks }] of pack.directory.frames.entries()) {
      for (const { id } of chunks) places.set(idKey(id), { pack: pack.id, frame });
    }
  };
  const waiting = new Set<string>();
  const put = (kind: BuilderKind, bytes: Uint8Array): Uint8Array => {
    const id = repository.sealer.chunkId(bytes);
    if (known(id) !== undefined || waiting.has(idKey(id))) return id;
    waiting.add(idKey(id));
    take(builderOf(kind).add(id, bytes));
    return id;
  };
  const used = new Set<string>();
  const treeOf = (
    kind: "metadata" | "open",
    rows: readonly (readonly [key: string, record: Uint8Array])[],
  ): TreeRoot => {
    const store = (bytes: Uint8Array): Uint8Array => {
      const id = put(kind, bytes);
      used.add(idKey(id));
      return id;
    };
    const tree = new TreeWriter(store, { targetSizeBytes: NODE_SIZE_BYTES });
    for (const [key, record] of rows) tree.add(key, record);
    const root = tree.finish();
    take(builderOf(kind).finish());
    return root;
  };
  const rows = numbers.map((number): readonly [string, Uint8Array] => {
    const bytes = smallChunk(number);
    const id = put("data", bytes);
    used.add(idKey(id));
    return [idKey(id), new Uint8Array([...id, bytes.length])];
  });
  take(builderOf("data").finish());
  const listing = treeOf(
    "metadata",
    rows.toSorted(([one], [other]) => (one < other ? -1 : 1)),
  );
  const uses = new Map<string, PackUse>();
  for (const key of used) {
    const place = known(Buffer.from(key, "latin1"));
    if (place === undefined) throw new Error("a chunk has no place");
    const frameCount = frameCountOf(repository, sealed, place.pack);
    const frames = new Uint8Array(bitmapSizeBytes(frameCount));
    const use = uses.get(place.pack) ?? { pack: place.pack, frameCount, frames };
    setFrame(use.frames, place.frame);
    uses.set(place.pack, use);
  }
  used.clear();
  const sorted = [...uses.values()].toSorted((one, other) => (one.pack < other.pack ? -1 : 1));
  const list = treeOf(
    "open",
    sorted.map((use) => [packUseKey(use), encodePackUse(use)]),
  );
  const listPacks = [
    ...new Set([...used].map((key) => known(Buffer.from(key, "latin1"))?.pack ?? "")),
  ];
  return { sealed, listing, list, listPacks };
}

function frameCountOf(repository: Repository, sealed: readonly SealedPack[], pack: string): number {
  const own = sealed.find(({ id }) => id === pack)?.directory;
  return (own ?? repository.index.findPack(pack))?.frames.length ?? 0;
}

/** `open` is for lists, which in an encrypted repository all nodes can read. */
type BuilderKind = PackKind | "open";

function sharedBuilder(kind: BuilderKind): PackBuilder {
  const packKind = kind === "open" ? "metadata" : kind;
  const known = BUILDERS.get(packKind);
  if (known !== undefined) return known;
  const builder = makeBuilder(packKind);
  BUILDERS.set(packKind, builder);
  return builder;
}

/** A session is one backup's. */
function sealingBuilders(session: WriteSession): Readonly<Record<BuilderKind, PackBuilder>> {
  return {
    data: makeBuilder("data", session.sealing),
    metadata: makeBuilder("metadata", session.sealing),
    open: makeBuilder("metadata", session.nodeSealing),
  };
}

function makeBuilder(kind: PackKind, sealing?: FrameSealing): PackBuilder {
  return new PackBuilder({
    kind,
    packSizeBytes: PACK_SIZE_BYTES,
    frameSizeBytes: FRAME_SIZE_BYTES,
    compression: { level: 1 },
    salt: () => salt(),
    sealing,
  });
}

/** The packs that lie in a site. */
export function packsIn(objects: ReadonlyMap<string, Uint8Array>): string[] {
  return [...objects.keys()].filter((key) => key.startsWith("pack/"));
}
