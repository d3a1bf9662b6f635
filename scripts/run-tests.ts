/**
 * Runs the tests folder by folder, the fast ones first, each folder in a process of its own, so that
 * a crash costs one folder and the order of what is reported never changes. The last line is
 * `N passed, N failed`, and the exit code is 0 only if nothing failed. A test that was skipped is
 * listed with its reason, which stands in its name, in brackets: `reads a bucket [needs minio]`;
 * with CI=true it counts as failed, since there every part that a test needs has been set up.
 *
 * Usage: run-tests.ts [PART OF A PATH …] [OPTIONS OF bun test …]
 *   --minutes N           all folders together; what has not run by then has failed
 *   --count-failed NAME   counts something that failed before the tests
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { coverageOf, percentOf, readLines } from "./line-coverage.ts";

/** Fast first; folders that are not named here come last, by name. */
const ORDER = [
  "test",
  "test/base",
  "test/cas",
  "test/sites",
  "test/products",
  "test/server",
  "test/cluster",
  "test/simulation",
  "test/process",
  "test/realm",
];

const FOLDER_MINUTES_MAX = 20;

/** Of one test, unless it says its own: a busy machine must not fail what is only slow. */
const TEST_TIMEOUT_MS = 120_000;

/** Folders whose line coverage is measured; it costs little where the code waits on no process. */
const MEASURED = ["test/cas", "test/cluster", "test/simulation"] as const;

/** What the simulator alone must reach of what loses data when it is wrong, in percent of lines. */
const COVERAGE_FLOOR = 85;
const SIMULATOR = "test/simulation";
const COVERED = ["src/cas/", "src/cluster/"];

/** Options of `bun test` that take their value as the next argument. */
const OPTIONS_WITH_VALUE = new Set([
  "-t",
  "--test-name-pattern",
  "--timeout",
  "--rerun-each",
  "--retry",
  "--seed",
  "--preload",
  "--coverage-reporter",
  "--coverage-dir",
  "--max-concurrency",
  "--path-ignore-patterns",
]);

type Arguments = {
  readonly paths: readonly string[];
  readonly options: readonly string[];
  readonly minutes: number;
  readonly failedBefore: readonly string[];
};

type Skipped = { readonly file: string; readonly name: string; readonly reason: string };

type FolderResult = {
  readonly folder: string;
  readonly passedCount: number;
  readonly failed: readonly string[];
  readonly skipped: readonly Skipped[];
  readonly seconds: number;
  /** LCOV, where it was measured. */
  readonly coverageFile?: string;
};

function parseArguments(given: readonly string[]): Arguments {
  const paths: string[] = [];
  const options: string[] = [];
  const failedBefore: string[] = [];
  let minutes = Number.POSITIVE_INFINITY;
  const rest = [...given];
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === "--count-failed") failedBefore.push(rest.shift() ?? "something");
    else if (word === "--minutes") minutes = Number(rest.shift());
    else if (!word.startsWith("-")) paths.push(word);
    else {
      options.push(word);
      if (OPTIONS_WITH_VALUE.has(word)) options.push(rest.shift() ?? "");
    }
  }
  if (Number.isNaN(minutes)) throw new Error("--minutes takes a number");
  return { paths, options, minutes, failedBefore };
}

/** Test files by folder (two levels at most: `test`, `test/cas`), in the order of `ORDER`. */
function listFolders(root: string, paths: readonly string[]): Map<string, string[]> {
  const files = [...new Bun.Glob("test/**/*.test.{ts,tsx}").scanSync({ cwd: root })]
    .filter((file) => paths.length === 0 || paths.some((path) => file.includes(cleanPath(path))))
    .toSorted();
  const folders = new Map<string, string[]>();
  for (const file of files) {
    const folder = file.split("/").slice(0, -1).slice(0, 2).join("/");
    folders.set(folder, [...(folders.get(folder) ?? []), file]);
  }
  const rank = (folder: string) => (ORDER.includes(folder) ? ORDER.indexOf(folder) : ORDER.length);
  return new Map([...folders].toSorted(([a], [b]) => rank(a) - rank(b) || (a < b ? -1 : 1)));
}

function cleanPath(path: string): string {
  return path.replace(/^\.\//, "");
}

async function runFolder(
  folder: string,
  files: readonly string[],
  options: {
    readonly root: string;
    readonly extra: readonly string[];
    readonly timeoutMs: number;
    readonly coverageFolder: string | undefined;
  },
): Promise<FolderResult> {
  const started = performance.now();
  const seconds = () => (performance.now() - started) / 1000;
  if (options.timeoutMs <= 0) {
    const failed = [`${folder}: not run, the time for all tests was used up`];
    return { folder, passedCount: 0, failed, skipped: [], seconds: 0 };
  }
  console.log(`\n== ${folder}`);
  const temporary = mkdtempSync(join(tmpdir(), "astacus-tests-"));
  try {
    const report = join(temporary, "report.xml");
    const reporter = ["--reporter=junit", `--reporter-outfile=${report}`];
    const paths = files.map((file) => `./${file}`);
    const coverage = coverageOptions(folder, options.coverageFolder);
    const patience = `--timeout=${TEST_TIMEOUT_MS}`;
    const words = ["test", patience, ...reporter, ...coverage, ...options.extra, ...paths];
    const child = Bun.spawn([process.execPath, ...words], {
      cwd: options.root,
      stdin: "ignore",
      stdout: "inherit",
      stderr: "inherit",
      timeout: Math.floor(options.timeoutMs),
      killSignal: "SIGKILL",
    });
    const exitCode = await child.exited;
    const how = child.signalCode === null ? `code ${exitCode}` : `signal ${child.signalCode}`;
    const cases = readReport(report);
    const failed = cases.failed.map((name) => `${folder}: ${name}`);
    if (exitCode !== 0 && failed.length === 0) {
      failed.push(`${folder}: bun test ended with ${how} and named no failed test`);
    } else if (exitCode === 0) {
      const silent = filtersNames(options.extra) ? [] : filesWithoutTests(files, cases.files);
      failed.push(...silent.map((file) => `${file}: holds no test that ran or was skipped`));
    }
    const skipped = filtersNames(options.extra) ? [] : cases.skipped;
    const result = { folder, passedCount: cases.passedCount, failed, skipped, seconds: seconds() };
    if (coverage.length === 0 || options.coverageFolder === undefined) return result;
    return { ...result, coverageFile: join(options.coverageFolder, basename(folder), "lcov.info") };
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

function coverageOptions(folder: string, target: string | undefined): string[] {
  if (target === undefined || !MEASURED.some((one) => one === folder)) return [];
  const directory = join(target, basename(folder));
  return ["--coverage", "--coverage-reporter=lcov", `--coverage-dir=${directory}`];
}

/** Prints what the simulator reached, and all measured folders; fails if it is below the floor. */
function judgeCoverage(results: readonly FolderResult[]): string[] {
  const measured = results.filter(({ coverageFile }) => coverageFile !== undefined);
  if (measured.length < MEASURED.length) return [];
  const files = measured.flatMap(({ coverageFile }) => coverageFile ?? []);
  const simulator = measured.find(({ folder }) => folder === SIMULATOR)?.coverageFile ?? "";
  const others = MEASURED.filter((folder) => folder !== SIMULATOR);
  const failed: string[] = [];
  for (const prefix of COVERED) {
    const simulated = coverageOf(readLines([simulator]), [prefix]);
    const all = coverageOf(readLines(files), [prefix]);
    console.log(
      `line coverage of ${prefix}: ${percentOf(simulated).toFixed(1)} % by the simulator, ` +
        `${percentOf(all).toFixed(1)} % with ${others.join(" and ")}`,
    );
    if (percentOf(simulated) < COVERAGE_FLOOR) {
      failed.push(`the simulator's coverage of ${prefix} is below ${COVERAGE_FLOOR} %`);
    }
  }
  return failed;
}

/** With a name pattern every other test is reported as skipped, which says nothing. */
function filtersNames(options: readonly string[]): boolean {
  return options.some((option) => /^(-t|--test-name-pattern)(=|$)/.test(option));
}

function filesWithoutTests(files: readonly string[], seen: ReadonlySet<string>): string[] {
  return files.filter((file) => !seen.has(file));
}

type Report = {
  readonly passedCount: number;
  readonly failed: readonly string[];
  readonly skipped: readonly Skipped[];
  readonly files: ReadonlySet<string>;
};

/** The JUnit file that `bun test` wrote; empty if it did not come to that. */
function readReport(path: string): Report {
  const failed: string[] = [];
  const skipped: Skipped[] = [];
  const files = new Set<string>();
  let passedCount = 0;
  let xml = "";
  try {
    xml = readFileSync(path, "utf8");
  } catch {
    return { passedCount, failed, skipped, files };
  }
  const cases = /<testcase ((?:[^">]|"[^"]*")*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g;
  for (const [, attributes = "", body = ""] of xml.matchAll(cases)) {
    const group = attribute(attributes, "classname").split(" > ").toReversed();
    const name = [...group, attribute(attributes, "name")]
      .filter((part) => part !== "")
      .join(" > ");
    const file = attribute(attributes, "file");
    files.add(file);
    if (body.includes("<skipped")) skipped.push({ file, name, reason: reasonOf(name, body) });
    else if (/<(failure|error)\b/.test(body)) failed.push(`${basename(file)}: ${name}`);
    else passedCount += 1;
  }
  return { passedCount, failed, skipped, files };
}

function attribute(attributes: string, name: string): string {
  const value = new RegExp(`\\b${name}="([^"]*)"`).exec(attributes)?.[1] ?? "";
  return value.replaceAll(/&(lt|gt|quot|apos|amp|#(\d+));/g, (_, entity: string, code?: string) => {
    if (code !== undefined) return String.fromCodePoint(Number(code));
    return { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" }[entity] ?? "";
  });
}

function reasonOf(name: string, body: string): string {
  if (body.includes('message="TODO"')) return "not written yet (test.todo)";
  return (
    [...name.matchAll(/\[([^\]]+)\]/g)].at(-1)?.[1] ?? "its name gives no reason in [brackets]"
  );
}

/** What everything came to; the last line is the one that machines read. */
function printTotals(results: readonly FolderResult[], failedBefore: readonly string[]): number {
  const isCi = process.env["CI"] === "true";
  const skipped = results.flatMap((result) => result.skipped);
  const failed = [...failedBefore, ...results.flatMap((result) => result.failed)];
  const passedCount = results.reduce((sum, result) => sum + result.passedCount, 0);
  console.log("\n== summary");
  for (const result of results) {
    const counts = `${result.passedCount} passed, ${result.failed.length} failed`;
    console.log(
      `${result.folder.padEnd(20)} ${result.seconds.toFixed(1).padStart(7)} s  ${counts}`,
    );
  }
  if (skipped.length > 0) {
    const verdict = isCi ? "skipped, which CI=true counts as failed" : "skipped";
    console.log(`\n${skipped.length} ${verdict}:`);
    for (const { file, name, reason } of skipped) console.log(`  ${file}: ${name}: ${reason}`);
  }
  if (failed.length > 0) {
    console.log(`\n${failed.length} failed:`);
    for (const name of failed) console.log(`  ${name}`);
  }
  const failedCount = failed.length + (isCi ? skipped.length : 0);
  const tail = !isCi && skipped.length > 0 ? `, ${skipped.length} skipped` : "";
  console.log(`\n${passedCount} passed, ${failedCount} failed${tail}`);
  return failedCount;
}

async function main(): Promise<void> {
  const root = dirname(import.meta.dir);
  const { paths, options, minutes, failedBefore } = parseArguments(process.argv.slice(2));
  const deadline = performance.now() + minutes * 60_000;
  const folders = listFolders(root, paths);
  const nothing = folders.size === 0 ? [`no test file matches ${paths.join(" ") || "test/"}`] : [];
  // Measured only in whole runs: a part of the tests says nothing of the coverage.
  const isWhole = paths.length === 0 && options.length === 0;
  const coverageFolder = isWhole ? mkdtempSync(join(tmpdir(), "astacus-coverage-")) : undefined;
  const results: FolderResult[] = [];
  try {
    for (const [folder, files] of folders) {
      const timeoutMs = Math.min(deadline - performance.now(), FOLDER_MINUTES_MAX * 60_000);
      const how = { root, extra: options, timeoutMs, coverageFolder };
      results.push(await runFolder(folder, files, how));
    }
    const uncovered = judgeCoverage(results);
    const failedBesides = [...failedBefore, ...nothing, ...uncovered];
    process.exitCode = printTotals(results, failedBesides) === 0 ? 0 : 1;
  } finally {
    if (coverageFolder !== undefined) rmSync(coverageFolder, { recursive: true, force: true });
  }
}

await main();
