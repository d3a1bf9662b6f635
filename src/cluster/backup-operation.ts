/**
 * A backup of the whole cluster: the product's phases with barriers, the core's store, settle and
 * finish among them, then the manifest and the one commit. Nothing is listed before the commit is
 * won; a failed attempt leaves acknowledged packs behind that the next one reuses.
 */
import { AppError, toAppError } from "../base/error.ts";
import { toHex } from "../base/hex.ts";
import type { BackupDraft } from "../cas/write/backup-commit.ts";
import { commitBackup } from "../cas/write/backup-commit.ts";
import { refsOf } from "../cas/write/segment-writer.ts";
import { manifestKey } from "../cas/format/ids.ts";
import type { Manifest } from "../cas/format/manifest.ts";
import { encodeManifest } from "../cas/format/manifest.ts";
import type { ClusterOutcome, Phase } from "../products/product.ts";
import { PHASE_REDO_COUNT_MAX } from "../products/product.ts";
import { manifestOf } from "./backup-manifest.ts";
import { ClaimTable } from "./claims.ts";
import { ClusterSession } from "./cluster-session.ts";
import type { CoordinatorParts } from "./coordinator-parts.ts";
import type { NodeAddress } from "./network.ts";
import type { OperationContext } from "./operations.ts";
import type { PhaseKey } from "./phase-run.ts";
import { PhaseRun } from "./phase-run.ts";
import { ProgressBoard } from "./progress-board.ts";
import type { MirrorReport } from "./mirror-operation.ts";
import { announceMirrors, syncMirrors } from "./mirror-operation.ts";
import type { JsonValue, LeaseMirror, NodeStoredAnswer } from "./protocol.ts";
import { nodeStoredSchema } from "./protocol.ts";
import { withSoundIndex } from "./sound-index.ts";

/** What a finished backup answers. */
export type BackupResult = {
  readonly backup: string;
  readonly name: string;
  readonly sequence: number;
  readonly complete: boolean;
  readonly degraded: boolean;
  readonly problems: readonly string[];
  readonly problemCount: number;
  readonly totals: { files: number; bytes: number; newBytes: number; storedBytes: number };
  readonly readBytes: number;
  readonly attempts: number;
  /** What became of it on each mirror; without mirrors, none. */
  readonly mirrors: readonly MirrorReport[];
};

/** A backup that is in the log, before anybody has looked at mirrors. */
type Landed = Omit<BackupResult, "mirrors">;

type Attempt = {
  readonly session: ClusterSession;
  readonly attempt: number;
  readonly lookUpAll: boolean;
  readonly started: string;
  readonly id: string;
  readonly name: string;
  readonly mirrors: readonly LeaseMirror[];
};

/** Runs a backup with as many attempts as configured. */
export async function runBackup(
  parts: CoordinatorParts,
  context: OperationContext,
  request: { readonly name?: string },
): Promise<BackupResult> {
  const { config, doors } = parts;
  const board = new ProgressBoard(
    context,
    config.nodes.map((node) => node.name),
  );
  const started = new Date(doors.clock.now()).toISOString();
  const id = toHex(doors.random.bytes(16));
  let lookUpAll = false;
  for (let attempt = 0; ; attempt += 1) {
    let announced: readonly LeaseMirror[] = [];
    try {
      announced = await announceMirrors(parts, context.signal);
      const result = await runAttempt(parts, context, board, {
        attempt,
        lookUpAll,
        started,
        id,
        name: request.name ?? started,
        mirrors: announced,
      });
      return { ...result, mirrors: await bringMirrors(parts, context, announced) };
    } catch (thrown) {
      context.signal.throwIfAborted();
      const error = toAppError(thrown);
      const landed = await landedAfterAll(parts, context, id, attempt);
      if (landed !== undefined) {
        return { ...landed, mirrors: await bringMirrors(parts, context, announced) };
      }
      const packsGone = error.context["reason"] === "packs-gone";
      const again = error.retryable || packsGone || error.context["reason"] === "lease-lost";
      if (!again || attempt + 1 >= config.backup.attempts) throw error;
      // Either a cleanup took them, or a row of this node's index has rotted.
      if (packsGone) await parts.repository.rebuildIndex(context.signal);
      lookUpAll ||= packsGone;
      context.say(`Attempt ${attempt + 1} failed: ${error.message} Trying again.`);
    }
  }
}

/** The backup is listed: whatever happens to a mirror is told, and fails nothing. */
async function bringMirrors(
  parts: CoordinatorParts,
  context: OperationContext,
  announced: readonly LeaseMirror[],
): Promise<readonly MirrorReport[]> {
  try {
    return await syncMirrors(parts, context, { announced });
  } catch (thrown) {
    context.say(`The mirrors were not brought up to date: ${toAppError(thrown).message}`);
    return [];
  }
}

/** A commit whose outcome was unknown may have been won: the log says so. */
async function landedAfterAll(
  parts: CoordinatorParts,
  context: OperationContext,
  id: string,
  attempt: number,
): Promise<Landed | undefined> {
  let state;
  try {
    state = await parts.repository.catchUp(context.signal);
  } catch {
    return undefined; // the first error says more
  }
  const backup = state.backups.get(id);
  if (backup === undefined) return undefined;
  return {
    backup: id,
    name: backup.name,
    sequence: backup.sequence,
    complete: backup.complete,
    degraded: backup.degraded === true,
    problems: [],
    problemCount: backup.problems,
    totals: backup.totals,
    readBytes: 0,
    attempts: attempt + 1,
  };
}

async function runAttempt(
  parts: CoordinatorParts,
  context: OperationContext,
  board: ProgressBoard,
  options: Omit<Attempt, "session">,
): Promise<Landed> {
  const { config } = parts;
  using claims = new ClaimTable(parts.claimsDatabase());
  parts.claims.set(context.id, claims);
  try {
    await using session = await ClusterSession.open(
      {
        ...parts,
        context,
        kind: "backup",
        cluster: config.cluster,
        product: parts.product.kind,
        self: parts.self,
        mirrors: options.mirrors,
        patienceMs: config.nodePatienceMs,
        leaseTimeMs: config.leaseTimeMs,
        board,
      },
      config.nodes,
      config.backup.degraded,
    );
    const attempt: Attempt = { ...options, session };
    const run = await runPhases(parts, context, attempt, claims);
    for (const [node, { mirrors }] of run.stored) {
      for (const { name, failed } of mirrors) {
        if (failed === undefined) continue;
        context.say(`Node ${node} left mirror ${name} out, which gets the rest later: ${failed}`);
      }
    }
    const result = await commit(parts, context, attempt, run);
    await session.close(options.id);
    return result;
  } finally {
    parts.claims.delete(context.id);
  }
}

type Run = {
  readonly stored: ReadonlyMap<string, NodeStoredAnswer>;
  readonly phases: PhaseRun;
};

/** All phases in order; a cluster phase may send us back to an earlier one. */
async function runPhases(
  parts: CoordinatorParts,
  context: OperationContext,
  attempt: Attempt,
  claims: ClaimTable,
): Promise<Run> {
  const phases = parts.product.backupPhases;
  const run = new PhaseRun({ parts, context, session: attempt.session });
  let stored: ReadonlyMap<string, NodeStoredAnswer> = new Map();
  let pass = 0;
  await run.guard(phases, async () => {
    for (let index = 0; index < phases.length; index += 1) {
      const phase = phases[index]!;
      const key = { attempt: attempt.attempt, pass };
      context.progress({ phase: phase.name });
      if (phase.on === "cluster") {
        const outcome = await run.onCluster(phase);
        index = redoIndex(phases, index, outcome, pass);
        if (outcome.redo !== undefined) pass += 1;
      } else if (phase.on === "nodes") {
        await run.onNodes(phase.name, key);
      } else if (phase.name === "store") {
        stored = await store(attempt, key, run, claims);
      }
    }
  });
  return { stored, phases: run };
}

function redoIndex(
  phases: readonly Phase[],
  index: number,
  outcome: ClusterOutcome,
  pass: number,
): number {
  if (outcome.redo === undefined) return index;
  const target = phases.findIndex((phase) => phase.name === outcome.redo);
  if (target < 0 || target > index || pass >= PHASE_REDO_COUNT_MAX) {
    throw new AppError(
      "incomplete",
      `The cluster would not hold still: ${outcome.reason ?? outcome.redo}.`,
      {
        guidance: "Run the backup again when schema or topology do not change.",
        retryable: true,
      },
    );
  }
  return target - 1;
}

/** The core's share: store, then settle references among nodes, then finish. */
async function store(
  attempt: Attempt,
  key: PhaseKey,
  run: PhaseRun,
  claims: ClaimTable,
): Promise<Map<string, NodeStoredAnswer>> {
  const { session } = attempt;
  const input = (node: NodeAddress): JsonValue => ({
    lookUpAll: attempt.lookUpAll,
    product: run.inputFor(node),
  });
  // Nobody may wait for the chunks of a node from which nothing more comes.
  await session.phase("store", key, input, (node, outcome) => {
    if (outcome === "failed") claims.ended(node.name);
  });
  await session.phase(
    "settle",
    key,
    () => null,
    (node) => claims.ended(node.name),
  );
  const answers = await session.phase("finish", key, () => null);
  const stored = new Map<string, NodeStoredAnswer>();
  // In the order of names, not of answers: the manifest shows it.
  for (const [node, answer] of [...answers].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    stored.set(node, nodeStoredSchema.parse(answer));
  }
  return stored;
}

/** Writes the manifest and commits the one entry that makes the backup exist. */
async function commit(
  parts: CoordinatorParts,
  context: OperationContext,
  attempt: Attempt,
  run: Run,
): Promise<Landed> {
  const { repository } = parts;
  const { signal } = context;
  context.progress({ phase: "commit" });
  const manifest = describe(parts, attempt, run);
  const shares = [...run.stored.values()];
  using session = repository.beginSession();
  const encoded = encodeManifest(manifest, session);
  const keys = shares.flatMap((share) => share.keys ?? []);
  if (session !== undefined) keys.push(...refsOf([await session.store({ signal })]));
  const birth = repository.state.sequence;
  await repository.putObject(manifestKey(encoded.id, birth), encoded.bytes, { signal });
  const { name, cluster, product, started, ended, complete, totals } = manifest;
  const draft: BackupDraft = {
    backup: attempt.id,
    name,
    cluster,
    product,
    started,
    ended,
    complete,
    ...(manifest.degraded === true ? { degraded: true } : {}),
    problems: manifest.problemCount,
    plannedAt: Math.min(...shares.map((share) => share.plannedAt)),
    manifest: { id: encoded.id, birth, sizeBytes: encoded.bytes.length },
    segments: shares.flatMap((share) => share.segments),
    lists: [...run.stored].map(([node, share]) => ({ node, root: share.list })),
    listPacks: [...new Set(shares.flatMap((share) => share.listPacks))].toSorted(),
    totals,
    ...(keys.length === 0 ? {} : { keys }),
  };
  const how = { operation: context.id, signal };
  const won = await withSoundIndex(repository, signal, () =>
    commitBackup(repository, parts.openSource(), draft, how),
  );
  return {
    backup: attempt.id,
    name: attempt.name,
    sequence: won.sequence,
    complete,
    degraded: manifest.degraded === true,
    problems: manifest.problems.map(({ node, path, message }) =>
      path === "" ? `${node}: ${message}` : `${node}: ${path}: ${message}`,
    ),
    problemCount: manifest.problemCount,
    totals,
    readBytes: shares.reduce((sum, share) => sum + share.totals.readBytes, 0),
    attempts: attempt.attempt + 1,
  };
}

function describe(parts: CoordinatorParts, attempt: Attempt, run: Run): Manifest {
  const { config, product, doors } = parts;
  const { session } = attempt;
  const nodes = config.nodes.map(({ name, zone }) => ({ name, zone }));
  const asked = { ...run.phases.clusterContext, nodes };
  return manifestOf({
    id: attempt.id,
    name: attempt.name,
    cluster: config.cluster,
    product: product.kind,
    started: attempt.started,
    ended: new Date(doors.clock.now()).toISOString(),
    state: run.phases.state as Manifest["state"],
    coordinator: config.node,
    zones: new Map(nodes.map(({ name, zone }) => [name, zone])),
    versions: session.versions,
    stored: run.stored,
    judged: product.completeness(asked, [...run.stored.keys()]),
    missing: new Map([...session.missing].map(([node, error]) => [node, error.message])),
  });
}
