/**
 * The sweep: what no entry names goes once the floor has reached it, and what is in use stays even
 * if an entry says otherwise.
 */
import { expect, test } from "bun:test";
import { removePacks, sweepGarbage } from "../../src/cas/clean/garbage.ts";
import { drawId } from "../../src/cas/format/ids.ts";
import { UsedPacks } from "../../src/cas/clean/used-packs.ts";
import { openSource, packsIn } from "./small-backups.ts";
import { SmallWorld } from "./small-world.ts";

test("what nobody committed goes when the floor has reached it, and not before", async () => {
  using world = await SmallWorld.create();
  const node = await world.open();
  await world.backup(node, [1]);
  await world.cleanup(node, { sweep: true });
  await world.store(node, [2, 3]);
  expect((await world.cleanup(node, { sweep: true })).garbage.objects).toBe(0);
  await world.backup(node, [4]);
  const { garbage } = await world.cleanup(node, { sweep: true });
  expect(garbage.objects).toBeGreaterThanOrEqual(3);
  expect((await world.cleanup(node, { sweep: true })).garbage.objects).toBe(0);
  expect(await world.check()).toBe(2);
});

test("a sweep leaves the log, the header and what it does not know alone", async () => {
  using world = await SmallWorld.create();
  const node = await world.open();
  world.site.objects.set("pack/readme", new Uint8Array(1));
  world.site.objects.set("probe/1", new Uint8Array(1));
  for (const number of [1, 2, 3]) await world.backup(node, [number]);
  const kept = [...world.site.objects.keys()].filter((key) =>
    /^(log|probe|astacus|.*readme)/.test(key),
  );
  await world.cleanup(node, { sweep: true });
  expect(kept.every((key) => world.site.objects.has(key))).toBe(true);
});

test("a pack that the catalog has lost is not taken for garbage", async () => {
  using world = await SmallWorld.create();
  const node = await world.open();
  const first = await world.backup(node, [1, 2]);
  await world.backup(node, [3]);
  await world.forget(node, first);
  const { repository, source } = node;
  await world.cleanup(node);
  const retired = [...repository.state.retired.keys()];
  repository.index.removePacks(retired);
  using used = new UsedPacks(repository, source);
  await used.refresh(repository.state);
  const before = packsIn(world.site.objects).length;
  const removal = await sweepGarbage(repository, used, { packs: true });
  expect(removal.alarms.length).toBe(retired.length);
  expect(packsIn(world.site.objects).length).toBe(before);
});

test("who removes does not believe an entry that deletes what is in use", async () => {
  using world = await SmallWorld.create();
  const node = await world.open();
  await world.backup(node, [1, 2]);
  const { repository } = node;
  const packs = [...repository.index.packs()];
  const operation = drawId(world.random);
  const body = { packs: packs.map(({ id }) => id) };
  await repository.commit(() => ({ kind: "retire", body }), { operation });
  const { sequence: floor } = repository.state;
  await repository.commit(() => ({ kind: "delete", body: { ...body, backups: [], floor } }), {
    operation,
  });
  using used = new UsedPacks(repository, openSource(repository));
  await used.refresh(repository.state);
  const before = world.site.objects.size;
  const removal = await removePacks(repository, repository.state, used, packs);
  expect(removal.alarms.length).toBe(packs.length);
  expect(world.site.objects.size).toBe(before);
  const sweep = await sweepGarbage(repository, used, { packs: true });
  expect(sweep.objects).toBe(0);
});
