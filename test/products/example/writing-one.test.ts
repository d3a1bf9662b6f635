/** The page on writing a product quotes code that exists: each block is found in the file it names. */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

const ROOT = join(import.meta.dir, "../../..");
const PAGE = join(ROOT, "docs/products/writing-one.md");

type Quote = { readonly file: string; readonly code: string };

const text = readFileSync(PAGE, "utf8");
const quotes = [...text.matchAll(/^```(\S*) ?(.*)\n([\s\S]*?)^```$/gm)].map(
  ([, language = "", file = "", code = ""]) => ({ language, file, code }),
);

const named = quotes.filter(({ file }) => file !== "");

/** True if the lines stand in the text together, however far they are indented. */
function holds(source: string, code: string): boolean {
  const trim = (lines: string): string => lines.trim().replaceAll(/^[ \t]+|[ \t]+$/gm, "");
  return `\n${trim(source)}\n`.includes(`\n${trim(code)}\n`);
}

/** Names without a folder are the example's. */
function sourceOf({ file }: Pick<Quote, "file">): string {
  return readFileSync(file.includes("/") ? join(ROOT, file) : join(import.meta.dir, file), "utf8");
}

describe("the page on writing a product", () => {
  test("names a file for every block of TypeScript, and quotes all parts of the example", () => {
    const unnamed = quotes.filter(({ language, file }) => language === "ts" && file === "");
    expect(unnamed).toEqual([]);
    const files = new Set(quotes.map(({ file }) => file));
    expect([...files]).toContain("folio.ts");
    expect([...files]).toContain("folio-capture.ts");
    expect([...files]).toContain("folio-seal.ts");
  });

  test.each(named.map((quote, index) => [index + 1, quote.file, quote] as const))(
    "quotes block %i as it stands in %s",
    (_index, _file, quote) => {
      expect(quote.code.trim()).not.toBe("");
      expect(holds(sourceOf(quote), quote.code), quote.code).toBe(true);
    },
  );

  test("would be caught with a word, a line or half a line changed", () => {
    const { code, ...quote } = named[0]!;
    const source = sourceOf(quote);
    const lines = code.trimEnd().split("\n");
    expect(holds(source, code.replace("Folio", "Foliant"))).toBe(false);
    expect(holds(source, lines.toSpliced(2, 1).join("\n"))).toBe(false);
    expect(holds(source, lines[0]!.slice(0, -3))).toBe(false);
  });

  test("links to and names files that exist", () => {
    const links = [...text.matchAll(/\]\(([^)#]+)/g)].map(([, link = ""]) => link);
    const paths = [...text.matchAll(/`((?:src|test|scripts)\/[^`]*)`/g)].map(([, path]) => path!);
    const missing = [
      ...links.filter((link) => !existsSync(join(dirname(PAGE), link))),
      ...paths.filter((path) => !path.includes("folio/") && !existsSync(join(ROOT, path))),
    ];
    expect(links.length + paths.length).toBeGreaterThan(5);
    expect(missing).toEqual([]);
  });
});
