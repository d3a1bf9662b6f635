/**
 * The product for plain etcd: a snapshot of the whole database, or the keys below chosen prefixes. An
 * etcd cluster is one thing, whatever the number of its members, so one node of Astacus does it all:
 * it writes what it reads into its scratch folder, which is then stored like any file. What a backup
 * is worth is decided by that node alone.
 *
 * A restore of prefixes writes the keys back; a restore of a snapshot puts the file in its place and
 * says the command that makes members of it, since that takes etcd down.
 */
import assert from "node:assert/strict";
import { z } from "zod";
import { AppError, toAppError } from "../../base/error.ts";
import { joinPath, textFromPath } from "../../base/path.ts";
import type { VolumeSource } from "../../cas/write/volume-source.ts";
import { walkVolume } from "../../cas/write/walk.ts";
import type {
  ClusterOutcome,
  ClusterPhaseContext,
  Json,
  NodePhaseContext,
  Phase,
  PhaseContext,
  Product,
  ProductCheck,
} from "../product.ts";
import { openEtcd } from "./etcd-client.ts";
import type { EtcdClient } from "./etcd-client.ts";
import type { EtcdConfig } from "./etcd-config.ts";
import { disjointRanges, dumpKeys } from "./etcd-dump.ts";
import { loadKeys } from "./etcd-load.ts";
import { encodeText } from "./etcd-messages.ts";
import { saveSnapshot } from "./etcd-snapshot.ts";

const VOLUME = "etcd";
const SNAPSHOT_FILE = "snapshot.db";
const KEYS_FILE = "keys.ndjson";
const PRIVATE_MODE = 0o600;

/** What the manifest says of the etcd that was read. */
const stateSchema = z.strictObject({
  /** The node of Astacus that did it. */
  node: z.string(),
  version: z.string(),
  clusterId: z.string(),
  members: z.array(
    z.strictObject({ name: z.string(), peerUrls: z.array(z.string()), learner: z.boolean() }),
  ),
  /** What was read, sorted; null for a snapshot. */
  ranges: z.array(z.string()).nullable(),
  /** Filled in once it was read. */
  taken: z
    .union([
      z.strictObject({ sizeBytes: z.number(), sha256: z.string(), endpoint: z.string() }),
      z.strictObject({
        revision: z.string(),
        keyCount: z.number(),
        leasedCount: z.number(),
        sizeBytes: z.number(),
      }),
    ])
    .nullable(),
});
/** Where the node that got the snapshot put it. */
const placedSchema = z.object({ file: z.string() });

type EtcdState = z.infer<typeof stateSchema>;

/** An etcd cluster. */
export function createEtcdProduct(config: EtcdConfig): Product {
  return {
    kind: "etcd",
    scratchFolder: joinPath(config.root, ".astacus"),
    backupPhases: [
      { on: "cluster", name: "look", run: async (context) => await look(config, context) },
      { on: "nodes", name: "read", run: async (context) => await read(config, context) },
      { on: "cluster", name: "note", run: async (context) => note(context) },
      { on: "core", name: "store" },
    ],
    restorePhases: restorePhases(config),
    volumes: (context) => volumesOf(context),
    targets: () => [{ volume: VOLUME, root: config.root, extra: "keep" }],
    completeness: (context, present) => {
      const { node } = stateOf(context);
      const complete = present.includes(node);
      return { complete, problems: complete ? [] : [`node ${node} stored nothing`] };
    },
    check: (context) => checkEtcd(config, context),
  };
}

function restorePhases(config: EtcdConfig): readonly Phase[] {
  return [
    { on: "cluster", name: "plan", run: async (context) => await plan(config, context) },
    { on: "core", name: "place" },
    { on: "nodes", name: "write", run: async (context) => await write(config, context) },
    {
      on: "cluster",
      name: "tell",
      run: async (context) => {
        for (const line of restoreCommands(context)) context.say(line);
        return {};
      },
    },
  ];
}

/** Chooses the node that reads; asks etcd what it is. */
async function look(config: EtcdConfig, context: ClusterPhaseContext): Promise<ClusterOutcome> {
  const client = clientOf(config, context);
  // The same one each time, so that its catalog knows what was stored.
  const [reader] = context.nodes.map(({ name }) => name).toSorted();
  assert(reader !== undefined);
  const status = await client.status(context.signal);
  const members = await client.members(context.signal);
  const state: EtcdState = {
    node: reader,
    version: status.version,
    clusterId: status.clusterId.toString(16),
    members: members.map(({ name, peerUrls, learner }) => {
      return { name, peerUrls: [...peerUrls], learner };
    }),
    ranges: config.prefixes === undefined ? null : disjointRanges(config.prefixes),
    taken: null,
  };
  return { state: { etcd: state }, inputs: { "*": { reader } } };
}

async function read(config: EtcdConfig, context: NodePhaseContext): Promise<Json> {
  const { files } = context.doors;
  const { reader } = z.object({ reader: z.string() }).parse(context.input);
  if (reader !== context.node) return {};
  const client = clientOf(config, context);
  const folder = emptyFolder(context);
  const ranges = config.prefixes && disjointRanges(config.prefixes);
  const path = joinPath(folder, ranges === undefined ? SNAPSHOT_FILE : KEYS_FILE);
  const options = { files, path, signal: context.signal };
  if (ranges === undefined) {
    context.say("reading a snapshot of etcd");
    const taken = await saveSnapshot(client, { ...options, timeoutMs: config.snapshotTimeout });
    files.setMode(path, PRIVATE_MODE);
    return taken;
  }
  context.say(`reading ${ranges.length} prefixes and keys from etcd`);
  const { revision, ...counts } = await dumpKeys(client, { ...options, ranges });
  files.setMode(path, PRIVATE_MODE);
  return { ...counts, revision: revision.toString() };
}

function note(context: ClusterPhaseContext): ClusterOutcome {
  const state = stateOf(context);
  const taken = context.results.get("read")?.get(state.node);
  if (taken === undefined) {
    throw new AppError("unavailable", `Node ${state.node} did not say what it read from etcd.`, {
      guidance: "Run the backup again.",
    });
  }
  return { state: { etcd: stateSchema.parse({ ...state, taken }) } };
}

/** Only the reader has the folder. */
function volumesOf(context: NodePhaseContext): readonly VolumeSource[] {
  const { files } = context.doors;
  const root = folderOf(context);
  if (files.lstat(root) === undefined) return [];
  return [
    {
      name: VOLUME,
      root,
      entries: walkVolume({ files, root, onProblem: () => undefined, signal: context.signal }),
      nature: () => "plain",
      ctimeCounts: true,
      onUnreadable: "fail",
    },
  ];
}

/** Says who writes, and proves before anything is placed that etcd can be reached where it must be. */
async function plan(config: EtcdConfig, context: ClusterPhaseContext): Promise<ClusterOutcome> {
  const state = stateOf(context);
  const writer = (context.shares ?? []).find(({ from }) => from === state.node)?.to ?? null;
  if (writer === null) {
    throw new AppError("refused", `Of this backup, only node ${state.node} has anything.`, {
      guidance: `Restore the whole backup, or map ${state.node} to a node.`,
    });
  }
  if (state.ranges !== null) await clientOf(config, context).status(context.signal);
  return { inputs: { "*": { writer, ranges: state.ranges } } };
}

async function write(config: EtcdConfig, context: NodePhaseContext): Promise<Json> {
  const { writer, ranges } = z
    .object({ writer: z.string(), ranges: z.array(z.string()).nullable() })
    .parse(context.input);
  if (writer !== context.node) return {};
  if (ranges === null) return { file: textFromPath(joinPath(config.root, SNAPSHOT_FILE)) };
  if (context.restore?.isPartial === true && context.restore.paths.length > 0) return {};
  const loaded = await loadKeys(clientOf(config, context), {
    files: context.doors.files,
    path: joinPath(config.root, KEYS_FILE),
    ranges,
    extra: config.extra,
    signal: context.signal,
  });
  context.say(
    `etcd: ${loaded.written} keys written, ${loaded.deleted} deleted, ` +
      `${loaded.unchanged} as they were, ${loaded.extraKept} that the backup does not have kept`,
  );
  return loaded;
}

/** What somebody has to do with a snapshot, a line each; empty for prefixes. */
function restoreCommands(context: ClusterPhaseContext): string[] {
  const state = stateOf(context);
  if (state.ranges !== null) return [];
  const answers = context.results.get("write") ?? new Map<string, Json>();
  const placed = [...answers].flatMap(([node, answer]) => {
    const parsed = placedSchema.safeParse(answer);
    return parsed.success ? [{ node, file: parsed.data.file }] : [];
  });
  const [{ node, file } = { node: state.node, file: SNAPSHOT_FILE }] = placed;
  const voters = state.members.filter(({ learner }) => !learner);
  const cluster = voters.flatMap(({ name, peerUrls }) => peerUrls.map((url) => `${name}=${url}`));
  const commands = voters.map(({ name, peerUrls }) =>
    [
      `etcdutl snapshot restore ${file}`,
      `--name ${name}`,
      `--initial-cluster ${cluster.join(",")}`,
      `--initial-advertise-peer-urls ${peerUrls.join(",")}`,
      "--data-dir NEW-DATA-DIR",
    ].join(" "),
  );
  return [
    `The snapshot is at ${file} on node ${node}. Stop every member, copy it to each, and there run, with its own ` +
      "addresses if they changed (etcdctl in place of etcdutl before etcd 3.5):",
    ...commands,
    "Then start each member on its new data directory.",
  ];
}

/** Writes into the folder, and reads from etcd with the rights that a backup needs. */
async function checkEtcd(
  config: EtcdConfig,
  context: PhaseContext,
): Promise<readonly ProductCheck[]> {
  const { files, random } = context.doors;
  const { signal } = context;
  const suffix = Buffer.from(random.bytes(6)).toString("hex");
  const probe = joinPath(config.root, `.astacus-check-${suffix}`);
  const folder = await tryIt(`folder ${textFromPath(config.root)}`, () => {
    files.close(files.open(probe, "create"));
    files.unlink(probe);
    return "can be written";
  });
  const etcd = await tryIt("etcd", async () => {
    const client = clientOf(config, context);
    const { version } = await client.status(signal);
    for (const range of disjointRanges(config.prefixes ?? [])) {
      await client.listPages(encodeText(range), { pageCount: 1, signal }).next();
    }
    const members = await client.members(signal);
    const count = members.length === 1 ? "1 member" : `${members.length} members`;
    return `answers: version ${version}, ${count}`;
  });
  return [folder, etcd];
}

async function tryIt(what: string, attempt: () => string | Promise<string>): Promise<ProductCheck> {
  try {
    return { what, ok: true, message: await attempt() };
  } catch (thrown) {
    const { message, guidance } = toAppError(thrown);
    return { what, ok: false, message, ...(guidance === undefined ? {} : { guidance }) };
  }
}

function stateOf(context: ClusterPhaseContext): EtcdState {
  const parsed = stateSchema.safeParse(context.state["etcd"]);
  if (parsed.success) return parsed.data;
  throw new AppError("damaged", "The backup's manifest does not say what was read from etcd.", {
    guidance: "Verify the backup, or use a version of Astacus as new as the one that made it.",
    cause: parsed.error,
  });
}

function emptyFolder(context: NodePhaseContext): string {
  const { files } = context.doors;
  const folder = folderOf(context);
  if (files.lstat(folder) === undefined) files.makeDirectory(folder, 0o700);
  for (const name of files.readDirectory(folder)) files.unlink(joinPath(folder, name));
  return folder;
}

function folderOf(context: NodePhaseContext): string {
  return joinPath(context.scratch, VOLUME);
}

function clientOf(config: EtcdConfig, context: PhaseContext): EtcdClient {
  return openEtcd(config.etcd, context.doors);
}
