/**
 * Decoding beside the thread is decoding: the same bytes, and the same refusals.
 */
import { expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import { decodeFrameAside } from "../../src/cas/format/frame-decoder.ts";
import { decodeFrame, FRAME_RAW_BYTES_MAX, frameChecksum } from "../../src/cas/format/pack.ts";
import type { StoredFrame } from "../../src/cas/format/pack.ts";
import { compressZstd } from "../../src/cas/format/zstd.ts";

const RAW = new Uint8Array(300_000).map((_, index) => (index * 31) >> 7);
const PACKED = compressZstd(RAW, 1);
const COMPRESSED = { codec: 1, rawLength: RAW.length } as const;

const CASES: Readonly<Record<string, { stored: Uint8Array; row: StoredFrame }>> = {
  "a compressed frame": { stored: PACKED, row: COMPRESSED },
  "a compressed frame with a checksum": {
    stored: PACKED,
    row: { ...COMPRESSED, checksum: frameChecksum(PACKED) },
  },
  "a plain frame": { stored: RAW, row: { codec: 0, rawLength: RAW.length } },
  "a frame with another checksum": {
    stored: PACKED,
    row: { ...COMPRESSED, checksum: frameChecksum(RAW) },
  },
  "a frame that is cut short": { stored: PACKED.subarray(0, PACKED.length - 1), row: COMPRESSED },
  "a frame with something behind it": {
    stored: new Uint8Array([...PACKED, 0]),
    row: COMPRESSED,
  },
  "a frame of another length than its row says": {
    stored: PACKED,
    row: { ...COMPRESSED, storedLength: PACKED.length + 1 },
  },
  "a frame that claims other raw bytes": {
    stored: PACKED,
    row: { codec: 1, rawLength: RAW.length - 1 },
  },
  "a frame that would fill the memory": {
    stored: PACKED,
    row: { codec: 1, rawLength: FRAME_RAW_BYTES_MAX + 1 },
  },
  "a frame of rubbish": { stored: RAW, row: COMPRESSED },
  "a frame whose body is damaged": {
    stored: PACKED.with(20, PACKED[20]! ^ 0xff),
    row: COMPRESSED,
  },
};

for (const [name, { stored, row }] of Object.entries(CASES)) {
  test(`${name} is decoded or refused as in line`, async () => {
    expect(await outcomeOf(() => decodeFrameAside(stored, row, "frame"))).toEqual(
      await outcomeOf(() => decodeFrame(stored, row, "frame")),
    );
  });
}

test("many frames are decoded at once", async () => {
  const frames = Array.from({ length: 40 }, (_, index) => RAW.subarray(index * 1000));
  const decoded = await Promise.all(
    frames.map((raw) =>
      decodeFrameAside(compressZstd(raw, 1), { codec: 1, rawLength: raw.length }, "frame"),
    ),
  );
  expect(decoded.every((bytes, index) => Buffer.compare(bytes, frames[index]!) === 0)).toBe(true);
});

/** The bytes, or what is told of a failure. */
async function outcomeOf(decode: () => Uint8Array | Promise<Uint8Array>): Promise<unknown> {
  try {
    return Buffer.from(await decode()).toString("base64");
  } catch (thrown) {
    if (!(thrown instanceof AppError)) throw thrown;
    return { kind: thrown.kind, message: thrown.message };
  }
}
