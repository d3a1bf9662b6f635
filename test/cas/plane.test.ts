/** Planes in workers: what they share with this thread stays as it is until it is given back. */
import { expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import { sha256, sha256Hex } from "../../src/base/hex.ts";
import { openPack } from "../../src/cas/format/pack.ts";
import type { SealedPack } from "../../src/cas/format/pack.ts";
import { openWorkerPlane } from "../../src/cas/write/plane.ts";
import type { DataPlane } from "../../src/cas/write/plane.ts";
import { noise } from "./noise.ts";
import { temporaryFolder } from "./temporary-folder.ts";

const FILE_SIZE_BYTES = 300_000;

function openPlane(): DataPlane {
  return openWorkerPlane(1, {
    chunker: { rule: "astacus-cdc-1", averageSizeBytes: 65_536 },
    batchSizeBytes: 600_000,
    packSizeBytes: 200_000,
    frameSizeBytes: 100_000,
    compressionLevel: 1,
  });
}

/** One more file, read and packed: at least one pack. */
async function packFile(plane: DataPlane, folder: string, number: number): Promise<SealedPack[]> {
  const path = join(folder, `file ${number}`);
  fs.writeFileSync(path, noise(FILE_SIZE_BYTES, number));
  const batch = await plane.scan(0, 0, [{ path, sizeBytes: FILE_SIZE_BYTES }]);
  const keep = new Uint8Array(batch.lengths.length).fill(1);
  return [...(await plane.store(0, 0, keep)), ...(await plane.flush(0))];
}

/** Noise is stored as it is, a frame for each chunk. */
function expectWhole({ bytes, id }: SealedPack): void {
  for (const { offset, storedLength, chunks } of openPack(bytes, id, "a pack").frames) {
    expect<Uint8Array>(sha256(bytes.subarray(offset, offset + storedLength))).toEqual(
      chunks[0]!.id,
    );
  }
}

test("a pack's buffer is used again when it was given back, and not before", async () => {
  await using plane = openPlane();
  using folder = temporaryFolder();
  const held = await packFile(plane, folder.path, 1);
  const hashes = held.map(({ bytes }) => sha256Hex(bytes));
  const returned = await packFile(plane, folder.path, 2);
  const memory = new Set(returned.map(({ bytes }) => bytes.buffer));
  for (const pack of returned) plane.recycle(pack);

  let reuseCount = 0;
  for (let number = 3; number < 12; number += 1) {
    const packs = await packFile(plane, folder.path, number);
    for (const pack of packs) {
      expectWhole(pack);
      if (memory.has(pack.bytes.buffer)) reuseCount += 1;
      plane.recycle(pack);
    }
  }
  expect(reuseCount).toBeGreaterThan(8);
  expect(held.map(({ bytes }) => sha256Hex(bytes))).toEqual(hashes);
});
