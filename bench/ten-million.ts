/**
 * Does a node with ten million chunks keep its promises? Real backups through the whole write path
 * into a directory site: a first one, one with nothing changed, one that looks every chunk up because
 * the stat cache is gone, a restore of a sample that is compared, and cleanup until the space is back.
 * The source is computed while it is read (bench/synthetic-files.ts), and chunks are 8 KiB on
 * average, so that 80 GB of source need some 10 GB of disk. Each step is a process of its own.
 *
 *     bun bench/ten-million.ts [--chunks 10000000] [--scratch DIR] [--steps first,unchanged,…]
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { realDatabases } from "../src/base/databases.ts";
import { pathFromText } from "../src/base/path.ts";
import { Catalog } from "../src/cas/catalog/catalog.ts";
import { ChunkIndex } from "../src/cas/catalog/catalog-index.ts";
import { runAstacus } from "./astacus-node.ts";
import type { AstacusNodeOptions } from "./astacus-node.ts";
import { runMeasured } from "./measure.ts";
import { fillSynthetic, syntheticName, withSyntheticFolder } from "./synthetic-files.ts";
import { measureTree } from "./trees.ts";

const AVERAGE_SIZE_BYTES = 8192;
const FILE_SIZE_BYTES = 16 * 1024 * 1024;
const SAMPLE_COUNT = 20;
const SOURCE = "/synthetic";

const { values } = parseArgs({
  options: {
    chunks: { type: "string", default: "10000000" },
    scratch: { type: "string" },
    steps: { type: "string", default: "first,unchanged,lookup,restore,cleanup" },
    /** Of the processes that this one starts. */
    command: { type: "string" },
    options: { type: "string" },
  },
});
const fileCount = Math.ceil((Number(values.chunks) * AVERAGE_SIZE_BYTES) / FILE_SIZE_BYTES);

if (values.command === undefined) {
  const folder = mkdtempSync(join(values.scratch ?? tmpdir(), "astacus-ten-million-"));
  try {
    await run(folder, values.steps.split(","));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
} else {
  const root = pathFromText(SOURCE);
  const files = withSyntheticFolder({ root, fileCount, fileSizeBytes: FILE_SIZE_BYTES });
  const isRestore = values.command === "restore";
  const options: unknown = JSON.parse(values.options ?? "{}");
  const answer = await runAstacus(values.command, options, ...(isRestore ? [] : [files]));
  console.log(JSON.stringify(answer.result));
}

async function run(folder: string, steps: readonly string[]): Promise<void> {
  const place: AstacusNodeOptions = {
    source: SOURCE,
    repository: join(folder, "repository"),
    home: join(folder, "home"),
    averageSizeBytes: AVERAGE_SIZE_BYTES,
    // The source is known to this thread only.
    workers: 0,
  };
  await runAstacus("init", place);
  for (const step of steps) {
    switch (step) {
      case "first":
      case "unchanged":
        await measure(step, "backup", { ...place, name: step });
        break;
      case "lookup":
        // Another home with the same site: the log is all that it knows.
        rmSync(place.home, { recursive: true });
        await measure(step, "backup", { ...place, name: step });
        break;
      case "restore":
        await restore(place, join(folder, "restored"));
        break;
      case "cleanup":
        await measure(step, "drop", { ...place, drop: ["first", "unchanged"] });
        break;
      default:
        throw new Error(`There is no step ${step}`);
    }
    const { bytes, files } = measureTree(place.repository);
    console.log(
      JSON.stringify({
        step,
        chunks: countChunks(place),
        siteMiB: mebibytes(bytes),
        objects: files,
      }),
    );
  }
}

async function restore(place: AstacusNodeOptions, target: string): Promise<void> {
  mkdirSync(target);
  const numbers = Array.from({ length: SAMPLE_COUNT }, (_, index) =>
    Math.floor((index * fileCount) / SAMPLE_COUNT),
  );
  const paths = numbers.map(syntheticName);
  await measure("restore", "restore", { ...place, target, paths });
  const expected = new Uint8Array(FILE_SIZE_BYTES);
  for (const number of numbers) {
    fillSynthetic(expected, number, 0);
    const actual = readFileSync(join(target, syntheticName(number)));
    if (Buffer.compare(actual, expected) !== 0) throw new Error(`File ${number} came back wrong`);
  }
}

async function measure(step: string, command: string, options: AstacusNodeOptions): Promise<void> {
  const ask = ["--command", command, "--chunks", values.chunks, "--options"];
  const argv = [process.execPath, import.meta.path, ...ask, JSON.stringify(options)];
  const { wallMs, cpuMs, peakBytes, stdout } = await runMeasured([{ argv }]);
  const [wallSeconds, cpuSeconds] = [wallMs, cpuMs].map((ms) => Math.round(ms / 100) / 10);
  const answer = stdout.slice(0, 400).trim();
  console.log(
    JSON.stringify({ step, wallSeconds, cpuSeconds, peakMiB: mebibytes(peakBytes), answer }),
  );
}

function countChunks(place: AstacusNodeOptions): number {
  using catalog = Catalog.open(realDatabases, join(place.home, "catalog.sqlite"));
  return new ChunkIndex(catalog).countChunks();
}

function mebibytes(bytes: number): number {
  return Math.round(bytes / 1024 / 1024);
}
