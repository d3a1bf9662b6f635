/** Roles that are entered and switched by several nodes at once, and while sites are away. */
import { describe, expect, test } from "bun:test";
import { closeLog } from "../../src/cas/copy/close-log.ts";
import { commitRoles } from "../../src/cas/copy/roles.ts";
import type { EntryBodies } from "../../src/cas/log/entry.ts";
import type { Roles } from "../../src/cas/log/state.ts";
import { runLoss } from "../../src/cluster/lose-site.ts";
import { runRetirement } from "../../src/cluster/migrate-retire.ts";
import { promoteSite, updateSites } from "../../src/cluster/promote-operation.ts";
import type { SiteSet } from "../../src/cluster/site-set.ts";
import type { MemorySite } from "../../src/sites/memory-site.ts";
import type { Site } from "../../src/sites/site.ts";
import { idOf } from "../cas/log-builder.ts";
import { interceptSite, rejectionOf } from "../cas/repository-world.ts";
import { openNode } from "../cas/small-backups.ts";
import { copyBackups } from "../../src/cas/copy/copy-backups.ts";
import { contextOf, partsOf, PatientClock, rolesIn, SiteNodes } from "./site-nodes.ts";

const OPERATION = { operation: idOf("operation") };

/** Does something once, before the first put of a log entry (or of a pack) that `when` lets. */
function beforePut(
  stores: { readonly store: MemorySite; readonly prefix: string },
  when: () => boolean,
  work: () => Promise<unknown>,
): (site: MemorySite) => Site {
  let isDone = false;
  return (site) =>
    site !== stores.store
      ? site
      : interceptSite(site, {
          put: async (key, bytes, options) => {
            if (!isDone && key.startsWith(stores.prefix) && when()) {
              isDone = true;
              await work();
            }
            return await site.put(key, bytes, options);
          },
        });
}

/** A backup on the first site alone; its id. */
async function backupAt0({ world, stores }: SiteNodes): Promise<string> {
  using node = await openNode(stores[0]!, world, { node: "w" });
  return await world.backup(node, [1, 2, 3]);
}

async function stateAt(node: SiteSet, name: string) {
  return (await node.repository(name)).repository.state;
}

function raised(roles: Roles, minimum: number): EntryBodies["role"] {
  return {
    epoch: roles.epoch + 1,
    primary: roles.primary,
    sites: roles.sites.map((row) => ({ ...row, retention: { minimum } })),
    reason: `keep ${minimum}`,
  };
}

describe("the end of a site", () => {
  test("does not close one that is promoted while it is proved", async () => {
    await using sites = await SiteNodes.create(3);
    const other = sites.node("b");
    let phase = "";
    const wrap = beforePut(
      { store: sites.stores[1]!, prefix: "log/" },
      () => phase === "close",
      () => promoteSite(partsOf(other), contextOf("promote"), "s1"),
    );
    const node = sites.node("a", { wrap });
    await node.roles();
    const context = contextOf("retire", (now) => (phase = now));
    const error = await rejectionOf(runRetirement(partsOf(node), context, { site: "s1" }));
    expect(error.context).toMatchObject({ reason: "is-primary" });
    expect((await stateAt(other, "s1")).closed).toBeUndefined();
    const fresh = sites.node("c", { order: [2, 0, 1] });
    for (const one of [node, other, fresh]) expect((await one.primary()).name).toBe("s1");
  });

  test("at two sites at once leaves what only they had on the third", async () => {
    await using sites = await SiteNodes.create(3);
    const { ends, id } = await retireBoth(sites, { forgetAt0: false });
    expect(ends).toEqual(["retired", "retired"]);
    const there = (await stateAt(sites.node("c"), "s0")).backups.get(id);
    expect(there).toMatchObject({ backup: id });
    expect(there?.forgotten).toBeUndefined();
  });

  test("at two sites at once is refused by one where the third has forgotten it", async () => {
    await using sites = await SiteNodes.create(3);
    const { ends, id } = await retireBoth(sites, { forgetAt0: true });
    expect(ends).toContain("not-proved");
    expect((await stateAt(sites.node("c"), "s0")).backups.get(id)?.forgotten).toBeDefined();
  });

  /** Retires s1 and s2, which have a backup that s0 does not list; both close before either goes on. */
  async function retireBoth(
    sites: SiteNodes,
    how: { readonly forgetAt0: boolean },
  ): Promise<{ readonly ends: readonly string[]; readonly id: string }> {
    const { world, stores } = sites;
    const [a, b, c] = await Promise.all(
      stores.map((store, index) => openNode(store, world, { node: `w${index}` })),
    );
    const copy = { concurrency: 2, readBack: true, keepEveryBytes: 1e6, ...OPERATION };
    const id = await world.backup(how.forgetAt0 ? a! : b!, [1, 2, 3]);
    if (how.forgetAt0) await copyBackups(a!, b!, copy);
    await copyBackups(b!, c!, copy);
    if (how.forgetAt0) await world.forget(a!, id);
    await sites.node("z").roles();
    let waiting = 0;
    const both = Promise.withResolvers<void>();
    const retire = async (index: number): Promise<string> => {
      let phase = "";
      const wrap = beforePut(
        { store: stores[index]!, prefix: "log/" },
        () => phase === "close",
        async () => {
          waiting += 1;
          if (waiting === 2) both.resolve();
          await both.promise;
        },
      );
      const node = sites.node(`n${index}`, { wrap });
      const context = contextOf(`retire ${index}`, (now) => (phase = now));
      const ending = runRetirement(partsOf(node), context, { site: `s${index}` });
      return await ending.then(
        () => "retired",
        (error: { context: { reason: string } }) => error.context.reason,
      );
    };
    const ends = await Promise.all([retire(1), retire(2)]);
    for (const one of [a!, b!, c!]) one[Symbol.dispose]();
    return { ends, id };
  }
});

describe("a primary whose log has ended", () => {
  test("is not replaced by the first site of the configuration, and another is promoted", async () => {
    await using sites = await SiteNodes.create(3);
    const node = sites.node("a");
    const { roles } = await node.roles();
    const s1 = await node.repository("s1");
    // As a program before this rule did it: no log but that of the site knows.
    await s1.repository.commit(
      () => ({ kind: "closed", body: { successor: roles!.primary, reason: "" } }),
      OPERATION,
    );
    const rows = roles!.sites.map((row) => ({
      ...row,
      role: row.site === s1.id ? ("primary" as const) : ("mirror" as const),
    }));
    const body = { epoch: 2, primary: s1.id, sites: rows, reason: "" };
    await commitRoles((await node.repository("s2")).repository, body, OPERATION);
    const refused = await rejectionOf(node.primary());
    expect(refused.message).toContain("The log of the primary, s1 (memory:s1), has ended.");
    const closing = { successor: roles!.primary, reason: "again", ...OPERATION };
    const s0 = (await node.repository("s0")).repository;
    expect(
      (await rejectionOf(closeLog(s0, { ...closing, successor: s1.id }))).context,
    ).toMatchObject({ reason: "is-primary" });
    const result = await promoteSite(partsOf(node), contextOf("promote"), "s2");
    expect(result).toMatchObject({ former: "s1", epoch: 3 });
    expect(rolesIn(await node.roles())).toEqual({ s0: "mirror", s1: "closed", s2: "primary" });
    expect((await sites.node("c").primary()).name).toBe("s2");
  });
});

describe("a promotion", () => {
  test("keeps what somebody else enters while it copies", async () => {
    await using sites = await SiteNodes.create(2);
    const other = sites.node("b", { retention: { minimum: 9 } });
    let update: unknown;
    const node = await promoting(sites, async () => {
      update = await updateSites(partsOf(other), contextOf("update"));
    });
    const result = await promoteSite(partsOf(node), contextOf("promote"), "s1");
    expect(update).toEqual({ changed: ["s0", "s1"] });
    expect(result).toMatchObject({ former: "s0", epoch: 3, missing: [] });
    const { roles } = await node.look();
    expect(roles?.sites.map(({ retention }) => retention)).toEqual([
      { minimum: 9 },
      { minimum: 9 },
    ]);
    expect((await other.primary()).name).toBe("s1");
  });

  test("is refused where another site was promoted while it copied", async () => {
    await using sites = await SiteNodes.create(3);
    const other = sites.node("b");
    const node = await promoting(sites, () =>
      promoteSite(partsOf(other), contextOf("other"), "s2"),
    );
    const promotion = promoteSite(partsOf(node), contextOf("promote"), "s1");
    expect((await rejectionOf(promotion)).context).toMatchObject({ primary: "s2" });
    expect(rolesIn(await node.look())).toEqual({ s0: "mirror", s1: "mirror", s2: "primary" });
  });

  test("of a site whose primary is silent holds when that returns with newer roles", async () => {
    await using sites = await SiteNodes.create(2);
    const [node, other] = [sites.node("a"), sites.node("b")];
    await node.roles();
    await other.roles();
    sites.down.add("s1");
    for (const minimum of [4, 5, 6]) {
      const { roles } = await node.look();
      await node.enterRoles(raised(roles!, minimum));
    }
    sites.down.clear();
    sites.down.add("s0");
    const result = await promoteSite(partsOf(other), contextOf("promote"), "s1");
    expect(result.epoch).toBe(1001);
    sites.down.clear();
    for (const one of [other, node]) {
      expect(rolesIn(await one.roles())).toEqual({ s0: "mirror", s1: "primary" });
    }
    expect((await stateAt(sites.node("c"), "s0")).roles?.epoch).toBe(1002);
  });

  /** A node that copies a backup to s1, and meanwhile something happens. */
  async function promoting(sites: SiteNodes, work: () => Promise<unknown>): Promise<SiteSet> {
    await sites.node("z").roles();
    await backupAt0(sites);
    const place = { store: sites.stores[1]!, prefix: "pack/" };
    return sites.node("a", { wrap: beforePut(place, () => true, work) });
  }
});

describe("entries of one epoch and one primary", () => {
  test("stop at the primary, whose log takes the first", async () => {
    await using sites = await SiteNodes.create(3);
    const other = sites.node("b");
    let later: boolean | undefined;
    // The first is at s0, and on its way to s1.
    const node = sites.node("a", {
      wrap: beforePut(
        { store: sites.stores[1]!, prefix: "log/" },
        () => true,
        async () => {
          later = await other.enterRoles(raised(other.last!.roles!, 9));
        },
      ),
    });
    await other.roles();
    const { roles } = await node.look();
    await node.enterRoles(raised(roles!, 3));
    expect(later).toBe(true);
    const fresh = sites.node("c");
    for (const name of ["s0", "s1", "s2"]) {
      expect((await stateAt(fresh, name)).roles?.reason).toBe("keep 3");
    }
  });

  test("that are apart become the one in the log of the primary, with the next epoch", async () => {
    await using sites = await SiteNodes.create(3);
    const node = sites.node("a");
    const { roles } = await node.roles();
    for (const [name, minimum] of [
      ["s1", 7],
      ["s2", 8],
      ["s0", 3],
    ] as const) {
      const { repository } = await node.repository(name);
      await commitRoles(repository, raised(roles!, minimum), OPERATION);
    }
    for (const one of [sites.node("b", { order: [2, 1, 0] }), node]) {
      expect((await one.roles()).roles).toMatchObject({ epoch: 3, reason: "keep 3" });
    }
    for (const name of ["s0", "s1", "s2"]) {
      const state = await stateAt(node, name);
      expect(state.roles).toMatchObject({
        epoch: 3,
        sites: [{ retention: { minimum: 3 } }, {}, {}],
      });
    }
  });
});

test("a primary that was waited for is believed only if its own log says so", async () => {
  await using sites = await SiteNodes.create(3);
  const node = sites.node("a");
  const { roles } = await node.roles();
  const rows = roles!.sites.map(
    (row) =>
      ({
        ...row,
        role: row.name === "s1" ? "primary" : row.name === "s0" ? "mirror" : "archive",
      }) as const,
  );
  const primary = rows.find(({ name }) => name === "s1")!.site;
  await node.enterRoles({ epoch: 2, primary, sites: rows, reason: "" });
  const slow = Promise.withResolvers<void>();
  const wrap = (site: MemorySite): Site =>
    site === sites.stores[2]
      ? site
      : interceptSite(site, {
          get: async (key, options) => {
            await slow.promise;
            return await site.get(key, options);
          },
        });
  const clock = new PatientClock();
  const fresh = sites.node("fresh", { wrap, clock });
  const found = fresh.primary();
  while (fresh.last === undefined) {
    if (fresh.opened.length > 0) clock.expire();
    await Bun.sleep(1);
  }
  // The archive speaks of the first primary.
  expect(rolesIn(fresh.last)).toMatchObject({ s0: "primary" });
  slow.resolve();
  expect((await found).name).toBe("s1");
});

describe("a site that is gone for good", () => {
  test("is left out by a node that does not configure it, and that says that it cannot know what is lost", async () => {
    await using sites = await SiteNodes.create(3);
    using writer = await openNode(sites.stores[2]!, sites.world, { node: "w" });
    const id = await sites.world.backup(writer, [1, 2, 3]);
    const former = sites.node("a");
    await former.roles();
    sites.down.add("s2");
    const node = sites.node("b", { order: [0, 1] });
    expect(rolesIn(await node.look())).toMatchObject({ s2: "mirror" });
    expect(await runLoss(partsOf(node), contextOf("loss"), "s2")).toMatchObject({ isKnown: false });
    expect(rolesIn(await node.look())).toEqual({ s0: "primary", s1: "mirror" });
    const again = await rejectionOf(runLoss(partsOf(former), contextOf("again"), "s2"));
    expect(again.kind).toBe("not-found");
    expect(former.stateOf({ id: undefined, name: "s2" })?.backups.has(id)).toBe(true);
  });

  test("is left out where it is configured still, and joins as a mirror if it comes back", async () => {
    await using sites = await SiteNodes.create(3);
    using writer = await openNode(sites.stores[2]!, sites.world, { node: "w" });
    const id = await sites.world.backup(writer, [1, 2, 3]);
    const node = sites.node("a");
    await node.roles();
    sites.down.add("s2");
    const plain = runRetirement(partsOf(node), contextOf("retire"), { site: "s2" });
    expect((await rejectionOf(plain)).guidance).toContain("site retire s2 --lost");
    const result = await runLoss(partsOf(node), contextOf("loss"), "s2");
    expect(result).toMatchObject({ lost: { name: "s2" }, isKnown: true, missing: [{ id }] });
    expect((await node.look()).roles?.sites.map(({ name }) => name)).toEqual(["s0", "s1"]);
    sites.down.clear();
    expect(rolesIn(await node.roles())).toMatchObject({ s2: "mirror" });
  });

  test("is neither the primary nor one that answers", async () => {
    await using sites = await SiteNodes.create(2);
    const node = sites.node("a");
    await node.roles();
    const reasonOf = async (name: string) =>
      (await rejectionOf(runLoss(partsOf(node), contextOf("loss"), name))).context["reason"];
    expect(await reasonOf("s1")).toBe("answers");
    sites.down.add("s0");
    expect(await reasonOf("s0")).toBe("is-primary");
    const promotion = promoteSite(partsOf(node), contextOf("promote"), "s0");
    const error = await rejectionOf(promotion);
    expect(error.message).toContain("is the primary, and does not answer");
    expect(error.guidance).toContain("astacus site promote s1");
  });
});
