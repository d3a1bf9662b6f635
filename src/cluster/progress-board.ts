/**
 * The progress of all nodes, added up. One board per operation; it only counts and reports.
 */
import type { NodeProgressState, OperationContext } from "./operations.ts";
import type { PhaseEvent } from "./protocol.ts";

const IDLE: NodeProgressState = {
  phase: "",
  state: "waiting",
  files: 0,
  bytes: 0,
  readBytes: 0,
  newBytes: 0,
  storedBytes: 0,
};

/** Adds up what the nodes say and hands it to the operation. */
export class ProgressBoard {
  readonly #context: OperationContext;
  readonly #nodes = new Map<string, NodeProgressState>();

  constructor(context: OperationContext, nodes: readonly string[]) {
    this.#context = context;
    for (const node of nodes) this.#nodes.set(node, IDLE);
  }

  /** A node begins a phase. */
  begin(node: string, phase: string): void {
    const before = this.#nodes.get(node) ?? IDLE;
    this.#set(node, { ...before, phase, state: "running" });
  }

  /** A node says how far it is. */
  event(node: string, event: PhaseEvent): void {
    const before = this.#nodes.get(node) ?? IDLE;
    if (event.message !== undefined) this.#context.say(`${node}: ${event.message}`);
    this.#set(node, { ...before, ...known(event) });
  }

  /** A node ended a phase. */
  end(node: string, state: "done" | "failed", message?: string): void {
    const before = this.#nodes.get(node) ?? IDLE;
    this.#set(node, { ...before, state, ...(message === undefined ? {} : { message }) });
  }

  #set(node: string, next: NodeProgressState): void {
    this.#nodes.set(node, next);
    const all = [...this.#nodes.values()];
    const sum = (pick: (one: NodeProgressState) => number): number =>
      all.reduce((total, one) => total + pick(one), 0);
    const knowsTotal = all.every((one) => one.bytesTotal !== undefined);
    this.#context.progress({
      phase: next.phase,
      files: sum((one) => one.files),
      bytes: sum((one) => one.bytes),
      ...(knowsTotal
        ? {
            filesTotal: sum((one) => one.filesTotal ?? 0),
            bytesTotal: sum((one) => one.bytesTotal ?? 0),
          }
        : {}),
      readBytes: sum((one) => one.readBytes),
      newBytes: sum((one) => one.newBytes),
      storedBytes: sum((one) => one.storedBytes),
      handled: sum((one) => one.files),
      total: sum((one) => one.filesTotal ?? one.files),
      failed: all.filter((one) => one.state === "failed").length,
      nodes: Object.fromEntries(this.#nodes),
    });
  }
}

/** The event without what it does not say. */
function known(event: PhaseEvent): Partial<NodeProgressState> {
  const said = Object.entries(event).filter(([, value]) => value !== undefined);
  return Object.fromEntries(said);
}
