/**
 * The M3 database, built once with the Go toolchain into the cache: `m3dbnode`, which includes the
 * coordinator, two of M3's own tools that read data files, and a small one of ours that asks a node for
 * points. Starting a cluster is the matter of scripts/realm.
 *
 *   bun scripts/real/m3.ts install
 */
import { join } from "node:path";
import { buildGoModule } from "./go-build.ts";
import type { Missing } from "./missing.ts";

/** The version of M3 that is built; the newest release whose modules a Go proxy serves. */
export const M3_VERSION = "1.5.0";

const MODULE = {
  name: `m3-${M3_VERSION}`,
  folder: join(import.meta.dir, "m3"),
  programs: {
    m3dbnode: "github.com/m3db/m3/src/cmd/services/m3dbnode/main",
    verify_data_files: "github.com/m3db/m3/src/cmd/tools/verify_data_files/main",
    read_data_files: "github.com/m3db/m3/src/cmd/tools/read_data_files/main",
    // Ours; to be renamed when it changes, since the cache knows programs by name.
    fetch_points: "./fetch_points",
  },
  megabytes: 3072,
};

/** Paths of the programs. */
export type M3Programs = {
  readonly m3dbnode: string;
  /** `-p PREFIX -f` ends with 1 if a fileset below PREFIX is damaged. */
  readonly verifyDataFiles: string;
  /** Prints the points of a fileset. */
  readonly readDataFiles: string;
  /** Prints what one node has of series; see its source for what it reads and writes. */
  readonly fetchPoints: string;
};

/** Builds M3 if it is not in the cache; the first time that takes 3 to 7 minutes on two cores. */
export async function installM3(): Promise<M3Programs | Missing> {
  const folder = await buildGoModule(MODULE);
  if (typeof folder !== "string") return folder;
  return {
    m3dbnode: join(folder, "m3dbnode"),
    verifyDataFiles: join(folder, "verify_data_files"),
    readDataFiles: join(folder, "read_data_files"),
    fetchPoints: join(folder, "fetch_points"),
  };
}

if (import.meta.main) {
  if (Bun.argv[2] === "install") {
    const programs = await installM3();
    if ("missing" in programs) console.error(`missing: ${programs.missing}`);
    else console.log(Object.values(programs).join("\n"));
    process.exitCode = "missing" in programs ? 1 : 0;
  } else {
    console.error("usage: bun scripts/real/m3.ts install");
    process.exitCode = 2;
  }
}
