/**
 * Writes docs/sites/contract.md: what every kind of site was asked in its tests and what came of
 * it, from one run of the contract suite against the real stores. `bun scripts/contract-matrix.ts`
 */
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..");
const TARGET = join(ROOT, "docs/sites/contract.md");
const SUITE = "the contract of ";

const HEAD = `# The contract of a site

Written by \`bun scripts/contract-matrix.ts\` from the results of one run: do not edit. What a kind of
site promises is one suite, \`test/sites/contract.ts\`, which every kind must pass, against servers that
run for real: versitygw and MinIO for [S3](s3.md), azurite (the vendor's emulator) for
[Azure](azure.md), fake-gcs-server for [Google](gcs.md). What an emulator cannot show is in the notes of
its provider. Copies by the store are for kinds whose store makes them: a directory makes none, and
fake-gcs-server ignores their condition, which is found out (test/sites/gcs-site.test.ts has it kept).
`;

/** Outcome of one requirement for one kind. */
type Outcome = "yes" | "NO" | "skipped";

/** Outcomes by requirement, by kind. */
type Matrix = ReadonlyMap<string, ReadonlyMap<string, Outcome>>;

async function main(): Promise<number> {
  const folder = join(ROOT, "test/sites");
  const files = fs
    .readdirSync(folder)
    .filter((name) => name.endsWith(".test.ts"))
    .map((name) => join(folder, name))
    .filter((path) => isOfStores(fs.readFileSync(path, "utf8")));
  const temporary = fs.mkdtempSync(join(tmpdir(), "astacus-matrix-"));
  try {
    const report = join(temporary, "report.xml");
    const reporter = ["--reporter=junit", `--reporter-outfile=${report}`];
    const words = ["test", ...reporter, "-t", SUITE, ...files];
    const run = Bun.spawn([process.execPath, ...words], {
      cwd: ROOT,
      stdin: "ignore",
      stdout: "inherit",
      stderr: "inherit",
    });
    await run.exited;
    const matrix = readMatrix(fs.readFileSync(report, "utf8"));
    const text = renderMatrix(matrix);
    fs.writeFileSync(TARGET, text);
    console.log(text);
    return text.includes("**NO**") ? 1 : 0;
  } finally {
    fs.rmSync(temporary, { recursive: true, force: true });
  }
}

/** The cases of the suite in a JUnit file, in the order of the file. */
export function readMatrix(xml: string): Matrix {
  const matrix = new Map<string, Map<string, Outcome>>();
  const cases = /<testcase ((?:[^">]|"[^"]*")*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g;
  for (const [, attributes = "", body = ""] of xml.matchAll(cases)) {
    const kind = attribute(attributes, "classname").split(" > ").find(isKind);
    if (kind === undefined) continue;
    const requirement = attribute(attributes, "name");
    const isFailed = /<(failure|error)\b/.test(body);
    const outcome = body.includes("<skipped") ? "skipped" : isFailed ? "NO" : "yes";
    const kinds = matrix.get(requirement) ?? new Map<string, Outcome>();
    kinds.set(kind.slice(SUITE.length).replace(/^an? /, ""), outcome);
    matrix.set(requirement, kinds);
  }
  return matrix;
}

/** The page: a list of kinds, and a table of requirements. */
export function renderMatrix(matrix: Matrix): string {
  const kinds = [...new Set([...matrix.values()].flatMap((row) => [...row.keys()]))].toSorted();
  const letter = (index: number): string => String.fromCodePoint(65 + index);
  const rows = [...matrix].map(([requirement, row]) => {
    // A kind either copies, or must say that it does not.
    const absent = requirement.includes(" by the store") ? "–" : "not run";
    const cells = kinds.map((kind) => row.get(kind) ?? absent);
    return [requirement, ...cells.map((cell) => (cell === "NO" ? "**NO**" : cell))];
  });
  const lines = [
    ["requirement", ...kinds.map((_, index) => letter(index))],
    ["---", ...kinds.map(() => "---")],
    ...rows,
  ].map((cells) => `| ${cells.join(" | ")} |`);
  const list = kinds.map((kind, index) => `- ${letter(index)}: ${kind}`);
  return `${HEAD}\n${list.join("\n")}\n\n${lines.join("\n")}\n`;
}

/** Wrappers pass the same suite around a site in memory, which is no store. */
function isOfStores(source: string): boolean {
  return source.includes("siteContract(") && !source.includes("memory-site.ts");
}

function isKind(group: string): boolean {
  return group.startsWith(SUITE);
}

function attribute(attributes: string, name: string): string {
  const value = new RegExp(`\\b${name}="([^"]*)"`).exec(attributes)?.[1] ?? "";
  return value.replaceAll(/&(lt|gt|quot|apos|amp|#(\d+));/g, (_, entity: string, code?: string) => {
    if (code !== undefined) return String.fromCodePoint(Number(code));
    return { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" }[entity] ?? "";
  });
}

if (import.meta.main) process.exitCode = await main();
