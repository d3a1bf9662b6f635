/**
 * Restore of a backup onto the cluster: a plan that names every share, place and refusal, then
 * exactly that plan, in the product's phases. The backup is pinned while it runs, so that no
 * cleanup takes it away underneath.
 */
import { AppError, toAppError } from "../base/error.ts";
import { pinBackup, dropPin } from "../cas/clean/backup-marks.ts";
import type { Manifest } from "../cas/format/manifest.ts";
import type { BackupRecord } from "../cas/log/state.ts";
import { nothingMatches } from "../cas/read/file-filter.ts";
import { findBackup } from "../cas/log/find-backup.ts";
import type { Json, RestoreChoice } from "../products/product.ts";
import { ClusterSession } from "./cluster-session.ts";
import type { CoordinatorParts } from "./coordinator-parts.ts";
import type { NodeAddress } from "./network.ts";
import { callNode } from "./network.ts";
import type { MapPair } from "./node-map.ts";
import { checkPairs, mapNodes } from "./node-map.ts";
import type { OperationContext } from "./operations.ts";
import { PhaseRun } from "./phase-run.ts";
import { ProgressBoard } from "./progress-board.ts";
import type { Placed, VolumePlan } from "./protocol.ts";
import { placeAnswerSchema, planAnswerSchema } from "./protocol.ts";
import type { FaultyObject } from "./read-faults.ts";
import { describeRepair, distrustFaults, repairFaults } from "./repair.ts";
import type { SiteRepair } from "./repair.ts";
import { withSoundIndex } from "./sound-index.ts";

/** What to restore, and where. */
export type RestoreRequest = {
  /** Name or id; the newest complete backup of this cluster by default. */
  readonly backup?: string;
  /** Some shares only. */
  readonly nodes?: readonly MapPair[];
  /** Only files that match one of these globs. */
  readonly paths?: readonly string[];
  /** Restore a backup that is marked incomplete. */
  readonly incomplete?: boolean;
  /** Of age, where the repository is encrypted: kept in memory, for this restore. */
  readonly identities?: readonly string[];
};

/** What a restore would do. */
export type ClusterRestorePlan = {
  readonly backup: {
    readonly id: string;
    readonly name: string;
    readonly complete: boolean;
    readonly degraded: boolean;
  };
  readonly nodes: readonly (MapPair & {
    readonly zone: string;
    readonly volumes: readonly VolumePlan[];
    readonly refusals: readonly string[];
  })[];
  readonly refusals: readonly string[];
  readonly totals: {
    readonly files: number;
    readonly bytes: number;
    readonly filesToWrite: number;
    readonly bytesToWrite: number;
    readonly bytesToFetch: number;
    readonly filesKept: number;
    readonly extraFiles: number;
  };
  /** At a rate seen on this node before; undefined until one was. */
  readonly estimateMs?: number;
  /** Why it is not the primary that was read. */
  readonly notice?: string;
};

/** What a restore did. */
export type RestoreResult = {
  readonly backup: string;
  readonly name: string;
  readonly nodes: readonly (MapPair & Placed)[];
  readonly totals: Placed;
  /** Objects that a site did not give whole, and what was done about it afterwards. */
  readonly faults: number;
  readonly repairs: readonly SiteRepair[];
};

type Restored = Omit<RestoreResult, "faults" | "repairs">;

/** One try of a plan call: it walks listings and disks. */
const PLAN_TIMEOUT_MS = 3_600_000;

type Chosen = {
  readonly backup: BackupRecord;
  readonly manifest: Manifest;
  readonly pairs: MapPair[];
  /** As the product is told of it. */
  readonly restore: RestoreChoice;
};

/** Shows what `runRestore` with the same request would do; touches nothing. */
export async function planRestore(
  parts: CoordinatorParts,
  request: RestoreRequest,
  signal: AbortSignal,
): Promise<ClusterRestorePlan> {
  const { backup, pairs, restore } = await choose(parts, request, signal);
  const nodes = await Promise.all(
    pairs.map(async (pair) => {
      const node = mustGetNode(parts, pair.to);
      try {
        const answer = await callNode(
          parts.doors,
          node,
          {
            method: "plan",
            body: {
              site: parts.site.id,
              backup: backup.backup,
              from: pair.from,
              ...restore,
              ...identitiesOf(request),
            },
            answer: planAnswerSchema,
          },
          { timeoutMs: PLAN_TIMEOUT_MS, patienceMs: 10_000, signal },
        );
        const refusals = answer.volumes.flatMap((volume) => volume.refusals);
        return { ...pair, zone: node.zone, volumes: answer.volumes, refusals };
      } catch (thrown) {
        signal.throwIfAborted();
        return { ...pair, zone: node.zone, volumes: [], refusals: [toAppError(thrown).message] };
      }
    }),
  );
  const volumes = nodes.flatMap((node) => node.volumes);
  const add = (pick: (volume: VolumePlan) => number): number =>
    volumes.reduce((total, volume) => total + pick(volume), 0);
  return {
    backup: {
      id: backup.backup,
      name: backup.name,
      complete: backup.complete,
      degraded: backup.degraded === true,
    },
    nodes,
    refusals: [
      ...nodes.flatMap((node) => node.refusals.map((refusal) => `${node.to}: ${refusal}`)),
      ...(matchesNothing(nodes, restore.paths) ? [nothingMatches(restore.paths)] : []),
    ],
    totals: {
      files: add((volume) => volume.files),
      bytes: add((volume) => volume.bytes),
      filesToWrite: add((volume) => volume.filesToWrite),
      bytesToWrite: add((volume) => volume.bytesToWrite),
      bytesToFetch: add((volume) => volume.bytesToFetch),
      filesKept: add((volume) => volume.filesKept),
      extraFiles: add((volume) => volume.extraFiles),
    },
  };
}

/** True if no node that is asked has anything of what was chosen; not as long as one has not said. */
function matchesNothing(nodes: ClusterRestorePlan["nodes"], paths: readonly string[]): boolean {
  if (paths.length === 0) return false;
  return nodes.every(
    ({ volumes, refusals }) =>
      (volumes.length > 0 || refusals.length === 0) &&
      volumes.every(({ files, directories, links }) => files + directories + (links ?? 0) === 0),
  );
}

/** Restores; throws before any byte moves if the plan has refusals. */
export async function runRestore(
  parts: CoordinatorParts,
  context: OperationContext,
  request: RestoreRequest,
): Promise<RestoreResult> {
  context.progress({ phase: "plan" });
  const plan = await planRestore(parts, request, context.signal);
  if (plan.refusals.length > 0) {
    throw new AppError("refused", `The restore was refused: ${plan.refusals.join("; ")}`, {
      guidance: "`astacus restore --plan` shows the whole plan.",
    });
  }
  const chosen = await choose(parts, { ...request, backup: plan.backup.id }, context.signal);
  const board = new ProgressBoard(
    context,
    chosen.pairs.map((pair) => pair.to),
  );
  const pin = {
    backup: chosen.backup.backup,
    pin: context.id,
    reason: "restore",
    operation: context.id,
    signal: context.signal,
  };
  const isPinned = mayPin(parts);
  if (isPinned) {
    await withSoundIndex(parts.repository, context.signal, () =>
      pinBackup(parts.repository, parts.openSource, pin),
    );
  }
  const faults: FaultyObject[] = [];
  try {
    const result = await withAttempts(parts, context, (attempt) =>
      runAttempt(parts, context, board, { request, chosen, attempt, faults }),
    );
    return { ...result, ...(await repairAfter(parts, context, faults)) };
  } finally {
    if (isPinned) await unpin(parts, context);
  }
}

/** From an archive, and from a site whose log has ended, nothing is removed, and nothing is written there. */
function mayPin({ sites, site, repository }: CoordinatorParts): boolean {
  const role = sites.last?.sites.find(({ id }) => id === site.id)?.role;
  return role !== "archive" && repository.state.closed === undefined;
}

/** Everything is in place, and no lease waits for this. */
async function repairAfter(
  parts: CoordinatorParts,
  context: OperationContext,
  found: readonly FaultyObject[],
): Promise<Pick<RestoreResult, "faults" | "repairs">> {
  const all = [...found, ...parts.sites.faults.take()];
  const faults = [...new Map(all.map((one) => [`${one.site} ${one.id}`, one])).values()];
  if (faults.length === 0 || parts.config.repair === false) {
    try {
      await distrustFaults(parts.sites, faults, context.signal);
    } catch (thrown) {
      context.say(`What was found bad could not be remembered: ${toAppError(thrown).message}`);
    }
    return { faults: faults.length, repairs: [] };
  }
  context.progress({ phase: "repair" });
  const how = { operation: context.id, signal: context.signal };
  const repairs = await repairFaults(parts.sites, faults, how);
  for (const repair of repairs) context.say(describeRepair(repair));
  return { faults: faults.length, repairs };
}

/** A node that restarted has lost its lease and nothing else: what was placed stays. */
async function withAttempts<T>(
  parts: CoordinatorParts,
  context: OperationContext,
  work: (attempt: number) => Promise<T>,
): Promise<T> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await work(attempt);
    } catch (thrown) {
      context.signal.throwIfAborted();
      const error = toAppError(thrown);
      const again = error.retryable || error.context["reason"] === "lease-lost";
      if (!again || attempt + 1 >= parts.config.backup.attempts) throw error;
      context.say(`Attempt ${attempt + 1} failed: ${error.message} Trying again.`);
    }
  }
}

async function runAttempt(
  parts: CoordinatorParts,
  context: OperationContext,
  board: ProgressBoard,
  at: {
    readonly request: RestoreRequest;
    readonly chosen: Chosen;
    readonly attempt: number;
    /** Filled. */
    readonly faults: FaultyObject[];
  },
): Promise<Restored> {
  const { chosen } = at;
  await using session = await ClusterSession.open(
    {
      ...parts,
      context,
      kind: "restore",
      cluster: parts.config.cluster,
      product: parts.product.kind,
      patienceMs: parts.config.nodePatienceMs,
      leaseTimeMs: parts.config.leaseTimeMs,
      board,
      restoreOf: (node) => {
        const { isPartial, paths } = chosen.restore;
        return { isPartial, paths: [...paths], from: mustGetPair(chosen.pairs, node.name).from };
      },
    },
    chosen.pairs.map((pair) => mustGetNode(parts, pair.to)),
    false,
  );
  const placed = await runPhases(parts, context, { ...at, session });
  await session.close(null);
  return resultOf(chosen, placed);
}

/** The pin goes even when the operation was cancelled; cleanup drops it later if the site is away. */
async function unpin(parts: CoordinatorParts, context: OperationContext): Promise<void> {
  try {
    await dropPin(parts.repository, { pin: context.id, operation: context.id });
  } catch (thrown) {
    context.say(
      `The pin of this restore stays until a cleanup drops it: ${toAppError(thrown).message}`,
    );
  }
}

async function runPhases(
  parts: CoordinatorParts,
  context: OperationContext,
  at: {
    readonly request: RestoreRequest;
    readonly chosen: Chosen;
    readonly session: ClusterSession;
    readonly attempt: number;
    readonly faults: FaultyObject[];
  },
): Promise<Map<string, Placed>> {
  const { chosen, session, request } = at;
  const state = chosen.manifest.state as { readonly [key: string]: Json };
  const extra = { shares: chosen.pairs, restore: chosen.restore };
  const run = new PhaseRun({ parts, context, session, state, extra });
  const placed = new Map<string, Placed>();
  const key = { attempt: at.attempt, pass: 0 };
  const phases = parts.product.restorePhases;
  await run.guard(phases, async () => {
    for (const phase of phases) {
      context.progress({ phase: phase.name });
      if (phase.on === "cluster") {
        await run.onCluster(phase);
      } else if (phase.on === "nodes") {
        await run.onNodes(phase.name, key);
      } else if (phase.name === "place") {
        const answers = await session.phase("place", key, (node) => ({
          backup: chosen.backup.backup,
          from: mustGetPair(chosen.pairs, node.name).from,
          paths: [...(request.paths ?? [])],
          ...identitiesOf(request),
          product: run.inputFor(node),
        }));
        for (const [node, answer] of answers) {
          const { faults, ...rest } = placeAnswerSchema.parse(answer);
          placed.set(node, rest);
          at.faults.push(...faults);
        }
      }
    }
  });
  return placed;
}

async function choose(
  parts: CoordinatorParts,
  request: RestoreRequest,
  signal: AbortSignal,
): Promise<Chosen> {
  const state = await parts.repository.catchUp(signal);
  const backup = findBackup(state, request.backup, parts.config.cluster);
  if (!backup.complete && request.incomplete !== true) {
    throw new AppError(
      "refused",
      `Backup ${backup.name} is marked incomplete (${backup.problems} problems).`,
      {
        guidance: "`astacus show` lists them; add --incomplete to restore what it has.",
      },
    );
  }
  const manifest = await parts.site.readManifest(backup, signal, request.identities);
  if (manifest.product !== parts.product.kind) {
    throw new AppError(
      "refused",
      `Backup ${backup.name} is of product ${manifest.product}; this cluster is configured for ${parts.product.kind}.`,
      { guidance: "Restore its files with --to DIRECTORY, or configure the right product." },
    );
  }
  const pairs =
    request.nodes === undefined
      ? mapNodes(manifest.nodes, parts.config.nodes)
      : checkPairs(request.nodes, manifest.nodes, parts.config.nodes);
  const { paths = [] } = request;
  const isWhole = manifest.nodes.every(({ name }) => pairs.some(({ from }) => from === name));
  const restore = { isPartial: paths.length > 0 || !isWhole, paths };
  return { backup, manifest, pairs, restore };
}

function identitiesOf({ identities }: RestoreRequest): { identities?: string[] } {
  return identities === undefined ? {} : { identities: [...identities] };
}

function resultOf(chosen: Chosen, placed: ReadonlyMap<string, Placed>): Restored {
  const nodes = chosen.pairs.flatMap((pair) => {
    const one = placed.get(pair.to);
    return one === undefined ? [] : [{ ...pair, ...one }];
  });
  const add = (pick: (one: Placed) => number): number =>
    nodes.reduce((total, one) => total + pick(one), 0);
  return {
    backup: chosen.backup.backup,
    name: chosen.backup.name,
    nodes,
    totals: {
      filesWritten: add((one) => one.filesWritten),
      bytesWritten: add((one) => one.bytesWritten),
      filesKept: add((one) => one.filesKept),
      filesRemoved: add((one) => one.filesRemoved),
      ownersNotSet: add((one) => one.ownersNotSet),
      fetchedBytes: add((one) => one.fetchedBytes),
    },
  };
}

function mustGetNode(parts: CoordinatorParts, name: string): NodeAddress {
  const node = parts.config.nodes.find((candidate) => candidate.name === name);
  if (node !== undefined) return node;
  throw new AppError("not-found", `This cluster has no node ${name}.`, {
    guidance: `Its nodes are ${parts.config.nodes.map((one) => one.name).join(", ")}.`,
  });
}

function mustGetPair(pairs: readonly MapPair[], to: string): MapPair {
  const pair = pairs.find((candidate) => candidate.to === to);
  if (pair !== undefined) return pair;
  throw new AppError("internal", `No share is planned for node ${to}.`);
}
