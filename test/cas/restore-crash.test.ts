/**
 * Restores that end in the middle: killed before each call to the disk, cut off from power, out of
 * space, cancelled. What is visible then is old or new and never half; a second run makes it right.
 */
import { expect, test } from "bun:test";
import { errnoError } from "../../src/base/errno.ts";
import { AppError } from "../../src/base/error.ts";
import { readManifest } from "../../src/cas/format/manifest.ts";
import type { RestoreRunOptions } from "../../src/cas/read/restore-options.ts";
import { runVolumeRestore } from "../../src/cas/read/restore.ts";
import { MemoryFileSystem } from "../simulation/memory-file-system.ts";
import { seededRandom } from "../sites/still-clock.ts";
import { noise } from "./noise.ts";
import type { TestFile } from "./repository-builder.ts";
import { RepositoryBuilder } from "./repository-builder.ts";
import { readFile, shapeExpected, shapeOf, walk, writeFile } from "./tree-shape.ts";

const NEW: readonly TestFile[] = [
  { path: "d", mode: 0o711 },
  { path: "d/link", hardlink: "d/changed" },
  { path: "d/changed", content: noise(5000, 1) },
  { path: "d/new", content: noise(100, 2) },
  { path: "d/sub" },
  { path: "d/sub/empty", content: new Uint8Array(0) },
  { path: "kept", content: noise(700, 3) },
  { path: "large", content: noise(7000, 4), isTree: true },
  { path: "s", symlink: "d/new" },
];

class Killed extends Error {
  override readonly name = "Killed";
}

/** A disk with an older state of the target: a file that changed, one that stays, one too many. */
function olderDisk(capacityBytes?: number): MemoryFileSystem {
  const clock = { now: () => 1_800_000_000_000 };
  const disk = new MemoryFileSystem({
    clock,
    ...(capacityBytes === undefined ? {} : { capacityBytes }),
  });
  for (const path of ["/t", "/t/d", "/t/extra"]) disk.makeDirectory(path);
  writeFile(disk, "/t/d/changed", noise(4000, 9));
  writeFile(disk, "/t/kept", noise(700, 3));
  writeFile(disk, "/t/large", noise(7000, 8));
  writeFile(disk, "/t/extra/x", noise(10, 7));
  for (const path of ["/", "/t", "/t/d", "/t/extra"]) disk.syncDirectory(path);
  return disk;
}

async function prepare(): Promise<
  Disposable & { optionsFor: (disk: MemoryFileSystem) => RestoreRunOptions }
> {
  const builder = await RepositoryBuilder.create();
  const record = await builder.backup("one", { a: { data: NEW } });
  const { listing } = (await readManifest(builder.site, record)).nodes[0]!.volumes[0]!;
  const source = builder.source();
  return {
    optionsFor: (files) => ({
      listing,
      source,
      files,
      target: "/t",
      random: seededRandom(5),
      ownerPolicy: "recorded",
      extra: "remove",
    }),
    [Symbol.dispose]: () => builder[Symbol.dispose](),
  };
}

/** Every visible file is an old one or a new one, whole. */
function expectNothingHalf(disk: MemoryFileSystem): void {
  const old = olderDisk();
  const before = new Map(
    walk(old, "/t", "")
      .filter((path) => old.lstat(`/t/${path}`)?.type === "file")
      .map((path) => [path, readFile(old, `/t/${path}`)]),
  );
  const contents = new Map(NEW.map((file) => [file.path, file.content]));
  for (const path of walk(disk, "/t", "")) {
    if (disk.lstat(`/t/${path}`)?.type !== "file" || path.includes(".astacus-restore-")) continue;
    const first = NEW.find((file) => file.path === path)?.hardlink ?? path;
    const bytes = Buffer.from(readFile(disk, `/t/${path}`));
    const isWhole = [before.get(path), contents.get(first)].some(
      (whole) => whole !== undefined && bytes.equals(whole),
    );
    if (!isWhole) throw new Error(`${path} is neither old nor new`);
  }
}

/** Lets the disk fail from its call number `count` on; a dead process makes no more calls. */
function killAt(disk: MemoryFileSystem, count: number): void {
  let calls = 0;
  disk.fault = () => {
    calls += 1;
    if (calls >= count) throw new Killed(`at call ${count}`);
  };
}

/** What a promise fails with; undefined if it does not. */
async function failureOf(promise: Promise<unknown>): Promise<unknown> {
  return await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
}

async function countCalls(): Promise<number> {
  using prepared = await prepare();
  const disk = olderDisk();
  const before = disk.callCount;
  await runVolumeRestore(prepared.optionsFor(disk));
  return disk.callCount - before;
}

for (const how of ["killed", "cut off from power"] as const) {
  test(`${how} at every call to the disk, it is made right by a second run`, async () => {
    const calls = await countCalls();
    using prepared = await prepare();
    let temporaries = 0;
    for (let at = 1; at <= calls; at++) {
      const disk = olderDisk();
      killAt(disk, at);
      const error = await failureOf(runVolumeRestore(prepared.optionsFor(disk)));
      expect(error).toBeInstanceOf(Killed);
      disk.fault = undefined;
      if (how === "killed") disk.dropHandles();
      else disk.crash({ torn: seededRandom(at) });
      expectNothingHalf(disk);
      const result = await runVolumeRestore(prepared.optionsFor(disk));
      temporaries += result.temporariesRemoved;
      expect(shapeOf(disk, "/t")).toEqual(shapeExpected(NEW));
    }
    expect(temporaries).toBeGreaterThan(0);
    console.log(`restores ${how}: ${calls}/${calls} points, ${temporaries} temporaries removed`);
  });
}

test("loses nothing by a power cut after its end", async () => {
  using prepared = await prepare();
  const disk = olderDisk();
  await runVolumeRestore(prepared.optionsFor(disk));
  disk.crash();
  expect(shapeOf(disk, "/t")).toEqual(shapeExpected(NEW));
});

test("that fails at any single call leaves nothing half and nothing temporary", async () => {
  const calls = await countCalls();
  using prepared = await prepare();
  let failures = 0;
  for (let at = 1; at <= calls; at++) {
    const disk = olderDisk();
    let count = 0;
    disk.fault = (call, path) => {
      count += 1;
      if (count === at) throw errnoError({ action: call, path, code: "EIO" });
    };
    const error = await failureOf(runVolumeRestore(prepared.optionsFor(disk)));
    disk.fault = undefined;
    if (error instanceof AppError && error.kind === "damaged") failures += 1;
    expectNothingHalf(disk);
    const names = walk(disk, "/t", "");
    expect(names.filter((path) => path.includes(".astacus-restore-"))).toEqual([]);
  }
  expect(failures).toBeGreaterThan(calls / 2);
  console.log(`restores with one failing call: ${calls} points, ${failures} failed`);
});

test("on a disk that fills up says so, and goes on when there is room", async () => {
  using prepared = await prepare();
  const disk = olderDisk();
  const { freeBytes, totalBytes } = disk.space("/");
  let isFilled = false;
  disk.fault = (call) => {
    if (call !== "open" || isFilled) return;
    // Others take the space after it was measured.
    isFilled = true;
    disk.setCapacity(totalBytes - freeBytes + 3000);
  };
  const error = await runVolumeRestore(prepared.optionsFor(disk)).catch(
    (thrown: unknown) => thrown,
  );
  expect((error as AppError).kind).toBe("no-space");
  expectNothingHalf(disk);
  expect(walk(disk, "/t", "").filter((path) => path.includes(".astacus-restore-"))).toEqual([]);
  disk.setCapacity(totalBytes);
  await runVolumeRestore(prepared.optionsFor(disk));
  expect(shapeOf(disk, "/t")).toEqual(shapeExpected(NEW));
});

test("that is cancelled stops, and leaves nothing temporary", async () => {
  using prepared = await prepare();
  const disk = olderDisk();
  const stop = new AbortController();
  let opens = 0;
  disk.fault = (call) => {
    if (call === "write") opens += 1;
    if (opens === 2) stop.abort();
  };
  const options = { ...prepared.optionsFor(disk), signal: stop.signal };
  expect(await failureOf(runVolumeRestore(options))).toHaveProperty("name", "AbortError");
  disk.fault = undefined;
  expect(walk(disk, "/t", "").filter((path) => path.includes(".astacus-restore-"))).toEqual([]);
  expect(walk(disk, "/t", "")).toContain("extra/x");
  expectNothingHalf(disk);
});
