/**
 * What a first backup of the m3 tree costs a server that runs already, beside borg in the same run.
 *
 *     bun bench/first-in-server.ts [--size small|full] [--repeat N] [--scratch DIR]
 */
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { backUpInServer } from "./in-server.ts";
import { runMeasured } from "./measure.ts";
import { findVersion, PEERS } from "./peers.ts";
import { warmTree } from "./trees.ts";
import { WORKLOADS } from "./workloads.ts";

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
    const source = join(folder, "source");
    fs.mkdirSync(source);
    WORKLOADS["m3"]?.(values.size === "small" ? "small" : "full").create(source);
    for (let round = 1; round <= Number(values.repeat); round += 1) {
      warmTree(source);
      const ours = await backUpInServer(folder, source, { seed: String(round) });
      console.log(JSON.stringify({ tool: "astacus", ...ours }));
      console.log(JSON.stringify(await runBorg(folder, source)));
    }
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

async function runBorg(folder: string, source: string): Promise<object> {
  const borg = PEERS.find(({ name }) => name === "borg");
  if (borg === undefined || findVersion(borg) === undefined) return { tool: "borg", absent: true };
  const home = join(folder, "borg");
  fs.mkdirSync(home);
  const place = { source, repository: join(home, "repository"), home };
  await runMeasured(borg.init?.(place) ?? []);
  warmTree(source);
  const { wallMs, cpuMs } = await runMeasured(borg.backup(place, "1"));
  fs.rmSync(home, { recursive: true });
  return { tool: "borg", wallS: wallMs / 1000, cpuS: cpuMs / 1000 };
}

if (import.meta.main) await main();
