/** Copies of an encrypted repository, by nodes that can open nothing of what they carry. */
import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import { join } from "node:path";
import { expect, test } from "bun:test";
import { realClock } from "../../src/base/clock.ts";
import { fromHex } from "../../src/base/hex.ts";
import { realRandom } from "../../src/base/random.ts";
import { copyBackups } from "../../src/cas/copy/copy-backups.ts";
import type { CopySide } from "../../src/cas/copy/copy-side.ts";
import { proveCopy } from "../../src/cas/copy/prove-copy.ts";
import { repairObjects, repairPacks } from "../../src/cas/copy/repair-objects.ts";
import { forgetBackups } from "../../src/cas/clean/backup-marks.ts";
import { runCleanup } from "../../src/cas/clean/cleanup.ts";
import { drawId } from "../../src/cas/format/ids.ts";
import { packKey } from "../../src/cas/format/pack.ts";
import { Repository } from "../../src/cas/log/repository.ts";
import { listedBackups } from "../../src/cas/log/state.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import { openSource, Rig } from "./backup-rig.ts";
import { ENCRYPTION, READER } from "./encryption-keys.ts";
import { rejectionOf } from "./repository-world.ts";

const CHUNKER = { rule: "astacus-cdc-1", averageSizeBytes: 65_536 } as const;
const DOORS = { clock: realClock, random: realRandom };
const HOW = { concurrency: 2, readBack: true, keepEveryBytes: 300_000 };

test("a copy of an encrypted repository opens with the same identity, after a repack too", async () => {
  await using rig = await openRig();
  for (let index = 0; index < 12; index++) rig.write(`file-${index}`, randomBytes(100_000));
  await rig.backup();
  const { backup: first } = listedBackups((await rig.openRepository()).state)[0]!;
  for (let index = 1; index < 12; index++)
    if (index % 4 !== 0) fs.rmSync(join(rig.root, `file-${index}`));
  const { stored } = await rig.backup({ lookUpAll: true });
  const from = await sideOf(rig);
  await repack(from, first);
  expect(from.repository.state.moves.size).toBe(1);
  await using target = await siblingOf(from);
  const to = await sideOf(target);
  const report = await copyBackups(from, to, { operation: drawId(realRandom), ...HOW });
  expect(report.backups).toMatchObject([{ state: "copied" }]);
  expect((await proveCopy(from, to, { deep: true })).unproved).toEqual([]);
  const key = [...target.site.objects.keys()].find((name) => name.startsWith("key/"))!;
  const bytes = target.site.objects.get(key)!;
  target.site.objects.delete(key);
  expect((await proveCopy(from, to, { deep: false })).unproved[0]?.why).toContain(key);
  target.site.objects.set(key, bytes);
  const found = await target.read(stored.volumes[0]!.listing);
  for (const [path, bytes] of rig.contents()) expect(found.get(path)?.bytes).toEqual(bytes);
  const pack = [...to.repository.index.packs()].find(({ kind }) => kind === "data");
  target.site.objects.delete(packKey(pack!.id, pack!.birth));
  const how = { operation: drawId(realRandom) };
  expect((await repairPacks(to, [from], [pack!.id], how)).repaired).toEqual([pack!.id]);
  expect((await target.read(stored.volumes[0]!.listing)).size).toBe(found.size);
  const { objects } = target.site;
  for (const name of objects.keys()) if (name.startsWith("index/")) objects.delete(name);
  const segments = [...to.repository.state.segments.keys()];
  const lost = segments.map((id) => ({ kind: "index", id }) as const);
  expect((await repairObjects(to, [from], lost, how)).repaired).toEqual(segments);
  expect((await proveCopy(from, to, { deep: true })).unproved).toEqual([]);
});

test("a list written anew lies under the metadata key, though a file has the same bytes", async () => {
  await using rig = await openRig();
  for (let index = 0; index < 12; index++) rig.write(`file-${index}`, randomBytes(100_000));
  await rig.backup();
  const { backup: first } = listedBackups((await rig.openRepository()).state)[0]!;
  for (let index = 1; index < 12; index++)
    if (index % 4 !== 0) fs.rmSync(join(rig.root, `file-${index}`));
  await rig.backup({ lookUpAll: true });
  const from = await sideOf(rig);
  await repack(from, first);
  const [moved] = listedBackups(from.repository.state);
  expect(from.repository.state.moves.has(moved!.backup)).toBe(true);
  // What its list becomes elsewhere is the content of a file in the next backup.
  await using one = await siblingOf(from);
  const to = await sideOf(one);
  await copyBackups(from, to, { operation: drawId(realRandom), ...HOW });
  const { root } = to.repository.state.backups.get(moved!.backup)!.lists[0]!;
  const id = fromHex(root.id);
  rig.write("list", await to.source.fetch(id, root.length));
  await rig.backup();
  await from.repository.catchUp();
  const next = listedBackups(from.repository.state).at(-1)!;
  await using other = await siblingOf(from);
  const target = await sideOf(other);
  const how = { operation: drawId(realRandom), ...HOW };
  await copyBackups(from, target, { ...how, backups: [next.backup] });
  const { index } = target.repository;
  expect(index.find(id).map(({ seal }) => seal?.origin.session)).toEqual([expect.any(String)]);
  await copyBackups(from, target, how);
  expect(index.find(id).map(({ seal }) => seal?.origin.session)).toContain(undefined);
  expect((await proveCopy(from, target, { deep: true })).unproved).toEqual([]);
});

test("a plain site takes no copy of an encrypted one", async () => {
  await using rig = await openRig();
  rig.write("file", "content");
  await rig.backup();
  const from = await sideOf(rig);
  const site = new MemorySite("plain");
  const { repository } = from.repository.header;
  await Repository.init(site, { doors: DOORS, chunker: CHUNKER, repository });
  await using plain = await Rig.open({ site });
  const to = await sideOf(plain);
  const refused = await rejectionOf(
    copyBackups(from, to, { operation: drawId(realRandom), ...HOW }),
  );
  expect(refused.kind).toBe("refused");
  expect(refused.message).toContain("only one is encrypted");
});

function openRig(site?: MemorySite): Promise<Rig> {
  const identities = [READER.identity];
  return Rig.open({ encryption: ENCRYPTION, identities, ...(site === undefined ? {} : { site }) });
}

/** What a node has: no identity. */
async function sideOf(rig: Rig): Promise<CopySide> {
  const repository = await rig.openRepository();
  return { repository, source: openSource(repository) };
}

/** Another site of the same repository. */
async function siblingOf({ repository }: CopySide): Promise<Rig> {
  const site = new MemorySite("sibling");
  const { keys } = ENCRYPTION;
  const same = { repository: repository.header.repository, keys };
  await Repository.init(site, { doors: DOORS, chunker: CHUNKER, ...same });
  return await openRig(site);
}

async function repack({ repository, source }: CopySide, forgotten: string): Promise<void> {
  const operation = drawId(realRandom);
  const how = { backups: [forgotten], reason: "", scope: "site", operation } as const;
  await forgetBackups(repository, how);
  for (let count = 0; count < 3; count++) {
    await runCleanup({
      repository,
      source,
      operation: drawId(realRandom),
      policy: { minimum: 1000 },
      undoWindowMs: 0,
      keepSilentMs: 1e12,
      now: Date.now(),
    });
  }
}
