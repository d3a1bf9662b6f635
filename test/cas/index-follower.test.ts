/** The index follows the state: several segments at once, and past one that nobody should have written. */
import { expect, test } from "bun:test";
import { sha256Hex } from "../../src/base/hex.ts";
import { CatalogLog } from "../../src/cas/catalog/catalog-log.ts";
import { ChunkIndex } from "../../src/cas/catalog/catalog-index.ts";
import { segmentKey } from "../../src/cas/format/index-segment.ts";
import { IndexFollower } from "../../src/cas/log/index-follower.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import { LogBuilder } from "./log-builder.ts";
import { World } from "./repository-world.ts";
import { chunkId, makeSegment } from "./segment-builder.ts";
import type { BuiltSegment } from "./segment-builder.ts";

const NAMES = ["a", "b", "c", "d", "e"];

test.each([1, 1500, 1_000_000])("segments are entered in batches of %d bytes", async (batch) => {
  using world = new World();
  const { index, follow } = await open(world, NAMES.map(segmentOf), batch);
  expect(await follow()).toBe(true);
  expect(NAMES.map((name) => index.find(chunkId(name, 19)).length)).toEqual([1, 1, 1, 1, 1]);
  expect(index.countChunks()).toBe(100);
});

test("a segment whose hash is right and whose chunks are not is named; others are entered", async () => {
  using world = new World();
  const built = NAMES.map((name) => (name === "c" ? misWritten(segmentOf(name)) : segmentOf(name)));
  const { index, follow, follower } = await open(world, built, 1_000_000);
  expect(await follow()).toBe(false);
  expect(NAMES.map((name) => index.find(chunkId(name, 0)).length)).toEqual([1, 1, 0, 1, 1]);
  expect([...follower.problems.keys()]).toEqual([built[2]!.ref.id]);
  expect(index.hasSegment(built[2]!.ref.id)).toBe(false);
});

function segmentOf(name: string): BuiltSegment {
  return makeSegment([name], 1, 1, 20);
}

/** Its last chunk passes the end of its frame. */
function misWritten(built: BuiltSegment): BuiltSegment {
  const bytes = built.bytes.slice();
  bytes[bytes.length - 1] = 0x7f;
  return { ...built, bytes, ref: { ...built.ref, id: sha256Hex(bytes) } };
}

async function open(world: World, built: readonly BuiltSegment[], batchSizeBytes: number) {
  const site = new MemorySite("primary");
  for (const { ref, bytes } of built) await site.put(segmentKey(ref.id, ref.birth), bytes);
  const catalog = world.openCatalog();
  const index = new ChunkIndex(catalog);
  const log = new CatalogLog(catalog);
  const follower = new IndexFollower({ site, index, log, batchSizeBytes });
  const segments = new Map(built.map(({ ref }) => [ref.id, { ...ref, sequence: 2 }]));
  const state = { ...new LogBuilder().state, sequence: 2, segments };
  return { index, follower, follow: async () => await follower.follow(state) };
}
