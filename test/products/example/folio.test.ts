/**
 * The example product, end to end: a cluster of real members backs it up, wipes it and restores it,
 * and a Folio that flushes and merges between any two calls of a capture loses nothing.
 */
import { describe, expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import type { FileSystem } from "../../../src/base/doors.ts";
import { realFileSystem } from "../../../src/base/file-system.ts";
import { ChunkSource } from "../../../src/cas/read/chunk-source.ts";
import { verifyRepository } from "../../../src/cas/read/verify.ts";
import type { VerifyReport } from "../../../src/cas/read/verify.ts";
import type { BackupResult } from "../../../src/cluster/backup-operation.ts";
import type { RestoreRequest } from "../../../src/cluster/restore-operation.ts";
import { verifyShares } from "../../../src/cluster/verify-shares.ts";
import type { NodePhaseContext, PhaseContext } from "../../../src/products/product.ts";
import { RiggedFiles } from "../../cas/backup-rig.ts";
import { noise } from "../../cas/noise.ts";
import { seededRandom } from "../../cas/repository-world.ts";
import { temporaryFolder } from "../../cas/temporary-folder.ts";
import { ProductCluster } from "../../cluster/product-cluster.ts";
import { captureFolio } from "./folio-capture.ts";
import { FolioDatabase, readFolio } from "./folio-database.ts";
import type { Steps } from "./folio-database.ts";
import { verifyFolioShare } from "./folio-seal.ts";
import { createFolioProduct, folioConfigSchema } from "./folio.ts";

/** Captures of a Folio that goes on; each takes some 50 ms on a slow disk. */
const SEED_COUNT = 15;
const SLOW = { timeout: 60_000 };

const MEMBERS = { a: { shards: [0, 1] }, b: { shards: [2] } };

type World = AsyncDisposable & {
  readonly cluster: ProductCluster;
  readonly registry: string;
  readonly folio: { readonly a: FolioDatabase; readonly b: FolioDatabase };
};

/** Two nodes with a segment of 200 KB and a log each. */
async function openWorld({ members = MEMBERS }: { members?: object } = {}): Promise<World> {
  const folder = temporaryFolder();
  const registry = join(folder.path, "members.json");
  fs.writeFileSync(registry, JSON.stringify({ version: 7, members, placedBy: "hand" }));
  const cluster = await ProductCluster.open(["a", "b"], (_node, root) =>
    createFolioProduct(folioConfigSchema.parse({ type: "folio", root, registry })),
  );
  const open = (node: string): FolioDatabase => {
    const folio = new FolioDatabase(cluster.rootOf(node));
    folio.put(`${node}/1`, textOf(node.charCodeAt(0)));
    finish(folio.flush());
    folio.put(`${node}/2`, "in the log");
    return folio;
  };
  return {
    cluster,
    registry,
    folio: { a: open("a"), b: open("b") },
    [Symbol.asyncDispose]: async () => {
      await cluster[Symbol.asyncDispose]();
      folder[Symbol.dispose]();
    },
  };
}

function textOf(seed: number): string {
  return Buffer.from(noise(100_000, seed)).toString("hex");
}

function finish(steps: Steps): void {
  for (const step of steps) expect(step).toBeUndefined();
}

async function backup({ cluster }: World): Promise<BackupResult> {
  const record = await cluster.end(cluster.member("a").startBackup());
  expect(record.error).toBeUndefined();
  return record.result as unknown as BackupResult;
}

async function restore({ cluster }: World, request: RestoreRequest = {}): Promise<void> {
  const record = await cluster.end(cluster.member("a").startRestore(request));
  expect(record.error).toBeUndefined();
}

async function verify({ cluster }: World): Promise<VerifyReport> {
  const { repository } = cluster.member("a");
  const { site, index } = repository;
  const state = () => repository.state;
  const source = new ChunkSource({ site, index, state, concurrency: 4, cacheBytes: 1_000_000 });
  const report = await verifyRepository({ repository, source, deep: true });
  const [first] = repository.state.backups.values();
  const verifierOf = () => verifyFolioShare;
  return await verifyShares(report, { repository, source, backup: first, verifierOf });
}

function wipe({ cluster }: World, node: string): void {
  for (const folder of ["wal", "segments"]) {
    fs.rmSync(join(cluster.rootOf(node), folder), { recursive: true });
  }
}

/** Bytes of files by their paths below a node's root. */
function sizesOf({ cluster }: World, node: string): Map<string, number> {
  const root = cluster.rootOf(node);
  const paths = fs.readdirSync(root, { recursive: true, encoding: "utf8" });
  const sizes = paths.map((path): [string, number] => [path, fs.statSync(join(root, path)).size]);
  return new Map(sizes.filter(([path]) => /\.(wal|docs|seal)$/.test(path)));
}

describe("Folio in a cluster", () => {
  test("is backed up, read again only where it changed, wiped and restored", async () => {
    await using world = await openWorld();
    const first = await backup(world);
    expect(first).toMatchObject({ complete: true, problems: [] });
    expect(await backup(world)).toMatchObject({ complete: true, readBytes: 0 });
    const before = sizesOf(world, "a");
    world.folio.a.put("a/3", textOf(3));
    finish(world.folio.a.flush());
    const added = [...sizesOf(world, "a")].filter(([path]) => !before.has(path));
    const changed = await backup(world);
    expect(added.map(([path]) => path).toSorted()).toEqual([
      "segments/000002.docs",
      "segments/000002.seal",
      "wal/000003.wal",
    ]);
    expect(changed.readBytes).toBe(added.reduce((sum, [, size]) => sum + size, 0));

    world.folio.b.put("b/2", "after the last backup");
    world.folio.b.put("b/9", "after the last backup");
    wipe(world, "a");
    await restore(world);
    expect(readFolio(world.cluster.rootOf("a"))).toEqual(world.folio.a.acknowledged);
    expect(Object.fromEntries(readFolio(world.cluster.rootOf("b")))).toEqual({
      "b/1": textOf("b".charCodeAt(0)),
      "b/2": "in the log",
    });
    const registry: unknown = JSON.parse(fs.readFileSync(world.registry, "utf8"));
    expect(registry).toEqual({ version: 8, members: MEMBERS, placedBy: "hand" });
    expect(await verify(world)).toMatchObject({ ok: true, sharesProved: 2 });
  });

  test("reads of a log that grew only its end", async () => {
    await using world = await openWorld();
    for (let seed = 10; seed < 15; seed += 1) world.folio.a.put(`a/${seed}`, textOf(seed));
    await backup(world);
    world.folio.a.put("a/20", "a little more");
    const { readBytes } = await backup(world);
    expect(readBytes).toBeGreaterThan(0);
    expect(readBytes).toBeLessThan(500_000);
  });

  test("names a damaged file in the backup and in its verification", async () => {
    await using world = await openWorld();
    const path = join(world.cluster.rootOf("b"), "segments", "000001.docs");
    const bytes = fs.readFileSync(path);
    bytes[50] = 0;
    fs.writeFileSync(path, bytes);
    const result = await backup(world);
    expect(result).toMatchObject({ complete: false, problemCount: 1 });
    expect(result.problems[0]).toContain("000001.docs: Its Adler-32 is ");
    const report = await verify(world);
    expect(report).toMatchObject({ ok: false, problemCount: 1 });
    expect(report.problems[0]?.files).toEqual(["b/segments/000001.docs"]);
  });

  test("is incomplete if a member of its registry has no share, though all nodes answered", async () => {
    await using world = await openWorld({ members: { ...MEMBERS, c: { shards: [3, 4] } } });
    const result = await backup(world);
    expect(result).toMatchObject({ complete: false, problemCount: 1 });
    expect(result.problems[0]).toContain("member c with shards 3, 4 is missing");
  });

  test("has its shards where its files went", async () => {
    await using world = await openWorld();
    const a = new Map(world.folio.a.acknowledged);
    const b = new Map(world.folio.b.acknowledged);
    await backup(world);
    const nodes = [
      { from: "a", to: "b" },
      { from: "b", to: "a" },
    ];
    await restore(world, { nodes });
    expect(readFolio(world.cluster.rootOf("a"))).toEqual(b);
    expect(readFolio(world.cluster.rootOf("b"))).toEqual(a);
    const { members } = JSON.parse(fs.readFileSync(world.registry, "utf8")) as { members: unknown };
    expect(members).toEqual({ a: MEMBERS.b, b: MEMBERS.a });
  });

  test("keeps its registry when one node is restored", async () => {
    await using world = await openWorld();
    await backup(world);
    const before = fs.readFileSync(world.registry, "utf8");
    wipe(world, "b");
    await restore(world, { nodes: [{ from: "b", to: "b" }] });
    expect(readFolio(world.cluster.rootOf("b"))).toEqual(world.folio.b.acknowledged);
    expect(fs.readFileSync(world.registry, "utf8")).toBe(before);
  });

  test("refuses files for a node that its registry would have delete them", async () => {
    await using world = await openWorld();
    await backup(world);
    const { cluster } = world;
    const nodes = [{ from: "a", to: "b" }];
    const record = await cluster.end(cluster.member("a").startRestore({ nodes }));
    expect(record.error).toMatchObject({ kind: "refused" });
    expect(record.error?.message).toContain("does not give b the shards 0, 1");
    expect(readFolio(cluster.rootOf("b"))).toEqual(world.folio.b.acknowledged);
  });
});

/** What phases and checks are given, with a disk of the test's own. */
function contextOf(files: FileSystem, scratch: string): NodePhaseContext {
  const signal = new AbortController().signal;
  const doors = { files, random: seededRandom(1) } as unknown as PhaseContext["doors"];
  const operation = "1".repeat(32);
  return { doors, operation, signal, say: () => {}, node: "a", zone: "", scratch, input: null };
}

type Folders = { readonly root: string; readonly scratch: string };

function makeFolders(base: string): Folders {
  const folders = { root: join(base, "root"), scratch: join(base, "scratch") };
  for (const folder of Object.values(folders)) fs.mkdirSync(folder);
  return folders;
}

/** Folio goes on, by a seed, before each listing and each link. */
function busyFiles(folio: FolioDatabase, seed: number): FileSystem {
  const random = seededRandom(seed);
  let work: Steps | undefined;
  const goOn = (): void => {
    for (let steps = Math.floor(random.fraction() * 8); steps > 0; steps -= 1) {
      folio.put("busy", `${random.fraction()}`);
      work ??= random.fraction() < 0.5 ? folio.flush() : folio.merge();
      if (work.next().done === true) work = undefined;
    }
  };
  return new RiggedFiles({
    readDirectory: (path) => {
      goOn();
      return realFileSystem.readDirectory(path);
    },
    link: (existing, created) => {
      goOn();
      realFileSystem.link(existing, created);
    },
  }).door;
}

type Capture = (folders: Folders, files: FileSystem) => void;

/** Captures of a busy Folio, of which some documents are known before each begins. */
function countLosses(capture: Capture): number {
  let losses = 0;
  for (let seed = 1; seed <= SEED_COUNT; seed += 1) {
    using folder = temporaryFolder();
    const folders = makeFolders(folder.path);
    const folio = new FolioDatabase(folders.root);
    for (const key of ["one", "two", "three"]) {
      folio.put(key, key);
      if (key !== "three") finish(folio.flush());
    }
    capture(folders, busyFiles(folio, seed));
    const found = readFolio(folders.scratch);
    if (["one", "two", "three"].some((key) => found.get(key) !== key)) losses += 1;
  }
  return losses;
}

describe("a capture of a Folio that goes on", () => {
  test(
    "has every document that was acknowledged before",
    () => {
      const losses = countLosses(({ root, scratch }, files) => {
        captureFolio(root, contextOf(files, scratch));
      });
      expect(losses).toBe(0);
    },
    SLOW,
  );

  test(
    "would lose some if it went against the flow",
    () => {
      const losses = countLosses(({ root, scratch }, files) => {
        for (const volume of ["segments", "wal"]) {
          fs.mkdirSync(join(scratch, volume));
          for (const name of files.readDirectory(join(root, volume))) {
            try {
              files.link(join(root, volume, name), join(scratch, volume, name));
            } catch {
              // Gone.
            }
          }
        }
      });
      expect(losses).toBeGreaterThan(0);
    },
    SLOW,
  );

  test("may be run again from its start", () => {
    using folder = temporaryFolder();
    const folders = makeFolders(folder.path);
    const folio = new FolioDatabase(folders.root);
    folio.put("one", "one");
    const context = contextOf(realFileSystem, folders.scratch);
    captureFolio(folders.root, context);
    finish(folio.flush());
    captureFolio(folders.root, context);
    expect(fs.readdirSync(join(folders.scratch, "wal"))).toEqual(["000002.wal"]);
    expect(readFolio(folders.scratch)).toEqual(folio.acknowledged);
  });
});

describe("Folio's product", () => {
  test("refuses a node that runs, and places seals last", async () => {
    using folder = temporaryFolder();
    const { root, scratch } = makeFolders(folder.path);
    const product = createFolioProduct({ type: "folio", root, registry: join(root, "members") });
    const [phase] = product.restorePhases;
    if (phase?.on !== "nodes") throw new Error("no phase");
    const locked = new RiggedFiles({ isLocked: (path) => path === join(root, "lock") }).door;
    expect(phase.run(contextOf(locked, scratch))).rejects.toMatchObject({ kind: "refused" });
    await phase.run(contextOf(realFileSystem, scratch));
    expect(fs.readdirSync(root).toSorted()).toEqual(["segments", "wal"]);
    for (const { group } of product.targets(contextOf(realFileSystem, scratch))) {
      expect([group?.("000001.seal"), group?.("000001.docs")]).toEqual([1, 0]);
    }
  });

  test("begins a backup again whose registry moved", async () => {
    using folder = temporaryFolder();
    const { root, scratch } = makeFolders(folder.path);
    const registry = join(root, "members");
    const product = createFolioProduct({ type: "folio", root, registry });
    const context = { ...contextOf(realFileSystem, scratch), nodes: [], results: new Map() };
    const run = async (name: string, state: object) => {
      const phase = product.backupPhases.find((one) => one.name === name);
      if (phase?.on !== "cluster") throw new Error("no phase");
      return await phase.run({ ...context, state: { ...state } });
    };
    fs.writeFileSync(registry, JSON.stringify({ version: 1, members: MEMBERS }));
    const { state = {} } = await run("read-registry", {});
    expect(await run("read-again", state)).toEqual({});
    fs.writeFileSync(registry, JSON.stringify({ version: 2, members: MEMBERS }));
    expect(await run("read-again", state)).toMatchObject({ redo: "read-registry" });
  });

  test("says at once what a backup would lack", async () => {
    using folder = temporaryFolder();
    const { root, scratch } = makeFolders(folder.path);
    const registry = join(root, "members");
    const product = createFolioProduct({ type: "folio", root, registry });
    const oks = async (): Promise<boolean[]> => {
      const checks = await product.check(contextOf(realFileSystem, scratch));
      return checks.map(({ ok }) => ok);
    };
    expect(await oks()).toEqual([false, false]);
    new FolioDatabase(root).put("one", "one");
    fs.writeFileSync(registry, JSON.stringify({ version: 1, members: MEMBERS }));
    expect(await oks()).toEqual([true, true]);
    expect(fs.readdirSync(root).toSorted()).toEqual(["lock", "members", "segments", "wal"]);
  });
});
