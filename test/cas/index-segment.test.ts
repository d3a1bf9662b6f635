/** Index segments and pack lists: round trips, order, and refusal of whatever does not fit. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { sha256, sha256Hex, toHex } from "../../src/base/hex.ts";
import {
  comparePlaces,
  decodeSegment,
  encodeSegment,
  type SegmentChunk,
  type SegmentPack,
  segmentPackOf,
} from "../../src/cas/format/index-segment.ts";
import { PackBuilder } from "../../src/cas/format/pack-builder.ts";
import type { PackDirectory } from "../../src/cas/format/pack.ts";
import {
  decodePackUse,
  encodePackUse,
  hasFrame,
  joinPackUses,
  packUseKey,
  setFrame,
} from "../../src/cas/format/pack-list.ts";
import { expectDamaged } from "./expect-damaged.ts";
import vectors from "./format-vectors.json";

type Row = { pack: SegmentPack; directory: PackDirectory };

/** Packs of some chunks; a few chunks are in several packs. */
const rows: fc.Arbitrary<Row[]> = fc
  .array(
    fc.record({
      chunks: fc.array(fc.uint8Array({ minLength: 1, maxLength: 3 }), {
        minLength: 1,
        maxLength: 20,
      }),
      birth: fc.nat(),
      kind: fc.constantFrom("data" as const, "metadata" as const),
      frameSizeBytes: fc.integer({ min: 1, max: 40 }),
    }),
    { maxLength: 6 },
  )
  .map((packs) =>
    packs.map(({ chunks, birth, kind, frameSizeBytes }, index) => {
      const builder = new PackBuilder({
        kind,
        frameSizeBytes,
        packSizeBytes: 1 << 20,
        compression: { level: 1 },
        salt: () => new Uint8Array(16).fill(index),
      });
      for (const bytes of chunks) builder.add(sha256(bytes), bytes);
      const sealed = builder.finish();
      if (sealed === undefined) throw new Error("no pack");
      return { pack: segmentPackOf(sealed, birth), directory: sealed.directory };
    }),
  );

/** The places that a list of directories says, as text. */
function placesOf(given: readonly Row[]): string[] {
  return given.flatMap(({ pack, directory }) =>
    directory.frames.flatMap(({ chunks }, frame) =>
      chunks.map((c) => `${toHex(c.id)} ${pack.id} ${frame} ${c.offset} ${c.length}`),
    ),
  );
}

function placeText(chunk: SegmentChunk, packs: readonly SegmentPack[]): string {
  const pack = packs[chunk.pack]?.id;
  return `${toHex(chunk.id)} ${pack} ${chunk.frame} ${chunk.offset} ${chunk.length}`;
}

function read(bytes: Uint8Array): SegmentChunk[] {
  return [...decodeSegment(bytes, sha256Hex(bytes)).chunks()];
}

describe("index segments", () => {
  test("packs and chunks come back, in order", () => {
    fc.assert(
      fc.property(rows, (given) => {
        const segment = encodeSegment(given);
        const decoded = decodeSegment(segment.bytes, segment.id);
        const chunks = [...decoded.chunks()];
        expect(decoded.packs).toEqual(
          given.map(({ pack }) => pack).toSorted((a, b) => (a.id < b.id ? -1 : 1)),
        );
        expect(chunks.map((c) => placeText(c, decoded.packs)).toSorted()).toEqual(
          placesOf(given).toSorted(),
        );
        expect(chunks.toSorted(comparePlaces)).toEqual(chunks);
        expect([segment.packs, segment.chunks]).toEqual([given.length, chunks.length]);
        expect(decoded.chunkCount).toBe(chunks.length);
      }),
      { numRuns: 60 },
    );
  });

  test("the bytes do not depend on the order in which packs are given", () => {
    fc.assert(
      fc.property(rows, (given) => {
        expect(encodeSegment(given.toReversed()).id).toBe(encodeSegment(given).id);
      }),
      { numRuns: 30 },
    );
  });

  test("every truncation is damage, even under a name that fits", () => {
    fc.assert(
      fc.property(rows, fc.nat(), (given, at) => {
        const { bytes, id } = encodeSegment(given);
        const cut = bytes.subarray(0, at % bytes.length);
        expectDamaged(() => decodeSegment(cut, id));
        expectDamaged(() => read(cut));
      }),
    );
  });

  test("every flipped byte is damage under the old name", () => {
    fc.assert(
      fc.property(rows, fc.nat(), fc.integer({ min: 1, max: 255 }), (given, at, mask) => {
        const { bytes, id } = encodeSegment(given);
        const index = at % bytes.length;
        bytes[index] = (bytes[index] ?? 0) ^ mask;
        expectDamaged(() => decodeSegment(bytes, id));
      }),
    );
  });

  test("any flipped byte under a new name is read or damage, and reads inside the frames", () => {
    fc.assert(
      fc.property(rows, fc.nat(), fc.integer({ min: 1, max: 255 }), (given, at, mask) => {
        const { bytes } = encodeSegment(given);
        const index = at % bytes.length;
        bytes[index] = (bytes[index] ?? 0) ^ mask;
        let chunks: SegmentChunk[];
        try {
          chunks = read(bytes);
        } catch {
          expectDamaged(() => read(bytes));
          return;
        }
        const { packs } = decodeSegment(bytes, sha256Hex(bytes));
        for (const chunk of chunks) {
          const rawLength = packs[chunk.pack]?.frames[chunk.frame]?.rawLength ?? -1;
          expect(chunk.offset + chunk.length).toBeLessThanOrEqual(rawLength);
        }
      }),
      { numRuns: 300 },
    );
  });

  test("a segment of version 0 is read and written as ever", () => {
    const bytes = Uint8Array.fromHex(vectors.segment.bytes);
    const { packs, chunks } = decodeSegment(bytes, vectors.segment.id);
    expect(packs as unknown[]).toEqual(vectors.segment.packs);
    expect([...chunks()].map((chunk) => ({ ...chunk, id: toHex(chunk.id) }))).toEqual(
      vectors.segment.chunks,
    );
  });
});

describe("pack lists", () => {
  const use = fc.integer({ min: 0, max: 100 }).chain((frameCount) =>
    fc
      .record({
        pack: fc.uint8Array({ minLength: 32, maxLength: 32 }).map(toHex),
        used: fc.array(fc.nat({ max: Math.max(frameCount - 1, 0) })),
      })
      .map(({ pack, used }) => {
        const frames = new Uint8Array(Math.ceil(frameCount / 8));
        if (frameCount > 0) for (const frame of used) setFrame(frames, frame);
        return { pack, frameCount, frames };
      }),
  );

  test("a record comes back, and its key sorts as its pack", () => {
    fc.assert(
      fc.property(use, use, (one, other) => {
        expect(decodePackUse(encodePackUse(one))).toEqual(one);
        expect(packUseKey(one) < packUseKey(other)).toBe(one.pack < other.pack);
      }),
    );
  });

  test("every truncation, byte too many and bit too many is damage", () => {
    fc.assert(
      fc.property(use, (one) => {
        const bytes = encodePackUse(one);
        for (let end = 0; end < bytes.length; end++) {
          expectDamaged(() => decodePackUse(bytes.subarray(0, end)));
        }
        expectDamaged(() => decodePackUse(Uint8Array.of(...bytes, 0)));
      }),
      { numRuns: 30 },
    );
    const four = { pack: "00".repeat(32), frameCount: 4, frames: Uint8Array.of(0x1f) };
    expectDamaged(() => decodePackUse(encodePackUse(four)));
  });

  test("joined uses have the frames of both", () => {
    fc.assert(
      fc.property(use, fc.infiniteStream(fc.boolean()), (one, bits) => {
        const frames = new Uint8Array(one.frames.length);
        for (let frame = 0; frame < one.frameCount; frame++) {
          if (bits.next().value === true) setFrame(frames, frame);
        }
        const joined = joinPackUses(one, { ...one, frames });
        for (let frame = 0; frame < one.frameCount; frame++) {
          expect(hasFrame(joined.frames, frame)).toBe(
            hasFrame(one.frames, frame) || hasFrame(frames, frame),
          );
        }
      }),
    );
  });

  test("a record of version 0 is read and written as ever", () => {
    const bytes = Uint8Array.fromHex(vectors.packUse.bytes);
    const decoded = decodePackUse(bytes);
    expect({ ...decoded, frames: toHex(decoded.frames) }).toEqual(vectors.packUse.record);
    expect(encodePackUse(decoded)).toEqual(bytes);
  });
});
