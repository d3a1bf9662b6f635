/** The reference page: written from the schema, complete, and up to date. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { outlineOf, type Outline } from "../../src/server/config-outline.ts";
import { renderConfigReference } from "../../src/server/config-reference.ts";
import { configSchema } from "../../src/server/config-schema.ts";

test("docs/configuration.md is what the schema says", () => {
  const page = readFileSync("docs/configuration.md", "utf8");
  // If this fails: bun scripts/generate-config-reference.ts
  expect(page).toBe(renderConfigReference());
});

test("every key has a description, and says what it takes", () => {
  expect(listBare(outlineOf(configSchema), "")).toEqual([]);
});

function listBare(outline: Outline, path: string): string[] {
  const children = Object.entries(outline.properties ?? {}).flatMap(([key, child]) => [
    ...(child.description === undefined ? [`${path}.${key}`] : []),
    ...listBare(child, `${path}.${key}`),
  ]);
  const items = outline.items === undefined ? [] : listBare(outline.items, `${path}[]`);
  return [...children, ...items, ...(outline.oneOf ?? []).flatMap((each) => listBare(each, path))];
}
