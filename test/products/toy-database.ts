/**
 * The toy database itself, for tests: append-only logs, snapshots that supersede logs, immutable
 * filesets, each complete when its checkpoint is there. Everything it does is a generator of steps,
 * one system call or two each, so that a test can let another process in between any two of them.
 * `read` gives back every record on the disk, as a restart of the toy would find them.
 */
import type { FileSystem } from "../../src/base/doors.ts";
import { joinPath } from "../../src/base/path.ts";

type Steps = Generator<undefined, void, undefined>;

/** What the toy can be asked to do beside `append`. */
export type ToyAction = "append" | "rotate" | "snapshot" | "flush" | "cleanup";

/** A running (or stopped) toy on a disk. */
export class ToyDatabase {
  readonly #files: FileSystem;
  readonly #root: string;
  /** Records that were acknowledged, by number. */
  readonly acknowledged = new Map<number, string>();
  /** Records that no fileset holds. */
  #unflushed = new Map<number, string>();
  #logNumber = 0;
  #logSizeBytes = 0;
  #setNumber = 0;
  #nextRecord = 1;

  constructor(files: FileSystem, root: string) {
    this.#files = files;
    this.#root = root;
  }

  /** Makes the folders if need be, finds what is on the disk, and runs. */
  start(): this {
    for (const folder of [
      this.#root,
      ...["logs", "snapshots", "filesets"].map((f) => this.#at(f)),
    ]) {
      if (this.#files.lstat(folder) === undefined) this.#files.makeDirectory(folder);
    }
    const found = this.read();
    this.acknowledged.clear();
    for (const [number, text] of found) this.acknowledged.set(number, text);
    this.#unflushed = new Map(found);
    this.#nextRecord = Math.max(0, ...found.keys()) + 1;
    const sets = [...this.#names("snapshots"), ...this.#names("filesets")];
    this.#setNumber = Math.max(0, ...sets.map((name) => Number(name.slice(0, 4))));
    this.#logNumber = Math.max(
      0,
      this.#newestSnapshot()?.firstLog ?? 0,
      ...this.#names("logs").map((name) => Number(name.slice(0, 4))),
    );
    run(this.rotateSteps());
    if (this.#files.lstat(this.#at("running")) === undefined) this.#create("running", "");
    return this;
  }

  /** The marker goes; what is on the disk stays. */
  stop(): void {
    if (this.#files.lstat(this.#at("running")) !== undefined)
      this.#files.unlink(this.#at("running"));
  }

  /** Appends a record; it is acknowledged when this returns. */
  append(text: string): number {
    const number = this.#nextRecord;
    this.#nextRecord += 1;
    const handle = this.#files.open(this.#logPath(this.#logNumber), "write");
    const line = new TextEncoder().encode(`${number}\t${text}\n`);
    try {
      this.#files.write(handle, line, this.#logSizeBytes);
    } finally {
      this.#files.close(handle);
    }
    this.#logSizeBytes += line.length;
    this.#unflushed.set(number, text);
    this.acknowledged.set(number, text);
    return number;
  }

  rotate(): void {
    run(this.rotateSteps());
  }

  snapshot(): void {
    run(this.snapshotSteps());
  }

  flush(): void {
    run(this.flushSteps());
  }

  cleanup(): void {
    run(this.cleanupSteps());
  }

  /** Any action as steps. */
  steps(action: ToyAction, text = "x"): Steps {
    switch (action) {
      case "append":
        return this.#appendSteps(text);
      case "rotate":
        return this.rotateSteps();
      case "snapshot":
        return this.snapshotSteps();
      case "flush":
        return this.flushSteps();
      case "cleanup":
        return this.cleanupSteps();
    }
  }

  *#appendSteps(text: string): Steps {
    this.append(text);
    yield;
  }

  /** Begins the next log. */
  *rotateSteps(): Steps {
    this.#logNumber += 1;
    this.#create(`logs/${name4(this.#logNumber)}.log`, "");
    this.#logSizeBytes = 0;
    yield;
  }

  /** Writes all that no fileset holds, and says from which log on logs are needed. */
  *snapshotSteps(): Steps {
    yield* this.rotateSteps();
    const firstLog = this.#logNumber;
    const records = encodeRecords(this.#unflushed);
    this.#setNumber += 1;
    const name = `snapshots/${name4(this.#setNumber)}`;
    yield;
    this.#create(`${name}.data`, records);
    yield;
    this.#create(`${name}.checkpoint`, JSON.stringify({ firstLog, sum: sumOf(records) }));
    yield;
  }

  /** Moves all records into a fileset. */
  *flushSteps(): Steps {
    const flushed = new Map(this.#unflushed);
    this.#setNumber += 1;
    const name = `filesets/${name4(this.#setNumber)}`;
    yield;
    const records = encodeRecords(flushed);
    this.#create(`${name}.data`, records);
    yield;
    this.#create(
      `${name}.checkpoint`,
      JSON.stringify({ records: flushed.size, sum: sumOf(records) }),
    );
    for (const number of flushed.keys()) this.#unflushed.delete(number);
    yield;
  }

  /** Removes logs and snapshots that the newest complete snapshot supersedes, checkpoints first. */
  *cleanupSteps(): Steps {
    const newest = this.#newestSnapshot();
    if (newest === undefined) return;
    for (const name of this.#names("logs")) {
      if (Number(name.slice(0, 4)) >= newest.firstLog) continue;
      this.#files.unlink(this.#at(`logs/${name}`));
      yield;
    }
    for (const name of this.#names("snapshots")) {
      if (name.slice(0, 4) >= newest.name) continue;
      this.#files.unlink(this.#at(`snapshots/${name}`));
      yield;
    }
  }

  /** All records on the disk, by number. */
  read(): Map<number, string> {
    const records = new Map<number, string>();
    const add = (text: string): void => {
      for (const [number, value] of decodeRecords(text)) records.set(number, value);
    };
    for (const name of this.#names("filesets")) {
      if (name.endsWith(".checkpoint")) add(this.#read(`filesets/${name.slice(0, 4)}.data`));
    }
    const newest = this.#newestSnapshot();
    if (newest !== undefined) add(this.#read(`snapshots/${newest.name}.data`));
    for (const name of this.#names("logs")) {
      if (Number(name.slice(0, 4)) >= (newest?.firstLog ?? 0)) add(this.#read(`logs/${name}`));
    }
    return records;
  }

  #newestSnapshot(): { readonly name: string; readonly firstLog: number } | undefined {
    const name = this.#names("snapshots")
      .findLast((one) => one.endsWith(".checkpoint"))
      ?.slice(0, 4);
    if (name === undefined) return undefined;
    const { firstLog } = JSON.parse(this.#read(`snapshots/${name}.checkpoint`)) as {
      firstLog: number;
    };
    return { name, firstLog };
  }

  #names(folder: string): string[] {
    const path = this.#at(folder);
    return this.#files.lstat(path) === undefined ? [] : this.#files.readDirectory(path).toSorted();
  }

  #at(path: string): string {
    return joinPath(this.#root, path);
  }

  #logPath(number: number): string {
    return this.#at(`logs/${name4(number)}.log`);
  }

  /** All of the file or nothing, also on a disk that is full. */
  #create(path: string, text: string): void {
    const temporary = `${this.#at(path)}.new`;
    if (this.#files.lstat(temporary) !== undefined) this.#files.unlink(temporary);
    const handle = this.#files.open(temporary, "create");
    try {
      this.#files.write(handle, new TextEncoder().encode(text), 0);
      this.#files.sync(handle);
    } finally {
      this.#files.close(handle);
    }
    this.#files.rename(temporary, this.#at(path));
  }

  #read(path: string): string {
    const handle = this.#files.open(this.#at(path), "r");
    try {
      const bytes = new Uint8Array(this.#files.stat(handle).sizeBytes);
      this.#files.read(handle, bytes, 0);
      return new TextDecoder().decode(bytes);
    } finally {
      this.#files.close(handle);
    }
  }
}

/** Runs steps to their end. */
export function run(steps: Steps): void {
  for (const _ of steps) {
    // Nobody else gets a turn.
  }
}

/** Records that `found` lacks or has otherwise, of those in `wanted`. */
export function missingRecords(
  wanted: ReadonlyMap<number, string>,
  found: ReadonlyMap<number, string>,
): number[] {
  return [...wanted].filter(([number, text]) => found.get(number) !== text).map(([n]) => n);
}

/** What a checkpoint says of its data. */
function sumOf(text: string): number {
  return Bun.hash.adler32(new TextEncoder().encode(text));
}

function encodeRecords(records: ReadonlyMap<number, string>): string {
  return [...records].map(([number, text]) => `${number}\t${text}\n`).join("");
}

/** A record that a copy cut off in the middle is no record. */
function decodeRecords(text: string): [number, string][] {
  return text
    .slice(0, text.lastIndexOf("\n") + 1)
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const [number = "", value = ""] = line.split("\t");
      return [Number(number), value];
    });
}

function name4(number: number): string {
  return String(number).padStart(4, "0");
}
