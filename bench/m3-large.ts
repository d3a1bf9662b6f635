/**
 * The M3 product on a large node: a generated data directory of 100,000 filesets (700,000 files) and
 * more, in M3's own formats with M3's own checksums, a real etcd with a placement, and an ordinary
 * `astacus server`; restic and borg on the same tree, as plain files, where they are installed.
 * Questions: what do the first backup, an unchanged one, one after a rotated commit log and a flushed
 * block, and a restore take; how many bytes are read for each that changed?
 *
 *     bun bench/m3-large.ts [--filesets 102400] [--shards 64] [--logs MIB] [--scratch DIR] [--json FILE]
 */
import { create, toBinary } from "@bufbuild/protobuf";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { adler32 } from "../src/products/m3/adler32.ts";
import {
  commitLogFileName,
  DATA_PARTS,
  filesetFileName,
} from "../src/products/m3/fileset-names.ts";
import { NamespaceRegistrySchema } from "../src/products/m3/proto/namespaces.pb.ts";
import { PlacementSchema, ShardState } from "../src/products/m3/proto/placement.pb.ts";
import { encodeFilesetInfo } from "../test/products/m3/m3-encoders.ts";
import { startEtcd } from "../scripts/real/etcd.ts";
import { ProcessCluster } from "../scripts/scenario-cluster.ts";
import { runMeasured } from "./measure.ts";
import { findVersion, PEERS } from "./peers.ts";
import { Seeded } from "./seeded.ts";

const MINUTE_NS = 60_000_000_000n;
const FIRST_BLOCK_NS = 1_795_000_000_000_000_000n;
/** M3 flushes its commit log when it has this much. */
const CHUNK_SIZE_BYTES = 512 * 1024;
const NODE = "node1";
const CLOCK_TICKS_PER_S = 100;

type Row = {
  readonly tool: string;
  readonly step: string;
  readonly wallS: number;
  readonly cpuS: number;
  readonly readBytes?: number;
  readonly requests?: Readonly<Record<string, number>>;
  readonly storedBytes?: number;
  readonly peakMib?: number;
};

type Size = { readonly filesets: number; readonly shards: number; readonly logMib: number };

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      filesets: { type: "string", default: "102400" },
      shards: { type: "string", default: "64" },
      logs: { type: "string", default: "256" },
      scratch: { type: "string", default: tmpdir() },
      json: { type: "string" },
    },
  });
  const size: Size = {
    filesets: Number(values.filesets),
    shards: Number(values.shards),
    logMib: Number(values.logs),
  };
  const folder = fs.mkdtempSync(join(values.scratch, "astacus-m3-large-"));
  try {
    const tree = new Tree(join(folder, NODE), size);
    tree.create();
    console.log(`${size.filesets} filesets, ${7 * size.filesets} files are there`);
    const rows = [...(await runOurs(folder, tree)), ...(await runPeers(folder, tree))];
    for (const row of rows) console.log(JSON.stringify(row));
    if (values.json !== undefined) fs.writeFileSync(values.json, JSON.stringify({ size, rows }));
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

/** A node's data directory. */
class Tree {
  readonly root: string;
  readonly #size: Size;
  readonly #seeded = new Seeded("m3-large");
  #nextBlock = 0;
  #log = 0;
  /** Of everything that the last step wrote. */
  changedBytes = 0;

  constructor(root: string, size: Size) {
    this.root = root;
    this.#size = size;
  }

  create(): void {
    for (const name of ["commitlogs", "snapshots", "index/data/default"]) {
      fs.mkdirSync(join(this.root, name), { recursive: true });
    }
    for (let block = 0; block < this.#size.filesets / this.#size.shards; block += 1) {
      this.#flushBlock();
    }
    this.#appendLog(this.#size.logMib * 1024 * 1024);
  }

  /** A block is flushed in every shard, the log is rotated, and the new one grows by 1 % of all. */
  step(): void {
    this.changedBytes = 0;
    this.#flushBlock();
    this.#appendLog(CHUNK_SIZE_BYTES);
    this.#log += 1;
    this.#appendLog((this.#size.logMib * 1024 * 1024) / 100);
  }

  #flushBlock(): void {
    const blockStartNs = FIRST_BLOCK_NS + BigInt(this.#nextBlock) * MINUTE_NS;
    this.#nextBlock += 1;
    for (let shard = 0; shard < this.#size.shards; shard += 1) {
      const folder = join(this.root, "data", "default", String(shard));
      if (blockStartNs === FIRST_BLOCK_NS) fs.mkdirSync(folder, { recursive: true });
      this.#writeFileset(folder, blockStartNs);
    }
  }

  #writeFileset(folder: string, blockStartNs: bigint): void {
    const sizes = { index: 400, summaries: 60, bloomfilter: 80, data: 1200 };
    const digest = new DataView(new ArrayBuffer(4 * DATA_PARTS.length));
    const name = { blockStartNs, volume: 0, isLegacy: false };
    const info = encodeFilesetInfo({ ...name, entryCount: 12, data: new Uint8Array(0) });
    const write = (part: string, bytes: Uint8Array): void => {
      fs.writeFileSync(join(folder, filesetFileName(name, part)), bytes);
      this.changedBytes += bytes.length;
    };
    for (const [index, part] of DATA_PARTS.entries()) {
      const bytes = part === "info" ? info : this.#seeded.bytes(sizes[part]);
      digest.setUint32(4 * index, adler32(bytes), true);
      write(part, bytes);
    }
    const digestBytes = new Uint8Array(digest.buffer);
    write("digest", digestBytes);
    const checkpoint = new DataView(new ArrayBuffer(4));
    checkpoint.setUint32(0, adler32(digestBytes), true);
    write("checkpoint", new Uint8Array(checkpoint.buffer));
  }

  #appendLog(sizeBytes: number): void {
    const path = join(this.root, "commitlogs", commitLogFileName(this.#log));
    for (let done = 0; done < sizeBytes; done += CHUNK_SIZE_BYTES) {
      const data = this.#seeded.bytes(Math.min(CHUNK_SIZE_BYTES, sizeBytes - done));
      const header = new DataView(new ArrayBuffer(12));
      header.setUint32(0, data.length, true);
      header.setUint32(4, adler32(new Uint8Array(header.buffer, 0, 4)), true);
      header.setUint32(8, adler32(data), true);
      fs.appendFileSync(path, new Uint8Array(header.buffer));
      fs.appendFileSync(path, data);
      this.changedBytes += 12 + data.length;
    }
  }
}

async function runOurs(folder: string, tree: Tree): Promise<Row[]> {
  const etcd = await startEtcd({ directory: join(folder, "etcd") });
  if ("missing" in etcd) throw new Error(`etcd: ${etcd.missing}`);
  try {
    await putState(etcd.endpoint, tree);
    const site = join(folder, "site");
    await using cluster = await ProcessCluster.make({
      folder: join(folder, "astacus"),
      site: `{name: disk, type: directory, path: "${site}"}`,
      nodes: [NODE],
      root: `${folder}/{node}`,
      productType: "m3",
      product: [`etcd: {endpoints: ["${etcd.endpoint}"]}`],
    });
    const init = await cluster.run(["site", "init", "-c", cluster.config]);
    if (init.code !== 0) throw new Error(init.stderr);
    await cluster.startAll();
    return await measureOurs(cluster, { tree, site });
  } finally {
    await etcd.kill();
  }
}

async function measureOurs(
  cluster: ProcessCluster,
  { tree, site }: { readonly tree: Tree; readonly site: string },
): Promise<Row[]> {
  const rows: Row[] = [];
  const measure = async (step: string, args: readonly string[]): Promise<void> => {
    const before = { cpuS: readCpu(cluster.pid(NODE)), requests: await cluster.requests() };
    const stored = sizeOfFolder(site);
    const startMs = performance.now();
    const { result } = await cluster.json<{ result: { readBytes?: number } }>(args);
    const wallS = (performance.now() - startMs) / 1000;
    const after = await cluster.requests();
    const requests = Object.fromEntries(
      Object.entries(after)
        .map(([kind, count]) => [kind, count - (before.requests[kind] ?? 0)] as const)
        .filter(([, count]) => count > 0),
    );
    rows.push({
      tool: "astacus",
      step,
      wallS,
      cpuS: readCpu(cluster.pid(NODE)) - before.cpuS,
      requests,
      storedBytes: sizeOfFolder(site) - stored,
      peakMib: Math.round(cluster.readPeak(NODE) / 1024 / 1024),
      ...(result.readBytes === undefined ? {} : { readBytes: result.readBytes }),
    });
    console.log(JSON.stringify(rows.at(-1)));
  };
  await measure("first", ["backup"]);
  // Its stats are too new to be trusted by the next one.
  await Bun.sleep(3_000);
  await measure("unchanged", ["backup"]);
  await measure("unchanged again", ["backup"]);
  tree.step();
  console.log(`the step wrote ${tree.changedBytes} bytes`);
  await measure("grown", ["backup"]);
  const aside = `${tree.root}-aside`;
  fs.renameSync(tree.root, aside);
  fs.mkdirSync(tree.root);
  await measure("restore", ["restore", "--yes"]);
  const compared = Bun.spawnSync(["diff", "-r", tree.root, aside, "-x", ".astacus"]);
  if (compared.exitCode !== 0) throw new Error(compared.stdout.toString().slice(0, 500));
  fs.rmSync(aside, { recursive: true });
  const find = await runMeasured([{ argv: ["find", tree.root, "-printf", "%s %T@ %p\\n"] }]);
  rows.push({ tool: "find -printf", step: "unchanged", ...secondsOf(find) });
  return rows;
}

/** The same tree as plain files; the second round is the one with a block more. */
async function runPeers(folder: string, tree: Tree): Promise<Row[]> {
  const rows: Row[] = [];
  for (const peer of PEERS.filter(({ name }) => name === "restic" || name === "borg")) {
    if (findVersion(peer) === undefined) continue;
    const home = join(folder, peer.name);
    fs.mkdirSync(home);
    const place = { source: tree.root, repository: join(home, "repository"), home };
    await runMeasured(peer.init?.(place) ?? []);
    const measure = async (step: string, name: string): Promise<void> => {
      const cost = await runMeasured(peer.backup(place, name));
      rows.push({ tool: peer.name, step, ...secondsOf(cost) });
      console.log(JSON.stringify(rows.at(-1)));
    };
    await measure("first", "1");
    await measure("unchanged", "2");
    tree.step();
    await measure("grown", "3");
    fs.rmSync(home, { recursive: true, force: true });
  }
  return rows;
}

/** One instance with all shards, available, and one namespace: as M3's coordinator would write them. */
async function putState(endpoint: string, tree: Tree): Promise<void> {
  const shards = fs.readdirSync(join(tree.root, "data/default")).map(Number);
  const placement = create(PlacementSchema, {
    instances: [
      {
        key: NODE,
        value: {
          id: NODE,
          isolationGroup: "a",
          zone: "embedded",
          weight: 100,
          endpoint: "127.0.0.1:9000",
          hostname: "127.0.0.1",
          port: 9000,
          shards: shards
            .toSorted((a, b) => a - b)
            .map((id) => ({ id, state: ShardState.AVAILABLE, sourceId: "" })),
        },
      },
    ],
    replicaFactor: 1,
    shardCount: shards.length,
    isSharded: true,
  });
  const retention = { retentionPeriodNanos: 48n * 60n * MINUTE_NS, blockSizeNanos: MINUTE_NS };
  const namespaces = create(NamespaceRegistrySchema, {
    namespaces: [{ key: "default", value: { writesToCommitLog: true, retention } }],
  });
  const values = {
    "_sd.placement/default_env/m3db": toBinary(PlacementSchema, placement),
    "_kv/default_env/m3db.node.namespaces": toBinary(NamespaceRegistrySchema, namespaces),
  };
  for (const [key, value] of Object.entries(values)) {
    const body = {
      key: Buffer.from(key).toString("base64"),
      value: Buffer.from(value).toString("base64"),
    };
    const answer = await fetch(`${endpoint}/v3/kv/put`, {
      method: "POST",
      body: JSON.stringify(body),
    });
    if (!answer.ok) throw new Error(await answer.text());
  }
}

function secondsOf(cost: { readonly wallMs: number; readonly cpuMs: number }) {
  return { wallS: cost.wallMs / 1000, cpuS: cost.cpuMs / 1000 };
}

/** User and system seconds of a process so far. */
function readCpu(pid: number): number {
  const fields = fs.readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS_PER_S;
}

function sizeOfFolder(folder: string): number {
  return fs
    .readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => fs.statSync(join(folder, name)))
    .reduce((sum, stat) => sum + (stat.isFile() ? stat.size : 0), 0);
}

if (import.meta.main) await main();
