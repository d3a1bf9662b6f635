/**
 * Archives: what comes out of them with the tools of others is what was backed up; what does not fit
 * is refused before the first byte; and whoever stops reading stops everything.
 */
import { describe, expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { unzipSync } from "fflate";
import { realFileSystem } from "../../src/base/file-system.ts";
import { sha256, toHex } from "../../src/base/hex.ts";
import { WINDOW_SIZE_BYTES } from "../../src/cas/read/archive-content.ts";
import type { ArchiveEntry, ArchiveVolume } from "../../src/cas/read/archive-entry.ts";
import { TarWriter } from "../../src/cas/read/archive-tar.ts";
import { ZIP_ENTRY_COUNT_MAX, ZipLimits } from "../../src/cas/read/archive-zip-limits.ts";
import type { Archive, ArchiveFormat, ArchiveOptions } from "../../src/cas/read/archive.ts";
import { archiveFiles } from "../../src/cas/read/archive.ts";
import type { FileRecord } from "../../src/cas/format/listing.ts";
import { encodeRecord } from "../../src/cas/format/listing.ts";
import { readManifest } from "../../src/cas/format/manifest.ts";
import type { ContentSource } from "../../src/cas/read/restore-options.ts";
import { TreeWriter } from "../../src/cas/format/tree.ts";
import { noise } from "./noise.ts";
import type { TestFile, TestNodes } from "./repository-builder.ts";
import { RepositoryBuilder } from "./repository-builder.ts";
import { everyKind, failureOf, OUR_GID, OUR_UID, text } from "./restore-setup.ts";
import { parseTar } from "./tar-parser.ts";
import { temporaryFolder } from "./temporary-folder.ts";
import { shapeExpected, shapeOf } from "./tree-shape.ts";

const FOLDERS_MTIME_NS = 1_700_000_000_000_000_000n;
const GIB = 1024 ** 3;
const LONG = `${"long".repeat(30)}/${"longer".repeat(30)}`;

/** Names that ustar cannot hold, and one that is no text. */
function awkward(): TestFile[] {
  const ours = { uid: OUR_UID, gid: OUR_GID };
  const files: TestFile[] = [
    { path: "long".repeat(30) },
    { path: LONG, content: text("deep down") },
    { path: "link", symlink: "there/".repeat(40) },
    { path: Buffer.from("grüße 🦞").toString("latin1"), content: text("beyond ASCII") },
    { path: "old", content: text("before 1970"), mtimeNs: -1_500_000_000n },
    { path: "\xef".repeat(150), content: text("long, and no text") },
    { path: "twice", hardlink: LONG },
  ];
  return files.map((file) => ({ ...file, ...ours }));
}

/** A repository with one backup, and what an archive of it takes. */
async function prepareArchive(nodes: TestNodes) {
  const builder = await RepositoryBuilder.create();
  const record = await builder.backup("one", nodes);
  const manifest = await readManifest(builder.site, record);
  const volumes = manifest.nodes.flatMap(({ name: node, volumes }) =>
    volumes.map(({ name: volume, listing }): ArchiveVolume => ({ node, volume, listing })),
  );
  const options = { volumes, source: builder.source(), foldersMtimeNs: FOLDERS_MTIME_NS };
  return { builder, options, [Symbol.dispose]: () => builder[Symbol.dispose]() };
}

async function bytesOf(archive: Archive): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(archive.bytes()));
}

async function makeArchive(options: ArchiveOptions): Promise<Buffer> {
  return await bytesOf(await archiveFiles(options));
}

/** What a tool says of old times and of a key that it does not know is no failure. */
async function unpack(command: readonly string[], folder: string): Promise<void> {
  // Without a locale that knows UTF-8, unzip writes other names than the archive has.
  const env = { ...process.env, LC_ALL: "C.UTF-8" };
  const child = Bun.spawn([...command], { cwd: folder, env, stdout: "ignore", stderr: "pipe" });
  const said = await new Response(child.stderr).text();
  const code = await child.exited;
  expect(code === 0 ? "" : said).toBe("");
  expect(code).toBe(0);
}

function without(tool: string): boolean {
  return Bun.which(tool) === null;
}

describe("tar", () => {
  test.skipIf(without("tar"))("unpacks to exactly what was backed up [needs tar]", async () => {
    const files = [...everyKind(), ...awkward()];
    using prepared = await prepareArchive({ a: { data: files } });
    using folder = temporaryFolder();
    const bytes = await makeArchive({ ...prepared.options, format: "tar" });
    fs.writeFileSync(join(folder.path, "x.tar"), bytes);
    await unpack(["tar", "-xpf", "x.tar"], folder.path);
    const shape = { withOwners: true };
    const root = `${folder.path}/a/data`;
    expect(shapeOf(realFileSystem, root, shape)).toEqual(shapeExpected(files, shape));
  });

  test("holds every file, link and attribute", async () => {
    const xattrs = new Map([
      ["user.a", text("1\n2")],
      ["user.b=%", Uint8Array.of(0, 255, 10)],
    ]);
    const files = [
      ...everyKind(),
      ...awkward(),
      { path: "x", content: text("attributes"), xattrs },
    ];
    using prepared = await prepareArchive({ a: { data: files } });
    const found = parseTar(await makeArchive({ ...prepared.options, format: "tar" }));
    expect(found.slice(0, 2)).toMatchObject([
      { name: "a/", type: "5", mode: 0o755, mtimeNs: FOLDERS_MTIME_NS },
      { name: "a/data/", type: "5", mode: 0o755, mtimeNs: FOLDERS_MTIME_NS },
    ]);
    const byName = new Map(found.slice(2).map((entry) => [entry.name, entry]));
    expect(byName.size).toBe(files.length);
    expect(found.length).toBe(files.length + 2);
    for (const file of files) {
      const type = typeOf(file);
      const entry = byName.get(`a/data/${file.path}${type === "5" ? "/" : ""}`);
      const link = file.hardlink === undefined ? undefined : `a/data/${file.hardlink}`;
      expect(entry).toMatchObject({ type, target: link ?? file.symlink ?? "" });
      if (link !== undefined) continue;
      expect(entry?.mtimeNs).toBe(file.mtimeNs ?? 1_700_000_000_123_456_789n);
      const content = file.content ?? new Uint8Array();
      expect(Buffer.compare(entry?.content ?? text("no entry"), content)).toBe(0);
    }
    const pax = found.find(({ name }) => name === "a/data/x")?.pax;
    expect(pax?.get("SCHILY.xattr.user.a")).toBe("1\n2");
    expect(pax?.get("SCHILY.xattr.user.b%3D%25")).toBe("\0\xff\n");
  });

  test("says in pax headers what ustar cannot", async () => {
    const byte = fc.integer({ min: 1, max: 255 }).map((code) => String.fromCharCode(code));
    const name = fc
      .string({ unit: byte, minLength: 1, maxLength: 220 })
      .map((path) => path.replaceAll("/", "-"));
    const number = fc.oneof(fc.nat({ max: 0o7777777 + 2 }), fc.maxSafeNat());
    const record = fc.record({
      path: name,
      mode: fc.integer({ min: 0, max: 0o7777 }),
      uid: number,
      gid: number,
      mtimeNs: fc.bigInt({ min: -(10n ** 18n), max: 10n ** 20n }),
      target: name,
    });
    fc.assert(
      fc.property(fc.array(record, { maxLength: 5 }), (records) => {
        const entries = records.map(({ target, ...rest }): ArchiveEntry => {
          const attributes = { ...rest, sparse: false, xattrs: new Map() };
          return {
            name: rest.path,
            target,
            record: { ...attributes, type: "symlink", target },
          };
        });
        const pieces: Uint8Array[] = [];
        const writer = new TarWriter((bytes) => pieces.push(bytes));
        for (const entry of entries) writer.open(entry);
        writer.finish();
        const found = parseTar(Buffer.concat(pieces));
        expect(
          found.map(({ name, target, uid, gid, mtimeNs }) => [name, target, uid, gid, mtimeNs]),
        ).toEqual(records.map((one) => [one.path, one.target, one.uid, one.gid, one.mtimeNs]));
      }),
    );
  });

  test("takes a file that is larger than ustar can say", () => {
    const pieces: Uint8Array[] = [];
    const writer = new TarWriter((bytes) => pieces.push(bytes));
    writer.open({ name: "big", target: undefined, record: largeFile("big", 9 * GIB) });
    expect(Buffer.concat(pieces).toString("latin1")).toContain(`size=${9 * GIB}\n`);
  });
});

/** What ZIP can name: UTF-8 only. */
function nameable(): TestFile[] {
  return [...everyKind(), ...awkward()].filter(({ path }) => !/\xef/.test(path));
}

describe("zip", () => {
  test.skipIf(without("unzip"))(
    "unpacks to what was backed up, to the second, hard links as copies [needs unzip]",
    async () => {
      const files = nameable();
      using prepared = await prepareArchive({ a: { data: files }, b: { data: [] } });
      using folder = temporaryFolder();
      const bytes = await makeArchive({ ...prepared.options, format: "zip" });
      fs.writeFileSync(join(folder.path, "x.zip"), bytes);
      await unpack(["unzip", "-q", "-K", "x.zip"], folder.path);
      const found = shapeOf(realFileSystem, `${folder.path}/a/data`, { noTimesOf: pathsOf(files) });
      expect(found).toEqual(shapeExpected(withCopies(files), { noTimesOf: pathsOf(files) }));
      const stat = realFileSystem.lstat(`${folder.path}/a/data/a/b`);
      expect(stat?.mtimeNs).toBe(0n);
      expect(realFileSystem.lstat(`${folder.path}/a/data/a/same`)?.mtimeNs).toBe(
        1_700_000_000_000_000_000n,
      );
      expect(realFileSystem.lstat(`${folder.path}/b/data`)?.type).toBe("directory");
    },
  );

  test.skipIf(without("python3"))(
    "is what Python calls a sound archive [needs python3]",
    async () => {
      using prepared = await prepareArchive({ a: { data: nameable() } });
      using folder = temporaryFolder();
      const bytes = await makeArchive({ ...prepared.options, format: "zip" });
      fs.writeFileSync(join(folder.path, "x.zip"), bytes);
      const script = "import zipfile; assert zipfile.ZipFile('x.zip').testzip() is None";
      await unpack(["python3", "-c", script], folder.path);
    },
  );

  test("holds every byte, compressible or not, in chunks of any number", async () => {
    const files: TestFile[] = [
      { path: "none", content: new Uint8Array(0) },
      { path: "noise", content: noise(150_001, 3) },
      { path: "text", content: text("again and again. ".repeat(20_000)), isTree: true },
    ];
    using prepared = await prepareArchive({ a: { data: files } });
    const found = unzipSync(await makeArchive({ ...prepared.options, format: "zip" }));
    for (const { path, content } of files) {
      expect(Buffer.compare(found[`a/data/${path}`]!, content!)).toBe(0);
    }
    expect(Object.keys(found)).toHaveLength(files.length + 2);
  });

  describe("refuses before the first byte", () => {
    const refusal = async (records: readonly FileRecord[]): Promise<string> => {
      const options = claim(records);
      const error = await failureOf(() => archiveFiles({ ...options, format: "zip" }));
      expect(error).toMatchObject({ kind: "refused", context: { reason: "zip-limits" } });
      // Tar takes the very same.
      const { entryCount } = await archiveFiles({ ...options, format: "tar" });
      expect(entryCount).toBe(records.length + 2);
      return error.message;
    };

    test("a file of 4 GiB", async () => {
      expect(await refusal([largeFile("f", 4 * GIB)])).toContain("n/v/f has 4294967296 bytes");
    });

    test("files of 4 GiB together", async () => {
      const files = [largeFile("f", 2 * GIB), largeFile("g", 2 * GIB)];
      expect(await refusal(files)).toContain("All together");
    });

    test("hard links whose copies are 4 GiB together", async () => {
      const link: FileRecord = { ...largeFile("g", 0), type: "hardlink", target: "f" };
      expect(await refusal([largeFile("f", 2 * GIB), link])).toContain("All together");
    });

    test("more entries than it can count", () => {
      const limits = new ZipLimits();
      const take = (index: number): void => {
        const record = directory(String(index).padStart(6, "0"));
        limits.take({ name: record.path, target: undefined, record });
      };
      for (let index = 0; index < ZIP_ENTRY_COUNT_MAX; index++) take(index);
      expect(() => take(ZIP_ENTRY_COUNT_MAX)).toThrow("more than 65535");
    });

    test("a name that is not UTF-8", async () => {
      expect(await refusal([directory("na\xefve")])).toContain("na\ufffdve is not UTF-8");
    });
  });
});

describe.each(["zip", "tar"] as const)("as %s", (format) => {
  test("holds what a filter lets through, of the volumes that have it", async () => {
    const nodes: TestNodes = {
      a: { data: everyKind(), logs: [{ path: "x", content: text("x") }] },
      b: { data: [{ path: "a/b", content: text("of b") }, { path: "a" }] },
    };
    using prepared = await prepareArchive(nodes);
    const paths = ["b", "a/s*", "!z"];
    const bytes = await makeArchive({ ...prepared.options, format, paths });
    const names = ["a/", "a/data/", "a/data/a/", "a/data/a/same", "a/data/b"];
    const found = contentsOf(bytes, format);
    expect([...found.keys()]).toEqual(names);
    // The first name of the hard link was not asked for.
    expect(Buffer.compare(found.get("a/data/b")!, noise(9000, 1))).toBe(0);
  });

  test("has what a directory holds right behind it", async () => {
    const files = ["a", "a-b", "a-b/x", "a-c", "a/b", "a/b ", "a/b /y", "a/b/c", "a/empty"];
    const directories = new Set(["a", "a-b", "a/b", "a/b ", "a/empty"]);
    const nodes: TestNodes = {
      n: {
        v: files.map((path) => (directories.has(path) ? { path } : { path, content: text(path) })),
      },
    };
    using prepared = await prepareArchive(nodes);
    const bytes = await makeArchive({ ...prepared.options, format });
    const names = [...contentsOf(bytes, format).keys()].map((name) => name.slice(4));
    const expected = "a-b/,a-b/x,a-c,a/,a/b /,a/b /y,a/b/,a/b/c,a/empty/";
    expect(names.slice(2).join()).toBe(expected);
  });

  test("is refused where nothing matches", async () => {
    using prepared = await prepareArchive({ a: { data: everyKind() } });
    const options = { ...prepared.options, format, paths: ["*.nothing"] };
    const error = await failureOf(() => archiveFiles(options));
    expect(error).toMatchObject({
      kind: "not-found",
      message: expect.stringContaining("*.nothing"),
    });
  });

  test("is refused where a name would lead out of the folder that it is unpacked in", async () => {
    using prepared = await prepareArchive({ a: { data: [] } });
    for (const node of ["..", ".", "", "a/b", "\0"]) {
      const volumes = prepared.options.volumes.map((volume) => ({ ...volume, node }));
      const options = { ...prepared.options, volumes, format };
      expect((await failureOf(() => archiveFiles(options))).kind).toBe("refused");
    }
  });

  test("ends with an error where a chunk is damaged, not with a shorter archive", async () => {
    using prepared = await prepareArchive({ a: { data: nameable() } });
    const source: ContentSource = {
      fetch: (...given) => prepared.options.source.fetch(...given),
      fetchMany: (...given) => prepared.options.source.fetchMany(...given),
    };
    const archive = await archiveFiles({ ...prepared.options, source, format });
    source.fetchMany = async () => {
      throw await failureOf(() => source.fetch(new Uint8Array(32), 5));
    };
    expect((await failureOf(() => bytesOf(archive))).kind).toBe("damaged");
  });

  test("reads no more than two windows ahead of who takes it, whatever the size", async () => {
    const { options, fetched } = endless(24 * WINDOW_SIZE_BYTES);
    const archive = await archiveFiles({ ...options, format });
    let takenBytes = 0;
    let aheadBytes = 0;
    for await (const bytes of archive.bytes()) {
      takenBytes += bytes.length;
      aheadBytes = Math.max(aheadBytes, fetched.bytes - takenBytes);
    }
    expect(takenBytes).toBeGreaterThan(24 * WINDOW_SIZE_BYTES);
    expect(aheadBytes).toBeLessThanOrEqual(2 * (WINDOW_SIZE_BYTES + CHUNK_SIZE_BYTES));
  });

  test("stops in the middle when the signal aborts, and leaves nothing running", async () => {
    const { options, fetched } = endless(4 * WINDOW_SIZE_BYTES);
    const stop = new AbortController();
    const archive = await archiveFiles({ ...options, format, signal: stop.signal });
    const chunks = archive.bytes();
    await chunks.next();
    stop.abort(new Error("enough"));
    expect(drain(chunks)).rejects.toThrow("enough");
    await drain(chunks).catch(() => undefined);
    expect(fetched.running).toBe(0);
    expect(fetched.bytes).toBeLessThanOrEqual(2 * (WINDOW_SIZE_BYTES + CHUNK_SIZE_BYTES));
  });

  test("stops what it reads ahead when its reader leaves", async () => {
    const { options, fetched } = endless(4 * WINDOW_SIZE_BYTES);
    const archive = await archiveFiles({ ...options, format });
    const chunks = archive.bytes();
    await chunks.next();
    fetched.isStuck = true;
    await fetched.stuck.promise;
    await chunks.return();
    expect(fetched.running).toBe(0);
    expect(fetched.bytes).toBeLessThan(2 * WINDOW_SIZE_BYTES);
  });
});

const CHUNK_SIZE_BYTES = 1024 * 1024;

/** A file of that size, made of one chunk over and over again in a source that counts. */
function endless(sizeBytes: number) {
  const chunk = noise(CHUNK_SIZE_BYTES, 9);
  const stuck = Promise.withResolvers<void>();
  const fetched = { bytes: 0, running: 0, isStuck: false, stuck };
  const count = 16;
  const chunks = Array.from({ length: sizeBytes / CHUNK_SIZE_BYTES / count }, (_, index) => ({
    id: sha256(Uint8Array.of(index)),
    length: CHUNK_SIZE_BYTES,
  }));
  const records = Array.from({ length: count }, (_, index): FileRecord => {
    const own = chunks.map((ref) => ({ ...ref, id: sha256(Uint8Array.of(index, ...ref.id)) }));
    const content = { form: "inline", chunks: own } as const;
    const path = `f${String(index).padStart(2, "0")}`;
    return { ...largeFile(path, sizeBytes / count), content } as FileRecord;
  });
  const claimed = claim(records);
  const source: ContentSource = {
    fetch: claimed.source.fetch,
    async fetchMany(refs, onChunk, signal) {
      fetched.running += 1;
      try {
        for (const index of refs.keys()) {
          // As an answer of a site, it comes later.
          await Bun.sleep(0);
          if (fetched.isStuck) await untilAborted(signal, stuck.resolve);
          signal?.throwIfAborted();
          fetched.bytes += chunk.length;
          await onChunk(index, chunk);
        }
      } finally {
        fetched.running -= 1;
      }
    },
  };
  return { options: { ...claimed, source }, fetched };
}

/** As a site that does not answer until nobody waits for it. */
async function untilAborted(signal: AbortSignal | undefined, begun: () => void): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  signal?.addEventListener("abort", () => resolve(), { once: true });
  begun();
  await promise;
}

/** A listing of records whose contents nobody has. */
function claim(records: readonly FileRecord[]) {
  const nodes = new Map<string, Uint8Array>();
  const tree = new TreeWriter((bytes) => {
    const id = sha256(bytes);
    nodes.set(toHex(id), bytes.slice());
    return id;
  });
  for (const record of records) tree.add(record.path, encodeRecord(record));
  const source: ContentSource = {
    fetch: async (id) => {
      const bytes = nodes.get(toHex(id));
      if (bytes === undefined) throw new Error("nobody has these contents");
      return bytes;
    },
    fetchMany: async () => {},
  };
  const volumes = [{ node: "n", volume: "v", listing: tree.finish() }];
  return { volumes, source, foldersMtimeNs: FOLDERS_MTIME_NS };
}

function attributesOf(path: string) {
  const mtimeNs = FOLDERS_MTIME_NS;
  return { path, mode: 0o644, uid: 0, gid: 0, mtimeNs, sparse: false, xattrs: new Map() };
}

function directory(path: string): FileRecord {
  return { ...attributesOf(path), type: "directory" };
}

function largeFile(path: string, sizeBytes: number): FileRecord {
  const root = { id: "ab".repeat(32), length: 1, count: 1 };
  return { ...attributesOf(path), type: "file", sizeBytes, content: { form: "tree", root } };
}

async function drain(chunks: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const _ of chunks) {
    // Only the end counts.
  }
}

function typeOf(file: TestFile): string {
  if (file.hardlink !== undefined) return "1";
  if (file.symlink !== undefined) return "2";
  return file.content === undefined ? "5" : "0";
}

function pathsOf(files: readonly TestFile[]): string[] {
  return files.map(({ path }) => path);
}

/** Hard links as what they are links to. */
function withCopies(files: readonly TestFile[]): TestFile[] {
  return files.map((file) => {
    const original = files.find(({ path }) => path === file.hardlink);
    return original === undefined ? file : { ...original, path: file.path };
  });
}

/** Contents by name, in order. */
function contentsOf(bytes: Uint8Array, format: ArchiveFormat): Map<string, Uint8Array> {
  if (format === "zip") return new Map(Object.entries(unzipSync(bytes)));
  return new Map(parseTar(bytes).map(({ name, content }) => [name, content]));
}
