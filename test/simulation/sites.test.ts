/**
 * Two sites of one repository under everything that can come between: seeded random walks over the
 * real code of copies, repairs and cleanups.
 *
 * ASTACUS_SEEDS=n walks n seeds, ASTACUS_SEED=n starts at seed n.
 */
import { expect, test } from "bun:test";
import { walkSites } from "./sites-walk.ts";

const SEED_COUNT = Number(process.env["ASTACUS_SEEDS"] ?? 8);
const FIRST_SEED = Number(process.env["ASTACUS_SEED"] ?? 1);
const DURATION_MS = 5000;
const TIMEOUT_MS = 3_600_000;

/** What a few walks together must have seen, or they prove nothing. */
const SEEN = [
  "backups",
  "copied",
  "there",
  "forgotten-there",
  "forgotten for all",
  "repaired",
  "closed",
  "closed midway",
  "failed: closed",
  "deleted",
  "garbage",
  "repacks",
  "merges",
  "late arrivals",
  "undone",
  "failed: cancelled",
];

test(
  "every backup that is listed or pinned at a site restores from that site alone, whatever comes",
  async () => {
    const totals: Record<string, number> = {};
    for (let seed = FIRST_SEED; seed < FIRST_SEED + SEED_COUNT; seed++) {
      const { violation, counts } = await walkSites({ seed, durationMs: DURATION_MS });
      for (const [what, count] of Object.entries(counts))
        totals[what] = (totals[what] ?? 0) + count;
      expect({ seed, violation }).toEqual({ seed, violation: undefined });
    }
    console.log(`seeds ${FIRST_SEED} to ${FIRST_SEED + SEED_COUNT - 1}:`, totals);
    if (SEED_COUNT >= 8) expect(SEEN.filter((what) => (totals[what] ?? 0) === 0)).toEqual([]);
  },
  { timeout: TIMEOUT_MS },
);

test("one seed gives one history of two sites", async () => {
  const options = { seed: 77, durationMs: 1200 };
  expect(await walkSites(options)).toEqual(await walkSites(options));
});
