/**
 * Runs a command and says what it took: wall time, processor time of the command and all that it
 * waited for, and the peak memory of its largest process. The peak comes from GNU time where that is
 * installed: what a process inherits from the one that started it (us) would count otherwise.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A command as it is typed. */
export type Command = {
  readonly argv: readonly string[];
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
};

/** What one or several commands took. */
export type Cost = {
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly peakBytes: number;
  readonly stdout: string;
};

const GNU_TIME = "/usr/bin/time";

/** Runs commands one after the other and adds them up; the first failure ends it. */
export async function runMeasured(commands: readonly Command[]): Promise<Cost> {
  const total = { wallMs: 0, cpuMs: 0, peakBytes: 0, stdout: "" };
  for (const command of commands) {
    const cost = await runOne(command);
    total.wallMs += cost.wallMs;
    total.cpuMs += cost.cpuMs;
    total.peakBytes = Math.max(total.peakBytes, cost.peakBytes);
    total.stdout = cost.stdout;
  }
  return total;
}

async function runOne(command: Command): Promise<Cost> {
  const folder = mkdtempSync(join(tmpdir(), "astacus-measure-"));
  try {
    const report = join(folder, "peak");
    const isTimed = existsSync(GNU_TIME);
    const prefix = isTimed ? [GNU_TIME, "-f", "%M", "-o", report] : [];
    const startMs = performance.now();
    const child = Bun.spawn([...prefix, ...command.argv], {
      ...(command.cwd === undefined ? {} : { cwd: command.cwd }),
      env: { ...process.env, ...command.env },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const texts = Promise.all([child.stdout.text(), child.stderr.text()]);
    const exitCode = await child.exited;
    const wallMs = performance.now() - startMs;
    const [stdout, stderr] = await texts;
    if (exitCode !== 0) {
      throw new Error(`${command.argv.join(" ")} ended with ${exitCode}: ${stderr || stdout}`);
    }
    const usage = child.resourceUsage();
    return {
      wallMs,
      cpuMs: Number(usage?.cpuTime.total ?? 0) / 1000,
      peakBytes: isTimed
        ? Number(readFileSync(report, "utf8").trim().split("\n").at(-1)) * 1024
        : (usage?.maxRSS ?? 0),
      stdout,
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
