/**
 * The reference page of the configuration, written from the schema: a table for each section and
 * each variant. docs/configuration.md is its output; a test fails when it is out of date.
 */
import { describeExpected, outlineOf } from "./config-outline.ts";
import type { Outline } from "./config-outline.ts";
import { configSchema } from "./config-schema.ts";

const INTRODUCTION = `# Configuration

<!-- Written by scripts/generate-config-reference.ts from the schema; do not edit. -->

Astacus reads one file, YAML or JSON. The same file can lie on all nodes of a cluster. Three complete
ones to start from are in [examples](../examples); who comes from the original Astacus finds its keys
in [from-the-original.md](from-the-original.md).

- Sizes are written \`512KiB\`, \`16MiB\`, \`2GB\` (a bare number is bytes), durations \`30s\`, \`12h\`,
  \`7d\`, \`1h30m\` (a bare number is refused), rates \`50MB/s\` (bytes a second).
- Relative paths start at the folder of the file. A path that has \`{node}\` in it must be quoted
  where it stands inside of braces.
- A secret is the text itself, \`{env: NAME}\` or \`{file: PATH}\`. It is never printed.
- A key without a value counts as left out. An unknown key is an error.
- All problems are reported at once, each with its line and column.
`;

/** The page, as Markdown. */
export function renderConfigReference(): string {
  const outline = outlineOf(configSchema);
  const properties = Object.entries(outline.properties ?? {});
  const plain = properties.filter(([, child]) => !isSection(child));
  const top = { ...outline, properties: Object.fromEntries(plain) };
  const sections = properties
    .filter(([, child]) => isSection(child))
    .map(([key, child]) => renderSection(key, child, outline.required?.includes(key) === true));
  return [INTRODUCTION, "## At the top\n", renderTable(top), ...sections].join("\n");
}

function renderSection(key: string, outline: Outline, isRequired: boolean): string {
  const element = outline.items ?? outline;
  const kind = outline.items === undefined ? "" : `A list of ${rangeOf(outline)} entries. `;
  const need = isRequired ? "Required. " : "";
  const head = `## ${key}\n\n${need}${kind}${escaped(outline.description ?? "")}\n`;
  if (element.oneOf === undefined) return [head, renderTable(element)].join("\n");
  const variants = element.oneOf.map((variant) => {
    const about = variant.properties?.["type"]?.description ?? "";
    return `### ${key}: type ${variant.title}\n\n${escaped(about)}\n\n${renderTable(variant)}`;
  });
  return [head, ...variants].join("\n");
}

function renderTable(outline: Outline): string {
  const rows = listRows(outline, "");
  return ["| Key | Value | Default | Meaning |", "|---|---|---|---|", ...rows, ""].join("\n");
}

function listRows(outline: Outline, prefix: string): string[] {
  return Object.entries(outline.properties ?? {}).flatMap(([key, child]) => {
    const name = `${prefix}${key}`;
    const isNested = child.type === "object" && child.properties !== undefined;
    const fallback =
      child.default === undefined || isNested
        ? outline.required?.includes(key) === true
          ? "**required**"
          : "–"
        : `\`${typeof child.default === "string" ? child.default : JSON.stringify(child.default)}\``;
    const cells = [`\`${name}\``, describeValue(child), fallback, child.description ?? ""];
    const row = `| ${cells.map(escaped).join(" | ")} |`;
    return isNested ? [row, ...listRows(child, `${name}.`)] : [row];
  });
}

function describeValue(outline: Outline): string {
  if (outline.const !== undefined) return `\`${outline.const}\``;
  if (outline.kind === "size" || outline.kind === "duration" || outline.kind === "rate") {
    // The page says once how they are written; the bounds, if any, follow the last comma.
    const bounds = /, (?:from|at least|at most) .*$/.exec(outline.expected ?? "")?.[0] ?? "";
    return `a ${outline.kind}${bounds}`;
  }
  if (outline.kind === "secret") return "a secret";
  if (outline.type === "array" && outline.items !== undefined) {
    return `a list of ${rangeOf(outline)}: ${describeExpected(outline.items)}`;
  }
  return describeExpected(outline);
}

function rangeOf(outline: Outline): string {
  const { minItems = 0, maxItems } = outline;
  return maxItems === undefined ? `${minItems} or more` : `${minItems} to ${maxItems}`;
}

function isSection(outline: Outline): boolean {
  return (outline.properties ?? outline.oneOf ?? outline.items) !== undefined;
}

function escaped(text: string): string {
  return text.replaceAll("|", "\\|");
}
