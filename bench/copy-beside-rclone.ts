/**
 * A repository in a directory is copied to a real S3 server (versitygw): by `astacus migrate`, which
 * reads every object back; by `astacus sync`, which does not; by `rclone copy --transfers 4
 * --checksum`; and by rclone with `rclone check --download` behind it, which reads everything back
 * too. One server node, so one process on either side. Wall is that of the commands; CPU is of the
 * clients (rclone; the node's server and the command line), not of the S3 server.
 *
 *   bun bench/copy-beside-rclone.ts [--size 1GB] [--repeat 2] [--rclone PATH] [--seed TEXT]
 */
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { startS3Server } from "../scripts/real/s3.ts";
import type { RealS3 } from "../scripts/real/s3.ts";
import { ProcessCluster } from "../scripts/scenario-cluster.ts";
import { parseSize } from "../src/base/units.ts";
import { renderTable } from "../src/cli/table.ts";
import { runMeasured } from "./measure.ts";
import { Seeded } from "./seeded.ts";
import { measureTree } from "./trees.ts";

const FILE_SIZE_BYTES = 8_000_000;
/** Of /proc/PID/stat; what Linux has on all machines that we know. */
const MS_PER_TICK = 10;
const AT_ONCE = 4;

type Took = { readonly wallMs: number; readonly cpuMs: number };

type Setup = {
  readonly folder: string;
  /** The repository that is copied; never written to. */
  readonly source: string;
  readonly s3: RealS3;
  readonly rclone: string;
};

type Row = { readonly what: string; readonly run: (setup: Setup, prefix: string) => Promise<Took> };

const ROWS: readonly Row[] = [
  {
    what: "astacus migrate: read back, 4 at once",
    run: (setup, prefix) =>
      runAstacus(setup, prefix, [
        "migrate",
        "--from",
        "old",
        "--to",
        "new",
        "--no-switch",
        "--yes",
      ]),
  },
  {
    what: "rclone copy, then check --download",
    run: async (setup, prefix) => {
      const copied = await runRclone(setup, prefix, copyArgs(setup));
      const check = ["check", setup.source, "--download", "--checkers", String(AT_ONCE)];
      const checked = await runRclone(setup, prefix, check);
      return { wallMs: copied.wallMs + checked.wallMs, cpuMs: copied.cpuMs + checked.cpuMs };
    },
  },
  {
    what: "astacus sync: not read back, 2 at once",
    run: (setup, prefix) => runAstacus(setup, prefix, ["sync", "new"]),
  },
  {
    what: "rclone copy: not read back, 4 at once",
    run: (setup, prefix) => runRclone(setup, prefix, copyArgs(setup)),
  },
];

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      size: { type: "string", default: "1GB" },
      repeat: { type: "string", default: "2" },
      rclone: { type: "string", default: "rclone" },
      seed: { type: "string", default: "copy" },
    },
  });
  const rclone = Bun.which(values.rclone);
  if (rclone === null) throw new Error("rclone is missing (apt-get install rclone)");
  const folder = fs.mkdtempSync(join(fs.realpathSync(tmpdir()), "astacus-copy-"));
  let s3: RealS3 | undefined;
  try {
    const source = await makeRepository(folder, parseSize(values.size), values.seed);
    const server = await startS3Server({ directory: join(folder, "s3") });
    if ("missing" in server) throw new Error(`missing: ${server.missing}`);
    s3 = server;
    const took = new Map<string, Took[]>();
    for (let round = 1; round <= Number(values.repeat); round += 1) {
      for (const [index, { what, run }] of ROWS.entries()) {
        const prefix = `run-${round}-${index}`;
        const one = await run({ folder, source, s3, rclone }, prefix);
        console.error(
          `${what}: ${(one.wallMs / 1000).toFixed(2)} s, CPU ${(one.cpuMs / 1000).toFixed(2)} s`,
        );
        took.set(what, [...(took.get(what) ?? []), one]);
        mustBeThere(source, join(folder, "s3", "root", s3.bucket, prefix));
        fs.rmSync(join(folder, "s3", "root", s3.bucket, prefix), { recursive: true });
      }
    }
    report(source, took);
  } finally {
    await s3?.stop();
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

/** A repository with one backup of bytes that nothing compresses; its folder. */
async function makeRepository(folder: string, sizeBytes: number, seed: string): Promise<string> {
  const source = join(folder, "source");
  await using cluster = await ProcessCluster.make({
    folder: join(folder, "maker"),
    site: `{name: old, type: directory, path: "${source}"}`,
    nodes: ["amber"],
  });
  const random = new Seeded(seed);
  for (let index = 0; index * FILE_SIZE_BYTES < sizeBytes; index += 1) {
    fs.writeFileSync(join(cluster.root("amber"), `file-${index}`), random.bytes(FILE_SIZE_BYTES));
  }
  await must(cluster, ["site", "init", "-c", cluster.config]);
  await cluster.startAll();
  await cluster.json(["backup", "--name", "one"]);
  await cluster.stopAll();
  fs.rmSync(cluster.root("amber"), { recursive: true });
  return source;
}

/** A command against a server that has just been started, on a copy of the repository. */
async function runAstacus(setup: Setup, prefix: string, args: readonly string[]): Promise<Took> {
  const { folder, source, s3 } = setup;
  const old = join(folder, `${prefix}-old`);
  // Links: what is written to a repository are new objects, and a copy would fill the page cache.
  await runMeasured([{ argv: ["cp", "-al", source, old] }]);
  await using cluster = await ProcessCluster.make({
    folder: join(folder, prefix),
    site:
      `{name: old, type: directory, path: "${old}"}\n` +
      `  - {name: new, type: s3, bucket: ${s3.bucket}, prefix: ${prefix}, ` +
      `endpoint: "${s3.endpoint}", accessKeyId: {env: COPY_ID}, secretAccessKey: {env: COPY_KEY}}`,
    nodes: ["amber"],
    environment: { COPY_ID: s3.accessKeyId, COPY_KEY: s3.secretAccessKey },
  });
  await must(cluster, ["site", "init", "new", "-c", cluster.config]);
  await cluster.startAll();
  const serverMs = readCpuMs(cluster.pid("amber"));
  const startMs = performance.now();
  const { child, end } = cluster.spawn([...args, "-u", cluster.url("amber")]);
  const { code, stderr } = await end;
  const wallMs = performance.now() - startMs;
  if (code !== 0) throw new Error(`${args.join(" ")} ended with ${code}: ${stderr}`);
  const commandMs = Number(child.resourceUsage()?.cpuTime.total ?? 0) / 1000;
  const cpuMs = readCpuMs(cluster.pid("amber")) - serverMs + commandMs;
  await cluster.stopAll();
  fs.rmSync(old, { recursive: true });
  return { wallMs, cpuMs };
}

function copyArgs({ source }: Setup): string[] {
  return ["copy", source, "--transfers", String(AT_ONCE), "--checksum"];
}

async function runRclone(setup: Setup, prefix: string, args: readonly string[]): Promise<Took> {
  const { s3, rclone } = setup;
  const [command = "", source = "", ...rest] = args;
  return await runMeasured([
    {
      argv: [
        rclone,
        "--config",
        "/dev/null",
        // Else each PUT waits a second for a "100 Continue" which this S3 server never sends.
        "--expect-continue-timeout",
        "1ms",
        command,
        source,
        `to:${s3.bucket}/${prefix}`,
        ...rest,
      ],
      env: {
        RCLONE_CONFIG_TO_TYPE: "s3",
        RCLONE_CONFIG_TO_PROVIDER: "Other",
        RCLONE_CONFIG_TO_ENDPOINT: s3.endpoint,
        RCLONE_CONFIG_TO_ACCESS_KEY_ID: s3.accessKeyId,
        // Its client for S3 fails where one is set; the server here is on http.
        AWS_CA_BUNDLE: "",
        RCLONE_CONFIG_TO_SECRET_ACCESS_KEY: s3.secretAccessKey,
      },
    },
  ]);
}

/** User and system time of a process and all its threads. */
function readCpuMs(pid: number): number {
  const text = fs.readFileSync(`/proc/${pid}/stat`, "utf8");
  // The name in brackets may hold blanks; utime and stime are the 12th and 13th after it.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * MS_PER_TICK;
}

/** A copy that lacks bytes has measured nothing. */
function mustBeThere(source: string, copy: string): void {
  const [was, is] = [measureTree(source), measureTree(copy)];
  // Logs of two sites differ by some entries; packs are all the rest.
  if (is.bytes < was.bytes * 0.999) throw new Error(`${copy} holds ${is.bytes} of ${was.bytes} B`);
}

async function must(cluster: ProcessCluster, args: readonly string[]): Promise<void> {
  const end = await cluster.run(args);
  if (end.code !== 0) throw new Error(`${args.join(" ")} ended with ${end.code}: ${end.stderr}`);
}

function report(source: string, took: ReadonlyMap<string, readonly Took[]>): void {
  const { bytes, files } = measureTree(source);
  const rows = [...took].map(([what, runs]) => {
    const wallMs = Math.min(...runs.map((run) => run.wallMs));
    const cpuMs = Math.min(...runs.map((run) => run.cpuMs));
    return {
      what,
      wallSeconds: wallMs / 1000,
      cpuSeconds: cpuMs / 1000,
      mbps: bytes / 1e3 / wallMs,
    };
  });
  const head = ["COPY", "WALL S", "CPU S", "MB/S"].map((title, index) => ({
    title,
    isNumber: index > 0,
  }));
  const cells = rows.map(({ what, wallSeconds, cpuSeconds, mbps }) => [
    what,
    wallSeconds.toFixed(2),
    cpuSeconds.toFixed(2),
    mbps.toFixed(0),
  ]);
  console.error(`${files} objects, ${(bytes / 1e6).toFixed(0)} MB\n${renderTable(head, cells)}`);
  console.log(JSON.stringify({ objects: files, bytes, rows }, undefined, 2));
}

await main();
