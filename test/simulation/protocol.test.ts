/**
 * The commit protocol under everything that can come between: seeded random walks over the real
 * code, and the same walks with one rule switched off, which must find a backup with a hole.
 * ASTACUS_SEEDS=n walks n seeds in place of the default.
 */
import { describe, expect, test } from "bun:test";
import type { CommitRules } from "../../src/cas/commit-rules.ts";
import { walk } from "./protocol-walk.ts";

const SEED_COUNT = Number(process.env["ASTACUS_SEEDS"] ?? 12);
const FIRST_SEED = Number(process.env["ASTACUS_SEED"] ?? 1);
const DURATION_MS = 20_000;

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
    },
    { timeout: 3_600_000 },
  );
});
