/**
 * The cost of one backup to a server that runs already and is warm: other rows of the benchmark count
 * the start of a process and the compiling of its code, which a server does once in its life.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { ProcessCluster } from "../scripts/scenario-cluster.ts";
import { createM3Workload } from "./workload-m3.ts";

const NODE = "node1";
const CLOCK_TICKS_PER_S = 100;
const WARM_SIZE = {
  sizeBytes: 256 * 1024 * 1024,
  shardCount: 16,
  blockCount: 4,
  commitLogCount: 4,
};

/** What a backup took: of the server alone, not of the command. */
export type InServerRun = {
  readonly wallS: number;
  readonly cpuS: number;
  /** Resident, from the start of the process on. */
  readonly peakMib: number;
};

/**
 * A first backup of the tree `source` into a new directory site below `folder`. A backup of another
 * tree goes before it. `source` is moved while that is made, and back.
 */
export async function backUpInServer(
  folder: string,
  source: string,
  options: { readonly seed: string; readonly isEncrypted?: boolean },
): Promise<InServerRun> {
  const home = fs.mkdtempSync(join(folder, "in-server-"));
  const root = join(home, "root");
  await using cluster = await ProcessCluster.make({
    folder: home,
    site: `{name: disk, type: directory, path: "${home}/site"}`,
    nodes: [NODE],
    root,
    more: options.isEncrypted === true ? await encryption(home) : "",
  });
  const must = async (...args: readonly string[]): Promise<void> => {
    const { code, stderr } = await cluster.run([...args, "-c", cluster.config]);
    if (code !== 0) throw new Error(stderr);
  };
  await must("site", "init", ...(options.isEncrypted === true ? ["--encrypt"] : []));
  // Of another seed: nothing of it is in the tree that counts.
  createM3Workload(WARM_SIZE, `warm ${options.seed}`).create(root);
  await cluster.startAll();
  await cluster.json(["backup"]);
  fs.rmSync(root, { recursive: true });
  fs.renameSync(source, root);
  try {
    const beforeS = readCpu(cluster.pid(NODE));
    const startMs = performance.now();
    await cluster.json(["backup"]);
    const wallS = (performance.now() - startMs) / 1000;
    const cpuS = readCpu(cluster.pid(NODE)) - beforeS;
    const peakMib = Math.round(cluster.readPeak(NODE) / 1024 / 1024);
    await cluster.stopAll();
    return { wallS, cpuS, peakMib };
  } finally {
    fs.renameSync(root, source);
    fs.rmSync(home, { recursive: true });
  }
}

/** Keys in `home`, and the section of the configuration that names them. */
async function encryption(home: string): Promise<string> {
  const key = async (...args: readonly string[]): Promise<string> => {
    const program = join(import.meta.dir, "../src/astacus.ts");
    const child = Bun.spawn([process.execPath, program, "key", ...args], { stderr: "ignore" });
    const text = await new Response(child.stdout).text();
    if ((await child.exited) !== 0) throw new Error(`key ${args.join(" ")} failed`);
    return text;
  };
  await key("node-init", join(home, "node.key"));
  const recipient = /age1\w+/.exec(await key("generate", join(home, "identity")))?.[0];
  if (recipient === undefined) throw new Error("key generate named no recipient");
  return `encryption: {nodeKey: {file: "${home}/node.key"}, recipients: [${recipient}]}`;
}

/** User and system seconds of a process so far. */
function readCpu(pid: number): number {
  const fields = fs.readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS_PER_S;
}
