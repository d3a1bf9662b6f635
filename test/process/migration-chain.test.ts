/**
 * The scenario of migrations with little data: a repository of 200 MB goes from a directory over two
 * S3 servers and Azure's emulator to a directory, while backups are made and a server is ended in each
 * migration; then every backup is restored whole from the last directory alone and compared.
 * What is missing is named in brackets; in CI that is a failure. With much data it is
 * `bun run scenario:migration`.
 */
import { afterAll, expect, test } from "bun:test";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runMigrations } from "../../scripts/scenario-migration-run.ts";
import { openPlace } from "../../scripts/scenario-places.ts";

const KINDS = ["directory", "s3", "minio", "azure", "directory"];
const SIZE_BYTES = 200_000_000;
const BACKUPS = 8;
const KILLS = 4;
/** Some two minutes where nothing else runs. */
const TIMEOUT_MS = 600_000;

const FOLDER = fs.mkdtempSync(join(fs.realpathSync(tmpdir()), "astacus-migration-"));
const places = await Promise.all(
  KINDS.map((kind, index) => openPlace({ kind, name: `s${index + 1}`, folder: FOLDER })),
);
const opened = places.flatMap((place) => ("missing" in place ? [] : [place]));
const missing = places.flatMap((place) => ("missing" in place ? [place.missing] : []));

afterAll(async () => {
  for (const { stop } of opened) await stop();
  fs.rmSync(FOLDER, { recursive: true, force: true });
});

const needs = missing.length === 0 ? "" : ` [needs ${missing.join(", ")}]`;
test.skipIf(needs !== "")(
  `backups move over four kinds of sites while servers die, and none of them loses a byte${needs}`,
  async () => {
    const result = await runMigrations({
      folder: FOLDER,
      places: opened,
      sizeBytes: SIZE_BYTES,
      backups: BACKUPS,
      kills: KILLS,
      seed: "chain",
    });
    expect(result.differences).toEqual([]);
    expect(result.hops.map(({ from, to }) => [from, to])).toEqual([
      ["directory", "s3"],
      ["s3", "minio"],
      ["minio", "azure"],
      ["azure", "directory"],
    ]);
    expect(result.hops.reduce((sum, { kills }) => sum + kills, 0)).toBeGreaterThanOrEqual(
      KILLS - 2,
    );
    // At least one was made beside each migration.
    expect(result.backupsListed).toBeGreaterThanOrEqual(BACKUPS + KINDS.length - 1);
    expect(result.restoredWhole).toBe(result.backupsListed);
    // Three nodes, and two entries at least of each round that a backup holds.
    expect(result.comparedEntries).toBeGreaterThan(result.backupsListed * 3 * 10);
  },
  TIMEOUT_MS,
);
