/**
 * Merging of index segments: when it happens, what it keeps, and what stays known as deleted.
 */
import { expect, test } from "bun:test";
import { COMMIT_RULES } from "../../src/cas/write/commit-rules.ts";
import { undoForget } from "../../src/cas/clean/backup-marks.ts";
import { drawId } from "../../src/cas/format/ids.ts";
import { planMerges, runMerges, SEGMENTS_OF_A_SIZE_MAX } from "../../src/cas/clean/merge.ts";
import { openSource } from "./small-backups.ts";
import { caught, InterposedSite, SmallWorld } from "./small-world.ts";

const MANY = [...Array(SEGMENTS_OF_A_SIZE_MAX + 2).keys()];

test("many small segments become one, and every chunk is found as before", async () => {
  using world = await SmallWorld.create();
  const node = await world.open();
  for (const number of MANY) await world.backup(node, [number, number + 100]);
  const { repository } = node;
  const chunks = repository.index.countChunks();
  expect(planMerges(repository.state).length).toBe(1);
  const operation = drawId(world.random);
  const [merged] = await runMerges(repository, { clear: false, operation });
  expect(merged?.inputs).toBeGreaterThan(SEGMENTS_OF_A_SIZE_MAX);
  expect(repository.state.segments.size).toBeLessThan(SEGMENTS_OF_A_SIZE_MAX);
  expect(repository.index.countChunks()).toBe(chunks);
  expect(planMerges(repository.state)).toEqual([]);
  expect(await world.check()).toBe(MANY.length);
});

test("segments that a keep names are left alone", async () => {
  using world = await SmallWorld.create();
  const node = await world.open();
  const operation = drawId(world.random);
  for (const number of MANY) await world.store(node, [number], { operation, isKept: true });
  expect(node.repository.state.segments.size).toBeGreaterThan(SEGMENTS_OF_A_SIZE_MAX);
  expect(planMerges(node.repository.state)).toEqual([]);
});

test("retired packs are kept, so that a backup can be brought back after a merge", async () => {
  using world = await SmallWorld.create();
  const node = await world.open();
  const first = await world.backup(node, [500, 501]);
  for (const number of MANY) await world.backup(node, [number]);
  await world.forget(node, first);
  await world.cleanup(node, { undoWindowMs: 1e9 });
  expect(node.repository.state.retired.size).toBeGreaterThan(0);
  expect(node.repository.state.segments.size).toBeLessThan(SEGMENTS_OF_A_SIZE_MAX);
  const { repository } = node;
  const open = (): ReturnType<typeof openSource> => openSource(repository);
  await undoForget(repository, open, { backup: first, operation: drawId(world.random) });
  expect(await world.check()).toBe(MANY.length + 1);
});

test("the last merge clears what is known as deleted", async () => {
  using world = await SmallWorld.create();
  const node = await world.open();
  const first = await world.backup(node, [500, 501, 502]);
  await world.backup(node, [1]);
  await world.forget(node, first);
  for (const _ of [1, 2]) await world.cleanup(node);
  const { deleted } = await world.cleanup(node, { sweep: true });
  expect(deleted.packs).toBeGreaterThan(0);
  expect(node.repository.state.deleted.size).toBe(0);
  expect(await world.check()).toBe(1);
});

test("a pack that is deleted during a merge stays known as deleted, or there would be a hole", async () => {
  const race = async (keepDeleted: boolean): Promise<number> => {
    using world = await SmallWorld.create();
    const site = new InterposedSite("other", world.site.objects);
    const [merger, cleaner] = [await world.open(site), await world.open()];
    const first = await world.backup(cleaner, [500, 501, 502]);
    for (const number of MANY) await world.backup(cleaner, [number]);
    await world.forget(cleaner, first);
    const { repository } = cleaner;
    const gone = [...repository.index.packs()].filter(({ segment }) =>
      world.backups.get(first)?.draft.segments.some(({ id }) => id === segment),
    );
    const operation = drawId(world.random);
    const packs = gone.map(({ id }) => id);
    await repository.commit(() => ({ kind: "retire", body: { packs } }), { operation });
    site.onEntry = async () => {
      // As low as may be, so that what the merger has sent is still above it.
      const floor = Math.max(...gone.map(({ birth }) => birth));
      const body = { packs, backups: [first], floor };
      await repository.commit(() => ({ kind: "delete", body }), { operation });
      for (const { id, birth } of gone) {
        world.site.objects.delete(`pack/${id.slice(0, 2)}/${id}-${birth}`);
      }
    };
    await merger.repository.catchUp();
    const rules = { ...COMMIT_RULES, keepDeleted };
    await runMerges(merger.repository, { clear: false, operation, rules });
    const fresh = await world.open();
    await world.backup(fresh, [500, 501, 502]);
    return await world.check();
  };
  expect(await race(true)).toBe(MANY.length + 1);
  expect(await caught(race(false))).toMatchObject({ kind: "damaged" });
});
