/** `astacus migrate` without servers: what its options mean, and how its plan reads. */
import { describe, expect, test } from "bun:test";
import { requestOf } from "../../src/cli/command-migrate.ts";
import { renderMigrationPlan } from "../../src/cli/migrate-plan-text.ts";
import type { MigrationPlan } from "../../src/cluster/migrate-plan.ts";

const NOW = Date.UTC(2026, 10, 22, 12);
const OWN = { from: "old", to: "new", switch: true };

const PLAN: MigrationPlan = {
  from: { id: "0", name: "old", location: "file:/old" },
  to: { id: "1", name: "new", location: "s3://new" },
  switches: true,
  isSwitched: false,
  toRole: "mirror",
  isPartial: false,
  isWithinStore: false,
  backups: [{ id: "b", name: "one", state: "forgotten-there", packs: 0, bytes: 0 }],
  copies: 3,
  present: 1,
  packs: 54,
  bytes: 3 * 1024 ** 3,
  usage: [
    {
      site: "new",
      requests: { put: 63, get: 0, head: 0, delete: 0, list: 0 },
      bytesRead: 0,
      bytesWritten: 1024,
      cost: { amount: 0.5, currency: "EUR" },
    },
  ],
  storagePerMonth: { amount: 12, currency: "EUR" },
  timeMs: 90_000,
  nodes: [
    { name: "a", helps: true },
    { name: "b", helps: false, why: "it is down" },
  ],
  refusals: [],
};

describe("the options of a migration", () => {
  test("are a request", () => {
    expect(requestOf(OWN, NOW)).toEqual({ from: "old", to: "new" });
    expect(requestOf({ ...OWN, switch: false, undo: true, backups: ["one"] }, NOW)).toEqual({
      from: "old",
      to: "new",
      backups: ["one"],
      undo: true,
      noSwitch: true,
    });
  });

  test.each([
    ["2026-11-01", "2026-11-01T00:00:00.000Z"],
    ["2026-11-01T18:00:00Z", "2026-11-01T18:00:00.000Z"],
    ["30d", "2026-10-23T12:00:00.000Z"],
  ])("take --since %s", (since, iso) => {
    expect(requestOf({ ...OWN, since }, NOW).since).toBe(iso);
  });

  test.each(["yesterday", "2026-13-45", "30"])("refuse --since %s", (since) => {
    expect(() => requestOf({ ...OWN, since }, NOW)).toThrow("is no date");
  });
});

describe("the plan of a migration", () => {
  test("names objects, time, money, who does not help, and what comes of the old site", () => {
    const text = renderMigrationPlan(PLAN);
    for (const said of [
      "3 to copy, 1 there already",
      "54 packs, 3 GiB",
      "1m 30s",
      "12.00 EUR a month at new",
      "About, site new: 63 put; 1 KiB sent; 0.50 EUR",
      "Node b does not help to copy: it is down",
      "1, which stay forgotten",
      "new becomes the primary; old stays, as a mirror",
    ]) {
      expect(text).toContain(said);
    }
  });

  test("says what stands in the way last", () => {
    const text = renderMigrationPlan({ ...PLAN, isPartial: true, refusals: ["no, because"] });
    expect(text).toContain("an archive that is only read");
    expect(text.trimEnd()).toEndWith("Refused:\n  no, because");
  });

  test("of what was switched says so", () => {
    const text = renderMigrationPlan({ ...PLAN, switches: false, isSwitched: true });
    expect(text).toContain("new is the primary already");
  });
});
