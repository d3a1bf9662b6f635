/**
 * Brings packs to another site by all nodes of the cluster: each takes a batch, and the next when it
 * is done, so that a fast one does more. A node that dies, or lacks one of the sites, is left out for
 * a while and its batch goes to another; what no node takes, this process brings over itself.
 */
import { AppError, toAppError } from "../base/error.ts";
import type { PackArrived, PackOrder, PackTransfer } from "../cas/copy/transfer-pack.ts";
import type { CoordinatorParts } from "./coordinator-parts.ts";
import { transferAll } from "./copy-packs.ts";
import { COPY_PACK_COUNT_MAX, copyPacksAnswerSchema } from "./copy-protocol.ts";
import type { NodeAddress } from "./network.ts";
import { callNode } from "./network.ts";
import type { OperationContext } from "./operations.ts";
import type { OpenSite } from "./site-views.ts";

/** Calls that one node has under way: while one ends, the other keeps it busy. */
const LANES_PER_NODE = 2;
/** A batch is no larger, so that progress and the loss of a node stay small. */
const BATCH_BYTES_MAX = 128 * 1024 * 1024;
/** One try of a call; it streams, and silence is noticed long before. */
const CALL_TIMEOUT_MS = 24 * 3_600_000;
/** How long a node may be silent before another one takes its batch. */
const PATIENCE_MS = 15_000;
/** When a node that failed is asked again. */
const LEFT_OUT_MS = 60_000;

export type SpreadOptions = {
  readonly parts: Pick<CoordinatorParts, "config" | "doors" | "self">;
  readonly context: OperationContext;
  readonly from: OpenSite;
  readonly to: OpenSite;
  /** Hears of bytes as they arrive, and of those that were lost with a node (negative). */
  readonly onBytes: (bytes: number) => void;
};

/** Brings packs over; see the file's header. */
export class SpreadTransfer {
  readonly #options: SpreadOptions;
  readonly #outUntilMs = new Map<string, number>();

  constructor(options: SpreadOptions) {
    this.#options = options;
  }

  /** As `copyBackups` takes it. */
  get transfer(): PackTransfer {
    return async (orders, signal) => {
      const all = signal ?? this.#options.context.signal;
      return await this.#transfer(orders, AbortSignal.any([all, this.#options.context.signal]));
    };
  }

  async #transfer(orders: readonly PackOrder[], signal: AbortSignal): Promise<PackArrived[]> {
    const { parts, from, to, onBytes } = this.#options;
    const { nodes } = parts.config;
    const arrived: PackArrived[] = [];
    const queue = nodes.length > 1 ? batchesOf(orders, nodes.length) : [orders];
    if (nodes.length > 1) {
      const failed = new AbortController();
      const inner = AbortSignal.any([signal, failed.signal]);
      const lanes = this.#usable().flatMap((node) =>
        Array.from({ length: LANES_PER_NODE }, () => this.#lane(node, queue, arrived, inner)),
      );
      const ends = await Promise.allSettled(
        lanes.map((lane) =>
          lane.catch((thrown: unknown) => {
            failed.abort(thrown);
            throw thrown;
          }),
        ),
      );
      signal.throwIfAborted();
      if (failed.signal.aborted) throw failed.signal.reason;
      for (const end of ends) if (end.status === "rejected") throw end.reason;
    }
    for (const batch of queue.splice(0)) {
      arrived.push(
        ...(await transferAll(from.repository.site, to.repository.site, {
          orders: batch,
          sealer: from.repository.sealer,
          signal,
          onArrived: ({ sizeBytes }) => onBytes(sizeBytes),
        })),
      );
    }
    return arrived;
  }

  /** Batch after batch on one node, until there is none, or the node fails. */
  async #lane(
    node: NodeAddress,
    queue: (readonly PackOrder[])[],
    arrived: PackArrived[],
    signal: AbortSignal,
  ): Promise<void> {
    while (!this.#isOut(node)) {
      const batch = queue.shift();
      if (batch === undefined) return;
      let counted = 0;
      const count = (bytes: number): void => {
        this.#options.onBytes(bytes - counted);
        counted = bytes;
      };
      try {
        arrived.push(...(await this.#ask(node, batch, { signal, count })));
      } catch (thrown) {
        count(0);
        signal.throwIfAborted();
        const error = toAppError(thrown);
        if (isNoNodesFault(error)) throw error;
        queue.unshift(batch);
        this.#leaveOut(node, error);
      }
    }
  }

  async #ask(
    node: NodeAddress,
    orders: readonly PackOrder[],
    how: { readonly signal: AbortSignal; readonly count: (bytes: number) => void },
  ): Promise<PackArrived[]> {
    const { parts, context, from, to } = this.#options;
    const body = { from: from.id, to: to.id, orders };
    const answer = await callNode(
      parts.doors,
      node,
      { method: "copy-packs", body, answer: copyPacksAnswerSchema },
      {
        timeoutMs: CALL_TIMEOUT_MS,
        patienceMs: PATIENCE_MS,
        signal: how.signal,
        onEvent: (event) => {
          const { bytes } = event as { bytes?: unknown };
          if (typeof bytes === "number") how.count(bytes);
        },
      },
    );
    const wanted = new Set(orders.map(({ pack }) => pack));
    if (
      answer.arrived.length !== orders.length ||
      answer.arrived.some((one) => !wanted.has(one.pack))
    ) {
      throw new AppError("refused", `Node ${node.name} copied other packs than it was asked for.`);
    }
    how.count(answer.arrived.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0));
    // What this process asked of its sites is counted here already.
    if (node.name !== parts.self.name) context.spent(answer.usage);
    return answer.arrived.map(({ directory, ...rest }) => ({
      ...rest,
      directoryBytes: Uint8Array.from(Buffer.from(directory, "base64")),
    }));
  }

  #usable(): NodeAddress[] {
    return this.#options.parts.config.nodes.filter((node) => !this.#isOut(node));
  }

  #isOut(node: NodeAddress): boolean {
    const until = this.#outUntilMs.get(node.name);
    return until !== undefined && this.#options.parts.doors.clock.monotonic() < until;
  }

  #leaveOut(node: NodeAddress, error: AppError): void {
    const { parts, context } = this.#options;
    if (!this.#isOut(node)) {
      context.say(`${node.name} does not copy for now: ${error.message}`);
    }
    this.#outUntilMs.set(node.name, parts.doors.clock.monotonic() + LEFT_OUT_MS);
  }
}

/** A pack that is damaged, or a site without space, is so from every node. */
function isNoNodesFault(error: AppError): boolean {
  return ["damaged", "no-space", "conflict", "cancelled"].includes(error.kind);
}

function batchesOf(orders: readonly PackOrder[], nodeCount: number): (readonly PackOrder[])[] {
  // So that each lane gets something, and the last ones are not waited for long.
  const fair = Math.ceil(orders.length / (nodeCount * LANES_PER_NODE * 2));
  const countMax = Math.min(COPY_PACK_COUNT_MAX, fair);
  const batches: PackOrder[][] = [];
  let bytes = Infinity;
  for (const order of orders) {
    const last = batches.at(-1);
    const isFull =
      last === undefined || last.length >= countMax || bytes + order.sizeBytes > BATCH_BYTES_MAX;
    if (isFull) batches.push([order]);
    else last.push(order);
    bytes = isFull ? order.sizeBytes : bytes + order.sizeBytes;
  }
  return batches;
}
