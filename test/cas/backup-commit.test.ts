/**
 * Commits of backups by writers that slept: what they planned with may be retired or gone.
 */
import { describe, expect, test } from "bun:test";
import { pinBackup, undoForget } from "../../src/cas/clean/backup-marks.ts";
import { COMMIT_RULES } from "../../src/cas/write/commit-rules.ts";
import { drawId } from "../../src/cas/format/ids.ts";
import type { SmallNode } from "./small-backups.ts";
import { openSource } from "./small-backups.ts";
import { caught, InterposedSite, SmallWorld } from "./small-world.ts";

describe("a writer that slept", () => {
  test("revives what was retired meanwhile", async () => {
    using world = await SmallWorld.create();
    const [writer, cleaner] = [await world.open(), await world.open()];
    const first = await world.backup(cleaner, [1, 2, 3]);
    const sleeping = await world.store(writer, [1, 2, 3, 4]);
    await world.forget(cleaner, first);
    expect((await world.cleanup(cleaner)).retired.packs).toBeGreaterThan(0);
    await world.commit(writer, sleeping);
    expect(writer.repository.state.backups.get(sleeping.draft.backup)?.revived).not.toEqual([]);
    for (const _ of [1, 2, 3]) await world.cleanup(cleaner);
    expect(await world.check()).toBe(1);
  });

  test("is refused when packs that it reuses are gone", async () => {
    using world = await SmallWorld.create();
    const [writer, cleaner] = [await world.open(), await world.open()];
    const first = await world.backup(cleaner, [1, 2, 3]);
    await world.backup(cleaner, [9]);
    const sleeping = await world.store(writer, [1, 2, 3, 4]);
    await world.forget(cleaner, first);
    for (const _ of [1, 2, 3]) await world.cleanup(cleaner);
    await expectReason(world.commit(writer, sleeping), "packs-gone");
    expect(await world.check()).toBe(1);
  });

  test("decides again at each entry, and without that rule commits a hole", async () => {
    const race = async (redecide: boolean): Promise<void> => {
      using world = await SmallWorld.create();
      const site = new InterposedSite("other", world.site.objects);
      const [writer, cleaner] = [await world.open(site), await world.open()];
      const first = await world.backup(cleaner, [1, 2, 3]);
      await world.backup(cleaner, [9]);
      // What it sends itself is born above the floor.
      const note = { kind: "note", body: { text: "" } } as const;
      await cleaner.repository.commit(() => note, { operation: drawId(world.random) });
      const late = await world.store(writer, [1, 2, 3]);
      site.onEntry = async () => {
        await world.forget(cleaner, first);
        for (const _ of [1, 2, 3]) await world.cleanup(cleaner);
      };
      await world.commit(writer, late, { rules: { ...COMMIT_RULES, redecide } });
      await world.check();
    };
    await expectReason(race(true), "packs-gone");
    expect(await caught(race(false))).toMatchObject({ kind: "damaged" });
  });

  test("is refused when what it sent fell below the floor", async () => {
    using world = await SmallWorld.create();
    const [writer, cleaner] = [await world.open(), await world.open()];
    const sleeping = await world.store(writer, [1, 2]);
    await world.backup(cleaner, [9]);
    await world.cleanup(cleaner, { sweep: true });
    await expectReason(world.commit(writer, sleeping), "packs-gone");
  });

  test("is protected by its keep at any floor", async () => {
    using world = await SmallWorld.create();
    const [writer, cleaner] = [await world.open(), await world.open()];
    const operation = drawId(world.random);
    const sleeping = await world.store(writer, [1, 2], { operation, isKept: true });
    const manifest = sleeping.draft.manifest.birth;
    for (const number of [7, 8, 9]) {
      await world.backup(cleaner, [number]);
      await world.cleanup(cleaner, { sweep: true, undoWindowMs: 1 });
    }
    expect(cleaner.repository.state.keeps.size).toBe(1);
    const kept = sleeping.draft.segments.map(({ birth }) => birth);
    const { floor } = cleaner.repository.state;
    expect(Math.max(...kept)).toBeLessThan(cleaner.repository.state.sequence);
    // The manifest is sent anew, as a coordinator does whose manifest is no longer above the floor.
    expect(manifest).toBeGreaterThan(floor);
    await world.commit(writer, sleeping, { operation });
    expect(cleaner.repository.state.retired.size).toBe(0);
    expect(await world.check()).toBe(4);
  });
});

describe("marks", () => {
  test("an undo revives retired packs", async () => {
    using world = await SmallWorld.create();
    const node = await world.open();
    const first = await world.backup(node, [1, 2, 3]);
    await world.forget(node, first);
    await world.cleanup(node);
    expect(node.repository.state.retired.size).toBeGreaterThan(0);
    const operation = drawId(world.random);
    await undoForget(node.repository, () => node.source, { backup: first, operation });
    expect(node.repository.state.retired.size).toBe(0);
    for (const _ of [1, 2, 3]) await world.cleanup(node);
    expect(await world.check()).toBe(1);
  });

  test("an undo needs every pack", async () => {
    using world = await SmallWorld.create();
    const node = await world.open();
    const first = await world.backup(node, [1, 2, 3]);
    await world.backup(node, [9]);
    await world.forget(node, first);
    await world.cleanup(node);
    const { repository } = node;
    const retired = [...repository.state.retired.keys()];
    const pack = retired.filter((id) => repository.index.findPack(id)?.kind === "data");
    const operation = drawId(world.random);
    const { sequence: floor } = repository.state;
    await repository.commit(() => ({ kind: "delete", body: { packs: pack, backups: [], floor } }), {
      operation,
    });
    const source = (): SmallNode["source"] => openSource(repository);
    const undo = { backup: first, operation };
    await expectReason(undoForget(repository, source, undo), "packs-gone");
    const pin = { backup: first, pin: "p", reason: "test", operation };
    await expectReason(pinBackup(repository, source, pin), "packs-gone");
    const rules = { ...COMMIT_RULES, undoNeedsPacks: false };
    await undoForget(repository, source, { ...undo, rules });
    expect(await caught(world.check())).toMatchObject({ kind: "damaged" });
  });

  test("a pinned backup is not forgotten, and a forgotten one may be pinned", async () => {
    using world = await SmallWorld.create();
    const node = await world.open();
    const [first, second] = [await world.backup(node, [1, 2]), await world.backup(node, [3])];
    const operation = drawId(world.random);
    const source = (): SmallNode["source"] => node.source;
    const pin = { pin: "p", reason: "test", operation };
    await pinBackup(node.repository, source, { ...pin, backup: first });
    expect(await caught(world.forget(node, first))).toMatchObject({ kind: "refused" });
    await world.forget(node, second);
    await world.cleanup(node);
    await pinBackup(node.repository, source, { ...pin, pin: "q", backup: second });
    for (const _ of [1, 2, 3]) await world.cleanup(node);
    expect(node.repository.state.backups.size).toBe(2);
    expect(await world.check()).toBe(2);
  });
});

async function expectReason(promise: Promise<unknown>, reason: string): Promise<void> {
  expect(await caught(promise)).toMatchObject({ kind: "conflict", context: { reason } });
}
