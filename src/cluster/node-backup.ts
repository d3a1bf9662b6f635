/**
 * A node's share of one backup: walks the product's volumes into the repository and answers with
 * the roots of what it stored. Wraps the write path (src/cas/write/backup-writer.ts) with claims that go
 * to the coordinator, and with progress events.
 */
import { AppError } from "../base/error.ts";
import { toHex } from "../base/hex.ts";
import type { Claims, MirrorTarget, NodeProgress } from "../cas/write/backup-writer.ts";
import { NodeBackup } from "../cas/write/backup-writer.ts";
import { localClaims } from "../cas/write/claims.ts";
import type { DataPlane } from "../cas/write/plane.ts";
import type { NodePhaseContext } from "../products/product.ts";
import type { Leased } from "./lease.ts";
import type { NodeAddress } from "./network.ts";
import { callNode } from "./network.ts";
import type { NodeParts } from "./node-parts.ts";
import type { JsonValue, PhaseEvent } from "./protocol.ts";
import {
  CLAIM_BATCH_COUNT_MAX,
  claimAnswerSchema,
  resolveAnswerSchema,
  settleAnswerSchema,
} from "./protocol.ts";

/** One try for a claim; claims are small. */
const CLAIM_TIMEOUT_MS = 30_000;

/** The share of one node in one attempt of a backup. */
export class NodeBackupSession {
  readonly #parts: NodeParts;
  readonly #backup: NodeBackup;
  readonly #plane: DataPlane;
  #closed = false;

  private constructor(parts: NodeParts, backup: NodeBackup, plane: DataPlane) {
    this.#parts = parts;
    this.#backup = backup;
    this.#plane = plane;
  }

  static async open(
    parts: NodeParts,
    options: {
      readonly lease: Leased;
      readonly lookUpAll: boolean;
      /** Sites that get each pack beside the primary. */
      readonly mirrors?: readonly MirrorTarget[];
      readonly emit: (event: PhaseEvent) => void;
    },
  ): Promise<NodeBackupSession> {
    const { config, doors, repository, catalog } = parts;
    const { request, signal } = options.lease;
    await repository.catchUp(signal);
    mustHaveSpace(parts);
    const plane = parts.openPlane();
    try {
      const backup = new NodeBackup({
        repository,
        catalog,
        doors,
        plane,
        source: parts.openSource(),
        claims: claimsFor(parts, options.lease),
        settings: config.backup,
        operation: request.operation,
        node: config.node,
        lookUpAll: options.lookUpAll,
        distrusted: request.distrusted ?? [],
        mirrors: options.mirrors ?? [],
        onProgress: (progress) => options.emit(eventOf(progress)),
        signal,
      });
      return new NodeBackupSession(parts, backup, plane);
    } catch (thrown) {
      await plane[Symbol.asyncDispose]();
      throw thrown;
    }
  }

  async store(context: NodePhaseContext): Promise<JsonValue> {
    for (const volume of this.#parts.product.volumes(context)) {
      await this.#backup.storeVolume(volume);
    }
    return {};
  }

  async settle(): Promise<JsonValue> {
    await this.#backup.settle();
    return {};
  }

  async finish(): Promise<JsonValue> {
    return (await this.#backup.finish()) as unknown as JsonValue;
  }

  /** The backup that holds this share was committed. */
  committed(backup: string): void {
    this.#backup.committed(backup);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#backup[Symbol.dispose]();
    await this.#plane[Symbol.asyncDispose]();
  }
}

function mustHaveSpace(parts: NodeParts): void {
  const { config, doors } = parts;
  const space = doors.files.space(config.dataFolder);
  if (space.freeBytes >= config.backup.minimumFreeSpaceBytes) return;
  throw new AppError(
    "no-space",
    `Node ${config.node} has ${space.freeBytes} bytes free in its data folder, less than the ${config.backup.minimumFreeSpaceBytes} that backup.minimumFreeSpace asks for.`,
    { guidance: "Free some space there, or lower backup.minimumFreeSpace." },
  );
}

function eventOf(progress: NodeProgress): PhaseEvent {
  return {
    files: progress.files,
    bytes: progress.bytes,
    ...(progress.filesTotal === undefined ? {} : { filesTotal: progress.filesTotal }),
    ...(progress.bytesTotal === undefined ? {} : { bytesTotal: progress.bytesTotal }),
    readBytes: progress.readBytes,
    newBytes: progress.newBytes,
    storedBytes: progress.storedBytes,
  };
}

/** Claims at the coordinator; a cluster of one needs none. */
function claimsFor(parts: NodeParts, lease: Leased): Claims {
  const { config, doors } = parts;
  if (config.nodes.length === 1) return localClaims();
  const coordinator: NodeAddress = {
    name: "coordinator",
    address: lease.request.coordinator,
    zone: "",
  };
  const operation = lease.request.operation;
  const options = {
    timeoutMs: CLAIM_TIMEOUT_MS,
    patienceMs: config.nodePatienceMs,
    signal: lease.signal,
  };
  return {
    claim: (ids) =>
      inBatches(ids, async (batch) => {
        const body = { operation, node: config.node, ids: batch.map(toHex) };
        const call = { method: "claim", body, answer: claimAnswerSchema };
        return (await callNode(doors, coordinator, call, options)).ours;
      }),
    settle: async (places) => {
      await inBatches(places, async (batch) => {
        const rows = batch.map((place) => ({ ...place, id: toHex(place.id) }));
        const body = { operation, node: config.node, places: rows };
        const call = { method: "settle", body, answer: settleAnswerSchema };
        await callNode(doors, coordinator, call, options);
        return [];
      });
    },
    resolve: (ids) =>
      inBatches(ids, async (batch) => {
        const body = { operation, node: config.node, ids: batch.map(toHex) };
        const call = { method: "resolve", body, answer: resolveAnswerSchema };
        return (await callNode(doors, coordinator, call, options)).places;
      }),
  };
}

async function inBatches<T, R>(
  items: readonly T[],
  send: (batch: readonly T[]) => Promise<readonly R[]>,
): Promise<R[]> {
  const results: R[] = [];
  for (let start = 0; start < items.length; start += CLAIM_BATCH_COUNT_MAX) {
    results.push(...(await send(items.slice(start, start + CLAIM_BATCH_COUNT_MAX))));
  }
  return results;
}
