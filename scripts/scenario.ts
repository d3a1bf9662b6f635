/**
 * The scenario on real data, from the command line; what it does is in scenario-run.ts, and what it
 * found on a large cache in docs/scenarios.md.
 *
 * Usage: scenario.ts --data PATH… [--site directory|s3] [--kills N] [--seed TEXT] [--keep]
 *   --data PATH   a folder of files; may be repeated; it is copied and never written to
 *   --site KIND   a directory (default), or a real S3 server (needs Go, see real/s3.ts)
 *   --kills N     instead, end servers by SIGKILL until N such ends have been survived
 *   --keep        leave the folder, for a look at it
 */
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { renderTable, size } from "../src/cli/table.ts";
import { startS3Server } from "./real/s3.ts";
import { sizeOf } from "./scenario-data.ts";
import { runKills } from "./scenario-kills.ts";
import { runScenario } from "./scenario-run.ts";
import type { ScenarioResult } from "./scenario-run.ts";

/** Three copies of the roots, the site, and some room. */
const SPACE_FACTOR = 5;

type Place = {
  readonly site: string;
  readonly siteFolder: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly stop: () => Promise<void>;
};

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      data: { type: "string", multiple: true },
      site: { type: "string", default: "directory" },
      kills: { type: "string" },
      seed: { type: "string", default: String(Math.floor(performance.timeOrigin)) },
      keep: { type: "boolean", default: false },
    },
  });
  const sources = (values.data ?? []).map((path) => resolve(path));
  if (sources.length === 0 || !["directory", "s3"].includes(values.site)) {
    console.error("usage: scenario.ts --data PATH… [--site directory|s3] [--kills N] [--keep]");
    return 2;
  }
  const needed = sources.reduce((sum, path) => sum + sizeOf(path), 0) * SPACE_FACTOR;
  const { bavail, bsize } = fs.statfsSync(tmpdir());
  if (bavail * bsize < needed) {
    console.error(`${tmpdir()} has ${size(bavail * bsize)} free, and ${size(needed)} are needed.`);
    return 1;
  }
  const folder = fs.mkdtempSync(join(fs.realpathSync(tmpdir()), "astacus-scenario-"));
  let place: Place | undefined;
  try {
    place = await openPlace(values.site, folder);
    const { site, siteFolder, environment } = place;
    const options = {
      folder,
      sources,
      site,
      siteFolder,
      environment,
      say: (text: string) => console.error(text),
    };
    if (values.kills !== undefined) {
      const killed = await runKills({ ...options, count: Number(values.kills), seed: values.seed });
      console.log(
        JSON.stringify({ site: values.site, seed: values.seed, ...killed }, undefined, 2),
      );
      return killed.differences.length === 0 ? 0 : 1;
    }
    const result = await runScenario(options);
    console.error(table(result));
    console.log(JSON.stringify({ site: values.site, ...result }, undefined, 2));
    return Object.values(result.differences).every((one) => one.length === 0) ? 0 : 1;
  } finally {
    await place?.stop();
    if (values.keep) console.error(`kept: ${folder}`);
    else fs.rmSync(folder, { recursive: true, force: true });
  }
}

async function openPlace(kind: string, folder: string): Promise<Place> {
  const siteFolder = join(folder, "site");
  if (kind === "directory") {
    const site = `{name: main, type: directory, path: "${siteFolder}"}`;
    return { site, siteFolder, environment: {}, stop: async () => undefined };
  }
  const server = await startS3Server({ directory: siteFolder });
  if ("missing" in server) throw new Error(`missing: ${server.missing}`);
  const { endpoint, bucket, accessKeyId, secretAccessKey } = server;
  const site =
    `{name: main, type: s3, bucket: ${bucket}, endpoint: "${endpoint}", ` +
    "accessKeyId: {env: SCENARIO_KEY_ID}, secretAccessKey: {env: SCENARIO_KEY}}";
  const environment = { SCENARIO_KEY_ID: accessKeyId, SCENARIO_KEY: secretAccessKey };
  return { site, siteFolder, environment, stop: async () => await server.stop() };
}

function table(result: ScenarioResult): string {
  const rows = result.steps.map((step) => {
    const requests = Object.entries(step.requests).filter(([, count]) => count > 0);
    return [
      step.step,
      `${step.seconds.toFixed(1)} s`,
      String(step.files),
      size(step.bytes),
      size(step.readBytes),
      size(step.storedBytes),
      requests.map(([kind, count]) => `${kind} ${count}`).join(", "),
    ];
  });
  const titles = ["STEP", "TOOK", "FILES", "SIZE", "READ", "STORED", "REQUESTS"];
  const head = titles.map((title, index) => ({ title, isNumber: index > 0 && index < 6 }));
  const peaks = Object.entries(result.peakRssBytes).map(
    ([name, bytes]) => `${name} ${size(bytes)}`,
  );
  const different = Object.values(result.differences).flat();
  return [
    renderTable(head, rows),
    `peak resident: ${peaks.join(", ")}`,
    `the site holds ${size(result.siteBytes)}`,
    `${result.comparedEntries} entries compared: ${different.length} differences`,
    ...different.slice(0, 20),
  ].join("\n");
}

process.exitCode = await main();
