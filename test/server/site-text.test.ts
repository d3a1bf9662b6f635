/** Sites in words. */
import { expect, test } from "bun:test";
import { mirrorLines, siteTable } from "../../src/cli/site-text.ts";

const LAG = { backups: 1, bytes: 1024, ageSeconds: 0 };

test("the end of locks stands beside a site, and stands out where it is near", () => {
  const site = { name: "s3", role: "primary", configured: true, reachable: true, backups: 1 };
  const lock = { mode: "compliance", until: "2026-12-24T00:00:00.000Z", ending: false } as const;
  const row = (more: object) =>
    siteTable([{ ...site, lock: { ...lock, ...more } } as Parameters<typeof siteTable>[0][number]]);
  expect(row({})).toContain("up, locked until 2026-12-24 00:00 UTC");
  expect(row({ ending: true })).toContain("up, LOCKS END 2026-12-24 00:00 UTC");
  expect(row({ until: undefined, ending: true })).toContain("up, NOT LOCKED yet");
  expect(row({ until: undefined, ending: false })).toContain("up, under a legal hold");
});

test("one is not many, no age is shown in milliseconds, and a sentence does not end twice", () => {
  const line = siteTable([
    {
      name: "spare",
      role: "mirror",
      configured: true,
      reachable: false,
      error: "spare is not there any more.",
      lag: LAG,
    } as unknown as Parameters<typeof siteTable>[0][number],
  ]);
  expect(line).toContain(
    "DOWN: spare is not there any more; lags by 1 backup, 1 KiB, the oldest 0s old",
  );
  const mirror = { site: "spare", state: "acknowledged", copied: 1, packs: 1, bytes: 1024 };
  const report = { ...mirror, packsSent: 0 } as unknown as Parameters<
    typeof mirrorLines
  >[0][number];
  expect(mirrorLines([report])).toEqual(["mirror spare: up to date; 1 backup, 1 pack of 1 KiB"]);
});
