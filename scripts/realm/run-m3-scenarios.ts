/**
 * Runs the scenarios on a real M3 cluster and prints what each found; ends with 1 if one failed.
 *
 * Usage: run-m3-scenarios.ts [--only NAME,NAME] [--uid N --gid N] [--folder DIR] [--json FILE]
 *   --only    some of them; all unless given
 *   --uid     Astacus runs as this user (M3 runs as the one who calls; needs root)
 *   --folder  where everything lies; a temporary folder unless given
 */
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { renderTable } from "../../src/cli/table.ts";
import { installM3 } from "../real/m3.ts";
import { M3_SCENARIOS } from "./m3-scenarios.ts";
import type { Figures } from "./m3-scenarios.ts";

const COLUMNS = ["SCENARIO", "", "TOOK", "FIGURES"].map((title) => ({ title }));

type Outcome = {
  readonly name: string;
  readonly seconds: number;
  readonly figures?: Figures;
  readonly failure?: string;
};

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      only: { type: "string" },
      uid: { type: "string" },
      gid: { type: "string" },
      folder: { type: "string" },
      json: { type: "string" },
    },
  });
  const wanted = values.only?.split(",");
  const strangers = wanted?.filter((name) => !M3_SCENARIOS.some((one) => one.name === name)) ?? [];
  if (strangers.length > 0) {
    const names = M3_SCENARIOS.map(({ name }) => name).join(", ");
    console.error(`there is no scenario ${strangers.join(", ")}; there are ${names}`);
    return 2;
  }
  const programs = await installM3();
  if ("missing" in programs) {
    console.error(`missing: ${programs.missing}`);
    return 1;
  }
  const { uid } = values;
  const runAs = uid === undefined ? {} : { runAs: { uid: Number(uid), gid: Number(values.gid) } };
  const outcomes: Outcome[] = [];
  for (const scenario of M3_SCENARIOS) {
    if (wanted?.includes(scenario.name) === false) continue;
    console.log(`${scenario.name}: ${scenario.what}`);
    const folder = fs.mkdtempSync(join(values.folder ?? fs.realpathSync(tmpdir()), "astacus-m3-"));
    fs.chmodSync(folder, 0o755);
    const startedMs = performance.now();
    const seconds = (): number => Math.round((performance.now() - startedMs) / 1000);
    try {
      const say = (message: string): void => console.log(`  ${seconds()} s  ${message}`);
      const figures = await scenario.run({ folder, say, ...runAs });
      outcomes.push({ name: scenario.name, seconds: seconds(), figures });
      fs.rmSync(folder, { recursive: true, force: true });
    } catch (thrown) {
      const failure = thrown instanceof Error ? thrown.message : String(thrown);
      outcomes.push({ name: scenario.name, seconds: seconds(), failure });
      console.error(`  FAILED after ${seconds()} s, files kept in ${folder}: ${failure}`);
    }
  }
  print(outcomes);
  if (values.json !== undefined) fs.writeFileSync(values.json, JSON.stringify(outcomes, null, 2));
  return outcomes.every(({ failure }) => failure === undefined) ? 0 : 1;
}

function print(outcomes: readonly Outcome[]): void {
  const rows = outcomes.map(({ name, seconds, figures = {}, failure }) => [
    name,
    failure === undefined ? "ok" : "FAILED",
    `${seconds} s`,
    Object.entries(figures)
      .map(([what, figure]) => `${what} ${figure}`)
      .join(", "),
  ]);
  console.log(renderTable(COLUMNS, rows));
}

if (import.meta.main) process.exitCode = await main();
