/** Sites in words. */
import { expect, test } from "bun:test";
import { mirrorLines, siteTable } from "../../src/cli/site-text.ts";

const LAG = { backups: 1, bytes: 1024, ageSeconds: 0 };

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
