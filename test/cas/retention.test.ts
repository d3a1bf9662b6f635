/** Retention: worked examples, and the properties that must hold for every list and policy. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  planRetention,
  type RetentionBackup,
  type RetentionPolicy,
} from "../../src/cas/clean/retention.ts";
import { DAY_MS } from "../../src/base/units.ts";

const NOON_MS = Date.UTC(2026, 10, 20, 12);

function backup(daysAgo: number, changes: Partial<RetentionBackup> = {}): RetentionBackup {
  const startMs = NOON_MS - daysAgo * DAY_MS;
  return {
    id: `b${daysAgo}`,
    name: `backup-${daysAgo}`,
    cluster: "c",
    startMs,
    endMs: startMs + 60_000,
    complete: true,
    pinned: false,
    sequence: 10_000 - Math.floor(daysAgo * 10),
    ...changes,
  };
}

function daily(count: number): RetentionBackup[] {
  return Array.from({ length: count }, (_, index) => backup(index));
}

function keptIds(backups: readonly RetentionBackup[], policy: RetentionPolicy): string[] {
  return planRetention(backups, policy).flatMap((verdict) => (verdict.keep ? [verdict.id] : []));
}

function reasonsOf(id: string, backups: readonly RetentionBackup[], policy: RetentionPolicy) {
  return planRetention(backups, policy).find((verdict) => verdict.id === id)?.reasons;
}

describe("retention", () => {
  test("without a policy keeps seven whole days, as the original does", () => {
    expect(keptIds(daily(12), {})).toEqual(daily(8).map(({ id }) => id));
    expect(reasonsOf("b9", daily(12), {})).toEqual(["older than 7 days and beyond every rule"]);
  });

  test("counts ages from the newest complete backup, so a silent cluster keeps what it has", () => {
    const old = daily(5).map((each) => ({ ...each, endMs: each.endMs - 900 * DAY_MS }));
    expect(keptIds(old, {})).toHaveLength(5);
  });

  test("agrees with the original's algorithm for its three settings", () => {
    const setting = fc.option(fc.integer({ min: 0, max: 12 }), { nil: undefined });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 20 }), setting, setting, (count, minimum, maximum) => {
        fc.pre(minimum !== 0);
        const expected = daily(count);
        const least = minimum ?? 3;
        while (expected.length > Math.max(least, maximum ?? Infinity)) expected.pop();
        while (expected.length > Math.max(least, 8)) expected.pop();
        const policy = {
          keepDays: 7,
          ...(minimum === undefined ? {} : { minimum }),
          ...(maximum === undefined ? {} : { maximum }),
        };
        expect(keptIds(daily(count), policy)).toEqual(expected.map(({ id }) => id));
      }),
    );
  });

  test("names each rule that keeps a backup", () => {
    const policy = { minimum: 1, keepLast: 3, daily: 2, weekly: 1, monthly: 1, yearly: 1 };
    expect(reasonsOf("b0", daily(40), policy)).toEqual([
      "newest complete",
      "minimum of 1",
      "last 3",
      "daily 2026-11-20",
      "weekly 2026-W47",
      "monthly 2026-11",
      "yearly 2026",
    ]);
    expect(reasonsOf("b2", daily(40), policy)).toEqual(["last 3"]);
    expect(reasonsOf("b9", daily(40), policy)).toEqual(["beyond every rule"]);
  });

  test("keeps the newest of each period, counted in periods that have a backup", () => {
    const sparse = [0, 0.1, 5, 5.1, 30, 31].map((days) => backup(days));
    expect(keptIds(sparse, { minimum: 1, daily: 3 })).toEqual(["b0", "b5", "b30"]);
    expect(keptIds(sparse, { minimum: 1, hourly: 2 })).toEqual(["b0", "b0.1"]);
  });

  test("puts a week into the year of its Thursday", () => {
    const reasons = (ms: number) =>
      reasonsOf("b0", [backup(0, { startMs: ms })], { weekly: 1, minimum: 1 })?.at(-1);
    expect(reasons(Date.UTC(2027, 0, 3, 23))).toBe("weekly 2026-W53");
    expect(reasons(Date.UTC(2027, 0, 4))).toBe("weekly 2027-W01");
    expect(reasons(Date.UTC(2024, 11, 30))).toBe("weekly 2025-W01");
    expect(reasons(Date.UTC(1969, 11, 29))).toBe("weekly 1970-W01");
  });

  test("lets the minimum win over the maximum", () => {
    expect(keptIds(daily(10), { maximum: 1 })).toEqual(["b0", "b1", "b2"]);
    expect(keptIds(daily(10), { maximum: 5 })).toEqual(["b0", "b1", "b2", "b3", "b4"]);
    expect(reasonsOf("b6", daily(10), { maximum: 5 })).toEqual(["beyond the maximum of 5"]);
  });

  test("never drops a pinned backup, and does not count it for the maximum", () => {
    const list = [...daily(6), backup(400, { pinned: true, pinnedBy: "audit" })];
    expect(keptIds(list, { maximum: 4 })).toEqual(["b0", "b1", "b2", "b3", "b400"]);
    expect(reasonsOf("b400", list, {})).toEqual(["pinned by audit"]);
  });

  test("does not let incomplete backups stand in for complete ones", () => {
    const list = [
      backup(0, { complete: false }),
      backup(0.5, { complete: false }),
      backup(1),
      backup(1.5, { complete: false }),
      backup(3, { complete: false }),
      backup(200),
    ];
    expect(keptIds(list, { minimum: 2, keepLast: 1 })).toEqual([
      "b0",
      "b0.5",
      "b1",
      "b1.5",
      "b200",
    ]);
  });

  test("keeps every incomplete backup while none is complete", () => {
    const list = daily(20).map((each) => ({ ...each, complete: false }));
    expect(keptIds(list, { keepLast: 1 })).toHaveLength(20);
  });

  test("keeps tonight's backup although one from a clock a year ahead looks newer", () => {
    const list = [backup(0), backup(-365, { sequence: 1 }), backup(-366, { sequence: 2 })];
    expect(keptIds(list, { minimum: 1, keepLast: 1 })).toEqual(["b0", "b-366"]);
  });

  test("treats clusters apart", () => {
    const other = daily(3).map((each) => ({ ...each, id: `o${each.id}`, cluster: "other" }));
    expect(keptIds([...daily(3), ...other], { minimum: 1, keepLast: 1 })).toEqual(["b0", "ob0"]);
  });
});

const anyBackups = fc.uniqueArray(
  fc
    .record({
      id: fc.string({ minLength: 1, maxLength: 6 }),
      name: fc.constant("n"),
      cluster: fc.constantFrom("a", "b"),
      startMs: fc.integer({ min: NOON_MS - 800 * DAY_MS, max: NOON_MS }),
      complete: fc.boolean(),
      pinned: fc.boolean(),
      sequence: fc.integer({ min: 1, max: 1000 }),
      lengthMs: fc.integer({ min: 0, max: 2 * DAY_MS }),
    })
    .map(({ lengthMs, ...rest }) => ({ ...rest, endMs: rest.startMs + lengthMs })),
  { selector: ({ id }) => id, maxLength: 40 },
);

const anyCount = fc.integer({ min: 0, max: 15 });

const anyPolicy: fc.Arbitrary<RetentionPolicy> = fc.record(
  {
    minimum: anyCount,
    maximum: anyCount,
    keepDays: fc.integer({ min: 0, max: 400 }),
    keepLast: anyCount,
    keepWithinMs: fc.integer({ min: 0, max: 400 * DAY_MS }),
    hourly: anyCount,
    daily: anyCount,
    weekly: anyCount,
    monthly: anyCount,
    yearly: anyCount,
  },
  { requiredKeys: [] },
);

describe("for every list of backups and every policy, retention", () => {
  test("keeps the newest complete backup, each pinned one, and the minimum", () => {
    fc.assert(
      fc.property(anyBackups, anyPolicy, (backups, policy) => {
        const kept = new Set(keptIds(backups, policy));
        for (const group of Map.groupBy(backups, ({ cluster }) => cluster).values()) {
          const complete = group.filter((each) => each.complete);
          const newestMs = Math.max(...complete.map(({ startMs }) => startMs));
          const newest = complete.filter(({ startMs }) => startMs === newestMs);
          expect(newest.length === 0 || newest.some(({ id }) => kept.has(id))).toBeTrue();
          const keptCount = complete.filter(({ id }) => kept.has(id)).length;
          expect(keptCount).toBeGreaterThanOrEqual(Math.min(policy.minimum ?? 3, complete.length));
        }
        expect(backups.every(({ pinned, id }) => !pinned || kept.has(id))).toBeTrue();
      }),
    );
  });

  test("judges each backup once, with a reason", () => {
    fc.assert(
      fc.property(anyBackups, anyPolicy, (backups, policy) => {
        const verdicts = planRetention(backups, policy);
        expect(verdicts.map(({ id }) => id)).toEqual(backups.map(({ id }) => id));
        expect(verdicts.every(({ reasons }) => reasons.length > 0)).toBeTrue();
      }),
    );
  });

  test("keeps all of what it kept when it plans again", () => {
    fc.assert(
      fc.property(anyBackups, anyPolicy, (backups, policy) => {
        const kept = new Set(keptIds(backups, policy));
        const left = backups.filter(({ id }) => kept.has(id));
        expect(keptIds(left, policy)).toEqual(left.map(({ id }) => id));
      }),
    );
  });

  test("is independent of the order of the list", () => {
    fc.assert(
      fc.property(anyBackups, anyPolicy, (backups, policy) => {
        const forwards = keptIds(backups, policy).toSorted();
        expect(keptIds(backups.toReversed(), policy).toSorted()).toEqual(forwards);
      }),
    );
  });

  test("keeps no less when a number of a given policy grows, a maximum left out", () => {
    const numbers = ["minimum", "keepDays", "keepLast", "hourly", "daily", "weekly"] as const;
    fc.assert(
      fc.property(anyBackups, anyPolicy, fc.constantFrom(...numbers), (backups, given, key) => {
        const { maximum: _, ...policy } = given;
        fc.pre(policy[key] !== undefined);
        const more = new Set(keptIds(backups, { ...policy, [key]: (policy[key] ?? 0) + 1 }));
        expect(keptIds(backups, policy).filter((id) => !more.has(id))).toEqual([]);
      }),
    );
  });

  test("keeps no less when the maximum grows, and at most the maximum or what is never dropped", () => {
    fc.assert(
      fc.property(anyBackups, anyPolicy, anyCount, (backups, policy, maximum) => {
        const one = backups.map((each) => ({ ...each, cluster: "a" }));
        const kept = keptIds(one, { ...policy, maximum });
        const more = new Set(keptIds(one, { ...policy, maximum: maximum + 1 }));
        expect(kept.filter((id) => !more.has(id))).toEqual([]);
        const unpinned = one.filter(
          (each) => each.complete && !each.pinned && kept.includes(each.id),
        );
        // The newest by date and the last by commit are kept above any number.
        const most = Math.max(maximum, (policy.minimum ?? 3) + 1, 2);
        expect(unpinned.length).toBeLessThanOrEqual(most);
      }),
    );
  });
});
