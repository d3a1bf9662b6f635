/** docs/sites/contract.md: it speaks of the suite that there is, and would show a failure. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { readMatrix, renderMatrix } from "../../scripts/contract-matrix.ts";

const REQUIREMENTS = [
  ...readFileSync(join(import.meta.dir, "contract.ts"), "utf8").matchAll(/\btest\(\s*"([^"]+)"/g),
].map(([, name = ""]) => name);

describe("the contract matrix", () => {
  test("in the documentation has a row for each requirement of the suite, none failed", () => {
    const page = readFileSync(join(import.meta.dir, "../../docs/sites/contract.md"), "utf8");
    const rows = [...page.matchAll(/^\| (?!requirement|---)(.*?) \|/gm)].map(
      ([, name = ""]) => name,
    );
    // If this fails: bun scripts/contract-matrix.ts
    expect(new Set(rows)).toEqual(new Set(REQUIREMENTS));
    expect(page).not.toContain("**NO**");
    expect(page).not.toContain("not run");
  });

  test("shows what failed, was skipped or did not run, by kind", () => {
    const one = 'name="keeps &quot;a&quot;" classname="the contract of an X site" file="x"';
    const other = 'name="b" classname="the contract of a Y site" file="y"';
    const xml = `<testcase ${one} /><testcase name="b" classname="the contract of an X site"><failure/></testcase>
      <testcase ${other}><skipped/></testcase><testcase name="c" classname="no contract" />`;
    const page = renderMatrix(readMatrix(xml));
    expect(page).toContain('| keeps "a" | yes | not run |');
    expect(page).toContain("| b | **NO** | skipped |");
    expect(page).not.toContain("| c |");
  });
});
