/**
 * Backup and restore of a real M3 cluster under writes: three m3dbnodes with etcd, three servers of
 * Astacus, and a ledger that says what was acknowledged when. The other scenarios take longer and
 * have a command of their own (docs/products/m3.md). Without a Go toolchain they are skipped by name.
 */
import { afterAll, describe, expect, test } from "bun:test";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { installM3 } from "../../scripts/real/m3.ts";
import { newNames, wipeAll } from "../../scripts/realm/m3-scenarios.ts";

const TIMEOUT_MS = 400_000;
const FOLDER = fs.mkdtempSync(join(fs.realpathSync(tmpdir()), "astacus-m3-"));
const programs = await installM3();

afterAll(() => fs.rmSync(FOLDER, { recursive: true, force: true }));

const context = { folder: FOLDER, say: () => undefined };

if ("missing" in programs) {
  test.skip(`backups of a real M3 cluster [needs go: ${programs.missing}]`, () => undefined);
} else {
  describe("a real M3 cluster", () => {
    test(
      "holds all that was acknowledged before the backup when nodes and etcd were wiped",
      async () => {
        const figures = await wipeAll(context);
        expect(figures["unchangedReadBytes"]).toBe(0);
        expect(Number(figures["firstPoints"])).toBeGreaterThan(500);
        expect(Number(figures["secondPoints"])).toBeGreaterThan(Number(figures["firstPoints"]));
      },
      TIMEOUT_MS,
    );

    test(
      "comes back under rotated names, and under new ones in another environment",
      async () => {
        const figures = await newNames(context);
        expect(Number(figures["rotatedPoints"])).toBeGreaterThan(500);
        expect(figures["newPoints"]).toBe(figures["rotatedPoints"]);
      },
      TIMEOUT_MS,
    );
  });
}
