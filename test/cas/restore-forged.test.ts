/**
 * Listings that no writer of ours would make, with right hashes: a restore refuses them, and nothing
 * outside its target is touched. Also packs that claim to unpack to more than they should.
 */
import { describe, expect, test } from "bun:test";
import { sha256, toHex } from "../../src/base/hex.ts";
import type { ChunkPlace } from "../../src/cas/catalog/catalog-index.ts";
import { ChunkSource } from "../../src/cas/read/chunk-source.ts";
import type { FileAttributes, FileRecord } from "../../src/cas/format/listing.ts";
import { encodeRecord, pathOfRecord } from "../../src/cas/format/listing.ts";
import { runVolumeRestore } from "../../src/cas/read/restore.ts";
import type { TreeRoot } from "../../src/cas/format/tree.ts";
import { TreeWriter } from "../../src/cas/format/tree.ts";
import { compressZstd } from "../../src/cas/format/zstd.ts";
import { MemoryFileSystem } from "../simulation/memory-file-system.ts";
import { seededRandom } from "../sites/still-clock.ts";
import { failureOf } from "./restore-setup.ts";
import { readFile, walk, writeFile } from "./tree-shape.ts";

const ATTRIBUTES: Omit<FileAttributes, "path"> = {
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtimeNs: 0n,
  sparse: false,
  xattrs: new Map(),
};
const CONTENT = new TextEncoder().encode("forged");

/** Frames by chunk id, and a source that reads them. */
class Forge {
  readonly #stored = new Map<string, Uint8Array>();
  readonly #places = new Map<string, ChunkPlace[]>();
  readonly source = new ChunkSource({
    site: { get: async (key) => this.#stored.get(key) },
    index: { find: (id) => this.#places.get(toHex(id)) ?? [] },
    state: () => ({ retired: new Map(), deleted: new Map() }),
    concurrency: 2,
    cacheBytes: 1 << 20,
  });

  /** Stores a chunk; `stored` and `rawLength` say how its frame looks. */
  put(bytes: Uint8Array, stored = bytes, codec: 0 | 1 = 0): Uint8Array<ArrayBuffer> {
    const id = sha256(bytes);
    const pack = toHex(id);
    this.#stored.set(`pack/${pack.slice(0, 2)}/${pack}-1`, stored);
    const place = {
      pack,
      birth: 1,
      frame: 0,
      offset: 0,
      length: bytes.length,
      frameOffset: 0,
      storedLength: stored.length,
      rawLength: bytes.length,
      codec,
    };
    this.#places.set(pack, [place]);
    return id;
  }

  /** A tree of records as they come. */
  listing(records: readonly Uint8Array[]): TreeRoot {
    const body = records.flatMap((record) => [varint(record.length), record]);
    const leaf = Buffer.concat([Uint8Array.of(0), ...body]);
    return { id: toHex(this.put(leaf)), length: leaf.length, count: records.length };
  }

  file(path: string): FileRecord {
    const chunks = [{ id: this.put(CONTENT), length: CONTENT.length }];
    const content = { form: "inline", chunks } as const;
    return { ...ATTRIBUTES, path, type: "file", sizeBytes: CONTENT.length, content };
  }
}

function varint(value: number): Uint8Array {
  return value < 128 ? Uint8Array.of(value) : Uint8Array.of((value & 127) | 128, value >> 7);
}

/** A disk with a file outside the target, which is all that may be there afterwards. */
async function expectRefused(forge: Forge, listing: TreeRoot): Promise<void> {
  const files = new MemoryFileSystem({ clock: { now: () => 0 } });
  files.makeDirectory("/outside");
  files.makeDirectory("/t");
  writeFile(files, "/outside/secret", CONTENT.toReversed());
  const random = seededRandom(1);
  const options = { listing, source: forge.source, files, target: "/t/x", random } as const;
  const error = await failureOf(() =>
    runVolumeRestore({ ...options, ownerPolicy: "none", extra: "remove" }),
  );
  expect(["damaged", "refused"]).toContain(error.kind);
  expect(walk(files, "/", "outside")).toEqual(["outside/secret"]);
  expect(readFile(files, "/outside/secret")).toEqual(CONTENT.toReversed());
}

/** A record whose path (as long as `path`) is replaced behind the encoder's back. */
function withPath(record: FileRecord, path: string): Uint8Array {
  const bytes = encodeRecord(record);
  expect(path.length).toBe(record.path.length);
  bytes.set(Buffer.from(path, "latin1"), 1);
  return bytes;
}

describe("refuses a listing", () => {
  test("whose paths lead out of the target", async () => {
    for (const path of ["../outside/x", "a/../../b/ccc", "/outside/xyz", "a//b/c/d/e/f"]) {
      const forge = new Forge();
      const record = withPath(forge.file("x".repeat(path.length)), path);
      await expectRefused(forge, forge.listing([record]));
    }
  });

  test("that puts a file below a symbolic link of its own", async () => {
    const forge = new Forge();
    const link: FileRecord = { ...ATTRIBUTES, path: "a", type: "symlink", target: "/outside" };
    const records = [link, forge.file("a/secret")].map(encodeRecord);
    await expectRefused(forge, forge.listing(records));
  });

  test("that puts a file below a file, with other names between them", async () => {
    const forge = new Forge();
    const records = ["a", "a-b", "a/secret"].map((path) => encodeRecord(forge.file(path)));
    await expectRefused(forge, forge.listing(records));
  });

  test("that names a path twice, or in another order", async () => {
    for (const paths of [
      ["a", "a"],
      ["b", "a"],
    ]) {
      const forge = new Forge();
      const records = paths.map((path) => encodeRecord(forge.file(path)));
      await expectRefused(forge, forge.listing(records));
    }
  });

  test("that links to what lies behind a symbolic link", async () => {
    const forge = new Forge();
    const link: FileRecord = { ...ATTRIBUTES, path: "a", type: "symlink", target: "/outside" };
    const target = "a/secret";
    const hard: FileRecord = { ...ATTRIBUTES, path: "b", type: "hardlink", target };
    await expectRefused(forge, forge.listing([link, hard].map(encodeRecord)));
  });

  test("whose chunk list does not add up", async () => {
    const forge = new Forge();
    const writer = new TreeWriter((bytes) => forge.put(bytes));
    const record = Buffer.concat([forge.put(CONTENT), varint(CONTENT.length)]);
    writer.add("k", record);
    const content = { form: "tree", root: writer.finish() } as const;
    for (const sizeBytes of [1, CONTENT.length + 1]) {
      const file: FileRecord = { ...ATTRIBUTES, path: "a", type: "file", sizeBytes, content };
      await expectRefused(forge, forge.listing([encodeRecord(file)]));
    }
  });
});

test("does not unpack a frame that claims more than its place says", async () => {
  const forge = new Forge();
  const bomb = compressZstd(new Uint8Array(64 << 20), 1);
  const id = forge.put(CONTENT, bomb, 1);
  const content = { form: "inline", chunks: [{ id, length: CONTENT.length }] } as const;
  const sizeBytes = CONTENT.length;
  const file: FileRecord = { ...ATTRIBUTES, path: "a", type: "file", sizeBytes, content };
  const listing = forge.listing([encodeRecord(file)]);
  expect(pathOfRecord(encodeRecord(file))).toBe("a");
  await expectRefused(forge, listing);
});
