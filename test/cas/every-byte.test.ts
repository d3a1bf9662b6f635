/**
 * Every byte of a small repository: flipped, cut off, removed, swapped, replayed. A deep
 * verification by a node that remembers the log finds each, naming the object; a restore by a
 * reader that remembers nothing gives exactly the right bytes or fails, and no file that it leaves
 * has a wrong byte. The same of an encrypted repository, verified by a node that opens nothing, where
 * each seventh byte must do unless asked. `ASTACUS_EVERY_BYTE=1` restores after each flip, and flips every byte of the
 * checkpoint too.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import { findBackup } from "../../src/cas/log/find-backup.ts";
import { readManifest } from "../../src/cas/format/manifest.ts";
import { parseObjectKey } from "../../src/cas/format/object-name.ts";
import { runVolumeRestore } from "../../src/cas/read/restore.ts";
import { verifyRepository } from "../../src/cas/read/verify.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import { MemoryFileSystem } from "../simulation/memory-file-system.ts";
import { seededRandom } from "../sites/still-clock.ts";
import { noise } from "./noise.ts";
import type { RepositoryEncryption } from "../../src/cas/keys/repository-encryption.ts";
import { ENCRYPTION, READER } from "./encryption-keys.ts";
import type { ReaderKeys, TestFile } from "./repository-builder.ts";
import { openReader, RepositoryBuilder } from "./repository-builder.ts";
import { readFile, shapeExpected, shapeOf, walk } from "./tree-shape.ts";

const IS_THOROUGH = process.env["ASTACUS_EVERY_BYTE"] === "1";
const RESTORE_STRIDE = IS_THOROUGH ? 1 : 11;
/** A checkpoint is written after 64 entries; every verification then reads all of these. */
const CHECKPOINT_STRIDE = IS_THOROUGH ? 1 : 7;
const ENCRYPTED_STRIDE = IS_THOROUGH ? 1 : 7;
const LONG_LOG = 66;
const SHORT_LOG = 3;
const TIMEOUT_MS = 600_000;

const FILES: readonly TestFile[] = [
  { path: "d" },
  { path: "d/link", hardlink: "d/a" },
  { path: "d/a", content: noise(900, 1) },
  { path: "text", content: new TextEncoder().encode("compressible ".repeat(60)) },
  { path: "tree", content: noise(700, 2), isTree: true },
  { path: "to", symlink: "d/a" },
];

const PLAIN_KINDS = ["header", "log", "checkpoint", "pack", "index", "manifest"] as const;
const KINDS = [...PLAIN_KINDS, "key"] as const;
type Kind = (typeof KINDS)[number];

const CASES = [
  ...PLAIN_KINDS.map((kind) => ({ kind, isEncrypted: false, name: kind })),
  ...KINDS.map((kind) => ({ kind, isEncrypted: true, name: `encrypted ${kind}` })),
];

/** A repository whose objects can be damaged and mended. */
class World implements Disposable {
  readonly objects: Map<string, Uint8Array>;
  /** The objects as they should be. */
  readonly whole: ReadonlyMap<string, Uint8Array>;
  readonly #builder: RepositoryBuilder;
  /** What a reader has. */
  readonly #keys: ReaderKeys;

  private constructor(
    builder: RepositoryBuilder,
    objects: Map<string, Uint8Array>,
    encryption: RepositoryEncryption | undefined,
  ) {
    this.#builder = builder;
    this.#keys = { encryption, identities: encryption === undefined ? [] : [READER.identity] };
    this.objects = objects;
    this.whole = new Map(Array.from(objects, ([key, bytes]) => [key, bytes.slice()]));
  }

  static async open(entryCount: number, encryption?: RepositoryEncryption): Promise<World> {
    const site = new MemorySite();
    const builder = await RepositoryBuilder.create({
      site,
      chunkSizeBytes: 250,
      nodeSizeBytes: 200,
      frameSizeBytes: 512,
      packSizeBytes: 1500,
      encryption,
    });
    await builder.backup("older", { a: { data: FILES.slice(0, 3) } });
    await builder.backup("wanted", { a: { data: FILES } });
    const operation = "0".repeat(32);
    while (builder.repository.state.sequence < entryCount) {
      const note = { kind: "note", body: { text: "" } } as const;
      await builder.repository.commit(() => note, { operation });
    }
    return new World(builder, site.objects, encryption);
  }

  [Symbol.dispose](): void {
    this.#builder[Symbol.dispose]();
  }

  keysOf(kind: Kind): string[] {
    return [...this.whole.keys()].filter((key) => parseObjectKey(key).kind === kind).toSorted();
  }

  /** Makes one object what it was. */
  mend(key: string): void {
    this.objects.set(key, this.whole.get(key)!.slice());
  }

  /** The keys that a deep verification complains about. */
  async complaints(): Promise<string[]> {
    const { repository } = this.#builder;
    const source = this.#builder.source();
    const report = await verifyRepository({ repository, source, deep: true });
    expect(report.ok).toBe(report.problemCount === 0);
    return report.problems.map(({ object }) => object);
  }

  /** Restores with nothing but the site; never leaves a wrong byte. */
  async restore(): Promise<"right" | "failed"> {
    const files = new MemoryFileSystem({ clock: { now: () => 1_800_000_000_000 } });
    let outcome: "right" | "failed" = "right";
    try {
      using reader = await openReader(this.#builder.site, this.#keys);
      const backup = findBackup(reader.repository.state, "wanted", undefined);
      const { source } = reader;
      const { site } = this.#builder;
      const manifest = await readManifest(site, backup, undefined, source.opener);
      const { listing } = manifest.nodes[0]!.volumes[0]!;
      const random = seededRandom(3);
      const how = { ownerPolicy: "recorded", extra: "remove" } as const;
      await runVolumeRestore({ listing, source, files, target: "/t", random, ...how });
    } catch (thrown) {
      if (!(thrown instanceof AppError) || thrown.kind === "internal") throw thrown;
      outcome = "failed";
    }
    if (outcome === "right") expect(shapeOf(files, "/t")).toEqual(shapeExpected(FILES));
    else if (files.lstat("/t") !== undefined) expectNoWrongByte(files);
    return outcome;
  }
}

function expectNoWrongByte(files: MemoryFileSystem): void {
  for (const path of walk(files, "/t", "")) {
    if (files.lstat(`/t/${path}`)?.type !== "file") continue;
    const first = FILES.find((file) => file.path === path)?.hardlink ?? path;
    const content = FILES.find((file) => file.path === first)?.content;
    expect(Buffer.compare(readFile(files, `/t/${path}`), content!)).toBe(0);
  }
}

test("a small repository has every kind of object, and nothing else", async () => {
  using world = await World.open(LONG_LOG);
  const kinds = [...world.whole.keys()].map((key) => parseObjectKey(key).kind);
  expect(new Set(kinds)).toEqual(new Set(PLAIN_KINDS));
  expect(await world.complaints()).toEqual([]);
  expect(await world.restore()).toBe("right");
});

test("an encrypted one has keys besides, and nothing else", async () => {
  using world = await World.open(LONG_LOG, ENCRYPTION);
  const kinds = [...world.whole.keys()].map((key) => parseObjectKey(key).kind);
  expect(new Set(kinds)).toEqual(new Set(KINDS));
  expect(await world.complaints()).toEqual([]);
  expect(await world.restore()).toBe("right");
});

describe.each(CASES)("in each object of the kind: $name", ({ kind, isEncrypted, name }) => {
  let world: World;
  beforeAll(async () => {
    const entryCount = kind === "checkpoint" ? LONG_LOG : SHORT_LOG;
    world = await World.open(entryCount, isEncrypted ? ENCRYPTION : undefined);
  });
  afterAll(() => world[Symbol.dispose]());

  test(
    "every flipped byte is found and does no harm",
    async () => {
      const count = { bytes: 0, right: 0, failed: 0 };
      const stride = kind === "checkpoint" ? CHECKPOINT_STRIDE : isEncrypted ? ENCRYPTED_STRIDE : 1;
      for (const key of world.keysOf(kind)) {
        const { length } = world.whole.get(key)!;
        for (let offset = 0; offset < length; offset += stride) {
          const bytes = world.whole.get(key)!.slice();
          bytes[offset] = bytes[offset]! ^ (1 << (offset % 8));
          world.objects.set(key, bytes);
          expect(await world.complaints()).toContain(key);
          count.bytes += 1;
          if (count.bytes % RESTORE_STRIDE === 0) count[await world.restore()] += 1;
          world.mend(key);
        }
      }
      const { bytes, right, failed } = count;
      console.log(`${name}: ${bytes} flips found; restores: ${right} right, ${failed} failed`);
      expect(bytes).toBeGreaterThan(0);
    },
    TIMEOUT_MS,
  );

  test(
    "what is cut, grown, emptied or removed is found and does no harm",
    async () => {
      const count = { damages: 0, right: 0, failed: 0 };
      for (const key of world.keysOf(kind)) {
        for (const damage of damagesOf(world.whole.get(key)!)) {
          if (damage === undefined) world.objects.delete(key);
          else world.objects.set(key, damage);
          expect(await world.complaints()).toContain(key);
          count.damages += 1;
          count[await world.restore()] += 1;
          world.mend(key);
        }
      }
      const { damages, right, failed } = count;
      console.log(`${name}: ${damages} damages found; restores: ${right} right, ${failed} failed`);
      expect(damages).toBeGreaterThan(0);
    },
    TIMEOUT_MS,
  );

  test(
    "what is swapped with another, or replayed in its place, is found and does no harm",
    async () => {
      const keys = world.keysOf(kind);
      for (const [index, key] of keys.entries()) {
        const other = keys[(index + 1) % keys.length]!;
        // Only one object of this kind: it takes the place of one of another kind.
        const stranger = other === key ? world.keysOf("pack")[0]! : other;
        world.objects.set(key, world.whole.get(stranger)!.slice());
        expect(await world.complaints()).toContain(key);
        await world.restore();
        world.objects.set(stranger, world.whole.get(key)!.slice());
        const found = await world.complaints();
        expect(found).toContain(key);
        expect(found).toContain(stranger);
        await world.restore();
        world.mend(key);
        world.mend(stranger);
      }
      expect(await world.complaints()).toEqual([]);
    },
    TIMEOUT_MS,
  );
});

function damagesOf(bytes: Uint8Array): (Uint8Array | undefined)[] {
  const { length } = bytes;
  const grown = new Uint8Array(length + 1);
  grown.set(bytes);
  const zeros = new Uint8Array(length);
  const cuts = [1, length >> 1, length - 1].map((size) => bytes.slice(0, size));
  return [undefined, zeros, grown, ...cuts];
}
