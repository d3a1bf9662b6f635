/**
 * A repository with twenty backups moves from site to site while backups go on and servers are ended
 * by SIGKILL; then every backup is restored from the last site alone, and compared with what was
 * there, byte by byte, by code that shares nothing with Astacus. What it does is in
 * scenario-migration-run.ts.
 *
 *   bun run scenario:migration [--size 200MB] [--kills 10] [--sites directory,s3,minio,azure,directory]
 *     --size SIZE     bytes of all files that are ever made, over three nodes
 *     --kills N       servers that are ended while a migration runs
 *     --backups N     backups before the first migration
 *     --restores N    backups that are restored whole, all unless told; of the others only what each added
 *     --seed TEXT     draws data, victims and moments
 *     --keep          leave the folder, for a look at it
 */
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { parseSize } from "../src/base/units.ts";
import { renderTable, size } from "../src/cli/table.ts";
import { runMigrations } from "./scenario-migration-run.ts";
import type { MigrationScenarioResult } from "./scenario-migration-run.ts";
import { openPlace } from "./scenario-places.ts";
import type { OpenedPlace } from "./scenario-places.ts";

/** The roots, each site, and one restored backup at a time. */
const SPACE_FACTOR = 8;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      size: { type: "string", default: "200MB" },
      kills: { type: "string", default: "10" },
      backups: { type: "string", default: "20" },
      restores: { type: "string" },
      sites: { type: "string", default: "directory,s3,minio,azure,directory" },
      seed: { type: "string", default: String(Math.floor(performance.timeOrigin)) },
      keep: { type: "boolean", default: false },
    },
  });
  const sizeBytes = parseSize(values.size);
  const { bavail, bsize } = fs.statfsSync(tmpdir());
  if (bavail * bsize < sizeBytes * SPACE_FACTOR) {
    console.error(
      `${tmpdir()} has ${size(bavail * bsize)} free; ${SPACE_FACTOR} times the size is needed.`,
    );
    return 1;
  }
  const folder = fs.mkdtempSync(join(fs.realpathSync(tmpdir()), "astacus-migration-"));
  const opened: OpenedPlace[] = [];
  try {
    for (const [index, kind] of values.sites.split(",").entries()) {
      const place = await openPlace({ kind, name: `s${index + 1}`, folder });
      if ("missing" in place) console.error(`left out, missing: ${place.missing}`);
      else opened.push(place);
    }
    const result = await runMigrations({
      folder,
      places: opened,
      sizeBytes,
      backups: Number(values.backups),
      kills: Number(values.kills),
      ...(values.restores === undefined ? {} : { restores: Number(values.restores) }),
      seed: values.seed,
      say: (text) => console.error(text),
    });
    console.error(table(result));
    console.log(JSON.stringify({ size: values.size, seed: values.seed, ...result }, undefined, 2));
    return result.differences.length === 0 ? 0 : 1;
  } finally {
    for (const { stop } of opened) await stop();
    if (values.keep) console.error(`kept: ${folder}`);
    else fs.rmSync(folder, { recursive: true, force: true });
  }
}

function table(result: MigrationScenarioResult): string {
  const titles = [
    "FROM",
    "TO",
    "TOOK",
    "TRIES",
    "KILLS",
    "BACKUPS",
    "COPIED",
    "RATE",
    "RETIRE",
    "REQUESTS",
  ];
  const rows = result.hops.map((hop) => [
    hop.from,
    hop.to,
    `${hop.seconds.toFixed(1)} s`,
    String(hop.tries),
    String(hop.kills),
    String(hop.backupsMeanwhile),
    size(hop.bytes),
    `${size(Math.round(hop.bytes / hop.seconds))}/s`,
    `${hop.retireSeconds.toFixed(1)} s`,
    hop.requests,
  ]);
  const head = titles.map((title, index) => ({ title, isNumber: index > 1 && index < 9 }));
  return [
    renderTable(head, rows),
    `${result.backupsListed} backups restored from ${result.lastSite} alone, ` +
      `${result.restoredWhole} of them whole, ${result.comparedEntries} entries compared: ${result.differences.length} differences`,
    ...result.differences.slice(0, 20),
  ].join("\n");
}

process.exitCode = await main();
