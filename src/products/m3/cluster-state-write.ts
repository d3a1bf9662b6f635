/**
 * Writes a planned state into etcd, and takes it back. One transaction where etcd's limits allow it;
 * otherwise other keys first in batches, placement and namespaces last and together, so that M3 never
 * sees a new placement without the rest. Each transaction compares the revisions of the plan: what
 * somebody else changed meanwhile is not overwritten. A second run of the same write changes nothing.
 *
 * Before a key changes, what it held is put beside it under `astacus/undo/<environment>/<operation>/`,
 * which none of M3's ranges reaches; `undoClusterState` writes it back and removes it.
 */
import { z } from "zod";
import { AppError } from "../../base/error.ts";
import {
  TRANSACTION_OPERATION_COUNT_MAX,
  TRANSACTION_SIZE_BYTES_MAX,
} from "../etcd/etcd-client.ts";
import type { EtcdClient } from "../etcd/etcd-client.ts";
import { encodeText, parsePrefix, showKey, sizeOfTransaction } from "../etcd/etcd-messages.ts";
import type { EtcdCompare, EtcdEntry, EtcdWrite } from "../etcd/etcd-messages.ts";
import type { ClusterStatePlan, StateChange } from "./cluster-state-plan.ts";

/** What a write or an undo did. */
export type StateWritten = {
  /** Keys that were written or deleted now. */
  readonly changedCount: number;
  /** Keys that already were as they should be. */
  readonly doneCount: number;
  readonly transactionCount: number;
};

/** Whose write it is, and how much etcd takes at once. */
export type WriteStateOptions = {
  /** Names the record for the undo; the same for a write that is run again. */
  readonly operation: string;
  readonly signal?: AbortSignal;
  /** Smaller than etcd's own where its flags say so. */
  readonly limits?: WriteLimits;
};

/** What one transaction may hold. */
export type WriteLimits = { readonly operationCount: number; readonly sizeBytes: number };

const DEFAULT_LIMITS: WriteLimits = {
  operationCount: TRANSACTION_OPERATION_COUNT_MAX,
  sizeBytes: TRANSACTION_SIZE_BYTES_MAX,
};

const UNDO_PREFIX = "astacus/undo/";
const LINE_FEED = 0x0a;

const recordSchema = z.strictObject({
  key: z.string().min(1),
  /** False where the key was not there. */
  was: z.boolean(),
  /** SHA-256 of what was written, hex; null where the key was deleted. */
  written: z.string().nullable(),
  last: z.boolean(),
});

type Step = {
  readonly compare: readonly EtcdCompare[];
  readonly writes: readonly EtcdWrite[];
  readonly last: boolean;
};

/** Makes the target hold the plan; `conflict` if it changed since the plan was made. */
export async function writeClusterState(
  client: EtcdClient,
  plan: ClusterStatePlan,
  options: WriteStateOptions,
): Promise<StateWritten> {
  const prefix = undoPrefix(plan.environment, options.operation);
  const signal = options.signal === undefined ? {} : { signal: options.signal };
  const records = await client.readPrefix(parsePrefix(prefix), signal);
  const recorded = new Set(records.entries.map(({ key }) => showKey(key).slice(prefix.length)));
  const steps: Step[] = [];
  for (const change of plan.changes) {
    const there = await client.get(encodeText(change.key), signal);
    if (isDone(change, there)) continue;
    mustBeAsPlanned(change, there);
    steps.push(stepOf(change, recorded.has(change.key) ? undefined : prefix));
  }
  const transactionCount = await runSteps(client, steps, options);
  const doneCount = plan.changes.length - steps.length;
  return { changedCount: steps.length, doneCount, transactionCount };
}

/**
 * Puts back what an operation's write replaced, and removes the record. `conflict` where a key holds
 * neither what was written nor what was there before: somebody else has changed it since.
 */
export async function undoClusterState(
  client: EtcdClient,
  options: WriteStateOptions & { readonly environment: string },
): Promise<StateWritten> {
  const prefix = undoPrefix(options.environment, options.operation);
  const signal = options.signal === undefined ? {} : { signal: options.signal };
  const records = await client.readPrefix(parsePrefix(prefix), signal);
  if (records.entries.length === 0) {
    throw new AppError("not-found", `etcd has no record of operation ${options.operation}.`, {
      guidance: `Records lie below ${UNDO_PREFIX}${options.environment}/; an undo removes its own.`,
    });
  }
  const steps: Step[] = [];
  let doneCount = 0;
  for (const entry of records.entries) {
    const record = parseRecord(entry);
    const there = await client.get(encodeText(record.key), signal);
    const isBack = sameBytes(there?.value, record.previous);
    if (!isBack && hashOf(there?.value) !== record.written) throw changedSince(record.key);
    if (isBack) doneCount += 1;
    const key = encodeText(record.key);
    const back: EtcdWrite =
      record.previous === undefined ? { delete: key } : { put: key, value: record.previous };
    steps.push({
      compare: [{ key, modRevision: there?.modRevision ?? 0n }],
      writes: [...(isBack ? [] : [back]), { delete: entry.key }],
      last: record.last,
    });
  }
  const transactionCount = await runSteps(client, steps, options);
  return { changedCount: steps.length - doneCount, doneCount, transactionCount };
}

/** The operations that can be undone in an environment. */
export async function listUndoRecords(
  client: EtcdClient,
  options: { readonly environment: string; readonly signal?: AbortSignal },
): Promise<string[]> {
  const prefix = `${UNDO_PREFIX}${options.environment}/`;
  const signal = options.signal === undefined ? {} : { signal: options.signal };
  const { entries } = await client.readPrefix(parsePrefix(prefix), signal);
  const operations = entries.map(
    ({ key }) => showKey(key).slice(prefix.length).split("/")[0] ?? "",
  );
  return [...new Set(operations)];
}

/** In one transaction if they fit; the last ones together in any case. */
async function runSteps(
  client: EtcdClient,
  steps: readonly Step[],
  options: WriteStateOptions,
): Promise<number> {
  const limits = options.limits ?? DEFAULT_LIMITS;
  const batches = fits(steps, limits)
    ? [steps]
    : [...batchesOf(steps, limits), steps.filter(({ last }) => last)];
  let transactionCount = 0;
  for (const batch of batches) {
    if (batch.length === 0) continue;
    const transaction = {
      compare: batch.flatMap(({ compare }) => compare),
      writes: batch.flatMap(({ writes }) => writes),
    };
    const { succeeded } = await client.transact(transaction, options.signal);
    transactionCount += 1;
    if (!succeeded && !(await wasDone(client, batch, options.signal))) {
      throw changedSince(showKey(transaction.compare[0]?.key ?? new Uint8Array()));
    }
  }
  return transactionCount;
}

function batchesOf(steps: readonly Step[], limits: WriteLimits): Step[][] {
  const batches: Step[][] = [];
  for (const step of steps) {
    if (step.last) continue;
    const current = batches.at(-1);
    if (current !== undefined && fits([...current, step], limits)) current.push(step);
    else batches.push([step]);
  }
  return batches;
}

function fits(steps: readonly Step[], limits: WriteLimits): boolean {
  const compare = steps.flatMap((step) => step.compare);
  const writes = steps.flatMap((step) => step.writes);
  const operationCount = Math.max(compare.length, writes.length);
  const sizeBytes = sizeOfTransaction({ compare, writes });
  return operationCount <= limits.operationCount && sizeBytes <= limits.sizeBytes;
}

/** A lost answer makes the second try fail its own comparisons: then all is as it should be. */
async function wasDone(
  client: EtcdClient,
  batch: readonly Step[],
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const how = signal === undefined ? {} : { signal };
  for (const { writes } of batch) {
    for (const write of writes) {
      const there = await client.get("put" in write ? write.put : write.delete, how);
      if (!sameBytes(there?.value, "put" in write ? write.value : undefined)) return false;
    }
  }
  return true;
}

/** The change itself and, unless it is there already, the record of what it replaces. */
function stepOf(change: StateChange, undo: string | undefined): Step {
  const key = encodeText(change.key);
  const writes: EtcdWrite[] =
    undo === undefined ? [] : [{ put: encodeText(undo + change.key), value: recordOf(change) }];
  writes.push(change.value === null ? { delete: key } : { put: key, value: bytesOf(change.value) });
  const compare = [{ key, modRevision: BigInt(change.modRevision) }];
  return { compare, writes, last: change.last };
}

/** A line of JSON, then the bytes that were there: values may be as large as etcd takes. */
function recordOf(change: StateChange): Uint8Array {
  const { key, last } = change;
  const written = change.value === null ? null : hashOf(bytesOf(change.value));
  const line = JSON.stringify({ key, was: change.previous !== null, written, last });
  return Buffer.concat([encodeText(`${line}\n`), bytesOf(change.previous ?? "")]);
}

function parseRecord(
  entry: EtcdEntry,
): z.infer<typeof recordSchema> & { readonly previous: Uint8Array | undefined } {
  const end = entry.value.indexOf(LINE_FEED);
  try {
    const line = Buffer.from(entry.value.subarray(0, end)).toString();
    const record = recordSchema.parse(JSON.parse(line));
    return { ...record, previous: record.was ? entry.value.slice(end + 1) : undefined };
  } catch (cause) {
    throw new AppError("damaged", `The record ${showKey(entry.key)} cannot be read.`, {
      guidance: "Take the values from the backup before, or from a snapshot of etcd.",
      cause,
    });
  }
}

function isDone(change: StateChange, there: EtcdEntry | undefined): boolean {
  return sameBytes(there?.value, change.value === null ? undefined : bytesOf(change.value));
}

function mustBeAsPlanned(change: StateChange, there: EtcdEntry | undefined): void {
  if ((there?.modRevision ?? 0n).toString() !== change.modRevision) throw changedSince(change.key);
}

function changedSince(key: string): AppError {
  return new AppError("conflict", `Somebody changed etcd meanwhile, at or near the key ${key}.`, {
    guidance: "Stop what writes to M3's keys (nodes, coordinators, operators), and plan again.",
    context: { key },
  });
}

function undoPrefix(environment: string, operation: string): string {
  return `${UNDO_PREFIX}${environment}/${operation}/`;
}

function sameBytes(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return Buffer.compare(a, b) === 0;
}

function hashOf(bytes: Uint8Array | undefined): string | null {
  return bytes === undefined ? null : new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

function bytesOf(base64: string): Uint8Array {
  return new Uint8Array(Buffer.from(base64, "base64"));
}
