/** Records of file listings: exact round trips, and nothing harmful comes out of damaged ones. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { toHex } from "../../src/base/hex.ts";
import { isSafeRelativePath } from "../../src/base/path.ts";
import { ByteWriter } from "../../src/cas/format/bytes.ts";
import {
  decodeChunkRef,
  decodeRecord,
  encodeChunkRef,
  encodeRecord,
  type FileRecord,
  INLINE_CHUNK_COUNT_MAX,
  pathOfRecord,
} from "../../src/cas/format/listing.ts";
import { expectDamaged } from "./expect-damaged.ts";
import vectors from "./format-vectors.json";

const latin1 = fc
  .uint8Array({ maxLength: 30 })
  .map((bytes) => Buffer.from(bytes).toString("latin1"));
const path = fc
  .array(
    latin1.filter((part) => isSafeRelativePath(part) && !part.includes("/")),
    {
      minLength: 1,
      maxLength: 4,
    },
  )
  .map((parts) => parts.join("/"));
const id = fc.uint8Array({ minLength: 32, maxLength: 32 });
const chunk = fc.record({ id, length: fc.nat({ max: 4 << 20 }) });
const root = fc.record({ id: id.map(toHex), length: fc.nat(), count: fc.maxSafeNat() });

const attributes = fc.record({
  path,
  mode: fc.nat({ max: 0o7777 }),
  uid: fc.nat({ max: 0xffff_ffff }),
  gid: fc.nat({ max: 0xffff_ffff }),
  mtimeNs: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  sparse: fc.boolean(),
  xattrs: fc.array(fc.tuple(latin1, fc.uint8Array())).map((entries) => new Map(entries)),
});

const body = fc.oneof(
  fc.array(chunk, { maxLength: 20 }).map((chunks) => ({
    type: "file" as const,
    sizeBytes: chunks.reduce((sum, { length }) => sum + length, 0),
    content: { form: "inline" as const, chunks },
  })),
  fc.tuple(fc.maxSafeNat(), root).map(([sizeBytes, tree]) => ({
    type: "file" as const,
    sizeBytes,
    content: { form: "tree" as const, root: tree },
  })),
  fc.constant({ type: "directory" as const }),
  latin1.map((target) => ({ type: "symlink" as const, target })),
);
const hardLink = fc
  .tuple(attributes, path)
  .filter(([{ path: own }, target]) => own !== target)
  .map(([given, other]): FileRecord => {
    const [target, own] = [given.path, other].toSorted() as [string, string];
    return { ...given, path: own, type: "hardlink", target };
  });
const record: fc.Arbitrary<FileRecord> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.tuple(attributes, body).map(([a, b]): FileRecord => ({ ...a, ...b })),
  },
  { weight: 1, arbitrary: hardLink },
);

const plain: FileRecord = {
  path: "a/b",
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtimeNs: 1n,
  sparse: false,
  xattrs: new Map(),
  type: "symlink",
  target: "x",
};

describe("file records", () => {
  test("come back as they were, to the nanosecond and the byte", () => {
    fc.assert(
      fc.property(record, (given) => {
        const bytes = encodeRecord(given);
        expect(decodeRecord(bytes)).toEqual(given);
        expect(pathOfRecord(bytes)).toBe(given.path);
      }),
      { numRuns: 300 },
    );
  });

  test("have one encoding, whatever the order of extended attributes", () => {
    fc.assert(
      fc.property(record, (given) => {
        const reversed = { ...given, xattrs: new Map([...given.xattrs].toReversed()) };
        expect(encodeRecord(reversed)).toEqual(encodeRecord(given));
      }),
    );
  });

  test("every truncation and every byte too many is damage", () => {
    fc.assert(
      fc.property(record, (given) => {
        const bytes = encodeRecord(given);
        for (let end = 0; end < bytes.length; end++) {
          expectDamaged(() => decodeRecord(bytes.subarray(0, end)));
        }
        expectDamaged(() => decodeRecord(Uint8Array.of(...bytes, 0)));
      }),
      { numRuns: 30 },
    );
  });

  test("a flipped byte gives damage or a record that stays in its volume", () => {
    fc.assert(
      fc.property(record, fc.nat(), fc.integer({ min: 1, max: 255 }), (given, at, mask) => {
        const bytes = encodeRecord(given);
        const index = at % bytes.length;
        bytes[index] = (bytes[index] ?? 0) ^ mask;
        let decoded: FileRecord;
        try {
          decoded = decodeRecord(bytes);
        } catch {
          expectDamaged(() => decodeRecord(bytes));
          return;
        }
        expect(isSafeRelativePath(decoded.path)).toBe(true);
        if (decoded.type === "hardlink") expect(isSafeRelativePath(decoded.target)).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  test("a path out of the volume is refused on both sides", () => {
    for (const evil of ["", "/etc/passwd", "../x", "a/../../x", "a//b", ".", "a/", "a\0b"]) {
      expect(() => encodeRecord({ ...plain, path: evil })).toThrow();
      const writer = new ByteWriter();
      writer.text(evil);
      writer.raw(encodeRecord(plain).subarray(1 + plain.path.length));
      expectDamaged(() => decodeRecord(writer.finish()));
    }
  });

  test("a hard link must point backwards and stay in the volume", () => {
    const link = { ...plain, type: "hardlink" as const };
    expect(decodeRecord(encodeRecord({ ...link, target: "a/a" }))).toMatchObject({ target: "a/a" });
    for (const target of ["a/b", "a/c", "../a", "/a", ""]) {
      expectDamaged(() => decodeRecord(encodeRecord({ ...link, target })));
    }
  });

  test("chunks that do not add up are a bug when written and damage when read", () => {
    const chunks = [{ id: new Uint8Array(32), length: 5 }];
    const content = { form: "inline" as const, chunks };
    const file = { ...plain, type: "file" as const, sizeBytes: 5, content };
    expect(() => encodeRecord({ ...file, sizeBytes: 6 })).toThrow();
    const bytes = encodeRecord(file);
    bytes[bytes.length - 1] = 6;
    expect(expectDamaged(() => decodeRecord(bytes)).message).toContain("add up");
    const tooMany = Array.from({ length: INLINE_CHUNK_COUNT_MAX + 1 }, () => chunks[0] as never);
    expect(() => encodeRecord({ ...file, content: { form: "inline", chunks: tooMany } })).toThrow();
  });

  test("records of version 0 are read and written as ever", () => {
    for (const { bytes, record: expected } of vectors.records) {
      const decoded = decodeRecord(Uint8Array.fromHex(bytes));
      expect(toHex(encodeRecord(decoded))).toBe(bytes);
      expect(JSON.parse(printable(decoded))).toEqual(expected);
    }
  });
});

describe("chunk records", () => {
  test("come back, and every truncation is damage", () => {
    fc.assert(
      fc.property(chunk, (given) => {
        const bytes = encodeChunkRef(given);
        expect(decodeChunkRef(bytes)).toEqual(given);
        for (let end = 0; end < bytes.length; end++) {
          expectDamaged(() => decodeChunkRef(bytes.subarray(0, end)));
        }
        expectDamaged(() => decodeChunkRef(Uint8Array.of(...bytes, 0)));
      }),
      { numRuns: 30 },
    );
  });
});

/** A record as the vectors spell it. */
function printable(given: FileRecord): string {
  return JSON.stringify(given, (_, value: unknown) => {
    if (typeof value === "bigint") return value.toString();
    if (value instanceof Uint8Array) return toHex(value);
    return value instanceof Map ? [...value] : value;
  });
}
