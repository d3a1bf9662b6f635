/**
 * What encryption costs: first backups by a server that runs already, into plain and encrypted
 * repositories in turns, of the m3 tree and of noise, which nothing compresses. What counts is the
 * least of each.
 *
 *     bun bench/encryption-cost.ts [--size small|full] [--repeat N] [--scratch DIR]
 */
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { renderTable } from "../src/cli/table.ts";
import { backUpInServer } from "./in-server.ts";
import type { InServerRun } from "./in-server.ts";
import { Seeded } from "./seeded.ts";
import { WORKLOADS } from "./workloads.ts";

const NOISE_FILE_SIZE_BYTES = 16 * 1024 * 1024;
const NOISE_FILE_COUNT = { small: 32, full: 128 };

const COLUMNS = [
  { title: "TREE" },
  { title: "PLAIN CPU S", isNumber: true },
  { title: "ENCRYPTED CPU S", isNumber: true },
  { title: "RATIO", isNumber: true },
];

type Row = { readonly what: string; readonly plain: number; readonly sealed: number };

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      size: { type: "string", default: "full" },
      repeat: { type: "string", default: "3" },
      scratch: { type: "string", default: tmpdir() },
    },
  });
  const size = values.size === "small" ? "small" : "full";
  const folder = fs.mkdtempSync(join(values.scratch, "astacus-encryption-"));
  try {
    const rows: Row[] = [];
    for (const what of ["m3", "noise"] as const) {
      const source = join(folder, what);
      fs.mkdirSync(source);
      if (what === "m3") WORKLOADS["m3"]?.(size).create(source);
      else makeNoise(source, NOISE_FILE_COUNT[size]);
      const plain: InServerRun[] = [];
      const sealed: InServerRun[] = [];
      for (let round = 1; round <= Number(values.repeat); round += 1) {
        const seed = `${what} ${round}`;
        plain.push(await backUpInServer(folder, source, { seed }));
        sealed.push(await backUpInServer(folder, source, { seed, isEncrypted: true }));
        console.error(JSON.stringify({ what, plain: plain.at(-1), sealed: sealed.at(-1) }));
      }
      rows.push({ what, plain: leastCpu(plain), sealed: leastCpu(sealed) });
      fs.rmSync(source, { recursive: true });
    }
    console.error(table(rows));
    console.log(JSON.stringify(rows));
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

function makeNoise(folder: string, fileCount: number): void {
  const seeded = new Seeded("noise");
  for (let index = 0; index < fileCount; index += 1) {
    fs.writeFileSync(join(folder, `noise-${index}`), seeded.bytes(NOISE_FILE_SIZE_BYTES));
  }
}

function leastCpu(runs: readonly InServerRun[]): number {
  return Math.min(...runs.map(({ cpuS }) => cpuS));
}

function table(rows: readonly Row[]): string {
  const cells = rows.map(({ what, plain, sealed }) => [
    what,
    plain.toFixed(2),
    sealed.toFixed(2),
    (sealed / plain).toFixed(3),
  ]);
  return renderTable(COLUMNS, cells);
}

if (import.meta.main) await main();
