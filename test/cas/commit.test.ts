/** Commits: races, lost answers, unknown outcomes, and what must not be committed. */
import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import { decodeEntry, encodeEntry } from "../../src/cas/log/entry.ts";
import type { EntryDraft } from "../../src/cas/log/entry.ts";
import { logKey } from "../../src/cas/format/ids.ts";
import { listedBackups } from "../../src/cas/log/state.ts";
import type { Site } from "../../src/sites/site.ts";
import { backupBody, idOf, nextEntry } from "./log-builder.ts";
import { commitDraft, commitNotes, interceptSite, quickClock } from "./repository-world.ts";
import { rejectionOf, seededRandom, World } from "./repository-world.ts";

const NOTE: EntryDraft = { kind: "note", body: { text: "" } };
const OPERATION = { operation: idOf("operation") };

function lostAnswer(site: Site, how: "before" | "after", times: { left: number }): Site {
  return interceptSite(site, {
    async put(key, bytes, options) {
      if (!key.startsWith("log/") || times.left === 0) return site.put(key, bytes, options);
      times.left -= 1;
      if (how === "after") await site.put(key, bytes, options);
      throw new AppError("timeout", "The answer was lost.");
    },
  });
}

describe("committing", () => {
  test("from two repositories at once loses and repeats no entry", async () => {
    using world = await World.create();
    const nodes = await Promise.all(
      [1, 2].map((seed) =>
        world.open({
          node: `node-${seed}`,
          doors: { clock: quickClock(), random: seededRandom(seed) },
          site: delayedSite(world.site, seededRandom(10 + seed)),
        }),
      ),
    );
    const won = await Promise.all(
      nodes.map(async (repository, node) => {
        const sequences: number[] = [];
        for (let index = 0; index < 50; index += 1) {
          const draft: EntryDraft = { kind: "note", body: { text: `${node} ${index}` } };
          const result = await commitDraft(repository, draft);
          if (result.outcome === "won") sequences.push(result.sequence);
        }
        return sequences;
      }),
    );
    expect(won.flat().toSorted((a, b) => a - b)).toEqual(
      Array.from({ length: 100 }, (_, index) => index + 2),
    );
    const states = await Promise.all(nodes.map((node) => node.catchUp()));
    expect(states[0]).toEqual(states[1]);
    const texts = Array.from({ length: 100 }, (_, index) => {
      const entry = decodeEntry(world.site.objects.get(logKey(index + 2))!, index + 2);
      return entry.kind === "note" ? entry.body.text : "";
    });
    expect(new Set(texts).size).toBe(100);
  });

  test("is decided again on the state that somebody else made", async () => {
    using world = await World.create();
    const [one, other] = [await world.open(), await world.open()];
    const seen: number[] = [];
    await one.commit(async (state) => {
      seen.push(state.sequence);
      if (seen.length === 1) await commitDraft(other, NOTE);
      return NOTE;
    }, OPERATION);
    expect(seen).toEqual([1, 2]);
    expect(await one.commit(() => undefined, OPERATION)).toEqual({ outcome: "nothing" });
    expect(one.state.sequence).toBe(3);
  });

  test("recognises its own entry when the acknowledgement was lost", async () => {
    for (const how of ["before", "after"] as const) {
      using world = await World.create();
      const repository = await world.open({ site: lostAnswer(world.site, how, { left: 1 }) });
      const result = await commitDraft(repository, NOTE);
      expect(result).toMatchObject({ outcome: "won", sequence: 2 });
      expect((await repository.catchUp()).sequence).toBe(2);
    }
  });

  test("that cannot be seen is unknown, journaled, and settled first at the next open", async () => {
    for (const how of ["before", "after"] as const) {
      using world = await World.create();
      const path = world.newPath();
      const catalog = world.openCatalog(path);
      const site = lostAnswer(world.site, how, { left: how === "after" ? 1 : 100 });
      const blind = interceptSite(site, {
        get: async (key) => {
          if (key === logKey(2) && world.site.objects.has(key)) {
            throw new AppError("unavailable", "The site went away.");
          }
          return site.get(key);
        },
      });
      const repository = await world.open({ site: blind, catalog });
      const draft: EntryDraft = { kind: "backup", body: backupBody("b", 1) };
      const error = await rejectionOf(commitDraft(repository, draft));
      expect(error.kind).toBe("unavailable");
      expect(error.context["outcome"]).toBe("unknown");
      expect(repository.state.sequence).toBe(1);
      catalog[Symbol.dispose]();

      const reopened = await world.open({ catalog: world.openCatalog(path) });
      expect(reopened.settled).toEqual({ sequence: 2, outcome: "won" });
      expect(listedBackups(reopened.state).map(({ name }) => name)).toEqual(["b"]);
      expect(reopened.state.sequence).toBe(2);
    }
  });

  test("of unknown outcome is lost when somebody else took the slot", async () => {
    using world = await World.create();
    const path = world.newPath();
    const catalog = world.openCatalog(path);
    const site = lostAnswer(world.site, "before", { left: 100 });
    const repository = await world.open({ site, catalog });
    await rejectionOf(commitDraft(repository, { kind: "backup", body: backupBody("b", 1) }));
    catalog[Symbol.dispose]();
    await commitNotes(await world.open(), 2);
    const reopened = await world.open({ catalog: world.openCatalog(path) });
    expect(reopened.settled).toEqual({ sequence: 2, outcome: "lost" });
    expect(listedBackups(reopened.state)).toEqual([]);
    expect(reopened.state.sequence).toBe(3);
  });

  test("refused by the site for good leaves nothing to settle", async () => {
    using world = await World.create();
    let isRefused = true;
    const site = interceptSite(world.site, {
      async put(key, bytes) {
        if (isRefused) throw new AppError("permission", "Access denied.");
        return world.site.put(key, bytes);
      },
    });
    const repository = await world.open({ site });
    expect((await rejectionOf(commitDraft(repository, NOTE))).kind).toBe("permission");
    isRefused = false;
    await repository.catchUp();
    expect(repository.settled).toBeUndefined();
    expect(repository.state.sequence).toBe(1);
  });

  test("what would be void is refused and not sent", async () => {
    using world = await World.create();
    const repository = await world.open();
    const body = { backups: [idOf("nothing")], reason: "", scope: "site" } as const;
    const error = await rejectionOf(
      commitDraft(repository, { kind: "forget", body: { ...body, backups: [...body.backups] } }),
    );
    expect(error.kind).toBe("refused");
    expect(error.message).toContain("is not listed");
    expect(world.site.objects.has(logKey(2))).toBe(false);
  });

  test("after an entry that this version does not know is refused, and listing goes on", async () => {
    using world = await World.create();
    const repository = await world.open();
    await commitDraft(repository, { kind: "backup", body: backupBody("b", 1) });
    const known = encodeEntry(nextEntry(repository.state, NOTE));
    const value = { ...JSON.parse(new TextDecoder().decode(known)), kind: "ship", body: {} };
    world.site.objects.set(logKey(3), new TextEncoder().encode(JSON.stringify(value)));
    const error = await rejectionOf(commitDraft(repository, NOTE));
    expect(error.kind).toBe("refused");
    expect(error.guidance).toContain("Upgrade");
    expect(listedBackups(await repository.catchUp())).toHaveLength(1);
    expect(world.site.objects.has(logKey(4))).toBe(false);
  });

  test("read only is refused before anything is asked", async () => {
    using world = await World.create();
    const repository = await world.open({ readOnly: true });
    expect((await rejectionOf(commitDraft(repository, NOTE))).kind).toBe("refused");
    expect((await rejectionOf(repository.putObject("pack/x", new Uint8Array(1)))).kind).toBe(
      "refused",
    );
  });
});

/** Answers after a random number of turns, so that requests of two nodes interleave. */
function delayedSite(site: Site, random: { fraction(): number }): Site {
  const delay = async (): Promise<void> => {
    for (let turns = Math.floor(random.fraction() * 8); turns > 0; turns -= 1) {
      await Promise.resolve();
    }
  };
  return interceptSite(site, {
    async get(key, options) {
      await delay();
      const bytes = await site.get(key, options);
      await delay();
      return bytes;
    },
    async put(key, bytes, options) {
      await delay();
      const outcome = await site.put(key, bytes, options);
      await delay();
      return outcome;
    },
  });
}
