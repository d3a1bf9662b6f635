/** What a site wants of another one, and what is held back for it. */
import { expect, test } from "bun:test";
import { dropPin, forgetBackups, pinBackup } from "../../src/cas/clean/backup-marks.ts";
import type { RetentionPolicy } from "../../src/cas/clean/retention.ts";
import { drawId } from "../../src/cas/format/ids.ts";
import type { SiteView } from "../../src/cluster/site-views.ts";
import { heldFor, lackingAt } from "../../src/cluster/site-wants.ts";
import type { SmallNode } from "../cas/small-backups.ts";
import { openSource } from "../cas/small-backups.ts";
import { TwoSites } from "../cas/two-sites.ts";

const ALL: RetentionPolicy = { minimum: 100 };
const LAST: RetentionPolicy = { minimum: 1, keepLast: 1 };

test("what a mirror forgot by a rule that it has no more is held for it, and brought", async () => {
  using sites = await TwoSites.create();
  const { world } = sites;
  const [a, b] = [await world.open(), await sites.openOther()];
  const [id] = [await world.backup(a, [1, 2]), await world.backup(a, [2, 3])];
  await sites.copy(a, b);
  const forget = { reason: "", scope: "site", operation: drawId(world.random) } as const;
  await forgetBackups(b.repository, { backups: [id], ...forget });
  const held = (policy: RetentionPolicy): string | undefined =>
    heldFor(viewOf("p", a, "primary", LAST), [viewOf("m", b, "mirror", policy)], LAST)(id);
  const lacking = (policy: RetentionPolicy): string[] =>
    lackingAt(a.repository.state, b.repository.state, policy).map(({ backup }) => backup);
  expect(held(LAST)).toBeUndefined();
  expect(lacking(LAST)).toEqual([]);
  expect(held(ALL)).toBe("site m is still to get it");
  expect(lacking(ALL)).toEqual([id]);
  // Its next cleanup would forget again what no rule of its own keeps.
  const pin = { backup: id, pin: "p", reason: "", operation: drawId(world.random) };
  await pinBackup(a.repository, () => openSource(a.repository), pin);
  expect(lacking(LAST)).toEqual([]);
  await dropPin(a.repository, pin);
  await sites.copy(a, b, { backups: lacking(ALL), override: "site" });
  expect(lacking(ALL)).toEqual([]);
  expect(held(ALL)).toBeUndefined();
  expect(await sites.checkOther()).toBe(2);
});

test("what was forgotten for all by name is neither held nor brought back", async () => {
  using sites = await TwoSites.create();
  const { world } = sites;
  const [a, b] = [await world.open(), await sites.openOther()];
  const id = await world.backup(a, [1, 2]);
  await sites.copy(a, b);
  await world.forget(b, id);
  expect(heldFor(viewOf("p", a, "primary", ALL), [viewOf("m", b, "mirror", ALL)], ALL)(id)).toBe(
    undefined,
  );
  expect(lackingAt(a.repository.state, b.repository.state, ALL)).toEqual([]);
  const copied = await sites.copy(a, b, { backups: [id], override: "site" });
  expect(copied.backups[0]?.state).toBe("forgotten-there");
});

function viewOf(
  name: string,
  { repository }: SmallNode,
  role: "primary" | "mirror",
  retention: RetentionPolicy,
): SiteView {
  const id = repository.header.site;
  // Nothing but the log of an open site is looked at.
  const open = { id, name, repository } as unknown as NonNullable<SiteView["open"]>;
  return { id, name, role, retention, open } as unknown as SiteView;
}
