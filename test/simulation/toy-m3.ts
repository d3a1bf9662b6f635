/**
 * A toy M3 with the true life cycle: points are acknowledged in memory, written behind to a commit
 * log in chunks, snapshotted, flushed to filesets, merged into later volumes, expired; and what has
 * become superfluous is deleted, in the order of M3's own mediator, flush manager and cleanup (files
 * mediator.go, flush.go, coldflush.go, cleanup.go and commit_log.go of M3 1.5). Its four processes are
 * generators that end a step after each file operation, so a test can let a capture in between any
 * two of them. It can be killed at any step and started again.
 */
import { joinPath } from "../../src/base/path.ts";
import type { FileSystem } from "../../src/base/doors.ts";
import {
  commitLogFileName,
  filesetFileName,
  groupFilesets,
  parseSnapshotMetadataName,
  snapshotMetadataNames,
} from "../../src/products/m3/fileset-names.ts";
import { newestCompleteSnapshot } from "../../src/products/m3/snapshot-metadata.ts";
import {
  encodeFileset,
  encodeIndexFileset,
  encodeSnapshotMetadata,
} from "../products/m3/m3-encoders.ts";
import {
  addPoint,
  BLOCK_NS,
  encodePointChunk,
  encodePoints,
  isComplete,
  keyOf,
  NAMESPACE,
  namesOf,
  readLog,
  recover,
  snapshotUuidOf,
  writeWhole,
} from "./toy-m3-disk.ts";
import type { Point, Points } from "./toy-m3-disk.ts";

/** A process of the toy: one file operation a step. */
type Steps = Generator<undefined, void, undefined>;

/** A commit log that is open for writing. */
type Log = {
  readonly index: number;
  readonly path: string;
  readonly described: Set<number>;
  sizeBytes: number;
};

const SHARDS = [0, 1] as const;
/** In steps of the toy's clock. */
const BLOCK_STEPS = 600;
const BUFFER_PAST_STEPS = 60;
const RETENTION_BLOCKS = 5;
/** Up to where the dice say: write points, close logs, mediate, flush cold writes. */
const WEIGHTS = [0.3, 0.4, 0.8, 1];
const PENDING_COUNT_MAX = 12;

/** A running M3 on a disk. */
export class ToyM3 {
  readonly #files: FileSystem;
  readonly #root: string;
  readonly #fraction: () => number;
  /** Steps so far: also its clock. */
  now = 0;
  restartCount = 0;
  /** Points whose chunk is in a log, with their block: what M3 promises to know after a crash. */
  readonly durable = new Map<number, number>();
  /** Points that no complete fileset holds. */
  #unflushed: Points = new Map();
  /** Latest complete volume by shard and block. */
  #volumes = new Map<string, number>();
  #nextPoint = 1;
  #pending: Point[] = [];
  #primary: Log | undefined;
  #secondary: Log | undefined;
  /** The log that was rotated away, with what is still to be written to it. */
  #closing: { readonly log: Log; readonly pending: Point[] } | undefined;
  #isRotationWanted = false;
  #processes: Steps[] = [];
  #indexed = new Set<number>();

  constructor(files: FileSystem, root: string, fraction: () => number) {
    this.#files = files;
    this.#root = root;
    this.#fraction = fraction;
    for (const folder of ["", "commitlogs", "snapshots", "data", "index", "index/data"]) {
      files.makeDirectory(this.#at(folder));
    }
    for (const tree of ["snapshots", "data", "index/data"]) {
      files.makeDirectory(this.#at(`${tree}/${NAMESPACE}`));
      if (tree === "index/data") continue;
      for (const shard of SHARDS) files.makeDirectory(this.#at(`${tree}/${NAMESPACE}/${shard}`));
    }
    this.#start();
  }

  /** The oldest block that M3 still keeps. */
  get oldestBlock(): number {
    return Math.max(0, Math.floor(this.now / BLOCK_STEPS) - RETENTION_BLOCKS);
  }

  /** Lets the toy do so many file operations. */
  run(steps: number): void {
    for (let done = 0; done < steps; done += 1) {
      this.now += 1;
      const dice = this.#fraction();
      const chosen = WEIGHTS.findIndex((share) => dice < share);
      this.#processes[chosen]?.next();
    }
  }

  /** Killed here and now, and started again: what was in memory is gone. */
  crash(): void {
    for (const process of this.#processes) process.return();
    this.restartCount += 1;
    this.#pending = [];
    this.#primary = undefined;
    this.#secondary = undefined;
    this.#closing = undefined;
    this.#isRotationWanted = false;
    this.#start();
  }

  /** What must be found again, by the rules of M3: in a log before now, and not expired. */
  promised(): Map<number, number> {
    for (const [number, block] of this.durable) {
      if (block < this.oldestBlock) this.durable.delete(number);
    }
    return new Map(this.durable);
  }

  #start(): void {
    const { unflushed, flushed, volumes } = recover(this.#files, this.#root, {
      oldestBlock: this.oldestBlock,
    });
    this.#unflushed = unflushed;
    this.#volumes = volumes;
    for (const [key, points] of flushed) {
      for (const number of points) this.#unflushed.get(key)?.delete(number);
    }
    this.#indexed = new Set();
    this.#primary = this.#openLog();
    this.#secondary = this.#openLog();
    this.#processes = [this.#write(), this.#reset(), this.#mediate(), this.#flushCold()];
  }

  // The commit log.

  /** The next index after those that say what they are, and a name that is free. */
  #openLog(): Log {
    const folder = this.#at("commitlogs");
    const names = new Set(namesOf(this.#files, folder));
    let index = 0;
    for (const name of names) {
      index = Math.max(index, (readLog(this.#files, joinPath(folder, name)).index ?? -1) + 1);
    }
    while (names.has(commitLogFileName(index))) index += 1;
    const path = joinPath(folder, commitLogFileName(index));
    writeWhole(this.#files, path, new Uint8Array(0));
    return { index, path, described: new Set(), sizeBytes: 0 };
  }

  /** One thread acknowledges points, writes chunks and rotates. */
  *#write(): Steps {
    for (;;) {
      if (this.#isRotationWanted && this.#closing === undefined) {
        const log = this.#primary;
        if (log !== undefined) this.#closing = { log, pending: this.#pending };
        this.#primary = this.#secondary;
        this.#pending = [];
        this.#isRotationWanted = false;
        yield;
      }
      const isFlushDue = this.#pending.length >= PENDING_COUNT_MAX || this.#chance(0.1);
      if (isFlushDue && this.#primary !== undefined && this.#pending.length > 0) {
        const points = this.#pending;
        this.#pending = [];
        yield* this.#appendChunk(this.#primary, points);
      } else {
        this.#acknowledge();
        yield;
      }
    }
  }

  /** Closes the log that was rotated away and opens the one after the next. */
  *#reset(): Steps {
    for (;;) {
      if (this.#closing !== undefined) {
        const { log, pending } = this.#closing;
        yield* this.#appendChunk(log, pending);
        this.#secondary = this.#openLog();
        this.#closing = undefined;
      }
      yield;
    }
  }

  #acknowledge(): void {
    const block = Math.floor(this.now / BLOCK_STEPS);
    const isCold = this.#chance(0.15);
    const past = isCold ? 1 + this.#below(RETENTION_BLOCKS - 2) : 0;
    const point = {
      number: this.#nextPoint,
      shard: this.#below(SHARDS.length),
      block: Math.max(0, block - past),
    };
    this.#nextPoint += 1;
    addPoint(this.#unflushed, keyOf(point), point.number);
    this.#pending.push(point);
  }

  /** Sometimes a reader sees half of it. */
  *#appendChunk(log: Log, points: readonly Point[]): Steps {
    const isFirst = log.sizeBytes === 0;
    const chunk = encodePointChunk(points, { index: log.index, described: log.described, isFirst });
    const torn = this.#chance(0.3) ? this.#below(chunk.length) : 0;
    if (torn > 0) {
      this.#append(log, chunk.subarray(0, torn));
      yield;
    }
    this.#append(log, chunk.subarray(torn));
    for (const { number, block } of points) this.durable.set(number, block);
    yield;
  }

  #append(log: Log, bytes: Uint8Array): void {
    const handle = this.#files.open(log.path, "write");
    this.#files.write(handle, bytes, log.sizeBytes);
    this.#files.close(handle);
    log.sizeBytes += bytes.length;
  }

  // Warm flush, snapshot, cleanup: one process after the other.

  *#mediate(): Steps {
    for (;;) {
      for (let pause = this.#below(40); pause > 0; pause -= 1) yield;
      yield* this.#cleanIndex();
      yield* this.#cleanSnapshotsAndLogs();
      yield* this.#flushWarm();
      this.#isRotationWanted = true;
      while (this.#isRotationWanted) yield;
      yield* this.#snapshot();
      yield* this.#flushIndex();
    }
  }

  *#flushWarm(): Steps {
    const latest = Math.floor((this.now - BUFFER_PAST_STEPS) / BLOCK_STEPS) - 1;
    for (let block = this.oldestBlock; block <= latest; block += 1) {
      for (const shard of SHARDS) {
        const key = keyOf({ shard, block });
        if (this.#volumes.has(key)) continue;
        const points = new Set(this.#unflushed.get(key));
        yield* this.#writeFileset("data", { shard, block, volume: 0, points });
        this.#flushed(key, 0, points);
      }
    }
  }

  *#snapshot(): Steps {
    const logIndex = this.#primary?.index ?? 0;
    const uuid = Array.from({ length: 32 }, () => this.#below(16).toString(16)).join("");
    for (const shard of SHARDS) {
      const folder = this.#at(`snapshots/${NAMESPACE}/${shard}`);
      for (let block = this.oldestBlock; block <= Math.floor(this.now / BLOCK_STEPS); block += 1) {
        const points = this.#unflushed.get(keyOf({ shard, block }));
        if (points === undefined || points.size === 0) continue;
        const start = BigInt(block) * BLOCK_NS;
        const last = groupFilesets(namesOf(this.#files, folder)).filesets.findLast(
          (one) => one.blockStartNs === start && isComplete(this.#files, folder, one),
        );
        const volume = (last?.volume ?? -1) + 1;
        yield* this.#writeFileset("snapshots", {
          shard,
          block,
          volume,
          points: new Set(points),
          uuid,
        });
      }
    }
    const folder = this.#at("snapshots");
    const index = (newestCompleteSnapshot(this.#files, folder)?.index ?? -1) + 1;
    const names = snapshotMetadataNames({ uuid, index });
    const path = this.#at(`commitlogs/${commitLogFileName(logIndex)}`);
    const bytes = encodeSnapshotMetadata({ index, uuid, commitLog: { path, index: logIndex } });
    yield* this.#writeFile(joinPath(folder, names.metadata), bytes.metadata);
    yield* this.#writeFile(joinPath(folder, names.checkpoint), bytes.checkpoint);
  }

  *#flushIndex(): Steps {
    for (const key of this.#volumes.keys()) {
      const block = Number(key.split("/")[1]);
      if (this.#indexed.has(block) || block < this.oldestBlock) continue;
      this.#indexed.add(block);
      const folder = this.#at(`index/data/${NAMESPACE}`);
      const { filesets } = groupFilesets(namesOf(this.#files, folder));
      const start = BigInt(block) * BLOCK_NS;
      const volume = filesets.filter(({ blockStartNs }) => blockStartNs === start).length;
      const name = { blockStartNs: start, volume, isLegacy: false };
      for (const [part, bytes] of encodeIndexFileset(encodePoints([block]))) {
        yield* this.#writeFile(joinPath(folder, filesetFileName(name, part)), bytes);
      }
    }
  }

  *#cleanIndex(): Steps {
    const folder = this.#at(`index/data/${NAMESPACE}`);
    for (const { blockStartNs, names } of groupFilesets(namesOf(this.#files, folder)).filesets) {
      if (Number(blockStartNs / BLOCK_NS) >= this.oldestBlock) continue;
      yield* this.#removeAll(folder, [...names.values()].toSorted());
    }
  }

  /** Decides all, then deletes all: snapshot files, their metadata, commit logs. */
  *#cleanSnapshotsAndLogs(): Steps {
    const snapshots = this.#at("snapshots");
    const newest = newestCompleteSnapshot(this.#files, snapshots);
    if (newest === undefined) return;
    const doomed: string[] = [];
    for (const shard of SHARDS) {
      const folder = joinPath(snapshots, `${NAMESPACE}/${shard}`);
      for (const fileset of groupFilesets(namesOf(this.#files, folder)).filesets) {
        const isKept =
          isComplete(this.#files, folder, fileset) &&
          snapshotUuidOf(this.#files, folder, fileset) === newest.uuid;
        if (isKept) continue;
        for (const name of [...fileset.names.values()].toSorted())
          doomed.push(joinPath(folder, name));
      }
    }
    for (const name of namesOf(this.#files, snapshots).toSorted()) {
      const parsed = parseSnapshotMetadataName(name);
      if (parsed === undefined || parsed.isCheckpoint || parsed.uuid === newest.uuid) continue;
      doomed.push(joinPath(snapshots, name));
      doomed.push(joinPath(snapshots, snapshotMetadataNames(parsed).checkpoint));
    }
    yield;
    const logs = this.#at("commitlogs");
    const active = new Set([this.#primary?.path, this.#secondary?.path]);
    for (const name of namesOf(this.#files, logs)) {
      const path = joinPath(logs, name);
      if (active.has(path)) continue;
      // Without an index it is a leftover of a crash: M3 calls it corrupt and deletes it too.
      if ((readLog(this.#files, path).index ?? -1) < newest.commitLog.index) doomed.push(path);
    }
    yield* this.#removeAll("", doomed);
  }

  // Cold writes: a process of its own.

  *#flushCold(): Steps {
    for (;;) {
      for (let pause = this.#below(60); pause > 0; pause -= 1) yield;
      yield* this.#cleanData();
      for (const [key, volume] of new Map(this.#volumes)) {
        const points = new Set(this.#unflushed.get(key));
        const [shard = 0, block = 0] = key.split("/").map(Number);
        if (points.size === 0 || block < this.oldestBlock) continue;
        const merged = new Set([...this.#pointsOf(shard, block, volume), ...points]);
        yield* this.#writeFileset("data", { shard, block, volume: volume + 1, points: merged });
        this.#flushed(key, volume + 1, points);
      }
    }
  }

  /** Expired blocks, and volumes that a later one has replaced. */
  *#cleanData(): Steps {
    for (const shard of SHARDS) {
      const folder = this.#at(`data/${NAMESPACE}/${shard}`);
      const { filesets } = groupFilesets(namesOf(this.#files, folder));
      for (const fileset of filesets) {
        const block = Number(fileset.blockStartNs / BLOCK_NS);
        const isExpired = block < this.oldestBlock;
        const latest = this.#volumes.get(keyOf({ shard, block })) ?? -1;
        if (!isExpired && fileset.volume >= latest) continue;
        yield* this.#removeAll(folder, [...fileset.names.values()].toSorted());
      }
    }
    for (const key of [...this.#unflushed.keys(), ...this.#volumes.keys()]) {
      if (Number(key.split("/")[1]) >= this.oldestBlock) continue;
      this.#unflushed.delete(key);
      this.#volumes.delete(key);
    }
  }

  #pointsOf(shard: number, block: number, volume: number): Set<number> {
    const name = { blockStartNs: BigInt(block) * BLOCK_NS, volume, isLegacy: false };
    const path = this.#at(`data/${NAMESPACE}/${shard}/${filesetFileName(name, "data")}`);
    const handle = this.#files.open(path, "r");
    const bytes = new Uint8Array(this.#files.stat(handle).sizeBytes);
    this.#files.read(handle, bytes, 0);
    this.#files.close(handle);
    return new Set(new Uint32Array(bytes.buffer));
  }

  // Files.

  *#writeFileset(
    tree: "data" | "snapshots",
    of: {
      readonly shard: number;
      readonly block: number;
      readonly volume: number;
      readonly points: ReadonlySet<number>;
      readonly uuid?: string;
    },
  ): Steps {
    const { shard, block, volume, points, uuid } = of;
    const folder = this.#at(`${tree}/${NAMESPACE}/${shard}`);
    const name = { blockStartNs: BigInt(block) * BLOCK_NS, volume, isLegacy: false };
    const content = { ...name, entryCount: 1, data: encodePoints(points) };
    const parts = encodeFileset(uuid === undefined ? content : { ...content, snapshotUuid: uuid });
    for (const [part, bytes] of parts) {
      yield* this.#writeFile(joinPath(folder, filesetFileName(name, part)), bytes);
    }
  }

  /** Opened first, filled then: an empty file is seen in between, always of those that matter. */
  *#writeFile(path: string, bytes: Uint8Array): Steps {
    if (path.endsWith("-checkpoint.db") || this.#chance(0.2)) {
      writeWhole(this.#files, path, new Uint8Array(0));
      yield;
    }
    writeWhole(this.#files, path, bytes);
    yield;
  }

  *#removeAll(folder: string, names: readonly string[]): Steps {
    for (const name of names) {
      const path = folder === "" ? name : joinPath(folder, name);
      if (this.#files.lstat(path) !== undefined) this.#files.unlink(path);
      yield;
    }
  }

  #flushed(key: string, volume: number, points: ReadonlySet<number>): void {
    this.#volumes.set(key, volume);
    const left = this.#unflushed.get(key);
    for (const number of points) left?.delete(number);
  }

  #at(path: string): string {
    return joinPath(this.#root, path);
  }

  #below(limit: number): number {
    return Math.floor(this.#fraction() * limit);
  }

  #chance(probability: number): boolean {
    return this.#fraction() < probability;
  }
}
