/**
 * Repacking: what moves, what must not, and who needs the old pack all the same.
 */
import { expect, test } from "bun:test";
import { pinBackup, undoForget } from "../../src/cas/clean/backup-marks.ts";
import { COMMIT_RULES } from "../../src/cas/write/commit-rules.ts";
import { drawId } from "../../src/cas/format/ids.ts";
import { movedPacks } from "../../src/cas/clean/pack-uses.ts";
import { planRepacks, runRepack } from "../../src/cas/clean/repack.ts";
import { UsedPacks } from "../../src/cas/clean/used-packs.ts";
import type { SmallNode } from "./small-backups.ts";
import { openSource } from "./small-backups.ts";
import { caught, InterposedSite, SmallWorld } from "./small-world.ts";

const BIG = [1, 2, 3, 4, 5, 6];

test("a pack that is mostly dead gives its space back", async () => {
  using world = await SmallWorld.create();
  const node = await world.open();
  const first = await world.backup(node, BIG);
  await world.backup(node, [1]);
  await world.forget(node, first);
  const report = await world.cleanup(node);
  expect(report.repacks.length).toBe(1);
  const sizeBytes = totalBytes(world);
  for (const _ of [1, 2]) await world.cleanup(node);
  expect(totalBytes(world)).toBeLessThan(sizeBytes);
  expect(node.repository.state.retired.size).toBe(0);
  expect(await world.check()).toBe(1);
  await world.backup(node, [1, 50]);
  expect(await world.check()).toBe(2);
});

test("a backup that was forgotten then needs the old pack itself, and revives it", async () => {
  using world = await SmallWorld.create();
  const node = await world.open();
  const first = await world.backup(node, BIG);
  await world.backup(node, [1]);
  await world.forget(node, first);
  await world.cleanup(node);
  await undoForget(node.repository, () => openSource(node.repository), {
    backup: first,
    operation: drawId(world.random),
  });
  expect(node.repository.state.retired.size).toBe(0);
  for (const _ of [1, 2, 3]) await world.cleanup(node);
  expect(await world.check()).toBe(2);
});

test("frames that only a pinned backup uses move too", async () => {
  using world = await SmallWorld.create();
  const node = await world.open();
  const first = await world.backup(node, BIG);
  const second = await world.backup(node, [1]);
  await world.backup(node, [60]);
  const pin = { backup: second, pin: "p", reason: "test", operation: drawId(world.random) };
  await world.forget(node, second);
  await pinBackup(node.repository, () => openSource(node.repository), pin);
  await world.forget(node, first);
  const report = await world.cleanup(node);
  expect(report.repacks.length).toBeGreaterThan(0);
  for (const _ of [1, 2]) await world.cleanup(node);
  expect(await world.check()).toBe(2);
});

test("a pack that a keep names is left where it is", async () => {
  using world = await SmallWorld.create();
  const node = await world.open();
  const operation = drawId(world.random);
  await world.store(node, BIG, { operation, isKept: true });
  await world.backup(node, [1]);
  const report = await world.cleanup(node);
  expect(report.repacks).toEqual([]);
  expect(report.retired.packs).toBe(0);
});

test("a second repack is followed from the first", async () => {
  using world = await SmallWorld.create();
  const node = await world.open();
  const first = await world.backup(node, BIG);
  const second = await world.backup(node, [1, 2]);
  await world.forget(node, first);
  for (const _ of [1, 2, 3]) await world.cleanup(node);
  // Its list names the frames of the new pack itself, and only some of them.
  await world.backup(node, [1]);
  await world.forget(node, second);
  for (const _ of [1, 2, 3, 4]) await world.cleanup(node);
  expect(node.repository.state.backups.size).toBe(1);
  expect(await world.check()).toBe(1);
});

test("a backup that comes in between keeps the old pack, or there would be a hole", async () => {
  const race = async (repackCovers: boolean): Promise<number> => {
    using world = await SmallWorld.create();
    const site = new InterposedSite("other", world.site.objects);
    const [packer, writer] = [await world.open(site), await world.open()];
    const first = await world.backup(writer, BIG);
    await world.backup(writer, [1]);
    const late = await world.store(writer, BIG);
    await world.forget(writer, first);
    const { repository, source } = packer;
    await repository.catchUp();
    using used = new UsedPacks(repository, source);
    await used.refresh(repository.state);
    const groups = planRepacks(repository, used, { movedBytesMax: 1e6 });
    site.onEntry = async () => void (await world.commit(writer, late));
    const rules = { ...COMMIT_RULES, repackCovers };
    const operation = drawId(world.random);
    for (const group of groups) await runRepack(repository, group, { used, operation, rules });
    await deleteRetired(world, packer);
    return await world.check();
  };
  expect(await race(true)).toBe(2);
  expect(await caught(race(false))).toMatchObject({ kind: "damaged" });
});

test("moves are followed in the order of the log", () => {
  const moves = [
    { sequence: 1, from: ["a", "b"], to: ["c"] },
    { sequence: 2, from: ["c"], to: ["d", "e"] },
    { sequence: 3, from: ["a"], to: ["f"] },
    { sequence: 4, from: ["e"], to: ["g"] },
  ];
  const moved = movedPacks(moves);
  // What was moved once stays moved: that `a` came back later is of no use to this list.
  expect(moved.get("a")?.toSorted()).toEqual(["d", "g"]);
  expect(moved.get("b")?.toSorted()).toEqual(["d", "g"]);
  expect(moved.get("c")?.toSorted()).toEqual(["d", "g"]);
  expect(moved.get("e")).toEqual(["g"]);
  expect(moved.has("d")).toBe(false);
});

/** What cleanups do later: deletes all that is retired and removes it. */
async function deleteRetired(world: SmallWorld, node: SmallNode): Promise<void> {
  const { repository } = node;
  const packs = [...(await repository.catchUp()).retired.keys()];
  const keys = packs.map((id) => {
    const birth = repository.index.findPack(id)?.birth ?? 0;
    return `pack/${id.slice(0, 2)}/${id}-${birth}`;
  });
  const floor = repository.state.sequence;
  const operation = drawId(world.random);
  const body = { packs, backups: [], floor };
  await repository.commit(() => ({ kind: "delete", body }), { operation });
  await world.site.delete(keys);
}

function totalBytes(world: SmallWorld): number {
  const packs = [...world.site.objects].filter(([key]) => key.startsWith("pack/"));
  return packs.reduce((sum, [, { length }]) => sum + length, 0);
}
