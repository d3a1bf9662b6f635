/**
 * The commit protocol under everything that can come between: seeded random walks over the real
 * code, and walks with one rule switched off, which must come to a backup with a hole (rules that a
 * short walk seldom needs have tests of their own in test/cas).
 *
 * ASTACUS_SEEDS=n walks n seeds, ASTACUS_SEED=n starts at seed n.
 */
import { describe, expect, test } from "bun:test";
import { walk } from "./protocol-walk.ts";

const SEED_COUNT = Number(process.env["ASTACUS_SEEDS"] ?? 12);
const FIRST_SEED = Number(process.env["ASTACUS_SEED"] ?? 1);
const DURATION_MS = 6000;
const BROKEN_SEED_COUNT = 30;
const TIMEOUT_MS = 3_600_000;

/** What a few walks together must have seen, or they prove nothing. */
const SEEN = ["backups", "deleted", "garbage", "late arrivals", "merges", "reopened", "retired"];

describe("the protocol", () => {
  test(
    "keeps every listed or pinned backup whole, whatever comes in between",
    async () => {
      const totals: Record<string, number> = {};
      for (let seed = FIRST_SEED; seed < FIRST_SEED + SEED_COUNT; seed++) {
        const { violation, counts } = await walk({ seed, durationMs: DURATION_MS });
        for (const [what, count] of Object.entries(counts)) {
          totals[what] = (totals[what] ?? 0) + count;
        }
        expect({ seed, violation }).toEqual({ seed, violation: undefined });
      }
      console.log(`seeds ${FIRST_SEED} to ${FIRST_SEED + SEED_COUNT - 1}:`, totals);
      if (SEED_COUNT >= 4) expect(SEEN.filter((what) => (totals[what] ?? 0) === 0)).toEqual([]);
    },
    { timeout: TIMEOUT_MS },
  );

  test(
    "needs that uses are asked for again at each entry: without it a walk finds a hole",
    async () => {
      let violation: string | undefined;
      let seed = 0;
      while (violation === undefined && seed < BROKEN_SEED_COUNT) {
        seed += 1;
        const rules = { redecide: false };
        ({ violation } = await walk({ seed, durationMs: DURATION_MS, rules }));
      }
      console.log(`without redecide, seed ${seed}: ${violation}`);
      expect(violation).toContain("a chunk of backup");
    },
    { timeout: TIMEOUT_MS },
  );

  test("one seed gives one history", async () => {
    const options = { seed: 77, durationMs: 1500 };
    expect(await walk(options)).toEqual(await walk(options));
  });
});
