/** What a migration does to the roles: decided alike by all who see the same. */
import { describe, expect, test } from "bun:test";
import type { Roles } from "../../src/cas/log/state.ts";
import { joinRoles, leaveRoles, switchRoles } from "../../src/cluster/migrate-roles.ts";
import type { SiteRole } from "../../src/cluster/site-roles.ts";

const from = { site: "0".repeat(32), name: "old", location: "memory:old" };
const to = { site: "1".repeat(32), name: "new", location: "memory:new" };
const third = { site: "2".repeat(32), name: "third", location: "memory:third" };

function roles(primary: typeof from, others: readonly (readonly [typeof from, SiteRole])[]): Roles {
  const sites = [
    { ...primary, role: "primary" as const },
    ...others.map(([row, role]) => ({ ...row, role })),
  ];
  return { epoch: 7, primary: primary.site, sites, reason: "", sequence: 3 };
}

/** Roles by name. */
function shown(body: ReturnType<typeof joinRoles>): Record<string, SiteRole> | undefined {
  return body && Object.fromEntries(body.sites.map(({ name, role }) => [name, role]));
}

describe("to join", () => {
  const mirror = { as: "mirror", isEmpty: false } as const;
  const archive = { as: "archive", isEmpty: true } as const;

  test("is said of a site that nobody has spoken of, also before anything was said", () => {
    expect(shown(joinRoles(undefined, { from, to }, archive))).toEqual({
      old: "primary",
      new: "archive",
    });
    const body = joinRoles(roles(from, [[third, "mirror"]]), { from, to }, mirror);
    expect(shown(body)).toEqual({ old: "primary", third: "mirror", new: "mirror" });
    expect(body?.epoch).toBe(8);
  });

  test("changes nothing where it is so", () => {
    expect(joinRoles(roles(from, [[to, "mirror"]]), { from, to }, mirror)).toBeUndefined();
    expect(joinRoles(roles(to, [[from, "mirror"]]), { from, to }, mirror)).toBeUndefined();
  });

  test("makes an archive of a mirror only while that is empty", () => {
    const before = roles(from, [[to, "mirror"]]);
    expect(shown(joinRoles(before, { from, to }, archive))).toMatchObject({ new: "archive" });
    const full = { as: "archive", isEmpty: false } as const;
    expect(joinRoles(before, { from, to }, full)).toBeUndefined();
  });
});

describe("a switch", () => {
  test("leaves the former primary as a mirror, and others as they are", () => {
    const before = roles(from, [
      [to, "mirror"],
      [third, "archive"],
    ]);
    const body = switchRoles(before, { from, to }, { isPartial: false });
    expect(shown(body)).toEqual({ third: "archive", old: "mirror", new: "primary" });
    expect(body).toMatchObject({ epoch: 8, primary: to.site });
  });

  test("leaves it as an archive where backups were left behind on purpose", () => {
    const body = switchRoles(roles(from, [[to, "archive"]]), { from, to }, { isPartial: true });
    expect(shown(body)).toEqual({ old: "archive", new: "primary" });
  });

  test("is refused where a third site was made the primary meanwhile", () => {
    const before = roles(third, [
      [from, "mirror"],
      [to, "mirror"],
    ]);
    const decide = () => switchRoles(before, { from, to }, { isPartial: false });
    expect(decide).toThrow("Site old is not the primary any more: third is.");
  });

  test("is nothing where it was made", () => {
    const after = roles(to, [[from, "mirror"]]);
    expect(switchRoles(after, { from, to }, { isPartial: false })).toBeUndefined();
  });
});

test("a site that leaves is not among the roles any more, and leaves once", () => {
  const before = roles(to, [[from, "mirror"]]);
  const body = leaveRoles(before, from);
  expect(shown(body)).toEqual({ new: "primary" });
  expect(leaveRoles({ ...body!, sequence: 4 }, from)).toBeUndefined();
});
