/**
 * The benchmark: written questions, each answered by Astacus and by the peers that are installed, on
 * the same generated data, in the same run. docs/benchmarks.md says what was found, and how to run it.
 *
 *     bun run bench [--size small|full] [--only m3,tiny/restore,list] [--peers restic,borg]
 *                   [--repeat N] [--scratch DIR] [--data DIR] [--json FILE]
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { astacusPeer } from "./astacus-peer.ts";
import { OTHER_ROWS } from "./other-rows.ts";
import type { RowOptions } from "./other-rows.ts";
import { findVersion, PEERS, PEERS_DEFAULT } from "./peers.ts";
import type { Peer } from "./peers.ts";
import { renderTables } from "./table.ts";
import { PHASES, runWorkload } from "./tool-run.ts";
import type { Figure, Phase } from "./tool-run.ts";
import { WORKLOADS } from "./workloads.ts";
import type { RunSize } from "./workloads.ts";

/** What is asked of every workload. */
const PHASE_QUESTIONS: Readonly<Record<Phase, string>> = {
  first: "What does the first backup, into an empty repository, take and store?",
  unchanged: "And one more of the same source, nothing changed?",
  grown: "And one after the next step of the source's life?",
  restore: "How long until everything is back in an empty folder, byte for byte?",
};

const { values } = parseArgs({
  options: {
    size: { type: "string", default: "small" },
    only: { type: "string" },
    peers: { type: "string" },
    repeat: { type: "string", default: "2" },
    scratch: { type: "string" },
    data: { type: "string" },
    json: { type: "string" },
    help: { type: "boolean", short: "h", default: false },
  },
});

if (values.help) {
  console.log(helpText());
} else {
  await main();
}

async function main(): Promise<void> {
  const size = parseSize(values.size);
  const only = values.only?.split(",");
  const isWanted = (row: string): boolean =>
    only === undefined ||
    only.some((name) => row === name || row.startsWith(`${name}/`) || row.endsWith(`/${name}`));
  const scratch = mkdtempSync(join(values.scratch ?? tmpdir(), "astacus-bench-"));
  const data = values.data ?? scratch;
  mkdirSync(data, { recursive: true });
  try {
    const { peers, versions, absent } = findPeers(values.peers?.split(",") ?? PEERS_DEFAULT);
    if (absent.length > 0) say(`not installed, left out: ${absent.join(", ")}`);
    const common: RowOptions = {
      scratch,
      data,
      size,
      peers,
      repeatCount: Number(values.repeat),
      say,
    };
    const figures = await runAll(common, isWanted);
    const machine = describeMachine();
    const tables = renderTables(figures, questions(figures));
    console.log([machineText(machine, versions, absent, size), tables].join("\n\n"));
    if (values.json !== undefined) {
      const report = { date: today(), size, machine, versions, absent, figures };
      writeFileSync(values.json, `${JSON.stringify(report, undefined, 2)}\n`);
    }
    if (figures.some((figure) => figure.error !== undefined)) process.exitCode = 1;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

async function runAll(options: RowOptions, isWanted: (row: string) => boolean): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const [name, make] of Object.entries(WORKLOADS)) {
    const phases = new Set(PHASES.filter((phase) => isWanted(`${name}/${phase}`)));
    if (phases.size === 0) continue;
    const workload = make(options.size);
    const tools = [astacusPeer({ workload }), ...options.peers];
    figures.push(...(await runWorkload({ ...options, workload, tools, phases })));
  }
  for (const [name, { run }] of Object.entries(OTHER_ROWS)) {
    if (isWanted(name)) figures.push(...(await run(options)));
  }
  return figures;
}

function questions(figures: readonly Figure[]): Record<string, string> {
  return Object.fromEntries(
    figures.map(({ row }) => {
      const [name = "", phase = ""] = row.split("/");
      const about = WORKLOADS[name]?.(parseSize(values.size)).about;
      const question = PHASE_QUESTIONS[phase as Phase];
      return [
        row,
        about === undefined ? (OTHER_ROWS[name]?.question ?? "") : `${question} (${about})`,
      ];
    }),
  );
}

function findPeers(wanted: readonly string[]): {
  peers: Peer[];
  versions: Record<string, string>;
  absent: string[];
} {
  const versions: Record<string, string> = {};
  const peers: Peer[] = [];
  const absent: string[] = [];
  for (const name of wanted.filter((one) => one !== "" && one !== "none")) {
    const peer = PEERS.find((one) => one.name === name);
    if (peer === undefined) {
      throw new Error(`No peer ${name}; there are ${PEERS.map((one) => one.name).join(", ")}`);
    }
    const version = findVersion(peer);
    if (version === undefined) absent.push(name);
    else {
      versions[name] = version;
      peers.push(peer);
    }
  }
  return { peers, versions, absent };
}

type Machine = {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly bun: string;
  readonly system: string;
};

function describeMachine(): Machine {
  return {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    bun: Bun.version,
    system: `${process.platform} ${process.arch}`,
  };
}

function machineText(
  machine: Machine,
  versions: Readonly<Record<string, string>>,
  absent: readonly string[],
  size: RunSize,
): string {
  const tools = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  return [
    `${today()}, size ${size}: ${machine.cores} × ${machine.cpu}, ${machine.memoryGiB} GiB, ${machine.system}, Bun ${machine.bun}.`,
    `Beside: ${tools.join(", ") || "nobody"}. Not installed: ${absent.join(", ") || "none"}.`,
    "Least of the runs; CPU is user + system of all processes; the source is in the page cache.",
  ].join("\n");
}

function parseSize(text: string): RunSize {
  if (text === "small" || text === "full") return text;
  throw new Error(`--size is small or full, not ${text}`);
}

function today(): string {
  return new Date().toISOString().slice(0, 10);
}

function say(text: string): void {
  console.error(`bench: ${text}`);
}

function helpText(): string {
  const rows = Object.keys(WORKLOADS).flatMap((name) => PHASES.map((phase) => `${name}/${phase}`));
  return [
    "bun run bench [--size small|full] [--only ROWS] [--peers NAMES|none] [--repeat N]",
    "              [--scratch DIR] [--data DIR] [--json FILE]",
    "",
    `rows:  ${[...rows, ...Object.keys(OTHER_ROWS)].join(", ")}`,
    "       (a workload or a phase alone names all of its rows)",
    `peers: ${PEERS.map((peer) => peer.name).join(", ")}; unless told ${PEERS_DEFAULT.join(", ")}`,
    "--scratch holds repositories and what is restored, --data the sources; both in the",
    "system's folder for temporary files unless told. On tmpfs fsync costs nothing.",
  ].join("\n");
}
