/**
 * Backups with true manifests, copied from a directory to another one, repaired there, and read by
 * the independent reader of contrib/ when the first directory is gone.
 */
import { expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import { realFileSystem } from "../../src/base/file-system.ts";
import { closeLog } from "../../src/cas/copy/close-log.ts";
import { copyBackups } from "../../src/cas/copy/copy-backups.ts";
import { repairObjects } from "../../src/cas/copy/repair-objects.ts";
import { manifestKey } from "../../src/cas/format/ids.ts";
import { packKey } from "../../src/cas/format/pack.ts";
import { Repository } from "../../src/cas/log/repository.ts";
import { verifyRepository } from "../../src/cas/read/verify.ts";
import { makeDirectorySite, openDirectorySite } from "../../src/sites/directory-site.ts";
import { seededRandom, StillClock } from "../sites/still-clock.ts";
import { idOf } from "./log-builder.ts";
import { noise } from "./noise.ts";
import type { TestFile } from "./repository-builder.ts";
import { RepositoryBuilder } from "./repository-builder.ts";
import { openNode } from "./small-backups.ts";
import { shapeExpected, shapeOf } from "./tree-shape.ts";
import { temporaryFolder } from "./temporary-folder.ts";

const READER = join(import.meta.dir, "../../contrib/read-backup.mjs");
const OPERATION = idOf("operation");
const HOW = { operation: OPERATION, concurrency: 2, readBack: true, keepEveryBytes: 5000 };

const FILES: readonly TestFile[] = [
  { path: "d" },
  { path: "d/a", content: noise(9000, 2) },
  { path: "d/text", content: new TextEncoder().encode("again and again ".repeat(500)) },
  { path: "link", hardlink: "d/a" },
  { path: "tree", content: noise(12_000, 4), isTree: true },
].map((file, index) => ({
  ...file,
  uid: process.getuid?.() ?? 0,
  gid: process.getgid?.() ?? 0,
  mtimeNs: BigInt(1_600_000_000 + index) * 1_000_000_000n,
}));

test("a copy in a directory, repaired and closed, is read by the independent reader alone", async () => {
  using folder = temporaryFolder();
  const [one, other] = [join(folder.path, "one"), join(folder.path, "other")];
  await makeDirectorySite({ name: "one", path: one });
  await makeDirectorySite({ name: "other", path: other });
  await using site = await openDirectorySite({ name: "one", path: one });
  await using target = await openDirectorySite({ name: "other", path: other });
  using builder = await RepositoryBuilder.create({ site });
  await builder.backup("older", { a: { data: FILES.slice(0, 3) } });
  await builder.backup("newer", { a: { data: FILES }, b: { more: FILES } });
  const from = { repository: builder.repository, source: builder.source() };
  const doors = { clock: new StillClock(), random: seededRandom(5) };
  const { repository, chunker } = builder.repository.header;
  await Repository.init(target, { doors, chunker, repository });
  using to = await openNode(target, doors);
  const report = await copyBackups(from, to, HOW);
  expect(report.backups.map(({ name, state }) => [name, state])).toEqual([
    ["older", "copied"],
    ["newer", "copied"],
  ]);
  const targets = damage(to.repository, other);
  expect(read("verify", other).exitCode).toBe(1);
  const { repaired } = await repairObjects(to, [from], targets, { operation: OPERATION });
  expect(repaired).toEqual(targets.map(({ id }) => id));
  const successor = builder.repository.header.site;
  await closeLog(to.repository, { successor, reason: "test", operation: OPERATION });
  fs.rmSync(one, { recursive: true });
  expect(read("verify", other)).toMatchObject({ exitCode: 0 });
  const { source } = to;
  const verified = await verifyRepository({ repository: to.repository, source, deep: true });
  expect(verified.problems).toEqual([]);
  const restored = join(folder.path, "restored");
  expect(read("restore", other, "newer", restored)).toMatchObject({ exitCode: 0 });
  for (const volume of ["a/data", "b/more"]) {
    const found = shapeOf(realFileSystem, join(restored, volume), { withOwners: true });
    expect(found).toEqual(shapeExpected(FILES, { withOwners: true }));
  }
});

/** Cuts a pack and removes a manifest. */
function damage(
  { index, state }: Repository,
  root: string,
): { readonly kind: "pack" | "manifest"; readonly id: string }[] {
  const [pack] = index.packs();
  const { manifest } = [...state.backups.values()].at(-1)!;
  const path = join(root, packKey(pack!.id, pack!.birth));
  const bytes = fs.readFileSync(path);
  fs.rmSync(path);
  fs.writeFileSync(path, bytes.subarray(1));
  fs.rmSync(join(root, manifestKey(manifest.id, manifest.birth)));
  return [
    { kind: "pack", id: pack!.id },
    { kind: "manifest", id: manifest.id },
  ];
}

function read(...args: string[]): { exitCode: number; stdout: string; stderr: string } {
  const { exitCode, stdout, stderr } = Bun.spawnSync([process.execPath, READER, ...args]);
  return { exitCode, stdout: stdout.toString(), stderr: stderr.toString() };
}
