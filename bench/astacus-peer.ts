/**
 * Astacus in the shape of the other tools: which commands do what. Each command is one process
 * (bench/astacus-node.ts); what it prints says more than a peer tells.
 */
import { join } from "node:path";
import type { AstacusNodeAnswer, AstacusNodeOptions } from "./astacus-node.ts";
import type { Command } from "./measure.ts";
import type { Peer, Place } from "./peers.ts";
import type { Workload } from "./workload.ts";

/** What is set for one run. */
export type AstacusSettings = {
  readonly workload?: Pick<Workload, "immutable" | "appendOnly">;
  readonly averageSizeBytes?: number;
  readonly name?: string;
};

/** Ourselves. */
export function astacusPeer(settings: AstacusSettings = {}): Peer {
  const { workload, averageSizeBytes } = settings;
  const run = (command: string, place: Place, more: Partial<AstacusNodeOptions> = {}): Command => {
    const options: AstacusNodeOptions = {
      ...place,
      ...(workload?.immutable === undefined ? {} : { immutable: [...workload.immutable] }),
      ...(workload?.appendOnly === undefined ? {} : { appendOnly: [...workload.appendOnly] }),
      ...(averageSizeBytes === undefined ? {} : { averageSizeBytes }),
      ...more,
    };
    const script = join(import.meta.dir, "astacus-node.ts");
    return { argv: [process.execPath, script, command, JSON.stringify(options)] };
  };
  return {
    name: settings.name ?? "astacus",
    program: process.execPath,
    version: [process.execPath, "--version"],
    note: "zstd 1 where it pays, 2 workers",
    init: (place) => [run("init", place)],
    backup: (place, name) => [run("backup", place, { name })],
    restore: (place, name, target) => [run("restore", place, { name, target })],
    list: (place) => [run("list", place)],
    drop: (place, names) => [run("drop", place, { drop: [...names] })],
  };
}

/** What our own process told; undefined for the output of another tool. */
export function parseAnswer(stdout: string): AstacusNodeAnswer | undefined {
  const line = stdout.trim().split("\n").at(-1) ?? "";
  if (!line.startsWith('{"requests"')) return undefined;
  return JSON.parse(line) as AstacusNodeAnswer;
}
