/** Repositories: opening, catching up, index and catalog, and what must be refused. */
import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import { entryHash } from "../../src/cas/log/entry.ts";
import type { EntryDraft } from "../../src/cas/log/entry.ts";
import { HEADER_KEY } from "../../src/cas/format/header.ts";
import { checkpointKey, logCopyKey, logKey } from "../../src/cas/format/ids.ts";
import { segmentKey } from "../../src/cas/format/index-segment.ts";
import { Repository } from "../../src/cas/log/repository.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import { backupBody, idOf } from "./log-builder.ts";
import { commitDraft, commitNotes, interceptSite } from "./repository-world.ts";
import { CHUNKER, rejectionOf, World } from "./repository-world.ts";
import { makeSegment, packId } from "./segment-builder.ts";

const NOTE: EntryDraft = { kind: "note", body: { text: "" } };
const OPERATION = { operation: idOf("operation") };

describe("opening", () => {
  test("a site without a header is refused, with what to look at", async () => {
    using world = new World();
    const error = await rejectionOf(world.open());
    expect(error.kind).toBe("refused");
    expect(error.guidance).toContain("mounted");
    expect(error.guidance).toContain("bucket");
    expect(error.guidance).toContain("astacus site init");
    expect(world.site.objects.size).toBe(0);
  });

  test("a header of a newer version is refused, with the advice to upgrade", async () => {
    using world = await World.create();
    const header = JSON.parse(new TextDecoder().decode(world.site.objects.get(HEADER_KEY)));
    const newer = { ...header, version: 2, anything: "else" };
    world.site.objects.set(HEADER_KEY, new TextEncoder().encode(JSON.stringify(newer)));
    const error = await rejectionOf(world.open());
    expect(error.kind).toBe("refused");
    expect(error.guidance).toContain("Upgrade");
  });

  test("a header from before the first release is refused, and not called damaged", async () => {
    using world = await World.create();
    const header = JSON.parse(new TextDecoder().decode(world.site.objects.get(HEADER_KEY)));
    const older = { ...header, version: 0 };
    world.site.objects.set(HEADER_KEY, new TextEncoder().encode(JSON.stringify(older)));
    const error = await rejectionOf(world.open());
    expect(error.kind).toBe("refused");
    expect(error.guidance).toContain("new repository");
  });

  test("a header that entry 1 does not know is damage", async () => {
    using world = await World.create();
    const text = new TextDecoder().decode(world.site.objects.get(HEADER_KEY));
    const changed = text.replace("262144", "262145");
    world.site.objects.set(HEADER_KEY, new TextEncoder().encode(changed));
    expect((await rejectionOf(world.open())).kind).toBe("damaged");
  });

  test("another site than the configuration or the catalog knows is refused, naming both", async () => {
    using world = await World.create();
    const catalog = world.openCatalog();
    const { header } = await world.open({ catalog });
    const site = new MemorySite("other");
    const other = await Repository.init(site, { doors: world.doors, chunker: CHUNKER });
    const expected = { repository: header.repository, site: header.site };
    for (const error of [
      await rejectionOf(world.open({ site, catalog })),
      await rejectionOf(world.open({ site, expected })),
    ]) {
      expect(error.kind).toBe("refused");
      expect(error.message).toContain(header.repository);
      expect(error.message).toContain(other.repository);
    }
    const mirror = new MemorySite("mirror");
    const { doors } = world;
    const { repository } = header;
    const second = await Repository.init(mirror, { doors, chunker: CHUNKER, repository });
    const error = await rejectionOf(world.open({ site: mirror, catalog }));
    expect(error.message).toContain(header.site);
    expect(error.message).toContain(second.site);
  });

  test("a second init is refused, and one that was interrupted is finished", async () => {
    using world = await World.create();
    const { doors } = world;
    const again = (): Promise<unknown> => Repository.init(world.site, { doors, chunker: CHUNKER });
    expect((await rejectionOf(again())).kind).toBe("conflict");
    world.site.objects.delete(logKey(1));
    expect((await rejectionOf(world.open())).guidance).toContain("run it again");
    await again();
    expect((await world.open()).state.sequence).toBe(1);
  });

  test("an init whose header was removed does not replace the log that is there", async () => {
    using world = await World.create();
    world.site.objects.delete(HEADER_KEY);
    const { doors } = world;
    const init = Repository.init(world.site, { doors, chunker: CHUNKER });
    expect((await rejectionOf(init)).kind).toBe("conflict");
  });
});

describe("catching up", () => {
  test("with nothing new costs three requests, in the leanest setting, and no LIST", async () => {
    using world = await World.create();
    const repository = await world.open({ tip: { checkKnown: false } });
    await commitNotes(repository, 3);
    const before = { ...world.site.requests };
    await repository.catchUp();
    const after = world.site.requests;
    expect({ ...after, get: after.get - before.get }).toEqual({ ...before, get: 3 });
    expect(after.list).toBe(0);
  });

  test("starts at the newest checkpoint, and comes to the same state without it", async () => {
    using world = await World.create();
    const writer = await world.open();
    await commitNotes(writer, 140);
    await commitDraft(writer, { kind: "backup", body: backupBody("b", 1) });
    const named = writer.state.checkpoint;
    expect(named?.sequence).toBeGreaterThan(100);
    const before = world.site.requests.get;
    const fresh = await world.open();
    expect(world.site.requests.get - before).toBeLessThan(60);
    expect(fresh.state).toEqual(writer.state);
    world.site.objects.delete(checkpointKey(named!.sequence, named!.hash));
    expect((await world.open()).state).toEqual(writer.state);
    world.site.objects.set(checkpointKey(named!.sequence, named!.hash), new Uint8Array(10));
    expect((await world.open()).state).toEqual(writer.state);
  });

  test("a log that is shorter than this node has seen is refused", async () => {
    using world = await World.create();
    const repository = await world.open();
    await commitNotes(repository, 5);
    const newer = new Map(world.site.objects);
    world.site.objects.delete(logKey(6));
    const error = await rejectionOf(repository.catchUp());
    expect(error.kind).toBe("refused");
    expect(error.message).toContain("ends before entry 6");
    expect((await rejectionOf(commitDraft(repository, NOTE))).kind).toBe("refused");
    expect(world.site.objects.has(logKey(7))).toBe(false);
    for (const [key, bytes] of newer) world.site.objects.set(key, bytes);
    expect((await repository.catchUp()).sequence).toBe(6);
  });

  test("a log with another entry than this node has seen is refused, also after a restart", async () => {
    using world = await World.create();
    const path = world.newPath();
    const catalog = world.openCatalog(path);
    const repository = await world.open({ catalog });
    const copy = world.copySite();
    await commitNotes(repository, 1);
    const other = await world.open({ site: copy });
    await commitNotes(other, 3);
    catalog[Symbol.dispose]();
    const error = await rejectionOf(world.open({ site: copy, catalog: world.openCatalog(path) }));
    expect(error.kind).toBe("refused");
    expect(error.message).toContain("another entry");
  });

  test("stops at a lost entry, and goes on once its copy was put back from a catalog", async () => {
    using world = await World.create();
    const writer = await world.open();
    const behind = await world.open();
    await commitNotes(writer, 5);
    const lost = world.site.objects.get(logKey(3))!;
    world.site.objects.delete(logKey(3));
    const error = await rejectionOf(behind.catchUp());
    expect(error.kind).toBe("damaged");
    expect(error.guidance).toContain(logCopyKey(entryHash(lost)));
    expect((await rejectionOf(commitDraft(behind, NOTE))).kind).toBe("damaged");
    expect(await writer.mendLog(3)).toBe(true);
    expect(await behind.catchUp()).toEqual(writer.state);
    expect((await commitDraft(behind, NOTE)).outcome).toBe("won");
  });

  test("goes on after an interruption in the middle of a long log", async () => {
    using world = await World.create();
    const writer = await world.open({ tip: { checkKnown: false } });
    const path = world.newPath();
    const early = world.openCatalog(path);
    await world.open({ catalog: early });
    early[Symbol.dispose]();
    await commitNotes(writer, 600);
    let left = 400;
    const failing = interceptSite(world.site, {
      async get(key) {
        left -= 1;
        if (left === 0) throw new AppError("unavailable", "The site went away.");
        return world.site.get(key);
      },
    });
    const catalog = world.openCatalog(path);
    expect((await rejectionOf(world.open({ site: failing, catalog }))).kind).toBe("unavailable");
    expect((await world.open({ catalog })).state).toEqual(writer.state);
  });
});

describe("the index of chunks", () => {
  test("follows keep, merge and delete in every catalog alike", async () => {
    using world = await World.create();
    const [one, other] = [await world.open(), await world.open()];
    const [first, second] = [makeSegment(["p", "q"], 1), makeSegment(["r"], 1)];
    for (const { ref, bytes } of [first, second]) {
      await one.putObject(segmentKey(ref.id, ref.birth), bytes);
    }
    await commitDraft(one, { kind: "keep", body: { segments: [first.ref, second.ref] } });
    await commitDraft(one, { kind: "drop", body: { keeps: [OPERATION.operation], pins: [] } });
    await other.catchUp();
    expect(one.index.findPack(first.packs[0]!.id)).toEqual(
      other.index.findPack(first.packs[0]!.id),
    );
    expect(other.index.countChunks()).toBe(3);
    const gone = packId("p");
    await commitDraft(one, { kind: "retire", body: { packs: [gone] } });
    expect(one.index.findPack(gone)).toBeDefined();
    await commitDraft(one, { kind: "delete", body: { packs: [gone], backups: [], floor: 1 } });
    const names = ["q", "r"];
    const merged = makeSegment(names, 1, one.state.sequence);
    await one.putObject(segmentKey(merged.ref.id, merged.ref.birth), merged.bytes);
    const merge = { inputs: [first.ref.id, second.ref.id], output: merged.ref, dropped: [gone] };
    await commitDraft(one, { kind: "merge", body: merge });
    await other.catchUp();
    const fresh = await world.open();
    for (const { index } of [one, other, fresh]) {
      expect(index.findPack(gone)).toBeUndefined();
      expect([...index.packs()].map(({ id }) => id).toSorted()).toEqual(
        merged.packs.map(({ id }) => id).toSorted(),
      );
      expect(index.listSegments()).toEqual([merged.ref.id]);
    }
  });

  test("a deleted pack that a segment still mentions is live for nobody", async () => {
    using world = await World.create();
    const one = await world.open();
    const { ref, bytes } = makeSegment(["p", "q"], 1);
    await one.putObject(segmentKey(ref.id, ref.birth), bytes);
    await commitDraft(one, { kind: "keep", body: { segments: [ref] } });
    const gone = packId("p");
    await commitDraft(one, { kind: "retire", body: { packs: [gone] } });
    await commitDraft(one, { kind: "delete", body: { packs: [gone], backups: [], floor: 1 } });
    for (const repository of [one, await world.open()]) {
      expect(repository.index.findPack(gone)).toBeUndefined();
      expect(repository.index.findPack(packId("q"))).toBeDefined();
    }
  });

  test("a segment born before its packs were is committed with their births, and void if they are gone", async () => {
    using world = await World.create();
    const repository = await world.open();
    await commitNotes(repository, 5);
    const { ref, bytes } = makeSegment(["p"], 2, 6);
    await repository.putObject(segmentKey(ref.id, ref.birth), bytes);
    await commitDraft(repository, { kind: "delete", body: { packs: [], backups: [], floor: 2 } });
    const keep: EntryDraft = { kind: "keep", body: { segments: [ref] } };
    const error = await rejectionOf(commitDraft(repository, keep));
    expect(error.message).toContain("birth 2, at or below the floor 2");
  });

  test("a segment that is not at the site is not committed", async () => {
    using world = await World.create();
    const repository = await world.open();
    const { ref } = makeSegment(["p"], 1);
    const keep: EntryDraft = { kind: "keep", body: { segments: [ref] } };
    expect((await rejectionOf(commitDraft(repository, keep))).kind).toBe("damaged");
  });

  test("a segment that was damaged later is named as a problem, and the rest goes on", async () => {
    using world = await World.create();
    const one = await world.open();
    const segments = [makeSegment(["p"], 1), makeSegment(["q"], 1)];
    for (const { ref, bytes } of segments) {
      await one.putObject(segmentKey(ref.id, ref.birth), bytes);
    }
    const refs = segments.map(({ ref }) => ref);
    await commitDraft(one, { kind: "keep", body: { segments: refs } });
    const [broken] = segments;
    const key = segmentKey(broken!.ref.id, 1);
    world.site.objects.set(key, broken!.bytes.slice(1));
    const fresh = await world.open();
    expect([...fresh.indexProblems.keys()]).toEqual([broken!.ref.id]);
    expect(fresh.index.findPack(segments[1]!.packs[0]!.id)).toBeDefined();
    world.site.objects.set(key, broken!.bytes);
    await fresh.catchUp();
    expect(fresh.indexProblems.size).toBe(0);
    expect(fresh.index.findPack(broken!.packs[0]!.id)).toBeDefined();
  });
});

describe("the catalog", () => {
  test("may be removed at any time", async () => {
    using world = await World.create();
    const repository = await world.open();
    const { ref, bytes, packs } = makeSegment(["p"], 1);
    await repository.putObject(segmentKey(ref.id, ref.birth), bytes);
    await commitDraft(repository, { kind: "keep", body: { segments: [ref] } });
    await commitNotes(repository, 70);
    const fresh = await world.open();
    expect(fresh.state).toEqual(repository.state);
    expect(fresh.index.findPack(packs[0]!.id)).toEqual(repository.index.findPack(packs[0]!.id));
  });

  test("gives the same state back after a restart, with one round of requests", async () => {
    using world = await World.create();
    const path = world.newPath();
    const catalog = world.openCatalog(path);
    const repository = await world.open({ catalog });
    await commitNotes(repository, 130);
    catalog[Symbol.dispose]();
    const before = world.site.requests.get;
    const reopened = await world.open({ catalog: world.openCatalog(path) });
    expect(reopened.state).toEqual(repository.state);
    expect(reopened.rebuilt).toBeUndefined();
    expect(world.site.requests.get - before).toBe(5);
  });

  test("with a damaged row in its copy of the log is built again", async () => {
    const damages = [
      "UPDATE log_entry SET bytes = x'7b7d' WHERE sequence = 80",
      "UPDATE log_snapshot SET bytes = x'00'",
      "UPDATE log_binding SET sequence = sequence - 1",
      "UPDATE log_binding SET hash = replace(hash, substr(hash, 1, 1), 'x')",
      "UPDATE log_binding SET header = replace(header, substr(header, 1, 1), 'x')",
      "UPDATE log_binding SET site = replace(site, substr(site, 1, 1), 'x')",
      "UPDATE log_binding SET indexed = indexed + 1",
      "DELETE FROM log_entry WHERE sequence = 80",
    ];
    for (const damage of damages) {
      using world = await World.create();
      const path = world.newPath();
      const catalog = world.openCatalog(path);
      const repository = await world.open({ catalog });
      await commitNotes(repository, 80);
      catalog.database.run(damage);
      catalog[Symbol.dispose]();
      const reopened = await world.open({ catalog: world.openCatalog(path) });
      expect(reopened.rebuilt).toContain("catalog is damaged");
      expect(reopened.state).toEqual(repository.state);
    }
  });

  test("with a damaged row of a chunk says so at the hit, and is right after a rebuild", async () => {
    using world = await World.create();
    const catalog = world.openCatalog();
    const repository = await world.open({ catalog });
    const { ref, bytes, chunks } = makeSegment(["p", "q"], 1);
    await repository.putObject(segmentKey(ref.id, ref.birth), bytes);
    await commitDraft(repository, { kind: "keep", body: { segments: [ref] } });
    const [id] = chunks;
    const places = repository.index.find(id!);
    expect(places).toHaveLength(1);
    catalog.database.query("UPDATE index_chunk SET length = length - 1 WHERE id = ?").run(id!);
    expect(() => repository.index.find(id!)).toThrow("wrong checksum");
    await repository.rebuildIndex();
    expect(repository.index.find(id!)).toEqual(places);
  });
});

describe("an object that is named by its content", () => {
  test("is acknowledged by the same bytes under its name, and by no others", async () => {
    using world = await World.create();
    const repository = await world.open();
    await repository.putObject("pack/aa/x-1", Uint8Array.of(1, 2));
    await repository.putObject("pack/aa/x-1", Uint8Array.of(1, 2));
    for (const other of [Uint8Array.of(1, 3), Uint8Array.of(1)]) {
      const error = await rejectionOf(repository.putObject("pack/aa/x-1", other));
      expect(error.kind).toBe("conflict");
    }
    const site = interceptSite(world.site, {
      head: async (key) => (key.startsWith("pack/") ? { sizeBytes: 2 } : world.site.head(key)),
    });
    const blind = await world.open({ site });
    await blind.putObject("pack/aa/x-1", Uint8Array.of(1, 2));
    const error = await rejectionOf(blind.putObject("pack/aa/x-1", Uint8Array.of(1, 3)));
    expect(error.kind).toBe("conflict");
  });
});
