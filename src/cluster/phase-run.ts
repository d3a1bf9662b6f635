/**
 * What the product's phases have come to in one attempt at an operation: answers by phase and node,
 * state for (or from) the manifest, inputs for the nodes. Backup and restore run through this, so
 * that a phase sees the same things in both. Memory: what the phases answer, nothing else.
 */
import type { ClusterOutcome, ClusterPhaseContext, Json, Phase } from "../products/product.ts";
import { runAlways } from "./always-phases.ts";
import type { ClusterSession } from "./cluster-session.ts";
import type { CoordinatorParts } from "./coordinator-parts.ts";
import type { NodeAddress } from "./network.ts";
import type { OperationContext } from "./operations.ts";
import type { JsonValue } from "./protocol.ts";

/** Where a phase stands; a node that is asked twice with one key gives the same answer twice. */
export type PhaseKey = { readonly attempt: number; readonly pass: number };

/** What a run begins with. */
export type PhaseRunOptions = {
  readonly parts: Pick<CoordinatorParts, "doors">;
  readonly context: OperationContext;
  readonly session: Pick<ClusterSession, "nodes" | "phase">;
  /** State of the manifest, at restore. */
  readonly state?: { readonly [key: string]: Json };
  /** What cluster phases of a restore are told besides. */
  readonly extra?: Pick<ClusterPhaseContext, "shares" | "restore">;
};

/** The phases of one attempt; see the file's header. */
export class PhaseRun {
  readonly results = new Map<string, ReadonlyMap<string, Json>>();
  readonly state: { [key: string]: Json };
  readonly #options: PhaseRunOptions;
  readonly #inputs: { [node: string]: Json } = {};

  constructor(options: PhaseRunOptions) {
    this.#options = options;
    this.state = { ...options.state };
  }

  /** What a cluster phase is given now. */
  get clusterContext(): ClusterPhaseContext {
    const { parts, context, session, extra } = this.#options;
    return {
      doors: parts.doors,
      operation: context.id,
      signal: context.signal,
      say: (message) => context.say(message),
      nodes: session.nodes.map((node) => ({ name: node.name, zone: node.zone })),
      results: this.results,
      state: this.state,
      ...extra,
    };
  }

  /** What cluster phases have left for a node, or for everybody. */
  inputFor(node: NodeAddress): JsonValue {
    return (this.#inputs[node.name] ?? this.#inputs["*"] ?? null) as JsonValue;
  }

  /** Runs a phase of the coordinator's, and keeps what it says. */
  async onCluster(phase: Extract<Phase, { on: "cluster" }>): Promise<ClusterOutcome> {
    const outcome = await phase.run(this.clusterContext);
    Object.assign(this.state, outcome.state);
    Object.assign(this.#inputs, outcome.inputs);
    return outcome;
  }

  /** Runs a phase of the product's on all nodes, and keeps their answers. */
  async onNodes(name: string, key: PhaseKey): Promise<void> {
    const { session } = this.#options;
    this.results.set(name, await session.phase(name, key, (node) => this.inputFor(node)));
  }

  /** Does `work`; if it fails, the phases that must run anyway do so first. */
  async guard<T>(phases: readonly Phase[], work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (thrown) {
      await runAlways(phases, this.clusterContext);
      throw thrown;
    }
  }
}
