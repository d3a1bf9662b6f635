/** Packs: what goes in comes out, whatever is damaged is noticed, and nothing grows past its bound. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { sha256, toHex } from "../../src/base/hex.ts";
import { parseObjectKey } from "../../src/cas/format/object-name.ts";
import {
  cutDirectory,
  decodeDirectory,
  decodeFrame,
  directoryRange,
  encodeDirectory,
  openPack,
  type PackDirectory,
  packIdOf,
  packKey,
  type SealedPack,
} from "../../src/cas/format/pack.ts";
import { PackBuilder } from "../../src/cas/format/pack-builder.ts";
import { OBJECT_SIZE_BYTES_MAX } from "../../src/sites/site.ts";
import { expectDamaged } from "./expect-damaged.ts";
import { noise } from "./noise.ts";
import vectors from "./format-vectors.json";

function text(sizeBytes: number, seed: number): Uint8Array {
  return new Uint8Array(Buffer.alloc(sizeBytes, `line ${seed} of a log that says much the same\n`));
}

const chunk = fc.oneof(
  { weight: 4, arbitrary: fc.uint8Array({ minLength: 1, maxLength: 200 }) },
  {
    weight: 2,
    arbitrary: fc.tuple(fc.integer({ min: 1, max: 60_000 }), fc.nat()).map((a) => noise(...a)),
  },
  {
    weight: 2,
    arbitrary: fc.tuple(fc.integer({ min: 1, max: 90_000 }), fc.nat()).map((a) => text(...a)),
  },
);
const kind = fc.constantFrom("data" as const, "metadata" as const);
const salt = (): Uint8Array => new Uint8Array(16).fill(7);

function build(
  chunks: readonly Uint8Array[],
  options: { packSizeBytes: number; frameSizeBytes?: number; kind?: "data" | "metadata" },
): SealedPack[] {
  const builder = new PackBuilder({ kind: "data", compression: { level: 1 }, salt, ...options });
  const packs: SealedPack[] = [];
  for (const bytes of chunks) {
    // Whoever adds may use its buffers again.
    const id = sha256(bytes);
    const copy = Uint8Array.from(bytes);
    const full = builder.add(id, copy);
    id.fill(0);
    copy.fill(0);
    if (full !== undefined) packs.push(full);
  }
  const last = builder.finish();
  expect(builder.pendingBytes).toBe(0);
  return last === undefined ? packs : [...packs, last];
}

/** Everything a reader does with a whole pack. */
function readAll(bytes: Uint8Array, id: string): Map<string, Uint8Array> {
  const found = new Map<string, Uint8Array>();
  for (const frame of openPack(bytes, id, "pack").frames) {
    const stored = bytes.subarray(frame.offset, frame.offset + frame.storedLength);
    const raw = decodeFrame(stored, frame, "frame");
    for (const { id: chunkId, offset, length } of frame.chunks) {
      const content = raw.subarray(offset, offset + length);
      if (Buffer.compare(sha256(content), chunkId) !== 0) throw new TypeError("chunk id");
      found.set(toHex(chunkId), content);
    }
  }
  return found;
}

function isDetected(fn: () => unknown): boolean {
  try {
    fn();
    return false;
  } catch {
    return true;
  }
}

describe("PackBuilder", () => {
  test("all chunks come back, each in one pack", () => {
    fc.assert(
      fc.property(
        fc.array(chunk, { maxLength: 30 }),
        fc.integer({ min: 1, max: 200_000 }),
        fc.integer({ min: 1, max: 100_000 }),
        kind,
        (chunks, packSizeBytes, frameSizeBytes, packKind) => {
          const packs = build(chunks, { packSizeBytes, frameSizeBytes, kind: packKind });
          const rows = packs.flatMap(({ bytes, id }) => [...readAll(bytes, id)]);
          const expected = new Map(chunks.map((bytes) => [toHex(sha256(bytes)), bytes]));
          expect(new Set(rows.map(([id]) => id))).toEqual(new Set(expected.keys()));
          for (const [id, bytes] of rows) {
            expect(Buffer.compare(bytes, expected.get(id) ?? new Uint8Array())).toBe(0);
          }
          const count = packs.flatMap(({ directory }) => directory.frames.flatMap((f) => f.chunks));
          expect(count.length).toBe(chunks.length);
        },
      ),
      { numRuns: 60 },
    );
  });

  test("a sealed pack tells what its bytes say", () => {
    fc.assert(
      fc.property(fc.array(chunk, { minLength: 1, maxLength: 10 }), kind, (chunks, packKind) => {
        for (const pack of build(chunks, { packSizeBytes: 50_000, kind: packKind })) {
          expect(pack.kind).toBe(packKind);
          expect(openPack(pack.bytes, pack.id, "pack")).toEqual(pack.directory);
          const range = directoryRange(pack.bytes.length, pack.directoryBytes.length);
          const tail = pack.bytes.subarray(range.offset, range.offset + range.length);
          expect(cutDirectory(tail, "pack")).toEqual(pack.directoryBytes);
          expect(packIdOf(pack.directoryBytes)).toBe(pack.id);
        }
      }),
      { numRuns: 40 },
    );
  });

  test("a sealed pack does not change when the builder goes on", () => {
    const builder = new PackBuilder({
      kind: "data",
      packSizeBytes: 1000,
      compression: { level: 1 },
      salt,
    });
    const first = builder.add(sha256(noise(5000, 1)), noise(5000, 1));
    const before = first?.bytes.slice();
    builder.add(sha256(noise(4000, 2)), noise(4000, 2));
    builder.finish();
    expect(first?.bytes).toEqual(before as Uint8Array<ArrayBuffer>);
    expect(first?.bytes.byteLength).toBe(first?.bytes.buffer.byteLength as number);
  });

  test("incompressible chunks are plain frames of their own, whose id is the checksum", () => {
    const chunks = [noise(100_000, 1), noise(100_000, 2)];
    const frames = build(chunks, { packSizeBytes: 1 << 20 })[0]?.directory.frames;
    expect(frames?.map((f) => [f.codec, f.chunks.length, f.checksum])).toEqual([
      [0, 1, undefined],
      [0, 1, undefined],
    ]);
  });

  test("small and compressible chunks share frames of about the size asked for", () => {
    const chunks = Array.from({ length: 100 }, (_, index) => text(10_000 + index, index));
    const frames = build(chunks, { packSizeBytes: 1 << 20, frameSizeBytes: 200_000 })[0]?.directory
      .frames;
    expect(frames?.length).toBeLessThanOrEqual(6);
    expect(frames?.every((frame) => frame.codec === 1 && frame.rawLength <= 400_000)).toBe(true);
  });

  test("large chunks have frames of their own, compressed or not", () => {
    const chunks = [text(70_000, 1), text(3000, 2), noise(70_000, 3), text(3000, 4)];
    const frames = build(chunks, { packSizeBytes: 1 << 20 })[0]?.directory.frames;
    expect(frames?.map((f) => [f.codec, f.rawLength])).toEqual([
      [1, 70_000],
      [0, 70_000],
      [1, 6000],
    ]);
  });

  test("a pack in a used buffer that was handed out is the pack that it would be anyway", () => {
    const chunks = [text(70_000, 1), noise(70_000, 3), text(3000, 4)];
    const [expected] = build(chunks, { packSizeBytes: 1 << 20 });
    const buffers: Uint8Array[] = [];
    const builder = new PackBuilder({
      kind: "data",
      packSizeBytes: 1 << 20,
      compression: { level: 1 },
      salt,
      takeBuffer: (sizeBytes) => {
        const buffer = new Uint8Array(sizeBytes).fill(0xaa);
        buffers.push(buffer);
        return buffer;
      },
    });
    for (const bytes of chunks) builder.add(sha256(bytes), bytes);
    const sealed = builder.finish();
    expect(sealed?.id).toBe(expected?.id as string);
    expect(sealed?.bytes).toEqual(expected?.bytes as Uint8Array<ArrayBuffer>);
    expect(sealed?.bytes.buffer).toBe(buffers[0]?.buffer as ArrayBuffer);
    builder.add(sha256(text(10, 1)), text(10, 1));
    expect(builder.finish()?.bytes.buffer).toBe(buffers[1]?.buffer as ArrayBuffer);
  });

  test("a pack passes its size by a frame and a directory at most", () => {
    const packSizeBytes = 300_000;
    const chunks = Array.from({ length: 60 }, (_, index) => noise(17_000 + 991 * index, index));
    for (const pack of build(chunks, { packSizeBytes })) {
      expect(pack.bytes.length).toBeLessThan(packSizeBytes + 80_000 + pack.directoryBytes.length);
    }
  });

  test("the largest pack of the tiniest chunks fits an object", () => {
    const builder = new PackBuilder({
      kind: "data",
      packSizeBytes: 48 << 20,
      compression: { level: 1 },
      salt,
    });
    const id = new Uint8Array(32);
    let full: SealedPack | undefined;
    for (let index = 0; full === undefined; index++) full = builder.add(id, Uint8Array.of(index));
    expect(full.bytes.length).toBeLessThan(OBJECT_SIZE_BYTES_MAX);
    expect(full.directory.frames.flatMap(({ chunks }) => chunks).length).toBe(200_000);
  });

  test("a chunk that begins like other data is not judged by its beginning", () => {
    for (const head of [new Uint8Array(4096), new Uint8Array(4096).map((_, index) => index % 7)]) {
      const hex = Buffer.from(noise(60_000, 3)).toString("hex");
      const bytes = Buffer.concat([head, Buffer.from(hex)]);
      const compression = { level: 1 };
      const builder = new PackBuilder({ kind: "data", packSizeBytes: 1 << 20, compression, salt });
      builder.add(sha256(bytes), bytes);
      const pack = builder.finish()!;
      expect(pack.directory.frames[0]!.codec).toBe(1);
      expect(pack.bytes.length).toBeLessThan(0.6 * bytes.length);
    }
  });

  test("nothing added is no pack", () => {
    expect(build([], { packSizeBytes: 1000 })).toEqual([]);
  });
});

describe("openPack and decodeFrame", () => {
  const chunks = [text(9000, 1), noise(20_000, 2), noise(700, 3), text(30_000, 4), noise(90, 5)];
  const [pack] = build(chunks, { packSizeBytes: 1 << 20, frameSizeBytes: 10_000 });
  if (pack === undefined) throw new Error("no pack");

  test("the pack under test has plain, shared and compressed frames", () => {
    const shapes = pack.directory.frames.map((f) => `${f.codec}:${f.chunks.length > 1}`);
    expect(new Set(shapes)).toEqual(new Set(["0:false", "1:false", "1:true"]));
  });

  test("every flipped byte is noticed", () => {
    fc.assert(
      fc.property(
        fc.nat({ max: pack.bytes.length - 1 }),
        fc.integer({ min: 1, max: 255 }),
        (at, mask) => {
          const damaged = pack.bytes.slice();
          damaged[at] = (damaged[at] ?? 0) ^ mask;
          expect(isDetected(() => readAll(damaged, pack.id))).toBe(true);
        },
      ),
      { numRuns: 500 },
    );
  });

  test("every flipped byte of the directory and trailer is damage", () => {
    const start = pack.bytes.length - pack.directoryBytes.length - 16;
    for (let at = start; at < pack.bytes.length; at++) {
      const damaged = pack.bytes.slice();
      damaged[at] = (damaged[at] ?? 0) ^ 0x10;
      expectDamaged(() => openPack(damaged, pack.id, "pack"));
    }
  });

  test("every truncation of a pack and of a directory is damage", () => {
    fc.assert(
      fc.property(fc.nat({ max: pack.bytes.length - 1 }), (end) => {
        expectDamaged(() => openPack(pack.bytes.subarray(0, end), pack.id, "pack"));
      }),
    );
    for (let end = 0; end < pack.directoryBytes.length; end++) {
      expectDamaged(() => decodeDirectory(pack.directoryBytes.subarray(0, end), "directory"));
    }
  });

  test("another pack under this name is damage", () => {
    expectDamaged(() => openPack(pack.bytes, "00".repeat(32), "pack"));
  });

  test("any directory of random bytes is decoded or damage, never another error", () => {
    fc.assert(
      fc.property(
        fc.nat({ max: pack.directoryBytes.length - 1 }),
        fc.nat({ max: 255 }),
        (at, byte) => {
          const damaged = pack.directoryBytes.slice();
          damaged[at] = byte;
          let decoded: PackDirectory;
          try {
            decoded = decodeDirectory(damaged, "directory");
          } catch {
            expectDamaged(() => decodeDirectory(damaged, "directory"));
            return;
          }
          expect(encodeDirectory(decoded)).toEqual(damaged);
        },
      ),
      { numRuns: 500 },
    );
  });

  test("a frame that claims more or less than it holds is damage that names it", () => {
    const frame = pack.directory.frames.find(({ codec }) => codec === 1);
    if (frame === undefined) throw new Error("no compressed frame");
    const stored = pack.bytes.subarray(frame.offset, frame.offset + frame.storedLength);
    for (const rawLength of [0, frame.rawLength - 1, frame.rawLength + 1, 5 << 20]) {
      const error = expectDamaged(() => decodeFrame(stored, { ...frame, rawLength }, "frame 3"));
      expect(error.message).toStartWith("frame 3 ");
    }
    const plain = { codec: 0 as const, rawLength: 3 };
    expectDamaged(() => decodeFrame(Uint8Array.of(1, 2), plain, "frame"));
    expectDamaged(() => decodeFrame(stored.subarray(1), frame, "frame"));
  });
});

describe("object keys", () => {
  const id = "ab".repeat(32);

  test("a key says kind, id and birth of its object", () => {
    expect(parseObjectKey(packKey(id, 7))).toEqual({ kind: "pack", id, birth: 7 });
    expect(parseObjectKey(`index/${id}-0`)).toEqual({ kind: "index", id, birth: 0 });
    expect(parseObjectKey(`manifest/${id}-12`)).toEqual({ kind: "manifest", id, birth: 12 });
    expect(parseObjectKey(`key/${id}-12`)).toEqual({ kind: "key", id, birth: 12 });
    expect(parseObjectKey("log/000000000042")).toEqual({ kind: "log", sequence: 42 });
    expect(parseObjectKey(`checkpoint/64-${id}`)).toEqual({
      kind: "checkpoint",
      id,
      birth: 64,
      sequence: 64,
    });
    expect(parseObjectKey("astacus-repository")).toEqual({ kind: "header" });
    expect(parseObjectKey("probe/x")).toEqual({ kind: "probe" });
  });

  test("what no writer would name so is unknown", () => {
    const strangers = [
      `pack/cd/${id}-7`,
      `pack/ab/${id}-07`,
      `pack/ab/${id.toUpperCase()}-7`,
      `pack/${id}-7`,
      `index/ab/${id}-7`,
      `index/${id}`,
      `index/${id}--1`,
      "log/42",
      "log/0000000000042",
      "",
      "pack/",
    ];
    for (const key of strangers) expect(parseObjectKey(key)).toEqual({ kind: "unknown" });
  });
});

describe("the bytes of the format", () => {
  test("a pack of version 0 is read, and its directory written, as ever", () => {
    const bytes = Uint8Array.fromHex(vectors.pack.bytes);
    const directory = openPack(bytes, vectors.pack.id, "pack");
    expect(toHex(encodeDirectory(directory))).toBe(vectors.pack.directory);
    expect([...readAll(bytes, vectors.pack.id)].map(([id, c]) => [id, toHex(c)])).toEqual(
      vectors.pack.chunks,
    );
  });
});
