/**
 * A backup of the whole cluster: the product's phases with barriers, the core's store, settle and
 * finish among them, then the manifest and the one commit. Nothing is listed before the commit is
 * won; a failed attempt leaves acknowledged packs behind that the next one reuses.
 */
import { AppError, toAppError } from "../base/error.ts";
import { toHex } from "../base/hex.ts";
import { commitBackup } from "../cas/backup-commit.ts";
import type { Manifest } from "../cas/manifest.ts";
import { encodeManifest } from "../cas/manifest.ts";
import type { ClusterOutcome, ClusterPhaseContext, Json, Phase } from "../products/product.ts";
import { PHASE_REDO_COUNT_MAX } from "../products/product.ts";
import { ClaimTable } from "./claims.ts";
import { ClusterSession } from "./cluster-session.ts";
import type { CoordinatorParts } from "./coordinator-parts.ts";
import type { NodeAddress } from "./network.ts";
import type { OperationContext } from "./operations.ts";
import { ProgressBoard } from "./progress-board.ts";
import type { JsonValue, NodeStoredAnswer } from "./protocol.ts";
import { nodeStoredSchema } from "./protocol.ts";

/** What a finished backup answers. */
export type BackupResult = {
  readonly backup: string;
  readonly name: string;
  readonly sequence: number;
  readonly complete: boolean;
  readonly problems: readonly string[];
  readonly problemCount: number;
  readonly totals: { files: number; bytes: number; newBytes: number; storedBytes: number };
  readonly readBytes: number;
  readonly attempts: number;
};

/** Problems kept in a manifest. */
const PROBLEM_COUNT_MAX = 1_000;

type Attempt = {
  readonly session: ClusterSession;
  readonly attempt: number;
  readonly lookUpAll: boolean;
  readonly started: string;
  readonly id: string;
  readonly name: string;
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
    try {
      return await runAttempt(parts, context, board, {
        attempt,
        lookUpAll,
        started,
        id,
        name: request.name ?? started,
      });
    } catch (thrown) {
      context.signal.throwIfAborted();
      const error = toAppError(thrown);
      const landed = await landedAfterAll(parts, context, id, attempt);
      if (landed !== undefined) return landed;
      const packsGone = error.context["reason"] === "packs-gone";
      const again = error.retryable || packsGone || error.context["reason"] === "lease-lost";
      if (!again || attempt + 1 >= config.backup.attempts) throw error;
      lookUpAll ||= packsGone;
      context.say(`Attempt ${attempt + 1} failed: ${error.message} Trying again.`);
    }
  }
}

/** A commit whose outcome was unknown may have been won: the log says so. */
async function landedAfterAll(
  parts: CoordinatorParts,
  context: OperationContext,
  id: string,
  attempt: number,
): Promise<BackupResult | undefined> {
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
): Promise<BackupResult> {
  const { config } = parts;
  using claims = new ClaimTable(parts.claimsDatabase());
  parts.claims.set(context.id, claims);
  try {
    await using session = await ClusterSession.open(
      { ...parts, context, kind: "backup", cluster: config.cluster, self: parts.self, patienceMs: config.nodePatienceMs, board },
      config.nodes,
      config.backup.degraded,
    );
    const attempt: Attempt = { ...options, session };
    const run = await runPhases(parts, context, attempt, claims);
    const result = await commit(parts, context, attempt, run);
    await session.close(options.id);
    return result;
  } finally {
    parts.claims.delete(context.id);
  }
}

type Run = {
  readonly stored: ReadonlyMap<string, NodeStoredAnswer>;
  readonly results: ReadonlyMap<string, ReadonlyMap<string, Json>>;
  readonly state: { readonly [key: string]: Json };
};

/** All phases in order; a cluster phase may send us back to an earlier one. */
async function runPhases(
  parts: CoordinatorParts,
  context: OperationContext,
  attempt: Attempt,
  claims: ClaimTable,
): Promise<Run> {
  const phases = parts.product.backupPhases;
  const results = new Map<string, ReadonlyMap<string, Json>>();
  let state: { readonly [key: string]: Json } = {};
  let inputs: { readonly [node: string]: Json } = {};
  let stored: ReadonlyMap<string, NodeStoredAnswer> = new Map();
  let pass = 0;
  try {
    for (let index = 0; index < phases.length; index += 1) {
      const phase = phases[index]!;
      context.progress({ phase: phase.name });
      if (phase.on === "cluster") {
        const outcome = await phase.run(clusterContext(parts, context, attempt, results, state));
        state = { ...state, ...outcome.state };
        inputs = { ...inputs, ...outcome.inputs };
        index = redoIndex(phases, index, outcome, pass);
        if (outcome.redo !== undefined) pass += 1;
      } else if (phase.on === "nodes") {
        results.set(phase.name, await onNodes(attempt, phase.name, pass, inputs));
      } else if (phase.name === "store") {
        stored = await store(attempt, pass, inputs, claims);
      }
    }
  } catch (thrown) {
    await runAlways(parts, context, attempt, { phases, results, state, inputs, pass });
    throw thrown;
  }
  return { stored, results, state };
}

/** After a failure: what must run anyway; its own failures are only said. */
async function runAlways(
  parts: CoordinatorParts,
  context: OperationContext,
  attempt: Attempt,
  at: {
    readonly phases: readonly Phase[];
    readonly results: ReadonlyMap<string, ReadonlyMap<string, Json>>;
    readonly state: { readonly [key: string]: Json };
    readonly inputs: { readonly [node: string]: Json };
    readonly pass: number;
  },
): Promise<void> {
  for (const phase of at.phases) {
    if (phase.on === "core" || phase.always !== true) continue;
    try {
      if (phase.on === "nodes") await onNodes(attempt, phase.name, at.pass, at.inputs);
      else await phase.run(clusterContext(parts, context, attempt, at.results, at.state));
    } catch (thrown) {
      context.say(`${phase.name} after the failure: ${toAppError(thrown).message}`);
    }
  }
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
    throw new AppError("incomplete", `The cluster would not hold still: ${outcome.reason ?? outcome.redo}.`, {
      guidance: "Run the backup again when schema or topology do not change.",
      retryable: true,
    });
  }
  return target - 1;
}

function onNodes(
  attempt: Attempt,
  name: string,
  pass: number,
  inputs: { readonly [node: string]: Json },
): Promise<Map<string, JsonValue>> {
  const key = { attempt: attempt.attempt, pass };
  return attempt.session.phase(name, key, (node) => inputFor(node, inputs));
}

function inputFor(node: NodeAddress, inputs: { readonly [node: string]: Json }): JsonValue {
  return (inputs[node.name] ?? inputs["*"] ?? null) as JsonValue;
}

/** The core's share: store, then settle references among nodes, then finish. */
async function store(
  attempt: Attempt,
  pass: number,
  inputs: { readonly [node: string]: Json },
  claims: ClaimTable,
): Promise<Map<string, NodeStoredAnswer>> {
  const { session } = attempt;
  const key = { attempt: attempt.attempt, pass };
  await session.phase("store", key, (node) => ({
    lookUpAll: attempt.lookUpAll,
    product: inputFor(node, inputs),
  }));
  for (const node of session.nodes) claims.finished(node.name);
  await session.phase("settle", key, () => null);
  const answers = await session.phase("finish", key, () => null);
  const stored = new Map<string, NodeStoredAnswer>();
  for (const [node, answer] of answers) stored.set(node, nodeStoredSchema.parse(answer));
  return stored;
}

function clusterContext(
  parts: CoordinatorParts,
  context: OperationContext,
  attempt: Attempt,
  results: ReadonlyMap<string, ReadonlyMap<string, Json>>,
  state: { readonly [key: string]: Json },
): ClusterPhaseContext {
  return {
    doors: parts.doors,
    operation: context.id,
    signal: context.signal,
    say: (message) => context.say(message),
    nodes: attempt.session.nodes.map((node) => ({ name: node.name, zone: node.zone })),
    results,
    state,
  };
}

/** Writes the manifest and commits the one entry that makes the backup exist. */
async function commit(
  parts: CoordinatorParts,
  context: OperationContext,
  attempt: Attempt,
  run: Run,
): Promise<BackupResult> {
  const { doors, repository, config, product } = parts;
  context.progress({ phase: "commit" });
  const judged = product.completeness(
    clusterContext(parts, context, attempt, run.results, run.state),
    [...run.stored.keys()],
  );
  const missing = [...attempt.session.missing].map(
    ([node, error]) => `node ${node} is missing: ${error.message}`,
  );
  const problems = [...judged.problems, ...missing];
  const problemCount =
    problems.length + sum(run.stored, (node) => node.problemCount);
  const totals = {
    files: sum(run.stored, (node) => node.totals.files),
    bytes: sum(run.stored, (node) => node.totals.bytes),
    newBytes: sum(run.stored, (node) => node.totals.newBytes),
    storedBytes: sum(run.stored, (node) => node.totals.storedBytes),
  };
  const complete = judged.complete && missing.length === 0 && problemCount === 0;
  const ended = new Date(doors.clock.now()).toISOString();
  const manifest = manifestOf(parts, attempt, run, { complete, ended, problems, problemCount, totals });
  const encoded = encodeManifest(manifest);
  const birth = repository.state.sequence;
  await repository.putObject(`manifest/${encoded.id}-${birth}`, encoded.bytes, {
    signal: context.signal,
  });
  using source = parts.openSource();
  const won = await commitBackup(
    repository,
    source,
    {
      backup: attempt.id,
      name: attempt.name,
      cluster: config.cluster,
      product: product.kind,
      started: attempt.started,
      ended,
      complete,
      problems: problemCount,
      plannedAt: Math.min(...[...run.stored.values()].map((node) => node.plannedAt)),
      manifest: { id: encoded.id, birth, sizeBytes: encoded.bytes.length },
      segments: [...run.stored.values()].flatMap((node) => node.segments),
      lists: [...run.stored].map(([node, share]) => ({ node, root: share.list })),
      listPacks: [...new Set([...run.stored.values()].flatMap((node) => node.listPacks))].toSorted(),
      totals,
    },
    { operation: context.id, signal: context.signal },
  );
  return {
    backup: attempt.id,
    name: attempt.name,
    sequence: won.sequence,
    complete,
    problems: problems.slice(0, PROBLEM_COUNT_MAX),
    problemCount,
    totals,
    readBytes: sum(run.stored, (node) => node.totals.readBytes),
    attempts: attempt.attempt + 1,
  };
}

function manifestOf(
  parts: CoordinatorParts,
  attempt: Attempt,
  run: Run,
  end: {
    readonly complete: boolean;
    readonly ended: string;
    readonly problems: readonly string[];
    readonly problemCount: number;
    readonly totals: BackupResult["totals"];
  },
): Manifest {
  const zones = new Map(parts.config.nodes.map((node) => [node.name, node.zone]));
  const ofCluster = end.problems.map((message) => ({
    node: "",
    path: "",
    kind: "cluster" as const,
    message,
  }));
  const ofNodes = [...run.stored].flatMap(([node, share]) =>
    share.problems.map((problem) => ({ node, ...problem })),
  );
  return {
    v: 0,
    backup: attempt.id,
    name: attempt.name,
    cluster: parts.config.cluster,
    product: parts.product.kind,
    started: attempt.started,
    ended: end.ended,
    complete: end.complete,
    state: run.state as Manifest["state"],
    nodes: [...run.stored].map(([node, share]) => ({
      name: node,
      zone: zones.get(node) ?? "",
      version: parts.version,
      volumes: share.volumes,
      list: share.list,
      totals: {
        files: share.totals.files,
        bytes: share.totals.bytes,
        newBytes: share.totals.newBytes,
        storedBytes: share.totals.storedBytes,
      },
    })),
    problems: [...ofCluster, ...ofNodes].slice(0, PROBLEM_COUNT_MAX),
    problemCount: end.problemCount,
    totals: end.totals,
  };
}

function sum<T>(map: ReadonlyMap<string, T>, pick: (value: T) => number): number {
  let total = 0;
  for (const value of map.values()) total += pick(value);
  return total;
}
