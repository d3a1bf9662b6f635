/**
 * What lies in the data folder of one M3 node, read from the names of its files alone. A fileset is
 * complete when its checkpoint is there, and only complete ones are counted; a fileset of nothing but
 * an empty block is told apart by the size of its data.
 */
import * as fs from "node:fs";
import { join } from "node:path";

/** What a node has on disk. */
export type M3Files = {
  /** Indexes of commit logs, ascending. */
  readonly commitLogs: readonly number[];
  /** Indexes of complete snapshots, ascending. */
  readonly snapshots: readonly number[];
  /** Complete filesets of data, of all shards. */
  readonly filesetCount: number;
  /** Of these, those that hold points. */
  readonly filledFilesetCount: number;
  /** Of these, those of volume 1 and up: cold writes merged. */
  readonly coldFilesetCount: number;
  readonly snapshotFilesetCount: number;
  readonly indexFilesetCount: number;
  readonly fileCount: number;
  readonly sizeBytes: number;
};

/** Reads the data folder of a node; empty if it is not there. */
export function readM3Files(dataFolder: string): M3Files {
  const files = new Map<string, number>();
  const root = fs.existsSync(dataFolder)
    ? fs.readdirSync(dataFolder, { recursive: true, withFileTypes: true })
    : [];
  for (const entry of root) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    // M3 removes files all the time.
    const stat = fs.statSync(path, { throwIfNoEntry: false });
    if (stat !== undefined) files.set(path.slice(dataFolder.length + 1), stat.size);
  }
  const names = [...files.keys()];
  const numbers = (pattern: RegExp) =>
    names.flatMap((name) => pattern.exec(name)?.[1] ?? []).map(Number);
  const filesets = names.filter((name) => /^data\/.*-checkpoint\.db$/.test(name));
  const filled = filesets.filter(
    (name) => (files.get(name.replace(/checkpoint\.db$/, "data.db")) ?? 0) > 0,
  );
  return {
    commitLogs: numbers(/^commitlogs\/commitlog-\d+-(\d+)\.db$/).toSorted((a, b) => a - b),
    snapshots: numbers(/^snapshots\/snapshot-.*-(\d+)-metadata-checkpoint\.db$/).toSorted(
      (a, b) => a - b,
    ),
    filesetCount: filesets.length,
    filledFilesetCount: filled.length,
    coldFilesetCount: filled.filter((name) => !name.endsWith("-0-checkpoint.db")).length,
    snapshotFilesetCount: numbers(/^snapshots\/.*\/fileset-(\d+)-\d+-checkpoint\.db$/).length,
    indexFilesetCount: numbers(/^index\/data\/.*\/fileset-(\d+)-\d+-checkpoint\.db$/).length,
    fileCount: files.size,
    sizeBytes: [...files.values()].reduce((sum, size) => sum + size, 0),
  };
}
