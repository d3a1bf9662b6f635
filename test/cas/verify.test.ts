/** Verification: every fault is found, named by its object, with what it hits; and none is invented. */
import { describe, expect, test } from "bun:test";
import { logCopyKey, manifestKey } from "../../src/cas/format/ids.ts";
import { segmentKey } from "../../src/cas/format/index-segment.ts";
import { packKey } from "../../src/cas/format/pack.ts";
import { entryHash } from "../../src/cas/log/entry.ts";
import type { BackupRecord } from "../../src/cas/log/state.ts";
import type { VerifyReport } from "../../src/cas/read/verify.ts";
import { verifyBackup, verifyRepository } from "../../src/cas/read/verify.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import { noise } from "./noise.ts";
import type { TestFile } from "./repository-builder.ts";
import { RepositoryBuilder } from "./repository-builder.ts";

const FIRST: readonly TestFile[] = [
  { path: "d" },
  { path: "d/large", content: noise(20_000, 1), isTree: true },
  { path: "d/small", content: noise(500, 2) },
  { path: "shared", content: noise(3000, 3) },
];
const SECOND: readonly TestFile[] = [...FIRST, { path: "new", content: noise(4000, 4) }];

type World = Disposable & {
  readonly builder: RepositoryBuilder;
  readonly objects: Map<string, Uint8Array>;
  readonly backups: readonly BackupRecord[];
  verify(deep: boolean): Promise<VerifyReport>;
  /** Keys of packs of a kind, in the order in which they were stored. */
  packs(kind: "data" | "metadata"): string[];
};

async function world(): Promise<World> {
  const site = new MemorySite();
  const builder = await RepositoryBuilder.create({ site });
  const backups = [
    await builder.backup("first", { a: { data: FIRST } }),
    await builder.backup("second", { a: { data: SECOND }, b: { data: FIRST } }),
  ];
  const { repository } = builder;
  return {
    builder,
    objects: site.objects,
    backups,
    verify: async (deep) => {
      return await verifyRepository({ repository, source: builder.source(), deep });
    },
    packs: (kind) =>
      [...repository.index.packs()]
        .filter((pack) => pack.kind === kind)
        .toSorted((one, other) => one.birth - other.birth)
        .map(({ id, birth }) => packKey(id, birth)),
    [Symbol.dispose]: () => builder[Symbol.dispose](),
  };
}

function flip(objects: Map<string, Uint8Array>, key: string, at: number): void {
  const bytes = objects.get(key)!;
  const offset = at < 0 ? bytes.length + at : at;
  bytes[offset] = bytes[offset]! ^ 0x10;
}

describe.each([true, false])("with deep %p", (deep) => {
  test("finds nothing where nothing is wrong", async () => {
    using at = await world();
    const report = await at.verify(deep);
    expect(report).toMatchObject({ ok: true, problems: [], problemCount: 0, deep });
    expect(report.backups).toMatchObject([
      { name: "first", ok: true, files: 3, bytes: 23_500, filesLost: 0 },
      { name: "second", ok: true, files: 7, bytes: 51_000, filesLost: 0 },
    ]);
    expect(report.packs).toBe(at.packs("data").length + at.packs("metadata").length);
  });

  test("finds a missing pack, and the files of each backup that need it", async () => {
    using at = await world();
    const [key = ""] = at.packs("data").toReversed();
    at.objects.delete(key);
    const report = await at.verify(deep);
    expect(report.problems).toEqual([
      {
        object: key,
        fault: "missing",
        message: `${key} is missing.`,
        backups: ["second"],
        files: ["a/data/new"],
        fileCount: 1,
      },
    ]);
    expect(report.backups).toMatchObject([{ ok: true }, { ok: false, filesLost: 1 }]);
  });

  test("finds a pack that became shorter", async () => {
    using at = await world();
    const [key = ""] = at.packs("data");
    at.objects.set(key, at.objects.get(key)!.slice(0, -1));
    const report = await at.verify(deep);
    expect(report.problems).toMatchObject([{ object: key, fault: "damaged" }]);
    // The frames are all there; it is the directory that was cut.
    expect(report.problems[0]?.fileCount).toBe(0);
  });

  test("finds a missing manifest", async () => {
    using at = await world();
    const { id, birth } = at.backups[0]!.manifest;
    at.objects.delete(manifestKey(id, birth));
    const report = await at.verify(deep);
    expect(report.problems).toMatchObject([
      { object: manifestKey(id, birth), backups: ["first"], fileCount: 3 },
    ]);
  });

  test("finds missing parts of listings and lists, and goes on beside them", async () => {
    using at = await world();
    const keys = at.packs("metadata");
    for (const key of keys) at.objects.delete(key);
    const report = await at.verify(deep);
    expect(report.problems.map(({ object }) => object).toSorted()).toEqual(keys.toSorted());
    expect(report.backups).toMatchObject([{ ok: false }, { ok: false }]);
  });

  test("finds a missing segment, the header and the last entry", async () => {
    using at = await world();
    const { state } = at.builder.repository;
    const keys = [...state.segments.values()].map(({ id, birth }) => segmentKey(id, birth));
    for (const key of [...keys, "astacus-repository", "log/000000000003"]) at.objects.delete(key);
    const report = await at.verify(deep);
    expect(report.problems.map(({ object }) => object).toSorted()).toEqual(
      ["astacus-repository", ...keys, "log/000000000003"].toSorted(),
    );
  });

  test("throws where the site cannot be asked: that is no damage", async () => {
    using at = await world();
    const stop = new AbortController();
    stop.abort();
    const { repository } = at.builder;
    const options = { repository, source: at.builder.source(), deep, signal: stop.signal };
    const error = await verifyRepository(options).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(Error);
  });
});

test("finds a chunk that the lists of the backup do not name", async () => {
  using builder = await RepositoryBuilder.create();
  await builder.backup("first", { a: { data: FIRST } });
  const body = await builder.store("second", { a: { data: SECOND } });
  const first = builder.repository.state.backups.values().next().value!;
  const wrong = { ...body, lists: first.lists };
  await builder.repository.commit(() => ({ kind: "backup", body: wrong }), {
    operation: "0".repeat(32),
  });
  const second = builder.repository.state.backups.get(body.backup)!;
  const { repository } = builder;
  const source = builder.source();
  const report = await verifyBackup({ repository, source, backup: second, deep: false });
  expect(report.problems).not.toEqual([]);
  expect(new Set(report.problems.map(({ fault }) => fault))).toEqual(new Set(["unlisted"]));
  expect(report.backups).toMatchObject([{ name: "second", ok: false, filesLost: 0 }]);
});

test("finds a retired pack that a listed backup needs", async () => {
  using at = await world();
  const { repository } = at.builder;
  const [pack] = repository.index.packs();
  const body = { packs: [pack!.id] };
  await repository.commit(() => ({ kind: "retire", body }), { operation: "0".repeat(32) });
  const report = await at.verify(false);
  const object = packKey(pack!.id, pack!.birth);
  expect(report.problems).toMatchObject([{ object, fault: "retired" }]);
});

describe("deep alone", () => {
  test("finds a flipped bit in a frame, and the files that it takes", async () => {
    using at = await world();
    const [key = ""] = at.packs("data");
    flip(at.objects, key, 0);
    expect(await at.verify(false)).toMatchObject({ ok: true });
    const report = await at.verify(true);
    expect(report.problems).toMatchObject([
      {
        object: key,
        fault: "damaged",
        backups: ["first", "second"],
        files: ["a/data/d/large", "b/data/d/large"],
        fileCount: 3,
      },
    ]);
  });

  test("finds a flipped bit in a directory, which takes no file", async () => {
    using at = await world();
    const [key = ""] = at.packs("data");
    flip(at.objects, key, -30);
    const report = await at.verify(true);
    expect(report.problems).toMatchObject([{ object: key, fault: "damaged", fileCount: 0 }]);
  });

  test("finds an old entry and a segment that changed", async () => {
    using at = await world();
    const [segment] = at.builder.repository.state.segments.values();
    const key = segmentKey(segment!.id, segment!.birth);
    flip(at.objects, key, -1);
    flip(at.objects, "log/000000000002", 300);
    const report = await at.verify(true);
    expect(report.problems.map(({ object }) => object)).toEqual(["log/000000000002", key]);
  });

  test("takes an entry that was put back as a copy for what it is, but for the last one", async () => {
    using at = await world();
    const [second, last] = ["log/000000000002", "log/000000000003"] as const;
    for (const key of [second, last]) {
      const bytes = at.objects.get(key)!;
      at.objects.set(logCopyKey(entryHash(bytes)), bytes);
      at.objects.delete(key);
      const report = await at.verify(true);
      // Nobody would look for what nothing follows.
      expect(report.problems.map(({ object }) => object)).toEqual(key === last ? [last] : []);
      at.objects.set(key, bytes);
    }
  });

  test("reads each pack once, however many backups use it", async () => {
    using at = await world();
    const { requests } = at.builder.site as MemorySite;
    const objects = at.objects.size;
    const before = { ...requests };
    await at.verify(true);
    const gets = requests.get - before.get;
    // Tree nodes are read through ranges besides.
    expect(gets).toBeLessThan(objects + at.packs("metadata").length * 8);
    expect(requests.list - before.list).toBe(0);
  });
});

test("what is wrong with the site's credentials is not taken for damage", async () => {
  using at = await world();
  const { repository } = at.builder;
  const fetch = async (): Promise<Uint8Array> => {
    throw Object.assign(new Error("no"), { name: "AbortError" });
  };
  const error = await verifyRepository({ repository, source: { fetch }, deep: false }).catch(
    (thrown: unknown) => thrown,
  );
  expect(error).toHaveProperty("name", "AbortError");
});
