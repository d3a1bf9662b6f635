/** The primitives of the format: what is written is read back, and nothing else is accepted. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ByteReader, ByteWriter } from "../../src/cas/format/bytes.ts";
import {
  compressZstd,
  decompressAtMost,
  decompressExactly,
  parseZstdFrame,
} from "../../src/cas/format/zstd.ts";
import { expectDamaged } from "./expect-damaged.ts";

type Part =
  | { kind: "u8" | "u32" | "varint" | "zigzag"; value: number }
  | { kind: "bytes"; value: Uint8Array }
  | { kind: "text"; value: string };

const latin1 = fc
  .uint8Array({ maxLength: 300 })
  .map((bytes) => Buffer.from(bytes).toString("latin1"));

const part: fc.Arbitrary<Part> = fc.oneof(
  fc.record({ kind: fc.constant("u8" as const), value: fc.integer({ min: 0, max: 255 }) }),
  fc.record({ kind: fc.constant("u32" as const), value: fc.nat({ max: 0xffff_ffff }) }),
  fc.record({ kind: fc.constant("varint" as const), value: fc.maxSafeNat() }),
  fc.record({
    kind: fc.constant("zigzag" as const),
    value: fc.integer({ min: -(2 ** 52), max: 2 ** 52 - 1 }),
  }),
  fc.record({ kind: fc.constant("bytes" as const), value: fc.uint8Array({ maxLength: 300 }) }),
  fc.record({ kind: fc.constant("text" as const), value: latin1 }),
);

function write(parts: readonly Part[]): Uint8Array {
  const writer = new ByteWriter(1);
  for (const { kind, value } of parts) (writer[kind] as (value: unknown) => void)(value);
  return writer.finish();
}

function read(bytes: Uint8Array, parts: readonly Part[]): unknown[] {
  const reader = new ByteReader(bytes, "the test");
  const values = parts.map(({ kind }) => reader[kind]());
  reader.end();
  return values;
}

describe("ByteWriter and ByteReader", () => {
  test("any sequence of primitives is read back as it was written", () => {
    fc.assert(
      fc.property(fc.array(part), (parts) => {
        expect(read(write(parts), parts)).toEqual(parts.map(({ value }) => value));
      }),
    );
  });

  test("every truncation is damage", () => {
    fc.assert(
      fc.property(fc.array(part, { minLength: 1, maxLength: 5 }), (parts) => {
        const bytes = write(parts);
        for (let end = 0; end < bytes.length; end++) {
          expectDamaged(() => read(bytes.subarray(0, end), parts));
        }
      }),
      { numRuns: 30 },
    );
  });

  test("a byte too many is damage", () => {
    expectDamaged(() => read(Uint8Array.of(1, 0), [{ kind: "u8", value: 0 }]));
  });

  test("a varint has one spelling, at most eight bytes and at most 53 bits", () => {
    const readVarint = (...bytes: number[]): number =>
      new ByteReader(Uint8Array.from(bytes), "the test").varint();
    expect(readVarint(0)).toBe(0);
    expectDamaged(() => readVarint(0x80, 0));
    expectDamaged(() => readVarint(0x81, 0x80, 0));
    expectDamaged(() => readVarint(255, 255, 255, 255, 255, 255, 255, 255, 1));
    expectDamaged(() => readVarint(255, 255, 255, 255, 255, 255, 255, 127));
    expect(readVarint(255, 255, 255, 255, 255, 255, 255, 15)).toBe(Number.MAX_SAFE_INTEGER);
  });

  test("varint bytes are those of LEB128", () => {
    const writer = new ByteWriter();
    writer.varint(300);
    writer.zigzag(-1);
    writer.zigzag(1);
    expect([...writer.finish()]).toEqual([0xac, 0x02, 1, 2]);
  });

  test("a char above 255 is a bug, not a silent loss", () => {
    expect(() => new ByteWriter().text("€")).toThrow("above 255");
  });

  test("what was finished does not change with the writer", () => {
    const writer = new ByteWriter();
    writer.u8(1);
    const bytes = writer.finish();
    writer.reset();
    writer.u8(2);
    expect([...bytes]).toEqual([1]);
  });
});

describe("zstd", () => {
  const content = fc.oneof(
    fc.uint8Array({ maxLength: 2000 }),
    fc
      .tuple(fc.uint8Array({ minLength: 1, maxLength: 9 }), fc.nat({ max: 400_000 }))
      .map(([unit, length]) => new Uint8Array(Buffer.alloc(length, unit))),
  );

  test("a frame tells its content size and where it ends, at every level", () => {
    fc.assert(
      fc.property(content, fc.integer({ min: 1, max: 5 }), (bytes, level) => {
        const frame = compressZstd(bytes, level);
        expect(parseZstdFrame(Buffer.concat([frame, Buffer.from("more")]))).toEqual({
          contentSizeBytes: bytes.length,
          frameSizeBytes: frame.length,
        });
        expect(Buffer.compare(decompressExactly(frame, bytes.length, "it"), bytes)).toBe(0);
      }),
    );
  });

  test("another content size than the stated one is refused before decompression", () => {
    const bomb = compressZstd(new Uint8Array(64 << 20), 1);
    expectDamaged(() => decompressExactly(bomb, 1000, "it"));
    expectDamaged(() => decompressAtMost(bomb, 1000, "it"));
    // The claim alone is not trusted either: a forged header does not let more out.
    const forged = Uint8Array.from(bomb);
    new DataView(forged.buffer).setUint32(5, 1000, true);
    expectDamaged(() => decompressExactly(forged, 1000, "it"));
  });

  test("a second frame and trailing bytes are refused", () => {
    const frame = compressZstd(Buffer.from("hello"), 1);
    expectDamaged(() => decompressAtMost(Buffer.concat([frame, frame]), 100, "it"));
    expectDamaged(() => decompressAtMost(Buffer.concat([frame, Buffer.from("x")]), 100, "it"));
  });

  test("every truncation is damage", () => {
    const frame = compressZstd(Buffer.from("hello hello hello hello"), 1);
    for (let end = 0; end < frame.length; end++) {
      expectDamaged(() => decompressAtMost(frame.subarray(0, end), 100, "it"));
    }
  });
});
