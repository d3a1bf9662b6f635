/**
 * What a first backup of the m3 tree costs a server that runs already, beside borg in the same run:
 * the other rows of the benchmark count the start of a process and the compiling of its code, which a
 * server does once in its life.
 *
 *     bun bench/first-in-server.ts [--size small|full] [--repeat N] [--scratch DIR]
 */
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ProcessCluster } from "../scripts/scenario-cluster.ts";
import { runMeasured } from "./measure.ts";
import { findVersion, PEERS } from "./peers.ts";
import { createM3Workload } from "./workload-m3.ts";
import { WORKLOADS } from "./workloads.ts";

const NODE = "node1";
const CLOCK_TICKS_PER_S = 100;
const WARM_SIZE = {
  sizeBytes: 256 * 1024 * 1024,
  shardCount: 16,
  blockCount: 4,
  commitLogCount: 4,
};

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      size: { type: "string", default: "full" },
      repeat: { type: "string", default: "2" },
      scratch: { type: "string", default: tmpdir() },
    },
  });
  const folder = fs.mkdtempSync(join(values.scratch, "astacus-in-server-"));
  try {
    const source = join(folder, NODE);
    fs.mkdirSync(source);
    WORKLOADS["m3"]?.(values.size === "small" ? "small" : "full").create(source);
    for (let round = 1; round <= Number(values.repeat); round += 1) {
      console.log(JSON.stringify(await runOurs(folder, round)));
      console.log(JSON.stringify(await runBorg(folder, source)));
    }
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

/** A new repository and catalog each time; the first backup warms the server up with another tree. */
async function runOurs(folder: string, round: number): Promise<object> {
  const home = join(folder, `round${round}`);
  const warm = join(folder, "warm");
  fs.mkdirSync(warm, { recursive: true });
  // Of another seed: nothing of it is in the tree that counts.
  createM3Workload(WARM_SIZE, `warm ${round}`).create(warm);
  await using cluster = await ProcessCluster.make({
    folder: home,
    site: `{name: disk, type: directory, path: "${home}/site"}`,
    nodes: [NODE],
    root: `${folder}/{node}`,
  });
  const init = await cluster.run(["site", "init", "-c", cluster.config]);
  if (init.code !== 0) throw new Error(init.stderr);
  const real = join(folder, NODE);
  const aside = join(folder, "aside");
  fs.renameSync(real, aside);
  fs.renameSync(warm, real);
  await cluster.startAll();
  await cluster.json(["backup"]);
  fs.rmSync(real, { recursive: true });
  fs.renameSync(aside, real);
  const beforeS = readCpu(cluster.pid(NODE));
  const startMs = performance.now();
  await cluster.json(["backup"]);
  const wallS = (performance.now() - startMs) / 1000;
  const cpuS = readCpu(cluster.pid(NODE)) - beforeS;
  const peakMib = Math.round(cluster.readPeak(NODE) / 1024 / 1024);
  await cluster.stopAll();
  fs.rmSync(home, { recursive: true });
  return { tool: "astacus", wallS, cpuS, peakMib };
}

async function runBorg(folder: string, source: string): Promise<object> {
  const borg = PEERS.find(({ name }) => name === "borg");
  if (borg === undefined || findVersion(borg) === undefined) return { tool: "borg", absent: true };
  const home = join(folder, "borg");
  fs.mkdirSync(home);
  const place = { source, repository: join(home, "repository"), home };
  await runMeasured(borg.init?.(place) ?? []);
  const { wallMs, cpuMs } = await runMeasured(borg.backup(place, "1"));
  fs.rmSync(home, { recursive: true });
  return { tool: "borg", wallS: wallMs / 1000, cpuS: cpuMs / 1000 };
}

/** User and system seconds of a process so far. */
function readCpu(pid: number): number {
  const fields = fs.readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS_PER_S;
}

if (import.meta.main) await main();
