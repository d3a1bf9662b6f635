/** How a forget travels between sites with copies, and how what was undone stays so. */
import { describe, expect, test } from "bun:test";
import { forgetBackups, undoForget } from "../../src/cas/clean/backup-marks.ts";
import { drawId } from "../../src/cas/format/ids.ts";
import { listedBackups } from "../../src/cas/log/state.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import type { SmallNode } from "./small-backups.ts";
import { openSource } from "./small-backups.ts";
import { initSibling, TwoSites } from "./two-sites.ts";

const NUMBERS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

describe("a copy", () => {
  test("carries a forget for all sites before it copies, and not one for its own site", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const a = await world.open();
    const b = await sites.openOther();
    const [one, two, three] = [
      await world.backup(a, [1, 2, 3]),
      await world.backup(a, [2, 3, 4]),
      await world.backup(a, [3, 4, 5]),
    ];
    await sites.copy(a, b);
    await world.forget(a, one);
    await forgetHere(sites, a, two);
    const report = await sites.copy(a, b);
    expect(report.forgotten).toEqual([one]);
    expect(listedBackups(b.repository.state).map(({ backup }) => backup)).toEqual([two, three]);
    // Not brought back from where it is listed still.
    const back = await sites.copy(b, a);
    expect(back.backups.map(({ state }) => state)).toEqual(["forgotten-there", "there"]);
  });

  test("brings back what the target forgot only if asked for by name", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const a = await world.open();
    const b = await sites.openOther();
    const id = await world.backup(a, NUMBERS);
    await sites.copy(a, b);
    await forgetHere(sites, b, id);
    expect((await sites.copy(a, b, { backups: [id] })).backups[0]?.state).toBe("forgotten-there");
    expect((await sites.copy(a, b, { override: true })).backups[0]?.state).toBe("forgotten-there");
    const asked = await sites.copy(a, b, { backups: [id], override: true });
    expect(asked.backups[0]?.state).toBe("copied");
    expect(await sites.checkOther()).toBe(1);
    await forgetHere(sites, b, id);
    for (let count = 0; count < 3; count++) await world.cleanup(b, { sweep: true });
    expect(b.repository.state.backups.size).toBe(0);
    await sites.copy(a, b, { backups: [id], override: true });
    expect(await sites.checkOther()).toBe(1);
  });

  test("does not carry a forget to where the backup was listed again since", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const a = await world.open();
    const b = await sites.openOther();
    const id = await world.backup(a, NUMBERS);
    await sites.copy(a, b);
    await world.forget(a, id);
    await sites.copy(a, b);
    const operation = drawId(world.random);
    await undoForget(a.repository, () => openSource(a.repository), { backup: id, operation });
    expect((await sites.copy(b, a)).forgotten).toEqual([]);
    expect(listedBackups(a.repository.state)).toHaveLength(1);
  });

  test("that carries a forget while somebody undoes it does not win, whatever the clocks say", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const [a, second, b] = [await world.open(), await world.open(), await sites.openOther()];
    const id = await world.backup(a, NUMBERS);
    await sites.copy(a, b);
    await world.forget(a, id);
    const catchUp = b.repository.catchUp.bind(b.repository);
    let isUndone = false;
    b.repository.catchUp = async (signal) => {
      const state = await catchUp(signal);
      if (!isUndone) {
        isUndone = true;
        await undoHere(sites, second, id);
        await world.clock.sleep(5000);
      }
      return state;
    };
    expect((await sites.copy(a, b)).forgotten).toEqual([id]);
    expect((await sites.copy(b, a)).forgotten).toEqual([]);
    expect((await sites.copy(a, b)).backups[0]?.state).toBe("copied");
    // One who has still the old state of the source changes nothing any more.
    const origin = { site: a.repository.header.site, sequence: 3 };
    expect(b.repository.state.backups.get(id)?.undone).toEqual([origin]);
    const operation = drawId(world.random);
    const how = { backups: [id], reason: "", scope: "all", origin, operation } as const;
    expect(await forgetBackups(b.repository, how)).toBeUndefined();
    expect(await sites.checkOther()).toBe(1);
  });

  test("brings back what was undone while the target was away, deleted there or not", async () => {
    for (const isDeleted of [false, true]) {
      using sites = await TwoSites.create();
      const { world } = sites;
      const [a, b] = [await world.open(), await sites.openOther()];
      const id = await world.backup(a, NUMBERS);
      await sites.copy(a, b);
      await world.forget(a, id);
      await sites.copy(a, b);
      await undoHere(sites, a, id);
      if (isDeleted) {
        for (let count = 0; count < 3; count++) await world.cleanup(b, { sweep: true });
      }
      expect(b.repository.state.backups.size).toBe(isDeleted ? 0 : 1);
      expect((await sites.copy(a, b)).backups[0]?.state).toBe("copied");
      expect(await sites.checkOther()).toBe(1);
      // A later forget is another one.
      await world.forget(a, id);
      expect((await sites.copy(a, b)).forgotten).toEqual([id]);
    }
  });

  test("carries what was forgotten for all to a site that never had it, and on from there", async () => {
    using sites = await TwoSites.create();
    const { world } = sites;
    const next = new MemorySite("next");
    await initSibling(world, next);
    const [a, b, c] = [await world.open(), await sites.openOther(), await sites.openOther(next)];
    const [gone, id] = [await world.backup(a, [1, 2, 3]), await world.backup(a, NUMBERS)];
    await sites.copy(a, b);
    await world.forget(a, gone);
    for (let count = 0; count < 3; count++) await world.cleanup(a, { sweep: true });
    expect(a.repository.state.backups.has(gone)).toBe(false);
    expect((await sites.copy(a, c)).forgotten).toEqual([]);
    expect((await sites.copy(b, c)).backups.map(({ state }) => state)).toEqual([
      "forgotten-there",
      "there",
    ]);
    expect((await sites.copy(c, b)).forgotten).toEqual([gone]);
    expect(listedBackups(b.repository.state).map(({ backup }) => backup)).toEqual([id]);
    const before = c.repository.state.sequence;
    await sites.copy(a, c);
    expect(c.repository.state.sequence).toBe(before);
  });
});

async function forgetHere(sites: TwoSites, node: SmallNode, backup: string): Promise<void> {
  const operation = drawId(sites.world.random);
  const how = { backups: [backup], reason: "here", scope: "site", operation } as const;
  await forgetBackups(node.repository, how);
}

async function undoHere(sites: TwoSites, { repository }: SmallNode, backup: string): Promise<void> {
  const operation = drawId(sites.world.random);
  await repository.catchUp();
  await undoForget(repository, () => openSource(repository), { backup, operation });
}
