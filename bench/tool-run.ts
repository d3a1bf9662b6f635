/**
 * One workload, all tools side by side, in the same run: first backups into fresh repositories, the
 * same again with nothing changed, a backup after a step, and a restore that is compared byte by byte
 * with the source. Repetitions go round the tools, so that a disturbance of the machine does not hit
 * one of them alone; of n runs the least counts.
 */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { parseAnswer } from "./astacus-peer.ts";
import { runMeasured } from "./measure.ts";
import type { Command, Cost } from "./measure.ts";
import type { Peer, Place } from "./peers.ts";
import { measureTree, mustBeEqual, warmTree } from "./trees.ts";
import type { Workload } from "./workload.ts";

/** What is asked of each workload, in this order. */
export type Phase = "first" | "unchanged" | "grown" | "restore";
export const PHASES: readonly Phase[] = ["first", "unchanged", "grown", "restore"];

/** The figures of one tool in one phase. */
export type Figure = {
  readonly tool: string;
  readonly row: string;
  readonly runCount: number;
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly peakBytes: number;
  /** What the repository holds after it, or grew by. */
  readonly storedBytes?: number;
  readonly objectCount?: number;
  readonly isVerified?: boolean;
  readonly isLimit?: boolean;
  /** Of Astacus: what it says of itself. */
  readonly requests?: Readonly<Record<string, number>>;
  readonly readBytes?: number;
  readonly error?: string;
};

/** How a workload is run. */
export type RunOptions = {
  readonly workload: Workload;
  readonly tools: readonly Peer[];
  readonly phases: ReadonlySet<Phase>;
  readonly repeatCount: number;
  /** Repositories, caches and restored files. */
  readonly scratch: string;
  /** The generated source. */
  readonly data: string;
  readonly say: (text: string) => void;
};

/** Some tools, and we, do not trust a file that changed within the last two seconds. */
const SETTLE_MS = 2500;

/** Runs a workload; the figures come phase by phase, tool by tool. */
export async function runWorkload(options: RunOptions): Promise<Figure[]> {
  const { workload, phases } = options;
  const source = join(options.data, `source-${workload.name}`);
  rmSync(source, { recursive: true, force: true });
  mkdirSync(source, { recursive: true });
  try {
    options.say(`making ${workload.name}`);
    workload.create(source);
    await Bun.sleep(SETTLE_MS);
    const size = measureTree(source);
    options.say(`${workload.name}: ${Math.round(size.bytes / 2 ** 20)} MiB, ${size.files} files`);
    const run = new WorkloadRun(options, source);
    await run.repeat("first", options.repeatCount);
    if (phases.has("unchanged")) await run.repeat("unchanged", options.repeatCount);
    if (phases.has("grown")) {
      workload.step(source, 1);
      await Bun.sleep(SETTLE_MS);
      await run.repeat("grown", 1);
    }
    if (phases.has("restore")) await run.repeat("restore", options.repeatCount);
    run.clean();
    return run.figures.filter((figure) => phases.has(figure.row.split("/")[1] as Phase));
  } finally {
    rmSync(source, { recursive: true, force: true });
  }
}

/** The tools' repositories in the course of one workload. */
class WorkloadRun {
  readonly figures: Figure[] = [];
  readonly #options: RunOptions;
  readonly #source: string;
  /** The last backup of each tool, by its number. */
  readonly #backupCount = new Map<string, number>();
  readonly #failed = new Set<string>();

  constructor(options: RunOptions, source: string) {
    this.#options = options;
    this.#source = source;
  }

  async repeat(phase: Phase, count: number): Promise<void> {
    for (let round = 0; round < count; round += 1) {
      for (const tool of this.#options.tools) await this.#once(phase, tool);
    }
  }

  /** Removes what lies in the scratch folder. */
  clean(): void {
    for (const tool of this.#options.tools) {
      rmSync(this.#folder(tool), { recursive: true, force: true });
    }
  }

  async #once(phase: Phase, tool: Peer): Promise<void> {
    if (this.#failed.has(tool.name)) return;
    const row = `${this.#options.workload.name}/${phase}`;
    try {
      const figure =
        phase === "restore" ? await this.#restore(tool) : await this.#backup(phase, tool);
      this.#options.say(`${row} ${tool.name}: ${Math.round(figure.wallMs)} ms`);
      this.#add({ ...figure, row, tool: tool.name, ...limitOf(tool) });
    } catch (thrown) {
      const error = thrown instanceof Error ? thrown.message : String(thrown);
      this.#failed.add(tool.name);
      this.#options.say(`${row} ${tool.name} failed: ${error}`);
      this.#add({ ...NOTHING, row, tool: tool.name, error, ...limitOf(tool) });
    }
  }

  async #backup(phase: Phase, tool: Peer): Promise<Measured> {
    if (phase === "first") await this.#renew(tool);
    const place = this.#place(tool);
    const name = String((this.#backupCount.get(tool.name) ?? 0) + 1);
    this.#backupCount.set(tool.name, Number(name));
    const before = measureTree(place.repository);
    if (phase !== "unchanged") warmTree(this.#source);
    const cost = await runMeasured(tool.backup(place, name));
    const after = measureTree(place.repository);
    return {
      ...measured(cost),
      storedBytes: after.bytes - (phase === "first" ? 0 : before.bytes),
      objectCount: after.files,
    };
  }

  async #restore(tool: Peer): Promise<Measured> {
    const target = join(this.#folder(tool), "restored");
    rmSync(target, { recursive: true, force: true });
    mkdirSync(target, { recursive: true });
    const name = String(this.#backupCount.get(tool.name) ?? 0);
    // Ours is written past the page cache.
    warmTree(this.#place(tool).repository);
    const cost = await runMeasured(tool.restore(this.#place(tool), name, target));
    mustBeEqual(this.#source, target);
    rmSync(target, { recursive: true, force: true });
    return { ...measured(cost), isVerified: true };
  }

  /** An empty repository. */
  async #renew(tool: Peer): Promise<void> {
    const place = this.#place(tool);
    rmSync(this.#folder(tool), { recursive: true, force: true });
    await makeRepository(tool, place);
    this.#backupCount.delete(tool.name);
  }

  #folder(tool: Peer): string {
    return join(this.#options.scratch, `tool-${tool.name}`);
  }

  #place(tool: Peer): Place {
    const folder = this.#folder(tool);
    return {
      source: this.#source,
      repository: join(folder, "repository"),
      home: join(folder, "home"),
    };
  }

  #add(figure: Figure): void {
    const index = this.figures.findIndex(
      (other) => other.tool === figure.tool && other.row === figure.row,
    );
    const known = this.figures[index];
    if (known === undefined) this.figures.push(figure);
    else this.figures[index] = least(known, figure);
  }
}

/** Makes the folders of a tool, and its repository. */
export async function makeRepository(tool: Peer, place: Place): Promise<void> {
  mkdirSync(place.home, { recursive: true });
  if (tool.init === undefined) {
    mkdirSync(place.repository, { recursive: true });
    return;
  }
  // Some tools want an empty folder, others make it: the parent is there.
  await runMeasured(tool.init(place) satisfies readonly Command[]);
}

type Measured = Omit<Figure, "row" | "tool">;

const NOTHING: Measured = { runCount: 0, wallMs: 0, cpuMs: 0, peakBytes: 0 };

/** A command's cost with what our own process says of itself. */
export function measured(cost: Cost): Measured {
  const { wallMs, cpuMs, peakBytes, stdout } = cost;
  const answer = parseAnswer(stdout);
  return {
    runCount: 1,
    wallMs,
    cpuMs,
    peakBytes,
    ...(answer === undefined ? {} : { requests: answer.requests, ...readBytesOf(answer.result) }),
  };
}

function readBytesOf(result: unknown): { readBytes?: number } {
  if (typeof result !== "object" || result === null) return {};
  const totals = "totals" in result ? result.totals : result;
  if (typeof totals !== "object" || totals === null || !("readBytes" in totals)) return {};
  return { readBytes: Number(totals.readBytes) };
}

function limitOf(tool: Peer): { isLimit?: true } {
  return tool.isLimit === true ? { isLimit: true } : {};
}

function least(left: Figure, right: Figure): Figure {
  return {
    ...left,
    ...right,
    runCount: left.runCount + right.runCount,
    wallMs: Math.min(left.wallMs, right.wallMs),
    cpuMs: Math.min(left.cpuMs, right.cpuMs),
    peakBytes: Math.max(left.peakBytes, right.peakBytes),
    // Later unchanged backups may add less; the first of them is the one to look at.
    ...(left.storedBytes === undefined ? {} : { storedBytes: left.storedBytes }),
  };
}
